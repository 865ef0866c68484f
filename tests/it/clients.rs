//! Real clients through a real process tree: the client gets the origin's answer, the origin gets
//! the client's bytes, the ledger gets the origin's numbers.

use std::os::unix::process::ExitStatusExt;
use std::process::Output;

use serde_json::json;

use crate::clis;
use crate::expected::assert_row;
use crate::harness::Stand;
use crate::origin::{Proto, Request, Setup};
use crate::programs::{self, CLAUDE, GEMINI, GPT, Program, TEXT, answer, show};

/// Runs the program directly and through the product; returns both outputs and the model requests
/// that the origin saw each time.
fn both_ways(stand: &Stand, program: &Program) -> [(Output, Vec<Request>); 2] {
    let model_requests = || {
        let mut all = stand.origin.requests();
        all.retain(|r| r.method == "POST" && !r.path().starts_with("/api/"));
        all
    };
    let home = stand.scratch();
    stand.origin.forget();
    let direct = program.direct(stand.origin.blind_proxy(), &stand.root_pem(), home);
    let direct = (direct, model_requests());
    stand.origin.forget();
    stand.must(&["start"]);
    let metered = stand.run(program);
    assert!(metered.status.success(), "{}{}", show(&metered), stand.logs());
    [direct, (metered, model_requests())]
}

/// HTTP/1.1: the very bytes. HTTP/2: the same fields in the same order, the same body.
fn assert_same_bytes(direct: &[Request], metered: &[Request]) {
    assert_eq!(direct.len(), metered.len());
    for (d, m) in direct.iter().zip(metered) {
        assert_eq!(d.proto, m.proto);
        if d.proto == Proto::H1 {
            assert_eq!(String::from_utf8_lossy(&d.raw), String::from_utf8_lossy(&m.raw));
        }
        assert_eq!((&d.method, &d.target, &d.headers), (&m.method, &m.target, &m.headers));
        assert_eq!(d.body, m.body);
    }
}

/// The last `n` rows are those of the answers that were served, in order.
fn assert_ledger(stand: &Stand, total: usize, protocol: &str) {
    let served = stand.origin.served();
    let rows = stand.wait_rows(total);
    for (row, served) in rows[total - served.len()..].iter().zip(&served) {
        assert_row(row, served, protocol);
    }
}

/// Every mode and coding of one SDK.
pub fn sdk(program: impl Fn(&str, &str) -> Program, modes: &[&str], prompts: &[&str]) {
    let stand = Stand::new();
    let mut total = 0;
    for mode in modes {
        for prompt in prompts {
            let [direct, metered] = both_ways(&stand, &program(mode, prompt));
            assert_same_bytes(&direct.1, &metered.1);
            let text = &answer(&metered.0)["text"];
            assert_eq!(text, TEXT, "{mode} {prompt} {}", show(&metered.0));
            total += stand.origin.served().len();
            assert_ledger(&stand, total, "h1");
        }
    }
}

#[test]
fn python_anthropic() {
    sdk(
        |mode, prompt| programs::python("anthropic_sdk.py", &[mode, CLAUDE, prompt]),
        &["json", "stream"],
        &["hi", "[[coding=gzip slice=11 thinking search]]"],
    );
}

#[test]
fn python_openai() {
    sdk(
        |mode, prompt| programs::python("openai_sdk.py", &[mode, GPT, prompt]),
        &["chat", "chat-stream", "chat-stream-usage", "responses", "responses-stream"],
        &["[[coding=gzip slice=11 thinking]]"],
    );
}

#[test]
fn python_google_genai() {
    sdk(
        |mode, prompt| programs::python("genai_sdk.py", &[mode, GEMINI, prompt]),
        &["json", "stream"],
        &["hi", "[[coding=deflate slice=11 thinking]]"],
    );
}

#[test]
fn node_anthropic() {
    sdk(
        |mode, prompt| programs::node("anthropic_sdk.mjs", &[mode, CLAUDE, prompt]),
        &["json", "stream"],
        &["hi", "[[coding=br slice=11 thinking]]"],
    );
}

#[test]
fn claude_code() {
    let stand = Stand::new();
    let program = clis::claude_code("hi [[coding=zstd slice=13 thinking]]");
    let [direct, metered] = both_ways(&stand, &program);
    assert_eq!(answer(&metered.0)["result"], TEXT, "{}", show(&metered.0));
    // Session ids and times differ between two runs; names, order and spelling may not.
    let shape = |requests: &[Request]| -> Vec<(String, Vec<String>)> {
        let messages = requests.iter().filter(|r| r.path() == "/v1/messages");
        messages
            .map(|r| (r.target.clone(), r.headers.iter().map(|(n, _)| n.clone()).collect()))
            .collect()
    };
    assert_eq!(shape(&direct.1), shape(&metered.1));
    let served = stand.origin.served();
    assert!(!served.is_empty());
    assert_ledger(&stand, served.len(), "h1");
    let row = &stand.wait_rows(served.len())[0];
    assert!(!row["session"].is_null(), "{row:#}");
    assert_eq!(row["billing"], "metered");
    let summary = String::from_utf8_lossy(&metered.0.stderr).into_owned();
    // Without the sum where its rows are not in the ledger within a second and a half.
    assert!(summary.contains("halton-meter: "), "{summary}");
}

