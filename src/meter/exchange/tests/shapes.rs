//! Every surface by what it says, whole and in pieces: the recorded shapes and their known counts.

use super::*;

/// A surface, a whole body of it, and what must come out.
pub(crate) struct Shape {
    pub(super) name: &'static str,
    pub(crate) case: Case,
    pub(super) tokens: Tokens,
    pub(super) surface: &'static str,
}

pub(super) fn tokens(input: u64, output: u64) -> Tokens {
    Tokens { input: Some(input), output: Some(output), ..Tokens::default() }
}

pub(super) fn case(host: &'static str, target: &'static str, body: &str) -> Case {
    Case {
        host,
        target,
        request: br#"{"model":"asked-for"}"#.to_vec(),
        body: body.as_bytes().to_vec(),
        ..Case::default()
    }
}

pub(super) fn streamed(host: &'static str, target: &'static str, events: &[&str]) -> Case {
    Case { media: "text/event-stream", body: sse(events), ..case(host, target, "") }
}

/// What was an image is told, and not what of that came out of the cache.
const XAI_IMAGES: &str = r#"{"object":"chat.completion","model":"grok-4.5","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":2000,"completion_tokens":10,"total_tokens":2010,"prompt_tokens_details":{"text_tokens":1500,"image_tokens":500,"cached_tokens":1800}}}"#;
const BEDROCK: &str = "bedrock-runtime.us-east-1.amazonaws.com";
const VERTEX: &str = "us-east5-aiplatform.googleapis.com";

