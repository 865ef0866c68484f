//! Ways to ask that are of one provider only, at paths of their own.

use serde_json::json;

use super::shapes::case;
use super::sockets::{CLIENT, Socket};
use super::*;

#[test]
fn a_decision_is_a_request_priced_as_the_models_answers_are() {
    let body = r#"{"object":"decision","model":"gpt-6-luna","answers":[],"usage":{"input_tokens":100000,"input_tokens_details":{"cache_write_tokens":0,"cached_tokens":0},"output_tokens":0,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":100000}}"#;
    let row = case("api.openai.com", "/v1/decisions", body).row();
    assert_eq!(row.surface.as_deref(), Some("openai.decisions"));
    assert_eq!((row.billable, row.tokens.input), (true, Some(100_000)));
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(10_000_000), true));
    assert!(row.cost_reason.unwrap().contains("no price for decisions"));
}

#[test]
fn perplexitys_own_paths_are_known() {
    let chat = r#"{"id":"p","model":"sonar","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":5,"cost":{"total_cost":0.014}}}"#;
    let agent = r#"{"id":"r","object":"response","model":"sonar","status":"completed","usage":{"input_tokens":9,"output_tokens":5,"cost":{"total_cost":0.014}}}"#;
    for (target, body) in [("/v1/sonar", chat), ("/v1/agent", agent)] {
        let row = case("api.perplexity.ai", target, body).row();
        assert_eq!((row.tokens.input, row.cost_nanousd), (Some(9), Some(14_000_000)), "{target}");
        assert!(!case("gateway.example", target, "{}").row().billable, "anybody's");
    }
}

#[test]
fn what_xai_defers_is_told_once_when_it_is_fetched() {
    let asked = case("api.x.ai", "/v1/chat/completions", r#"{"request_id":"4ad1"}"#).row();
    assert_eq!((asked.response_id.as_deref(), asked.usage), (Some("4ad1"), UsageState::Absent));
    let fetch = |body: &str| {
        let of = case("api.x.ai", "/v1/chat/deferred-completion/4ad1", body);
        Case { method: "GET", request: Vec::new(), ..of }.row()
    };
    let told = r#"{"id":"c","object":"chat.completion","model":"grok-4","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":5,"cost_in_usd_ticks":5300000}}"#;
    let row = fetch(told);
    // As the request is called: the ledger counts the two as one.
    assert_eq!((row.billable, row.response_id), (true, asked.response_id));
    assert_eq!((row.tokens.input, row.cost_nanousd), (Some(9), Some(530_000)));
    assert!(!fetch("").billable, "202: not yet");
}

#[test]
fn what_nobody_reads_of_a_live_session_is_said() {
    for target in ["/v1/live/sessions", "/v1/realtime/translations"] {
        let case = Case {
            host: "api.openai.com",
            target,
            method: "GET",
            request_headers: vec![("upgrade", "websocket")],
            ..Case::default()
        };
        let mut exchange = case.start();
        exchange.request_end();
        exchange.response(&ResponseHead { status: 101, ..ResponseHead::default() }, at(5));
        assert!(exchange.upgraded(at(5), Uuid::nil).is_none());
        exchange.cut(Cut::Eof(CLIENT), at(60));
        let row = exchange.row(&Book::builtin());
        assert_eq!((row.billable, row.completeness), (true, Completeness::Lossy), "{target}");
    }
}

#[test]
fn a_session_may_tell_who_writes_down_what_was_said() {
    for session in [
        json!({"audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}),
        json!({"input_audio_transcription": {"model": "gpt-4o-transcribe"}}),
    ] {
        let mut socket = Socket::realtime();
        socket.say(&json!({"type": "session.created", "session": session}));
        socket.say(&json!({"type": "conversation.item.input_audio_transcription.completed",
            "usage": {"type": "tokens", "total_tokens": 22, "input_tokens": 13,
                "input_token_details": {"text_tokens": 0, "audio_tokens": 13}, "output_tokens": 9}}));
        let rows = socket.end(Some(CLIENT));
        assert_eq!(rows[0].model_requested.as_deref(), Some("gpt-4o-transcribe"));
        assert!(rows[0].cost_nanousd.is_some());
    }
}

#[test]
fn what_is_billed_beside_the_tokens_is_read_where_only_one_provider_has_it() {
    let told = |host, target, body: &str| {
        let row = case(host, target, body).row();
        let counts: Vec<_> = row.detail.counts.clone().into_iter().collect();
        (row.usage, row.tokens.input, counts, row.cost_nanousd)
    };
    let units = |n| vec![("search_units".to_owned(), n)];
    let rerank = r#"{"id":"g","model":"cohere/rerank-v3.5","results":[],"usage":{"search_units":1,"cost":0.001}}"#;
    let told_of = told("openrouter.ai", "/api/v1/rerank", rerank);
    assert_eq!(told_of, (UsageState::Reported, None, units(1), Some(1_000_000)));
    let foundry = r#"{"id":"x","results":[],"meta":{"billed_units":{"search_units":2}}}"#;
    let told_of = told("corp.services.ai.azure.com", "/providers/cohere/v2/rerank", foundry);
    assert_eq!((told_of.0, told_of.2), (UsageState::Reported, units(2)));
    let fireworks = r#"{"object":"list","model":"accounts/fireworks/models/qwen3-reranker-8b","data":[],"usage":{"prompt_tokens":100,"completion_tokens":0,"total_tokens":100}}"#;
    let told_of = told("api.fireworks.ai", "/inference/v1/rerank", fireworks);
    assert_eq!(told_of, (UsageState::Reported, Some(100), vec![], Some(20_000)));
    let ocr = r#"{"pages":[],"model":"mistral-ocr-2505","usage_info":{"pages_processed":3}}"#;
    for (host, target) in [
        ("corp.services.ai.azure.com", "/providers/mistral/azure/ocr"),
        (
            "us-east5-aiplatform.googleapis.com",
            "/v1/projects/p/locations/l/publishers/mistralai/models/mistral-ocr-2505:rawPredict",
        ),
    ] {
        assert_eq!(told(host, target, ocr).2, [("pages".to_owned(), 3)], "{host}");
    }
}

#[test]
fn claude_by_bedrocks_messages_api_has_bedrocks_price() {
    let asked = |host, model: &str, answered: &str| {
        let body = json!({"id": "m", "type": "message", "model": answered, "content": [],
            "stop_reason": "end_turn", "usage": {"input_tokens": 600, "output_tokens": 200}});
        let request = json!({"model": model}).to_string().into_bytes();
        Case { request, ..case(host, "/anthropic/v1/messages", &body.to_string()) }.row()
    };
    let mantle = "bedrock-mantle.us-east-1.api.aws";
    let row = asked(mantle, "anthropic.claude-haiku-4-5", "claude-haiku-4-5-20251001");
    assert_eq!(
        (row.cost_nanousd, row.cost_estimated),
        (Some(600_000 + 1_000_000), false),
        "{row:?}"
    );
    let arn = "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-7";
    let row = asked("bedrock-runtime.us-east-1.amazonaws.com", arn, "claude-opus-4-7");
    assert_eq!(row.model_requested.as_deref(), Some("us.anthropic.claude-opus-4-7"));
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(3_300_000 + 5_500_000), false));
}
