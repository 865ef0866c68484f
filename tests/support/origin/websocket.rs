//! A WebSocket server that says back what it hears, and the frames for both ends.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Request;

pub const CLOSE: u8 = 8;

/// One frame; always a whole message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    /// As it stands on the wire; a client masks.
    pub fn encode(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut out = vec![0x80 | self.opcode];
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match self.payload.len() {
            n @ 0..=125 => out.push(masked | n as u8),
            n @ 126..=0xffff => {
                out.push(masked | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(masked | 127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        let key = mask.unwrap_or_default();
        out.extend(mask.iter().flatten());
        out.extend(self.payload.iter().zip(key.iter().cycle()).map(|(b, k)| b ^ k));
        out
    }

    pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let (first, second) = (io.read_u8().await?, io.read_u8().await?);
        let length = match second & 0x7f {
            126 => u64::from(io.read_u16().await?),
            127 => io.read_u64().await?,
            n => u64::from(n),
        };
        if length > 64 << 20 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an endless frame"));
        }
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            io.read_exact(&mut key).await?;
        }
        let mut payload = vec![0; length as usize];
        io.read_exact(&mut payload).await?;
        payload.iter_mut().zip(key.iter().cycle()).for_each(|(b, k)| *b ^= k);
        Ok(Self { opcode: first & 0x0f, payload })
    }
}

/// The accept key is not computed: our own clients don't ask for it.
pub(super) async fn serve<S>(io: &mut S, request: &Request) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let key = request.header("sec-websocket-key").unwrap_or_default();
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {key}\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await?;
    io.flush().await?;
    loop {
        let frame = Frame::read(io).await?;
        io.write_all(&frame.encode(None)).await?;
        io.flush().await?;
        if frame.opcode == CLOSE {
            return Ok(());
        }
    }
}
