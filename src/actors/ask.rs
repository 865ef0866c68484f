//! One small HTTP question to a process of ours on loopback. No redirects, no proxies, no reuse.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::home::{Home, PidLock};
use crate::near;

/// Of an edge: which tunnels to metered hosts are raw for the moment.
pub const PASSING: &str = "/passing";
/// Whether connections are metered right now.
pub const HEALTH: &str = "/health";
/// The same as it is known, without a look: enough to see that there is anybody.
pub const KNOWN: &str = "/health?known";

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

/// The last known `/health` of our daemon: of the very process that holds its lock and that wrote its instance down,
/// not of another program that has its port.
pub async fn daemon(
    home: &Home,
    addr: SocketAddr,
    patience: Duration,
) -> Result<(u16, Value), AskError> {
    // Whether it can meter right now is not what is asked: no reason to have it look.
    let answer = get(addr, KNOWN, patience).await?;
    let pid = PidLock::holder(&home.pid_file("daemon")).ok().flatten();
    let instance = std::fs::read_to_string(home.instance_file()).ok();
    if speaks_for(pid, instance.as_deref(), &answer.1) {
        Ok(answer)
    } else {
        Err(AskError::Foreign)
    }
}

/// A pid can be guessed; the instance stands where only this user reads. Where it could not be
/// written (a full disk) the pid has to do.
pub(crate) fn speaks_for(pid: Option<u32>, instance: Option<&str>, body: &Value) -> bool {
    let says_pid = body.get("pid").and_then(Value::as_u64);
    let says_instance = body.get("instance").and_then(Value::as_str);
    pid.is_some_and(|pid| says_pid == Some(u64::from(pid)))
        && instance.is_none_or(|instance| says_instance == Some(instance.trim()))
}

/// What goes over the wire.
#[must_use]
pub fn question(addr: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")
}

async fn exchange(addr: SocketAddr, path: &str) -> Result<(u16, Value), AskError> {
    let mut stream = near::connect(addr).await.map_err(|_| AskError::Refused)?;
    stream.write_all(question(addr, path).as_bytes()).await.map_err(|_| AskError::Broken)?;
    let mut answer = Vec::with_capacity(1024);
    stream.take(CAP).read_to_end(&mut answer).await.map_err(|_| AskError::Broken)?;
    parse(&answer).ok_or(AskError::Foreign)
}

/// A whole answer with a body that ends with the connection (or is all of `Content-Length`).
pub(crate) fn parse(answer: &[u8]) -> Option<(u16, Value)> {
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
    fn only_the_instance_that_holds_the_lock_speaks_for_the_daemon() {
        let body = serde_json::json!({ "pid": 7, "instance": "a" });
        assert!(speaks_for(Some(7), Some("a\n"), &body));
        assert!(speaks_for(Some(7), None, &body));
        assert!(!speaks_for(Some(7), Some("b"), &body));
        assert!(!speaks_for(Some(8), Some("a"), &body));
        assert!(!speaks_for(None, Some("a"), &body));
        assert!(!speaks_for(Some(7), Some("a"), &serde_json::json!({ "status": "ok" })));
    }

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
