//! The product as a user has it: the release binary, its own process tree, a home of its own.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use halton_meter::home::{HOME_VAR, Home, PidLock};
use halton_meter::platform::RECORD_VAR;
use halton_meter::supervisor::journal;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::origin::{INPUT_TOKENS, OUTPUT_TOKENS};
use crate::pki::{HOST, root_pem};
use crate::role::wait_for_parent;

/// Root first: it restarts the others.
const PROCESSES: [&str; 4] = ["root", "edge", "daemon", "watchdog"];

/// A file that makes a directory ours to remove.
pub const SCRATCH: &str = "halton-meter-bench";

/// Bounds a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// An installation. What runs in it ends with it, and with us.
#[derive(Debug)]
pub struct Meter {
    pub home: Home,
    pub edge: SocketAddr,
    program: PathBuf,
    dir: PathBuf,
    guard: Child,
}

impl Meter {
    /// A home in `dir/name` that takes `origin` for the provider. Nothing runs yet.
    pub fn install(program: &Path, dir: &Path, name: &str, origin: SocketAddr) -> Result<Self> {
        let home = Home::at(dir.join(name));
        home.create()?;
        // Held until both are found, so that none is found twice.
        let (edge, api) = (held_port()?, held_port()?);
        let (edge, api) = (edge.local_addr()?, api.local_addr()?);
        let config = format!(
            "[edge]\nport = {}\n[daemon]\napi_port = {}\n[upstream]\nextra_ca_file = {:?}\n\
             connect = {{ \"{HOST}:443\" = \"{origin}\" }}\n",
            edge.port(),
            api.port(),
            root_pem(dir),
        );
        fs::write(home.config_file(), config)?;
        let guard = guard(home.path())?;
        Ok(Self { home, edge, program: program.to_owned(), dir: dir.to_owned(), guard })
    }

    /// Starts the tree, and returns when it meters.
    pub fn start(&self) -> Result<()> {
        let output = self.command(["start"]).output()?;
        ensure!(output.status.success(), "start: {}", String::from_utf8_lossy(&output.stderr));
        self.wait_metering()
    }

    pub fn wait_metering(&self) -> Result<()> {
        self.wait("metering", || Ok(self.json(["status"])?["state"] == "metering"))
    }

