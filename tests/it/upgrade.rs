//! Processes that are replaced, orphaned or frozen under traffic: the port stays, tunnels go on.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::JoinHandle;

use rustix::process::Signal;

use crate::harness::{DEADLINE, Stand, binary, send};
use crate::programs::{self, TEXT, show};

/// Sends `size` patterned bytes to whoever connects, each time `next` allows another part.
fn source(size: usize) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let chunk = chunk();
        let mut left = size;
        while left > 0 {
            let n = left.min(chunk.len());
            stream.write_all(&chunk[..n]).unwrap();
            left -= n;
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"and back");
    });
    (addr, serve)
}

/// Its length has no factor in common with any buffer: a byte too many or too few shows.
fn chunk() -> Vec<u8> {
    (0..65_521u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

pub(crate) fn connect(stand: &Stand, target: std::net::SocketAddr) -> TcpStream {
    let mut tcp = TcpStream::connect(stand.edge).unwrap();
    tcp.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(tcp, "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").unwrap();
    let mut answer = [0; 39];
    tcp.read_exact(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    tcp
}

fn image(stand: &Stand) -> u64 {
    stand.json(&["status"])["edge"]["status"]["image"].as_u64().unwrap_or(0)
}

#[test]
fn upgrade_loses_no_byte_of_a_gibibyte_nor_of_a_slow_stream() {
    const SIZE: usize = 1 << 30;
    let stand = Stand::started();
    let pids: Vec<_> = ["root", "edge"].map(|p| stand.pid(p)).into();

    // A slow metered stream (it lives in the daemon), a slow raw one, a half-said request, a
    // metered tunnel whose client has not spoken, and a gibibyte.
    let gated = programs::curl_messages("--http1.1", "[[gate]]", true);
    let gated = stand.trusting(&gated).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    stand.origin.wait_at_gate(1, DEADLINE);
    let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = connect(&stand, quiet.local_addr().unwrap());
    let (mut slow_server, _) = quiet.accept().unwrap();
    slow_server.write_all(b"first ").unwrap();
    let mut half = TcpStream::connect(stand.edge).unwrap();
    half.set_read_timeout(Some(DEADLINE)).unwrap();
    half.write_all(format!("CONNECT {}", stand.origin.addr()).as_bytes()).unwrap();
    let (addr, serve) = source(SIZE);
    let mut bulk = connect(&stand, addr);

    let upgrade =
        stand.command(&["upgrade"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Up to here the pipes are full: all of the upgrade happens in mid-transfer.
    stand.wait("another image of the edge", || image(&stand) >= 2);
    stand.origin.open_gate();
    let (chunk, mut buffer, mut got) = (chunk(), vec![0; 65_521], 0);
    while got < SIZE {
        let part = chunk.len().min(SIZE - got);
        bulk.read_exact(&mut buffer[..part]).unwrap();
        assert!(buffer[..part] == chunk[..part], "wrong bytes in the part at {got}");
        got += part;
        if got / chunk.len() == 4_000 {
            // Once more by the signal alone, at full speed.
            stand.signal("edge", Signal::USR2);
        }
    }
    assert_eq!(bulk.read(&mut [0]).unwrap(), 0);
    bulk.write_all(b"and back").unwrap();
    bulk.shutdown(Shutdown::Write).unwrap();
    serve.join().unwrap();
    stand.wait("a third image", || image(&stand) == 3);

    slow_server.write_all(b"second").unwrap();
    drop(slow_server);
    let mut said = String::new();
    slow.read_to_string(&mut said).unwrap();
    assert_eq!(said, "first second");
    half.write_all(b" HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    half.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let output = gated.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains("message_stop"), "{}", show(&output));
    let upgraded = upgrade.wait_with_output().unwrap();
    assert!(upgraded.status.success(), "{}{}", show(&upgraded), stand.logs());
    let now: Vec<_> = ["root", "edge"].map(|p| stand.pid(p)).into();
    assert_eq!(now, pids, "the same processes");
    stand.wait_metering();
    stand.wait_metered(&programs::curl_messages("--http1.1", "hi", false));
}

#[test]
fn a_program_that_fails_its_preflight_is_refused() {
    let stand = Stand::started();
    let quiet = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tunnel = connect(&stand, quiet.local_addr().unwrap());
    let (mut server, _) = quiet.accept().unwrap();
    let bad = stand.scratch().join("bad");
    let not_a_program = stand.scratch().join("text");
    let hangs = stand.scratch().join("fails");
    fs::write(&bad, "#!/bin/sh\necho nonsense\n").unwrap();
    fs::write(&hangs, "#!/bin/sh\nexit 3\n").unwrap();
    fs::write(&not_a_program, "not a program").unwrap();
    for path in [&bad, &not_a_program, &hangs] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        let output = stand.halton(&["upgrade", "--binary", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(1), "{}", show(&output));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("can't take over") && said.contains("as before"), "{said}");
        assert_eq!(image(&stand), 1);
    }
    let output = stand.halton(&["upgrade", "--binary", "/nowhere/at/all"]);
    assert_eq!(output.status.code(), Some(1), "{}", show(&output));
    server.write_all(b"still there").unwrap();
    drop(server);
    let mut said = String::new();
    tunnel.read_to_string(&mut said).unwrap();
    assert_eq!(said, "still there");
    let events = String::from_utf8(stand.halton(&["events", "--json"]).stdout).unwrap();
    assert!(events.contains("upgrade_refused"), "{events}");
}

/// What is asked to end while it changes to another program ends: the new one would never hear of it.
#[test]
fn an_end_during_an_upgrade_is_not_lost() {
    let stand = Stand::started();
    let [begun, go] = ["begun", "go"].map(|name| stand.scratch().join(name));
    let slow = stand.scratch().join("slow");
    let script = format!(
        "#!/bin/sh\nif [ $1 = preflight ]; then touch {begun:?}\n\
         while [ ! -e {go:?} ]; do sleep 0.01; done; fi\nexec {:?} \"$@\"\n",
        binary()
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    for process in ["edge", "root"] {
        let pid = stand.pid(process);
        fs::write(stand.home.upgrade_request(), slow.display().to_string()).unwrap();
        stand.signal(process, Signal::USR2);
        stand.wait("its preflight", || begun.exists());
        stand.signal(process, Signal::TERM);
        fs::write(&go, "").unwrap();
        stand.wait(&format!("the end of the {process}"), || stand.pid(process) != pid);
        for file in [&begun, &go] {
            fs::remove_file(file).unwrap();
        }
    }
}

/// Connections that are refused, until `stop` is dropped.
pub(crate) fn count_refusals(
    stand: &Stand,
) -> (std::sync::mpsc::Sender<()>, JoinHandle<(u64, u64)>) {
    let edge = stand.edge;
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let counting = std::thread::spawn(move || {
        let (mut made, mut refused) = (0, 0);
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            match TcpStream::connect(edge) {
                Ok(_) => made += 1,
                Err(_) => refused += 1,
            }
        }
        (made, refused)
    });
    (stop, counting)
}

#[test]
fn a_root_that_adopted_an_edge_keeps_its_port() {
    let stand = Stand::started();
    let edge = stand.pid("edge");
    stand.kill("root");
    stand.must(&["start"]);
    stand.wait("a new root", || stand.pid("root").is_some());
    assert_eq!(stand.pid("edge"), edge, "adopted");
    let (stop, counting) = count_refusals(&stand);
    for _ in 0..3 {
        stand.kill("edge");
        stand.wait("the next edge", || stand.pid("edge").is_some());
        let output = stand.run_trusting(&programs::curl_messages("--http1.1", "hi", false));
        assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    }
    drop(stop);
    let (made, refused) = counting.join().unwrap();
    assert!(made > 0);
    assert_eq!(refused, 0, "of {made} {}", stand.logs());
}

/// The next edge accepts while the last one still has connections.
#[test]
fn edge_that_is_asked_to_end() {
    let stand = Stand::started();
    let far = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tunnel = connect(&stand, far.local_addr().unwrap());
    let (mut server, _) = far.accept().unwrap();
    let old = stand.pid("edge");
    stand.signal("edge", Signal::TERM);
    stand.wait("the next edge", || stand.pid("edge").is_some_and(|pid| Some(pid) != old));
    let output = stand.run_trusting(&programs::curl_messages("--http1.1", "hi", false));
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    tunnel.write_all(b"still there?").unwrap();
    let mut said = [0; 12];
    server.read_exact(&mut said).unwrap();
    server.write_all(b"still there!").unwrap();
    tunnel.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"still there!");
    let old = PathBuf::from(format!("/proc/{}", old.unwrap()));
    assert!(!cfg!(target_os = "linux") || old.exists(), "it was the last edge's");
    drop((tunnel, server));
    stand.wait("its end, with nothing left of it", || !old.exists());
}

#[test]
fn frozen_processes_are_ended_and_replaced() {
    let stand = Stand::started();
    let before: Vec<_> = ["edge", "daemon", "watchdog"].map(|p| (p, stand.pid(p))).into();
    let (stop, counting) = count_refusals(&stand);
    for (_, pid) in &before {
        send(pid.unwrap(), Signal::STOP);
    }
    for (process, pid) in before {
        stand.wait(&format!("another {process}"), || {
            stand.pid(process).is_some_and(|now| Some(now) != pid)
        });
    }
    drop(stop);
    assert_eq!(counting.join().unwrap().1, 0, "the port stayed bound");
    stand.wait_metering();
    let events = String::from_utf8(stand.halton(&["events", "--json"]).stdout).unwrap();
    assert_eq!(
        events.matches(r#""cause":"failed: it does not answer any more""#).count(),
        3,
        "{events}"
    );
}

/// Of a port under a storm of connections the first question may find no place in the queue.
#[cfg(target_os = "linux")]
#[test]
fn an_edge_that_answers_late_is_waited_for() {
    let stand = Stand::started();
    for process in ["root", "edge"] {
        stand.signal(process, Signal::STOP);
    }
    let upgrade = stand.command(&["upgrade"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    // Who asked has hung up, and waits in the queue still: remote end closed, ours not.
    let port = format!(":{:04X}", stand.edge.port());
    stand.wait("a question that got no answer", || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        table.lines().any(|socket| {
            let mut fields = socket.split_whitespace().skip(1);
            let (local, state) = (fields.next().unwrap(), fields.nth(1).unwrap());
            local.ends_with(&port) && state == "08"
        })
    });
    for process in ["edge", "root"] {
        stand.signal(process, Signal::CONT);
    }
    let output = upgrade.unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
}
