//! The daemon ends on purpose: what is under way finishes, what is idle is closed between two
//! exchanges, what is new goes through raw.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use halton_meter::platform::RECORD_VAR;
use rustix::process::Signal;

use crate::harness::{DEADLINE, Stand, send};
use crate::programs::{self, Program, TEXT, show};
use crate::wire::{BODY, GET, Wire};

fn started() -> Stand {
    let stand = Stand::new();
    std::fs::write(stand.home.proxy_managed(), "").unwrap();
    stand.must(&["start"]);
    stand.wait_metering();
    stand
}

fn gated(http: &str) -> Program {
    programs::curl_messages(http, "[[gate]]", true)
}

fn spawn(stand: &Stand, program: &Program) -> Child {
    let mut command = stand.run_command(program);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn assert_finished(stand: &Stand, child: Child, answers: usize) {
    let output = child.wait_with_output().unwrap();
    let ends = String::from_utf8_lossy(&output.stdout).matches("message_stop\"").count();
    assert!(output.status.success() && ends == answers, "{}{}", show(&output), stand.logs());
}

fn has_event(stand: &Stand, event: &str) -> bool {
    let output = stand.must(&["events", "--json", "--limit", "100000"]);
    String::from_utf8_lossy(&output.stdout).contains(&format!("\"event\":\"{event}\""))
}

fn wait_draining(stand: &Stand) {
    stand.wait("drain", || has_event(stand, "draining"));
}

/// How the daemon is told to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Stop,
    Restart,
    Term,
}

fn everything_in_flight(way: Way) {
    let stand = started();
    let daemon = stand.pid("daemon");
    let stream = spawn(&stand, &gated("--http1.1"));
    stand.origin.wait_at_gate(1, DEADLINE);
    // Three streams on one connection.
    let url = "https://api.anthropic.com/v1/messages";
    let h2 = spawn(&stand, &gated("--http2").arg("--parallel").arg(url).arg(url));
    stand.origin.wait_at_gate(4, DEADLINE);
    let mut idle = Wire::metered(&stand);
    idle.get();
    let mut upload = Wire::metered(&stand);
    upload.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345").unwrap();

    let command = match way {
        Way::Stop => Some(stand.command(&["stop"])),
        Way::Restart => Some(stand.command(&["restart"])),
        Way::Term => None,
    };
    let command = command.map(|mut c| {
        c.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("halton-meter runs")
    });
    if command.is_none() {
        stand.signal("daemon", Signal::TERM);
    }
    wait_draining(&stand);
    idle.assert_closed();
    let mut fresh = Wire::connect(&stand).unwrap();
    fresh.get();
    assert!(!fresh.is_metered(), "a new connection during the drain");
    assert_eq!(stand.pid("daemon"), daemon, "it waits for what is under way");

    upload.send(b"67890").unwrap();
    assert_eq!(upload.answer().unwrap().unwrap().1, b"1234567890");
    upload.assert_closed();
    for _ in 0..4 {
        stand.origin.open_gate();
    }
    assert_finished(&stand, stream, 1);
    assert_finished(&stand, h2, 3);
    fresh.get();
    if let Some(command) = command {
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    }
    stand.wait("end of the daemon", || stand.pid("daemon") != daemon);
    assert_eq!(stand.proxy_offs(), 1, "the system proxy goes off on the way out");
    if way == Way::Stop {
        assert_eq!(stand.json(&["status"])["state"], "stopped");
    } else {
        stand.wait_metering();
    }
    let rows = stand.wait_rows(4);
    assert!(rows.iter().all(|r| r["completeness"] == "complete"), "{rows:#?}");
}

#[test]
fn stop_lets_everything_finish() {
    everything_in_flight(Way::Stop);
}

#[test]
fn restart_lets_everything_finish() {
    everything_in_flight(Way::Restart);
}

#[test]
fn sigterm_lets_everything_finish() {
    everything_in_flight(Way::Term);
}

/// `edge stop` tells root, edge and daemon at once, and the root tells them again.
#[test]
fn edge_stop_lets_everything_finish() {
    let stand = started();
    let stream = spawn(&stand, &gated("--http1.1"));
    stand.origin.wait_at_gate(1, DEADLINE);
    let mut stop = stand.command(&["edge", "stop"]);
    let stop = stop.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_draining(&stand);
    stand.origin.open_gate();
    assert_finished(&stand, stream, 1);
    let output = stop.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
}

