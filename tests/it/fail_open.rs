//! The failure table of docs/architecture.md, as far as it can be made to happen from outside:
//! whatever is done to us, the user's request goes through.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::expected::assert_row;
use crate::harness::{DEADLINE, Stand, send};
use crate::origin::{Leaf, Origin, Root, Setup, Transport};
use crate::programs::{self, CLAUDE, Program, TEXT, answer, show};
use crate::wire::Wire;

fn hello() -> Program {
    programs::curl_messages("--http1.1", "hi", false)
}

/// The request works for a client that trusts the origin, metered or not.
fn assert_served(stand: &Stand, when: &str) {
    let output = stand.run_trusting(&hello());
    let ok = output.status.success() && String::from_utf8_lossy(&output.stdout).contains(TEXT);
    assert!(ok, "{when}: {}{}", show(&output), stand.logs());
}

/// The same for a client at the edge's port, without a command of ours that mends things first.
/// Whether it was metered.
fn assert_passes(stand: &Stand, when: &str) -> bool {
    let mut wire = Wire::connect(stand).unwrap_or_else(|e| panic!("{when}: {e}{}", stand.logs()));
    wire.get();
    wire.is_metered()
}

#[test]
fn stopped_by_the_user() {
    let stand = Stand::new();
    stand.must(&["start"]);
    assert_served(&stand, "metering");
    stand.wait_rows(1);
    stand.must(&["stop"]);
    assert!(stand.pid("edge").is_some(), "stop took the edge down");
    assert!(stand.pid("daemon").is_none());
    let output = stand.run_trusting(&hello());
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not metered"), "{}", show(&output));
    // Known without a daemon: the report reads the edge's spool.
    stand.wait("coverage", || stand.coverage()["passed_connections"] == 1);
    assert_eq!(stand.coverage()["metered_requests"], 1);
    assert_eq!(stand.json(&["status"])["state"], "stopped");
    stand.must(&["start"]);
    stand.wait_metering();
    assert_served(&stand, "started again");
    stand.wait_rows(2);
    assert_eq!(
        stand.coverage()["passed_connections"],
        1,
        "the first is metered, the other counted once"
    );
}

#[test]
fn daemon_that_was_never_started() {
    let stand = Stand::new();
    fs::write(stand.home.user_stopped(), "").unwrap();
    assert_served(&stand, "never started");
    assert!(stand.pid("daemon").is_none());
    assert!(!stand.home.ledger_file().exists() || stand.rows().is_empty());
}

#[test]
fn daemon_killed_over_and_over() {
    let stand = Stand::new();
    stand.must(&["start"]);
    for round in 0..8 {
        if let Some(pid) = stand.pid("daemon") {
            send(pid, Signal::KILL);
        }
        // At once, in whatever state the edge's view of the daemon is. (`run` would first wait for the next one.)
        assert_passes(&stand, &format!("round {round}"));
        if round % 2 == 1 {
            stand.wait_metering();
        }
    }
    stand.wait_metering();
    stand.wait_metered(&hello());
}

#[test]
fn daemon_killed_in_mid_response() {
    let stand = Stand::started();
    let program = programs::curl_messages("--http1.1", "[[gate]]", true);
    let mut child = stand.run_command(&program).stdout(Stdio::null()).spawn().unwrap();
    stand.origin.wait_at_gate(1, DEADLINE);
    stand.wait("open row", || {
        stand.rows().iter().any(|r| r["completeness"] == "open" && !r["tokens"]["input"].is_null())
    });
    stand.kill("daemon");
    assert!(!child.wait().unwrap().success(), "that one ends as the network would end it");
    assert_served(&stand, "the next one");
    stand.wait_metering();
    let rows = stand.wait_rows_at_least(1);
    assert_eq!(rows[0]["completeness"], "interrupted", "{:#}", rows[0]);
    assert_eq!(rows[0]["model_requested"], CLAUDE);
    // What the stream had told by then is not lost with it.
    assert!(rows[0]["tokens"]["input"].as_u64() > Some(0), "{:#}", rows[0]);
    assert!(rows[0]["cost_nanousd"].as_i64() > Some(0), "{:#}", rows[0]);
    assert_eq!((&rows[0]["status"], &rows[0]["model"]), (&200.into(), &CLAUDE.into()));
}

#[test]
fn frozen_daemon() {
    let stand = Stand::started();
    // Who would end it, and so end the waiting for it.
    stand.signal("root", Signal::STOP);
    assert!(assert_passes(&stand, "well"), "the edge knows the daemon as well");
    stand.signal("daemon", Signal::STOP);
    // The first request pays the edge's deadline, the others know.
    assert!(!assert_passes(&stand, "just frozen"));
    assert!(!assert_passes(&stand, "known to be frozen"));
    stand.signal("root", Signal::CONT);
    assert_served(&stand, "by way of run");
    if let Some(pid) = stand.pid("daemon") {
        send(pid, Signal::CONT);
    }
    stand.wait_metering();
    stand.wait_metered(&hello());
}

