//! What `uninstall` says of programs that still point at us.

use std::fs;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::harness::Stand;
use crate::programs;
use crate::setup::Host;

#[test]
fn running_programs_that_point_at_it_are_named() {
    if !Path::new("/proc/self").exists() {
        // macOS shows nobody the environment of its own programs.
        programs::not_checked("programs named by uninstall");
        return;
    }
    for (args, then) in [
        (&["uninstall", "--yes"][..], "they can't connect any more: restart them"),
        (&["uninstall", "--graceful", "--yes"], "restart them before the reboot"),
    ] {
        let host = Host::linux();
        host.must(&["init", "--yes"]);
        let edge = host.stand.edge;
        let mut sleeper = Command::new("sleep")
            .arg("600")
            .env("HTTPS_PROXY", format!("http://{edge}"))
            .spawn()
            .unwrap();
        let bus = host.stand.scratch().join("dbus-daemon");
        fs::write(&bus, "#!/bin/sh\necho; read end\n").unwrap();
        fs::set_permissions(&bus, fs::Permissions::from_mode(0o755)).unwrap();
        let mut bus = Command::new(bus)
            .env("HTTPS_PROXY", format!("http://{edge}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        bus.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let said = host.must(args);
        bus.kill().unwrap();
        bus.wait().unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        let sentence = format!("these running programs have {edge} in their environment; {then}");
        assert!(said.contains(&sentence), "{said}");
        let named = format!("sleep, pid {}\n", sleeper.id());
        assert!(said.contains(&named), "{named}: {said}");
        let bus = format!("the session bus (dbus-daemon, pid {}) has it too; log out", bus.id());
        assert!(said.contains(&bus), "{bus}: {said}");
    }
}

#[test]
fn nothing_that_signs_is_left_and_what_was_metered_is() {
    let host = Host::linux();
    host.must(&["init", "--yes"]);
    let home = &host.stand.home;
    fs::copy(home.ca_key(), home.next_ca_key()).unwrap();
    let said = host.must(&["uninstall", "--yes"]);
    assert!(said.contains(&home.ca_key().display().to_string()), "it is shown first: {said}");
    assert!(!home.ca_key().exists() && !home.next_ca_key().exists());
    assert!(home.ca_bundle().exists() && home.ledger_file().exists() && home.ca_cert().exists());
    assert!(host.must(&["uninstall", "--yes"]).contains("nothing to do"));
    // Another one, and the old one is known as such.
    let old = fs::read(home.ca_cert()).unwrap();
    host.must(&["init", "--yes"]);
    assert!(home.ca_key().exists() && fs::read(home.ca_cert()).unwrap() != old);
    let kept = halton_meter::meter::ca::files(home);
    assert!(kept.iter().any(|file| fs::read(file).unwrap() == old), "it may still be trusted");
    host.must(&["uninstall", "--yes"]);
}

/// A program that has read its roots when it began, and goes on.
struct Lives {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Lives {
    fn begin(stand: &Stand) -> Self {
        let (port, bundle) = (stand.edge.port().to_string(), stand.home.ca_bundle());
        // It needs nothing but what Python has.
        let mut command = Command::new("python3");
        command.arg(programs::script("lives.py")).arg(port).arg(bundle);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(says.next().unwrap().unwrap(), "ready");
        Self { child, says }
    }

    fn asks(&mut self, stand: &Stand) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let said = self.says.next().unwrap().unwrap();
        assert_eq!(said, "200", "{}", stand.logs());
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_lives_across_it_and_the_next_start_loses_no_request() {
    for args in [&["uninstall", "--graceful", "--yes"][..], &["uninstall", "--yes"]] {
        let host = Host::linux();
        let stand = &host.stand;
        host.must(&["init", "--yes"]);
        stand.wait_metering();
        let mut early = Lives::begin(stand);
        early.asks(stand);
        stand.wait_rows(1);
        let old = fs::read(stand.home.ca_cert()).unwrap();
        host.must(args);
        if args.contains(&"--graceful") {
            early.asks(stand);
        }
        // Another CA, which it can't know.
        host.must(&["init", "--yes"]);
        stand.wait_metering();
        assert_ne!(fs::read(stand.home.ca_cert()).unwrap(), old);
        early.asks(stand);
        early.asks(stand);
        let mut late = Lives::begin(stand);
        late.asks(stand);
        assert_eq!(stand.wait_rows(2).len(), 2);
        let passed = stand.coverage()["passed_by_reason"]["declined_unknown_authority"].clone();
        assert_eq!(passed, 2, "{args:?}");
        assert_eq!(stand.json(&["status"])["bypass"], serde_json::json!([]), "nobody refused us");
        host.must(&["uninstall", "--yes"]);
    }
}
