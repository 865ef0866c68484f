//! What our CA's key is good for: the metered hosts, and nothing else, in every TLS library.

use std::process::Command;

use crate::harness::Stand;
use crate::origin::{Origin, Root, Setup};
use crate::programs::{Program, clean, full, python, script, show};

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
