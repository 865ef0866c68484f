//! A WebSocket server: OpenAI's Responses and Realtime with permessage-deflate, and elsewhere one
//! that says back what it hears. And the frames for both ends.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::{Directives, Served, Surface};
use super::bedrock::base64;
use super::{Request, Shared, gemini, openai};

pub const TEXT: u8 = 1;
const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const COMPRESSED: u8 = 0x40;
/// What a compressed message ends with, and leaves out.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// One frame; always a whole message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    /// With the bit that says "compressed".
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
        Self::read_fragment(io).await.map(|(frame, _)| frame)
    }

    /// A frame, and whether it is the last of its message.
    async fn read_fragment(io: &mut (impl AsyncRead + Unpin)) -> io::Result<(Self, bool)> {
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
        Ok((Self { opcode: first & 0x4f, payload }, first & 0x80 != 0))
    }
}

pub(super) async fn serve<S>(io: &mut S, request: &Request, shared: &Shared) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if shared.scripted(request.path()).is_some() {
        // Whatever it says: no WebSocket here.
        let head =
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        io.write_all(head.as_bytes()).await?;
        return io.flush().await;
    }
    let offered = request.header("sec-websocket-extensions").unwrap_or_default();
    let deflate = offered.contains("permessage-deflate");
    let extension = if deflate { "Sec-WebSocket-Extensions: permessage-deflate\r\n" } else { "" };
    let accept = accept(request.header("sec-websocket-key").unwrap_or_default());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         {extension}Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    io.write_all(head.as_bytes()).await?;
    io.flush().await?;
    match request.path() {
        "/v1/responses" | "/backend-api/codex/responses" | "/responses" => {
            Model::new(io, shared, deflate, false).talk(request).await
        }
        "/v1/realtime" => Model::new(io, shared, deflate, true).talk(request).await,
        path if path.ends_with("/BidiGenerateContent") || path.contains(".BidiGenerateContent") => {
            Model::new(io, shared, deflate, false).talk_live(request).await
        }
        _ => echo(io).await,
    }
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(io: &mut S) -> io::Result<()> {
    loop {
        let frame = Frame::read(io).await?;
        io.write_all(&frame.encode(None)).await?;
        io.flush().await?;
        if frame.opcode == CLOSE {
            return Ok(());
        }
    }
}