pub(crate) fn shapes() -> Vec<Shape> {
    let elsewhere = [batches::shapes(), counted::shapes(), refusals::shapes(), rows::shapes()];
    plain().into_iter().chain(elsewhere.into_iter().flatten()).collect()
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn plain() -> Vec<Shape> {
    vec![
        Shape {
            name: "Converse: cached input is beside the input",
            case: case(
                BEDROCK,
                "/model/amazon.nova-lite-v1%3A0/converse",
                r#"{"output":{"message":{"content":[{"text":"\"usage\":{}"}]}},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":145,"cacheReadInputTokens":100,"cacheWriteInputTokens":30,"cacheDetails":[{"ttl":"1h","inputTokens":20},{"ttl":"5m","inputTokens":10}]},"metrics":{"latencyMs":9},"serviceTier":{"type":"default"}}"#,
            ),
            tokens: Tokens {
                cache_read: Some(100),
                cache_write_5m: Some(10),
                cache_write_1h: Some(20),
                ..tokens(10, 5)
            },
            surface: "bedrock.converse",
        },
        Shape {
            name: "Invoke: Anthropic's own body",
            case: case(
                BEDROCK,
                "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
                r#"{"id":"msg_bdrk_1","type":"message","model":"claude-sonnet-4-5-20250929","content":[],"stop_reason":"end_turn","usage":{"input_tokens":10,"cache_read_input_tokens":7,"output_tokens":5}}"#,
            ),
            tokens: Tokens { cache_read: Some(7), ..tokens(10, 5) },
            surface: "bedrock.invoke",
        },
        Shape {
            name: "Invoke: Nova's own body, caches beside the input",
            case: case(
                BEDROCK,
                "/model/amazon.nova-lite-v1%3A0/invoke",
                r#"{"output":{"message":{}},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15,"cacheReadInputTokenCount":100,"cacheWriteInputTokenCount":30}}"#,
            ),
            tokens: Tokens { cache_read: Some(100), cache_write_other: Some(30), ..tokens(10, 5) },
            surface: "bedrock.invoke",
        },
        Shape {
            name: "Invoke: caches that only the headers tell",
            case: Case {
                response_headers: vec![
                    ("x-amzn-bedrock-input-token-count", "10"),
                    ("x-amzn-bedrock-output-token-count", "5"),
                    ("x-amzn-bedrock-cache-read-input-token-count", "100"),
                    ("x-amzn-bedrock-cache-write-input-token-count", "30"),
                ],
                ..case(
                    BEDROCK,
                    "/model/amazon.nova-lite-v1%3A0/invoke",
                    r#"{"output":{"message":{}},"usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15}}"#,
                )
            },
            tokens: Tokens { cache_read: Some(100), cache_write_other: Some(30), ..tokens(10, 5) },
            surface: "bedrock.invoke",
        },
        Shape {
            name: "Invoke: a body without usage, counted in the headers",
            case: Case {
                response_headers: vec![
                    ("x-amzn-bedrock-input-token-count", "11"),
                    ("x-amzn-bedrock-output-token-count", "4"),
                ],
                ..case(BEDROCK, "/model/ai21.jamba/invoke", r#"{"choices":[{"text":"x"}]}"#)
            },
            tokens: tokens(11, 4),
            surface: "bedrock.invoke",
        },
        Shape {
            name: "Vertex: Claude as a stream",
            case: Case {
                host: VERTEX,
                target: "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict",
                ..anthropic_stream()
            },
            tokens: Tokens {
                cache_read: Some(3000),
                cache_write_5m: Some(200),
                cache_write_1h: Some(0),
                reasoning: Some(50),
                ..tokens(1000, 500)
            },
            surface: "anthropic.messages",
        },
        Shape {
            name: "Vertex: Gemini as an array",
            case: Case {
                host: VERTEX,
                target: "/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent",
                ..gemini_array()
            },
            tokens: gemini_tokens(),
            surface: "gemini.generate",
        },
        Shape {
            name: "Interactions: thoughts beside the output",
            case: streamed(
                "generativelanguage.googleapis.com",
                "/v1beta/interactions",
                &[
                    r#"{"event_type":"interaction.start","interaction":{"id":"i1","status":"in_progress"}}"#,
                    r#"{"event_type":"interaction.complete","interaction":{"id":"i1","model":"gemini-2.5-pro","usage":{"total_input_tokens":20,"total_cached_tokens":5,"total_output_tokens":9,"total_thought_tokens":4,"total_tool_use_tokens":2,"total_tokens":35}}}"#,
                ],
            ),
            tokens: Tokens { cache_read: Some(5), reasoning: Some(4), ..tokens(17, 13) },
            surface: "gemini.interactions",
        },
        Shape {
            name: "Azure: empty choices at the front, a deployment in the path",
            case: streamed(
                "corp.openai.azure.com",
                "/openai/deployments/my-gpt/chat/completions?api-version=2026-01-01",
                &[
                    r#"{"choices":[],"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}],"usage":null}"#,
                    r#"{"object":"chat.completion.chunk","model":"gpt-4o-2024-08-06","choices":[{"finish_reason":"stop"}],"usage":null}"#,
                    r#"{"object":"chat.completion.chunk","model":"gpt-4o-2024-08-06","choices":[],"usage":{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11}}"#,
                    "[DONE]",
                ],
            ),
            tokens: tokens(8, 3),
            surface: "openai.chat",
        },
        Shape {
            name: "Mistral: usage with the last choice",
            case: streamed(
                "api.mistral.ai",
                "/v1/chat/completions",
                &[
                    r#"{"object":"chat.completion.chunk","model":"mistral-large-latest","choices":[{"delta":{"content":"x"},"finish_reason":null}]}"#,
                    r#"{"object":"chat.completion.chunk","model":"mistral-large-latest","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":3,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":2}}}"#,
                    "[DONE]",
                ],
            ),
            tokens: Tokens { cache_read: Some(2), ..tokens(6, 3) },
            surface: "openai.chat",
        },
        Shape {
            name: "DeepSeek in Anthropic's shape",
            case: case(
                "api.deepseek.com",
                "/anthropic/v1/messages",
                r#"{"type":"message","model":"deepseek-chat","usage":{"input_tokens":8,"output_tokens":3}}"#,
            ),
            tokens: tokens(8, 3),
            surface: "anthropic.messages",
        },
        Shape {
            name: "Cohere as a stream",
            case: streamed(
                "api.cohere.com",
                "/v2/chat",
                &[
                    r#"{"type":"message-start","id":"c1"}"#,
                    r#"{"type":"content-delta","delta":{"message":{"content":{"text":"x"}}}}"#,
                    r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":8.0,"output_tokens":3.0},"tokens":{"input_tokens":99}}}}"#,
                    "[DONE]",
                ],
            ),
            tokens: tokens(8, 3),
            surface: "cohere.chat",
        },
        Shape {
            name: "Ollama's JSON lines",
            case: Case {
                media: "application/x-ndjson",
                ..case(
                    "ollama.com",
                    "/api/chat",
                    "{\"model\":\"qwen3\",\"message\":{\"content\":\"x\"},\"done\":false}\n{\"model\":\"qwen3\",\"done\":true,\"prompt_eval_count\":8,\"eval_count\":3}\n",
                )
            },
            tokens: tokens(8, 3),
            surface: "ollama.chat",
        },
        Shape {
            name: "Ollama on a host of the user's own",
            case: case(
                "gpu.corp.example",
                "/api/embed",
                r#"{"model":"nomic","embeddings":[[0.1]],"prompt_eval_count":8}"#,
            ),
            tokens: Tokens { input: Some(8), ..Tokens::default() },
            surface: "ollama.chat",
        },
        Shape {
            name: "Realtime: singular details, cached audio is not fresh audio",
            case: case(
                "api.openai.com",
                "/v1/responses",
                r#"{"type":"response.done","response":{"id":"r","usage":{"input_tokens":100,"output_tokens":30,"total_tokens":130,"input_token_details":{"cached_tokens":40,"text_tokens":50,"audio_tokens":50,"cached_tokens_details":{"text_tokens":10,"audio_tokens":30}},"output_token_details":{"text_tokens":10,"audio_tokens":20}}}}"#,
            ),
            tokens: Tokens {
                cache_read: Some(40),
                audio_input: Some(20),
                audio_output: Some(20),
                ..tokens(60, 30)
            },
            surface: "openai.responses",
        },
        Shape {
            name: "speech as a stream: all that comes out is audio",
            case: streamed(
                "api.openai.com",
                "/v1/audio/speech",
                &[
                    r#"{"type":"speech.audio.delta","audio":"AAAA"}"#,
                    r#"{"type":"speech.audio.done","usage":{"input_tokens":10,"output_tokens":1000,"total_tokens":1010}}"#,
                ],
            ),
            tokens: Tokens { audio_output: Some(1000), ..tokens(10, 1000) },
            surface: "openai.audio",
        },
        Shape {
            name: "xAI: of the images no more is fresh than of the prompt",
            case: case("api.x.ai", "/v1/chat/completions", XAI_IMAGES),
            tokens: Tokens { cache_read: Some(1800), image_input: Some(200), ..tokens(200, 10) },
            surface: "openai.chat",
        },
        Shape {
            name: "a host of the user's own that speaks Converse",
            case: case("llm.corp.example", "/x", r#"{"usage":{"inputTokens":8,"outputTokens":3}}"#),
            tokens: tokens(8, 3),
            surface: "bedrock.converse",
        },
        Shape {
            name: "embeddings",
            case: case(
                "api.openai.com",
                "/v1/embeddings",
                r#"{"object":"list","data":[{"embedding":"AAAA"}],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
            ),
            tokens: Tokens { input: Some(8), ..Tokens::default() },
            surface: "openai.embeddings",
        },
        Shape {
            name: "images",
            case: case(
                "api.openai.com",
                "/v1/images/generations",
                r#"{"created":1,"data":[{"b64_json":"AAAA"}],"usage":{"input_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40},"output_tokens":30,"total_tokens":80}}"#,
            ),
            tokens: Tokens { image_input: Some(40), image_output: Some(30), ..tokens(50, 30) },
            surface: "openai.images",
        },
        Shape {
            name: "images, streamed",
            case: streamed(
                "api.openai.com",
                "/v1/images/edits",
                &[
                    r#"{"type":"image_edit.partial_image","b64_json":"AA","partial_image_index":0,"size":"1024x1024"}"#,
                    r#"{"type":"image_edit.completed","b64_json":"AAAA","quality":"high","usage":{"input_tokens":50,"input_tokens_details":{"text_tokens":10,"image_tokens":40},"output_tokens":30,"total_tokens":80}}"#,
                ],
            ),
            tokens: Tokens { image_input: Some(40), image_output: Some(30), ..tokens(50, 30) },
            surface: "openai.images",
        },
    ]
}

#[test]
fn every_surface_counts_what_it_was_told() {
    for shape in shapes() {
        let row = shape.case.row();
        assert_eq!(row.tokens, shape.tokens, "{}", shape.name);
        assert_eq!(row.usage, UsageState::Reported, "{}", shape.name);
        assert_eq!(row.surface.as_deref(), Some(shape.surface), "{}", shape.name);
        assert!(row.billable, "{}", shape.name);
    }
}

#[test]
fn whatever_the_pieces_the_row_is_the_same() {
    for shape in shapes() {
        let whole = shape.case.row();
        let body = &shape.case.body;
        for at in 0..=body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(shape.case.row_of(&[a, b]), whole, "{}, cut at {at}", shape.name);
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(shape.case.row_of(&bytes), whole, "{}, bytewise", shape.name);
    }
}

#[test]
fn what_is_asked_in_the_path_is_the_model() {
    let bedrock = &shapes()[1].case.row();
    assert_eq!(
        bedrock.model_requested.as_deref(),
        Some("us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    );
    assert_eq!(bedrock.model.as_deref(), Some("claude-sonnet-4-5-20250929"));
    assert_eq!(bedrock.provider, "bedrock");
    assert_eq!(bedrock.response_id.as_deref(), Some("msg_bdrk_1"));
}

#[test]
fn a_background_response_counts_where_it_is_told() {
    let answer = |status: &str, background: bool, usage: &str| {
        Case {
        host: "api.openai.com",
        target: "/v1/responses/resp_1",
        method: "GET",
        request: Vec::new(),
        body: format!(
            r#"{{"id":"resp_1","object":"response","status":"{status}","background":{background},"model":"gpt-4o-mini","usage":{usage}}}"#
        )
        .into_bytes(),
        ..Case::default()
    }
    };
    let usage = r#"{"input_tokens":1000,"output_tokens":100}"#;
    let told = answer("completed", true, usage).row();
    assert!(told.billable);
    assert_eq!((told.tokens.input, told.cost_nanousd), (Some(1000), Some(210_000)));
    assert_eq!(told.response_id.as_deref(), Some("resp_1"));
    assert!(!answer("in_progress", true, "null").row().billable, "not yet told");
    assert!(!answer("completed", false, usage).row().billable, "told to whoever asked");
    // The same, read as the rest of a stream.
    let resumed = |background: bool| {
        let event = format!(
            r#"{{"type":"response.completed","response":{{"id":"resp_1","background":{background},"status":"completed","model":"gpt-4o-mini","usage":{usage}}}}}"#
        );
        let target = "/v1/responses/resp_1?stream=true&starting_after=7";
        Case { method: "GET", request: Vec::new(), ..streamed("api.openai.com", target, &[&event]) }
    };
    assert_eq!(resumed(true).row().cost_nanousd, Some(210_000));
    assert_eq!(resumed(true).row().response_id.as_deref(), Some("resp_1"));
    assert!(!resumed(false).row().billable);
}

#[test]
fn copilot_says_what_it_took() {
    let usage = r#""usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100},"copilot_usage":{"token_details":[],"total_nano_aiu":250000000}"#;
    let case = Case {
        response_headers: vec![("x-quota-snapshot-chat", "ent=300&rem=50.0")],
        ..case(
            "api.individual.githubcopilot.com",
            "/chat/completions",
            &format!(
                r#"{{"object":"chat.completion","model":"gpt-4o-mini","choices":[{{"finish_reason":"stop"}}],{usage}}}"#
            ),
        )
    };
    let row = case.row();
    assert_eq!((row.provider.as_str(), row.billing), ("copilot", Billing::Subscription));
    // A quarter of a credit, which is a cent.
    assert_eq!(row.provider_cost_nanousd, Some(2_500_000));
    assert_eq!(row.cost_nanousd, Some(2_500_000));
    assert_eq!(row.quota[0].used_bp, Some(5000));
    // What comes behind it takes nothing back.
    let told = r#"{"type":"response.completed","response":{"id":"r","model":"gpt-5","usage":{"input_tokens":1,"output_tokens":1}},"copilot_usage":{"total_nano_aiu":250000000}}"#;
    let events = [told, r#"{"type":"copilot.notice"}"#];
    let row = streamed("api.individual.githubcopilot.com", "/responses", &events).row();
    assert_eq!(row.provider_cost_nanousd, Some(2_500_000));
}

#[test]
fn claude_behind_copilot_is_priced_by_copilots_own_name() {
    let answer = r#"{"type":"message","id":"m","model":"claude-sonnet-4-6","usage":{"input_tokens":1000,"output_tokens":100}}"#;
    let case = case("api.individual.githubcopilot.com", "/v1/messages", answer);
    let row = Case { request: br#"{"model":"claude-sonnet-4.6"}"#.to_vec(), ..case }.row();
    assert_eq!(row.model.as_deref(), Some("claude-sonnet-4-6"));
    assert_eq!(row.cost_nanousd, Some(4_500_000));
}

#[test]
fn claude_in_a_region_of_vertex_costs_a_tenth_more() {
    let answer = r#"{"type":"message","id":"m","model":"claude-sonnet-4-6","usage":{"input_tokens":1000,"output_tokens":100,"inference_geo":"not_available"}}"#;
    let path =
        "/v1/projects/p/locations/l/publishers/anthropic/models/claude-sonnet-4-6:rawPredict";
    for (host, cost) in [
        ("aiplatform.googleapis.com", 4_500_000),
        ("europe-west1-aiplatform.googleapis.com", 4_950_000),
    ] {
        assert_eq!(case(host, path, answer).row().cost_nanousd, Some(cost), "{host}");
    }
}

#[test]
fn mistrals_regional_hosts_cost_a_tenth_more() {
    let answer = r#"{"object":"chat.completion","model":"mistral-large-latest","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}}"#;
    let [global, eu, us] =
        ["api.mistral.ai", "api.eu.mistral.ai", "api.us.mistral.ai"].map(|host| {
            let row = case(host, "/v1/chat/completions", answer).row();
            assert!(!row.cost_estimated, "{row:?}");
            row.cost_nanousd.unwrap()
        });
    assert_eq!((eu * 10, us * 10), (global * 11, global * 11));
}

#[test]
fn bedrock_names_its_requests() {
    let answer = r#"{"output":{},"stopReason":"end_turn","usage":{"inputTokens":10,"outputTokens":5,"totalTokens":15}}"#;
    let case = Case {
        response_headers: vec![("x-amzn-requestid", "11111111-2222")],
        ..case("bedrock-runtime.us-east-1.amazonaws.com", "/model/m/converse", answer)
    };
    assert_eq!(case.row().provider_request_id.as_deref(), Some("11111111-2222"));
}

#[test]
fn quotas_come_in_headers_and_in_frames() {
    let mut claude = anthropic_stream();
    claude.response_headers = vec![("anthropic-ratelimit-unified-5h-utilization", "0.42")];
    let told = &claude.row().quota[0];
    assert_eq!((told.used_bp, told.seen_at), (Some(4200), Some(at(40))));
    let mut codex = responses_stream();
    codex.host = "chatgpt.com";
    codex.target = "/backend-api/codex/responses";
    let frame = r#"{"type":"codex.rate_limits","plan_type":"plus","rate_limits":{"primary":{"used_percent":12.5,"window_minutes":300,"reset_at":1795608000}}}"#;
    codex.body.splice(0..0, sse(&[frame]));
    let row = codex.row();
    assert_eq!((row.quota[0].name.as_str(), row.quota[0].used_bp), ("5h", Some(1250)));
    assert_eq!(row.quota[0].plan.as_deref(), Some("plus"));
    assert_eq!(row.quota[0].seen_at, Some(at(50)));
    let buckets = case(
        "cloudcode-pa.googleapis.com",
        "/v1internal:retrieveUserQuota",
        r#"{"buckets":[{"modelId":"gemini-2.5-pro","remainingFraction":0.9}]}"#,
    );
    let row = buckets.row();
    assert_eq!((row.quota[0].used_bp, row.billable), (Some(1000), false));
    assert_eq!(row.quota[0].seen_at, Some(at(50)));
}

#[test]
fn cursor_is_seen_but_not_read() {
    let case = Case {
        media: "application/connect+proto",
        body: vec![0, 0, 0, 0, 2, 8, 1],
        ..case("agent.api5.cursor.sh", "/agent.v1.AgentService/Run", "")
    };
    let row = case.row();
    assert_eq!((row.billable, row.usage), (true, UsageState::Absent));
    assert!(row.cost_reason.unwrap().contains("published"));
}
