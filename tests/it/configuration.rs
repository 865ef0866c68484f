//! The configuration: shown, set and edited. One that is wrong is said where, and requests pass as if it were not.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use halton_meter::supervisor::{JournalEntry, journal};
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Stand, free_port};
use crate::programs::{self, show};
use crate::wire::{BODY, Wire};

/// What the edge says of the daemon. (A command of ours would ask where the broken file leads it.)
fn verdict(stand: &Stand) -> Value {
    let url = format!("http://{}/health", stand.edge);
    let output = programs::in_time(Command::new("curl").args(["-sS", "--noproxy", "*", &url]));
    programs::answer(&output)["verdict"].clone()
}

#[test]
fn broken_configuration() {
    let stand = Stand::new();
    let broken = "[daemon2]\nnonsense = 1\n[meter]\nextra_hosts = \"not a list\"\n";
    stand.configure(stand.origin.addr(), broken);
    let text = fs::read_to_string(stand.home.config_file()).unwrap();
    let line = text.lines().position(|l| l.starts_with("extra_hosts")).unwrap() + 1;
    let check = stand.halton(&["config", "check"]);
    assert_eq!(check.status.code(), Some(78), "{}", show(&check));
    let said = show(&check);
    assert!(said.contains("config.toml") && said.contains(&format!(":{line}")), "{said}");
    assert!(said.contains("extra_hosts") && said.contains("nonsense"), "{said}");
    // What only reads goes on, and says so; what starts something does not.
    for words in
        [&["report"][..], &["requests", "--json"], &["status"], &["budget", "list"], &["doctor"]]
    {
        let output = stand.halton(words);
        assert_ne!(output.status.code(), Some(78), "{words:?} {}", show(&output));
        assert!(
            show(&output).contains(&format!("config.toml:{line}")),
            "{words:?} {}",
            show(&output)
        );
        if words == ["requests", "--json"] {
            assert!(serde_json::from_slice::<Value>(&output.stdout).is_ok());
        }
    }
    assert_eq!(stand.halton(&["start"]).status.code(), Some(78));
    // What is wrong falls back to its default, the rest counts; the request is even metered.
    let output = stand.run(&programs::curl_messages("--http1.1", "hi", false));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stderr).contains("extra_hosts"), "{}", show(&output));
    // The running processes keep it that way when the file gets worse.
    fs::write(stand.home.config_file(), "[edge\nport = ").unwrap();
    for process in ["edge", "daemon"] {
        stand.signal(process, Signal::HUP);
    }
    // Each has read it, and says where it is wrong.
    let says = |file: &Path, what: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.contains(what) && line.contains("config.toml:1: "))
    };
    let edge_log = stand.home.log_file("edge");
    stand.wait("refusal", || says(&stand.home.journal_file(), "config_refused"));
    stand.wait("the edge's word", || says(&edge_log, "configuration"));
    // Asked, it looks: no verdict of before.
    assert_eq!(verdict(&stand), "healthy", "{}", stand.logs());
    Wire::metered(&stand).get();
    // One that starts with it serves all the same, on the port that the root keeps. The rest it takes from the
    // defaults, which know of no test's origin: so straight to that.
    fs::write(&edge_log, "").unwrap();
    stand.kill("edge");
    let to = format!("api.anthropic.com:443:{}", stand.origin.addr());
    let request = programs::curl(&["--connect-to", &to, "https://api.anthropic.com/plain"]);
    let output = request.direct(stand.edge, &stand.root_pem(), stand.scratch());
    assert_eq!(output.stdout, BODY, "{}{}", show(&output), stand.logs());
    stand.wait("the next edge's word", || says(&edge_log, "configuration"));
}

/// What a request to a host that is reached only as the file says comes to, right now.
fn way(stand: &Stand) -> Output {
    let request = programs::curl(&["https://behind.example/plain"]);
    request.direct(stand.edge, &stand.root_pem(), stand.scratch())
}

fn open_way(stand: &Stand, more: &str) {
    let to = [("*", stand.origin.addr()), ("behind.example", stand.origin.addr())];
    stand.configure_hosts(&to, more);
}