#[test]
fn edge_killed() {
    let stand = Stand::new();
    stand.must(&["start"]);
    for round in 0..5 {
        if let Some(pid) = stand.pid("edge") {
            send(pid, Signal::KILL);
        }
        // The port stays bound by the root: this one queues, it is not refused.
        let tcp = TcpStream::connect(stand.edge);
        assert!(tcp.is_ok(), "round {round}: {tcp:?}{}", stand.logs());
        assert_served(&stand, &format!("round {round}"));
    }
}

/// Ends with the test.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        send(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// A home in which nobody can have a lock; the service manager starts the root.
#[test]
fn home_that_cannot_be_written() {
    let stand = Stand::new();
    stand.home.create().unwrap();
    for process in ["root", "edge"] {
        fs::create_dir(stand.home.pid_file(process)).unwrap();
    }
    let _root = Service(stand.command(&["supervise", "--edge-only"]).spawn().unwrap());
    let edge = || {
        let mut answer = String::new();
        let mut tcp = TcpStream::connect(stand.edge).ok()?;
        tcp.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        tcp.read_to_string(&mut answer).ok()?;
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        u32::try_from(body["pid"].as_u64()?).ok()
    };
    stand.wait("an edge", || edge().is_some());
    let first = edge().unwrap();
    send(first, Signal::KILL);
    stand.wait("the next edge", || edge().is_some_and(|pid| pid != first));
    // The root lets it serve, although it sees no lock.
    stand.wait("the root's consent", || {
        let events = fs::read_to_string(stand.home.journal_file()).unwrap_or_default();
        let mut events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.any(|e| e["child"] == "edge" && e["event"] == "ready" && e["generation"] == 2)
    });
}

#[test]
fn root_killed() {
    let stand = Stand::started();
    let mut open = Wire::connect(&stand).unwrap();
    open.get();
    let others = ["edge", "daemon", "watchdog"].map(|p| stand.pid(p));
    stand.kill("root");
    // No command of ours, which would mend it.
    open.get();
    let metered =
        (0..3).filter(|round| assert_passes(&stand, &format!("root gone, {round}"))).count();
    assert!(metered > 0, "metered as before");
    assert!(stand.pid("root").is_none(), "somebody mended it");
    stand.must(&["start"]);
    stand.wait("a new root", || stand.pid("root").is_some());
    open.get();
    assert_served(&stand, "root back");
    let adopted = ["edge", "daemon", "watchdog"].map(|p| stand.pid(p));
    assert_eq!(others, adopted, "the new root takes what lives");
}

#[test]
fn root_suspended() {
    let stand = Stand::started();
    let (root, edge) = (stand.pid("root"), stand.pid("edge"));
    stand.signal("root", Signal::STOP);
    stand.kill("edge");
    stand.must(&["start"]);
    assert_eq!(stand.pid("root"), root, "it goes on");
    assert_ne!(stand.pid("edge"), edge);
    assert_served(&stand, "it goes on");
    for command in [&["stop"][..], &["edge", "stop"]] {
        stand.signal("root", Signal::STOP);
        stand.must(command);
    }
    assert_eq!(stand.pid("root"), None);
}

#[test]
fn control_socket_removed() {
    let stand = Stand::started();
    fs::remove_file(stand.home.control_socket()).unwrap();
    assert_served(&stand, "no control socket");
    stand.wait("a new control socket", || stand.home.control_socket().exists());
    stand.wait_metering();
    stand.wait_metered(&hello());
    let actors = stand.json(&["status"])["actors"]["actors"].clone();
    let tap = actors.as_array().unwrap().iter().find(|a| a["id"] == "meter.tap");
    assert_eq!(tap.expect("a tap")["restarts"], 0, "{actors:#}");
}

#[test]
fn garbage_on_the_edge_port() {
    let stand = Stand::new();
    stand.must(&["start"]);
    let long = [b"GET http://x/ HTTP/1.1\r\nA: ".as_slice(), &[b'a'; 100_000]].concat();
    let inputs: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"CONNECT :::: HTTP/1.1\r\n\r\n",
        b"CONNECT api.anthropic.com:99999 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &long,
    ];
    for input in inputs {
        let mut tcp = TcpStream::connect(stand.edge).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        let _ = tcp.write_all(input);
        let _ = tcp.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        // A reset is an answer too; waiting for ever is not.
        if let Err(e) = tcp.read_to_end(&mut reply) {
            assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "{input:?}");
        }
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1."), "{reply}");
        assert!(!reply.starts_with("HTTP/1.1 200"), "{reply}");
    }
    // Half a head, and then silence, on many connections: nobody else waits for them.
    let idle: Vec<_> = (0..50)
        .map(|_| {
            let mut tcp = TcpStream::connect(stand.edge).unwrap();
            tcp.write_all(b"CONNECT api.").unwrap();
            tcp
        })
        .collect();
    assert_served(&stand, "garbage around");
    drop(idle);
}

