//! What `uninstall` says of programs that still point at us.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

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
