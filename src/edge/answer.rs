//! The edge's own answers to a client.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{SendFlags, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a refused client may go on talking before the answer could be lost by closing.
const LINGER: Duration = Duration::from_secs(1);
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The tunnel stands. Said at once: nothing was written to this socket yet, so there is room.
pub fn establish(client: &TcpStream) -> io::Result<()> {
    match send(client.as_fd(), ESTABLISHED, SendFlags::empty())? {
        sent if sent == ESTABLISHED.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// One line that says why not.
pub async fn refuse(client: TcpStream, status: u16, why: &str) {
    let line = format!("halton-meter: {why}\n");
    respond(client, status, "text/plain; charset=utf-8", line.as_bytes()).await;
}

/// A whole answer, and the end of the connection.
pub async fn respond(mut client: TcpStream, status: u16, kind: &str, body: &[u8]) {
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        reason_phrase(status),
        body.len(),
    )
    .into_bytes();
    answer.extend_from_slice(body);
    if client.write_all(&answer).await.is_ok() && client.shutdown().await.is_ok() {
        // To close with unread bytes would reset the connection under the answer.
        let mut sink = [0; 1024];
        let drain = async { while let Ok(1..) = client.read(&mut sink).await {} };
        let _ = timeout(LINGER, drain).await;
    }
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}
