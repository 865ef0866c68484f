//! More rungs of the failure ladder, under live traffic: exhausted limits, a control socket that is
//! gone or another's, providers that misbehave, a daemon that freezes at the worst moment.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Barrier;
use std::time::Duration;

use halton_meter::edge::door;
use rustix::process::Signal;

use crate::harness::{DEADLINE, Stand, send};
use crate::origin::{Leaf, Origin, Root, Setup, Transport};
use crate::programs::{self, Program, TEXT, show};
use crate::wire::Wire;

fn hello() -> Program {
    programs::curl_messages("--http1.1", "hi", false)
}

fn assert_good(stand: &Stand, output: &Output, when: &str) {
    let ok = output.status.success() && String::from_utf8_lossy(&output.stdout).contains(TEXT);
    assert!(ok, "{when}: {}{}", show(output), stand.logs());
}

fn assert_served(stand: &Stand, when: &str) {
    assert_good(stand, &stand.run_trusting(&hello()), when);
}

/// Those that count against the limits set here: cargo's own pipes, which all inherit, are far above.
pub fn descriptors(pid: u32) -> u64 {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| name.to_string_lossy().parse::<u64>().ok();
    all.filter_map(|fd| number(fd.file_name())).filter(|n| *n < 200).count() as u64
}

fn sockets(pid: u32) -> HashSet<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = all.filter_map(|fd| fs::read_link(fd.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).collect()
}

/// Limits of another process are Linux's.
pub fn can_limit() -> bool {
    let can = Command::new("prlimit").arg("--version").output().is_ok();
    if !can {
        programs::not_checked("exhausted limits (needs prlimit)");
    }
    can
}

/// util-linux's: a limit of a process that runs.
pub fn limit(pid: u32, what: &str, value: &str) {
    let limit = format!("--{what}={value}:");
    let output = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).output();
    let output = output.expect("prlimit runs");
    assert!(output.status.success(), "{}", show(&output));
}

#[test]
fn an_edge_out_of_descriptors_serves_late_but_serves() {
    if !can_limit() {
        return;
    }
    let stand = Stand::started();
    stand.must(&["stop"]);
    let edge = stand.pid("edge").unwrap();
    assert_eq!(stand.json(&["status"])["state"], "stopped");
    let most = descriptors(edge) + 20;
    limit(edge, "nofile", &most.to_string());
    let mut idle = Vec::new();
    stand.wait("a full table", || {
        // One at a time, as none may wait in the queue; half a head, as that causes no probe.
        let before = sockets(edge);
        let full = descriptors(edge) >= most;
        if !full {
            let mut tcp = TcpStream::connect(stand.edge).unwrap();
            tcp.write_all(b"CONNECT api.").unwrap();
            idle.push(tcp);
            // Not by their number: something else may close meanwhile.
            stand.wait("its descriptor", || !sockets(edge).is_subset(&before));
        }
        full
    });
    // The root is hung up on: it must not take the edge for frozen.
    let asked = door::ask(&stand.home.edge_socket(), Duration::from_secs(10)).unwrap_err();
    assert_eq!(asked.kind(), ErrorKind::UnexpectedEof, "{asked}");
    // Room for two clients, and none for their providers, nor for a look at where they are.
    idle.truncate(idle.len() - 2);
    stand.wait("room for two", || descriptors(edge) < most - 1);
    let first = Wire::open(&stand).unwrap();
    let mut named = TcpStream::connect(stand.edge).unwrap();
    named.write_all(b"CONNECT no.such.name.invalid:443 HTTP/1.1\r\n\r\n").unwrap();
    named.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let waits = named.read(&mut [0]).expect_err("turned away at once").kind();
    assert_eq!(waits, ErrorKind::WouldBlock);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| Wire::handshake(&stand, first).map(|mut wire| wire.get()));
        stand.wait("its first byte at the edge", || stand.logs().contains("\"msg\":\"raw\""));
        // This one can't even be accepted.
        let second = scope.spawn(|| Wire::connect(&stand).map(|mut wire| wire.get()));
        drop(idle);
        first.join().unwrap().expect("its provider is dialled once there is room");
        second.join().unwrap().expect("accepted once there is room");
    });
    limit(edge, "nofile", "1024");
    assert_served(&stand, "room again");
    assert_eq!(stand.pid("edge"), Some(edge), "it lived through that");
}

#[test]
fn a_daemon_out_of_descriptors_leaves_connections_to_the_edge() {
    if !can_limit() {
        return;
    }
    let stand = Stand::started();
    let daemon = stand.pid("daemon").unwrap();
    let mut metered = Wire::connect(&stand).unwrap();
    metered.get();
    limit(daemon, "nofile", &descriptors(daemon).to_string());
    for round in 0..5 {
        assert_served(&stand, &format!("round {round}"));
    }
    metered.get();
    limit(daemon, "nofile", "1024");
    stand.wait_metered(&hello());
    assert_eq!(stand.pid("daemon"), Some(daemon), "it lived through that");
}

