//! How the root asks its processes whether they live. A process that holds its lock and says nothing
//! for long is frozen: nobody can be served by it, and what hangs on it hangs for ever.
//!
//! Only silence counts. What refuses, or can't be asked, is somebody else's business: its lock tells
//! of its end, and its own supervisor of its troubles.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

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
        } else if touch(&file, touched).is_ok() {
            Answer::Silent
        } else {
            // A home that became read-only, a file that only grows: it can't touch the file either.
            Answer::Unknown
        }
    })
}

/// As they do it, but with the time that is there: it hides no silence.
fn touch(file: &Path, time: SystemTime) -> io::Result<()> {
    OpenOptions::new().append(true).open(file)?.set_modified(time)
}

fn judge(error: &io::Error) -> Answer {
    let silent = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
    if silent.contains(&error.kind()) { Answer::Silent } else { Answer::Unknown }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::home::PidLock;

    #[test]
    fn only_a_file_that_can_be_touched_tells_of_silence() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let file = home.pid_file("daemon");
        std::fs::create_dir_all(home.run_dir()).unwrap();
        let alive = by_file(&home, "daemon");
        assert_eq!(alive(), Answer::Unknown, "there is none");
        let lock = PidLock::acquire(&file).unwrap().unwrap();
        assert_eq!([alive(), alive(), alive()], [Answer::Alive, Answer::Silent, Answer::Silent]);
        std::thread::sleep(Duration::from_millis(20));
        lock.beat();
        assert_eq!([alive(), alive()], [Answer::Alive, Answer::Silent]);
        let grows_only = |how: &str| {
            let done = Command::new("chattr").arg(how).arg(&file).output();
            done.is_ok_and(|output| output.status.success())
        };
        if grows_only("+a") {
            lock.beat();
            let answers = [alive(), alive()];
            assert!(grows_only("-a"));
            assert_eq!(answers, [Answer::Unknown; 2], "it can't be touched");
        } else {
            eprintln!("files that only grow are not looked at here (chattr)");
        }
    }
}
