//! A home that another machine or container uses too: its pids are other processes here.

use std::fs::File;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use halton_meter::home::lock_exclusively;

use crate::harness::Stand;
use crate::programs::{not_checked, show};

struct Victim(Child);

impl Victim {
    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As a process in another place holds it.
fn held(stand: &Stand, process: &str, pid: u32) -> File {
    let path = stand.home.pid_file(process);
    std::fs::write(&path, format!("{pid}\nanother boot pid:[1]\n")).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    assert!(lock_exclusively(&file).unwrap());
    file
}

fn said(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("another machine or container")
}

#[test]
fn nobody_is_signalled_by_a_number_from_elsewhere() {
    let stand = Stand::new();
    // Makes the directories and the CA.
    stand.must(&["start"]);
    stand.must(&["edge", "stop"]);
    let mut victim = Victim(Command::new("sleep").arg("600").spawn().unwrap());
    let locks =
        ["root", "edge", "daemon", "watchdog"].map(|name| held(&stand, name, victim.0.id()));
    let began = Instant::now();
    let output =
        stand.command(&["run", "--", "sh", "-c", "echo ran $HTTPS_PROXY"]).output().unwrap();
    assert_eq!(output.stdout, b"ran\n", "{}", show(&output));
    assert!(said(&output) && output.status.success(), "{}", show(&output));
    let authority = std::fs::read(stand.home.ca_cert()).unwrap();
    for command in [
        &["start"][..],
        &["stop"],
        &["restart"],
        &["edge", "stop"],
        &["upgrade"],
        &["ca", "rotate"],
        &["ca", "rotate", "--now"],
    ] {
        let output = stand.halton(command);
        assert!(said(&output) && output.status.code() == Some(69), "{command:?} {}", show(&output));
    }
    assert_eq!(std::fs::read(stand.home.ca_cert()).unwrap(), authority);
    assert!(!stand.home.next_ca_cert().exists());
    assert!(began.elapsed() < Duration::from_secs(20), "nothing to wait for");
    let set = stand.must(&["config", "set", "log.level", "info"]);
    assert!(String::from_utf8_lossy(&set.stdout).contains("not told"), "{}", show(&set));
    let output = stand.halton(&["config", "set", "bodies.enabled", "false"]);
    assert!(said(&output) && output.status.code() == Some(1), "{}", show(&output));
    assert!(victim.lives());
    drop(locks);
    stand.must(&["start"]);
    stand.must(&["stop"]);
    assert!(victim.lives());
}

/// A sandbox with pids of its own, in which our port answers.
#[test]
fn a_container_that_reaches_the_edge_is_metered_and_stops_nothing() {
    let apart = |command: &Command| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]).arg(command.get_program());
        unshare.args(command.get_args());
        unshare.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        unshare
    };
    if !apart(&Command::new("true")).output().is_ok_and(|output| output.status.success()) {
        return not_checked("a pid namespace: unshare needs root on Linux");
    }
    let stand = Stand::new();
    stand.must(&["start"]);
    let daemon = stand.pid("daemon");
    let run = stand.command(&["run", "--", "sh", "-c", "echo $HTTPS_PROXY"]);
    let output = apart(&run).output().unwrap();
    assert_eq!(output.stdout, format!("http://{}\n", stand.edge).as_bytes(), "{}", show(&output));
    assert!(!said(&output), "{}", show(&output));
    let output = apart(&stand.command(&["stop"])).output().unwrap();
    assert!(said(&output) && !output.status.success(), "{}", show(&output));
    assert_eq!(stand.pid("daemon"), daemon);
    let authority = std::fs::read(stand.home.ca_cert()).unwrap();
    stand.must(&["config", "set", "bodies.enabled", "true"]);
    for (command, code) in [
        (&["ca", "rotate"][..], 69),
        (&["ca", "rotate", "--now"], 69),
        (&["config", "set", "bodies.enabled", "false"], 1),
    ] {
        let output = apart(&stand.command(command)).output().unwrap();
        let told = said(&output) && output.status.code() == Some(code);
        assert!(told, "{command:?} {}", show(&output));
    }
    assert_eq!(std::fs::read(stand.home.ca_cert()).unwrap(), authority);
    assert!(!stand.home.next_ca_cert().exists());
}
