//! WebSockets of real clients through a real process tree: the client gets the origin's answers,
//! the ledger a row for each response with the origin's numbers.

use serde_json::{Value, json};

use crate::clis;
use crate::expected::assert_row;
use crate::harness::Stand;
use crate::origin::Proto;
use crate::programs::{self, GPT, Program, TEXT, answer, show};

const REALTIME: &str = "gpt-realtime";
const LIVE: &str = "gemini-2.5-flash-native-audio-preview-09-2025";
const PROMPT: &str = "hi [[thinking]]";

/// Runs a client that has three responses on one WebSocket, and checks their rows.
fn three(program: &Program) -> Stand {
    let stand = Stand::started();
    let output = stand.run(program);
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert_eq!(answer(&output)["texts"], json!([TEXT, TEXT, TEXT]), "{}", show(&output));
    let served = stand.origin.served();
    assert_eq!(served.len(), 3);
    let rows = stand.wait_rows(3);
    for (row, served) in rows.iter().zip(&served) {
        assert_row(row, served, "ws");
    }
    stand
}

/// The rows that cost nothing: the socket itself, warm-ups.
fn others(stand: &Stand) -> Vec<Value> {
    stand.wait("the row of the socket", || {
        stand.rows().iter().any(|row| row["surface"].is_string() && is_socket(row))
    });
    stand.rows().into_iter().filter(|row| row["billable"] == false).collect()
}

fn is_socket(row: &Value) -> bool {
    row["billable"] == false && row["completeness"] == "complete" && row["model"].is_null()
}

#[test]
fn python_websockets_with_and_without_compression() {
    for mode in ["websockets", "websockets-plain"] {
        let stand = three(&programs::python("sockets.py", &[mode, GPT, PROMPT]));
        let others = others(&stand);
        assert_eq!(others.len(), 2, "the socket and the warm-up: {others:#?}");
        assert!(others.iter().all(|row| row["tokens"]["input"].is_null()), "{others:#?}");
    }
}

#[test]
fn node_undici() {
    let stand = three(&programs::node("sockets.mjs", &[GPT, PROMPT]));
    assert_eq!(others(&stand).len(), 1);
}

#[test]
fn the_openai_sdk_over_websockets() {
    for (mode, model) in [("responses", GPT), ("realtime", REALTIME)] {
        let stand = three(&programs::python("sockets.py", &[mode, model, PROMPT]));
        assert_eq!(others(&stand).len(), 1);
        assert!(!stand.logs().contains("dummy-key"));
    }
}

#[test]
fn google_genai_live() {
    let stand = three(&programs::python("live_sdk.py", &[LIVE, PROMPT]));
    let rows = stand.wait_rows(3);
    for row in &rows {
        let seen = (&row["surface"], &row["model_requested"], &row["billable"]);
        assert_eq!(seen, (&json!("gemini.live"), &json!(LIVE), &json!(true)), "{row:#}");
        assert_eq!(
            row["tokens"]["audio_output"],
            json!(
                row["tokens"]["output"].as_u64().unwrap()
                    - row["tokens"]["reasoning"].as_u64().unwrap()
            ),
            "{row:#}"
        );
    }
    assert_eq!(others(&stand).len(), 1);
    assert!(!stand.logs().contains("dummy-key"));
}

#[test]
fn google_genai_live_with_an_ephemeral_token() {
    let token = "auth_tokens/dummy-0123456789abcdef";
    let stand = three(&programs::python("live_sdk.py", &[LIVE, PROMPT, token]));
    let path = &stand.origin.served()[0].path;
    assert!(path.ends_with(".BidiGenerateContentConstrained"), "{path}");
    for row in stand.wait_rows(3) {
        let seen = (&row["surface"], &row["model_requested"], &row["billable"]);
        assert_eq!(seen, (&json!("gemini.live"), &json!(LIVE), &json!(true)), "{row:#}");
        assert_eq!(row["path"], path.as_str(), "{row:#}");
    }
    assert_eq!(others(&stand).len(), 1);
    assert!(!format!("{:?}{}", stand.rows(), stand.logs()).contains("dummy-0123456789abcdef"));
}

