//! The product as a user runs it: the real binary, a home directory of its own, free ports, and the
//! test origin as the internet.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use halton_meter::home::{Home, PidLock};
use halton_meter::supervisor::journal;
use halton_meter::supervisor::replay::replay;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::origin::{Origin, Root, Setup};
use crate::programs::{CA_VARS, Program, clean, in_time, show};

/// No test waits longer for one thing. Generous: it only bounds a failure.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// The processes, root first: it restarts the others.
const PROCESSES: [&str; 4] = ["root", "edge", "daemon", "watchdog"];

/// A home, an origin, and whatever the product started there.
#[derive(Debug)]
pub struct Stand {
    pub home: Home,
    pub origin: Origin,
    pub edge: SocketAddr,
    pub api: SocketAddr,
    dir: TempDir,
    guard: Child,
    journal_cut: AtomicBool,
}

impl Stand {
    pub fn new() -> Self {
        Self::with(&Setup::default())
    }

    pub fn with(setup: &Setup) -> Self {
        Self::before(Origin::with(setup, &Root::new("Test Origin Root")))
    }

    /// Metering, however long this machine takes: a first `run` goes on unmetered after 3 s.
    pub fn started() -> Self {
        let stand = Self::new();
        stand.must(&["start"]);
        stand.wait_metering();
        stand
    }

    /// A home that leads every provider's host to `origin`.
    pub fn before(origin: Origin) -> Self {
        let dir = TempDir::new().expect("temporary directory");
        let home = Home::at(dir.path().join("halton"));
        fs::create_dir(home.path()).expect("home");
        let [edge, api] = free_ports();
        let (guard, journal_cut) = (guard(home.path(), dir.path()), AtomicBool::default());
        let stand = Self { home, origin, edge, api, dir, guard, journal_cut };
        fs::write(stand.root_pem(), stand.origin.root_pem()).expect("root certificate");
        stand.configure(stand.origin.addr(), "");
        stand
    }

    /// Writes config.toml; `more` goes behind it.
    pub fn configure(&self, origin: SocketAddr, more: &str) {
        self.configure_hosts(&[("*", origin)], more);
    }

    /// Writes config.toml with an origin per host, or host and port.
    pub fn configure_hosts(&self, origins: &[(&str, SocketAddr)], more: &str) {
        let place =
            |host: &str| if host.contains(':') { host.into() } else { format!("{host}:443") };
        let connect: Vec<_> = origins
            .iter()
            .map(|(host, addr)| format!("\"{}\" = \"{addr}\"", place(host)))
            .collect();
        let text = format!(
            "[edge]\nport = {}\n[daemon]\napi_port = {}\n[upstream]\nextra_ca_file = {:?}\n\
             connect = {{ {} }}\n[log]\nlevel = \"debug\"\n{more}",
            self.edge.port(),
            self.api.port(),
            self.root_pem(),
            connect.join(", "),
        );
        fs::write(self.home.config_file(), text).expect("config.toml");
    }

    /// The origin's root, for clients that meet the origin itself.
    pub fn root_pem(&self) -> PathBuf {
        self.dir.path().join("origin-root.pem")
    }

