//! What OpenAI's and Groq's answers tell beside the plain usage: what their own tools did, what was
//! written to a cache for how long, what other models had a part in it.

use serde_json::{Value, json};

use super::shapes::{case, streamed};
use super::sockets::{Socket, create, created};
use super::*;
use crate::meter::usage::Cached;

const OPENAI: &str = "api.openai.com";
const RESPONSES: &str = "/v1/responses";

/// A response of `model`, with more members.
fn response(model: &str, usage: &Value, more: &Value) -> Value {
    let mut response = json!({"id": "resp_1", "object": "response", "status": "completed",
        "model": model, "output": [], "usage": usage});
    let members = response.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    response
}

/// 1000 tokens in and 100 out.
fn small(model: &str, more: &Value) -> Value {
    response(model, &json!({"input_tokens": 1000, "output_tokens": 100}), more)
}

fn whole(response: &Value) -> Row {
    case(OPENAI, RESPONSES, &response.to_string()).row()
}

/// The row of a stream with these events before the last.
fn stream(before: &[Value], response: &Value) -> Row {
    let last = json!({"type": "response.completed", "response": response});
    let events: Vec<String> = before.iter().chain([&last]).map(Value::to_string).collect();
    streamed(OPENAI, RESPONSES, &events.iter().map(String::as_str).collect::<Vec<_>>()).row()
}

/// The same from a document and from a stream.
fn both(response: &Value) -> Row {
    let (whole, stream) = (whole(response), stream(&[], response));
    assert_eq!((&whole.tokens, whole.web_searches), (&stream.tokens, stream.web_searches));
    assert_eq!((&whole.detail, &whole.cost_reason), (&stream.detail, &stream.cost_reason));
    assert_eq!(whole.cost_nanousd, stream.cost_nanousd);
    whole
}

fn money(row: &Row) -> (Option<i64>, bool) {
    (row.cost_nanousd, row.cost_estimated)
}

/// 50 000 tokens in, of which so many were read and written, and 200 out.
fn written(cached: u64, written: u64, split: Option<(u64, u64)>) -> Value {
    let mut details = json!({"cached_tokens": cached, "cache_write_tokens": written});
    if let Some((long, short)) = split {
        details["cache_write_tokens_details"] =
            json!({"ttl_12h_tokens": long, "ttl_30m_tokens": short});
    }
    json!({"input_tokens": 50_000, "input_tokens_details": details, "output_tokens": 200})
}

