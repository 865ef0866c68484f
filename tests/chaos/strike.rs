//! Carries the failures out, and repairs what they broke.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::Signal;

use crate::harness::{Stand, send};
use crate::oracle::Failure;
use crate::relay::{Mode, Relay};

/// A kill shows within this, or something is very wrong.
const SHOWS: Duration = Duration::from_secs(10);
/// For a command of ours, drain included.
const COMMAND: Duration = Duration::from_secs(90);

/// What has to be undone.
#[derive(Debug)]
pub enum Wound {
    /// It heals by itself.
    None,
    Frozen(&'static str, u32),
    /// A command is run afterwards, or was started already.
    Run(&'static str),
    Running(Child, &'static str),
    Impostor(Impostor, Child),
    Lock(Connection),
    Unwritable(PathBuf),
    Config(Vec<u8>),
    Provider,
}

/// Carries it out; returns when it has happened.
pub fn strike(stand: &Stand, relay: &Relay, failure: Failure) -> Result<Wound, String> {
    let provider = |mode| {
        relay.set(mode);
        Ok(Wound::Provider)
    };
    match failure {
        Failure::DaemonKilled => kill(stand, "daemon").map(|()| Wound::None),
        Failure::EdgeKilled => kill(stand, "edge").map(|()| Wound::None),
        Failure::WatchdogKilled => kill(stand, "watchdog").map(|()| Wound::None),
        Failure::RootKilled => kill(stand, "root").map(|()| Wound::Run("start")),
        Failure::DaemonFrozen => Ok(freeze(stand, "daemon")),
        Failure::EdgeFrozen => Ok(freeze(stand, "edge")),
        Failure::RootFrozen => Ok(freeze(stand, "root")),
        Failure::EdgeUpgraded => {
            if let Some(pid) = stand.pid("edge") {
                send(pid, Signal::USR2);
            }
            Ok(Wound::None)
        }
        Failure::Upgrade => Ok(Wound::Running(spawn(stand, "upgrade")?, "upgrade")),
        Failure::DaemonTerminated => {
            if let Some(pid) = stand.pid("daemon") {
                send(pid, Signal::TERM);
            }
            Ok(Wound::None)
        }
        Failure::StopStart => {
            let stop = spawn(stand, "stop")?;
            finish(stop, "stop")?;
            Ok(Wound::Run("start"))
        }
        Failure::Restart => Ok(Wound::Running(spawn(stand, "restart")?, "restart")),
        Failure::SocketRemoved => {
            fs::remove_file(stand.home.control_socket()).or_else(|e| ignore_missing(&e))?;
            Ok(Wound::None)
        }
        Failure::Impostor => {
            let stop = spawn(stand, "stop")?;
            finish(stop, "stop")?;
            let impostor = Impostor::start(stand)?;
            // Waits for a daemon that is well, and so for the end of the impostor.
            Ok(Wound::Impostor(impostor, spawn(stand, "start")?))
        }
        Failure::LedgerLocked => lock(stand).map(Wound::Lock),
        Failure::LedgerCorrupt => corrupt(stand).map(|()| Wound::None),
        Failure::LedgerUnwritable => unwritable(stand).map(Wound::Unwritable),
        Failure::ConfigBroken => {
            let file = stand.home.config_file();
            let good = fs::read(&file).map_err(|e| e.to_string())?;
            fs::write(&file, "[edge\nport = \"no\"\n").map_err(|e| e.to_string())?;
            hang_up(stand);
            Ok(Wound::Config(good))
        }
        Failure::ProviderRefuses => provider(Mode::Refuse),
        Failure::ProviderStalls => provider(Mode::Stall),
        Failure::ProviderResets => provider(Mode::Reset),
        Failure::ProviderTruncates => provider(Mode::Truncate),
        Failure::ProviderCertificate => provider(Mode::Foreign),
    }
}

pub fn mend(stand: &Stand, relay: &Relay, wound: Wound) -> Result<(), String> {
    match wound {
        Wound::None => Ok(()),
        Wound::Frozen(process, pid) => {
            // Still the same process: nobody else takes its number while it holds the lock.
            if stand.pid(process) == Some(pid) {
                send(pid, Signal::CONT);
            }
            Ok(())
        }
        Wound::Run(command) => finish(spawn(stand, command)?, command),
        Wound::Running(child, command) => finish(child, command),
        Wound::Impostor(impostor, start) => {
            let asked = impostor.end();
            finish(start, "start")?;
            if asked == 0 {
                return Err("nobody asked the impostor: it was no test".to_owned());
            }
            Ok(())
        }
        Wound::Lock(connection) => connection.execute_batch("ROLLBACK").map_err(|e| e.to_string()),
        Wound::Unwritable(aside) => writable(stand, &aside),
        Wound::Config(good) => {
            fs::write(stand.home.config_file(), good).map_err(|e| e.to_string())?;
            hang_up(stand);
            Ok(())
        }
        Wound::Provider => {
            relay.set(Mode::Pass);
            Ok(())
        }
    }
}

fn freeze(stand: &Stand, process: &'static str) -> Wound {
    stand.pid(process).map_or(Wound::None, |pid| {
        send(pid, Signal::STOP);
        Wound::Frozen(process, pid)
    })
}

fn kill(stand: &Stand, process: &str) -> Result<(), String> {
    let end = Instant::now() + SHOWS;
    // It may be between two lives, after an earlier failure.
    let pid = loop {
        match stand.pid(process) {
            Some(pid) => break pid,
            // The user stopped it, so there is nothing to kill.
            None if ["daemon", "watchdog"].contains(&process)
                && stand.home.user_stopped().exists() =>
            {
                return Ok(());
            }
            None if Instant::now() > end => return Err(format!("no {process} to kill")),
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    send(pid, Signal::KILL);
    while stand.pid(process) == Some(pid) {
        if Instant::now() > end {
            return Err(format!("the {process} did not die"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn spawn(stand: &Stand, command: &str) -> Result<Child, String> {
    let mut command = stand.command(&[command]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().map_err(|e| e.to_string())
}

fn finish(mut child: Child, name: &str) -> Result<(), String> {
    let end = Instant::now() + COMMAND;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break status,
            None if Instant::now() > end => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{name}` did not end within {COMMAND:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let mut said = String::new();
    let _ = child.stderr.take().map(|mut e| e.read_to_string(&mut said));
    if status.success() { Ok(()) } else { Err(format!("`{name}`: {status}: {said}")) }
}

fn hang_up(stand: &Stand) {
    for process in ["edge", "daemon"] {
        if let Some(pid) = stand.pid(process) {
            send(pid, Signal::HUP);
        }
    }
}

fn lock(stand: &Stand) -> Result<Connection, String> {
    let text = |e: rusqlite::Error| e.to_string();
    let connection = Connection::open(stand.home.ledger_file()).map_err(text)?;
    connection.busy_timeout(SHOWS).map_err(text)?;
    connection.execute_batch("BEGIN IMMEDIATE").map_err(text)?;
    Ok(connection)
}

/// As a bad disk would: in place, under the writer's feet.
fn corrupt(stand: &Stand) -> Result<(), String> {
    let path = stand.home.ledger_file();
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).open(&path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&vec![0x5a; usize::try_from(size.min(1 << 20)).unwrap_or(1 << 20)])
    };
    write().or_else(|e| ignore_missing(&e))
}

/// A directory lies where the database was: nobody can write there, whoever they are.
fn unwritable(stand: &Stand) -> Result<PathBuf, String> {
    let path = stand.home.ledger_file();
    let aside = stand.scratch().join("aside");
    let text = |e: std::io::Error| e.to_string();
    fs::create_dir_all(&aside).map_err(text)?;
    for suffix in ["-wal", "-shm", ""] {
        let name = format!("db.sqlite{suffix}");
        fs::rename(path.with_file_name(&name), aside.join(&name))
            .or_else(|e| ignore_missing(&e))?;
    }
    // The writer may have made a new one in between.
    let _ = fs::remove_file(&path);
    fs::create_dir(&path).map_err(text)?;
    Ok(aside)
}

fn writable(stand: &Stand, aside: &std::path::Path) -> Result<(), String> {
    let path = stand.home.ledger_file();
    if path.is_dir() {
        fs::remove_dir(&path).or_else(|e| ignore_missing(&e))?;
    }
    for suffix in ["", "-wal", "-shm"] {
        let name = format!("db.sqlite{suffix}");
        let _ = fs::remove_file(path.with_file_name(&name));
        fs::rename(aside.join(&name), path.with_file_name(&name))
            .or_else(|e| ignore_missing(&e))?;
    }
    Ok(())
}

fn ignore_missing(e: &std::io::Error) -> Result<(), String> {
    if e.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(e.to_string()) }
}

/// Another program on the API port that says it is well.
#[derive(Debug)]
pub struct Impostor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Impostor {
    fn start(stand: &Stand) -> Result<Self, String> {
        let end = Instant::now() + SHOWS;
        let listener = loop {
            match TcpListener::bind(stand.api) {
                Ok(listener) => break listener,
                Err(e) if Instant::now() > end => return Err(format!("impostor: {e}")),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        listener.set_nonblocking(true).map_err(|e| e.to_string())?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut asked = 0;
            while !told.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                asked += 1;
                let _ = stream.set_nonblocking(false);
                let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
                let _ = stream.read(&mut [0; 2048]);
                let body = r#"{"status":"ok","process":"daemon","pid":1,"instance":"x"}"#;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
            }
            asked
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(0)
    }
}