    pub fn command<const N: usize>(&self, args: [impl AsRef<OsStr>; N]) -> Command {
        let mut command = Command::new(&self.program);
        // Nothing of this machine's own decides anything.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy().to_ascii_uppercase();
            if text.ends_with("_PROXY") || text.starts_with("HALTON_METER_") {
                command.env_remove(name);
            }
        }
        command.env(HOME_VAR, self.home.path());
        command.env(RECORD_VAR, self.dir.join("system-proxy"));
        command.args(args).stdin(Stdio::null());
        command
    }

    fn json<const N: usize>(&self, args: [&str; N]) -> Result<Value> {
        let output = self.command(args).arg("--json").output()?;
        serde_json::from_slice(&output.stdout).with_context(|| {
            format!("{args:?}: {}{}", String::from_utf8_lossy(&output.stderr), self.logs())
        })
    }

    pub fn wait(&self, what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while !done()? {
            ensure!(Instant::now() < end, "no {what} within {PATIENCE:?}{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The ledger holds these messages, each with the origin's figures, and no other.
    pub fn check_ledger(&self, messages: u64) -> Result<()> {
        let mut seen = Value::Null;
        let complete = self.wait("complete ledger", || {
            seen = self.json(["report", "--since", "1d"])?;
            let coverage = &seen["coverage"];
            Ok(coverage["metered_requests"] == messages && seen["summary"]["open"] == 0)
        });
        let expected = serde_json::json!({
            "messages": messages, "errors": 0, "incomplete": 0, "passed": 0, "lost": 0,
            "lost_rows": 0, "input": messages * INPUT_TOKENS, "output": messages * OUTPUT_TOKENS,
        });
        let (summary, coverage) = (&seen["summary"], &seen["coverage"]);
        let tokens = |class: &str| summary["tokens"][class].as_u64().unwrap_or(0);
        let found = serde_json::json!({
            "messages": coverage["metered_requests"], "errors": summary["errors"],
            "incomplete": summary["incomplete"], "passed": coverage["passed_connections"],
            "lost": coverage["lost_connections"], "lost_rows": coverage["lost_rows"],
            "input": tokens("input"), "output": tokens("output"),
        });
        if found != expected {
            bail!("the ledger holds {found}, not {expected}; {}", self.incomplete()?);
        }
        complete
    }

    /// Why rows are not complete, and how many of each kind.
    fn incomplete(&self) -> Result<String> {
        let ledger = rusqlite::Connection::open(self.home.ledger_file())?;
        let mut kinds = ledger.prepare(
            "SELECT count(*) || ' ' || completeness || ' ' || coalesce(completeness_reason, '')
             FROM requests WHERE completeness <> 'complete' GROUP BY completeness, completeness_reason",
        )?;
        let kinds = kinds.query_map([], |row| row.get::<_, String>(0))?;
        Ok(kinds.collect::<Result<Vec<_>, _>>()?.join(", "))
    }

    /// Pid of a live process of ours.
    pub fn pid(&self, process: &str) -> Option<u32> {
        PidLock::holder(&self.home.pid_file(process)).ok().flatten()
    }

    pub fn pids(&self) -> Vec<u32> {
        PROCESSES.iter().filter_map(|process| self.pid(process)).collect()
    }

    /// Ends everything, and forgets what the supervisors wrote.
    pub fn kill(&self) -> Result<()> {
        end(&self.home);
        ensure!(self.pids().is_empty(), "processes that do not end");
        match fs::remove_file(self.home.journal_file()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// From the root's wish to start a process to the moment `child` of that process is ready.
    pub fn ready_after(&self, process: &str, child: &str) -> Result<Option<Duration>> {
        let entries = journal::read_all(&self.home.journal_file())?;
        let at = |owner: &str, child: &str, event: &str| {
            let is = |e: &&journal::JournalEntry| {
                e.process == owner && e.child.as_deref() == Some(child) && e.event == event
            };
            entries.iter().find(is).map(|e| e.at)
        };
        let (began, ready) = (at("root", process, "starting"), at(process, child, "ready"));
        Ok(began.zip(ready).and_then(|(a, b)| Duration::try_from(b.duration_since(a)).ok()))
    }

    /// The end of each log, for failures.
    fn logs(&self) -> String {
        let mut text = String::new();
        for process in PROCESSES {
            let log = fs::read_to_string(self.home.log_file(process)).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(10).collect();
            for line in tail.iter().rev() {
                text.push_str(&format!("\n{process}: {line}"));
            }
        }
        text
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        end(&self.home);
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a pid")?;
    Ok(kill_process(pid, signal)?)
}

/// Until no lock is held: a root that is killed in mid-start may just have made a child.
fn end(home: &Home) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let alive = |process: &&str| PidLock::holder(&home.pid_file(process)).ok().flatten();
    while Instant::now() < deadline {
        let pids: Vec<u32> = PROCESSES.iter().filter_map(alive).collect();
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            let _ = send(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that does it when we can't any more; a terminal's Ctrl-C does not reach it.
fn guard(home: &Path) -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("guard").arg(home).stdin(Stdio::piped()).process_group(0);
    Ok(command.spawn()?)
}

/// The guard's life. Who is gone without having ended it has left its directory behind too.
pub fn stand_guard(home: &Path) {
    wait_for_parent();
    end(&Home::at(home));
    let dir = home.parent().filter(|dir| dir.join(SCRATCH).is_file());
    if let Some(dir) = dir {
        let _ = fs::remove_dir_all(dir);
    }
}

/// Below the range of outgoing connections, so that nobody's takes it before its use.
fn held_port() -> Result<TcpListener> {
    for _ in 0..200 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("{e}"))?;
        let addr =
            SocketAddr::from((Ipv4Addr::LOCALHOST, 12_000 + u16::from_ne_bytes(random) % 18_000));
        if let Ok(held) = TcpListener::bind(addr) {
            return Ok(held);
        }
    }
    bail!("no free port")
}
