//! What is said to an upstream proxy, and what it answers.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{DialError, HeadEnd, direct, peek, take_now};
use crate::config::{OwnPorts, UpstreamProxy};

const MAX_PROXY_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 128;

/// Whether it turns out to be us when it is connected to. Nobody there, or nobody soon: not us.
pub async fn is_us(own: OwnPorts, proxy: &UpstreamProxy, patience: Duration) -> bool {
    own.has(proxy.port)
        && matches!(timeout(patience, to_proxy(own, proxy)).await, Ok(Err(DialError::ProxyIsUs)))
}

pub(super) async fn to_proxy(own: OwnPorts, proxy: &UpstreamProxy) -> Result<TcpStream, DialError> {
    match direct(&proxy.host, proxy.port).await {
        // However it is spelled, and whoever looked its name up.
        Ok(stream) if stream.peer_addr().is_ok_and(|peer| own.leads_back(peer)) => {
            Err(DialError::ProxyIsUs)
        }
        Err(DialError::Connect(e) | DialError::NoWayNearby(e) | DialError::Resolve(e)) => {
            Err(DialError::Proxy(e))
        }
        outcome @ (Ok(_) | Err(_)) => outcome,
    }
}

/// Asks a proxy for the target.
pub(super) async fn through(
    mut stream: TcpStream,
    proxy: &UpstreamProxy,
    host: &str,
    port: u16,
) -> Result<TcpStream, DialError> {
    let _ = stream.set_nodelay(true);
    stream.write_all(&connect_request(proxy, host, port)).await.map_err(DialError::Proxy)?;
    let head = read_head(&stream).await?;
    match status(&head) {
        Some(200..=299) => Ok(stream),
        Some(407) => Err(DialError::ProxyLogin(schemes(&head))),
        Some(code) => Err(DialError::ProxyStatus(code)),
        None => Err(DialError::ProxyAnswer),
    }
}

/// By its first line: whatever else a proxy says of a tunnel that is there is nothing to us.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let line = head.split_inclusive(|byte| *byte == b'\n').next()?;
    let mut response = httparse::Response::new(&mut []);
    match response.parse(&[line, b"\r\n"].concat()) {
        Ok(httparse::Status::Complete(_)) => response.code,
        Ok(httparse::Status::Partial) | Err(_) => None,
    }
}

/// What a proxy's 407 offers: the first word of each challenge, which comes from the network.
pub(super) fn schemes(head: &[u8]) -> String {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    // Of one that has more, or a line that is none, those before count.
    let _ = response.parse(head);
    let challenges = headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case("proxy-authenticate"))
        .filter_map(|h| str::from_utf8(h.value).ok()?.split_ascii_whitespace().next());
    let mut names: Vec<&str> = challenges
        .filter(|name| name.len() <= 20 && name.bytes().all(|b| b.is_ascii_alphanumeric()))
        .collect();
    names.dedup();
    if names.is_empty() { "of a kind it does not name".to_owned() } else { names.join(", ") }
}

pub(super) fn login_hint(schemes: &str) -> &'static str {
    if schemes.split(", ").any(|s| s.eq_ignore_ascii_case("basic")) {
        ": set user and password in upstream.proxy"
    } else {
        ": a local helper that knows its scheme is needed (docs/corporate.md)"
    }
}

fn connect_request(proxy: &UpstreamProxy, host: &str, port: u16) -> Vec<u8> {
    let target =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let authorization = proxy
        .authorization
        .as_ref()
        .map(|value| format!("Proxy-Authorization: {value}\r\n"))
        .unwrap_or_default();
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n").into_bytes()
}

/// The reply head and not a byte more: the server may speak first through the tunnel.
async fn read_head(stream: &TcpStream) -> Result<Vec<u8>, DialError> {
    let mut head = Vec::new();
    let mut end = HeadEnd::default();
    loop {
        let start = head.len();
        head.resize(start + 1024, 0);
        let fresh = head.get_mut(start..).unwrap_or_default();
        let seen = peek(stream, fresh).await.map_err(DialError::Proxy)?;
        if seen == 0 {
            return Err(DialError::ProxyAnswer);
        }
        let found = end.feed(fresh.get(..seen).unwrap_or_default());
        let count = found.unwrap_or(seen);
        take_now(stream, count).map_err(DialError::Proxy)?;
        head.truncate(start + count);
        if found.is_some() {
            return Ok(head);
        }
        if head.len() > MAX_PROXY_HEAD {
            return Err(DialError::ProxyAnswer);
        }
    }
}
