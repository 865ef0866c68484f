//! Every surface over the wire, by its recorded shape, and what the commands make of the rows.

use serde_json::{Value, json};

use crate::harness::Stand;
use crate::programs::{curl, show};
use crate::recompute;

struct Shape {
    url: &'static str,
    /// `None`: a GET.
    request: Option<&'static str>,
    media: &'static str,
    headers: &'static [(&'static str, &'static str)],
    answer: &'static str,
    provider: &'static str,
    surface: &'static str,
    /// Input, cache read, output.
    tokens: [Option<u64>; 3],
    cost: Option<i64>,
}

const JSON: &str = "application/json";
const SSE: &str = "text/event-stream";

const SHAPES: &[Shape] = &[
    Shape {
        url: "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
        request: Some(r#"{"anthropic_version":"bedrock-2023-05-31"}"#),
        media: JSON,
        headers: &[("x-amzn-bedrock-input-token-count", "999")],
        answer: r#"{"id":"msg_bdrk_1","type":"message","model":"claude-sonnet-4-5-20250929","usage":{"input_tokens":1000,"output_tokens":100}}"#,
        provider: "bedrock",
        surface: "bedrock.invoke",
        tokens: [Some(1000), None, Some(100)],
        // 1000×3.30 + 100×16.50: the profile of a region.
        cost: Some(4_950_000),
    },
    Shape {
        url: "https://bedrock-runtime.eu-west-1.amazonaws.com/model/global.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
        request: Some(r#"{"messages":[]}"#),
        media: JSON,
        headers: &[],
        answer: r#"{"output":{},"stopReason":"end_turn","usage":{"inputTokens":1000,"outputTokens":100,"totalTokens":2100,"cacheReadInputTokens":1000}}"#,
        provider: "bedrock",
        surface: "bedrock.converse",
        tokens: [Some(1000), Some(1000), Some(100)],
        cost: Some(4_800_000),
    },
    Shape {
        url: "https://us-east5-aiplatform.googleapis.com/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
        request: Some(r#"{"anthropic_version":"vertex-2023-10-16","stream":true}"#),
        media: SSE,
        headers: &[],
        answer: "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_vrtx_1\",\"model\":\"claude-sonnet-4-5-20250929\",\"usage\":{\"input_tokens\":1000,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":100}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        provider: "vertex",
        surface: "anthropic.messages",
        tokens: [Some(1000), None, Some(100)],
        // 1000×3.30 + 100×16.50: a regional host.
        cost: Some(4_950_000),
    },
    Shape {
        url: "https://corp.openai.azure.com/openai/deployments/mine/chat/completions?api-version=2026-01-01",
        request: Some(r#"{"messages":[]}"#),
        media: JSON,
        headers: &[("apim-request-id", "a-1")],
        answer: r#"{"object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":200}}}"#,
        provider: "azure",
        surface: "openai.chat",
        tokens: [Some(800), Some(200), Some(100)],
        // 800×2.50 + 200×1.25 + 100×10
        cost: Some(3_250_000),
    },
    Shape {
        url: "https://api.individual.githubcopilot.com/chat/completions",
        request: Some(r#"{"model":"gpt-4o"}"#),
        media: SSE,
        headers: &[("x-quota-snapshot-premium_interactions", "ent=300&rem=75.0")],
        answer: "data: {\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o\",\"choices\":[{\"finish_reason\":\"stop\"}]}\n\ndata: {\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100,\"total_tokens\":1100},\"copilot_usage\":{\"total_nano_aiu\":350000000}}\n\ndata: [DONE]\n\n",
        provider: "copilot",
        surface: "openai.chat",
        tokens: [Some(1000), None, Some(100)],
        cost: Some(3_500_000),
    },
    Shape {
        url: "https://api.cohere.com/v2/chat",
        request: Some(r#"{"model":"command-r-08-2024"}"#),
        media: JSON,
        headers: &[],
        answer: r#"{"id":"c","message":{},"usage":{"billed_units":{"input_tokens":1000.0,"output_tokens":100.0}}}"#,
        provider: "cohere",
        surface: "cohere.chat",
        tokens: [Some(1000), None, Some(100)],
        // 1000×0.15 + 100×0.60
        cost: Some(210_000),
    },
    Shape {
        url: "https://ollama.com/api/chat",
        request: Some(r#"{"model":"gpt-oss:120b"}"#),
        media: "application/x-ndjson",
        headers: &[],
        answer: "{\"model\":\"gpt-oss:120b\",\"done\":false}\n{\"model\":\"gpt-oss:120b\",\"done\":true,\"prompt_eval_count\":10,\"eval_count\":5}\n",
        provider: "ollama",
        surface: "ollama.chat",
        tokens: [Some(10), None, Some(5)],
        cost: None,
    },
    Shape {
        url: "https://api.anthropic.com/v1/messages/batches/msgbatch_1/results",
        request: None,
        media: "application/x-jsonl",
        headers: &[("anthropic-ratelimit-unified-5h-utilization", "0.42")],
        answer: r#"{"custom_id":"1","result":{"type":"succeeded","message":{"id":"m","model":"claude-sonnet-4-5-20250929","usage":{"input_tokens":1000,"output_tokens":100,"service_tier":"batch"}}}}"#,
        provider: "anthropic",
        surface: "anthropic.batch",
        tokens: [Some(1000), None, Some(100)],
        cost: Some(2_250_000),
    },
];

fn path(url: &str) -> &str {
    let rest = url.trim_start_matches("https://");
    let path = rest.split_once('/').map_or("", |(host, _)| &rest[host.len()..]);
    path.split('?').next().unwrap_or_default()
}

fn ask(stand: &Stand, shape: &Shape, http: &str) {
    let mut words = vec![http, shape.url, "-H", "content-type: application/json"];
    words.extend(shape.request.iter().flat_map(|body| ["--data-binary", *body]));
    let output = stand.run(&curl(&words));
    assert_eq!(String::from_utf8_lossy(&output.stdout), shape.answer, "{}", show(&output));
}

#[test]
fn rows_say_what_the_providers_said() {
    let stand = Stand::new();
    for shape in SHAPES {
        let headers = [&[("content-type", shape.media)][..], shape.headers].concat();
        stand.origin.record(path(shape.url), &headers, shape.answer);
    }
    for (i, shape) in SHAPES.iter().enumerate() {
        // Over one protocol and the other.
        ask(&stand, shape, if i % 2 == 0 { "--http1.1" } else { "--http2" });
    }
    let rows = stand.wait_rows(SHAPES.len());
    for shape in SHAPES {
        let row = rows.iter().find(|row| row["path"] == path(shape.url)).expect(shape.url);
        let tokens = &row["tokens"];
        let told = [&tokens["input"], &tokens["cache_read"], &tokens["output"]];
        assert_eq!(told.map(Value::as_u64), shape.tokens, "{row:#}");
        assert_eq!(row["provider"], shape.provider, "{row:#}");
        assert_eq!(row["surface"], shape.surface, "{row:#}");
        assert_eq!(row["cost_nanousd"].as_i64(), shape.cost, "{row:#}");
        assert_eq!(row["completeness"], "complete", "{row:#}");
    }

    // The same results again are no new cost.
    let batch = SHAPES.last().expect("shapes");
    ask(&stand, batch, "--http1.1");
    let downloads = || {
        stand.rows().into_iter().filter(|row| row["path"] == path(batch.url)).collect::<Vec<_>>()
    };
    stand.wait("the second download", || {
        let seen = downloads();
        seen.len() == 2 && seen.iter().all(|row| row["completeness"] == "complete")
    });
    assert_eq!(downloads().iter().filter(|row| row["billable"] == true).count(), 1);

    // What is left of the plans.
    let quota = stand.json(&["report", "--quota"]);
    let told: Vec<_> = quota["quotas"]
        .as_array()
        .expect("quotas")
        .iter()
        .map(|q| json!([q["provider"], q["name"], q["used_bp"]]))
        .collect();
    let expected =
        [json!(["anthropic", "5h", 4200]), json!(["copilot", "premium_interactions", 2500])];
    assert_eq!(told, expected);

    money(&stand);
    recompute::follows_prices_set_for_the_past(&stand);
}

/// A price of the user's own, for now and for the past.
fn money(stand: &Stand) {
    let check = stand.halton(&["pricing", "check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{}", show(&check));
    assert!(said.contains("gpt-oss:120b: 1 request"), "{said}");

    let set = ["pricing", "set", "ollama/gpt-oss:120b", "--input", "1", "--output", "2"];
    stand.must(&set);
    let recomputed = stand.json(&["recompute-costs", "--dry-run"]);
    assert_eq!(recomputed["changed"], 1, "{recomputed:#}");
    let ollama = || {
        let rows = stand.rows();
        rows.into_iter().filter(|row| row["provider"] == "ollama").collect::<Vec<_>>()
    };
    let newest = || ollama().pop().expect("a row");
    assert!(newest()["cost_nanousd"].is_null());
    stand.must(&["recompute-costs"]);
    assert_eq!(newest()["cost_nanousd"], 20_000);
    assert_eq!(stand.halton(&["pricing", "check"]).status.code(), Some(0));

    // The running daemon has taken it over when the command ends: the very next request costs that.
    let shape = SHAPES.iter().find(|shape| shape.provider == "ollama").expect("ollama");
    let costs = |expected: i64| {
        let before = ollama().len();
        ask(stand, shape, "--http1.1");
        stand.wait("its row", || ollama().len() > before && newest()["completeness"] == "complete");
        assert_eq!(newest()["cost_nanousd"], expected);
    };
    costs(20_000);
    stand.must(&["pricing", "set", "ollama/gpt-oss:120b", "--input", "2", "--output", "4"]);
    costs(40_000);
    stand.must(&set);
    costs(20_000);
    let line = String::from_utf8(stand.must(&["statusline"]).stdout).expect("UTF-8");
    assert!(line.contains(" today") && line.lines().count() == 1, "{line}");
}
