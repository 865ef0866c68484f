use proptest::prelude::*;

use super::*;
use crate::meter::http::Headers;
use crate::meter::usage::Tokens;

/// One exchange as data.
#[derive(Clone)]
struct Case {
    host: &'static str,
    method: &'static str,
    target: &'static str,
    request: Vec<u8>,
    request_headers: Vec<(&'static str, &'static str)>,
    status: u16,
    media: &'static str,
    response_headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            host: "api.anthropic.com",
            method: "POST",
            target: "/v1/messages?beta=true",
            request: br#"{"model":"claude-sonnet-4-5","stream":true,"messages":[]}"#.to_vec(),
            request_headers: Vec::new(),
            status: 200,
            media: "application/json",
            response_headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_521_600_000 + ms).unwrap() // 2026-11-24T12:00:00Z
}

fn headers(pairs: &[(&str, &str)]) -> Headers {
    Headers(pairs.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect())
}

impl Case {
    fn start(&self) -> Exchange {
        let start = ExchangeStart {
            id: Uuid::nil(),
            at: at(0),
            host: self.host.to_owned(),
            port: 443,
            protocol: Protocol::H1,
        };
        let head = RequestHead {
            method: self.method.to_owned(),
            target: self.target.to_owned(),
            headers: headers(&self.request_headers),
            ..RequestHead::default()
        };
        Exchange::new(start, &head)
    }

    /// Up to the response's body, which comes in these pieces.
    fn feed(&self, pieces: &[&[u8]]) -> Exchange {
        let mut exchange = self.start();
        for chunk in self.request.chunks(7) {
            exchange.request_body(chunk);
        }
        exchange.request_end();
        let mut named = vec![("content-type", self.media)];
        named.extend(&self.response_headers);
        exchange.response(&ResponseHead { status: self.status, headers: headers(&named) }, at(40));
        for piece in pieces {
            exchange.response_body(piece, at(50));
        }
        exchange
    }

    fn row_of(&self, pieces: &[&[u8]]) -> Row {
        let mut exchange = self.feed(pieces);
        exchange.response_end(at(100));
        exchange.row(&Book::builtin())
    }

    fn row(&self) -> Row {
        self.row_of(&[&self.body])
    }

    /// The row when the body is cut after `len` bytes by `who`.
    fn cut(&self, len: usize, who: Side) -> Row {
        let mut exchange = self.feed(&[&self.body[..len]]);
        exchange.cut(Cut::Eof(who), at(100));
        exchange.row(&Book::builtin())
    }
}

fn sse(events: &[&str]) -> Vec<u8> {
    events
        .iter()
        .map(|data| {
            let value: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
            match value.get("type").and_then(|t| t.as_str()) {
                Some(name) => format!("event: {name}\ndata: {data}\n\n"),
                None => format!("data: {data}\n\n"),
            }
        })
        .collect::<String>()
        .into_bytes()
}

fn anthropic_stream() -> Case {
    Case {
        media: "text/event-stream; charset=utf-8",
        body: sse(&[
            r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929","content":[],"usage":{"input_tokens":1000,"cache_creation_input_tokens":200,"cache_read_input_tokens":3000,"cache_creation":{"ephemeral_5m_input_tokens":200,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard","inference_geo":"not_available"}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"say \"usage\": {\"output_tokens\": 9}"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":100,"input_tokens":null}}"#,
            r#"{"type":"some_future_event","usage":{"output_tokens":7}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":500,"output_tokens_details":{"thinking_tokens":50},"server_tool_use":null}}"#,
            r#"{"type":"message_stop"}"#,
        ]),
        ..Case::default()
    }
}

fn chat_stream() -> Case {
    Case {
        host: "api.openai.com",
        target: "/v1/chat/completions",
        request: br#"{"stream":true,"model":"gpt-4o-mini","stream_options":{"include_usage":true}}"#.to_vec(),
        media: "text/event-stream",
        body: sse(&[
            r#"{"id":"c1","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","service_tier":"default","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"usage":null,"obfuscation":"x"}"#,
            r#"{"id":"c1","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
            r#"{"id":"c1","object":"chat.completion.chunk","model":"gpt-4o-mini-2024-07-18","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":400,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":20}}}"#,
            "[DONE]",
        ]),
        ..Case::default()
    }
}

