//! `selftest`: says what is so, in every state of the chain, and leaves nothing behind.

use std::fs;
use std::process::Output;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Stand, send};
use crate::programs::show;

const CHECKS: [&str; 7] = ["edge", "raw", "json", "stream", "keep-alive", "ledger", "distrust"];

/// Runs it; exit code and checks must agree.
fn selftest(stand: &Stand, exit: i32) -> Value {
    let output = stand.halton(&["selftest", "--json"]);
    let report = parse(&output);
    assert_eq!(output.status.code(), Some(exit), "{report:#}{}", stand.logs());
    assert!(!stand.home.selftest().path().exists(), "it left something behind");
    report
}

fn parse(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", show(output)))
}

fn level(report: &Value, name: &str) -> String {
    let checks = report["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|c| c["name"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"));
    check["level"].as_str().unwrap().to_owned()
}

fn assert_traceless(stand: &Stand) {
    assert_eq!(stand.rows(), Vec::<Value>::new());
    let coverage = stand.coverage();
    assert_eq!(coverage["metered_requests"], 0, "{coverage}");
    assert_eq!(coverage["passed_connections"], 0, "{coverage}");
    assert_eq!(stand.json(&["status"])["bypass"].as_array().map_or(0, Vec::len), 0);
}

/// What the daemon counts of connections: their beginning, their bytes, and how they ended.
fn counted(stand: &Stand) -> Vec<Value> {
    let status = stand.json(&["status"]);
    let actors = status["actors"]["actors"].as_array().unwrap();
    let tap = actors.iter().find_map(|actor| actor.pointer("/observed/tap")).unwrap();
    let names =
        ["offers", "commits", "refused", "declined", "rejected_by_client", "exchanges", "lossy"];
    names.iter().chain(&["bytes_up", "bytes_down"]).map(|name| tap[name].clone()).collect()
}

#[test]
fn all_is_well_again_and_again() {
    let stand = Stand::started();
    let before = counted(&stand);
    // Were anything of a run kept, the client that it lets refuse our certificate would be raw in the next.
    for _ in 0..3 {
        let report = selftest(&stand, 0);
        let checks = report["checks"].as_array().unwrap();
        let found: Vec<_> =
            checks.iter().map(|c| (c["name"].as_str(), c["level"].as_str())).collect();
        assert_eq!(found, CHECKS.map(|name| (Some(name), Some("ok"))), "{report:#}");
    }
    assert_traceless(&stand);
    assert_eq!(counted(&stand), before);
    let text = String::from_utf8(stand.must(&["selftest"]).stdout).unwrap();
    assert!(CHECKS.iter().all(|name| text.contains(name)) && text.contains("all well"), "{text}");
}

#[test]
fn stopped_passes_unmetered() {
    let stand = Stand::new();
    stand.must(&["start"]);
    stand.must(&["stop"]);
    let report = selftest(&stand, 1);
    for (name, want) in
        [("raw", "ok"), ("json", "degraded"), ("stream", "degraded"), ("ledger", "skipped")]
    {
        assert_eq!(level(&report, name), want, "{name} {report:#}");
    }
    assert!(report.to_string().contains("halton-meter start"), "{report:#}");
    assert_traceless(&stand);
}

#[test]
fn frozen_daemon_passes_unmetered() {
    let stand = Stand::started();
    stand.signal("daemon", Signal::STOP);
    let report = selftest(&stand, 1);
    assert_eq!(level(&report, "json"), "degraded", "{report:#}");
    assert!(report.to_string().contains("does not answer"), "{report:#}");
    send(stand.pid("daemon").unwrap(), Signal::CONT);
    stand.wait_metering();
    selftest(&stand, 0);
    assert_traceless(&stand);
}

#[test]
fn nothing_running_is_said_with_the_way_to_start() {
    let stand = Stand::new();
    let report = selftest(&stand, 2);
    assert_eq!(level(&report, "edge"), "broken", "{report:#}");
    assert!(
        report["checks"][0]["next"].as_str().unwrap().contains("halton-meter start"),
        "{report:#}"
    );
    assert!(stand.pid("root").is_none(), "it started something");
}

#[test]
fn frozen_edge_would_fail_requests() {
    let stand = Stand::new();
    stand.must(&["start"]);
    stand.signal("edge", Signal::STOP);
    let report = selftest(&stand, 2);
    assert_eq!(level(&report, "edge"), "broken", "{report:#}");
}

#[test]
fn a_bundle_without_our_ca_would_fail_requests() {
    let stand = Stand::started();
    let bundle = fs::read_to_string(stand.home.ca_bundle()).unwrap();
    fs::write(stand.home.ca_bundle(), stand.origin.root_pem()).unwrap();
    let report = selftest(&stand, 2);
    assert_eq!(level(&report, "json"), "broken", "{report:#}");
    assert_eq!(level(&report, "raw"), "ok", "{report:#}");
    fs::write(stand.home.ca_bundle(), bundle).unwrap();
    selftest(&stand, 0);
}

#[test]
fn what_a_killed_run_left_does_no_harm() {
    let stand = Stand::started();
    let left = stand.home.selftest();
    fs::create_dir(left.path()).unwrap();
    let notice = serde_json::json!({
        "id": "00000000-0000-0000-0000-000000000000", "pid": 1, "origin": "127.0.0.1:1",
        "root_pem": "", "until": "2099-01-01T00:00:00Z",
    });
    fs::write(left.notice_file(), notice.to_string()).unwrap();
    fs::write(left.ledger_file(), "not a database").unwrap();
    selftest(&stand, 0);
    assert_traceless(&stand);
}

#[test]
fn one_that_is_interrupted_cleans_up() {
    let stand = Stand::started();
    // A daemon that does not answer makes it last.
    stand.signal("daemon", Signal::STOP);
    let run = stand.command(&["selftest"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    stand.wait("the notice", || stand.home.selftest().notice_file().exists());
    send(run.id(), Signal::INT);
    let output = run.wait_with_output().unwrap();
    assert!(!stand.home.selftest().path().exists(), "{}", show(&output));
    assert!(matches!(output.status.code(), Some(130 | 1)), "{}", show(&output));
}
