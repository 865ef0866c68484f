//! What only some of those say who speak OpenAI's chat.

use super::shapes::{case, streamed};
use super::*;

const GOOGLE: &str = "generativelanguage.googleapis.com";
const CHAT: &str = "/v1beta/openai/chat/completions";

/// Input, output, reasoning.
fn counted(row: &Row) -> [Option<u64>; 3] {
    [row.tokens.input, row.tokens.output, row.tokens.reasoning]
}

#[test]
fn googles_thoughts_are_in_its_total_only() {
    let answer = |model: &str, usage: &str| {
        format!(
            r#"{{"id":"g","object":"chat.completion","model":"{model}","choices":[{{"finish_reason":"stop","index":0}}],"usage":{{{usage}}}}}"#
        )
    };
    let thought = r#""completion_tokens":3,"prompt_tokens":9,"total_tokens":105"#;
    let row = case(GOOGLE, CHAT, &answer("gemini-3-flash-preview", thought)).row();
    assert_eq!(counted(&row), [Some(9), Some(96), Some(93)]);
    // 0.50 and 3 dollars per million.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(4_500 + 288_000), false), "{row:?}");
    let chunk = |completion: u64, total: u64, end: &str| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"x"}},"index":0{end}}}],"id":"g","model":"gemini-3-flash-preview","object":"chat.completion.chunk","usage":{{"completion_tokens":{completion},"prompt_tokens":9,"total_tokens":{total}}}}}"#
        )
    };
    let chunks = [chunk(1, 103, ""), chunk(3, 105, r#","finish_reason":"length""#)];
    let stream = streamed(GOOGLE, CHAT, &[&chunks[0], &chunks[1], "[DONE]"]).row();
    assert_eq!(counted(&stream), [Some(9), Some(96), Some(93)]);

    for (model, usage, expected) in [
        ("google/gemini-3-flash-preview", thought, [Some(9), Some(96), Some(93)]),
        // Nothing but thoughts.
        (
            "gemini-3-flash-preview",
            r#""prompt_tokens":9,"total_tokens":105"#,
            [Some(9), Some(96), Some(96)],
        ),
        // Who tells them is believed, inside the completion or beside it.
        (
            "google/gemini-2.5-pro",
            r#""prompt_tokens":9,"completion_tokens":96,"total_tokens":105,"completion_tokens_details":{"reasoning_tokens":93}"#,
            [Some(9), Some(96), Some(93)],
        ),
        (
            "google/gemini-2.5-pro",
            r#""prompt_tokens":9,"completion_tokens":3,"total_tokens":105,"completion_tokens_details":{"reasoning_tokens":93}"#,
            [Some(9), Some(96), Some(93)],
        ),
        (
            "gemini-2.5-flash-lite",
            r#""prompt_tokens":9,"completion_tokens":3,"total_tokens":12"#,
            [Some(9), Some(3), None],
        ),
        // Whatever else somebody counts in a total.
        ("not-gemini", thought, [Some(9), Some(3), None]),
    ] {
        let row = case("llm.corp.example", "/v1/chat/completions", &answer(model, usage)).row();
        assert_eq!(counted(&row), expected, "{model} {usage}");
    }

    let line = format!(
        r#"{{"id":"b","custom_id":"1","response":{{"status_code":200,"body":{}}}}}"#,
        answer("gemini-3-flash-preview", thought)
    );
    let batch = Case {
        method: "GET",
        media: "application/octet-stream",
        request: Vec::new(),
        ..case(GOOGLE, "/v1beta/openai/files/file-1/content", &line)
    };
    assert_eq!(counted(&batch.row()), [Some(9), Some(96), Some(93)]);
}

#[test]
fn moonshot_tells_its_usage_in_the_choice() {
    let chunk = |choice: &str, beside: &str| {
        format!(
            r#"{{"id":"m","object":"chat.completion.chunk","model":"kimi-k2.6","choices":[{choice}]{beside}}}"#
        )
    };
    let usage = r#""usage":{"prompt_tokens":1900,"completion_tokens":130,"total_tokens":2030,"cached_tokens":900}"#;
    let first = chunk(r#"{"index":0,"delta":{"content":"hi"},"finish_reason":null}"#, "");
    let last = chunk(&format!(r#"{{"index":0,"delta":{{}},"finish_reason":"stop",{usage}}}"#), "");
    let again = chunk("", &format!(",{usage}"));
    let told = |events: &[&str]| streamed("api.moonshot.ai", "/v1/chat/completions", events).row();
    for row in [told(&[&first, &last, "[DONE]"]), told(&[&first, &last, &again, "[DONE]"])] {
        let expected = Tokens {
            input: Some(1000),
            cache_read: Some(900),
            output: Some(130),
            ..Tokens::default()
        };
        assert_eq!((row.tokens, row.usage), (expected, UsageState::Reported), "{row:?}");
        // 0.95, 0.16 and 4 dollars per million.
        assert_eq!(row.cost_nanousd, Some(950_000 + 144_000 + 520_000));
    }
}

#[test]
fn groqs_streams_say_what_its_answers_say() {
    let chat = "/openai/v1/chat/completions";
    let models = r#""usage_breakdown":{"models":[{"model":"llama-3.3-70b-versatile","usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}},{"model":"openai/gpt-oss-120b","usage":{"prompt_tokens":500,"completion_tokens":50,"total_tokens":550}}]}"#;
    let usage = r#""usage":{"prompt_tokens":1500,"completion_tokens":150,"total_tokens":1650}"#;
    let named = r#""id":"c","model":"groq/compound","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#;
    let whole = format!(r#"{{"object":"chat.completion",{named},{usage},{models}}}"#);
    let last = format!(
        r#"{{"object":"chat.completion.chunk",{named},"x_groq":{{"id":"req_1",{usage},{models}}}}}"#
    );
    let whole = case("api.groq.com", chat, &whole).row();
    let stream = streamed("api.groq.com", chat, &[&last, "[DONE]"]).row();
    assert_eq!((stream.tokens, &stream.detail.parts), (whole.tokens, &whole.detail.parts));
    assert_eq!(stream.detail.parts.len(), 2);
    // 0.59 and 0.79 dollars per million, 0.15 and 0.60 of the other.
    let cost = 590_000 + 79_000 + 75_000 + 30_000;
    assert_eq!((whole.cost_nanousd, stream.cost_nanousd), (Some(cost), Some(cost)), "{stream:?}");

    let failed = r#"{"id":"c","object":"chat.completion.chunk","model":"llama-3.3-70b-versatile","choices":[],"x_groq":{"id":"req_1","error":"over capacity"}}"#;
    let row = streamed("api.groq.com", chat, &[failed]).row();
    assert_eq!(row.error_class.as_deref(), Some("in_stream"), "{row:?}");
}

#[test]
fn loading_a_model_is_no_request_to_it() {
    let ollama = |body: &str| Case {
        request: br#"{"model":"llama3.2"}"#.to_vec(),
        ..case("ollama.com", "/api/generate", body)
    };
    for reason in ["load", "unload"] {
        let body =
            format!(r#"{{"model":"llama3.2","response":"","done":true,"done_reason":"{reason}"}}"#);
        assert!(!ollama(&body).row().billable, "{reason}");
    }
    let asked = r#"{"model":"llama3.2","response":"x","done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":2}"#;
    assert!(ollama(asked).row().billable);
}

#[test]
fn coheres_reason_to_stop_may_be_a_failure() {
    let stream = |reason: &str| {
        let last = format!(
            r#"{{"type":"message-end","delta":{{"finish_reason":"{reason}","usage":{{"billed_units":{{"input_tokens":10,"output_tokens":2}}}}}}}}"#
        );
        let row = streamed("api.cohere.com", "/v2/chat", &[&last]).row();
        (row.error_class, row.usage)
    };
    let failed = |class: &str| (Some(class.to_owned()), UsageState::Partial);
    assert_eq!(stream("COMPLETE"), (None, UsageState::Reported));
    assert_eq!(stream("ERROR"), failed("in_stream"));
    assert_eq!(stream("TIMEOUT"), failed("timeout"));
    let whole =
        r#"{"id":"c","finish_reason":"ERROR_TOXIC","meta":{"billed_units":{"input_tokens":10}}}"#;
    let row = case("api.cohere.com", "/v1/chat", whole).row();
    assert_eq!(row.error_class.as_deref(), Some("in_stream"));
}

/// A chat's answer with this usage.
fn answer(model: &str, usage: &str) -> String {
    format!(
        r#"{{"object":"chat.completion","model":"{model}","choices":[{{"finish_reason":"stop"}}],"usage":{{{usage}}}}}"#
    )
}

#[test]
fn cache_writes_have_several_names() {
    let plain = r#""prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200"#;
    let wrote = |five: Option<u64>, hour: Option<u64>, other: Option<u64>, read: Option<u64>| {
        let written = [five, hour, other].into_iter().flatten().sum::<u64>();
        Tokens {
            input: Some(1000 - written - read.unwrap_or(0)),
            cache_read: read,
            cache_write_5m: five,
            cache_write_1h: hour,
            cache_write_other: other,
            output: Some(200),
            ..Tokens::default()
        }
    };
    for (more, expected) in [
        // OpenRouter; Qwen; LiteLLM, now and formerly.
        (
            r#""prompt_tokens_details":{"cached_tokens":500,"cache_write_tokens":300}"#,
            wrote(None, None, Some(300), Some(500)),
        ),
        (
            r#""prompt_tokens_details":{"cached_tokens":0,"cache_creation_input_tokens":300,"cache_type":"ephemeral","cache_creation":{"ephemeral_5m_input_tokens":300}}"#,
            wrote(Some(300), None, None, Some(0)),
        ),
        (
            r#""cache_creation_input_tokens":300,"cache_read_input_tokens":500,"prompt_tokens_details":{"cached_tokens":500,"cache_write_tokens":300,"cache_creation_tokens":300,"cache_creation_token_details":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":150}}"#,
            wrote(Some(100), Some(150), Some(50), Some(500)),
        ),
        (
            r#""cache_creation_input_tokens":300,"cache_read_input_tokens":500"#,
            wrote(None, None, Some(300), Some(500)),
        ),
        // Nothing was written.
        (
            r#""prompt_tokens_details":{"cache_creation_tokens":0,"cache_creation_token_details":{"ephemeral_5m_input_tokens":0}}"#,
            wrote(None, None, Some(0), None),
        ),
    ] {
        let body = answer("claude-sonnet-4-5", &format!("{plain},{more}"));
        let row = case("litellm.corp.example", "/chat/completions", &body).row();
        assert_eq!(row.tokens, expected, "{more}");
    }
}

#[test]
fn a_research_is_billed_by_what_it_read_thought_and_looked_up() {
    let usage = r#""prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":20016,"num_search_queries":18,"reasoning_tokens":95305"#;
    let told = |model: &str, more: &str| {
        let body = answer(model, &format!("{usage}{more}"));
        case("api.perplexity.ai", "/v1/sonar", &body).row()
    };
    let row = told("sonar-deep-research", "");
    assert_eq!(counted(&row), [Some(20_049), Some(102_468), Some(95_305)]);
    assert_eq!(row.web_searches, Some(18));
    // What Perplexity says of the very same.
    assert_eq!((row.cost_nanousd, row.cost_estimated), (Some(473_317_000), false), "{row:?}");
    let named = told("sonar-deep-research", r#","cost":{"total_cost":0.473317}"#);
    assert_eq!((named.cost_nanousd, named.list_nanousd), (row.cost_nanousd, row.cost_nanousd));
    // The others charge a request, whatever they read.
    let row = told("sonar-pro", "");
    assert_eq!((row.tokens.input, row.tokens.output), (Some(33), Some(7163)));
    assert_eq!(row.web_searches, None);
}

#[test]
fn a_total_alone_is_what_went_in() {
    let body = r#"{"object":"list","data":[],"model":"voyage-3.5","usage":{"total_tokens":10}}"#;
    let row = case("api.voyageai.com", "/v1/embeddings", body).row();
    assert_eq!((row.tokens.input, row.tokens.output), (Some(10), None));
    assert_eq!(row.usage, UsageState::Reported);
    // A usage without a figure is none.
    let row = case("api.voyageai.com", "/v1/embeddings", &body.replace("total", "odd")).row();
    assert_eq!(row.usage, UsageState::Absent, "{row:?}");
}

#[test]
fn a_stream_that_ends_whole_says_no_more() {
    let events = [
        r#"{"id":"x","model":"gpt-5-mini","choices":[{"delta":{"content":"a"}}],"usage":{}}"#,
        r#"{"id":"x","model":"gpt-5-mini","choices":[{"delta":{"content":"b"}}],"usage":{"prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200}}"#,
    ];
    for target in ["/api/v2/cortex/inference:complete", "/v1/chat/completions"] {
        let stream = streamed("acme.corp.example", target, &events);
        assert_eq!(stream.row().usage, UsageState::Reported, "{target}");
        let cut = stream.cut(stream.body.len(), Side::Server);
        assert_eq!(cut.usage, UsageState::Partial, "{target}");
    }
}

#[test]
fn failures_inside_a_good_answer_are_failures() {
    let class = |host, target, body: &str| case(host, target, body).row().error_class;
    let minimax = |status: u64| {
        let body = format!(
            r#"{{"choices":null,"base_resp":{{"status_code":{status},"status_msg":"insufficient balance"}}}}"#
        );
        class("api.minimax.io", "/v1/text/chatcompletion_v2", &body)
    };
    assert_eq!(minimax(1008).as_deref(), Some("billing"));
    assert_eq!(minimax(1002).as_deref(), Some("rate_limit"));
    assert_eq!(minimax(9999).as_deref(), Some("in_stream"));
    assert_eq!(minimax(0), None);
    let router = |error: &str| {
        let body = format!(
            r#"{{"object":"chat.completion","model":"x/y","choices":[{{"finish_reason":"error"{error}}}],"usage":{{"prompt_tokens":8,"completion_tokens":3,"cost":0.001}}}}"#
        );
        let row = case("openrouter.ai", "/api/v1/chat/completions", &body).row();
        (row.error_class, row.usage, row.cost_nanousd)
    };
    let failed = |class: &str| (Some(class.to_owned()), UsageState::Partial, Some(1_000_000));
    assert_eq!(router(r#","error":{"code":502,"message":"x"}"#), failed("server_error"));
    assert_eq!(router(""), failed("in_stream"));
}

#[test]
fn minimaxs_own_chat_is_one() {
    let usage = r#""prompt_tokens":1000,"completion_tokens":200,"total_tokens":1200"#;
    let whole = answer("MiniMax-M2", usage);
    let chunk = r#"{"id":"m","object":"chat.completion.chunk","model":"MiniMax-M2","choices":[{"delta":{"content":"a"}}]}"#;
    let (host, target) = ("api.minimax.io", "/v1/text/chatcompletion_v2");
    for row in [case(host, target, &whole).row(), streamed(host, target, &[chunk, &whole]).row()] {
        assert_eq!((row.billable, row.surface.as_deref()), (true, Some("openai.chat")));
        // 0.30 and 1.20 dollars per million.
        assert_eq!((row.usage, row.cost_nanousd), (UsageState::Reported, Some(540_000)));
    }
}
