//! How the root asks its processes whether they live. A process that holds its lock and says nothing
//! for long is frozen: nobody can be served by it, and what hangs on it hangs for ever.
//!
//! Only silence counts. What refuses, or can't be asked, is somebody else's business: its lock tells
//! of its end, and its own supervisor of its troubles.

use std::fs::OpenOptions;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::actors::process::{Answer, Question};
use crate::edge::door;
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

/// By the pid file, which daemon and watchdog touch at least every 2 s. That needs no descriptor: a
/// daemon that has none left still serves the connections that it has.
pub(super) fn by_file(home: &Home, process: &str) -> Question {
    let file = home.pid_file(process);
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

fn judge(error: &io::Error) -> Answer {
    let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    if silent.contains(&error.kind()) { Answer::Silent } else { Answer::Unknown }
}
