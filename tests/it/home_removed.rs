//! The home directory goes away under processes that run, as by `rm -rf`: they are found, asked and ended
//! there again, and what the environment of running programs names is there as it was.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use halton_meter::supervisor::{JournalEntry, journal};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Stand, send};
use crate::programs::{Program, curl_messages, in_time, show};

const PROCESSES: [&str; 4] = ["root", "edge", "daemon", "watchdog"];

fn hello() -> Program {
    curl_messages("--http1.1", "hi", false)
}

fn started() -> (Stand, Vec<Option<u32>>) {
    let stand = Stand::new();
    stand.cuts_journal();
    stand.must(&["start"]);
    stand.wait_metering();
    stand.wait_metered(&hello());
    let pids = pids(&stand);
    assert!(pids.iter().all(Option::is_some), "{pids:?}{}", stand.logs());
    (stand, pids)
}

fn pids(stand: &Stand) -> Vec<Option<u32>> {
    PROCESSES.iter().map(|process| stand.pid(process)).collect()
}

/// Of who serves the port, by its own word.
fn serving(stand: &Stand) -> Option<u32> {
    let url = format!("http://{}/health", stand.edge);
    let output = in_time(Command::new("curl").args(["-sS", "--noproxy", "*", &url]));
    let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
    answer["pid"].as_u64()?.try_into().ok()
}

/// How often the root has had an edge that serves.
fn edges(stand: &Stand) -> usize {
    let entries = journal::read_all(&stand.home.journal_file()).unwrap_or_default();
    let ready = |e: &&JournalEntry| {
        e.process == "root" && e.child.as_deref() == Some("edge") && e.event == "ready"
    };
    entries.iter().filter(ready).count()
}

/// One that can't have its lock, and its pid.
fn lockless() -> (Stand, u32) {
    let (stand, before) = started();
    let lock = stand.home.pid_file("edge");
    stand.wait("an end of locks", || {
        let _ = fs::remove_file(&lock);
        fs::create_dir(&lock).is_ok()
    });
    let had = edges(&stand);
    before[1].into_iter().for_each(|pid| send(pid, Signal::KILL));
    stand.wait("the next edge", || edges(&stand) > had);
    let pid = serving(&stand).expect("it serves");
    assert_ne!(Some(pid), before[1]);
    (stand, pid)
}

/// Something may be written there meanwhile.
fn remove(stand: &Stand, path: &Path) {
    stand.wait("removal", || fs::remove_dir_all(path).is_ok());
}

/// Where the ports are read from: the user's own again.
fn configure(stand: &Stand) {
    stand.home.create().unwrap();
    stand.configure(stand.origin.addr(), "");
}

#[test]
fn a_home_that_is_removed_is_there_again_with_the_same_ca() {
    let (stand, before) = started();
    let (ca, bundle) = (stand.home.ca_cert(), stand.home.ca_bundle());
    let union = stand.home.ca_dir().join("union-0000000000000001-own.pem");
    fs::copy(&bundle, &union).unwrap();
    let kept = [ca, bundle, union, stand.home.ca_key(), stand.home.token_file()];
    let contents = || kept.iter().map(|path| fs::read(path).ok()).collect::<Vec<_>>();
    let old = contents();
    // The daemon takes note of files every 2 s.
    stand.wait("note of the union", || {
        let held = |pid| fs::read_dir(format!("/proc/{pid}/fd")).ok();
        let Some(held) = before[2].and_then(held) else {
            std::thread::sleep(std::time::Duration::from_secs(5));
            return true;
        };
        held.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == kept[2]))
    });

    remove(&stand, stand.home.path());
    configure(&stand);
    stand.wait("the same processes", || pids(&stand) == before);
    stand.wait("the same files", || contents() == old);
    stand.wait_metering();
    let status = stand.json(&["status"]);
    for (process, pid) in PROCESSES.iter().zip(&before) {
        assert_eq!(status[process]["pid"].as_u64(), pid.map(u64::from), "{process}: {status}");
    }
    stand.wait_metered(&hello());
    stand.must(&["edge", "stop"]);
    assert_eq!(pids(&stand), [None; 4]);
    assert!(TcpStream::connect(stand.edge).is_err(), "it holds its port still");
}

/// Commands that come too early wait for it, rather than making another CA and taking the edge for
/// another program.
#[test]
fn a_command_right_after_the_home_is_removed_finds_all_of_it() {
    let (stand, before) = started();
    let ca = fs::read(stand.home.ca_cert()).unwrap();
    remove(&stand, stand.home.path());
    configure(&stand);
    let output = stand.halton(&["start"]);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert_eq!(pids(&stand), before);
    assert!(fs::read(stand.home.ca_cert()).unwrap() == ca, "another CA{}", stand.logs());
    stand.wait_metered(&hello());
}

#[test]
fn a_home_that_was_away_for_a_while_is_the_same_again() {
    let (stand, before) = started();
    let away = stand.scratch().join("away");
    fs::rename(stand.home.path(), &away).unwrap();
    configure(&stand);
    stand.wait("the same processes", || pids(&stand) == before);
    remove(&stand, stand.home.path());
    stand.wait("its place", || {
        let _ = fs::remove_dir_all(stand.home.path());
        fs::rename(&away, stand.home.path()).is_ok()
    });
    assert_eq!(pids(&stand), before);
    stand.wait_metering();
    stand.wait_metered(&hello());
    assert_eq!(pids(&stand), before);
}

/// As when it lies on a disk that is not mounted yet: it takes all that it missed when it can.
#[test]
fn an_edge_that_started_without_its_home_finds_it() {
    let (stand, before) = started();
    let away = stand.scratch().join("away");
    fs::rename(stand.home.path(), &away).unwrap();
    stand.wait("a file in its place", || {
        let _ = fs::remove_dir_all(stand.home.path());
        fs::write(stand.home.path(), "").is_ok()
    });
    before[1].into_iter().for_each(|pid| send(pid, Signal::KILL));
    let mut pid = None;
    stand.wait("the next edge", || {
        pid = serving(&stand);
        pid.is_some() && pid != before[1]
    });
    fs::remove_file(stand.home.path()).unwrap();
    stand.wait("its place", || {
        let _ = fs::remove_dir_all(stand.home.path());
        fs::rename(&away, stand.home.path()).is_ok()
    });
    stand.wait("its lock", || stand.pid("edge") == pid);
    // By the port of the API that the file names.
    stand.wait_metering();
    stand.wait_metered(&hello());
    assert_eq!(stand.pid("edge"), pid);
    stand.must(&["edge", "stop"]);
    assert!(TcpStream::connect(stand.edge).is_err(), "it holds its port still");
}

#[test]
fn an_edge_without_its_lock_is_its_roots_after_an_upgrade_too() {
    let (stand, pid) = lockless();
    let had = edges(&stand);
    stand.signal("root", Signal::USR2);
    stand.wait("the next image's edge", || edges(&stand) > had);
    assert_eq!(serving(&stand), Some(pid), "{}", stand.logs());
    stand.signal("root", Signal::TERM);
    stand.wait("end of both", || {
        stand.pid("root").is_none() && TcpStream::connect(stand.edge).is_err()
    });
}

#[test]
fn edge_stop_ends_one_that_its_lock_does_not_tell_of() {
    let (stand, pid) = lockless();
    stand.kill("root");
    assert_eq!(serving(&stand), Some(pid));
    stand.must(&["edge", "stop"]);
    assert!(TcpStream::connect(stand.edge).is_err(), "it holds its port still");
}