    /// A directory for whatever the test needs.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// `halton-meter ARGS`, ready to be changed further.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(&binary(), args)
    }

    /// The same of our program at another place.
    pub fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        clean(&mut command, self.dir.path());
        command.env(halton_meter::home::HOME_VAR, self.home.path());
        // Never this machine's own.
        command.env(halton_meter::platform::RECORD_VAR, self.dir.path().join("system-proxy"));
        command.current_dir(self.dir.path());
        command.args(args).stdin(Stdio::null());
        command
    }

    pub fn halton(&self, args: &[&str]) -> Output {
        in_time(&mut self.command(args))
    }

    /// Like `halton`, but it must succeed.
    pub fn must(&self, args: &[&str]) -> Output {
        let output = self.halton(args);
        assert!(output.status.success(), "halton-meter {args:?}: {}{}", show(&output), self.logs());
        output
    }

    /// `halton-meter run -- PROGRAM`, in the environment of a user who set nothing.
    pub fn run(&self, program: &Program) -> Output {
        in_time(&mut self.run_command(program))
    }

    /// The same for a user whose own CA variables name the origin's root, so that the client works
    /// unmetered too.
    pub fn run_trusting(&self, program: &Program) -> Output {
        in_time(&mut self.trusting(program))
    }

    pub fn trusting(&self, program: &Program) -> Command {
        let mut command = self.run_command(program);
        for name in CA_VARS {
            command.env(name, self.root_pem());
        }
        command
    }

    pub fn run_command(&self, program: &Program) -> Command {
        let mut command = self.command(&["run", "--"]);
        command.args(&program.argv).envs(program.env.iter().map(|(k, v)| (k, v)));
        command
    }

    /// Runs a read command with `--json`.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.halton(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| {
            panic!("halton-meter {args:?} --json: {e}: {}{}", show(&output), self.logs())
        })
    }

    /// All rows of the ledger, oldest first.
    pub fn rows(&self) -> Vec<Value> {
        let document = self.json(&["requests", "--all", "--limit", "1000"]);
        let list = document.get("requests").unwrap_or(&document);
        let mut rows = list.as_array().unwrap_or_else(|| panic!("no rows: {document}")).clone();
        rows.sort_by(|a, b| a["id"].as_str().cmp(&b["id"].as_str()));
        rows
    }

    /// Rows of requests to a model that have ended, once there are `n` of them; no more.
    pub fn wait_rows(&self, n: usize) -> Vec<Value> {
        let rows = self.wait_rows_at_least(n);
        assert_eq!(rows.len(), n, "too many rows: {rows:#?}");
        rows
    }

    pub fn wait_rows_at_least(&self, n: usize) -> Vec<Value> {
        let mut rows = Vec::new();
        self.wait(&format!("{n} finished rows"), || {
            rows = self.finished_rows();
            rows.len() >= n
        });
        rows
    }

    /// Rows of requests to a model that have ended by now.
    pub fn finished_rows(&self) -> Vec<Value> {
        let mut rows = self.rows();
        rows.retain(|r| r["billable"] == true && r["completeness"] != "open");
        rows
    }

    /// Polls until `done`; the failure message says what was waited for and shows the logs.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !done() {
            assert!(Instant::now() < end, "no {what} within {DEADLINE:?}{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every process says that it is well. The edge notices with its next connection
    /// (docs/adr/0007).
    pub fn wait_metering(&self) {
        self.wait("metering", || self.json(&["status"])["state"] == "metering");
    }

    /// Repeats a request, which must succeed each time, until one is metered.
    pub fn wait_metered(&self, program: &Program) {
        let count = || self.rows().iter().filter(|r| r["billable"] == true).count();
        let before = count();
        self.wait("metered request", || {
            let output = self.run_trusting(program);
            assert!(output.status.success(), "{}{}", show(&output), self.logs());
            count() > before
        });
    }

    /// Pid of a live process of ours.
    pub fn pid(&self, process: &str) -> Option<u32> {
        PidLock::holder(&self.home.pid_file(process)).ok().flatten()
    }

    pub fn signal(&self, process: &str, signal: Signal) {
        let pid = self.pid(process).unwrap_or_else(|| panic!("no {process}{}", self.logs()));
        send(pid, signal);
    }

    /// Ends a process at once and returns when the kernel has let go of its lock.
    pub fn kill(&self, process: &str) {
        let pid = self.pid(process);
        self.signal(process, Signal::KILL);
        self.wait(&format!("end of {process}"), || self.pid(process) != pid);
    }

    /// How often the system proxy was taken off.
    pub fn proxy_offs(&self) -> usize {
        let recorded = fs::read_to_string(self.dir.path().join("system-proxy"));
        recorded.unwrap_or_default().lines().filter(|line| *line == "off").count()
    }

    /// `coverage` of the report.
    pub fn coverage(&self) -> Value {
        self.json(&["report", "--since", "1d"])["coverage"].clone()
    }

    /// The test takes lines of the journal away: what is left of it proves nothing.
    pub fn cuts_journal(&self) {
        self.journal_cut.store(true, Ordering::Relaxed);
    }

    /// Everything that the processes said, for failure messages.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let files = fs::read_dir(self.home.log_dir()).into_iter().flatten().flatten();
        for file in files.map(|f| f.path()).chain([self.home.journal_file()]) {
            if let Ok(content) = fs::read_to_string(&file) {
                let tail: Vec<_> = content.lines().rev().take(60).collect();
                text.push_str(&format!("\n--- {}\n", file.display()));
                for line in tail.iter().rev() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        text
    }
}

impl Stand {
    /// What the supervisors did in this test is what their pure core decides.
    fn check_journal(&self) {
        if std::thread::panicking() || self.journal_cut.load(Ordering::Relaxed) {
            return;
        }
        if let Err(e) = judge_journal(&self.home.journal_file()) {
            panic!("the journal: {e}{}", self.logs());
        }
    }
}

/// A journal that can't be read, or misses lines, proves nothing: that is not passed over. No file is
/// no supervisor, and a process that was killed took its last lines along.
pub fn judge_journal(file: &Path) -> Result<(), String> {
    let entries = journal::read_all(file).map_err(|e| format!("can't be read: {e}"))?;
    let replayed = replay(&entries)
        .map_err(|e| format!("not what the core of the supervisor decides: {e}"))?;
    if replayed.gaps.is_empty() && (replayed.steps > 0 || entries.is_empty()) {
        return Ok(());
    }
    Err(format!("{} steps judged, gaps in {:?}", replayed.steps, replayed.gaps))
}

impl Drop for Stand {
    fn drop(&mut self) {
        // Until no lock is held: a root that is killed in mid-start may just have made a child.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let alive: Vec<_> = PROCESSES.iter().filter_map(|p| self.pid(p)).collect();
            if alive.is_empty() || Instant::now() > end {
                break;
            }
            alive.into_iter().for_each(|pid| send(pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
        self.check_journal();
    }
}

/// The program under test: what this build made, or another one that the environment names.
pub fn binary() -> PathBuf {
    std::env::var_os("HALTON_METER_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_halton-meter").into(), PathBuf::from)
}

pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// A process that ends what is left if the test itself is killed, and takes off what it has mounted
/// below its directory: its stdin is a pipe that only the test holds open. It checks that a pid still
/// belongs to this home.
fn guard(home: &Path, dir: &Path) -> Child {
    const SCRIPT: &str = r#"
        cat >/dev/null
        of() {
            if [ -r "/proc/$1/environ" ]; then tr '\0' '\n' <"/proc/$1/environ"
            else ps -Eww -o command= -p "$1" | tr ' ' '\n'; fi
        }
        for name in root edge daemon watchdog; do
            pid=$(cat "$1/run/$name.pid" 2>/dev/null) || continue
            of "$pid" 2>/dev/null | grep -qxF "HALTON_METER_HOME=$1" && kill -9 "$pid"
        done
        # One that was just starting has no file yet.
        for at in $(grep -lzxF "HALTON_METER_HOME=$1" /proc/[0-9]*/environ 2>/dev/null); do
            pid=${at#/proc/}
            kill -9 "${pid%/environ}" 2>/dev/null
        done
        [ -r /proc/self/mounts ] || exit 0
        # The innermost first.
        awk -v below="$2/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r |
            while read -r at; do umount -l "$at"; done
    "#;
    Command::new("sh")
        .args(["-c", SCRIPT, "guard"])
        .args([home, dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Whoever ends a test that takes too long ends its whole group.
        .process_group(0)
        .spawn()
        .expect("guard")
}

/// Below the range that the kernel hands out for outgoing connections, so that no client of a
/// parallel test takes it between here and its use.
pub fn free_port() -> SocketAddr {
    let [port] = free_ports();
    port
}

/// Each is held until all are found, so that none is found twice.
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    [(); N].map(|()| held_port()).map(|held| held.local_addr().expect("its address"))
}

/// Tests that run at the same time look in places of their own: a port of one of them may be unused
/// for a while, between here and its use or while its process is started anew.
fn held_port() -> TcpListener {
    const SLOTS: u16 = 32;
    const SLOT_PORTS: u16 = 18_000 / SLOTS;
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|slot| slot.parse().ok());
    let (first, ports) = match slot {
        Some(slot @ 0..SLOTS) => (12_000 + slot * SLOT_PORTS, SLOT_PORTS),
        Some(_) | None => (12_000, 18_000),
    };
    for _ in 0..200 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("random");
        let port = first + u16::from_ne_bytes(random) % ports;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if let Ok(held) = TcpListener::bind(addr) {
            return held;
        }
    }
    panic!("no free port");
}