#[test]
fn a_file_that_is_edited_by_hand_is_taken_over() {
    let stand = Stand::new();
    let elsewhere = free_port();
    stand.configure_hosts(&[("*", stand.origin.addr()), ("behind.example", elsewhere)], "");
    stand.must(&["start"]);
    stand.wait_metering();
    assert_ne!(way(&stand).stdout, BODY);
    open_way(&stand, "");
    stand.wait("the new way", || way(&stand).stdout == BODY);
    // The daemon has it too.
    let taken = |e: &JournalEntry| e.process == "daemon" && e.event == "config_taken";
    let journal = || journal::read_all(&stand.home.journal_file()).unwrap_or_default();
    stand.wait("the daemon's word", || journal().iter().any(taken));
    // One that is gone for a moment, or half written, changes nothing.
    fs::write(stand.home.config_file(), "[edge\nport = ").unwrap();
    let edge_log = stand.home.log_file("edge");
    let says = |what: &str| fs::read_to_string(&edge_log).unwrap_or_default().contains(what);
    stand.wait("refusal", || says("kept as it was"));
    assert_eq!(way(&stand).stdout, BODY);
}

/// Who has edited it, and says `restart`, need not wait.
#[test]
fn a_command_has_what_was_edited_taken_over_at_once() {
    let stand = Stand::new();
    let elsewhere = free_port();
    for command in [&["restart"][..], &["start"], &["run", "--quiet", "--", "true"]] {
        stand.configure_hosts(&[("*", stand.origin.addr()), ("behind.example", elsewhere)], "");
        stand.must(&["start"]);
        stand.wait("the old way", || way(&stand).stdout != BODY);
        open_way(&stand, "");
        stand.must(command);
        let output = way(&stand);
        assert_eq!(output.stdout, BODY, "{command:?} {}{}", show(&output), stand.logs());
    }
}

/// It serves by defaults then, and until the file is there again.
#[test]
fn an_edge_that_starts_while_the_file_is_away_takes_it_over_later() {
    let stand = Stand::new();
    open_way(&stand, "");
    stand.must(&["start"]);
    stand.wait_metering();
    let away = stand.scratch().join("config.toml");
    fs::rename(stand.home.config_file(), &away).unwrap();
    stand.kill("edge");
    stand.wait("the next edge", || stand.pid("edge").is_some());
    stand.wait("its defaults", || way(&stand).stdout != BODY);
    fs::rename(&away, stand.home.config_file()).unwrap();
    stand.wait("the way", || way(&stand).stdout == BODY);
    stand.wait_metering();
}

/// A message about a form of the file that is fine would send its user to set it there by hand.
#[test]
fn a_setting_that_would_be_wrong_is_refused_with_the_reason() {
    let stand = Stand::new();
    let before = fs::read_to_string(stand.home.config_file()).unwrap();
    let (port, circle) = (stand.edge.port().to_string(), format!("http://{}", stand.edge));
    for (key, value, why) in [
        ("daemon.api_port", &port, "are the same port"),
        ("upstream.proxy", &circle, "is this proxy itself"),
    ] {
        let output = stand.halton(&["config", "set", key, value]);
        assert_eq!(output.status.code(), Some(2), "{key}: {}", show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{}", show(&output));
    }
    assert_eq!(fs::read_to_string(stand.home.config_file()).unwrap(), before);

    assert_eq!(stand.json(&["config", "check"])["ok"], true);
    let path = stand.json(&["config", "path"])["path"].clone();
    assert_eq!(path, stand.home.config_file().display().to_string());
    fs::write(stand.home.config_file(), format!("{before}[log\n")).unwrap();
    let output = stand.halton(&["config", "set", "log.level", "info"]);
    let line = format!("config.toml:{}: not TOML", before.lines().count() + 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains(&line), "{}", show(&output));
    let checked = stand.halton(&["config", "check", "--json"]);
    assert_eq!(checked.status.code(), Some(78), "{}", show(&checked));
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["ok"], false);
    assert!(checked["problems"][0].as_str().unwrap().contains(&line), "{checked}");
    let ca = stand.json(&["ca", "path"])["path"].clone();
    assert_eq!(ca, stand.home.ca_cert().display().to_string());
}

#[test]
fn configuration_is_shown_with_its_origin() {
    let stand = Stand::new();
    let mut command = stand.command(&["config", "show", "--origin", "-c", "log.level=warning"]);
    let output = command.env("HALTON_METER_DAEMON_EDGE_HEALTH_TTL_MS", "500").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", show(&output));
    let line = |key: &str| {
        text.lines().find(|l| l.contains(key)).unwrap_or_else(|| panic!("no {key}: {text}"))
    };
    assert!(line("port").contains(&stand.edge.port().to_string()));
    assert!(line("edge_health_ttl_ms").contains("500"));
    assert!(line("level").contains("warning"));
    let mut check = stand.command(&["config", "check"]);
    let checked = check.env("HALTON_METER_EDGE_PROT", "1").output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("mean HALTON_METER_EDGE_PORT?"), "{said}");
    let path = String::from_utf8(stand.must(&["config", "path"]).stdout).unwrap();
    assert_eq!(path.trim(), stand.home.config_file().display().to_string());
}