#[test]
fn connect_to_ourselves() {
    let stand = Stand::new();
    stand.must(&["start"]);
    for host in ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"] {
        let mut tcp = TcpStream::connect(stand.edge).unwrap();
        tcp.set_read_timeout(Some(DEADLINE)).unwrap();
        let port = stand.edge.port();
        write!(tcp, "CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n").unwrap();
        let mut reply = [0; 12];
        tcp.read_exact(&mut reply).unwrap();
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!(text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5"), "{host}: {text}");
    }
    assert_served(&stand, "after loops");
}

/// The client meets the origin's own certificate and judges it itself.
fn assert_own_certificate(leaf: Leaf, issuer: &str, reason: &str) {
    let stand = Stand::with(&Setup { leaf, ..Setup::default() });
    stand.must(&["start"]);
    stand.wait_metering();
    let output = stand.run_trusting(&hello());
    assert_eq!(output.status.code(), Some(60), "curl refuses it: {}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{}", show(&output));
    let output = stand.run_trusting(&hello().arg("--insecure").arg("--verbose"));
    assert!(output.status.success(), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains(issuer), "{}", show(&output));
    stand.wait("coverage", || stand.coverage()["passed_connections"].as_u64() >= Some(1));
}

#[test]
fn origin_with_an_expired_certificate() {
    assert_own_certificate(Leaf::Expired, "CN=Test Origin Root", "expired");
}

#[test]
fn origin_with_a_foreign_certificate() {
    assert_own_certificate(Leaf::Foreign, "CN=Nobody Trusts This Root", "certificate");
}

#[test]
fn origin_that_wants_a_client_certificate() {
    let root = Root::new("Test Origin Root");
    let setup = Setup { client_auth: true, ..Setup::default() };
    let stand = Stand::before(Origin::with(&setup, &root));
    let (cert, key) = root.client();
    let (cert_file, key_file) = (stand.scratch().join("c.pem"), stand.scratch().join("k.pem"));
    fs::write(&cert_file, cert).unwrap();
    fs::write(&key_file, key).unwrap();
    let program = hello()
        .arg("--cert")
        .arg(cert_file.display().to_string())
        .arg("--key")
        .arg(key_file.display().to_string());
    stand.must(&["start"]);
    stand.wait_metering();
    let output = stand.run_trusting(&program);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
}

#[test]
fn origin_that_speaks_no_tls_or_is_not_there() {
    let plain = Stand::with(&Setup { transport: Transport::Plain, ..Setup::default() });
    let output = plain.run_trusting(&hello());
    assert!(!output.status.success() && output.status.code() != Some(28), "{}", show(&output));

    let stand = Stand::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    stand.configure(nobody, "");
    let started = Instant::now();
    let output = stand.run_trusting(&hello());
    assert!(!output.status.success() && output.status.code() != Some(28), "{}", show(&output));
    assert!(started.elapsed() < Duration::from_secs(30), "a refused connection took its time");
}

#[test]
fn origin_that_says_nothing() {
    let stand = Stand::new();
    let setup = Setup { transport: Transport::Stall, ..Setup::default() };
    let silent = Origin::with(&setup, &Root::new("Unused"));
    let origins = [("api.openai.com", silent.addr()), ("*", stand.origin.addr())];
    stand.configure_hosts(&origins, "");
    stand.must(&["start"]);
    stand.wait_metering();
    // Held up by their provider; they hold up nobody else.
    let url = "https://api.openai.com/v1/models";
    let mut waiting: Vec<_> = (0..10)
        .map(|_| stand.trusting(&programs::curl(&[url])).stderr(Stdio::null()).spawn().unwrap())
        .collect();
    let output = stand.run(&hello());
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(waiting.iter_mut().all(|c| c.try_wait().unwrap().is_none()), "ended by us");
    for mut child in waiting {
        send(child.id(), Signal::TERM);
        child.wait().unwrap();
    }
}

#[test]
fn corrupt_database_is_set_aside() {
    let stand = Stand::new();
    let garbage = vec![0x5a; 64 * 1024];
    fs::write(stand.home.ledger_file(), &garbage).unwrap();
    stand.must(&["start"]);
    let output = stand.run(&hello());
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    let rows = stand.wait_rows(1);
    assert_row(&rows[0], &stand.origin.served()[0], "h1");
    let kept: Vec<_> = fs::read_dir(stand.home.path())
        .unwrap()
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().starts_with("db.sqlite.corrupt"))
        .collect();
    assert_eq!(kept.len(), 1, "set aside, not deleted");
    assert_eq!(fs::read(kept[0].path()).unwrap(), garbage);
}

