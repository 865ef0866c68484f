//! How the root asks its processes whether they live. A process that holds its lock and says nothing
//! for long is frozen: nobody can be served by it, and what hangs on it hangs for ever.
//!
//! Only silence counts. What refuses, or can't be asked, is somebody else's business: its lock tells
//! of its end, and its own supervisor of its troubles.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actors::process::{Answer, Question};
use crate::edge::door;
use crate::handover::wire::encode;
use crate::handover::{ToDaemon, VERSION};
use crate::home::Home;

const PATIENCE: Duration = Duration::from_secs(1);

/// By its door, which its one thread serves like any connection.
pub(super) fn edge(home: &Home) -> Question {
    let socket = home.edge_socket();
    Arc::new(move || match door::ask(&socket, PATIENCE) {
        Ok(_) => Answer::Alive,
        Err(e) => judge(&e),
    })
}

/// By `/health` and by the tap: the one may be another program's port, the other may be away.
pub(super) fn daemon(home: &Home, api: SocketAddr) -> Question {
    let socket = home.control_socket();
    Arc::new(move || {
        let by_api = TcpStream::connect_timeout(&api, PATIENCE).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            first_byte(stream, format!("GET /health HTTP/1.0\r\nHost: {api}\r\n\r\n").as_bytes())
        });
        if by_api.is_ok() {
            return Answer::Alive;
        }
        let hello = ToDaemon::Hello { version: VERSION, pid: std::process::id() };
        let by_tap = door::connect(&socket, PATIENCE).and_then(|stream: UnixStream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            first_byte(stream, &encode(&hello).map_err(io::Error::other)?)
        });
        match (by_api, by_tap) {
            (Ok(()), _) | (_, Ok(())) => Answer::Alive,
            (Err(api), Err(tap)) => match (judge(&api), judge(&tap)) {
                (Answer::Silent, Answer::Silent) => Answer::Silent,
                (Answer::Alive | Answer::Unknown | Answer::Silent, _) => Answer::Unknown,
            },
        }
    })
}

/// By its pid file, which it touches with each of its own probes.
pub(super) fn watchdog(home: &Home) -> Question {
    let file = home.pid_file("watchdog");
    let last = Mutex::new(None);
    Arc::new(move || {
        let Ok(touched) = std::fs::metadata(&file).and_then(|m| m.modified()) else {
            return Answer::Unknown;
        };
        let before = last.lock().unwrap_or_else(PoisonError::into_inner).replace(touched);
        if before != Some(touched) {
            Answer::Alive
        } else if OpenOptions::new().append(true).open(&file).is_ok() {
            Answer::Silent
        } else {
            // A home that became read-only: it can't touch the file either.
            Answer::Unknown
        }
    })
}

fn first_byte(mut stream: impl Read + Write, question: &[u8]) -> io::Result<()> {
    stream.write_all(question)?;
    stream.read_exact(&mut [0])
}

fn judge(error: &io::Error) -> Answer {
    let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    if silent.contains(&error.kind()) { Answer::Silent } else { Answer::Unknown }
}
