//! What our CA's key is good for: the metered hosts, and nothing else, in every TLS library.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use halton_meter::home::PidLock;
use serde_json::Value;

use crate::harness::Stand;
use crate::origin::{Origin, Root, Setup};
use crate::programs::{self, Program, TEXT, clean, full, python, script, show};

/// A server whose certificates are signed by our CA's key, for whatever name it is asked.
fn thief(stand: &Stand) -> Origin {
    stand.must(&["ca", "path"]);
    let read = |path| std::fs::read_to_string(path).unwrap();
    let root = Root::load(&read(stand.home.ca_cert()), &read(stand.home.ca_key()));
    Origin::with(&Setup { alpn: vec!["http/1.1"], ..Setup::default() }, &root)
}

fn assert_constrained(name: &str, reasons: &[&str], client: impl Fn(&str, u16, &str) -> Program) {
    let stand = Stand::new();
    let thief = thief(&stand);
    let ca = stand.home.ca_cert().display().to_string();
    for (host, good) in [
        ("api.anthropic.com", true),
        ("api.openai.com", true),
        ("www.example.org", false),
        ("anthropic.com", false),
    ] {
        let program = client(host, thief.addr().port(), &ca);
        let mut command = Command::new(&program.argv[0]);
        clean(&mut command, stand.scratch());
        let output = command.args(&program.argv[1..]).output().unwrap();
        let text = show(&output);
        if good {
            assert!(String::from_utf8_lossy(&output.stdout).contains("ok"), "{name} {host} {text}");
        } else {
            assert!(reasons.iter().any(|r| text.contains(r)), "{name} {host} {text}");
        }
    }
}

#[test]
fn curl_refuses_other_hosts() {
    assert_constrained("curl", &["permitted subtree violation"], |host, port, ca| {
        Program::new(["curl", "--silent", "--show-error", "--cacert", ca, "--resolve"])
            .arg(format!("{host}:{port}:127.0.0.1"))
            .arg(format!("https://{host}:{port}/plain"))
            .arg("--output")
            .arg("/dev/null")
            .arg("--write-out")
            .arg("ok %{ssl_verify_result}")
    });
}

#[test]
fn python_refuses_other_hosts() {
    assert_constrained("python", &["permitted subtree violation"], |host, port, ca| {
        python("tls_get.py", &[host, &port.to_string(), ca])
    });
}

#[test]
fn node_refuses_other_hosts() {
    let reasons = ["permitted subtree violation", "PERMITTED_VIOLATION"];
    assert_constrained("node", &reasons, |host, port, ca| {
        Program::new(["node".to_owned(), script("tls_get.mjs")])
            .arg(host)
            .arg(port.to_string())
            .arg(ca)
    });
}

#[test]
fn go_refuses_other_hosts() {
    // tools/clients.sh says so too: without Go there is nothing to ask.
    let Some(program) = full("tls_get.go", "program") else { return };
    assert_constrained("go", &["is not permitted by any constraint"], |host, port, ca| {
        Program::new([program.clone()]).arg(host).arg(port.to_string()).arg(ca)
    });
}

#[test]
fn key_and_home_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let stand = Stand::new();
    stand.must(&["ca", "path"]);
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&stand.home.ca_key()), 0o600);
    assert_eq!(mode(&stand.home.ca_dir()), 0o700);
    assert_eq!(mode(stand.home.path()), 0o700);
}

/// A program that read its roots when there was only what is in `bundle`, asking for an answer.
fn ask(stand: &Stand, bundle: &Path) {
    let program = programs::curl_messages("--http1.1", "hi", false);
    let mut command = Command::new(&program.argv[0]);
    command.args(&program.argv[1..]);
    clean(&mut command, stand.scratch());
    command.env("https_proxy", format!("http://{}", stand.edge)).env("CURL_CA_BUNDLE", bundle);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
}