#[test]
fn cursors_agent_over_http2_both_ways_at_once() {
    let stand = Stand::new();
    // Not metered unless somebody wants it.
    let cursor = "[meter]\nextra_hosts = [\"*.cursor.sh\"]\n";
    stand.configure(stand.origin.addr(), cursor);
    stand.must(&["start"]);
    let output = stand.run(&programs::node("cursor.mjs", &[GPT]));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    // The second text comes when the second message has arrived: nothing is held back either way.
    assert_eq!(answer(&output)["texts"], json!(["one", "two"]), "{}", show(&output));
    let [row] = &stand.wait_rows(1)[..] else { panic!("one row") };
    assert_eq!((&row["provider"], &row["surface"]), (&json!("cursor"), &json!("cursor.agent")));
    assert_eq!((&row["protocol"], &row["completeness"]), (&json!("h2"), &json!("complete")));
    assert_eq!((&row["usage"], &row["model_requested"]), (&json!("reported"), &json!(GPT)));
    let tokens = &row["tokens"];
    assert_eq!((&tokens["input"], &tokens["cache_read"]), (&json!(600), &json!(400)), "{row:#}");
    assert_eq!((&tokens["output"], &tokens["reasoning"]), (&json!(70), &json!(30)), "{row:#}");
    assert_eq!(row["detail"]["caveat"], "unverified", "{row:#}");
    assert_eq!(row["cost_estimated"], true, "{row:#}");
    assert!(row["cost_reason"].as_str().is_some_and(|why| why.contains("unverified")), "{row:#}");
    assert_eq!(stand.origin.requests()[0].proto, Proto::H2);
}

#[test]
fn refused_responses_are_rows_and_the_socket_goes_on() {
    let stand = Stand::started();
    let prompt = "hi [[status=429]]";
    let output = stand.run(&programs::python("sockets.py", &["websockets", GPT, prompt]));
    let texts = &answer(&output)["texts"];
    assert_eq!(texts[0], "error 429", "{}", show(&output));
    let rows = stand.wait_rows(3);
    for row in &rows {
        assert_eq!((&row["status"], &row["error_class"]), (&json!(429), &json!("rate_limit")));
        assert_eq!((&row["usage"], &row["completeness"]), (&json!("absent"), &json!("complete")));
    }
}

#[test]
fn codex_over_a_websocket() {
    let stand = Stand::started();
    let output = stand.run(&clis::codex(&stand.scratch().join("codex"), PROMPT));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    let served = stand.origin.served();
    assert!(!served.is_empty(), "{}", show(&output));
    let rows = stand.wait_rows(served.len());
    for (row, served) in rows.iter().zip(&served) {
        assert_row(row, served, "ws");
        assert_eq!(row["model_requested"], GPT, "{row:#}");
        assert_eq!(row["client"], "codex", "{row:#}");
        assert!(row["session"].is_string(), "{row:#}");
    }
}

#[test]
fn codex_falls_back_to_http() {
    let stand = Stand::started();
    stand.origin.script("/v1/responses", "[[no WebSockets here]]");
    let output = stand.run(&clis::codex(&stand.scratch().join("codex"), PROMPT));
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    assert!(String::from_utf8_lossy(&output.stdout).contains(TEXT), "{}", show(&output));
    let served = stand.origin.served();
    assert!(stand.origin.requests_to("/v1/responses").iter().any(|r| r.proto == Proto::H2));
    stand.wait("the refused handshake", || {
        stand.rows().iter().any(|row| row["status"] == 426 && row["error_class"] == "bad_request")
    });
    assert!(stand.rows().iter().all(|row| row["status"] != 426 || row["billable"] == false));
    stand.wait("rows of the answers", || {
        let rows = stand.rows();
        served.iter().all(|s| rows.iter().any(|r| r["provider_request_id"] == s.request_id))
    });
    for served in &served {
        let rows = stand.rows();
        let row = rows.iter().find(|r| r["provider_request_id"] == served.request_id);
        assert_row(row.expect("its row"), served, "h2");
    }
}