#[test]
fn the_lifetime_of_cache_writes_is_the_responses_word() {
    let half_hour = json!({"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}});
    let half_day = json!({"prompt_cache_options": {"mode": "explicit", "ttl": "12h"}});
    let kept = json!({"prompt_cache_options": {"ttl": "30m"}, "prompt_cache_retention": "24h"});
    let none = json!({});
    let long_ago = json!({"prompt_cache_retention": "24h"});
    // 10 in, 1 read, 12.50 and 25 written, 50 out.
    for (asked, usage, told, cost) in [
        (&none, written(10_000, 30_000, Some((20_000, 10_000))), &half_hour, 745_000_000),
        (&half_day, written(10_000, 30_000, Some((5_000, 25_000))), &half_day, 557_500_000),
        (&half_day, written(0, 40_000, Some((40_000, 0))), &none, 1_110_000_000),
        // Not split: what was applied, else what was asked for.
        (&none, written(10_000, 30_000, None), &half_day, 870_000_000),
        (&half_day, written(10_000, 30_000, None), &half_hour, 495_000_000),
        (&half_day, written(10_000, 30_000, None), &none, 870_000_000),
        // How long it may be kept at most is no lifetime.
        (&long_ago, written(10_000, 30_000, Some((0, 30_000))), &kept, 495_000_000),
        (&long_ago, written(10_000, 30_000, None), &none, 495_000_000),
    ] {
        let mut request = json!({"model": "gpt-6-astra"});
        request.as_object_mut().unwrap().extend(asked.as_object().unwrap().clone());
        let answer = response("gpt-6-astra", &usage, told);
        let asked = |case: Case| Case { request: request.to_string().into_bytes(), ..case };
        let row = asked(case(OPENAI, RESPONSES, &answer.to_string())).row();
        assert_eq!(money(&row), (Some(cost), false), "{row:?}");
        let last = json!({"type": "response.completed", "response": answer}).to_string();
        let row = asked(streamed(OPENAI, RESPONSES, &[&last])).row();
        assert_eq!(money(&row), (Some(cost), false), "{row:?}");
    }
    // Read back, nothing is known of what was asked for.
    let mut answer = response("gpt-6-astra", &written(0, 40_000, Some((40_000, 0))), &half_day);
    answer["background"] = true.into();
    let read = Case {
        method: "GET",
        request: Vec::new(),
        ..case(OPENAI, "/v1/responses/resp_1", &answer.to_string())
    };
    assert_eq!(money(&read.row()), (Some(1_110_000_000), false));
    // A line of a batch has its own; half the price.
    let line = |usage: Value, told: &Value| {
        let body = response("gpt-6-astra", &usage, told);
        json!({"custom_id": "1", "response": {"body": body}}).to_string()
    };
    let lines = [
        line(written(10_000, 30_000, Some((20_000, 10_000))), &half_hour),
        line(written(0, 40_000, None), &half_day),
    ];
    let file = case(OPENAI, "/v1/files/file-1/content", &lines.join("\n"));
    let row = Case { method: "GET", request: Vec::new(), ..file }.row();
    assert_eq!(money(&row), (Some(372_500_000 + 555_000_000), false), "{row:?}");
}

fn search(action: &str) -> Value {
    json!({"type": "web_search_call", "status": "completed", "action": {"type": action}})
}

#[test]
fn a_search_by_the_preview_tool_costs_more_where_nothing_reasons() {
    let row = |model: &str, tools: &[&str]| {
        let tools: Vec<Value> = tools.iter().map(|tool| json!({"type": tool})).collect();
        let output = [search("search"), search("open_page")];
        both(&small(model, &json!({"output": output, "tools": tools})))
    };
    for (model, tool, cost) in [
        ("gpt-4o-2024-08-06", "web_search_preview", 3_500_000 + 25_000_000),
        ("gpt-4.1", "web_search_preview_2025_03_11", 2_800_000 + 25_000_000),
        ("gpt-4o-2024-08-06", "web_search", 3_500_000 + 10_000_000),
        ("gpt-5", "web_search_preview", 2_250_000 + 10_000_000),
    ] {
        let row = row(model, &["function", tool]);
        assert_eq!(money(&row), (Some(cost), false), "{row:?}");
    }
    let counted = row("gpt-4o", &["web_search_preview"]);
    assert_eq!((counted.web_searches, counted.detail.counts["preview_searches"]), (None, 1));
    // Which of the two it was is not told.
    assert_eq!(row("gpt-4o", &["web_search_preview", "web_search"]).web_searches, Some(1));
    // A list without a price of its own for it.
    let answer = small(
        "gpt-4.1",
        &json!({"output": [search("search")], "tools": [{"type": "web_search_preview"}]}),
    );
    let azure = case("corp.openai.azure.com", "/openai/v1/responses", &answer.to_string()).row();
    assert_eq!(money(&azure), (Some(2_800_000 + 14_000_000), false), "{azure:?}");
}

#[test]
fn searches_are_those_that_the_response_says_are_billed() {
    let output = json!([search("search"), search("search"), search("search")]);
    let told = |n: u64| {
        let usage = json!({"image_gen": {"input_tokens": 0, "output_tokens": 0},
            "web_search": {"num_requests": n}});
        both(&small("gpt-5", &json!({"output": output.clone(), "tool_usage": usage})))
    };
    assert_eq!((told(1).web_searches, told(1).cost_nanousd), (Some(1), Some(12_250_000)));
    assert_eq!((told(0).web_searches, told(0).cost_nanousd), (None, Some(2_250_000)));
    // Of a response that is not stored there may be no output at all.
    let row = both(&small("gpt-5", &json!({"tool_usage": {"web_search": {"num_requests": 3}}})));
    assert_eq!((row.web_searches, row.cost_nanousd), (Some(3), Some(32_250_000)));
}

#[test]
fn what_the_tools_did_is_counted_as_it_comes_where_the_last_word_has_no_output() {
    let item = |item: Value| json!({"type": "response.output_item.done", "item": item});
    let before = [
        item(search("search")),
        item(search("open_page")),
        item(json!({"type": "file_search_call"})),
        item(search("search")),
        item(json!({"type": "code_interpreter_call"})),
        item(json!({"type": "message"})),
    ];
    let check = |row: &Row| {
        assert_eq!(row.web_searches, Some(2), "{row:?}");
        let counts: Vec<_> = row.detail.counts.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(counts, [("code_runs", 1), ("file_searches", 1)]);
        assert_eq!(row.cost_nanousd, Some(2_250_000 + 20_000_000 + 2_500_000));
    };
    let empty = small("gpt-5", &json!({}));
    check(&stream(&before, &empty));
    let mut socket = Socket::responses();
    for id in ["r1", "r2"] {
        socket.ask(&create("gpt-5")).say(&created(id));
        for event in &before {
            socket.say(event);
        }
        let mut last = empty.clone();
        last["id"] = id.into();
        socket.say(&json!({"type": "response.completed", "response": last}));
    }
    let rows = socket.end(None);
    assert_eq!(rows.len(), 2);
    rows.iter().for_each(check);
    // Where it has one, that is all.
    let told = small("gpt-5", &json!({"output": [search("search")]}));
    assert_eq!(stream(&before, &told).web_searches, Some(1));
}

#[test]
fn what_draws_with_code_is_a_model_of_its_own() {
    let svg = json!({"model": "gpt-6-astra", "input_tokens": 1000, "output_tokens": 500,
        "reasoning_tokens": 100, "total_tokens": 1500});
    let usage = json!({"input_tokens": 150, "output_tokens": 1000,
        "input_tokens_details": {"text_tokens": 50, "image_tokens": 100}});
    let images = |answer: Value| Case {
        request: br#"{"model":"gpt-image-2"}"#.to_vec(),
        ..case(OPENAI, "/v1/images/generations", &answer.to_string())
    };
    // 10 and 50 dollars a million.
    let written = 10_000_000 + 25_000_000;
    let row = images(json!({"data": [], "usage": usage, "svg_usage": svg})).row();
    // 5 for text, 8 for images, 30 for what comes out.
    let drawn = 250_000 + 800_000 + 30_000_000;
    assert_eq!(money(&row), (Some(drawn + written), false), "{row:?}");
    assert_eq!((row.tokens.input, row.tokens.output), (Some(1150), Some(1500)));
    assert_eq!((row.tokens.image_output, row.tokens.reasoning), (Some(1000), Some(100)));
    // Nothing was rendered.
    let row = images(json!({"data": [], "svg_usage": svg})).row();
    assert_eq!(row.usage, UsageState::Reported);
    assert_eq!(money(&row), (Some(written), false), "{row:?}");
    let output = json!([{"type": "image_generation_call", "svg_usage": svg}, {"type": "message"}]);
    let row = both(&small("gpt-5", &json!({"output": output})));
    // The picture itself has no price.
    assert_eq!(money(&row), (Some(2_250_000 + written), true), "{row:?}");
    let item = json!({"type": "response.output_item.done", "item": output[0]});
    let row = stream(&[item], &small("gpt-5", &json!({})));
    assert_eq!(money(&row), (Some(2_250_000 + written), true), "{row:?}");
}

#[test]
fn images_of_a_tool_cost_their_tokens_where_their_model_is_known() {
    let usage = json!({"web_search": {"num_requests": 0}, "image_gen": {
        "input_tokens": 300, "input_tokens_details": {"image_tokens": 200, "text_tokens": 100},
        "cached_tokens": 60, "cached_tokens_details": {"cached_image_tokens": 40, "cached_text_tokens": 20},
        "output_tokens": 1056, "total_tokens": 1356}});
    let told = |tools: Value, output: Value| {
        let more = json!({"output": output, "tools": tools, "tool_usage": usage});
        both(&small("gpt-5", &more))
    };
    let output = json!([{"type": "image_generation_call", "result": "AAAA"}]);
    let named = json!([{"type": "function"}, {"type": "image_generation", "model": "gpt-image-1"}]);
    let row = told(named, output.clone());
    // 80 of text at 5, 160 of images at 10, 20 and 40 out of the cache at 1.25 and 2.50, 1056 at 40.
    let images = 400_000 + 1_600_000 + 25_000 + 100_000 + 42_240_000;
    assert_eq!(money(&row), (Some(2_250_000 + images), false), "{row:?}");
    assert!(row.detail.counts.is_empty(), "counted by their tokens");
    assert_eq!((row.detail.parts.len(), row.tokens.output), (2, Some(1156)));
    assert_eq!(row.detail.parts[1].cached, Cached { audio: None, image: Some(40) });
    for tools in [
        json!([{"type": "image_generation"}]),
        json!([{"type": "image_generation", "model": "gpt-image-1"},
            {"type": "image_generation", "model": "gpt-image-2"}]),
    ] {
        for output in [&output, &json!([])] {
            let row = told(tools.clone(), output.clone());
            assert_eq!(money(&row), (Some(2_250_000), true), "{row:?}");
            assert_eq!(row.cost_reason.as_deref(), Some("no price for images"));
        }
    }
}

#[test]
fn what_groqs_own_tools_did_is_counted_and_has_no_price() {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100});
    let models = json!({"models": [{"model": "llama-3.3-70b-versatile", "usage": usage}]});
    let tool = |index: u64, kind: &str| json!({"index": index, "type": kind, "arguments": "{}"});
    let tools = json!([tool(0, "search"), tool(1, "python"), tool(2, "visit"), tool(3, "search")]);
    let host = "api.groq.com";
    let path = "/openai/v1/chat/completions";
    let whole = json!({"object": "chat.completion", "model": "groq/compound", "usage": usage,
        "usage_breakdown": models,
        "choices": [{"finish_reason": "stop", "message": {"executed_tools": tools}}]});
    let chunk = |tools: &[Value]| {
        json!({"object": "chat.completion.chunk", "model": "groq/compound",
            "choices": [{"index": 0, "delta": {"executed_tools": tools}}]})
        .to_string()
    };
    let last = json!({"object": "chat.completion.chunk", "model": "groq/compound",
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "x_groq": {"id": "r", "usage": usage, "usage_breakdown": models}})
    .to_string();
    // Told when it begins, and with what came of it.
    let each: Vec<String> =
        tools.as_array().unwrap().iter().map(|t| chunk(std::slice::from_ref(t))).collect();
    let events: Vec<&str> = each.iter().chain(&each).chain([&last]).map(String::as_str).collect();
    for case in [case(host, path, &whole.to_string()), streamed(host, path, &events)] {
        let row = case.row();
        assert_eq!(row.web_searches, Some(2), "{row:?}");
        let counts: Vec<_> = row.detail.counts.iter().map(|(k, n)| (k.as_str(), *n)).collect();
        assert_eq!(counts, [("code_runs", 1), ("tool_calls", 1)]);
        // 0.59 and 0.79 dollars a million.
        assert_eq!(money(&row), (Some(590_000 + 79_000), true), "{row:?}");
        let reason = row.cost_reason.unwrap();
        assert!(reason.contains("no price for web searches"), "{reason}");
        assert!(reason.contains("no price for code runs"), "{reason}");
    }
}

