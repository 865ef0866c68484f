//! A client that won't have our certificate: it fails once, then passes raw; the user can see that,
//! and end it.

use std::process::{Command, Output};

use crate::harness::Stand;
use crate::programs::{self, TEXT, clean, show};

/// curl through the edge, with the origin's root as all that it believes.
fn pinned(stand: &Stand) -> Output {
    let program = programs::curl_messages("--http1.1", "hi", false);
    let mut command = Command::new(&program.argv[0]);
    command.args(&program.argv[1..]);
    clean(&mut command, stand.scratch());
    command.env("https_proxy", format!("http://{}", stand.edge));
    command.env("CURL_CA_BUNDLE", stand.root_pem()).env("SSL_CERT_FILE", stand.root_pem());
    command.output().unwrap()
}

/// `curl: (60)`: the certificate was not accepted.
const REFUSED: Option<i32> = Some(60);

fn assert_refuses_then_passes(stand: &Stand) {
    let first = pinned(stand);
    assert_eq!(first.status.code(), REFUSED, "{}{}", show(&first), stand.logs());
    let mut entries = serde_json::Value::Null;
    stand.wait("an entry on the list", || {
        entries = stand.json(&["status"])["bypass"].clone();
        entries.as_array().is_some_and(|list| list.len() == 1)
    });
    assert_eq!(entries[0]["host"], "api.anthropic.com", "{entries}");
    assert_eq!(entries[0]["program"], "curl", "{entries}");
    assert!(entries[0]["until"].is_string(), "{entries}");
    let next = pinned(stand);
    assert!(next.status.success(), "{}{}", show(&next), stand.logs());
    assert!(String::from_utf8_lossy(&next.stdout).contains(TEXT), "{}", show(&next));
}

#[test]
fn a_client_that_refuses_us_fails_once_is_shown_and_can_be_let_try_again() {
    let stand = Stand::new();
    stand.must(&["start"]);
    stand.wait_metering();
    assert_refuses_then_passes(&stand);
    let text = String::from_utf8(stand.must(&["status"]).stdout).unwrap();
    assert!(text.contains("api.anthropic.com by curl") && text.contains("ca trust"), "{text}");
    stand.wait("coverage", || stand.coverage()["passed_connections"] == 1);
    assert_eq!(stand.coverage()["passed_by_reason"]["declined_bypassed"], 1);

    let clear = |token: &str, more: &[&str]| {
        let mut command = Command::new("curl");
        clean(&mut command, stand.scratch());
        command.args(["--silent", "--request", "DELETE", "--header"]);
        command.arg(format!("Authorization: Bearer {token}")).args(more);
        let output = command.arg(format!("http://{}/v1/bypass", stand.api)).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let token = std::fs::read_to_string(stand.home.token_file()).unwrap();
    // Neither a stranger nor a web page clears it.
    assert!(clear("0123", &[]).contains("unauthorized"));
    let page = ["--header", "Origin: https://evil.example"];
    assert!(clear(token.trim(), &page).contains("foreign-origin"));
    assert_eq!(stand.json(&["status"])["bypass"].as_array().map(Vec::len), Some(1));

    assert_eq!(clear(token.trim(), &[]), r#"{"cleared":1}"#);
    assert_eq!(stand.json(&["status"])["bypass"], serde_json::json!([]));
    // Intercepted again, and the next stay is noted again.
    assert_refuses_then_passes(&stand);

    // A restart is another way to try again.
    stand.must(&["restart"]);
    stand.wait_metering();
    let again = pinned(&stand);
    assert_eq!(again.status.code(), REFUSED, "{}{}", show(&again), stand.logs());
}