fn responses_stream() -> Case {
    Case {
        host: "api.openai.com",
        target: "/v1/responses",
        request: br#"{"model":"gpt-6-astra","stream":true,"service_tier":"auto","prompt_cache_options":{"ttl":"12h"}}"#.to_vec(),
        media: "text/event-stream",
        body: sse(&[
            r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","model":"gpt-6-astra","service_tier":"auto","status":"in_progress","usage":null,"error":null}}"#,
            r#"{"type":"response.output_text.delta","sequence_number":1,"delta":"hi"}"#,
            r#"{"type":"response.completed","sequence_number":2,"response":{"id":"resp_1","model":"gpt-6-astra-2026-09-01","service_tier":"flex","status":"completed","error":null,"output":[{"type":"web_search_call"},{"type":"message","content":[]}],"usage":{"input_tokens":2000,"input_tokens_details":{"cached_tokens":500,"cache_write_tokens":1000},"output_tokens":100,"output_tokens_details":{"reasoning_tokens":60},"total_tokens":2100}}}"#,
        ]),
        ..Case::default()
    }
}

fn gemini_stream() -> Case {
    let chunk = |rest: &str| format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}}{rest}"#);
    let body = [
        chunk(r#"}],"usageMetadata":{"promptTokenCount":100,"totalTokenCount":110,"thoughtsTokenCount":10},"modelVersion":"gemini-2.5-pro","responseId":"r1"}"#),
        chunk(r#","finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":20,"thoughtsTokenCount":30,"toolUsePromptTokenCount":7,"totalTokenCount":157},"modelVersion":"gemini-2.5-pro","responseId":"r1"}"#),
    ];
    Case {
        host: "generativelanguage.googleapis.com",
        target: "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=AIzaSecret",
        request: br#"{"contents":[]}"#.to_vec(),
        media: "text/event-stream",
        body: body.iter().map(|data| format!("data: {data}\r\n\r\n")).collect::<String>().into_bytes(),
        ..Case::default()
    }
}

fn gemini_array() -> Case {
    let stream = gemini_stream();
    let text = String::from_utf8(stream.body).unwrap();
    let items: Vec<&str> = text.split("\r\n\r\n").filter_map(|l| l.strip_prefix("data: ")).collect();
    Case {
        target: "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        media: "application/json; charset=UTF-8",
        body: format!("[{}]", items.join("\r\n,")).into_bytes(),
        ..stream
    }
}

fn gemini_tokens() -> Tokens {
    Tokens {
        input: Some(67),
        cache_read: Some(40),
        output: Some(50),
        reasoning: Some(30),
        ..Tokens::default()
    }
}

fn streams() -> Vec<Case> {
    vec![anthropic_stream(), chat_stream(), responses_stream(), gemini_stream(), gemini_array()]
}

#[test]
fn anthropic_stream_is_cumulative() {
    let row = anthropic_stream().row();
    assert_eq!(row.tokens, Tokens {
        input: Some(1000),
        cache_read: Some(3000),
        cache_write_5m: Some(200),
        cache_write_1h: Some(0),
        output: Some(500),
        reasoning: Some(50),
        ..Tokens::default()
    });
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
fn every_split_point_gives_the_same_row() {
    for case in streams() {
        let whole = case.row();
        for at in 0..case.body.len() {
            let (a, b) = case.body.split_at(at);
            assert_eq!(case.row_of(&[a, b]), whole, "{} split at {at}", case.target);
        }
        let bytes: Vec<&[u8]> = case.body.chunks(1).collect();
        assert_eq!(case.row_of(&bytes), whole);
    }
}

#[test]
fn a_cut_keeps_what_is_known_and_says_so() {
    for case in streams() {
        let whole = case.row();
        for len in 0..case.body.len() {
            let row = case.cut(len, Side::Server);
            match row.completeness {
                // Everything had been said.
                Completeness::Complete => {
                    assert_eq!((row.tokens, row.usage), (whole.tokens, whole.usage));
                    assert_eq!(row.error_class, None);
                }
                Completeness::Interrupted => {
                    assert_eq!(row.error_class.as_deref(), Some("upstream_cut"));
                    let sure = row.cost_nanousd.is_some() && !row.cost_estimated;
                    assert!(!sure || row.tokens == whole.tokens, "{len}: {row:?}");
                }
                Completeness::Open | Completeness::Lossy => panic!("{row:?}"),
            }
        }
    }
}

#[test]
fn anthropic_cut_at_every_event() {
    let case = anthropic_stream();
    let text = String::from_utf8(case.body.clone()).unwrap();
    let ends: Vec<usize> = text.match_indices("\n\n").map(|(at, _)| at + 2).collect();
    // Events: start, block start, ping, block delta, block stop, delta, future, delta, stop.
    for (event, (output, state)) in [
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (None, UsageState::Partial),
        (Some(100), UsageState::Partial),
        (Some(100), UsageState::Partial),
        (Some(500), UsageState::Reported),
        (Some(500), UsageState::Reported),
    ]
    .into_iter()
    .enumerate()
    {
        let row = case.cut(ends[event], Side::Client);
        assert_eq!((row.tokens.output, row.usage), (output, state), "after event {event}");
        assert_eq!(row.tokens.input, Some(1000));
        assert_eq!(row.cost_estimated, state == UsageState::Partial);
        let complete = event == 8;
        assert_eq!(row.completeness == Completeness::Complete, complete);
        assert_eq!(row.error_class.is_none(), complete);
    }
    assert_eq!(case.cut(0, Side::Client).usage, UsageState::Absent);
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
        ("openrouter.ai", r#"{"prompt_tokens":8,"completion_tokens":3,"cost":1e-5,"is_byok":true,"cost_details":{"upstream_inference_cost":0.0002}}"#, 210_000),
        ("api.x.ai", r#"{"prompt_tokens":8,"completion_tokens":3,"cost_in_usd_ticks":158500}"#, 15_850),
        ("api.perplexity.ai", r#"{"prompt_tokens":8,"completion_tokens":3,"cost":{"total_cost":0.006}}"#, 6_000_000),
    ] {
        let case = Case {
            host,
            target: "/v1/chat/completions",
            body: format!(r#"{{"model":"x","choices":[{{"finish_reason":"stop"}}],"usage":{usage}}}"#).into_bytes(),
            ..Case::default()
        };
        let row = case.row();
        assert_eq!(row.cost_nanousd, Some(expected), "{host}");
        assert_eq!(row.provider_cost_nanousd, Some(expected));
        assert_eq!(row.price_rule.as_deref(), Some("provider-reported"));
    }
}

#[test]
fn groq_says_its_usage_twice() {
    let usage = r#"{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11}"#;
    let mut case = chat_stream();
    case.host = "api.groq.com";
    case.body = sse(&[
        &format!(r#"{{"object":"chat.completion.chunk","choices":[{{"finish_reason":"stop"}}],"x_groq":{{"id":"req_1","usage":{usage}}}}}"#),
        &format!(r#"{{"object":"chat.completion.chunk","choices":[],"usage":{usage}}}"#),
        "[DONE]",
    ]);
    let row = case.row();
    assert_eq!((row.tokens.input, row.tokens.output), (Some(8), Some(3)));
    assert_eq!(row.provider_request_id.as_deref(), Some("req_1"));
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
fn errors_have_classes_and_no_cost() {
    let anthropic = |kind: &str| format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"m"}},"request_id":"req_9"}}"#);
    let openai = |kind: &str, code: &str| format!(r#"{{"error":{{"message":"m","type":"{kind}","param":null,"code":"{code}"}}}}"#);
    for (status, body, expected) in [
        (429, anthropic("rate_limit_error"), "rate_limit"),
        (529, anthropic("overloaded_error"), "overloaded"),
        (500, anthropic("api_error"), "server_error"),
        (401, anthropic("authentication_error"), "auth"),
        (402, anthropic("billing_error"), "billing"),
        (404, anthropic("not_found_error"), "not_found"),
        (413, anthropic("request_too_large"), "too_large"),
        (504, anthropic("timeout_error"), "timeout"),
        // The body knows better than the status.
        (401, anthropic("invalid_request_error"), "bad_request"),
        (418, anthropic("brand_new_error"), "bad_request"),
        (503, "<html>".to_owned(), "overloaded"),
        (502, String::new(), "server_error"),
        (429, openai("insufficient_quota", "insufficient_quota"), "billing"),
        (429, openai("requests", "rate_limit_exceeded"), "rate_limit"),
        (400, openai("invalid_request_error", "context_length_exceeded"), "too_large"),
    ] {
        let case = Case { status, body: body.clone().into_bytes(), ..Case::default() };
        let row = case.row();
        assert_eq!(row.error_class.as_deref(), Some(expected), "{status} {body}");
        assert_eq!((row.cost_nanousd, row.usage), (None, UsageState::Absent));
        assert_eq!(row.completeness, Completeness::Complete);
    }
    let gemini = Case {
        status: 429,
        body: br#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED"}}]"#.to_vec(),
        ..gemini_array()
    };
    assert_eq!(gemini.row().error_class.as_deref(), Some("rate_limit"));
}

#[test]
fn an_error_inside_a_stream_keeps_the_usage_before_it() {
    let mut case = anthropic_stream();
    let text = String::from_utf8(case.body).unwrap();
    let start = text.split_inclusive("\n\n").next().unwrap();
    let error = r#"event: error
data: {"type":"error","error":{"type":"overloaded_error","message":"m"}}

"#;
    case.body = format!("{start}{error}").into_bytes();
    let row = case.row();
    assert_eq!(row.error_class.as_deref(), Some("overloaded"));
    assert_eq!(row.usage, UsageState::Partial);
    assert_eq!((row.tokens.input, row.tokens.output), (Some(1000), None));
    assert!(row.cost_estimated);

    let mut case = responses_stream();
    case.body = sse(&[
        r#"{"type":"response.failed","response":{"id":"r","model":"gpt-6-astra","error":{"code":"server_error"},"usage":null}}"#,
    ]);
    let row = case.row();
    assert_eq!(row.error_class.as_deref(), Some("server_error"));
    assert_eq!((row.usage, row.cost_nanousd), (UsageState::Absent, None));
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
    let codex = Case { host: "chatgpt.com", target: "/backend-api/codex/responses", ..responses_stream() };
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
fn the_row_is_open_until_the_end() {
    let case = anthropic_stream();
    let mut exchange = case.start();
    let open = exchange.row(&Book::builtin());
    assert_eq!(open.completeness, Completeness::Open);
    assert_eq!((open.ended_at, open.cost_nanousd, open.response_bytes), (None, None, None));
    assert!(open.billable && !exchange.is_finished());
    exchange.cut(Cut::Eof(Side::Server), at(9));
    let row = exchange.row(&Book::builtin());
    assert_eq!((row.id, row.error_class.as_deref()), (open.id, Some("network")));
    // The first end stands.
    exchange.response_end(at(99));
    exchange.lossy(GaveUp::Overrun, at(99));
    assert_eq!(exchange.row(&Book::builtin()), row);
}

#[test]
fn an_early_answer_ends_the_exchange_before_the_upload() {
    let case = Case { status: 413, ..Case::default() };
    let mut exchange = case.start();
    exchange.request_body(br#"{"model":"claude-opus-5-5","messages":[{"model":"a"#);
    exchange.response(&ResponseHead { status: 413, ..ResponseHead::default() }, at(5));
    exchange.response_end(at(6));
    exchange.request_body(br#"b"},{"model":"x"}"#);
    exchange.request_end();
    let row = exchange.row(&Book::builtin());
    assert_eq!(row.model_requested.as_deref(), Some("claude-opus-5-5"));
    assert_eq!(row.error_class.as_deref(), Some("too_large"));
    assert_eq!(row.request_bytes, Some(67));
}

#[test]
fn lossy_says_why_and_keeps_what_was_read() {
    let case = anthropic_stream();
    let mut exchange = case.feed(&[&case.body[..600]]);
    exchange.lossy(GaveUp::Overrun, at(70));
    let row = exchange.row(&Book::builtin());
    assert_eq!(row.completeness, Completeness::Lossy);
    assert_eq!(row.completeness_reason.as_deref(), Some("the observer fell behind the bytes"));
    assert_eq!(row.tokens.input, Some(1000));
}

#[test]
fn upgraded_connections_are_counted_and_not_read() {
    let mut case = responses_stream();
    case.method = "GET";
    case.request_headers = vec![("upgrade", "WebSocket")];
    let mut exchange = case.start();
    exchange.request_end();
    exchange.response(&ResponseHead { status: 101, ..ResponseHead::default() }, at(5));
    exchange.upgraded(at(5));
    exchange.tunnelled(Side::Client, b"12345");
    exchange.tunnelled(Side::Server, b"123");
    exchange.cut(Cut::Eof(Side::Client), at(60));
    let row = exchange.row(&Book::builtin());
    assert_eq!((row.protocol, row.completeness), (Protocol::Ws, Completeness::Lossy));
    assert_eq!((row.request_bytes, row.response_bytes), (Some(5), Some(3)));
    assert!(row.billable && row.error_class.is_none());
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
fn a_clock_that_goes_backwards_gives_no_negative_duration() {
    let mut exchange = anthropic_stream().start();
    exchange.response_end(at(-5000));
    assert_eq!(exchange.row(&Book::builtin()).duration_ms, Some(0));
}

/// JSON with the field names that the readers look at, in the wrong places and types.
fn odd_json() -> impl Strategy<Value = serde_json::Value> {
    let names = vec![
        "type", "usage", "message", "model", "id", "error", "delta", "response", "input_tokens",
        "output_tokens", "prompt_tokens", "completion_tokens", "total_tokens", "iterations", "code",
        "cache_creation", "prompt_tokens_details", "cached_tokens", "usageMetadata", "candidates",
        "promptTokenCount", "totalTokenCount", "cost", "output", "choices", "x_groq", "service_tier",
    ];
    let words = vec!["message", "message_start", "message_delta", "error", "response.completed", ""];
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        proptest::sample::select(words).prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        let name = proptest::sample::select(names.clone()).prop_map(str::to_owned);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(name, inner, 0..8)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_splits_give_the_same_row(index in 0usize..5, cuts in proptest::collection::vec(0usize..4000, 0..12)) {
        let case = &streams()[index];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (case.body.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&case.body[from..cut]);
            from = cut;
        }
        pieces.push(&case.body[from..]);
        prop_assert_eq!(case.row_of(&pieces), case.row());
    }

    #[test]
    fn odd_json_never_panics(values in proptest::collection::vec(odd_json(), 1..4), index in 0usize..5, events in any::<bool>()) {
        let mut case = streams()[index].clone();
        let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        case.media = if events { "text/event-stream" } else { "application/json" };
        case.body = if events { sse(&texts) } else { texts.join("\n").into_bytes() };
        case.request = texts.concat().into_bytes();
        let row = case.row();
        prop_assert!(row.cost_nanousd.is_none_or(|cost| cost >= 0 || row.provider_cost_nanousd == Some(cost)));
    }

    #[test]
    fn garbage_never_panics(body in proptest::collection::vec(any::<u8>(), 0..300), target in ".{0,40}", index in 0usize..5) {
        let mut case = streams()[index].clone();
        case.body = body.clone();
        case.request = body;
        case.row();
        let start = ExchangeStart { id: Uuid::nil(), at: at(0), host: target.clone(), port: 1, protocol: Protocol::H2 };
        let head = RequestHead { method: target.clone(), target, ..RequestHead::default() };
        let _ = Exchange::new(start, &head).row(&Book::builtin());
    }
}
