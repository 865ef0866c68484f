//! `doctor`: no fault reads as healthy, each has its next action, and what is safe is put right.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Stand, free_port, send};
use crate::programs::{Program, show};

/// Exit code and document must agree.
fn examine(mut command: Command, stand: &Stand, exit: i32) -> Value {
    let output = command.output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", show(&output), stand.logs()));
    assert_eq!(output.status.code(), Some(exit), "{found:#}{}", stand.logs());
    found
}

fn doctor(stand: &Stand, exit: i32) -> Value {
    examine(stand.command(&["doctor", "--json"]), stand, exit)
}

fn fix(stand: &Stand, exit: i32) -> Value {
    examine(stand.command(&["doctor", "--fix", "--json"]), stand, exit)
}

/// The findings of a layer that are as bad as that; each says what next.
fn assert_finds(found: &Value, layer: &str, level: &str, said: &str) {
    let findings = found["findings"].as_array().unwrap();
    let ours = |f: &&Value| f["layer"] == layer && f["level"] == level;
    let finding = findings.iter().find(|f| ours(f) && f.to_string().contains(said));
    let finding = finding.unwrap_or_else(|| panic!("{layer} {level} {said}: {found:#}"));
    assert!(finding["next"].is_string(), "{finding:#}");
}

#[test]
fn where_nothing_has_run_nothing_is_broken() {
    let stand = Stand::new();
    fs::set_permissions(stand.home.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let found = doctor(&stand, 1);
    let findings = found["findings"].as_array().unwrap();
    let bad: Vec<&Value> =
        findings.iter().filter(|f| f["level"] != "ok" && f["level"] != "skipped").collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert_finds(&found, "edge", "degraded", "never started");
    assert!(bad[0]["next"].as_str().unwrap().contains("halton-meter start"), "{bad:#?}");
    // Nor is it by the command's own look.
    assert_eq!(doctor(&stand, 1), found);
}

#[test]
fn a_running_tree_is_healthy() {
    let stand = Stand::started();
    let found = doctor(&stand, 0);
    let findings = found["findings"].as_array().unwrap();
    assert!(findings.iter().all(|f| f["level"] == "ok"), "{found:#}");
    assert_eq!(findings.len(), 19, "{found:#}");
    let text = String::from_utf8(stand.must(&["doctor"]).stdout).unwrap();
    assert!(text.ends_with("healthy\n"), "{text}");
    assert_eq!(stand.rows(), Vec::<Value>::new());
}

#[test]
fn nothing_running_is_broken_and_can_be_started() {
    let stand = Stand::new();
    // With a CA something may have been set up to lead here.
    stand.must(&["ca", "path"]);
    let found = doctor(&stand, 2);
    assert_finds(&found, "edge", "broken", "halton-meter start");
    assert_finds(&found, "daemon", "degraded", "not running");
    assert!(stand.pid("root").is_none(), "looking started something");
    let found = fix(&stand, 0);
    assert!(found["fixed"].to_string().contains("started"), "{found:#}");
    assert!(stand.pid("daemon").is_some());
}

#[test]
fn what_is_frozen_does_not_read_healthy() {
    let stand = Stand::started();
    for (process, exit, level) in [
        ("daemon", 1, "degraded"),
        ("watchdog", 1, "degraded"),
        ("root", 1, "degraded"),
        ("edge", 2, "broken"),
    ] {
        let pid = stand.pid(process).unwrap();
        send(pid, Signal::STOP);
        let found = doctor(&stand, exit);
        assert_finds(&found, process, level, &pid.to_string());
        send(pid, Signal::CONT);
        stand.wait_metering();
    }
}

#[test]
fn stopped_by_the_user_stays_stopped() {
    let stand = Stand::started();
    stand.must(&["stop"]);
    let found = fix(&stand, 1);
    assert_finds(&found, "daemon", "degraded", "halton-meter start");
    assert!(stand.pid("daemon").is_none(), "{found:#}");
}

#[test]
fn a_lost_supervisor_is_brought_back() {
    let stand = Stand::started();
    stand.kill("root");
    let found = doctor(&stand, 1);
    assert_finds(&found, "root", "degraded", "halton-meter start");
    fix(&stand, 0);
    assert!(stand.pid("root").is_some());
}

#[test]
fn a_port_that_another_program_holds_is_named() {
    let stand = Stand::new();
    let _other = TcpListener::bind(stand.edge).unwrap();
    let found = doctor(&stand, 2);
    assert_finds(&found, "edge", "broken", "edge.port");
    assert_finds(&found, "edge", "broken", &std::process::id().to_string());
}

#[test]
fn an_edge_on_the_port_of_before_is_recognised_and_moved() {
    let stand = Stand::started();
    let (before, after) = (stand.edge, free_port());
    let port = after.port().to_string();
    let said = stand.must(&["config", "set", "edge.port", &port]);
    let how = "`halton-meter edge stop`, then `halton-meter start`";
    assert!(String::from_utf8_lossy(&said.stdout).contains(how), "{}", show(&said));

    let found = doctor(&stand, 2);
    assert_finds(&found, "edge", "broken", &before.to_string());
    assert_finds(&found, "edge", "broken", how);
    let status = stand.json(&["status"]);
    assert_eq!(status["edge"]["elsewhere"], before.to_string(), "{status:#}");
    let text = String::from_utf8(stand.halton(&["status"]).stdout).unwrap();
    assert!(text.contains(how) && !text.contains("nothing runs"), "{text}");
    let restart = stand.halton(&["restart"]);
    assert_eq!(restart.status.code(), Some(69), "{}", show(&restart));
    assert!(String::from_utf8_lossy(&restart.stderr).contains(how), "{}", show(&restart));
    let run = stand.run(&Program::new(["sh", "-c", "echo proxy=$HTTPS_PROXY"]));
    assert_eq!(run.stdout, format!("proxy=http://{before}\n").as_bytes(), "{}", show(&run));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains(how) && !said.contains("not metered"), "{said}");

    // A shell goes where somebody answers, too.
    for args in [&["env"][..], &["env", "--if-up"]] {
        let env = stand.must(args);
        let text = String::from_utf8_lossy(&env.stdout).into_owned();
        assert!(text.contains(&format!("export HTTPS_PROXY='http://{before}'\n")), "{text}");
        let said = String::from_utf8_lossy(&env.stderr);
        assert_eq!(said.contains(how), args.len() == 1, "{said}");
    }

    let stopped = stand.must(&["edge", "stop"]);
    let said = String::from_utf8_lossy(&stopped.stderr).into_owned();
    assert!(said.contains(&before.to_string()), "who points there: {said}");
    stand.must(&["start"]);
    stand.wait_metering();
    assert_eq!(stand.json(&["status"])["edge"]["address"], after.to_string());
    doctor(&stand, 0);
}