#[test]
fn curl_http1_with_every_coding() {
    let stand = Stand::new();
    let mut total = 0;
    for stream in [false, true] {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let prompt = format!("[[coding={coding} slice=7 thinking]]");
            let program = programs::curl_messages("--http1.1", &prompt, stream);
            let [direct, metered] = both_ways(&stand, &program.arg("--compressed"));
            assert_same_bytes(&direct.1, &metered.1);
            assert!(String::from_utf8_lossy(&metered.0.stdout).contains("Good"));
            total += 1;
            assert_ledger(&stand, total, "h1");
        }
    }
}

#[test]
fn curl_http2_with_every_coding() {
    let stand = Stand::new();
    let mut total = 0;
    for stream in [false, true] {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let prompt = format!("[[coding={coding} slice=7 thinking]]");
            let program = programs::curl_messages("--http2", &prompt, stream);
            let [direct, metered] = both_ways(&stand, &program.arg("--compressed"));
            assert_eq!(metered.1[0].proto, Proto::H2);
            assert_same_bytes(&direct.1, &metered.1);
            assert!(String::from_utf8_lossy(&metered.0.stdout).contains("Good"));
            total += 1;
            assert_ledger(&stand, total, "h2");
        }
    }
}

#[test]
fn answers_arrive_exactly_as_they_were_sent() {
    let stand = Stand::new();
    for http in ["--http1.1", "--http2"] {
        for prompt in ["hi", "[[framing=close]]", "[[framing=chunked slice=1]]", "[[status=400]]"] {
            // No `--compressed`, headers included: what is compared is the wire's content.
            let program = programs::curl_messages(http, prompt, true).arg("--include");
            let [direct, metered] = both_ways(&stand, &program);
            let (sent, arrived) = (unnumbered(&direct.0), unnumbered(&metered.0));
            let texts = (String::from_utf8_lossy(&sent), String::from_utf8_lossy(&arrived));
            assert!(sent == arrived && sent.len() > 200, "{http} {prompt}: {texts:#?}");
        }
    }
}

/// No two answers have the same number, which is in their ids and counts; everything else is equal.
fn unnumbered(output: &Output) -> Vec<u8> {
    const NUMBERED: [&[u8]; 8] = [
        b"req_test_",
        b"msg_test_",
        br#""input_tokens":"#,
        br#""output_tokens":"#,
        br#""cache_read_input_tokens":"#,
        br#""cache_creation_input_tokens":"#,
        br#""ephemeral_5m_input_tokens":"#,
        br#""ephemeral_1h_input_tokens":"#,
    ];
    let (mut out, mut within) = (Vec::new(), false);
    for &byte in &output.stdout {
        within &= byte.is_ascii_digit();
        if !within {
            within = byte.is_ascii_digit() && NUMBERED.iter().any(|name| out.ends_with(name));
            out.push(if within { b'#' } else { byte });
        }
    }
    out
}

#[test]
fn curl_http10_proxy_and_expect_continue() {
    let stand = Stand::new();
    let proxy = stand.edge.to_string();
    stand.must(&["start"]);
    let program = programs::curl_messages("--http1.1", "hi", false)
        .arg("--proxy1.0")
        .arg(&proxy)
        .arg("-H")
        .arg("Expect: 100-continue");
    let output = stand.run(&program);
    assert!(output.status.success(), "{}", show(&output));
    assert_ledger(&stand, 1, "h1");
}

#[test]
fn the_providers_protocol_is_the_clients_protocol() {
    // An origin that knows HTTP/1.1 only: a client that would like h2 gets what the origin chose.
    let stand = Stand::with(&Setup { alpn: vec!["http/1.1"], ..Setup::default() });
    stand.must(&["start"]);
    let output = stand.run(&programs::curl_messages("--http2", "hi", false));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert_eq!(stand.origin.requests()[0].proto, Proto::H1);
    assert_ledger(&stand, 1, "h1");
}