#[test]
fn short_pieces_of_what_is_said_cost_something() {
    let told = |seconds: Value| {
        let answer = json!({"text": "x", "usage": {"type": "duration", "seconds": seconds}});
        let request = br#"{"model":"whisper-1"}"#.to_vec();
        let row =
            Case { request, ..case(OPENAI, "/v1/audio/transcriptions", &answer.to_string()) }.row();
        let counts: Vec<_> = row.detail.counts.iter().map(|(name, n)| (name.clone(), *n)).collect();
        (counts, row.cost_nanousd, row.cost_estimated)
    };
    let count = |name: &str, n| vec![(name.to_owned(), n)];
    // $0.006 a minute.
    assert_eq!(told(json!(60)), (count("audio_seconds", 60), Some(6_000_000), false));
    assert_eq!(told(json!(60.0)), (count("audio_seconds", 60), Some(6_000_000), false));
    // OpenAI bills whole seconds of a file.
    assert_eq!(told(json!(9.4)), (count("audio_seconds", 9), Some(900_000), false));
    assert_eq!(told(json!(-0.4)), (Vec::new(), None, false));
    let mut socket = Socket::open(OPENAI, "/v1/realtime?model=gpt-realtime", "");
    socket.ask(&json!({"type": "session.update", "session": {"audio": {"input":
        {"transcription": {"model": "gpt-realtime-whisper"}}}}}));
    for _ in 0..3 {
        socket.say(&json!({"type": "conversation.item.input_audio_transcription.completed",
            "transcript": "yes", "usage": {"type": "duration", "seconds": 0.4}}));
    }
    let costs: Vec<_> = socket.end(None).iter().map(|row| row.cost_nanousd).collect();
    assert_eq!(costs, [Some(113_333); 3]);
}
