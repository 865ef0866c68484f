//! OpenAI Chat Completions and Responses: JSON and SSE. Cached tokens are inside the input count.

use serde_json::{Value, json};

use super::answer::{Content, Directives, Served, Surface};
use super::anthropic::TEXT;

pub fn chat(body: &Value, d: &Directives, mut served: Served, n: u64) -> Content {
    served.model = model(body["model"].as_str().unwrap_or_default());
    count(d, &mut served, n);
    let mut usage = json!({
        "prompt_tokens": total_input(&served), "completion_tokens": served.output,
        "total_tokens": total_input(&served) + served.output.unwrap_or(0),
        "prompt_tokens_details": { "cached_tokens": served.cache_read.unwrap_or(0),
                                   "audio_tokens": 0 },
        "completion_tokens_details": { "reasoning_tokens": served.reasoning.unwrap_or(0),
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0 },
    });
    let id = format!("chatcmpl-test{n}");
    if served.request_id.is_empty() {
        served.request_id = id.clone();
    }
    if served.host == "api.mistral.ai" {
        // It doesn't tell what was reasoning.
        served.reasoning = None;
        usage.as_object_mut().expect("object").remove("completion_tokens_details");
    }
    if !served.stream {
        let mut answer = json!({
            "id": id, "object": "chat.completion", "created": 1, "model": served.model,
            "service_tier": "default", "usage": usage,
            "choices": [{ "index": 0, "finish_reason": "stop", "logprobs": null,
                          "message": { "role": "assistant", "content": TEXT, "refusal": null } }],
        });
        add_copilot(&mut answer, &served);
        return Content::json(&answer, Some(served));
    }
    let told = match served.host.as_str() {
        "api.mistral.ai" => Told::WithTheLastChoice,
        _ if body["stream_options"]["include_usage"] == true => Told::InAChunkOfItsOwn,
        _ => Told::Never,
    };
    let chunk = |choices: Value, usage: Value| {
        let mut chunk = json!({ "id": id, "object": "chat.completion.chunk", "created": 1,
            "model": served.model, "service_tier": "default", "choices": choices });
        if told == Told::InAChunkOfItsOwn || !usage.is_null() {
            if usage.is_object() {
                add_copilot(&mut chunk, &served);
            }
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n").into_bytes()
    };
    let mut parts: Vec<Vec<u8>> = TEXT
        .split_inclusive(' ')
        .map(|word| {
            chunk(
                json!([{ "index": 0, "delta": { "role": "assistant", "content": word },
                         "finish_reason": null }]),
                Value::Null,
            )
        })
        .collect();
    let last = json!([{ "index": 0, "delta": { "content": "" }, "finish_reason": "stop" }]);
    match told {
        Told::WithTheLastChoice => parts.push(chunk(last, usage)),
        Told::InAChunkOfItsOwn => {
            parts.push(chunk(last, Value::Null));
            parts.push(chunk(json!([]), usage));
        }
        Told::Never => parts.push(chunk(last, Value::Null)),
    }
    parts.push(b"data: [DONE]\n\n".to_vec());
    if told == Told::Never {
        served.input = None;
        served.cache_read = None;
        served.output = None;
        served.reasoning = None;
    }
    Content::events(parts, served)
}

/// Where a stream of chunks tells its usage.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Told {
    Never,
    WithTheLastChoice,
    InAChunkOfItsOwn,
}

/// Copilot says what it charges, in billionths of a credit, where it speaks OpenAI's shapes.
fn add_copilot(answer: &mut Value, served: &Served) {
    if let Some(nano_aiu) = copilot_nano_aiu(served) {
        answer["copilot_usage"] = json!({ "token_details": [], "total_nano_aiu": nano_aiu });
    }
}

/// What the origin charges as Copilot.
pub fn copilot_nano_aiu(served: &Served) -> Option<u64> {
    let says = served.host.ends_with(".githubcopilot.com")
        && served.surface != Some(Surface::AnthropicMessages);
    Some(1_000_000 * served.output.filter(|_| says)?)
}