#[test]
fn a_daemon_out_of_memory_is_replaced() {
    if !can_limit() {
        return;
    }
    let stand = Stand::started();
    let daemon = stand.pid("daemon").unwrap();
    // Less than it has: it gets no more.
    limit(daemon, "data", "1048576");
    let mut wires = Vec::new();
    stand.wait("end of the daemon", || {
        assert_served(&stand, "out of memory");
        // Each one costs it some; the one at which it dies ends with it.
        wires.extend((0..20).filter_map(|_| Wire::connect(&stand).ok()));
        stand.pid("daemon").is_some_and(|pid| pid != daemon)
    });
    stand.wait_metering();
    stand.wait_metered(&hello());
}

#[test]
fn a_control_socket_that_is_deleted_comes_back() {
    let stand = Stand::started();
    fs::remove_file(stand.home.control_socket()).unwrap();
    assert_served(&stand, "deleted");
    stand.wait("a new socket", || {
        assert_served(&stand, "deleted");
        stand.home.control_socket().exists()
    });
    stand.wait_metering();
    stand.wait_metered(&hello());
}

/// The run directory, for as long as another one is in its place.
struct Aside(PathBuf, PathBuf);

impl Aside {
    fn put(run: PathBuf) -> Self {
        let aside = run.with_extension("aside");
        fs::rename(&run, &aside).unwrap();
        Self(run, aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // With the locks by which the processes are found and ended.
        let _ = fs::remove_dir_all(&self.0);
        let _ = fs::rename(&self.1, &self.0);
    }
}

#[test]
fn a_run_directory_that_is_lost_comes_back() {
    let stand = Stand::started();
    let run = stand.home.run_dir();
    let aside = Aside::put(run.clone());
    fs::write(&run, "no directory").unwrap();
    stand.wait("a tap that is away", || stand.logs().contains("no tap; requests pass"));
    Wire::connect(&stand).unwrap().get();
    fs::remove_file(&run).unwrap();
    let socket = stand.home.control_socket();
    stand.wait("a new socket", || UnixStream::connect(&socket).is_ok());
    assert_eq!(stand.logs().matches("file is gone, binding anew").count(), 1, "{}", stand.logs());
    drop(aside);
}

/// Somebody else answers where the daemon should: with silence, then with nonsense.
#[test]
fn another_program_on_the_control_socket() {
    let stand = Stand::started();
    for nonsense in [&b""[..], b"\0\0\0\x04what"] {
        // The edge must look for the daemon anew, and finds this.
        stand.must(&["stop"]);
        let path = stand.home.control_socket();
        let _ = fs::remove_file(&path);
        let impostor = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            for mut stream in impostor.incoming().flatten() {
                let _ = stream.write_all(nonsense);
                kept.push(stream);
            }
        });
        for round in 0..3 {
            assert_served(&stand, &format!("impostor, round {round}"));
        }
        // The real one takes its place back.
        stand.must(&["start"]);
        stand.wait_metering();
        stand.wait_metered(&hello());
    }
}

