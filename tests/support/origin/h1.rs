//! HTTP/1 by hand, so that every byte in and out is ours to record and to misplace.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::answer::{Cut, Framing, Reply};
use super::{Proto, Request, Shared};

/// How a connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// close_notify, then FIN.
    Clean,
    /// FIN only.
    Cut,
    Reset,
}

pub async fn serve<S>(io: &mut S, connection: u64, shared: &Shared) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut surplus = Vec::new();
    loop {
        let Ok(Some(request)) = read_request(io, &mut surplus, connection).await else {
            return End::Clean;
        };
        if request.header("upgrade").is_some_and(|v| v.eq_ignore_ascii_case("websocket")) {
            let _ = super::websocket::serve(io, &request, shared).await;
            return End::Clean;
        }
        let old = request.raw.starts_with(b"") && request_is_http10(&request);
        let close =
            old || request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        let head_only = request.method == "HEAD";
        let mut reply = shared.answer(request);
        if old && reply.framing == Framing::Chunked {
            reply.framing = Framing::Close;
        }
        match write_reply(io, &reply, head_only, shared).await {
            Ok(None) if close || reply.framing == Framing::Close => return End::Clean,
            Ok(None) => {}
            Ok(Some(end)) => return end,
            Err(_) => {
                shared.aborted();
                return End::Cut;
            }
        }
    }
}

fn request_is_http10(request: &Request) -> bool {
    let line = request.raw.split(|b| *b == b'\n').next().unwrap_or_default();
    line.trim_ascii_end().ends_with(b"HTTP/1.0")
}

/// `None`: the client closed between requests.
async fn read_request<S>(
    io: &mut S,
    surplus: &mut Vec<u8>,
    connection: u64,
) -> io::Result<Option<Request>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut raw = std::mem::take(surplus);
    let (mut request, head) = loop {
        if let Some(parsed) = parse_head(&raw, connection)? {
            break parsed;
        }
        if io.read_buf(&mut raw).await? == 0 {
            return if raw.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
    };
    if request.header("expect").is_some_and(|v| v.eq_ignore_ascii_case("100-continue")) {
        io.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        io.flush().await?;
    }
    let chunked = request.header("transfer-encoding").is_some_and(|v| v.contains("chunked"));
    let length: usize =
        request.header("content-length").and_then(|v| v.trim().parse().ok()).unwrap_or(0);
    let end = loop {
        let done = if chunked {
            dechunk(&raw[head..])?.map(|(used, body)| (head + used, body))
        } else {
            (raw.len() >= head + length).then(|| (head + length, raw[head..head + length].to_vec()))
        };
        if let Some((end, body)) = done {
            request.body = body;
            break end;
        }
        if io.read_buf(&mut raw).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    *surplus = raw.split_off(end);
    request.raw = raw;
    Ok(Some(request))
}

fn parse_head(raw: &[u8], connection: u64) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(raw).map_err(io::Error::other)?;
    let httparse::Status::Complete(head) = status else { return Ok(None) };
    let request = Request {
        connection,
        proto: Proto::H1,
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|h| (h.name.to_owned(), String::from_utf8_lossy(h.value).into_owned()))
            .collect(),
        body: Vec::new(),
        raw: Vec::new(),
    };
    Ok(Some((request, head)))
}

/// Whole chunked body: bytes used, content. `None`: more must come.
fn dechunk(mut raw: &[u8]) -> io::Result<Option<(usize, Vec<u8>)>> {
    let total = raw.len();
    let mut body = Vec::new();
    loop {
        let (skip, size) = match httparse::parse_chunk_size(raw) {
            Ok(httparse::Status::Complete((skip, size))) => (skip, size as usize),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        let Some(chunk) = raw.get(skip..skip + size) else { return Ok(None) };
        body.extend_from_slice(chunk);
        let Some(rest) = raw.get(skip + size + 2..) else { return Ok(None) };
        raw = rest;
        if size == 0 {
            return Ok(Some((total - raw.len(), body)));
        }
    }
}

/// `Some`: the connection ends here, this way.
async fn write_reply<S>(
    io: &mut S,
    reply: &Reply,
    head_only: bool,
    shared: &Shared,
) -> io::Result<Option<End>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = format!("HTTP/1.1 {} {}\r\n", reply.status, reply.reason());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    match reply.framing {
        Framing::Length => {
            let length: usize = reply.parts.iter().map(Vec::len).sum();
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        Framing::Chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Framing::Close => head.push_str("connection: close\r\n"),
    }
    head.push_str("\r\n");
    io.write_all(head.as_bytes()).await?;
    io.flush().await?;
    if head_only {
        return Ok(None);
    }
    let half = reply.parts.len() / 2;
    for (i, part) in reply.parts.iter().enumerate() {
        if i == half {
            if reply.gate {
                hold(io, shared).await?;
            }
            match reply.cut {
                Cut::None => {}
                Cut::Fin => return Ok(Some(End::Cut)),
                Cut::Reset => return Ok(Some(End::Reset)),
            }
        }
        if let Some(pause) = reply.slow {
            tokio::time::sleep(pause).await;
        }
        for slice in part.chunks(reply.slice.unwrap_or(usize::MAX)) {
            if reply.framing == Framing::Chunked {
                let mut chunk = format!("{:x}\r\n", slice.len()).into_bytes();
                chunk.extend_from_slice(slice);
                chunk.extend_from_slice(b"\r\n");
                io.write_all(&chunk).await?;
            } else {
                io.write_all(slice).await?;
            }
            io.flush().await?;
        }
    }
    if reply.framing == Framing::Chunked {
        io.write_all(b"0\r\n\r\n").await?;
        io.flush().await?;
    }
    Ok(None)
}

/// Waits at the gate, and notices a client that goes away meanwhile.
async fn hold<S: AsyncRead + Unpin>(io: &mut S, shared: &Shared) -> io::Result<()> {
    tokio::select! {
        () = shared.pass_gate() => Ok(()),
        gone = io.read_u8() => match gone {
            Ok(_) => Err(io::Error::other("pipelined byte while an answer was held")),
            Err(e) => Err(e),
        },
    }
}