#[test]
fn a_spoiled_bundle_and_wide_modes_are_put_right() {
    let stand = Stand::started();
    fs::write(stand.home.ca_bundle(), stand.origin.root_pem()).unwrap();
    fs::set_permissions(stand.home.ca_key(), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(stand.home.run_dir(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(stand.home.selftest().path()).unwrap();
    let found = doctor(&stand, 2);
    assert_finds(&found, "ca", "broken", "doctor --fix");
    assert_finds(&found, "home", "degraded", "key.pem");
    assert_finds(&found, "home", "degraded", "chmod");
    assert_finds(&found, "selftest", "broken", "certificate");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&stand.home.ca_key()), 0o644, "looking changed something");
    let found = fix(&stand, 0);
    assert!(found["fixed"].as_array().unwrap().len() >= 3, "{found:#}");
    assert_eq!((mode(&stand.home.ca_key()), mode(&stand.home.run_dir())), (0o600, 0o700));
}

#[test]
fn a_configuration_with_mistakes_is_reported_not_refused() {
    let stand = Stand::started();
    let text = fs::read_to_string(stand.home.config_file()).unwrap();
    fs::write(stand.home.config_file(), format!("{text}[nonsense]\nx = 1\n")).unwrap();
    assert_finds(&doctor(&stand, 1), "config", "degraded", "nonsense");
}

#[test]
fn a_shell_that_points_nowhere_is_noticed() {
    let stand = Stand::started();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = free.local_addr().unwrap();
    let mut command = stand.command(&["doctor", "--json"]);
    command.env("HTTPS_PROXY", format!("http://me:secret@{dead}"));
    let found = examine(command, &stand, 1);
    assert_finds(&found, "environment", "degraded", &dead.to_string());
    assert!(!found.to_string().contains("secret"), "{found:#}");
    drop(free);
    let mut command = stand.command(&["doctor", "--json"]);
    command.env("HTTPS_PROXY", format!("http://{dead}")).env("CURL_CA_BUNDLE", "/no/such.pem");
    let found = examine(command, &stand, 2);
    assert_finds(&found, "environment", "broken", "nobody listens");
    assert_finds(&found, "environment", "broken", "/no/such.pem");
    let mut command = stand.command(&["doctor", "--json"]);
    command.env("HTTPS_PROXY", format!("http://{}", stand.edge));
    examine(command, &stand, 0);
}

#[test]
fn a_token_that_the_daemon_does_not_take_is_noticed() {
    let stand = Stand::started();
    fs::write(stand.home.token_file(), "0".repeat(64)).unwrap();
    assert_finds(&doctor(&stand, 1), "token", "degraded", "401");
}

#[test]
fn a_program_that_is_left_at_a_dead_port_is_named() {
    let stand = Stand::new();
    let mut left = Command::new("sleep");
    left.arg("600").env("HTTPS_PROXY", format!("http://{}", stand.edge));
    let mut left = left.spawn().unwrap();
    let found = doctor(&stand, 2);
    let who = format!("pid {}", left.id());
    assert_finds(&found, "environment", "broken", &who);
    stand.must(&["start"]);
    stand.wait_metering();
    let found = doctor(&stand, 0);
    assert!(!found.to_string().contains(&who), "{found:#}");
    left.kill().unwrap();
    left.wait().unwrap();
}

#[test]
fn a_ca_that_is_not_the_daemons_is_found_and_mended() {
    let (stand, other) = (Stand::started(), Stand::started());
    for file in ["ca.pem", "key.pem", "bundle.pem"] {
        fs::copy(other.home.ca_dir().join(file), stand.home.ca_dir().join(file)).unwrap();
    }
    let found = doctor(&stand, 2);
    assert_finds(&found, "ca", "broken", "another CA");
    let found = fix(&stand, 0);
    assert!(found["fixed"].to_string().contains("bundle"), "{found:#}");
}

#[test]
fn who_holds_the_admin_port_is_named() {
    let stand = Stand::new();
    let _other = TcpListener::bind(stand.api).unwrap();
    let _ = stand.halton(&["run", "--", "true"]);
    let found = doctor(&stand, 1);
    assert_finds(&found, "daemon", "degraded", &std::process::id().to_string());
    assert_finds(&found, "daemon", "degraded", "daemon.api_port");
}

#[test]
fn the_way_out_is_looked_at() {
    let stand = Stand::started();
    let with = |more: &str| {
        stand.configure_hosts(&[], more);
        let connect = "[upstream]\n";
        let text = fs::read_to_string(stand.home.config_file()).unwrap();
        let text = text.replace(connect, &format!("{connect}{more}"));
        fs::write(stand.home.config_file(), text).unwrap();
    };
    let nobody = crate::harness::free_port();
    with(&format!("proxy = \"http://me:s3cret@{nobody}\"\n"));
    let found = doctor(&stand, 2);
    assert_finds(&found, "upstream", "broken", &nobody.to_string());
    assert!(!found.to_string().contains("s3cret"), "{found:#}");

    with("");
    let mut command = stand.command(&["doctor", "--json"]);
    command.env("HTTPS_PROXY", "http://me:s3cret@proxy.corp.example:3128");
    let found = examine(command, &stand, 1);
    assert_finds(&found, "upstream", "degraded", "proxy.corp.example:3128");
    assert!(!found.to_string().contains("s3cret"), "{found:#}");
}
