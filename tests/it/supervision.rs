//! Faults of single actors in the real processes: each comes back as a new generation, its siblings
//! as their supervisor's strategy says, and no byte of the user's waits for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::harness::{DEADLINE, Stand, judge_journal};
use crate::programs::{self, Program, TEXT, show};

/// A stand whose processes take faults (debug builds only).
fn stand() -> Stand {
    let stand = Stand::new();
    let output = stand.command(&["start"]).env("HALTON_METER_FAULTS", "1").output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_metering();
    stand
}

fn hello() -> Program {
    programs::curl_messages("--http1.1", "hi", false)
}

fn assert_served(stand: &Stand, when: &str) {
    let output = stand.run_trusting(&hello());
    let ok = output.status.success() && String::from_utf8_lossy(&output.stdout).contains(TEXT);
    assert!(ok, "{when}: {}{}", show(&output), stand.logs());
}

/// Asks for a fault; returns once the supervisor has taken it.
fn fault(stand: &Stand, process: &str, child: &str, kind: &str) {
    let path = stand.home.run_dir().join(format!("fault.{process}.{child}"));
    let whole = stand.home.run_dir().join("fault");
    fs::write(&whole, kind).unwrap();
    fs::rename(whole, &path).unwrap();
    stand.wait(&format!("{kind} of {child} taken"), || !path.exists());
}

/// The daemon's children as `status --json` shows them.
fn actors(stand: &Stand) -> Vec<Value> {
    let status = stand.json(&["status"]);
    status["actors"]["actors"].as_array().cloned().unwrap_or_default()
}

fn actor(stand: &Stand, id: &str) -> Value {
    actors(stand).into_iter().find(|a| a["id"] == id).unwrap_or(Value::Null)
}

fn generation(stand: &Stand, id: &str) -> u64 {
    actor(stand, id)["generation"].as_u64().unwrap_or(0)
}

fn wait_generation(stand: &Stand, id: &str, generation: u64) {
    stand.wait(&format!("generation {generation} of {id}"), || {
        let actor = actor(stand, id);
        actor["state"] == "ready" && actor["generation"] == generation
    });
}

