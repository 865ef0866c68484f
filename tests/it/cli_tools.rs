//! The command-line tools with each of their credentials, through a real process tree: the tool says
//! what the origin said, and each of the origin's answers is a row with its numbers.

use serde_json::Value;

use crate::clis;
use crate::expected::assert_row;
use crate::harness::Stand;
use crate::origin::Served;
use crate::programs::{CLAUDE, GPT, Program, TEXT, show};

/// Runs it. All that the origin answered, with its rows; no other row costs anything.
pub fn metered(stand: &Stand, program: &Program, protocol: &str) -> Vec<(Served, Value)> {
    let earlier = stand.origin.served().len();
    let before = answered(stand).len();
    stand.must(&["start"]);
    let output = stand.run(program);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}{}", show(&output), stand.logs());
    // Some write it as JSON with escapes.
    assert!(said.contains(TEXT.trim_end_matches('✓')), "{}{}", show(&output), stand.logs());
    let served = stand.origin.served().split_off(earlier);
    assert!(!served.is_empty(), "{}{}", show(&output), stand.logs());
    let mut rows = Vec::new();
    stand.wait("row of each answer", || {
        rows = answered(stand);
        rows.len() >= before + served.len()
    });
    assert_eq!(rows.len(), before + served.len(), "{rows:#?}");
    let find = |served: Served| {
        let row = rows.iter().find(|row| row["provider_request_id"] == served.request_id);
        let row = row.unwrap_or_else(|| panic!("no row of {served:?}: {rows:#?}")).clone();
        assert_row(&row, &served, protocol);
        (served, row)
    };
    served.into_iter().map(find).collect()
}

/// Rows that may cost something; a refused request is a row too, without tokens.
fn answered(stand: &Stand) -> Vec<Value> {
    let mut rows = stand.rows();
    rows.retain(|row| row["billable"] == true && row["completeness"] != "open");
    rows.retain(|row| row["status"].as_u64() < Some(400));
    rows
}

#[test]
fn claude_code_with_an_oauth_token() {
    let stand = Stand::new();
    let program = clis::claude_code_for(CLAUDE, "hi [[thinking]]")
        .env("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-dummy-secret");
    for (_, row) in metered(&stand, &program, "h1") {
        assert_eq!(row["billing"], "subscription", "{row:#}");
        assert!(row["session"].is_string(), "{row:#}");
    }
    let sent = stand.origin.requests_to("/v1/messages");
    assert!(sent[0].header("authorization").is_some_and(|v| v.starts_with("Bearer sk-ant-oat")));
    assert!(!stand.logs().contains("dummy-secret"));
    // Never added to what is paid.
    let summary = &stand.json(&["report", "--since", "1d"])["summary"];
    assert!(summary["cost_nanousd"].is_null(), "{summary:#}");
    assert!(summary["subscription_nanousd"].as_u64() > Some(0), "{summary:#}");
}

#[test]
fn claude_code_on_bedrock() {
    let stand = Stand::new();
    let model = "global.anthropic.claude-sonnet-4-5-20250929-v1:0";
    let program = clis::claude_code_for(model, "hi [[thinking]]")
        .env("CLAUDE_CODE_USE_BEDROCK", "1")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "AKIADUMMY")
        .env("AWS_SECRET_ACCESS_KEY", "dummy-secret");
    for (_, row) in metered(&stand, &program, "h1") {
        assert_eq!(row["billing"], "metered", "{row:#}");
        assert_eq!(row["surface"], "bedrock.invoke", "{row:#}");
    }
}

#[test]
fn claude_code_on_vertex() {
    let stand = Stand::new();
    let program = clis::claude_code_for("claude-sonnet-4-5@20250929", "hi [[thinking]]")
        .env("CLAUDE_CODE_USE_VERTEX", "1")
        .env("CLOUD_ML_REGION", "global")
        .env("ANTHROPIC_VERTEX_PROJECT_ID", "test-project")
        .env("CLAUDE_CODE_SKIP_VERTEX_AUTH", "1");
    for (_, row) in metered(&stand, &program, "h1") {
        assert_eq!(row["billing"], "metered", "{row:#}");
        assert!(row["session"].is_string(), "{row:#}");
    }
}

