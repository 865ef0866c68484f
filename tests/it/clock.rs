//! The wall clock is set under a running daemon: requests pass, rows stay sane.
//!
//! `libfaketime` stands before the processes' C library and reads its offset from a file. The monotonic
//! clock, by which everything waits, is left alone, as it is when a real clock is set.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::Stand;
use crate::programs::{self, TEXT, show};

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

const RESULT: &str = r#"{"custom_id":"1","result":{"type":"succeeded","message":{"id":"ID","model":"claude-sonnet-4-5-20250929","usage":{"input_tokens":1000,"output_tokens":100,"service_tier":"batch"}}}}"#;

/// Runs a command of ours with the clock of `file`.
fn with_clock(mut command: Command, library: &str, file: &Path) -> Command {
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", file)
        .env("FAKETIME_NO_CACHE", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    command
}

fn library() -> Option<&'static str> {
    let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists());
    if library.is_none() {
        // tools/clients.sh installs it where there is one.
        programs::not_checked("clock steps (no libfaketime on this machine)");
    }
    library
}

fn set_clock(clock: &Path, offset: &str) {
    let new = clock.with_extension("new");
    fs::write(&new, format!("{offset}\n")).unwrap();
    fs::rename(new, clock).unwrap();
}

/// The first start was with a clock that was ahead: the CA is of a time that has yet to come.
#[test]
fn a_ca_of_another_time_is_told_and_a_restart_replaces_it() {
    let Some(library) = library() else { return };
    let stand = Stand::new();
    let clock = stand.scratch().join("clock");
    set_clock(&clock, "+40d");
    let started = with_clock(stand.command(&["start"]), library, &clock).output().unwrap();
    assert!(started.status.success(), "{}{}", show(&started), stand.logs());
    let ca = fs::read(stand.home.ca_cert()).unwrap();
    set_clock(&clock, "+0");
    stand.wait("that the CA is not valid", || {
        let health = stand.json(&["status"])["daemon"].to_string();
        health.contains("ca: by this clock it is not valid now")
    });
    // Whoever runs trusts that one, and is passed: another one is made when the user says so.
    assert_eq!(fs::read(stand.home.ca_cert()).unwrap(), ca);
    let restarted = with_clock(stand.command(&["restart"]), library, &clock).output().unwrap();
    assert!(restarted.status.success(), "{}{}", show(&restarted), stand.logs());
    assert_ne!(fs::read(stand.home.ca_cert()).unwrap(), ca);
    stand.wait_metering();
    let hello = programs::curl_messages("--http1.1", "hi", false);
    let output = with_clock(stand.trusting(&hello), library, &clock).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains(TEXT), "{}{}", show(&output), stand.logs());
    assert_eq!(stand.wait_rows_at_least(1).len(), 1, "{}", stand.logs());
    stand.must(&["stop"]);
}

/// Whoever runs trusts the CA that there is, and the clock may be set right again.
#[test]
fn a_crash_while_the_clock_is_wrong_changes_no_ca() {
    let Some(library) = library() else { return };
    let stand = Stand::new();
    let clock = stand.scratch().join("clock");
    set_clock(&clock, "+0");
    let started = with_clock(stand.command(&["start"]), library, &clock).output().unwrap();
    assert!(started.status.success(), "{}{}", show(&started), stand.logs());
    stand.wait_metering();
    let (ca, daemon) = (fs::read(stand.home.ca_cert()).unwrap(), stand.pid("daemon"));
    set_clock(&clock, "+4000d");
    stand.signal("daemon", Signal::KILL);
    stand.wait("that the next one says what is wrong", || {
        let says = stand.json(&["status"])["daemon"].to_string();
        stand.pid("daemon") != daemon && says.contains("ca: by this clock it is not valid now")
    });
    assert_eq!(fs::read(stand.home.ca_cert()).unwrap(), ca);
    set_clock(&clock, "+0");
    stand.wait_metering();
    assert_eq!(fs::read(stand.home.ca_cert()).unwrap(), ca);
    stand.must(&["stop"]);
}

#[test]
fn a_clock_that_jumps_costs_nothing() {
    let Some(library) = library() else { return };
    let stand = Stand::new();
    let clock = stand.scratch().join("clock");
    let set = |offset: &str| set_clock(&clock, offset);
    set("+0");
    let started = with_clock(stand.command(&["start"]), library, &clock).output().unwrap();
    assert!(started.status.success(), "{}{}", show(&started), stand.logs());
    stand.wait_metering();
    let hello = programs::curl_messages("--http1.1", "hi", false);
    let mut pids = Vec::new();
    for (n, offset) in ["+0", "+2d", "-3h", "+0", "+20d", "+0"].into_iter().enumerate() {
        set(offset);
        // The client lives by the same clock.
        let output = with_clock(stand.trusting(&hello), library, &clock).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains(TEXT),
            "{offset}: {}{}",
            show(&output),
            stand.logs()
        );
        pids.push(["root", "edge", "daemon", "watchdog"].map(|p| stand.pid(p)));
        assert_eq!(pids[n], pids[0], "{offset}: something was restarted{}", stand.logs());
    }
    // In mid-exchange: it began tomorrow and ended today.
    set("+1d");
    let gated = programs::curl_messages("--http1.1", "[[gate]]", true);
    let mut gated = with_clock(stand.trusting(&gated), library, &clock);
    let child = gated.stdout(std::process::Stdio::piped()).spawn().unwrap();
    stand.origin.wait_at_gate(1, crate::harness::DEADLINE);
    set("+0");
    stand.origin.open_gate();
    assert!(child.wait_with_output().unwrap().status.success(), "{}", stand.logs());
    let rows = stand.wait_rows_at_least(1);
    assert!(!rows.is_empty());
    for row in &rows {
        let ms = row["duration_ms"].as_u64().unwrap_or_else(|| panic!("a duration: {row:#}"));
        assert!(ms < 3_600_000, "measured by the clock that was set: {row:#}");
        assert!(row["cost_nanousd"].as_i64().is_some_and(|n| n > 0), "{row:#}");
    }
    let ids: std::collections::HashSet<_> = rows.iter().map(|r| r["id"].to_string()).collect();
    assert_eq!(ids.len(), rows.len(), "an id twice");
    stand.must(&["report", "--since", "1d"]);
    // A limit that was seen tomorrow does not outlive what is seen today.
    for (n, (offset, used, told)) in
        [("+20h", "0.10", 1000), ("+0", "0.55", 5500)].into_iter().enumerate()
    {
        let path = format!("/v1/messages/batches/msgbatch_{n}/results");
        let headers = [
            ("content-type", "application/x-jsonl"),
            ("anthropic-ratelimit-unified-5h-utilization", used),
        ];
        stand.origin.record(&path, &headers, &RESULT.replace("ID", &format!("msg_{n}")));
        set(offset);
        let ask = programs::curl(&["--http1.1", &format!("https://api.anthropic.com{path}")]);
        let output = with_clock(stand.trusting(&ask), library, &clock).output().unwrap();
        assert!(output.status.success(), "{}", show(&output));
        stand.wait("the limit that was told last", || {
            stand.json(&["report", "--quota"])["quotas"][0]["used_bp"] == told
        });
    }
    stand.must(&["stop"]);
}