#[test]
fn errors_are_rows_without_tokens() {
    let stand = Stand::started();
    let classes = [(401, "auth"), (429, "rate_limit"), (500, "server_error"), (529, "overloaded")];
    for (i, (status, class)) in classes.into_iter().enumerate() {
        let prompt = format!("[[status={status}]]");
        let output = stand.run(&programs::curl_messages("--http1.1", &prompt, true));
        assert_eq!(answer(&output)["type"], "error", "{}", show(&output));
        let rows = stand.wait_rows(i + 1);
        let row = &rows[i];
        assert_eq!(row["status"], status, "{row:#}");
        assert_eq!(row["error_class"], class, "{row:#}");
        assert_eq!(row["model_requested"], CLAUDE, "{row:#}");
        assert_eq!(row["usage"], "absent", "{row:#}");
        assert!(row["tokens"]["input"].is_null() && row["cost_nanousd"].is_null(), "{row:#}");
        assert_eq!(row["completeness"], "complete", "{row:#}");
    }
}

#[test]
fn each_attempt_of_a_retry_is_a_row() {
    let stand = Stand::started();
    stand.origin.script("/v1/messages", "[[status=529]]");
    stand.origin.script("/v1/messages", "[[status=429]]");
    let output = stand.run(&programs::python("anthropic_sdk.py", &["retry", CLAUDE, "hi"]));
    assert_eq!(answer(&output)["text"], TEXT, "{}", show(&output));
    let rows = stand.wait_rows(3);
    let statuses: Vec<_> = rows.iter().map(|r| r["status"].clone()).collect();
    assert_eq!(statuses, [json!(529), json!(429), json!(200)]);
    let served = stand.origin.served();
    assert_row(&rows[2], &served[2], "h1");
}

#[test]
fn cut_and_failed_streams_keep_what_was_known() {
    let stand = Stand::started();
    for (i, (http, prompt)) in [
        ("--http1.1", "[[cut=fin]]"),
        ("--http1.1", "[[cut=rst]]"),
        ("--http2", "[[cut=rst]]"),
        ("--http2", "[[cut=fin]]"),
    ]
    .into_iter()
    .enumerate()
    {
        let output = stand.run(&programs::curl_messages(http, prompt, true));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("message_stop"), "{http} {prompt} {}", show(&output));
        let row = &stand.wait_rows(i + 1)[i];
        let served = &stand.origin.served()[i];
        assert_eq!(row["completeness"], "interrupted", "{http} {prompt} {row:#}");
        assert_eq!(row["usage"], "partial", "{row:#}");
        assert_eq!(row["tokens"]["input"].as_u64(), served.input, "{row:#}");
        assert_eq!(row["tokens"]["cache_write_1h"].as_u64(), served.cache_write_1h, "{row:#}");
    }
    let output = stand.run(&programs::curl_messages("--http1.1", "[[error]]", true));
    assert!(String::from_utf8_lossy(&output.stdout).contains("overloaded_error"));
    let row = &stand.wait_rows(5)[4];
    assert_eq!(row["status"], 200, "{row:#}");
    assert!(!row["error_class"].is_null(), "{row:#}");
}