/// Root only, as another user is needed; else said, not passed over.
#[test]
fn another_user_on_the_control_socket() {
    let python = std::path::Path::new("/usr/bin/python3");
    if !rustix::process::geteuid().is_root() || !python.exists() {
        programs::not_checked("another user on the control socket (needs root and python3)");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let stand = Stand::started();
    stand.must(&["stop"]);
    let path = stand.home.control_socket();
    let _ = fs::remove_file(&path);
    // As if the directory had not been private.
    let mut dirs: Vec<_> = path.ancestors().skip(1).take(3).collect();
    for dir in &dirs {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let script = "import socket, sys, time\n\
        s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(9)\n\
        import os; os.chmod(sys.argv[1], 0o777)\n\
        while True: s.accept()[0].recv(1); print('asked', flush=True)\n";
    let mut other = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "/usr/bin/python3",
            "-c",
            script,
        ])
        .arg(&path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    stand.wait("the other user's socket", || path.exists());
    for round in 0..3 {
        assert_served(&stand, &format!("round {round}"));
    }
    send(other.id(), Signal::KILL);
    other.wait().unwrap();
    dirs.reverse();
    for dir in dirs {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }
    stand.must(&["start"]);
    stand.wait_metering();
    stand.wait_metered(&hello());
}

/// What a client sees of a provider that misbehaves is what it sees without us.
#[test]
fn a_provider_that_misbehaves_is_seen_as_it_is() {
    let seen = |output: &Output| (output.status.code(), output.stdout.clone());
    // Without any proxy, which could soften the blow.
    let direct = |stand: &Stand, program: &Program| {
        let mut command = Command::new("curl");
        programs::clean(&mut command, stand.scratch());
        command.args(&program.argv[1..]).arg("--connect-to");
        command.arg(format!("::{}", stand.origin.addr()));
        command.env("CURL_CA_BUNDLE", stand.root_pem()).output().unwrap()
    };
    for transport in [Transport::Reset, Transport::Plain] {
        let stand = Stand::with(&Setup { transport, ..Setup::default() });
        stand.must(&["start"]);
        stand.wait_metering();
        // A proxy that connects shows as one; so this is compared with a blind one.
        let proxy = stand.origin.blind_proxy();
        let direct = hello().direct(proxy, &stand.root_pem(), stand.scratch());
        assert!(!direct.status.success());
        let through = stand.run_trusting(&hello());
        assert_eq!(seen(&through), seen(&direct), "{transport:?} {}", show(&through));
    }
    let stand = Stand::started();
    // Reset and end in mid-body, an end without close_notify where that is all there is to tell.
    for (http, scripted) in [
        ("--http1.1", "[[cut=rst framing=length]]"),
        ("--http1.1", "[[cut=fin framing=length]]"),
        ("--http1.1", "[[cut=fin framing=chunked]]"),
        ("--http1.1", "[[cut=fin framing=close]]"),
        ("--http1.1", "[[framing=close]]"),
        ("--http2", "[[cut=rst]]"),
    ] {
        let program = programs::curl(&[http, "https://api.anthropic.com/plain"]);
        stand.origin.script("/plain", scripted);
        let direct = direct(&stand, &program);
        stand.origin.script("/plain", scripted);
        let through = stand.run(&program);
        assert_eq!(seen(&through), seen(&direct), "{http} {scripted} {}", show(&through));
    }
}

#[test]
fn a_certificate_that_turns_bad_while_we_run() {
    let stand = Stand::started();
    let mut before = Wire::connect(&stand).unwrap();
    before.get();
    for (leaf, said) in [(Leaf::Expired, "expired"), (Leaf::Foreign, "certificate")] {
        stand.origin.change(&Setup { leaf, ..Setup::default() });
        let output = stand.run_trusting(&hello());
        assert_eq!(output.status.code(), Some(60), "its client refuses it: {}", show(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{}", show(&output));
        // Who does not care gets through, past us.
        let output = stand.run_trusting(&hello().arg("--insecure"));
        assert_good(&stand, &output, "insecure");
        before.get();
    }
    stand.origin.change(&Setup::default());
    stand.wait_metered(&hello());
}

/// The daemon dials when it freezes: nothing is consumed, the edge goes on by itself, and the daemon,
/// awake again, is told that it came too late.
#[test]
fn frozen_between_offer_and_commit() {
    let setup = Setup { transport: Transport::Held, ..Setup::default() };
    let stand = Stand::before(Origin::with(&setup, &Root::new("Test Origin Root")));
    stand.must(&["start"]);
    stand.wait_metering();
    stand.signal("root", Signal::STOP);
    let mut client = stand.trusting(&hello());
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The daemon's connection is at the provider; freeze it there.
    stand.origin.wait_at_gate(1, DEADLINE);
    stand.signal("daemon", Signal::STOP);
    // The edge's own.
    stand.origin.wait_at_gate(2, DEADLINE);
    stand.signal("daemon", Signal::CONT);
    stand.origin.open_gate();
    stand.origin.open_gate();
    assert_good(&stand, &client.wait_with_output().unwrap(), "raw after all");
    assert_eq!(stand.origin.requests().len(), 1, "asked once");
    stand.signal("root", Signal::CONT);
}

/// After the commit the exchange is the daemon's: it waits while the daemon is frozen, and goes on.
#[test]
fn frozen_after_commit() {
    let stand = Stand::started();
    stand.signal("root", Signal::STOP);
    let mut stream = stand.run_command(&programs::curl_messages("--http1.1", "[[gate]]", true));
    let stream = stream.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stand.origin.wait_at_gate(1, DEADLINE);
    stand.signal("daemon", Signal::STOP);
    stand.origin.open_gate();
    // Others, meanwhile; by no command of ours, which would wake the root.
    Wire::connect(&stand).unwrap().get();
    stand.signal("daemon", Signal::CONT);
    let output = stream.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("message_stop"), "{}", show(&output));
    stand.signal("root", Signal::CONT);
    stand.wait_metered(&hello());
}

/// The deadline itself is measured in paused time (src/edge/tests/shared.rs).
#[test]
fn fifty_connections_at_once_at_a_frozen_daemon() {
    let stand = Stand::started();
    stand.signal("root", Signal::STOP);
    stand.signal("daemon", Signal::STOP);
    let together = Barrier::new(50);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                together.wait();
                let mut wire = Wire::connect(&stand).unwrap();
                assert!(!wire.is_metered());
                wire.get();
            });
        }
    });
    stand.signal("daemon", Signal::CONT);
    stand.signal("root", Signal::CONT);
    stand.wait_metered(&hello());
    let passed = &stand.coverage()["passed_connections"];
    assert!(passed.as_u64() >= Some(50), "{passed}");
}
