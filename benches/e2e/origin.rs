//! The provider: HTTP/1.1 plain and over TLS, HTTP/2 over TLS. What it answers, the request's
//! `x-bench` header says.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::pki;
use crate::platform::monotonic_ns;
use crate::role::{announce, listen};

/// What each answer of the messages API reports.
pub const INPUT_TOKENS: u64 = 1000;
pub const OUTPUT_TOKENS: u64 = 100;

/// The bytes of a bulk answer come in pieces of this size.
pub const PIECE: usize = 64 * 1024;

/// Ports: plain, TLS.
pub async fn run(dir: &Path) -> Result<()> {
    let (plain, tls) = (listen()?, listen()?);
    announce(&[&plain, &tls])?;
    tokio::spawn(serve_plain(plain));
    let acceptor = TlsAcceptor::from(pki::server(dir, &[b"h2", b"http/1.1"])?);
    loop {
        let Ok((tcp, _)) = tls.accept().await else { continue };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            let mut stream = acceptor.accept(tcp).await?;
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                return serve_h2(stream).await;
            }
            serve_h1(&mut stream).await?;
            Ok(stream.shutdown().await?)
        });
    }
}

async fn serve_plain(listener: TcpListener) {
    loop {
        let Ok((mut tcp, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            tcp.set_nodelay(true)?;
            serve_h1(&mut tcp).await
        });
    }
}

/// What a request wants.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// A message.
    Json,
    /// A stream of this many deltas, one each time the gap is over.
    Stream { events: u64, gap: Duration },
    /// Opaque bytes.
    Bytes(u64),
}

struct Head {
    length: usize,
    body: u64,
    wish: Wish,
}

async fn serve_h1(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<()> {
    let mut buffer = vec![0; 2 * PIECE];
    let mut filled = 0;
    loop {
        let head = loop {
            if let Some(head) = parse(&buffer[..filled])? {
                break head;
            }
            let n = stream.read(&mut buffer[filled..]).await?;
            if n == 0 {
                return Ok(());
            }
            filled += n;
        };
        let mut body = (filled - head.length) as u64;
        while body < head.body {
            let n = stream.read(&mut buffer).await?;
            ensure!(n > 0, "cut in a request's body");
            body += n as u64;
        }
        ensure!(body == head.body, "our clients don't pipeline");
        filled = 0;
        answer(stream, head.wish).await?;
        stream.flush().await?;
    }
}

/// `None`: not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = request.parse(bytes)? else { return Ok(None) };
    let mut head = Head { length, body: 0, wish: Wish::Json };
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value)?;
        if header.name.eq_ignore_ascii_case("content-length") {
            head.body = value.parse()?;
        } else if header.name.eq_ignore_ascii_case("x-bench") {
            head.wish = wish(value)?;
        }
    }
    Ok(Some(head))
}

fn wish(value: &str) -> Result<Wish> {
    let mut words = value.split(' ');
    let kind = words.next().unwrap_or_default();
    let mut number = || -> Result<u64> { Ok(words.next().context("a number")?.parse()?) };
    Ok(match kind {
        "stream" => Wish::Stream { events: number()?, gap: Duration::from_micros(number()?) },
        "bytes" => Wish::Bytes(number()?),
        _ => bail!("x-bench: {value}"),
    })
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), wish: Wish) -> Result<()> {
    match wish {
        Wish::Json => {
            let body = message();
            let mut all = head("application/json", body.len() as u64).into_bytes();
            all.extend_from_slice(body.as_bytes());
            Ok(stream.write_all(&all).await?)
        }
        Wish::Bytes(n) => {
            stream.write_all(head("application/octet-stream", n).as_bytes()).await?;
            let piece = noise();
            let mut left = n;
            while left > 0 {
                let next = left.min(piece.len() as u64);
                stream.write_all(&piece[..next as usize]).await?;
                left -= next;
            }
            Ok(())
        }
        Wish::Stream { events, gap } => stream_events(stream, events, gap).await,
    }
}

fn head(kind: &str, length: u64) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n")
}

/// Each delta tells when it was sent, so that its delay needs no second clock. Without a gap,
/// several go in one write, as a provider's own buffers would make of them.
async fn stream_events(
    stream: &mut (impl AsyncWrite + Unpin),
    events: u64,
    gap: Duration,
) -> Result<()> {
    const TOGETHER: u64 = 16;
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let mut out = head.as_bytes().to_vec();
    chunk(&mut out, &start());
    let mut at = Instant::now();
    for number in 0..events {
        chunk(&mut out, &delta(number, monotonic_ns()));
        if !gap.is_zero() || number % TOGETHER == TOGETHER - 1 {
            stream.write_all(&out).await?;
            stream.flush().await?;
            out.clear();
        }
        if !gap.is_zero() {
            at += gap;
            sleep_until(at).await;
        }
    }
    chunk(&mut out, &end());
    out.extend_from_slice(b"0\r\n\r\n");
    Ok(stream.write_all(&out).await?)
}

fn chunk(out: &mut Vec<u8>, data: &str) {
    out.extend_from_slice(format!("{:x}\r\n{data}\r\n", data.len()).as_bytes());
}

/// As long as a short answer.
fn message() -> String {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(20);
    format!(
        "{{\"id\":\"msg_{:012}\",\"type\":\"message\",\"role\":\"assistant\",\
         \"model\":\"claude-sonnet-4-5-20250929\",\
         \"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\",\
         \"stop_sequence\":null,\"usage\":{{\"input_tokens\":{INPUT_TOKENS},\
         \"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\
         \"output_tokens\":{OUTPUT_TOKENS}}}}}",
        next_id(),
    )
}

/// No answer has another's, as with providers.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn start() -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\
         \"id\":\"msg_{:012}\",\"type\":\"message\",\"role\":\"assistant\",\
         \"model\":\"claude-sonnet-4-5-20250929\",\"content\":[],\"stop_reason\":null,\
         \"usage\":{{\"input_tokens\":{INPUT_TOKENS},\"output_tokens\":1}}}}}}\n\n",
        next_id(),
    )
}

fn delta(number: u64, now: u64) -> String {
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\
         \"delta\":{{\"type\":\"text_delta\",\"text\":\"token {number} {STAMP}{now} \"}}}}\n\n"
    )
}

/// What stands before the time in a delta.
pub const STAMP: &str = "sent=";

fn end() -> String {
    format!(
        "event: message_delta\ndata: {{\"type\":\"message_delta\",\
         \"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":null}},\
         \"usage\":{{\"output_tokens\":{OUTPUT_TOKENS}}}}}\n\n\
         event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    )
}

/// Letters in no order: what an image looks like in a request.
pub fn noise() -> Vec<u8> {
    let mut x = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        b'A' + (x % 26) as u8
    };
    (0..PIECE).map(|_| next()).collect()
}

/// HTTP/2: messages only.
async fn serve_h2(stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    let mut connection = h2::server::handshake(stream).await?;
    let body = Bytes::from(message());
    while let Some(request) = connection.accept().await {
        let (request, mut respond) = request?;
        let body = body.clone();
        tokio::spawn(async move {
            let mut asked = request.into_body();
            while let Some(data) = asked.data().await {
                asked.flow_control().release_capacity(data?.len())?;
            }
            let response = http::Response::builder()
                .header("content-type", "application/json")
                .header("content-length", body.len())
                .body(())?;
            respond.send_response(response, false)?.send_data(body, true)?;
            anyhow::Ok(())
        });
    }
    Ok(())
}
