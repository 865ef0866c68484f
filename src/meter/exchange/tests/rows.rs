//! What is read from responses of each shape.

use super::shapes::{Shape, case, streamed, tokens};
use super::*;

#[test]
fn anthropic_stream_is_cumulative() {
    let row = anthropic_stream().row();
    assert_eq!(
        row.tokens,
        Tokens {
            input: Some(1000),
            cache_read: Some(3000),
            cache_write_5m: Some(200),
            cache_write_1h: Some(0),
            output: Some(500),
            reasoning: Some(50),
            ..Tokens::default()
        }
    );
    assert_eq!(row.cost_nanousd, Some(12_150_000));
    assert!(!row.cost_estimated, "{row:?}");
    assert_eq!(row.usage, UsageState::Reported);
    assert_eq!(row.completeness, Completeness::Complete);
    assert_eq!(row.surface.as_deref(), Some("anthropic.messages"));
    assert_eq!(row.model_requested.as_deref(), Some("claude-sonnet-4-5"));
    assert_eq!(row.model.as_deref(), Some("claude-sonnet-4-5-20250929"));
    assert_eq!((row.stream, row.status, row.error_class), (Some(true), Some(200), None));
    assert_eq!((row.ttfb_ms, row.duration_ms), (Some(40), Some(100)));
    assert_eq!(row.path, "/v1/messages");
    assert!(row.billable);
}

#[test]
fn openai_chat_subtracts_what_is_cached() {
    let row = chat_stream().row();
    assert_eq!(row.tokens.input, Some(600));
    assert_eq!(row.tokens.cache_read, Some(400));
    assert_eq!((row.tokens.output, row.tokens.reasoning), (Some(100), Some(20)));
    // 600×0.15 + 400×0.075 + 100×0.60
    assert_eq!(row.cost_nanousd, Some(180_000));
    assert_eq!(row.provider_request_id.as_deref(), Some("c1"));
}

#[test]
fn openai_responses_takes_the_tier_of_the_terminal_event() {
    let row = responses_stream().row();
    assert_eq!(row.tier.as_deref(), Some("flex"));
    assert_eq!(row.tokens.input, Some(500));
    assert_eq!(row.tokens.cache_write_other, Some(1000));
    assert_eq!(row.web_searches, Some(1));
    // flex: 500×5 + 500×0.50 + 1000×12.50 (12 h) + 100×25, and a search at 0.01 dollars.
    assert_eq!(row.cost_nanousd, Some(2_500_000 + 250_000 + 12_500_000 + 2_500_000 + 10_000_000));
    assert!(!row.cost_estimated, "{row:?}");
}

#[test]
fn gemini_output_is_what_the_total_leaves() {
    for case in [gemini_stream(), gemini_array()] {
        let row = case.row();
        assert_eq!(row.tokens, gemini_tokens());
        assert_eq!(row.model_requested.as_deref(), Some("gemini-2.5-pro"));
        assert_eq!(row.stream, Some(true));
        assert_eq!(row.usage, UsageState::Reported);
        let text = serde_json::to_string(&row).unwrap();
        assert!(!text.contains("AIza"), "{text}");
    }
}

