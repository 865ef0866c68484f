//! The program's file goes away, or something else takes its place, under processes that run: what
//! ends is started all the same. And when nothing can be started, nobody waits for it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Stand, binary, send};
use crate::ladder::{can_limit, limit};
use crate::programs::{Program, curl_messages, in_time, show};

fn hello() -> Program {
    curl_messages("--http1.1", "hi", false)
}

/// Our program, at a place of its own.
fn program(stand: &Stand) -> PathBuf {
    let program = stand.scratch().join("bin/halton-meter");
    fs::create_dir(program.parent().unwrap()).unwrap();
    if fs::hard_link(binary(), &program).is_err() {
        fs::copy(binary(), &program).unwrap();
    }
    program
}

/// A tree whose root is started from there.
fn start(stand: &Stand) -> PathBuf {
    let program = program(stand);
    let output = in_time(&mut stand.command_of(&program, &["start"]));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_metering();
    program
}

/// Ends a process; another one takes its place.
fn replace(stand: &Stand, process: &str) {
    stand.kill(process);
    stand.wait(&format!("the next {process}"), || stand.pid(process).is_some());
}

#[test]
fn what_ends_after_the_file_is_gone_is_started_again() {
    let stand = Stand::new();
    fs::remove_file(start(&stand)).unwrap();
    for process in ["edge", "daemon", "watchdog", "edge"] {
        replace(&stand, process);
    }
    stand.wait_metered(&hello());
}

#[test]
fn an_edge_does_not_need_what_took_the_file_s_place() {
    let stand = Stand::new();
    let program = start(&stand);
    let other = stand.scratch().join("other");
    fs::write(&other, "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(other, program).unwrap();
    replace(&stand, "edge");
    stand.wait_metered(&hello());
}

/// Ended with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        send(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// A service's root, on Linux by the kernel's link, on macOS by the copy that it made.
fn service(platform: Option<&str>) {
    let stand = Stand::new();
    let program = program(&stand);
    let mut command = stand.command_of(&program, &["supervise", "--edge-only"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(platform) = platform {
        command.env(halton_meter::platform::PLATFORM_VAR, platform);
    }
    let service = Service(command.spawn().unwrap());
    stand.wait("an edge", || stand.pid("edge").is_some());
    let copy = stand.home.program_copy();
    if halton_meter::platform::is_macos() || platform.is_some() {
        stand.wait("the copy", || copy.exists());
    }
    fs::remove_file(program).unwrap();
    replace(&stand, "edge");
    let served = in_time(&mut stand.trusting(&hello()));
    assert!(served.status.success(), "{}{}", show(&served), stand.logs());
    drop(service);
    assert!(!copy.exists(), "nothing is left of it");
}

#[test]
fn a_service_s_root_goes_on_without_the_file() {
    service(None);
}

#[test]
fn a_service_s_root_goes_on_without_the_file_on_macos() {
    service(Some("macos"));
}

/// A root that is out of descriptors, as an example of what keeps any edge from being started.
#[test]
fn without_any_edge_nobody_waits_and_the_cause_is_told() {
    if !can_limit() {
        return;
    }
    let stand = Stand::started();
    let root = stand.pid("root").unwrap();
    limit(root, "nofile", "4");
    stand.kill("edge");
    // Who came before it was known waits no longer than that.
    if let Ok(mut early) = TcpStream::connect(stand.edge) {
        early.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let end = early.read(&mut [0]).map_err(|e| e.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    }
    stand.wait("refusals", || {
        TcpStream::connect(stand.edge).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    });

    let status = show(&stand.halton(&["status"]));
    assert!(status.contains("DOWN: no edge") && !status.contains("nothing runs"), "{status}");
    let command = Program::new(["sh", "-c", "echo proxy=$HTTPS_PROXY"]);
    let run = stand.run(&command);
    assert_eq!(run.stdout, b"proxy=\n", "it goes its own way");
    for text in [show(&run), show(&stand.halton(&["doctor"]))] {
        assert!(text.contains("the edge does not start: Too many open files"), "{text}");
        assert!(text.contains("raise the limit of open files"), "{text}");
        assert!(!text.contains("another program"), "{text}");
    }

    let (begun, start) = (Instant::now(), in_time(&mut stand.command(&["start"])));
    let text = show(&start);
    assert!(text.contains("the edge does not start: Too many open files"), "{text}");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "no waiting brings it: {:?}",
        begun.elapsed()
    );

    limit(root, "nofile", "1024");
    stand.wait("an edge", || stand.pid("edge").is_some());
    stand.wait_metered(&hello());
}