/// `events --json`.
fn events(stand: &Stand) -> Vec<Value> {
    let output = stand.must(&["events", "--json", "--limit", "100000"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// `event#generation: cause` of this child, in order.
fn history(events: &[Value], process: &str, child: &str) -> Vec<String> {
    let ours = |e: &&Value| e["process"] == process && e["child"] == child;
    let line = |e: &Value| {
        let cause = e["cause"].as_str().map(|c| format!(": {c}")).unwrap_or_default();
        format!("{}#{}{cause}", e["event"].as_str().unwrap_or("?"), e["generation"])
    };
    events.iter().filter(ours).map(line).collect()
}

/// The life of generation `n` ended so, and the next one got ready.
fn assert_replaced(history: &[String], generation: u64, kind: &str) {
    let cause = match kind {
        "panic" => "panicked: src/supervisor/faults.rs",
        "fail" => "failed: a test asked for it",
        _ => "stalled",
    };
    let exit = format!("exited#{generation}: {cause}");
    let at = history.iter().position(|h| h.starts_with(&exit));
    let at = at.unwrap_or_else(|| panic!("no {exit} in {history:#?}"));
    let ready = format!("ready#{}", generation + 1);
    assert!(history[at..].contains(&ready), "no {ready} after it: {history:#?}");
}

/// A streamed answer that waits at its gate, half of it delivered.
fn begin_stream(stand: &Stand, gates: usize) -> Child {
    let program = programs::curl_messages("--http1.1", "[[gate]]", true);
    let mut command = stand.run_command(&program);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stand.origin.wait_at_gate(gates, DEADLINE);
    child
}

/// It goes on, whole, and it was metered: nothing but our CA is trusted here.
fn finish_stream(stand: &Stand, child: Child) {
    stand.origin.open_gate();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("message_stop"), "{}", show(&output));
    stand.wait("its row", || {
        stand.rows().iter().any(|r| r["stream"] == true && r["completeness"] == "complete")
    });
}

/// What `/v1/events` streams, from the first event on.
fn listen(stand: &Stand) -> Arc<Mutex<Vec<String>>> {
    let token = fs::read_to_string(stand.home.token_file()).unwrap();
    let mut tcp = TcpStream::connect(stand.api).unwrap();
    let (host, token) = (stand.api, token.trim());
    write!(tcp, "GET /v1/events?after=none HTTP/1.1\r\nHost: {host}\r\n").unwrap();
    write!(tcp, "Authorization: Bearer {token}\r\n\r\n").unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    std::thread::spawn(move || {
        for line in BufReader::new(tcp).lines().map_while(Result::ok) {
            if let Some(data) = line.strip_prefix("data: ") {
                kept.lock().unwrap().push(data.to_owned());
            }
        }
    });
    heard
}

/// Every fault of every actor in the daemon, one after the other, while a stream runs.
fn each_actor_of_the_daemon(kind: &str) {
    let stand = stand();
    let stream = begin_stream(&stand, 1);
    let heard = listen(&stand);
    // Who ends, and who is taken along: later siblings of the meter's rest for one.
    let table: [(&str, &[&str]); 7] = [
        ("meter.tap", &[]),
        ("meter.prices", &["meter.tap"]),
        ("meter.ledger", &["meter.prices", "meter.tap"]),
        ("budgets", &[]),
        ("edge_monitor", &[]),
        ("health", &[]),
        ("admin", &[]),
    ];
    let all: Vec<String> =
        actors(&stand).iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(all.len(), table.len() + 1, "an actor without a test: {all:?}");
    for (child, along) in table {
        let before: Vec<_> = all.iter().map(|id| generation(&stand, id)).collect();
        fault(&stand, "daemon", child, kind);
        // In whatever state that leaves us.
        assert_served(&stand, child);
        for (id, before) in all.iter().zip(before) {
            let replaced = id == child || along.contains(&id.as_str());
            wait_generation(&stand, id, before + u64::from(replaced));
        }
        let ended = actor(&stand, child);
        assert_ne!(ended["last_exit"], "normal", "{ended:#}");
        for id in along {
            assert_eq!(actor(&stand, id)["last_exit"], "normal", "planned, no failure");
        }
        let history = history(&events(&stand), "daemon", child);
        assert_replaced(&history, generation(&stand, child) - 1, kind);
        if child != "admin" {
            let said = format!("\"child\":\"{child}\"");
            stand.wait(&format!("{child} in /v1/events"), || {
                let heard = heard.lock().unwrap();
                let about = |event: &str| {
                    let name = format!("\"event\":\"{event}\"");
                    heard.iter().any(|e| e.contains(&said) && e.contains(&name))
                };
                about("exited") && about("ready")
            });
        }
    }
    finish_stream(&stand, stream);
    stand.wait_metering();
    stand.wait_metered(&hello());
}

#[test]
fn a_panic_of_each_actor_of_the_daemon() {
    each_actor_of_the_daemon("panic");
}

#[test]
fn a_failure_of_each_actor_of_the_daemon() {
    each_actor_of_the_daemon("fail");
}

#[test]
fn each_actor_of_the_daemon_hangs() {
    each_actor_of_the_daemon("hang");
}

#[test]
fn a_nested_supervisor_that_panics_or_fails() {
    let stand = stand();
    let stream = begin_stream(&stand, 1);
    for (before, kind) in ["panic", "fail"].into_iter().enumerate() {
        let before = before as u64 + 1;
        fault(&stand, "daemon", "meter", kind);
        assert_served(&stand, kind);
        wait_generation(&stand, "meter", before + 1);
        assert_replaced(&history(&events(&stand), "daemon", "meter"), before, kind);
        for child in ["meter.ledger", "meter.prices", "meter.tap"] {
            // A new supervisor counts anew; of the old one nobody is left.
            wait_generation(&stand, child, 1);
        }
        assert_eq!(generation(&stand, "health"), 1);
    }
    finish_stream(&stand, stream);
    stand.wait_metering();
    stand.wait_metered(&hello());
}

#[test]
fn the_health_cache_of_the_edge() {
    let stand = stand();
    let stream = begin_stream(&stand, 1);
    let lived = |n: usize| {
        let ready = format!("ready#{n}");
        history(&events(&stand), "edge", "health_cache").contains(&ready)
    };
    for (before, kind) in ["panic", "fail", "hang"].into_iter().enumerate() {
        let before = before + 1;
        fault(&stand, "edge", "health_cache", kind);
        // Nothing beats in an idle edge: the connections notice that it hangs.
        stand.wait(&format!("replacement after {kind}"), || {
            assert_served(&stand, kind);
            lived(before + 1)
        });
        let history = history(&events(&stand), "edge", "health_cache");
        assert_replaced(&history, before as u64, kind);
        stand.wait_metered(&hello());
    }
    finish_stream(&stand, stream);
}

#[test]
fn the_watchdog_actor() {
    let stand = stand();
    let pid = stand.pid("watchdog");
    for (before, kind) in ["panic", "fail", "hang"].into_iter().enumerate() {
        fault(&stand, "watchdog", "watchdog", kind);
        let ready = format!("ready#{}", before + 2);
        stand.wait(&ready, || history(&events(&stand), "watchdog", "watchdog").contains(&ready));
        let history = history(&events(&stand), "watchdog", "watchdog");
        assert_replaced(&history, before as u64 + 1, kind);
    }
    assert_eq!(stand.pid("watchdog"), pid, "the process went on");
}

/// The root's actors stand for processes, which go on without them and are taken over.
#[test]
fn the_actors_of_the_root() {
    let stand = stand();
    let stream = begin_stream(&stand, 1);
    let pids = || ["root", "edge", "daemon", "watchdog"].map(|p| stand.pid(p));
    let before = pids();
    for process in ["edge", "daemon", "watchdog"] {
        fault(&stand, "root", process, "panic");
        stand.wait(&format!("adoption of {process}"), || {
            history(&events(&stand), "root", process).contains(&"ready#2".to_owned())
        });
        assert_replaced(&history(&events(&stand), "root", process), 1, "panic");
        assert_served(&stand, process);
    }
    assert_eq!(pids(), before);
    finish_stream(&stand, stream);
    // The new generation sees the end of what it took over.
    stand.kill("daemon");
    stand.wait_metering();
    stand.wait_metered(&hello());
}

/// Over and over: the supervisor gives up, the process ends with 70, the root starts a new one.
#[test]
fn a_crash_loop_escalates_to_the_root() {
    let stand = stand();
    let pid = stand.pid("daemon");
    for generation in 1..=6 {
        let ready = format!("ready#{generation}");
        stand.wait(&ready, || history(&events(&stand), "daemon", "health").contains(&ready));
        fault(&stand, "daemon", "health", "panic");
    }
    stand.wait("another daemon", || stand.pid("daemon").is_some_and(|now| Some(now) != pid));
    assert_served(&stand, "after the escalation");
    stand.wait_metering();
    stand.wait_metered(&hello());
    let events = events(&stand);
    let gave_up = events.iter().find(|e| e["process"] == "daemon" && e["event"] == "escalated");
    let cause = gave_up.expect("it says that it gave up")["cause"].as_str().unwrap();
    assert!(cause.starts_with("too many restarts, the last of health: panicked"), "{cause}");
    let root = history(&events, "root", "daemon");
    let exit = "exited#1: failed: process ended: exit status: 70";
    assert!(root.iter().any(|h| h == exit), "{root:#?}");
    assert!(root.iter().any(|h| h == "ready#2"), "{root:#?}");
}

/// What blocks a thread can't be ended but with its process.
#[test]
fn a_blocked_thread_ends_the_process() {
    let stand = stand();
    let pid = stand.pid("daemon");
    let stream = begin_stream(&stand, 1);
    fault(&stand, "daemon", "meter.prices", "block");
    stand.wait("escalation", || {
        // Its siblings are on the same thread; whichever is noticed first.
        let blocked = |e: &Value| e["cause"].as_str().is_some_and(|c| c.ends_with("its thread"));
        events(&stand)
            .iter()
            .any(|e| e["event"] == "escalated" && blocked(e) && e["child"].is_null())
    });
    assert_served(&stand, "escalated");
    // Not the fault of what is under way: the byte pumps have threads of their own.
    stand.origin.open_gate();
    let output = stream.wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait("another daemon", || stand.pid("daemon").is_some_and(|now| Some(now) != pid));
    stand.wait_metering();
    stand.wait_metered(&hello());
}

#[test]
fn a_journal_that_misses_a_line_is_not_passed_over() {
    let stand = Stand::started();
    stand.must(&["edge", "stop"]);
    let text = fs::read_to_string(stand.home.journal_file()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let instances: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["instance"].take())
        .collect();
    let file = stand.scratch().join("cut.jsonl");
    for cut in 0..lines.len() {
        // What a process would have written last, nobody knows.
        let seen = instances[cut + 1..].contains(&instances[cut]);
        for left in ["", &lines[cut][..lines[cut].len() / 2]] {
            let mut damaged = lines.clone();
            damaged[cut] = left;
            fs::write(&file, damaged.join("\n")).unwrap();
            let judged = judge_journal(&file);
            assert_eq!(judged.is_err(), seen, "{judged:?}: {left:?} for {}", lines[cut]);
        }
    }
    assert!(judge_journal(stand.scratch()).is_err(), "a directory");
}
