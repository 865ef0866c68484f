//! Homes of two users: `sudo` that keeps `HOME`, and a second home beside the first one's ports.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Output;

use halton_meter::home::HOME_VAR;

use crate::harness::Stand;
use crate::programs::{not_checked, show};
use crate::setup::Host;

/// `nobody`.
const OTHER: u32 = 65534;

/// `false`: not root here, who alone can make a directory another user's.
fn give_away(path: &Path) -> bool {
    let given = chown(path, Some(OTHER), Some(OTHER)).is_ok();
    if !given {
        not_checked("homes of another user");
    }
    given
}

#[test]
fn root_makes_no_home_in_another_users_directory() {
    let stand = Stand::new();
    let theirs = stand.scratch().join("theirs");
    fs::create_dir(&theirs).unwrap();
    if !give_away(&theirs) {
        return;
    }
    let home = theirs.join(".halton-meter");
    let halton = |args: &[&str]| stand.command(args).env(HOME_VAR, &home).output().unwrap();
    let run = halton(&["run", "--", "echo", "ran"]);
    assert_eq!(run.stdout, b"ran\n", "{}", show(&run));
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("belongs to another user (uid 65534)"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    for command in [&["start"][..], &["stop"], &["env"], &["ca", "path"], &["uninstall", "--yes"]] {
        let refused = halton(command);
        assert_eq!(refused.status.code(), Some(77), "{command:?} {}", show(&refused));
    }
    assert!(!home.exists());
    // What root has made there, root meant.
    fs::create_dir(&home).unwrap();
    let path = halton(&["ca", "path"]);
    assert!(path.status.success(), "{}", show(&path));
}

#[test]
fn a_home_of_another_user_is_named_and_nothing_is_written_there() {
    let stand = Stand::started();
    if !give_away(stand.home.path()) {
        return;
    }
    let stop = stand.halton(&["stop"]);
    assert_eq!(stop.status.code(), Some(77), "{}", show(&stop));
    assert!(!stand.home.user_stopped().exists() && stand.pid("daemon").is_some());
    // To its owner's eyes, who can't read what is in it: nothing of it tells of the edge.
    let run = stand.home.path().join("run");
    fs::rename(&run, stand.home.path().join("unseen")).unwrap();
    fs::write(&run, "").unwrap();
    let status = show(&stand.halton(&["status"]));
    assert!(status.contains("belongs to another user (uid 65534)"), "{status}");
    assert!(!status.contains("removed"), "{status}");
    fs::remove_file(&run).unwrap();
    fs::rename(stand.home.path().join("unseen"), &run).unwrap();
    chown(stand.home.path(), Some(0), Some(0)).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_port_that_another_home_serves_is_not_said_to_be_closed() {
    let stand = Stand::started();
    let mut other = stand.command(&["edge", "stop"]);
    let output = other.env(HOME_VAR, stand.scratch().join("other")).output().unwrap();
    // Its configuration says nothing of that port.
    let port = stand.edge.port();
    assert!(said(&output).contains("everything is down"), "{}", show(&output));
    let mut other = stand.command(&["edge", "stop", "-c", &format!("edge.port={port}")]);
    let output = other.env(HOME_VAR, stand.scratch().join("other")).output().unwrap();
    let said = said(&output);
    assert!(said.contains("everything of this home is down; another program"), "{said}");
    assert!(said.contains(&stand.edge.to_string()), "{said}");
    assert!(stand.pid("edge").is_some());
}

#[test]
fn init_names_both_ports_that_are_taken() {
    let host = Host::linux();
    let held = [host.stand.edge, host.stand.api].map(|addr| TcpListener::bind(addr).unwrap());
    let output = host.run(&["init", "--yes"]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (key, addr) in [("edge.port", host.stand.edge), ("daemon.api_port", host.stand.api)] {
        assert!(said.contains(&format!("port {} is held by ", addr.port())), "{said}");
        assert!(said.contains(&format!("set {key} to a free port (")), "{said}");
    }
    assert!(!host.stand.home.install_mode().exists());
    drop(held);
}

#[test]
fn a_project_whose_name_is_no_text_keeps_no_command_from_running() {
    let stand = Stand::new();
    let mut command = stand.command(&["run", "--quiet", "--project"]);
    command.arg(OsStr::from_bytes(b"x\xff")).args(["--", "sh", "-c", "echo $HALTON_PROJECT:ran"]);
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b":ran\n", "{}", show(&output));
    assert!(said(&output).contains("--project: the name is no UTF-8"), "{}", show(&output));
}
