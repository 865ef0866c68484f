//! What can happen to the ledger's file while requests go through: each of them succeeds, and the
//! account is exact again when the trouble is over.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;

use crate::client::{Client, trusting};
use crate::harness::Stand;
use crate::programs::{self, TEXT, show};

const CLIENTS: usize = 3;
const HOST: &str = "api.anthropic.com";
const BODY: &str = r#"{"model":"claude-sonnet-5","max_tokens":9,
    "messages":[{"role":"user","content":"hi [[framing=length]]"}]}"#;

/// Clients that make one connection after the other, until they are told to stop.
struct Traffic {
    over: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(stand: &Stand) -> Self {
        let ca = fs::read_to_string(stand.home.ca_cert()).expect("our CA");
        let config = trusting(&[stand.origin.root_pem(), &ca]);
        let (over, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..CLIENTS).map(|_| {
            let (over, connections) = (Arc::clone(&over), Arc::clone(&connections));
            let (config, edge) = (Arc::clone(&config), stand.edge);
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let mut client = Client::connect(edge, HOST, &config).expect("a handshake");
                    for _ in 0..2 {
                        let answer = client.post("/v1/messages", BODY).expect("an answer");
                        assert!(String::from_utf8_lossy(&answer).contains(TEXT));
                    }
                    client.close();
                    connections.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Self { clients: clients.collect(), over, connections }
    }

    /// Waits until so many more connections have come to their end.
    fn flows(&self, stand: &Stand, more: u64) {
        let before = self.connections.load(Ordering::Relaxed);
        stand.wait("traffic", || {
            assert!(self.clients.iter().all(|c| !c.is_finished()), "a request failed");
            self.connections.load(Ordering::Relaxed) >= before + more
        });
    }

    /// How many connections there were; each request of each of them was answered.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.clients.into_iter().for_each(|client| client.join().expect("every request works"));
        self.connections.load(Ordering::Relaxed)
    }
}

fn reasons(stand: &Stand) -> String {
    stand.json(&["status"])["daemon"]["reasons"].to_string()
}

/// Waits until coverage tells of all connections; nothing was lost or cut.
fn all_accounted(stand: &Stand, connections: u64) -> Value {
    let number = |coverage: &Value, name: &str| coverage[name].as_u64().expect("a number");
    let mut coverage = Value::Null;
    stand.wait("whole account", || {
        coverage = stand.coverage();
        number(&coverage, "metered_connections") + number(&coverage, "passed_connections")
            >= connections
    });
    let sum = number(&coverage, "metered_connections") + number(&coverage, "passed_connections");
    assert_eq!(sum, connections, "{coverage:#}");
    for gap in ["lost_connections", "lost_rows", "cut_connections"] {
        assert_eq!(coverage[gap], 0, "{coverage:#}");
    }
    // Observers look four times a second: the end of the last ones may be under way.
    stand.wait("whole rows", || stand.rows().iter().all(|row| row["completeness"] == "complete"));
    coverage
}

fn metered_rows(stand: &Stand) -> usize {
    let output = stand.halton(&["requests", "--all", "--limit", "100000", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    document["requests"].as_array().map_or(0, Vec::len)
}

#[test]
fn locked_for_a_while_rows_wait_and_none_is_lost() {
    let stand = Stand::started();
    let traffic = Traffic::start(&stand);
    traffic.flows(&stand, 5);
    let other = Connection::open(stand.home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    traffic.flows(&stand, 20);
    other.execute_batch("COMMIT").unwrap();
    traffic.flows(&stand, 5);
    all_accounted(&stand, traffic.stop());
}

#[test]
fn locked_for_long_connections_go_raw_and_are_metered_again_later() {
    let stand = Stand::started();
    let traffic = Traffic::start(&stand);
    traffic.flows(&stand, 5);
    let other = Connection::open(stand.home.ledger_file()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    stand.wait("degraded health", || reasons(&stand).contains("locked by another program"));
    traffic.flows(&stand, 50);
    other.execute_batch("COMMIT").unwrap();
    stand.wait_metering();
    traffic.flows(&stand, 20);
    let coverage = all_accounted(&stand, traffic.stop());
    assert!(coverage["passed_connections"].as_u64() > Some(0), "{coverage:#}");
}

#[test]
fn a_full_disk_makes_rows_wait_until_there_is_room() {
    let stand = Stand::new();
    let Some(disk) = SmallDisk::mount(&stand) else { return };
    symlink(disk.path().join("db.sqlite"), stand.home.ledger_file()).unwrap();
    stand.must(&["start"]);
    stand.wait_metering();
    let traffic = Traffic::start(&stand);
    traffic.flows(&stand, 5);
    disk.fill();
    stand.wait("degraded health", || reasons(&stand).contains("the disk is full"));
    traffic.flows(&stand, 50);
    let began = Instant::now();
    let output = stand.halton(&["start"]);
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the disk is full"));
    assert!(began.elapsed() < Duration::from_secs(30), "as if waiting made room");
    disk.make_room();
    stand.wait_metering();
    traffic.flows(&stand, 20);
    let coverage = all_accounted(&stand, traffic.stop());
    assert!(coverage["passed_connections"].as_u64() > Some(0), "{coverage:#}");
}

#[test]
fn corrupted_in_use_it_is_set_aside_and_a_new_one_begun() {
    let stand = Stand::started();
    let traffic = Traffic::start(&stand);
    traffic.flows(&stand, 20);
    for file in files(&stand).iter().take(2) {
        let file = File::options().write(true).open(file).unwrap();
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        file.write_all_at(&vec![0xa5; length], 0).unwrap();
    }
    begins_anew(&stand, traffic);
    let kept = fs::read_dir(stand.home.path()).unwrap().flatten();
    let kept: Vec<_> = kept
        .map(|f| f.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("db.sqlite.corrupt"))
        .collect();
    let set_aside = stand.coverage()["set_aside"].clone();
    assert_eq!(set_aside.as_array().map(Vec::len), Some(1), "{set_aside} {kept:?}");
    assert!(kept.iter().any(|name| set_aside[0] == **name), "{set_aside} {kept:?}");
    assert_eq!(stand.coverage()["ledgers_gone"], 0);
}

#[test]
fn deleted_in_use_a_new_one_is_begun() {
    let stand = Stand::started();
    let traffic = Traffic::start(&stand);
    traffic.flows(&stand, 20);
    for file in files(&stand) {
        let _ = fs::remove_file(file);
    }
    begins_anew(&stand, traffic);
    assert_eq!(stand.coverage()["ledgers_gone"], 1);
}

/// The database, its write-ahead log, and the log's index.
fn files(stand: &Stand) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = stand.home.ledger_file().into_os_string();
        name.push(suffix);
        name.into()
    })
}

/// Rows are being written, and reports can be read.
fn begins_anew(stand: &Stand, traffic: Traffic) {
    stand.wait("readable ledger", || {
        stand.home.ledger_file().exists() && stand.halton(&["report"]).status.success()
    });
    let before = metered_rows(stand);
    stand.wait("new rows", || metered_rows(stand) > before);
    traffic.flows(stand, 20);
    traffic.stop();
    stand.wait_metering();
}

#[test]
fn a_home_that_can_only_be_read_costs_the_metering() {
    let stand = Stand::new();
    let Some(_read_only) = ReadOnly::mount(stand.home.path()) else { return };
    let output = stand.halton(&["run", "--", "sh", "-c", "echo it ran"]);
    let ok = output.status.success() && output.stdout == b"it ran\n";
    assert!(ok, "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not metered"), "{}", show(&output));
}

/// 73, and why, once.
fn cannot_write(stand: &Stand, args: &[&str], why: &str) {
    let output = stand.halton(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(73), "{args:?} {}", show(&output));
    assert_eq!(said.matches(why).count(), 1, "{args:?} {}", show(&output));
}

#[test]
fn what_can_t_be_written_is_told_by_the_exit_code() {
    let stand = Stand::new();
    cannot_write(&stand, &["export", "csv", "-o", "none/rows.csv"], "No such file");
    let commands: [&[&str]; 3] = [
        &["config", "set", "log.level", "debug"],
        &["budget", "set", "all", "--limit", "5"],
        &["pricing", "set", "openai/gpt-5", "--input", "1"],
    ];
    stand.must(&["config", "check"]);
    stand.must(&["ca", "path"]);
    if let Some(_read_only) = ReadOnly::mount(stand.home.path()) {
        commands.iter().for_each(|args| cannot_write(&stand, args, "Read-only file system"));
    }
    let Some(disk) = SmallDisk::mount(&stand) else { return };
    for file in [stand.home.config_file(), stand.home.budgets_file(), stand.home.prices_file()] {
        let there = disk.path().join(file.file_name().unwrap());
        let text = fs::read(&file).unwrap_or_default();
        fs::write(&there, text).unwrap();
        let _ = fs::remove_file(&file);
        symlink(there, file).unwrap();
    }
    disk.fill();
    let files = || fs::read_dir(disk.path()).unwrap().count();
    let before = files();
    commands.iter().for_each(|args| cannot_write(&stand, args, "No space left"));
    assert_eq!(files(), before, "a leftover");
}

/// Where the stand's guard finds it.
#[test]
fn what_a_killed_test_has_mounted_goes_with_it() {
    let stand = Stand::new();
    let Some(disk) = SmallDisk::mount(&stand) else { return };
    let inner = disk.path().join("inner");
    fs::create_dir(&inner).unwrap();
    assert!(mount(&["-t", "tmpfs", "none"], &inner));
    let below = format!("{}/", stand.scratch().display());
    let mounted = || fs::read_to_string("/proc/self/mounts").unwrap().matches(&below).count();
    assert_eq!(mounted(), 2);
    // What is killed drops nothing.
    std::mem::forget(disk);
    drop(stand);
    assert_eq!(mounted(), 0);
}

/// A file system of its own for the database.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this user can't; that is said.
    fn mount(stand: &Stand) -> Option<Self> {
        let dir = stand.scratch().join("disk");
        fs::create_dir(&dir).expect("directory");
        mount(&["-t", "tmpfs", "-o", "size=4m", "none"], &dir).then(|| Self(dir))
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn fill(&self) {
        let mut filler = File::create(self.path().join("filler")).expect("filler");
        while filler.write_all(&[0; 512]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("filler")).expect("filler");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// A directory over itself, read-only.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        let over = path.to_str().expect("path");
        if !mount(&["--bind", over], path) {
            return None;
        }
        let bound = Self(path);
        mount(&["-o", "remount,ro,bind"], path).then_some(bound)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        unmount(self.0);
    }
}

fn mount(args: &[&str], at: &Path) -> bool {
    let output = Command::new("mount").args(args).arg(at).output();
    let done = output.as_ref().is_ok_and(|o| o.status.success());
    if !done {
        eprintln!("mount {args:?}: {output:?}");
        programs::not_checked("full and read-only file systems (may not mount)");
    }
    done
}

/// Whoever still uses it keeps it until they end.
fn unmount(at: &Path) {
    let _ = Command::new("umount").arg("-l").arg(at).status();
}
