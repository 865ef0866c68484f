//! A client that won't have our certificate: it fails once, then passes raw; the user can see that,
//! and end it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use rustix::process::Signal;

use crate::harness::Stand;
use crate::programs::{self, TEXT, clean, show};

/// curl through the edge, with the origin's root as all that it believes.
fn pinned(stand: &Stand) -> Output {
    let program = programs::curl_messages("--http1.1", "hi", false);
    let mut command = Command::new(&program.argv[0]);
    command.args(&program.argv[1..]);
    clean(&mut command, stand.scratch());
    command.env("https_proxy", format!("http://{}", stand.edge));
    command.env("CURL_CA_BUNDLE", stand.root_pem()).env("SSL_CERT_FILE", stand.root_pem());
    command.output().unwrap()
}

/// `curl: (60)`: the certificate was not accepted.
const REFUSED: Option<i32> = Some(60);

fn assert_refuses_then_passes(stand: &Stand) {
    let first = pinned(stand);
    assert_eq!(first.status.code(), REFUSED, "{}{}", show(&first), stand.logs());
    let mut entries = serde_json::Value::Null;
    stand.wait("an entry on the list", || {
        entries = stand.json(&["status"])["bypass"].clone();
        entries.as_array().is_some_and(|list| list.len() == 1)
    });
    assert_eq!(entries[0]["host"], "api.anthropic.com", "{entries}");
    // A client that is gone before it was looked for stays unknown: then the host is raw for all.
    let program = &entries[0]["program"];
    assert!(program == "curl" || program.is_null(), "{entries}");
    assert!(entries[0]["until"].is_string(), "{entries}");
    let next = pinned(stand);
    assert!(next.status.success(), "{}{}", show(&next), stand.logs());
    assert!(String::from_utf8_lossy(&next.stdout).contains(TEXT), "{}", show(&next));
}