#[test]
fn codex_with_a_chatgpt_account() {
    for (http, protocol) in [(false, "ws"), (true, "h2")] {
        let stand = Stand::new();
        if http {
            stand.origin.script("/backend-api/codex/responses", "[[no WebSockets here]]");
        }
        let home = stand.scratch().join("codex");
        let program = clis::codex_logged_in(&home, "hi [[thinking]]");
        for (served, row) in metered(&stand, &program, protocol) {
            assert_eq!(served.path, "/backend-api/codex/responses");
            assert_eq!(row["billing"], "subscription", "{row:#}");
            assert_eq!(row["model_requested"], GPT, "{row:#}");
            assert!(row["session"].is_string(), "{row:#}");
        }
        let compressed = stand.origin.requests();
        let zstd = compressed.iter().any(|r| r.header("content-encoding") == Some("zstd"));
        assert_eq!(zstd, http);
    }
}

#[test]
fn gemini_cli() {
    let Some(program) = clis::gemini("hi [[thinking]]") else { return };
    let stand = Stand::new();
    for (_, row) in metered(&stand, &program.clone().env("GEMINI_API_KEY", "dummy-key"), "h1") {
        assert_eq!(row["billing"], "metered", "{row:#}");
    }
    let program =
        program.env("GOOGLE_GENAI_USE_GCA", "true").env("GOOGLE_CLOUD_ACCESS_TOKEN", "ya29.dummy");
    for (_, row) in metered(&stand, &program, "h1") {
        assert_eq!(row["billing"], "subscription", "{row:#}");
        assert_eq!(row["surface"], "gemini.code_assist", "{row:#}");
        assert!(row["session"].is_string(), "{row:#}");
    }
}

#[test]
fn opencode() {
    for model in ["anthropic/claude-sonnet-4-5-20250929", "openai/gpt-5"] {
        let Some(program) = clis::opencode(model, "hi [[thinking]]") else { return };
        let stand = Stand::new();
        for (_, row) in metered(&stand, &program, "h1") {
            assert_eq!(row["client"], "opencode", "{row:#}");
            assert!(row["session"].is_string(), "{row:#}");
        }
    }
}

#[test]
fn copilot_cli() {
    for model in ["gpt-4o", "gpt-5", "claude-sonnet-4.6"] {
        // Its list has no price for cache writes of an hour.
        let Some(program) = clis::copilot(model, "hi [[thinking nocache]]") else { return };
        let stand = Stand::new();
        let program = program.env("COPILOT_GITHUB_TOKEN", "github_pat_11AAAAAAA0dummy");
        for (_, row) in metered(&stand, &program, "h1") {
            assert_eq!(row["billing"], "subscription", "{row:#}");
            assert!(row["session"].is_string(), "{row:#}");
        }
    }
}

#[test]
fn copilot_cli_with_a_key_of_ones_own() {
    let Some(program) = clis::copilot(GPT, "hi [[thinking]]") else { return };
    let stand = Stand::new();
    let program = program
        .env("COPILOT_PROVIDER_BASE_URL", "https://api.openai.com/v1")
        .env("COPILOT_PROVIDER_TYPE", "openai")
        .env("COPILOT_PROVIDER_API_KEY", "dummy-key")
        .env("COPILOT_MODEL", GPT)
        .env("COPILOT_OFFLINE", "true");
    for (_, row) in metered(&stand, &program, "h1") {
        assert_eq!(row["billing"], "metered", "{row:#}");
    }
}

#[test]
fn aider() {
    for model in ["gpt-4o", "anthropic/claude-sonnet-4-5-20250929"] {
        let Some(program) = clis::aider(model, "hi [[thinking]]") else { return };
        metered(&Stand::new(), &program, "h1");
    }
}

#[test]
fn llm() {
    for model in ["gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-flash"] {
        let stand = Stand::new();
        let home = stand.scratch().join("llm");
        let Some(program) = clis::llm(&home, model, "hi [[thinking]]") else { return };
        metered(&stand, &program, "h1");
    }
}
