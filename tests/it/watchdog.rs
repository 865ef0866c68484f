//! The watchdog as a process of its own. In most tests the daemon that it asks is played by the test,
//! which so decides, and counts, every probe.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::time::Duration;

use halton_meter::home::{PidLock, write_atomic};
use rustix::process::Signal;

use crate::harness::{DEADLINE, Stand, send};
use crate::programs::{self, TEXT, show};

/// The daemon's part: its lock, its instance, its port. Dropped before the stand, which ends every
/// process that holds a lock.
struct Daemon<'a> {
    stand: &'a Stand,
    watchdog: Child,
    listener: TcpListener,
    _lock: PidLock,
}

const OURS: &str = "6b8bbf0f-9f4c-4c52-9d0c-0b0f3f9f2a11";

impl<'a> Daemon<'a> {
    fn new(stand: &'a Stand) -> Self {
        stand.home.create().unwrap();
        let lock = PidLock::acquire(&stand.home.pid_file("daemon")).unwrap().unwrap();
        write_atomic(&stand.home.instance_file(), OURS.as_bytes()).unwrap();
        let listener = TcpListener::bind(stand.api).unwrap();
        listener.set_nonblocking(true).unwrap();
        let watchdog = stand.command(&["watchdog"]).spawn().unwrap();
        Self { stand, watchdog, listener, _lock: lock }
    }

    /// The next probe, when it comes.
    fn probe(&self) -> TcpStream {
        let mut accepted = None;
        self.stand.wait("probe", || match self.listener.accept() {
            Ok((probe, _)) => accepted.replace(probe).is_none(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => panic!("accept: {e}"),
        });
        let mut probe = accepted.unwrap();
        // The BSDs' inherit it.
        probe.set_nonblocking(false).unwrap();
        probe.set_read_timeout(Some(DEADLINE)).unwrap();
        let n = probe.read(&mut [0; 2048]).unwrap();
        assert!(n > 0, "a probe without a question");
        probe
    }

    fn miss(&self, times: usize) {
        (0..times).for_each(|_| drop(self.probe()));
    }

    fn answer_as(&self, instance: &str, pid: u32) {
        let body = format!(r#"{{"status":"degraded","instance":"{instance}","pid":{pid}}}"#);
        let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n";
        let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        self.probe().write_all(answer.as_bytes()).unwrap();
    }

    fn answer(&self) {
        self.answer_as(OURS, std::process::id());
    }

    fn wait_offs(&self, n: usize) {
        self.stand.wait(&format!("{n} offs"), || self.stand.proxy_offs() == n);
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        send(self.watchdog.id(), Signal::KILL);
        let _ = self.watchdog.wait();
    }
}

#[test]
fn five_misses_in_a_row_take_the_proxy_off_once() {
    let stand = Stand::new();
    let daemon = Daemon::new(&stand);
    daemon.miss(4);
    // Degraded, but there.
    daemon.answer();
    daemon.miss(4);
    assert_eq!(stand.proxy_offs(), 0, "eight misses, but not five in a row");
    daemon.miss(1);
    daemon.wait_offs(1);
    daemon.miss(7);
    assert_eq!(stand.proxy_offs(), 1, "once is enough");
}

#[test]
fn an_answer_starts_anew_and_another_end_counts_again() {
    let stand = Stand::new();
    let daemon = Daemon::new(&stand);
    daemon.miss(5);
    daemon.wait_offs(1);
    daemon.answer();
    daemon.miss(5);
    daemon.wait_offs(2);
}

#[test]
fn an_impostor_on_the_port_is_not_our_daemon() {
    let stand = Stand::new();
    let daemon = Daemon::new(&stand);
    let pid = std::process::id();
    daemon.answer_as("7d7c0b3e-0000-4000-8000-000000000000", pid);
    daemon.answer_as(OURS, pid + 1);
    let _ = daemon.probe().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    let _ = daemon.probe().write_all(b"SSH-2.0-OpenSSH_9.9\r\n");
    daemon.answer_as("", pid);
    daemon.wait_offs(1);
}

#[test]
fn a_probe_that_was_slept_through_does_not_count() {
    let stand = Stand::new();
    let daemon = Daemon::new(&stand);
    daemon.miss(4);
    let probe = daemon.probe();
    send(daemon.watchdog.id(), Signal::STOP);
    // Longer than a probe can take: the passing of time itself is what is tested.
    std::thread::sleep(Duration::from_secs(6));
    send(daemon.watchdog.id(), Signal::CONT);
    drop(probe);
    daemon.answer();
    daemon.miss(4);
    daemon.answer();
    assert_eq!(stand.proxy_offs(), 0);
}

#[test]
fn a_daemon_that_nobody_revives() {
    let stand = Stand::started();
    // The one who would restart it is frozen as well.
    stand.signal("root", Signal::STOP);
    stand.signal("daemon", Signal::STOP);
    stand.wait("the proxy off", || stand.proxy_offs() == 1);
    let output = stand.run_trusting(&programs::curl_messages("--http1.1", "hi", false));
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    stand.signal("daemon", Signal::CONT);
    stand.signal("root", Signal::CONT);
    stand.wait_metering();
    assert_eq!(stand.proxy_offs(), 1, "never turned on, never twice off");
    let output = stand.must(&["events", "--json", "--limit", "100000"]);
    let said = "daemon does not answer; system proxy off on recorded";
    assert!(String::from_utf8_lossy(&output.stdout).contains(said), "{}", show(&output));
}