pub fn responses(body: &Value, d: &Directives, mut served: Served, n: u64) -> Content {
    served.model = model(body["model"].as_str().unwrap_or_default());
    count(d, &mut served, n);
    let id = format!("resp_test{n}");
    let item = json!({ "id": format!("msg_test{n}"), "type": "message", "role": "assistant",
        "status": "completed",
        "content": [{ "type": "output_text", "text": TEXT, "annotations": [] }] });
    let object = |status: &str, output: Value, usage: Value| {
        json!({ "id": id, "object": "response", "created_at": 1, "status": status,
            "model": served.model, "service_tier": "default", "output": output, "usage": usage,
            "error": null, "incomplete_details": null, "instructions": null, "metadata": {},
            "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
            "temperature": 1.0, "top_p": 1.0 })
    };
    let usage = json!({
        "input_tokens": total_input(&served), "output_tokens": served.output,
        "total_tokens": total_input(&served) + served.output.unwrap_or(0),
        "input_tokens_details": { "cached_tokens": served.cache_read.unwrap_or(0) },
        "output_tokens_details": { "reasoning_tokens": served.reasoning.unwrap_or(0) },
    });
    if !served.stream {
        return Content::json(&object("completed", json!([item]), usage), Some(served));
    }
    let mut events = vec![
        json!({ "type": "response.created", "response": object("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.in_progress", "response": object("in_progress", json!([]), Value::Null) }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item":
            { "id": item["id"], "type": "message", "role": "assistant", "status": "in_progress", "content": [] } }),
        json!({ "type": "response.content_part.added", "item_id": item["id"], "output_index": 0, "content_index": 0,
            "part": { "type": "output_text", "text": "", "annotations": [] } }),
    ];
    for word in TEXT.split_inclusive(' ') {
        events.push(json!({ "type": "response.output_text.delta", "item_id": item["id"],
            "output_index": 0, "content_index": 0, "delta": word, "logprobs": [] }));
    }
    if d.error {
        events.push(json!({ "type": "error", "code": "server_error",
            "message": "as the test asked", "param": null }));
        served.input = None;
        served.cache_read = None;
        served.output = None;
        served.reasoning = None;
    } else {
        events.push(json!({ "type": "response.output_text.done", "item_id": item["id"],
            "output_index": 0, "content_index": 0, "text": TEXT, "logprobs": [] }));
        events.push(json!({ "type": "response.content_part.done", "item_id": item["id"],
            "output_index": 0, "content_index": 0, "part": item["content"][0] }));
        events
            .push(json!({ "type": "response.output_item.done", "output_index": 0, "item": item }));
        let mut last = json!({ "type": "response.completed",
            "response": object("completed", json!([item]), usage) });
        add_copilot(&mut last, &served);
        events.push(last);
    }
    let parts = events.iter_mut().enumerate().map(|(i, event)| {
        event["sequence_number"] = json!(i);
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
            .into_bytes()
    });
    Content::events(parts.collect(), served)
}

/// The messages of a response on a WebSocket: the events, without their framing.
pub fn socket(
    asked: &Value,
    d: &Directives,
    served: Served,
    n: u64,
    codex: bool,
) -> (Vec<Value>, Served) {
    let content = responses(asked, d, served, n);
    let mut messages: Vec<Value> = content
        .parts
        .iter()
        .map(|part| {
            let text = String::from_utf8_lossy(part);
            let (_, data) = text.split_once("data: ").expect("an event");
            serde_json::from_str(data).expect("JSON")
        })
        .collect();
    if codex {
        let window = |minutes: u64| json!({ "used_percent": 12.5, "window_minutes": minutes, "reset_at": 1_900_000_000 });
        let limits = json!({ "primary": window(300), "secondary": window(10_080) });
        messages.insert(
            1,
            json!({ "type": "codex.rate_limits", "plan_type": "plus", "rate_limits": limits,
                    "credits": null }),
        );
    }
    (messages, content.served.expect("what was served"))
}

pub fn realtime(model: &str, d: &Directives, mut served: Served, n: u64) -> (Vec<Value>, Served) {
    served.model = model.to_owned();
    count(d, &mut served, n);
    // Realtime does not say how much was reasoning.
    served.reasoning = None;
    let id = format!("resp_test{n}");
    let response = |status: &str, usage: Value| {
        json!({ "object": "realtime.response", "id": id, "status": status,
                "status_details": null, "output": [], "usage": usage })
    };
    let (input, cached) = (total_input(&served), served.cache_read.unwrap_or(0));
    let usage = json!({
        "total_tokens": input + served.output.unwrap_or(0), "input_tokens": input,
        "output_tokens": served.output,
        "input_token_details": { "text_tokens": input, "audio_tokens": 0, "image_tokens": 0,
            "cached_tokens": cached, "cached_tokens_details":
            { "text_tokens": cached, "audio_tokens": 0, "image_tokens": 0 } },
        "output_token_details": { "text_tokens": served.output, "audio_tokens": 0 },
    });
    let event = |kind: &str, rest: Value| {
        let mut event = json!({ "type": kind, "event_id": format!("event_{n}") });
        event.as_object_mut().expect("object").extend(rest.as_object().expect("object").clone());
        event
    };
    let mut messages = vec![event(
        "response.created",
        json!({ "response": response("in_progress", Value::Null) }),
    )];
    for word in TEXT.split_inclusive(' ') {
        messages.push(event(
            "response.output_text.delta",
            json!({ "response_id": id, "item_id": "i", "output_index": 0, "content_index": 0,
                    "delta": word }),
        ));
    }
    messages.push(event("response.done", json!({ "response": response("completed", usage) })));
    (messages, served)
}

pub fn error(status: u16) -> Value {
    let (kind, code) = match status {
        400 => ("invalid_request_error", "invalid_value"),
        401 => ("invalid_request_error", "invalid_api_key"),
        429 => ("requests", "rate_limit_exceeded"),
        _ => ("server_error", "server_error"),
    };
    json!({ "error": { "message": "as the test asked", "type": kind, "param": null, "code": code } })
}

fn model(requested: &str) -> String {
    match requested {
        "gpt-5" => "gpt-5-2025-08-07".to_owned(),
        other => other.to_owned(),
    }
}

fn count(d: &Directives, served: &mut Served, n: u64) {
    served.input = Some(1000 + n);
    served.cache_read = Some(if d.nocache { 0 } else { 300 + n });
    served.output = Some(400 + n);
    served.reasoning = Some(if d.thinking { 64 + n } else { 0 });
}

fn total_input(served: &Served) -> u64 {
    served.input.unwrap_or(0) + served.cache_read.unwrap_or(0)
}