#[test]
fn edge_port_held_by_another_program() {
    let stand = Stand::new();
    let _foreign = TcpListener::bind(stand.edge).unwrap();
    let output = stand.run(&Program::new(["sh", "-c", "echo proxy=$HTTPS_PROXY; exit 7"]));
    assert_eq!(output.status.code(), Some(7), "{}", show(&output));
    assert_eq!(output.stdout, b"proxy=\n", "{}", show(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&stand.edge.port().to_string()), "{said}");
    let own = std::process::id().to_string();
    assert!(said.contains(&own), "says which program (pid {own}): {said}");
    assert_eq!(stand.halton(&["start"]).status.code(), Some(69));
}

/// As a client's connection that has ended keeps it, for a minute.
#[test]
fn edge_port_held_by_nobody_who_listens() {
    use rustix::net::{self, AddressFamily, SocketType};
    let stand = Stand::new();
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &stand.edge).unwrap();
    let output = stand.run(&Program::new(["sh", "-c", "echo proxy=$HTTPS_PROXY; exit 7"]));
    assert_eq!(output.status.code(), Some(7), "{}", show(&output));
    assert_eq!(output.stdout, b"proxy=\n", "{}", show(&output));
    let passes = "passes by itself within a minute";
    assert!(String::from_utf8_lossy(&output.stderr).contains(passes), "{}", show(&output));
    assert!(show(&stand.halton(&["doctor"])).contains(passes));
    // What was started has the port with its next try.
    drop(socket);
    stand.wait_metering();
}

#[test]
fn home_that_cannot_be_made() {
    let stand = Stand::new();
    for home in ["/proc/halton-meter", "/dev/null/halton-meter"] {
        let mut command = stand.command(&["run", "--", "sh", "-c", "echo fine; exit 3"]);
        let output = command.env("HALTON_METER_HOME", home).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{home} {}", show(&output));
        assert_eq!(output.stdout, b"fine\n", "{home}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("not metered"),
            "{}",
            show(&output)
        );
        let start = stand.command(&["start"]).env("HALTON_METER_HOME", home).output().unwrap();
        assert!([73, 77].contains(&start.status.code().unwrap()), "{}", show(&start));
    }
}

#[test]
fn exit_codes_are_the_commands_own() {
    let stand = Stand::new();
    let code = |argv: &[&str]| stand.run(&Program::new(argv.iter().copied())).status.code();
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 42"]), Some(42));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(128 + 9));
    assert_eq!(code(&["no-such-program-here"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    assert_eq!(stand.halton(&["run"]).status.code(), Some(2));
    assert_eq!(stand.halton(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn plain_http_goes_through_the_proxy() {
    let stand = Stand::new();
    let plain = Origin::with(
        &Setup { transport: Transport::Plain, ..Setup::default() },
        &Root::new("Unused"),
    );
    let url = format!("http://127.0.0.1:{}/plain", plain.addr().port());
    // NO_PROXY holds loopback: ask for the proxy by name.
    let proxy = format!("http://{}", stand.edge);
    stand.must(&["start"]);
    let output = stand.run(&programs::curl(&["--noproxy", "", "--proxy", &proxy, &url]));
    assert_eq!(output.stdout, b"plain answer\n", "{}{}", show(&output), stand.logs());
    let request = &plain.requests()[0];
    assert_eq!(request.target, "/plain", "origin form, as a proxy must send it");
    assert!(request.header("proxy-connection").is_none());
}

#[test]
fn second_run_reuses_what_runs() {
    let stand = Stand::new();
    assert!(stand.run_trusting(&hello()).status.success());
    let pids: Vec<_> = ["root", "edge", "daemon", "watchdog"].map(|p| stand.pid(p)).into();
    assert!(pids.iter().all(Option::is_some), "{pids:?}");
    assert!(stand.run(&hello()).status.success());
    let again: Vec<_> = ["root", "edge", "daemon", "watchdog"].map(|p| stand.pid(p)).into();
    assert_eq!(pids, again);
    assert_eq!(answer(&stand.run(&hello()))["type"], "message");
    stand.must(&["restart"]);
    stand.wait_metering();
    assert_ne!(stand.pid("daemon"), pids[2]);
    assert_eq!(stand.pid("edge"), pids[1], "restart leaves the edge alone");
    stand.must(&["edge", "stop"]);
    assert!(["root", "edge", "daemon", "watchdog"].iter().all(|p| stand.pid(p).is_none()));
}