/// As Ctrl-C of `up` tells it, and `edge stop` with the others.
#[test]
fn who_comes_while_everything_ends_is_not_led_to_its_port() {
    let stand = started();
    let root = stand.pid("root");
    let stream = spawn(&stand, &gated("--http1.1"));
    stand.origin.wait_at_gate(1, DEADLINE);
    stand.signal("root", Signal::TERM);
    wait_draining(&stand);
    let run = spawn(&stand, &Program::new(["sh", "-c", "printf %s \"$https_proxy\""]));
    let env = stand.halton(&["env"]);
    assert_eq!(env.status.code(), Some(69), "{}", show(&env));
    let if_up = stand.must(&["env", "--if-up"]);
    let run = run.wait_with_output().unwrap();
    assert!(run.status.success(), "{}", show(&run));
    for output in [&env, &if_up, &run] {
        assert!(!String::from_utf8_lossy(&output.stdout).contains("http://"), "{}", show(output));
    }
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("without the proxy: the processes are ending"), "{said}");
    assert_eq!(stand.pid("root"), root, "the answer is still under way");

    let stopped = stand.home.user_stopped();
    std::fs::write(&stopped, "").unwrap();
    let mut start = stand.command(&["start"]);
    let start = start.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // What it removes first.
    stand.wait("a start that has begun", || !stopped.exists());
    stand.origin.open_gate();
    assert_finished(&stand, stream, 1);
    let start = start.wait_with_output().unwrap();
    assert!(start.status.success(), "{}{}", show(&start), stand.logs());
    assert_ne!(stand.pid("root"), root);
    stand.wait_metering();
}

/// A client that keeps its connection busy all the while. One that was closed while idle it opens
/// anew and asks again, as HTTP clients do; anything else is a failure of ours.
#[test]
fn a_busy_client_loses_no_request_over_restarts() {
    let stand = started();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (mut asked, mut closed) = (0, 0);
            let mut wire = Wire::connect(&stand).unwrap();
            while !over.load(Ordering::Relaxed) {
                wire.send(GET).unwrap();
                match wire.answer().unwrap() {
                    Some((_, body)) => assert_eq!(body, BODY),
                    None => {
                        closed += 1;
                        wire = Wire::connect(&stand).unwrap();
                        wire.get();
                    }
                }
                asked += 1;
                // A tool thinks for a moment between requests.
                std::thread::sleep(std::time::Duration::from_millis(asked % 150));
            }
            (asked, closed)
        });
        for _ in 0..3 {
            stand.must(&["restart"]);
            stand.wait_metering();
        }
        over.store(true, Ordering::Relaxed);
        let (asked, closed) = client.join().unwrap();
        assert!(asked > 20 && closed <= 3, "{asked} asked, {closed} closed");
    });
}

#[test]
fn signals_that_come_together_are_one_wish_and_a_later_one_means_now() {
    let stand = started();
    let daemon = stand.pid("daemon").unwrap();
    let mut stream = spawn(&stand, &gated("--http1.1"));
    stand.origin.wait_at_gate(1, DEADLINE);
    for _ in 0..3 {
        send(daemon, Signal::TERM);
    }
    wait_draining(&stand);
    let output = stand.run_trusting(&programs::curl_messages("--http1.1", "hi", false));
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    assert!(stream.try_wait().unwrap().is_none(), "cut by the second signal");
    stand.wait("end, at last", || {
        send(daemon, Signal::TERM);
        stand.pid("daemon") != Some(daemon)
    });
    assert!(!stream.wait().unwrap().success(), "not waited for");
    stand.wait_metering();
    assert_eq!(stand.wait_rows_at_least(1)[0]["completeness"], "interrupted");
}

#[test]
fn what_does_not_end_is_cut_in_time() {
    let stand = started();
    let daemon = stand.pid("daemon");
    let mut stream = spawn(&stand, &gated("--http1.1"));
    stand.origin.wait_at_gate(1, DEADLINE);
    stand.signal("daemon", Signal::TERM);
    // launchd gives 30 s.
    stand.wait("end of the daemon", || stand.pid("daemon") != daemon);
    assert!(!stream.wait().unwrap().success());
    stand.wait_metering();
    let rows = stand.wait_rows_at_least(1);
    assert_eq!(rows[0]["completeness"], "interrupted", "{:#}", rows[0]);
}

/// Nobody would take it from the queue of a port that goes with the root.
#[test]
fn who_comes_while_all_of_it_ends_is_refused_at_once() {
    let stand = started();
    stand.must(&["stop"]);
    let mut tunnel = Wire::connect(&stand).unwrap();
    assert!(!tunnel.is_metered());
    tunnel.get();
    let mut stop = stand.command(&["edge", "stop"]);
    let stop = stop.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stand.wait("refusal", || {
        TcpStream::connect(stand.edge).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(stand.pid("root").is_some(), "refused by its end only");
    // What goes through it goes on.
    tunnel.get();
    drop(tunnel);
    let output = stop.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(stand.pid("root").is_none());
}

#[test]
fn a_system_tool_that_hangs_does_not_hold_up_the_exit() {
    let stand = Stand::new();
    std::fs::write(stand.home.proxy_managed(), "").unwrap();
    // Opening it to write waits for a reader, who never comes.
    let fifo = stand.scratch().join("hangs");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let output = stand.command(&["start"]).env(RECORD_VAR, &fifo).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    stand.wait_metering();
    stand.must(&["stop"]);
    let output = stand.must(&["events", "--json", "--limit", "100000"]);
    let said = "the daemon ends; system proxy could not be taken off";
    assert!(String::from_utf8_lossy(&output.stdout).contains(said), "{}", show(&output));
}

#[test]
fn a_system_proxy_that_we_are_not_in_charge_of_is_left_alone() {
    let stand = Stand::started();
    stand.must(&["stop"]);
    assert_eq!(stand.proxy_offs(), 0);
}
