//! The processes one by one, as a service manager keeps them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use halton_meter::supervisor::journal;
use rustix::process::Signal;

use crate::harness::{Stand, send};
use crate::programs::{Program, curl_messages, show};

/// Ended with the test.
struct Service(Child);

impl Service {
    fn start(stand: &Stand, args: &[&str]) -> Self {
        let mut command = stand.command(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("service"))
    }

    fn ended(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_some()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        send(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

fn hello() -> Program {
    curl_messages("--http1.1", "hi", false)
}

#[test]
fn root_daemon_and_watchdog_stand_by_themselves() {
    let stand = Stand::new();
    let _root = Service::start(&stand, &["supervise", "--edge-only"]);
    stand.wait("an edge", || stand.pid("edge").is_some());
    let mut daemon = Service::start(&stand, &["daemon", "--service"]);
    let _watchdog = Service::start(&stand, &["watchdog", "--service"]);
    stand.wait_metered(&hello());
    assert_eq!(stand.pid("daemon"), Some(daemon.0.id()), "none was started by the root");

    // Frozen: the service manager sees a process that runs, the root one that is silent.
    stand.signal("daemon", Signal::STOP);
    stand.wait("its end", || daemon.ended());
    let entries = journal::read_all(&stand.home.journal_file()).unwrap();
    assert!(entries.iter().any(|e| e.process == "root" && e.event == "silent"), "{entries:?}");
    let _again = Service::start(&stand, &["daemon", "--service"]);
    stand.wait_metered(&hello());
}

#[test]
fn a_service_waits_for_its_turn_and_not_after_a_stop() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let (root, daemon) = (stand.pid("root"), stand.pid("daemon"));
    let service = Service::start(&stand, &["supervise", "--edge-only"]);
    let mut second = Service::start(&stand, &["daemon", "--service"]);
    stand.must(&["edge", "stop"]);
    stand.wait("the service's edge", || stand.pid("edge").is_some());
    assert_eq!(stand.pid("root"), Some(service.0.id()));
    stand.wait("the second daemon", || stand.pid("daemon") == Some(second.0.id()));
    assert!(root != stand.pid("root") && daemon != stand.pid("daemon"));

    std::fs::write(stand.home.user_stopped(), "").unwrap();
    stand.signal("daemon", Signal::TERM);
    stand.wait("the daemon's end", || second.ended());
    let mut unwanted = Service::start(&stand, &["daemon", "--service"]);
    stand.wait("it to leave", || unwanted.ended());
    assert!(unwanted.0.wait().unwrap().success());
    assert!(stand.pid("edge").is_some());
}

/// Its own deadline would be 90 s, for each command.
#[test]
fn a_manager_that_hangs_is_not_asked_while_all_is_well_and_not_waited_for_else() {
    let stand = Stand::new();
    stand.must(&["start"]);
    fs::write(stand.home.install_mode(), "env-only").unwrap();
    let (tools, asked) = (stand.scratch().join("tools"), stand.scratch().join("asked"));
    fs::create_dir(&tools).unwrap();
    for name in ["systemctl", "launchctl"] {
        let file = tools.join(name);
        fs::write(&file, format!("#!/bin/sh\ntouch '{}'\nexec sleep 600\n", asked.display()))
            .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let must = |args: &[&str]| {
        let began = Instant::now();
        let output = stand.command(args).env("PATH", &path).output().unwrap();
        assert!(output.status.success(), "{args:?} {}", show(&output));
        assert!(began.elapsed() < Duration::from_secs(60), "{args:?} {:?}", began.elapsed());
    };
    must(&["run", "--", "true"]);
    assert!(!asked.exists());
    must(&["edge", "stop"]);
    must(&["run", "--", "true"]);
    assert!(asked.exists());
    fs::remove_file(stand.home.install_mode()).unwrap();
}