#[test]
fn a_client_that_refuses_us_fails_once_is_shown_and_can_be_let_try_again() {
    let stand = Stand::started();
    assert_refuses_then_passes(&stand);
    let text = String::from_utf8(stand.must(&["status"]).stdout).unwrap();
    assert!(text.contains("api.anthropic.com by ") && text.contains("SSL_CERT_FILE"), "{text}");
    stand.wait("coverage", || stand.coverage()["passed_connections"] == 1);
    assert_eq!(stand.coverage()["passed_by_reason"]["declined_bypassed"], 1);

    let clear = |token: &str, more: &[&str]| {
        let mut command = Command::new("curl");
        clean(&mut command, stand.scratch());
        command.args(["--silent", "--request", "DELETE", "--header"]);
        command.arg(format!("Authorization: Bearer {token}")).args(more);
        let output = command.arg(format!("http://{}/v1/bypass", stand.api)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let token = fs::read_to_string(stand.home.token_file()).unwrap();
    // Neither a stranger nor a web page clears it.
    assert!(clear("0123", &[]).contains("unauthorized"));
    let page = ["--header", "Origin: https://evil.example"];
    assert!(clear(token.trim(), &page).contains("foreign-origin"));
    assert_eq!(stand.json(&["status"])["bypass"].as_array().map(Vec::len), Some(1));

    assert_eq!(clear(token.trim(), &[]), r#"{"cleared":1}"#);
    assert_eq!(stand.json(&["status"])["bypass"], serde_json::json!([]));
    stand.wait("nothing for the next daemon", || !stand.home.bypass_file().exists());
    // Intercepted again, and the next stay is noted again.
    assert_refuses_then_passes(&stand);

    // A restart is another way to try again.
    stand.must(&["restart"]);
    stand.wait_metering();
    let again = pinned(&stand);
    assert_eq!(again.status.code(), REFUSED, "{}{}", show(&again), stand.logs());
}

/// How often the list has let a connection pass.
fn passed(stand: &Stand) -> u64 {
    stand.coverage()["passed_by_reason"]["declined_bypassed"].as_u64().unwrap_or(0)
}

/// Not because no daemon was there.
fn assert_passes_by_the_list(stand: &Stand, when: &str) {
    stand.wait_metering();
    assert_eq!(listed(stand), Some(1), "{when}{}", stand.logs());
    let before = passed(stand);
    let next = pinned(stand);
    assert!(next.status.success(), "{when}: {}{}", show(&next), stand.logs());
    stand.wait("coverage", || passed(stand) == before + 1);
}

#[test]
fn a_client_that_refuses_us_does_not_fail_again_because_the_daemon_ended() {
    let stand = Stand::started();
    assert_refuses_then_passes(&stand);
    if stand.json(&["status"])["bypass"][0]["program"].is_null() {
        // Half a minute is all that such a client has.
        programs::not_checked("a bypass list across daemons (the client could not be told)");
        return;
    }
    stand.wait("the list on the disk", || stand.home.bypass_file().exists());
    stand.kill("daemon");
    assert_passes_by_the_list(&stand, "killed");
    let second = stand.pid("daemon");
    stand.signal("daemon", Signal::TERM);
    stand.wait("its end", || stand.pid("daemon") != second);
    assert_passes_by_the_list(&stand, "ended in order, by nobody who spoke to us");
    stand.must(&["upgrade"]);
    assert_passes_by_the_list(&stand, "changed to a new program");

    // Who restarts it by our command wants them to try again, and so who stops it.
    for again in [&["restart"][..], &["stop", "start"], &["edge stop", "start"]] {
        for command in again {
            stand.must(&command.split(' ').collect::<Vec<_>>());
        }
        stand.wait_metering();
        assert_eq!(listed(&stand), Some(0), "{again:?}{}", stand.logs());
        assert!(!stand.home.bypass_file().exists() && !stand.home.try_again().exists());
        assert_refuses_then_passes(&stand);
    }
    // That wish is fulfilled once.
    stand.wait("the list on the disk", || stand.home.bypass_file().exists());
    stand.kill("daemon");
    stand.wait_metering();
    assert_eq!(listed(&stand), Some(1), "{}", stand.logs());
}

/// A Debian-like system below a directory: `update-ca-certificates` makes the one file of the anchors,
/// or fails when `fail` is there.
struct System {
    root: PathBuf,
    tools: PathBuf,
}

const UPDATE: &str = r#"#!/bin/sh
root=$(dirname "$0")/../system
echo "$@" >>"$root/calls"
[ -e "$root/fail" ] && { echo "no space left" >&2; exit 1; }
cat "$root"/usr/local/share/ca-certificates/*.crt >"$root/etc/ssl/certs/ca-certificates.crt" 2>/dev/null
exit 0
"#;

impl System {
    fn new(stand: &Stand) -> Self {
        let root = stand.scratch().join("system");
        let tools = stand.scratch().join("tools");
        for dir in
            [&root.join("usr/local/share/ca-certificates"), &root.join("etc/ssl/certs"), &tools]
        {
            fs::create_dir_all(dir).unwrap();
        }
        let tool = tools.join("update-ca-certificates");
        fs::write(&tool, UPDATE).unwrap();
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        Self { root, tools }
    }

    fn command(&self, stand: &Stand, args: &[&str]) -> Command {
        let mut command = stand.command(args);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.tools.display()));
        command.env(halton_meter::platform::SYSTEM_ROOT_VAR, &self.root);
        command
    }

    fn run(&self, stand: &Stand, args: &[&str]) -> (Option<i32>, String) {
        let output = self.command(stand, args).output().unwrap();
        (output.status.code(), show(&output))
    }

    fn anchors(&self) -> usize {
        fs::read_dir(self.root.join("usr/local/share/ca-certificates")).unwrap().count()
    }

    fn bundle(&self) -> String {
        fs::read_to_string(self.root.join("etc/ssl/certs/ca-certificates.crt")).unwrap_or_default()
    }
}

fn listed(stand: &Stand) -> Option<usize> {
    stand.json(&["status"])["bypass"].as_array().map(Vec::len)
}

#[test]
fn trusting_our_ca_asks_first_and_lets_clients_try_again() {
    let stand = Stand::new();
    let system = System::new(&stand);
    stand.must(&["start"]);
    stand.wait_metering();
    assert_refuses_then_passes(&stand);

    // Without a terminal nobody has agreed.
    let (code, said) = system.run(&stand, &["ca", "trust"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("update-ca-certificates") && said.contains("--yes"), "{said}");
    assert_eq!((system.anchors(), listed(&stand)), (0, Some(1)));
    // What fails is taken back, and nobody is let try again for nothing.
    fs::write(system.root.join("fail"), "").unwrap();
    let (code, said) = system.run(&stand, &["ca", "trust", "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no space left"), "{said}");
    assert_eq!((system.anchors(), listed(&stand)), (0, Some(1)));
    fs::remove_file(system.root.join("fail")).unwrap();

    let (code, said) = system.run(&stand, &["ca", "trust", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    let ours = fs::read_to_string(stand.home.ca_cert()).unwrap();
    assert!(system.bundle().contains(ours.trim()));
    assert_eq!((system.anchors(), listed(&stand)), (1, Some(0)));
    // Intercepted again: this client believes no system's store.
    assert_refuses_then_passes(&stand);

    let calls = || fs::read_to_string(system.root.join("calls")).unwrap().lines().count();
    let before = calls();
    let (code, said) = system.run(&stand, &["ca", "trust"]);
    assert_eq!((code, calls()), (Some(0), before), "nothing to ask about: {said}");
    assert_eq!(listed(&stand), Some(0));

    let (code, said) = system.run(&stand, &["ca", "untrust", "--yes"]);
    assert_eq!((code, system.anchors()), (Some(0), 0), "{said}");
    assert!(!system.bundle().contains(ours.trim()));
    let (code, said) = system.run(&stand, &["ca", "untrust"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_rotation_takes_the_trust_store_along() {
    let stand = Stand::new();
    let system = System::new(&stand);
    let (code, said) = system.run(&stand, &["ca", "trust", "--yes"]);
    assert_eq!((code, system.anchors()), (Some(0), 1), "{said}");
    let old = fs::read_to_string(stand.home.ca_cert()).unwrap();
    // Who is not asked changes nothing there, and nothing is changed over to what is not trusted.
    let (code, said) = system.run(&stand, &["ca", "rotate"]);
    assert_eq!((code, system.anchors()), (Some(2), 1), "{said}");
    assert_eq!(fs::read_to_string(stand.home.ca_cert()).unwrap(), old);
    let (code, said) = system.run(&stand, &["ca", "rotate", "--yes"]);
    assert_eq!((code, system.anchors()), (Some(0), 1), "{said}");
    let new = fs::read_to_string(stand.home.ca_cert()).unwrap();
    assert!(new != old && system.bundle().contains(new.trim()), "{said}");
    assert!(!system.bundle().contains(old.trim()), "{said}");
}

#[test]
fn without_permission_the_command_for_root_is_named() {
    let stand = Stand::new();
    let system = System::new(&stand);
    let anchors = system.root.join("usr/local/share/ca-certificates");
    fs::set_permissions(&anchors, fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = system.command(&stand, &["ca", "trust", "--yes"]);
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere: somebody else asks.
        let home = stand.scratch().join("nobody");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
        fs::set_permissions(stand.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
        command.env(halton_meter::home::HOME_VAR, home.join("h")).uid(65534).gid(65534);
    }
    let Ok(output) = command.output() else {
        programs::not_checked("ca trust without permission (nobody else may run this program)");
        return;
    };
    let said = show(&output);
    assert_eq!(output.status.code(), Some(77), "{said}");
    assert!(said.contains("sudo sh -c 'install -m 644 "), "{said}");
    assert!(said.contains("&& update-ca-certificates'"), "{said}");
    assert_eq!(system.anchors(), 0);
}
