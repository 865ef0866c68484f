//! Bodies: off until somebody turns them on, without secrets, gone when they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::Stand;
use crate::programs::{self, GPT, Program, TEXT, show};

const KEY: &str = "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ";
const PASSWORD: &str = "hunter2hunter2";

fn ask(stand: &Stand, stream: bool) -> Value {
    let prompt = format!("[[coding=gzip slice=7]] my key is {KEY}, password={PASSWORD}");
    let program = programs::curl_messages("--http1.1", &prompt, stream);
    let before = stand.wait_rows_at_least(0).len();
    let output = stand.run(&program);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    stand.wait_rows(before + 1).pop().unwrap()
}

fn text(stand: &Stand, args: &[&str]) -> String {
    String::from_utf8(stand.must(args).stdout).unwrap()
}

/// Every file below, logs and database included.
fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn assert_nowhere(stand: &Stand, secret: &str) {
    for path in files(stand.home.path()) {
        // Sockets can't be read.
        let content = fs::read(&path).unwrap_or_default();
        let there = content.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!there, "{} holds {secret}", path.display());
    }
}

#[test]
fn bodies_are_kept_for_who_wants_them_and_without_secrets() {
    let stand = Stand::started();
    assert_eq!(ask(&stand, true)["bodies"], false, "off by default");
    assert!(!stand.home.bodies_dir().exists());
    assert_eq!(stand.json(&["bodies", "status"])["enabled"], false);

    stand.must(&["config", "set", "bodies.enabled", "true"]);
    let row = ask(&stand, true);
    let id = row["id"].as_str().unwrap();
    stand.wait("kept bodies", || stand.rows().iter().any(|r| r["id"] == id && r["bodies"] == true));
    let shown = stand.json(&["requests", "show", id]);
    let request = shown["bodies"]["request"]["text"].as_str().unwrap();
    let response = shown["bodies"]["response"]["text"].as_str().unwrap();
    assert!(
        request.contains("my key is [REDACTED:anthropic_key], password=[REDACTED:"),
        "{request}"
    );
    // As the provider streams it, without its coding.
    assert!(response.starts_with("event: message_start\ndata: {"), "{response}");
    assert!(response.contains("message_stop"), "{response}");
    assert_eq!(shown["bodies"]["request"]["redacted"]["anthropic_key"], 1);
    assert_nowhere(&stand, KEY);
    assert_nowhere(&stand, PASSWORD);

    let plain = ask(&stand, false);
    let end = plain["id"].as_str().unwrap().rsplit('-').next().unwrap().to_owned();
    stand.wait("kept bodies", || {
        text(&stand, &["requests", "show", &end, "--bodies"]).contains(TEXT)
    });
    let last = text(&stand, &["requests", "show", "last", "--bodies"]);
    assert!(last.contains("── request") && last.contains("── answer"), "{last}");
    assert!(text(&stand, &["requests"]).contains(&format!("bodies: {}", &end[end.len() - 8..])));
    for (path, mode) in [(stand.home.bodies_dir(), 0o700)]
        .into_iter()
        .chain(files(&stand.home.bodies_dir()).into_iter().map(|path| (path, 0o600)))
    {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{path:?}");
    }
    assert!(text(&stand, &["status"]).contains("bodies are kept"));

    let off = text(&stand, &["config", "set", "bodies.enabled", "false"]);
    assert!(off.contains("bodies purge"), "{off}");
    assert_eq!(ask(&stand, true)["bodies"], false);
    assert_eq!(files(&stand.home.bodies_dir()).len(), 2, "nothing came after it was turned off");
    assert!(text(&stand, &["status"]).contains("not kept; there are those of 2 requests"));
    stand.must(&["bodies", "purge"]);
    assert!(stand.rows().iter().all(|row| row["bodies"] == false));
}

