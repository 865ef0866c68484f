//! `up`: one tree, never two, and it ends with the program that keeps it.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Stand, send};
use crate::programs::{curl_messages, show};

const PROCESSES: [&str; 4] = ["root", "edge", "daemon", "watchdog"];

/// One that shows, and what it has said until now.
pub struct Up<'a>(&'a Stand, Child);

impl<'a> Up<'a> {
    pub fn start(stand: &'a Stand, mut command: Command) -> Self {
        let said = fs::File::create(stand.scratch().join("said")).unwrap();
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        Self(stand, command.spawn().unwrap())
    }

    fn said(&self) -> String {
        fs::read_to_string(self.0.scratch().join("said")).unwrap()
    }

    pub fn wait_said(&self, text: &str) {
        self.0.wait(text, || self.said().contains(text));
    }

    /// By Ctrl-C. All that it has said.
    pub fn end(mut self) -> String {
        send(self.1.id(), Signal::INT);
        self.0.wait("its end", || self.1.try_wait().unwrap().is_some());
        let status = self.1.wait().unwrap();
        assert!(status.success(), "{status}: {}{}", self.said(), self.0.logs());
        self.said()
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        let _ = self.1.kill();
        let _ = self.1.wait();
    }
}

/// Whether a second root was started and found the first one.
pub fn two_roots(stand: &Stand) -> bool {
    let log = fs::read_to_string(stand.home.log_file("root")).unwrap_or_default();
    log.contains("already running")
}

fn pids(stand: &Stand) -> [Option<u32>; 4] {
    PROCESSES.map(|process| stand.pid(process))
}

#[test]
fn its_end_leaves_nothing_and_says_so() {
    let stand = Stand::new();
    for round in 0..10 {
        let up = Up::start(&stand, stand.command(&["up"]));
        // Every other time in the middle of its start.
        if round % 2 == 0 {
            up.wait_said("metering on");
        } else {
            stand.wait("a root", || stand.pid("root").is_some());
        }
        let said = up.end();
        assert!(said.contains("can't connect"), "{round}: {said}");
        assert_eq!(pids(&stand), [None; 4], "{round}: {said}{}", stand.logs());
        TcpStream::connect(stand.edge).unwrap_err();
        assert!(!two_roots(&stand), "{round}: {said}{}", stand.logs());
    }
}

#[test]
fn what_runs_already_is_shown_and_goes_on() {
    let stand = Stand::started();
    let before = pids(&stand);
    let up = Up::start(&stand, stand.command(&["up"]));
    up.wait_said("already running");
    up.wait_said("metering on");
    let said = up.end();
    assert!(said.contains("still running") && !said.contains("can't connect"), "{said}");
    assert_eq!(pids(&stand), before);
    assert!(!two_roots(&stand), "{}", stand.logs());
    let output = stand.run(&curl_messages("--http1.1", "hi", false));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(1);
}

#[test]
fn a_root_that_died_meanwhile_ends_nothing_else() {
    let stand = Stand::new();
    let up = Up::start(&stand, stand.command(&["up"]));
    up.wait_said("metering on");
    stand.wait("all of it", || pids(&stand).iter().all(Option::is_some));
    stand.kill("root");
    let said = up.end();
    assert!(said.contains("`halton-meter edge stop` ends it"), "{said}");
    assert!(!said.contains("exchanges in flight"), "{said}");
    assert!(stand.pid("edge").is_some() && stand.pid("daemon").is_some(), "{}", stand.logs());
    stand.must(&["edge", "stop"]);
}