#[test]
fn json_documents() {
    let chat = |host, body: &str| Case {
        host,
        target: "/v1/chat/completions",
        request: br#"{"model":"m"}"#.to_vec(),
        body: body.as_bytes().to_vec(),
        ..Case::default()
    };
    let tokens = |input, read, output, reasoning| (Some(input), read, Some(output), reasoning);
    for (name, case, expected) in [
        ("anthropic", Case {
            body: br#"{"id":"m","type":"message","model":"claude-opus-5-5","content":[{"type":"text","text":"\"usage\":{}"}],"usage":{"input_tokens":10,"output_tokens":5,"cache_read_input_tokens":null}}"#.to_vec(),
            ..Case::default()
        }, tokens(10, None, 5, None)),
        ("xai: reasoning outside", chat("api.x.ai", r#"{"object":"chat.completion","model":"grok-4.7","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":30,"completion_tokens":9,"total_tokens":139,"prompt_tokens_details":{"cached_tokens":10},"completion_tokens_details":{"reasoning_tokens":100}}}"#),
            tokens(20, Some(10), 109, Some(100))),
        ("openai: reasoning inside", chat("api.openai.com", r#"{"usage":{"prompt_tokens":30,"completion_tokens":109,"total_tokens":139,"completion_tokens_details":{"reasoning_tokens":100}}}"#),
            tokens(30, None, 109, Some(100))),
        ("deepseek, after keep-alive lines", chat("api.deepseek.com", "\n\n\n{\"usage\":{\"prompt_tokens\":30,\"prompt_cache_hit_tokens\":10,\"prompt_cache_miss_tokens\":20,\"completion_tokens\":4,\"total_tokens\":34}}"),
            tokens(20, Some(10), 4, None)),
        ("together", chat("api.together.ai", r#"{"usage":{"prompt_tokens":30,"completion_tokens":4,"cached_tokens":5}}"#),
            tokens(25, Some(5), 4, None)),
        ("responses", Case {
            host: "api.openai.com",
            target: "/v1/responses",
            body: br#"{"id":"resp","object":"response","status":"completed","error":null,"model":"gpt-5","usage":{"input_tokens":8,"output_tokens":3,"input_tokens_details":{"cached_tokens":2}}}"#.to_vec(),
            ..Case::default()
        }, tokens(6, Some(2), 3, None)),
        ("code assist", Case {
            host: "cloudcode-pa.googleapis.com",
            target: "/v1internal:generateContent",
            body: br#"{"response":{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":"8","candidatesTokenCount":3,"thoughtsTokenCount":2},"modelVersion":"gemini-2.5-pro"},"traceId":"t"}"#.to_vec(),
            ..Case::default()
        }, tokens(8, None, 5, Some(2))),
        ("cohere", Case {
            host: "api.cohere.com",
            target: "/v2/chat",
            body: br#"{"id":"c","message":{"role":"assistant"},"usage":{"billed_units":{"input_tokens":8.0,"output_tokens":3.0},"tokens":{"input_tokens":99}}}"#.to_vec(),
            ..Case::default()
        }, tokens(8, None, 3, None)),
        ("an unknown gateway", Case {
            host: "llm.corp.example",
            target: "/ask",
            body: br#"{"object":"chat.completion","model":"gpt-4o","usage":{"prompt_tokens":8,"completion_tokens":3}}"#.to_vec(),
            ..Case::default()
        }, tokens(8, None, 3, None)),
    ] {
        let row = case.row();
        let t = row.tokens;
        assert_eq!((t.input, t.cache_read, t.output, t.reasoning), expected, "{name}");
        assert_eq!(row.usage, UsageState::Reported, "{name}");
        assert!(row.billable, "{name}");
    }
}

#[test]
fn what_the_provider_charged_beats_the_list() {
    for (host, usage, expected) in [
        ("openrouter.ai", r#"{"prompt_tokens":8,"completion_tokens":3,"cost":0.00123}"#, 1_230_000),
        (
            "openrouter.ai",
            r#"{"prompt_tokens":8,"completion_tokens":3,"cost":1e-5,"is_byok":true,"cost_details":{"upstream_inference_cost":0.0002}}"#,
            210_000,
        ),
        (
            "api.x.ai",
            r#"{"prompt_tokens":8,"completion_tokens":3,"cost_in_usd_ticks":158500}"#,
            15_850,
        ),
        (
            "api.perplexity.ai",
            r#"{"prompt_tokens":8,"completion_tokens":3,"cost":{"total_cost":0.006}}"#,
            6_000_000,
        ),
        (
            "api.deepinfra.com",
            r#"{"prompt_tokens":8,"completion_tokens":3,"estimated_cost":0.0001}"#,
            100_000,
        ),
    ] {
        let case = Case {
            host,
            target: "/v1/chat/completions",
            body: format!(
                r#"{{"model":"x","choices":[{{"finish_reason":"stop"}}],"usage":{usage}}}"#
            )
            .into_bytes(),
            ..Case::default()
        };
        let row = case.row();
        assert_eq!(row.cost_nanousd, Some(expected), "{host}");
        assert_eq!(row.provider_cost_nanousd, Some(expected));
        assert_eq!(row.price_rule.as_deref(), Some("provider-reported"));
    }
}

#[test]
fn what_can_t_be_a_charge_is_none() {
    for told in [
        r#""cost":-1000"#,
        r#""cost":{"total_cost":-1}"#,
        // The fee of a request whose provider charges beside it.
        r#""cost":0,"is_byok":true"#,
        r#""cost":1e-5,"is_byok":true,"cost_details":{"upstream_inference_cost":null}"#,
    ] {
        let usage = format!(r#"{{"prompt_tokens":8,"completion_tokens":3,{told}}}"#);
        let body =
            format!(r#"{{"model":"x","choices":[{{"finish_reason":"stop"}}],"usage":{usage}}}"#);
        let row = Case {
            host: "openrouter.ai",
            target: "/v1/chat/completions",
            body: body.into_bytes(),
            ..Case::default()
        }
        .row();
        assert_eq!((row.cost_nanousd, row.provider_cost_nanousd), (None, None), "{told}");
    }
}

#[test]
fn what_a_gateway_charged_for_claude_beats_the_list() {
    let usage = |output: u32, cost: &str| {
        format!(r#""usage":{{"input_tokens":8,"output_tokens":{output},"cost":{cost}}}"#)
    };
    let whole = format!(
        r#"{{"type":"message","id":"m","model":"anthropic/claude-opus-5.5",{}}}"#,
        usage(3, r#"0.00001,"is_byok":true,"cost_details":{"upstream_inference_cost":0.00122}"#)
    );
    let begun = format!(
        r#"{{"type":"message_start","message":{{"id":"m","model":"anthropic/claude-opus-5.5",{}}}}}"#,
        usage(1, "0")
    );
    let last = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},{}}}"#,
        usage(3, "0.00123")
    );
    let credits = r#"{"type":"message","id":"m","model":"claude-opus-5.5","usage":{"input_tokens":8,"output_tokens":3},"copilot_usage":{"total_nano_aiu":123000000}}"#;
    let (router, messages) = ("openrouter.ai", "/api/v1/messages");
    for case in [
        case(router, messages, &whole),
        streamed(router, messages, &[&begun, &last, r#"{"type":"message_stop"}"#]),
        case("api.individual.githubcopilot.com", "/v1/messages", credits),
    ] {
        let row = case.row();
        assert_eq!(row.provider_cost_nanousd, Some(1_230_000), "{row:?}");
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(1_230_000), false));
        assert_eq!(row.price_rule.as_deref(), Some("provider-reported"));
    }
    // What the beginning says is no bill.
    let cut = streamed(router, messages, &[&begun]).row();
    assert_eq!(cut.provider_cost_nanousd, None, "{cut:?}");
}

#[test]
fn groq_says_its_usage_twice() {
    let usage = r#"{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11}"#;
    let mut case = chat_stream();
    case.host = "api.groq.com";
    case.body = sse(&[
        &format!(
            r#"{{"object":"chat.completion.chunk","choices":[{{"finish_reason":"stop"}}],"x_groq":{{"id":"req_1","usage":{usage}}}}}"#
        ),
        &format!(r#"{{"object":"chat.completion.chunk","choices":[],"usage":{usage}}}"#),
        "[DONE]",
    ]);
    let row = case.row();
    assert_eq!((row.tokens.input, row.tokens.output), (Some(8), Some(3)));
    assert_eq!(row.provider_request_id.as_deref(), Some("req_1"));
}

#[test]
fn text_completions_of_before_messages_are_rows_without_usage() {
    let whole = r#"{"type":"completion","id":"compl_1","completion":" Hi","stop_reason":"stop_sequence","model":"claude-2.1"}"#;
    let begun = r#"{"type":"completion","id":"compl_1","completion":" Hi","stop_reason":null,"model":"claude-2.1"}"#;
    for case in [
        case("api.anthropic.com", "/v1/complete", whole),
        streamed("api.anthropic.com", "/v1/complete", &[begun, r#"{"type":"ping"}"#, whole]),
    ] {
        let row = case.row();
        assert_eq!(row.surface.as_deref(), Some("anthropic.messages"));
        assert_eq!(row.model.as_deref(), Some("claude-2.1"));
        assert_eq!((row.usage, row.completeness), (UsageState::Absent, Completeness::Complete));
        assert!(row.billable);
    }
}

#[test]
fn a_stream_without_usage_is_absent_not_zero() {
    let mut case = chat_stream();
    case.body = sse(&[
        r#"{"object":"chat.completion.chunk","model":"gpt-4o-mini","choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}"#,
        "[DONE]",
    ]);
    let row = case.row();
    assert_eq!(row.usage, UsageState::Absent);
    assert_eq!(row.tokens, Tokens::default());
    assert_eq!(row.cost_nanousd, None);
    assert_eq!(row.cost_reason.as_deref(), Some("the response carried no usage"));
}

#[test]
fn a_redirect_is_no_error_and_lacks_nothing() {
    for status in [301, 302, 303, 307, 308] {
        let case = Case {
            status,
            media: "text/html",
            response_headers: vec![("location", "https://api.anthropic.com/v1/messages")],
            body: b"<html>moved</html>".to_vec(),
            ..Case::default()
        };
        let row = case.row();
        assert_eq!((row.billable, row.status, row.error_class), (true, Some(status), None));
        assert_eq!(
            (row.usage, row.cost_nanousd, row.cost_reason),
            (UsageState::Absent, None, None)
        );
    }
}

pub(super) fn shapes() -> Vec<Shape> {
    let body = r#"{"type":"message","model":"claude-opus-5-5","usage":{"input_tokens":1000,"output_tokens":100,"iterations":[{"type":"compaction","input_tokens":500,"output_tokens":10},{"type":"message","input_tokens":1000,"output_tokens":100},{"type":"advisor_message","model":"claude-haiku-4-5","input_tokens":200,"output_tokens":20}]}}"#;
    vec![Shape {
        name: "iterations of two models",
        case: case("api.anthropic.com", "/v1/messages", body),
        tokens: tokens(1700, 130),
        surface: "anthropic.messages",
    }]
}

#[test]
fn anthropic_iterations_are_priced_by_model() {
    let body = |iterations: &str| {
        format!(r#"{{"type":"message","model":"claude-opus-5-5","usage":{{"input_tokens":1000,"output_tokens":100,"iterations":{iterations}}}}}"#).into_bytes()
    };
    let cost = |iterations: &str| {
        let row = Case { body: body(iterations), ..Case::default() }.row();
        (row.tokens.input, row.cost_nanousd)
    };
    let main = r#"{"type":"message","input_tokens":1000,"output_tokens":100}"#;
    // 1000×4 + 100×20
    assert_eq!(cost(&format!("[{main}]")), (Some(1000), Some(6_000_000)));
    // Compaction comes on top: 500×4 + 10×20.
    let compaction = r#"{"type":"compaction","input_tokens":500,"output_tokens":10}"#;
    assert_eq!(cost(&format!("[{compaction},{main}]")), (Some(1500), Some(8_200_000)));
    // Another model has its own price: 200×1 + 20×5.
    let advisor = r#"{"type":"advisor_message","model":"claude-haiku-4-5","input_tokens":200,"output_tokens":20}"#;
    assert_eq!(cost(&format!("[{main},{advisor}]")), (Some(1200), Some(6_300_000)));
    // Entries that do not add up do not replace the top level.
    let odd = r#"{"type":"message","input_tokens":1,"output_tokens":1}"#;
    assert_eq!(cost(&format!("[{odd},{compaction}]")), (Some(1500), Some(8_200_000)));
    assert_eq!(cost("[{}, null, 3]").0, Some(1000));
}

#[test]
fn anthropic_iterations_are_below_or_above_a_price_step_each() {
    let row = |inputs: &[u64]| {
        let each =
            |input| format!(r#"{{"type":"message","input_tokens":{input},"output_tokens":100}}"#);
        let iterations = inputs.iter().map(each).collect::<Vec<_>>().join(",");
        let body = format!(
            r#"{{"type":"message","model":"claude-haiku-5-5","usage":{{"input_tokens":{},"output_tokens":{},"output_tokens_details":{{"thinking_tokens":7}},"iterations":[{iterations}]}}}}"#,
            inputs.iter().sum::<u64>(),
            inputs.len() * 100,
        );
        Case { body: body.into_bytes(), ..Case::default() }.row()
    };
    // 0.10 and 0.50 a million up to 100 000 of input, five times that above.
    for (inputs, cost, parts) in [
        (&[45_000, 45_000, 45_000][..], 13_500_000 + 150_000, 1),
        (&[45_000, 100_001], 4_500_000 + 50_000 + 50_000_500 + 250_000, 2),
        // Nothing to tell apart.
        (&[10, 20], 3_000 + 100_000, 0),
        (&[135_000], 67_500_000 + 250_000, 0),
    ] {
        let row = row(inputs);
        assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(cost), false), "{row:?}");
        assert_eq!(row.detail.parts.len(), parts, "{row:?}");
        assert_eq!(row.tokens.input, Some(inputs.iter().sum()));
        assert_eq!(row.tokens.reasoning, Some(7));
    }
}

#[test]
fn side_calls_and_polls_are_rows_that_are_not_billable() {
    let usage = br#"{"id":"r","object":"response","model":"gpt-5","input_tokens":14,"usage":{"input_tokens":8,"output_tokens":3}}"#;
    for (host, method, target) in [
        ("api.anthropic.com", "POST", "/v1/messages/count_tokens"),
        ("api.anthropic.com", "GET", "/v1/models"),
        ("api.anthropic.com", "POST", "/api/event_logging/v2/batch"),
        ("api.openai.com", "GET", "/v1/responses/resp_1"),
        ("api.openai.com", "POST", "/v1/responses/input_tokens"),
        ("generativelanguage.googleapis.com", "POST", "/v1beta/models/g:countTokens"),
    ] {
        let row = Case { host, method, target, body: usage.to_vec(), ..Case::default() }.row();
        assert!(!row.billable, "{target}");
        assert_eq!((row.usage, row.cost_nanousd), (UsageState::Absent, None), "{target}");
        assert_eq!((row.cost_reason, row.completeness), (None, Completeness::Complete));
    }
    let mut warm_up = responses_stream();
    warm_up.request = br#"{"model":"gpt-6-astra","generate":false}"#.to_vec();
    assert!(!warm_up.row().billable);
}

#[test]
fn subscriptions_are_marked_and_their_tokens_never_kept() {
    let mut case = anthropic_stream();
    case.request_headers = vec![
        ("authorization", "Bearer sk-ant-oat01-secret"),
        ("user-agent", "claude-cli/2.1.330 (external, sdk-cli)"),
        ("x-claude-code-session-id", "session-7"),
    ];
    case.response_headers = vec![("request-id", "req_42")];
    let exchange = case.feed(&[]);
    assert!(!format!("{exchange:?}").contains("secret"));
    let row = case.row();
    assert_eq!(row.billing, Billing::Subscription);
    assert_eq!(row.session.as_deref(), Some("session-7"));
    assert_eq!(row.client.as_deref(), Some("claude-code"));
    assert_eq!(row.provider_request_id.as_deref(), Some("req_42"));
    assert_eq!(row.cost_nanousd, Some(12_150_000));
    assert!(!serde_json::to_string(&row).unwrap().contains("secret"));
    case.request_headers[0].1 = "Bearer sk-ant-api03-secret";
    assert_eq!(case.row().billing, Billing::Metered);
    // Beyond the plan's limits, and in fast mode, Anthropic bills by use.
    case.request_headers[0].1 = "Bearer sk-ant-oat01-secret";
    for (told, billing) in [
        ("true", Billing::Metered),
        ("1", Billing::Metered),
        ("false", Billing::Subscription),
        ("", Billing::Subscription),
    ] {
        case.response_headers = vec![("anthropic-ratelimit-unified-overage-in-use", told)];
        assert_eq!(case.row().billing, billing, "{told}");
    }
    let text = String::from_utf8(case.body.clone()).unwrap();
    case.body = text.replace(r#""service_tier":"standard""#, r#""speed":"fast""#).into_bytes();
    assert_eq!((case.row().speed.as_deref(), case.row().billing), (Some("fast"), Billing::Metered));
    let codex =
        Case { host: "chatgpt.com", target: "/backend-api/codex/responses", ..responses_stream() };
    assert_eq!(codex.row().billing, Billing::Subscription);
}

#[test]
fn a_gateway_is_priced_from_the_list_as_an_estimate() {
    let case = Case { host: "llm.corp.example", ..anthropic_stream() };
    let row = case.row();
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(12_150_000), true));
    assert_eq!(row.provider, "llm.corp.example");
}

#[test]
fn a_wrong_or_missing_content_type_is_seen_through() {
    for case in [anthropic_stream(), gemini_array()] {
        let expected = case.row();
        for media in ["", "text/plain"] {
            let row = Case { media, ..case.clone() }.row();
            assert_eq!(row.tokens, expected.tokens, "{media}");
        }
    }
}

#[test]
fn names_that_a_provider_makes_up_are_bounded() {
    let long = "x".repeat(60_000);
    for (told, kept) in
        [("fast", true), ("a\\u001b]52;c;cm0=\\u0007", false), (long.as_str(), false)]
    {
        let mut case = anthropic_stream();
        let text = String::from_utf8(case.body.clone()).unwrap();
        let usage = format!(r#""speed":"{told}","inference_geo":"{told}""#);
        case.body = text.replace(r#""inference_geo":"not_available""#, &usage).into_bytes();
        let row = case.row();
        let kept = kept.then_some(told);
        assert_eq!((row.speed.as_deref(), row.geo.as_deref()), (kept, kept));
        assert_eq!(row.tokens.output, Some(500));
    }
}
