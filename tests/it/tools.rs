//! What the scripts around the tests promise.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::harness::send;
use crate::programs::{not_checked, note, on_path, show};

fn tool(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools").join(name)
}

fn program(file: &Path, script: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `tools/test.sh` in a place of its own, where cargo's tests are this script.
fn tests_that(dir: &Path, run: &str) -> Output {
    program(&dir.join("tools/clients.sh"), "");
    fs::copy(tool("test.sh"), dir.join("tools/test.sh")).unwrap();
    program(&dir.join("bin/cargo"), &format!("[ \"$2\" != run ] || {{ {run}; }}"));
    let path = std::env::var("PATH").unwrap();
    Command::new("/bin/sh")
        .arg(dir.join("tools/test.sh"))
        .env("PATH", format!("{}:{path}", dir.join("bin").display()))
        .output()
        .unwrap()
}

#[test]
fn what_was_not_checked_is_shown_at_the_end_whatever_the_tests_say() {
    let dir = TempDir::new().unwrap();
    let tests = r#"printf 'b\na b\nb\n' >>"$HALTON_NOT_CHECKED""#;
    for code in [0, 100] {
        let output = tests_that(dir.path(), &format!("{tests}; exit {code}"));
        assert_eq!(output.status.code(), Some(code), "{}", show(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "NOT CHECKED here: a b\nNOT CHECKED here: b\n", "{}", show(&output));
    }
    // What the run before could not check is none of this one's.
    let output = tests_that(dir.path(), "true");
    assert!(output.status.success() && output.stdout.is_empty(), "{}", show(&output));
}

#[test]
fn what_a_test_can_t_check_is_one_line() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("not-checked");
    note(&file, "a\nb");
    note(&file, "c");
    assert_eq!(fs::read_to_string(file).unwrap(), "a b\nc\n");
}

#[test]
fn all_that_the_clients_need_and_is_not_there_is_named_at_once() {
    let dir = TempDir::new().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    for tool in ["dirname", "mkdir"] {
        symlink(on_path(tool).unwrap(), bin.join(tool)).unwrap();
    }
    // Node came without npm.
    program(&bin.join("node"), "");
    let output = Command::new("/bin/sh")
        .arg(tool("clients.sh"))
        .env("PATH", &bin)
        .env("HALTON_CLIENTS_DIR", dir.path().join("clients"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(": python3 with venv, node with npm, curl"), "{said}");
}

#[test]
fn a_storm_that_did_not_run_has_not_passed() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("tools")).unwrap();
    fs::copy(tool("chaos.sh"), dir.path().join("tools/chaos.sh")).unwrap();
    let path = std::env::var("PATH").unwrap();
    for (said, code, passes) in [
        ("test result: ok. 1 passed; 0 failed", 0, true),
        ("test result: ok. 0 passed; 0 failed", 0, false),
        ("test result: FAILED. 0 passed; 1 failed", 101, false),
    ] {
        let run = format!("[ \"$1\" != test ] || {{ echo '{said}'; exit {code}; }}");
        program(&dir.path().join("bin/cargo"), &run);
        let output = Command::new(dir.path().join("tools/chaos.sh"))
            .env("PATH", format!("{}:{path}", dir.path().join("bin").display()))
            .output()
            .unwrap();
        let shown = show(&output);
        assert_eq!(output.status.success(), passes, "{shown}");
        assert!(shown.contains(said), "{shown}");
    }
}

#[test]
fn a_session_of_systemd_that_is_told_to_end_leaves_nothing() {
    const NOT_CHECKED: i32 = 3;
    let dir = TempDir::new().unwrap();
    let mut child = Command::new(tool("user-systemd.sh"))
        .args(["bash", "-c", "echo up; exec sleep 1000"])
        // Where it would mount a tree of groups, if there is none.
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut up = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut up).unwrap();
    let group = format!("user-systemd-{}", child.id());
    let left = || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let trees = mounts.lines().filter(|line| line.contains(" cgroup2 "));
        let groups = trees.filter_map(|line| line.split(' ').nth(1)).map(|tree| {
            let ours = tree.starts_with(dir.path().to_str().unwrap());
            usize::from(ours) + usize::from(Path::new(tree).join(&group).exists())
        });
        groups.sum::<usize>() + fs::read_dir(dir.path()).unwrap().count()
    };
    if up != "up\n" {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(NOT_CHECKED), "{up} {}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr);
        return not_checked(said.trim().trim_start_matches("NOT CHECKED: "));
    }
    assert!(left() > 0, "no group of its own");
    send(child.id(), Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", show(&output));
    assert_eq!(left(), 0, "{}", show(&output));
}