#[test]
fn a_rotation_fails_nobody_and_waits_for_who_knows_only_the_old_one() {
    let stand = Stand::started();
    let copy = |name: &str| -> PathBuf {
        let to = stand.scratch().join(name);
        fs::copy(stand.home.ca_bundle(), &to).unwrap();
        to
    };
    let certificate = || fs::read(stand.home.ca_cert()).unwrap();
    let (before, old) = (copy("before.pem"), certificate());
    let mut early = Command::new("cat")
        .env("HTTPS_PROXY", format!("http://{}", stand.edge))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let rotate = || stand.json(&["ca", "rotate"]);
    let state = rotate();
    assert_eq!(
        (&state["state"], &state["taken_over"]),
        (&"waiting".into(), &Value::Null),
        "{state:#}"
    );
    let expected = serde_json::json!([{ "pid": early.id(), "name": "cat" }]);
    assert_eq!(state["programs"], expected, "{state:#}");
    let between = copy("between.pem");
    ask(&stand, &before);
    ask(&stand, &between);
    // Nothing is lost by a restart, and doctor says where it stands.
    stand.must(&["restart"]);
    stand.wait_metering();
    ask(&stand, &before);
    let text = String::from_utf8(stand.must(&["doctor"]).stdout).unwrap();
    assert!(text.contains("a next CA waits"), "{text}");
    assert_eq!((rotate()["state"].as_str(), certificate()), (Some("waiting"), old.clone()));

    early.kill().unwrap();
    early.wait().unwrap();
    let state = rotate();
    assert_eq!(state["state"], "done", "{state:#}{}", stand.logs());
    assert_eq!(state["taken_over"], true, "{state:#}{}", stand.logs());
    assert_ne!(certificate(), old);
    assert!(!stand.home.next_ca_key().exists() && !stand.home.next_ca_cert().exists());
    ask(&stand, &between);
    ask(&stand, &copy("after.pem"));
    // Each of them was metered: nobody refused us, then or now.
    assert_eq!(stand.wait_rows(5).len(), 5);
    assert_eq!(stand.json(&["status"])["bypass"], serde_json::json!([]));
    assert_eq!(stand.coverage()["passed_connections"], 0);
    stand.must(&["doctor"]);
}

#[test]
fn at_once_means_at_once() {
    let stand = Stand::new();
    stand.must(&["ca", "bundle"]);
    let mut early = Command::new("cat")
        .env("HTTPS_PROXY", format!("http://{}", stand.edge))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let old = fs::read(stand.home.ca_cert()).unwrap();
    let state = stand.json(&["ca", "rotate", "--now"]);
    early.kill().unwrap();
    early.wait().unwrap();
    assert_eq!(state["state"], "done", "{state:#}");
    assert_ne!(fs::read(stand.home.ca_cert()).unwrap(), old);
    let bundle = fs::read_to_string(stand.home.ca_bundle()).unwrap();
    let inside = |pem: &[u8]| bundle.contains(String::from_utf8_lossy(pem).trim());
    assert!(!inside(&old) && inside(&fs::read(stand.home.ca_cert()).unwrap()));
}

/// The daemon is played by the test, with its lock and its API: it goes on naming a CA that is no more.
#[test]
fn a_daemon_that_has_not_taken_the_new_ca_over_is_told_of() {
    let stand = Stand::new();
    stand.must(&["ca", "bundle"]);
    fs::write(stand.home.token_file(), "token").unwrap();
    // The daemon is told to read it, by a signal.
    let _told = signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::default()).unwrap();
    let _lock = PidLock::acquire(&stand.home.pid_file("daemon")).unwrap().unwrap();
    let api = TcpListener::bind(stand.api).unwrap();
    std::thread::spawn(move || {
        for mut stream in api.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let body = format!(r#"{{"pid":{},"authority":"of-before"}}"#, std::process::id());
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
            let _ = write!(stream, "{head}Connection: close\r\n\r\n{body}");
        }
    });
    let output = stand.must(&["ca", "rotate", "--now", "--json"]);
    let state: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&state["state"], &state["taken_over"]), (&"done".into(), &false.into()));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("has not taken the new CA over"), "{said}");
}