/// Runs it with bodies on; what was kept of its `rows` requests, as (request, answer).
fn kept(stand: &Stand, program: &Program, rows: usize) -> Vec<(String, String)> {
    let before = stand.wait_rows_at_least(0).len();
    let output = stand.run(program);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    let rows = stand.wait_rows(before + rows).split_off(before);
    let ids: Vec<&str> = rows.iter().filter_map(|row| row["id"].as_str()).collect();
    stand.wait("kept bodies", || {
        let kept = |id: &str| stand.rows().iter().any(|r| r["id"] == id && r["bodies"] == true);
        ids.iter().all(|id| kept(id))
    });
    let text = |shown: &Value, which: &str| {
        let body = &shown["bodies"][which];
        assert_eq!(
            body["redacted"]["anthropic_key"].as_u64().unwrap_or(0),
            u64::from(which == "request")
        );
        body["text"].as_str().unwrap_or_default().to_owned()
    };
    ids.iter()
        .map(|id| {
            let shown = stand.json(&["requests", "show", id]);
            (text(&shown, "request"), text(&shown, "response"))
        })
        .collect()
}

#[test]
fn bodies_of_a_websocket_and_of_amazons_event_streams() {
    let stand = Stand::started();
    stand.must(&["config", "set", "bodies.enabled", "true"]);
    let prompt = format!("my key is {KEY}, password={PASSWORD}");
    let redacted = "my key is [REDACTED:anthropic_key], password=[REDACTED:";

    // Compressed, and one of the messages in fragments.
    let socket = programs::python("sockets.py", &["websockets", GPT, &prompt]);
    for (request, response) in kept(&stand, &socket, 3) {
        assert!(request.contains("response.create") && request.contains(redacted), "{request}");
        let lines: Vec<Value> =
            response.lines().map(|line| serde_json::from_str(line).expect("a message")).collect();
        assert_eq!(lines.first().map(|line| &line["type"]), Some(&json!("response.created")));
        assert_eq!(lines.last().map(|line| &line["type"]), Some(&json!("response.completed")));
        let said: String = lines.iter().filter_map(|line| line["delta"].as_str()).collect();
        assert_eq!(said, TEXT);
    }

    // What is not text is kept as if it were.
    let model = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/\
        eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
    let body = json!({ "messages": [{ "role": "user", "content": [{ "text": prompt }] }] });
    for (action, last) in
        [("converse-stream", "event: metadata"), ("invoke-with-response-stream", "message_stop")]
    {
        let url = format!("{model}/{action}");
        let ask =
            programs::curl(&["-sS", "-o", "/dev/null", "--data-raw", &body.to_string(), &url]);
        for (request, response) in kept(&stand, &ask, 1) {
            assert!(request.contains(redacted), "{request}");
            assert!(response.starts_with("event: ") && response.contains(last), "{response}");
            assert!(response.contains("Good "), "{response}");
        }
    }
    assert_nowhere(&stand, KEY);
    assert_nowhere(&stand, PASSWORD);
}

#[test]
fn who_turns_them_off_is_obeyed_though_the_rest_of_the_file_is_wrong() {
    let stand = Stand::new();
    stand.configure(stand.origin.addr(), "[bodies]\nenabled = true\n");
    stand.must(&["start"]);
    stand.wait_metering();
    ask(&stand, true);
    stand.wait("kept bodies", || stand.home.bodies_dir().exists());
    stand.configure(stand.origin.addr(), "[bodies]\nenabled = false\nmax_body_kb = \"x\"\n");
    stand.signal("daemon", rustix::process::Signal::HUP);
    stand.wait("the end of it", || stand.json(&["bodies", "status"])["daemon"]["enabled"] == false);
    let before = files(&stand.home.bodies_dir()).len();
    let output = stand.run(&programs::curl_messages("--http1.1", "hi", true));
    assert!(output.status.success(), "{}", show(&output));
    // Commands refuse a file with mistakes.
    stand.configure(stand.origin.addr(), "[bodies]\nenabled = false\n");
    stand.wait_rows(2);
    assert_eq!(files(&stand.home.bodies_dir()).len(), before);
}