/// The model's end of one WebSocket. Both windows are taken over from message to message.
struct Model<'s, S> {
    io: &'s mut S,
    shared: &'s Shared,
    deflate: bool,
    realtime: bool,
    /// Of its messages.
    opcode: u8,
    inflate: Decompress,
    compress: Compress,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Model<'s, S> {
    fn new(io: &'s mut S, shared: &'s Shared, deflate: bool, realtime: bool) -> Self {
        let (inflate, compress) =
            (Decompress::new(false), Compress::new(Compression::default(), false));
        Self { io, shared, deflate, realtime, opcode: TEXT, inflate, compress }
    }

    async fn talk(&mut self, request: &Request) -> io::Result<()> {
        let model = request.target.split("model=").nth(1).unwrap_or_default().to_owned();
        if self.realtime {
            let session =
                json!({ "type": "realtime", "model": model, "object": "realtime.session" });
            self.say(&json!({ "type": "session.created", "event_id": "e", "session": session }))
                .await?;
        }
        let mut said = String::new();
        while let Some(message) = self.hear().await? {
            let asked: Value = serde_json::from_slice(&message).map_err(io::Error::other)?;
            said.push_str(&asked.to_string());
            if asked["type"] == "response.create" {
                self.respond(request, &asked, &model, &std::mem::take(&mut said)).await?;
            }
        }
        Ok(())
    }

    /// Gemini Live: turns without ids, in binary frames.
    async fn talk_live(&mut self, request: &Request) -> io::Result<()> {
        self.opcode = BINARY;
        while let Some(message) = self.hear().await? {
            let asked: Value = serde_json::from_slice(&message).map_err(io::Error::other)?;
            if asked.get("setup").is_some() {
                self.say(&json!({ "setupComplete": {} })).await?;
            } else if asked["client_content"]["turnComplete"] == true {
                let served = Served {
                    surface: Some(Surface::Gemini),
                    host: request.host().to_owned(),
                    path: request.path().to_owned(),
                    status: 101,
                    stream: true,
                    ..Served::default()
                };
                let directives = Directives::parse(&asked.to_string());
                let (messages, served) = gemini::live(&directives, served, self.shared.next());
                self.shared.update(|log| log.served.push(served));
                for message in &messages {
                    self.say(message).await?;
                }
            }
        }
        Ok(())
    }

    async fn respond(
        &mut self,
        request: &Request,
        asked: &Value,
        model: &str,
        said: &str,
    ) -> io::Result<()> {
        let directives = Directives::parse(said);
        let n = self.shared.next();
        if let Some(status) = directives.status {
            let mut error = openai::error(status);
            error["type"] = json!("error");
            error["status"] = json!(status);
            return self.say(&error).await;
        }
        let warm_up = asked["generate"] == false;
        let served = Served {
            surface: Some(if self.realtime { Surface::Realtime } else { Surface::OpenAiResponses }),
            host: request.host().to_owned(),
            path: request.path().to_owned(),
            status: 101,
            request_id: format!("resp_test{n}"),
            stream: true,
            ..Served::default()
        };
        let (messages, served) = if self.realtime {
            openai::realtime(model, &directives, served, n)
        } else {
            let codex = request.header("originator").is_some();
            openai::socket(asked, &directives, served, n, codex)
        };
        if !warm_up {
            self.shared.update(|log| log.served.push(served));
        }
        // Between two messages, and in the middle of one.
        self.frame(PING, b"?").await?;
        let half = messages.len() / 2;
        for (i, message) in messages.iter().enumerate() {
            if i == half && directives.gate {
                self.shared.pass_gate().await;
            }
            self.say(message).await?;
        }
        Ok(())
    }

    /// The next message; `None`: the client closes.
    async fn hear(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut message = Vec::new();
        let mut compressed = false;
        loop {
            let (frame, last) = Frame::read_fragment(self.io).await?;
            match frame.opcode & 0x0f {
                CLOSE => {
                    self.frame(CLOSE, &frame.payload).await?;
                    return Ok(None);
                }
                PING => self.frame(PONG, &frame.payload).await?,
                PONG => {}
                _ => {
                    compressed |= frame.opcode & COMPRESSED != 0;
                    message.extend(frame.payload);
                    if last {
                        break;
                    }
                }
            }
        }
        if !compressed {
            return Ok(Some(message));
        }
        message.extend(TAIL);
        let mut plain = Vec::new();
        let (mut from, mut buffer) = (&message[..], vec![0; 1 << 16]);
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            self.inflate.decompress(from, &mut buffer, FlushDecompress::None)?;
            from = &from[(self.inflate.total_in() - before_in) as usize..];
            let written = (self.inflate.total_out() - before_out) as usize;
            plain.extend_from_slice(&buffer[..written]);
            if from.is_empty() && written < buffer.len() {
                return Ok(Some(plain));
            }
        }
    }

    /// A message in three frames, with a ping in the middle.
    async fn say(&mut self, message: &Value) -> io::Result<()> {
        let text = message.to_string().into_bytes();
        let (payload, first) = if self.deflate {
            let mut out = Vec::with_capacity(text.len() * 2 + 128);
            self.compress
                .compress_vec(&text, &mut out, FlushCompress::Sync)
                .map_err(io::Error::other)?;
            out.truncate(out.len() - TAIL.len());
            (out, COMPRESSED | self.opcode)
        } else {
            (text, self.opcode)
        };
        let third = payload.len() / 3;
        let frame = |opcode, payload: &[u8]| Frame { opcode, payload: payload.to_vec() };
        let mut wire = frame(first, &payload[..third]).encode(None);
        wire[0] &= 0x7f;
        let mut middle = frame(0, &payload[third..2 * third]).encode(None);
        middle[0] &= 0x7f;
        wire.extend(middle);
        wire.extend(frame(PING, b"!").encode(None));
        wire.extend(frame(0, &payload[2 * third..]).encode(None));
        self.io.write_all(&wire).await?;
        self.io.flush().await
    }

    async fn frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let frame = Frame { opcode, payload: payload.to_vec() };
        self.io.write_all(&frame.encode(None)).await?;
        self.io.flush().await
    }
}

/// What proves that the key was understood (RFC 6455 section 1.3).
fn accept(key: &str) -> String {
    let digest = sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    base64(&digest)
}

/// For the handshake only, which is no secret.
fn sha1(data: &[u8]) -> [u8; 20] {
    let mut padded = data.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((data.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks(64) {
        let mut w: Vec<u32> =
            block.chunks(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]])).collect();
        for i in 16..80 {
            w.push((w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in w.iter().enumerate() {
            let (f, k) = match i / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc_u32),
                _ => (b ^ c ^ d, 0xca62_c1d6),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e);
            (e, d, c, b) = (d, c, b.rotate_left(30), a);
            a = next.wrapping_add(k).wrapping_add(*word);
        }
        for (sum, new) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(new);
        }
    }
    let mut out = [0; 20];
    out.chunks_mut(4).zip(state).for_each(|(to, word)| to.copy_from_slice(&word.to_be_bytes()));
    out
}