#[test]
fn a_streamed_answer_is_not_held_back() {
    use std::io::Read;
    let stand = Stand::new();
    stand.must(&["start"]);
    let (plain, coded) = ("[[gate]]", "[[gate coding=gzip]]");
    for (i, (http, protocol, prompt)) in
        [("--http1.1", "h1", plain), ("--http2", "h2", plain), ("--http2", "h2", coded)]
            .into_iter()
            .enumerate()
    {
        stand.origin.forget();
        let program = programs::curl_messages(http, prompt, true);
        let mut child = stand
            .run_command(&program.arg("--no-buffer").arg("--compressed"))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The first half arrives while the origin still holds the second back.
        let mut out = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains("content_block_delta") {
            let n = out.read(&mut buffer).unwrap();
            assert!(n > 0, "{http} {prompt}: ended early: {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..n]);
        }
        assert!(!String::from_utf8_lossy(&seen).contains("message_stop"), "{http} {prompt}");
        stand.origin.open_gate();
        out.read_to_end(&mut seen).unwrap();
        assert!(String::from_utf8_lossy(&seen).contains("message_stop"), "{http} {prompt}");
        assert!(child.wait().unwrap().success(), "{http} {prompt}");
        assert_ledger(&stand, i + 1, protocol);
    }
}

#[test]
fn a_client_that_goes_away_is_told_to_the_provider() {
    let stand = Stand::new();
    stand.must(&["start"]);
    for (i, http) in ["--http1.1", "--http2"].into_iter().enumerate() {
        let program = programs::curl_messages(http, "[[gate]]", true);
        let mut child = stand.run_command(&program).spawn().unwrap();
        stand.origin.wait_at_gate(i + 1, crate::harness::DEADLINE);
        crate::harness::send(child.id(), rustix::process::Signal::TERM);
        stand.origin.wait_aborted(i + 1, crate::harness::DEADLINE);
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        let row = &stand.wait_rows(i + 1)[i];
        assert_eq!(row["completeness"], "interrupted", "{row:#}");
        assert_eq!(row["error_class"], "client_abort", "{row:#}");
    }
}

#[test]
fn gemini_json_array_stream() {
    let stand = Stand::started();
    let url = format!(
        "https://generativelanguage.googleapis.com/v1beta/models/{GEMINI}:streamGenerateContent?key=dummy-secret"
    );
    let body = r#"{"contents":[{"parts":[{"text":"[[slice=3 thinking]]"}]}]}"#;
    let program = programs::curl(&["--http1.1", &url, "--data-binary", body]);
    let output = stand.run(&program);
    assert_eq!(answer(&output)[0]["modelVersion"], GEMINI, "{}", show(&output));
    assert_ledger(&stand, 1, "h1");
    let row = stand.wait_rows(1).remove(0);
    assert!(!row.to_string().contains("dummy-secret"), "{row:#}");
    assert!(!stand.logs().contains("dummy-secret"));
}

#[test]
fn side_calls_and_other_hosts_are_not_billed() {
    let stand = Stand::started();
    let count = programs::curl(&[
        "https://api.anthropic.com/v1/messages/count_tokens",
        "--data-binary",
        r#"{"model":"claude-sonnet-4-5","messages":[]}"#,
    ]);
    assert_eq!(answer(&stand.run(&count))["input_tokens"], 42);
    // Not on the list: tunnelled, and no row.
    let other = programs::curl(&["https://www.example.org/plain"]);
    let output = stand.run_trusting(&other);
    assert_eq!(output.stdout, b"plain answer\n", "{}", show(&output));
    stand.wait("row of the side call", || stand.rows().len() == 1);
    let row = &stand.rows()[0];
    assert_eq!(row["billable"], false, "{row:#}");
    assert_eq!(row["path"], "/v1/messages/count_tokens");
}

#[test]
fn requests_on_one_connection_have_rows_of_their_own() {
    let stand = Stand::started();
    let mut total = 0;
    for (http, protocol) in [("--http1.1", "h1"), ("--http2", "h2")] {
        for parallel in [false, true] {
            stand.origin.forget();
            let one = programs::curl_messages(http, "[[slice=5]]", true);
            let mut program = one.clone();
            for _ in 0..3 {
                program = program.arg("--next");
                for arg in one.argv.iter().skip(1) {
                    program = program.arg(arg);
                }
            }
            if parallel {
                program = program.arg("--parallel");
            }
            let output = stand.run(&program);
            assert!(output.status.success(), "{http} {}", show(&output));
            if !parallel {
                let requests = stand.origin.requests();
                let first = requests[0].connection;
                assert!(requests.iter().all(|r| r.connection == first), "{http}: reconnected");
            }
            total += 4;
            let rows = stand.wait_rows(total);
            for served in &stand.origin.served() {
                let row = rows.iter().find(|r| r["provider_request_id"] == served.request_id);
                assert_row(row.expect("a row per request"), served, protocol);
            }
        }
    }
}

#[test]
fn a_request_belongs_to_a_project() {
    let stand = Stand::started();
    let repository = stand.scratch().join("my-app");
    let inside = repository.join("src/deep");
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::create_dir(repository.join(".git")).unwrap();
    std::fs::write(repository.join(".git/HEAD"), "ref: refs/heads/topic/x\n").unwrap();
    let hello = programs::curl_messages("--http1.1", "hi", false);

    let output = stand.run_command(&hello).current_dir(&inside).output().unwrap();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    let mut explicit = stand.command(&["run", "--project", "billing", "--"]);
    let output = explicit.args(&hello.argv).current_dir(&inside).output().unwrap();
    assert!(output.status.success(), "{}", show(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("billing"), "{}", show(&output));
    assert!(stand.run(&hello).status.success());

    let rows = stand.wait_rows(3);
    let fields = ["project", "project_source", "branch", "client"];
    let of = |row: &serde_json::Value| fields.map(|f| row[f].clone());
    assert_eq!(of(&rows[0]), [json!("my-app"), json!("git"), json!("topic/x"), json!("curl")]);
    assert_eq!(of(&rows[1])[..2], [json!("billing"), json!("explicit")]);
    assert_eq!(of(&rows[2])[..2], [json!("curl"), json!("program")]);
    for row in &rows {
        assert!(row["client_pid"].is_u64() && row["run"].is_string(), "{row:#}");
    }
    assert_ne!(rows[0]["run"], rows[1]["run"]);

    let report = stand.json(&["report", "--since", "1d", "--by", "project"]);
    let groups = report["groupings"][0]["groups"].as_array().unwrap();
    let mut keys: Vec<_> = groups.iter().map(|g| g["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["billing", "curl", "my-app"]);
    let cost: u64 = stand.origin.served().iter().map(crate::expected::cost_nanousd).sum();
    assert_eq!(report["summary"]["cost_nanousd"], cost);
    assert_eq!(report["summary"]["requests"], 3);
}
