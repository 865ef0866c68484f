//! The clients against the origin, without the product: if one of these fails, the fault is not ours.

use std::path::Path;
use std::process::Output;

use serde_json::json;

use crate::origin::{Origin, Proto};
use crate::programs::{self, CLAUDE, GEMINI, GPT, Program, TEXT, answer, show};

struct Direct {
    origin: Origin,
    dir: tempfile::TempDir,
    proxy: std::net::SocketAddr,
}

impl Direct {
    fn new() -> Self {
        let origin = Origin::start();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("root.pem"), origin.root_pem()).unwrap();
        let proxy = origin.blind_proxy();
        Self { origin, dir, proxy }
    }

    fn run(&self, program: &Program) -> Output {
        let home: &Path = self.dir.path();
        program.direct(self.proxy, &home.join("root.pem"), home)
    }
}

#[test]
fn python_sdks_understand_every_answer() {
    let stand = Direct::new();
    for coding in ["", "[[coding=deflate slice=3]]"] {
        for mode in ["json", "stream"] {
            let program = programs::python("anthropic_sdk.py", &[mode, CLAUDE, coding]);
            let output = stand.run(&program);
            let served = stand.origin.served().pop().expect("served");
            let expected = json!({ "text": TEXT, "input": served.input, "output": served.output,
                "model": CLAUDE });
            assert_eq!(answer(&output), expected, "{mode} {coding} {}", show(&output));
        }
        for mode in ["chat", "chat-stream-usage", "responses", "responses-stream"] {
            let output = stand.run(&programs::python("openai_sdk.py", &[mode, GPT, coding]));
            let s = stand.origin.served().pop().expect("served");
            let total = s.input.unwrap() + s.cache_read.unwrap() + s.output.unwrap();
            let expected = json!({ "text": TEXT, "total": total });
            assert_eq!(answer(&output), expected, "{mode} {coding} {}", show(&output));
        }
        for mode in ["json", "stream"] {
            let output = stand.run(&programs::python("genai_sdk.py", &[mode, GEMINI, coding]));
            let s = stand.origin.served().pop().expect("served");
            let total = s.input.unwrap() + s.cache_read.unwrap() + s.output.unwrap();
            let expected = json!({ "text": TEXT, "total": total });
            assert_eq!(answer(&output), expected, "{mode} {coding} {}", show(&output));
        }
    }
}

#[test]
fn node_sdk_understands_every_answer() {
    let stand = Direct::new();
    for prompt in ["hi", "[[coding=br]]", "[[coding=gzip slice=5]]"] {
        for mode in ["json", "stream"] {
            let output = stand.run(&programs::node("anthropic_sdk.mjs", &[mode, CLAUDE, prompt]));
            let served = stand.origin.served().pop().expect("served");
            let expected = json!({ "text": TEXT, "input": served.input, "output": served.output,
                "model": CLAUDE });
            assert_eq!(answer(&output), expected, "{mode} {prompt} {}", show(&output));
        }
    }
}

#[test]
fn claude_code_runs_against_the_origin() {
    let stand = Direct::new();
    let output = stand.run(&crate::clis::claude_code("hi"));
    let result = answer(&output);
    assert_eq!(result["result"], TEXT, "{}", show(&output));
    assert!(!stand.origin.requests_to("/v1/messages").is_empty());
}

#[test]
fn curl_speaks_both_protocols_and_reads_every_coding() {
    let stand = Direct::new();
    for (http, proto) in [("--http1.1", Proto::H1), ("--http2", Proto::H2)] {
        for coding in ["gzip", "deflate", "br", "zstd"] {
            let prompt = format!("[[coding={coding} slice=7]]");
            let program = programs::curl_messages(http, &prompt, true).arg("--compressed");
            let output = stand.run(&program);
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("event: message_stop"), "{http} {coding} {}", show(&output));
            let request = stand.origin.requests().pop().expect("recorded");
            assert_eq!(request.proto, proto);
            assert!(String::from_utf8_lossy(&request.body).contains(&prompt));
        }
    }
}

#[test]
fn cuts_and_resets_are_seen_by_the_client() {
    let stand = Direct::new();
    for http in ["--http1.1", "--http2"] {
        for cut in ["fin", "rst"] {
            for stream in [false, true] {
                let prompt = format!("[[cut={cut}]]");
                let output = stand.run(&programs::curl_messages(http, &prompt, stream));
                // This curl takes the end of an HTTP/2 connection for the end of its stream.
                let noticed = !output.status.success() || (http == "--http2" && cut == "fin");
                assert!(noticed, "{http} {cut} {stream} {}", show(&output));
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(!text.contains("message_stop"));
                assert!(stream || serde_json::from_str::<serde_json::Value>(&text).is_err());
            }
        }
    }
}

#[test]
fn curl_reads_close_delimited_answers_and_errors() {
    let stand = Direct::new();
    let output = stand.run(&programs::curl_messages("--http1.1", "[[framing=close]]", false));
    assert!(output.status.success(), "{}", show(&output));
    let output = stand.run(&programs::curl_messages("--http1.1", "[[status=529]]", false));
    assert_eq!(answer(&output)["error"]["type"], "overloaded_error");
    let sent = stand.origin.requests().pop().expect("recorded");
    assert!(sent.raw.starts_with(b"POST /v1/messages HTTP/1.1\r\n"));
    assert!(sent.raw.ends_with(&sent.body));
}
