//! One small HTTP question to a process of ours on loopback. No redirects, no proxies, no reuse.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an answer may weigh.
const CAP: u64 = 64 * 1024;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AskError {
    #[error("the connection was refused")]
    Refused,
    #[error("no answer in time")]
    Timeout,
    #[error("the connection broke")]
    Broken,
    #[error("the answer is not ours")]
    Foreign,
}

/// `GET path`: status and JSON body.
pub async fn get(
    addr: SocketAddr,
    path: &str,
    patience: Duration,
) -> Result<(u16, Value), AskError> {
    tokio::time::timeout(patience, exchange(addr, path)).await.unwrap_or(Err(AskError::Timeout))
}

async fn exchange(addr: SocketAddr, path: &str) -> Result<(u16, Value), AskError> {
    let mut stream = TcpStream::connect(addr).await.map_err(|_| AskError::Refused)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|_| AskError::Broken)?;
    let mut answer = Vec::with_capacity(1024);
    stream.take(CAP).read_to_end(&mut answer).await.map_err(|_| AskError::Broken)?;
    parse(&answer).ok_or(AskError::Foreign)
}

/// A whole answer with a body that ends with the connection (or is all of `Content-Length`).
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    let body = serde_json::from_slice(answer.get(length..)?).ok()?;
    Some((head.code?, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_json_answer_is_one() {
        let whole = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 8\r\n\r\n{\"a\": 1}";
        assert_eq!(parse(whole), Some((503, serde_json::json!({"a": 1}))));
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(parse(b"SSH-2.0-OpenSSH_9.9\r\n"), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\n<html>"), None);
    }
}
