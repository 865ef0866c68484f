//! The tool: CONNECT, TLS, HTTP. As light as can be, for it shares the machine with what it measures.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use memchr::memmem;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::origin::STAMP;
use crate::pki::HOST;

/// Bounds a failure; nothing here takes that long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A way to the origin.
#[derive(Clone, Debug)]
pub struct Net {
    /// Where to connect.
    pub addr: SocketAddr,
    /// What to ask a proxy for; none: the origin itself is there.
    pub authority: Option<String>,
    /// None: plain, for tunnels whose bytes nobody looks at.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Net {
    pub async fn open(&self) -> Result<Stream> {
        let mut tcp = TcpStream::connect(self.addr).await?;
        tcp.set_nodelay(true)?;
        if let Some(authority) = &self.authority {
            let ask = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
            tcp.write_all(ask.as_bytes()).await?;
            let mut answer = Vec::with_capacity(256);
            while !answer.ends_with(b"\r\n\r\n") {
                ensure!(tcp.read_buf(&mut answer).await? > 0, "the proxy closed");
            }
            ensure!(answer.starts_with(b"HTTP/1.1 200"), "the proxy refused");
        }
        Ok(match &self.tls {
            None => Stream::Plain(tcp),
            Some(config) => {
                let name = ServerName::try_from(HOST)?;
                let tls = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
                Stream::Tls(Box::new(tls))
            }
        })
    }
}

#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A request to the messages API. Of its content only the first part is here; `more` bytes of it
/// follow, then [`TAIL`].
pub fn post(bench: &str, more: u64) -> Vec<u8> {
    let stream = bench.starts_with("stream");
    let body = format!(
        "{{\"model\":\"claude-sonnet-4-5\",\"max_tokens\":1024,\"stream\":{stream},\
         \"messages\":[{{\"role\":\"user\",\"content\":\"Good day"
    );
    let length = body.len() as u64 + more + TAIL.len() as u64;
    let extra = if bench.is_empty() { String::new() } else { format!("x-bench: {bench}\r\n") };
    format!(
        "POST /v1/messages HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n\
         anthropic-version: 2023-06-01\r\n{extra}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

pub const TAIL: &str = "\"}]}";

/// A whole request.
pub fn message(bench: &str) -> Vec<u8> {
    let mut request = post(bench, 0);
    request.extend_from_slice(TAIL.as_bytes());
    request
}

/// A request for this many opaque bytes.
pub fn download(bytes: u64) -> Vec<u8> {
    format!(
        "GET /v1/files/bench/content HTTP/1.1\r\nHost: {HOST}\r\nx-bench: bytes {bytes}\r\n\r\n"
    )
    .into_bytes()
}

/// An HTTP/1.1 connection, one exchange at a time.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Conn {
    pub async fn open(net: &Net) -> Result<Self> {
        Self::with_buffer(net, 4 * 1024).await
    }

    pub async fn with_buffer(net: &Net, size: usize) -> Result<Self> {
        Ok(Self { stream: net.open().await?, buffer: vec![0; size] })
    }

    pub async fn exchange(&mut self, request: &[u8]) -> Result<()> {
        self.send(request).await?;
        self.receive().await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// An answer with a length, all of it.
    pub async fn receive(&mut self) -> Result<()> {
        let mut filled = 0;
        let (head, body) = loop {
            filled += self.fill(filled).await?;
            if let Some(lengths) = lengths(&self.buffer[..filled])? {
                break lengths;
            }
        };
        let mut got = (filled - head) as u64;
        while got < body {
            got += self.fill(0).await? as u64;
        }
        ensure!(got == body, "{got} bytes of an answer of {body}");
        Ok(())
    }

    /// A stream of events, to its end; `arrived` gets the time that each delta was sent.
    pub async fn receive_events(&mut self, mut arrived: impl FnMut(u64)) -> Result<()> {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        let stamp = memmem::Finder::new(STAMP);
        let mut kept = 0;
        loop {
            let filled = kept + self.fill(kept).await?;
            let bytes = &self.buffer[..filled];
            // An event that came in part waits for its rest.
            let whole = memmem::rfind(bytes, b"\n\n").map_or(0, |at| at + 2);
            for at in stamp.find_iter(&bytes[..whole]) {
                let digits =
                    bytes[at + STAMP.len()..].iter().map_while(|b| char::from(*b).to_digit(10));
                arrived(digits.fold(0, |sent, digit| sent * 10 + u64::from(digit)));
            }
            if bytes.ends_with(END) {
                return Ok(());
            }
            self.buffer.copy_within(whole..filled, 0);
            kept = filled - whole;
        }
    }

    pub async fn close(mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }

    async fn fill(&mut self, from: usize) -> Result<usize> {
        match self.stream.read(&mut self.buffer[from..]).await? {
            0 => bail!("cut in an answer"),
            n => Ok(n),
        }
    }
}

/// Of head and body; `None`: the head is not whole yet.
fn lengths(bytes: &[u8]) -> Result<Option<(usize, u64)>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    ensure!(response.code == Some(200), "status {:?}", response.code);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            return Ok(Some((head, std::str::from_utf8(header.value)?.parse()?)));
        }
    }
    bail!("an answer without a length")
}
