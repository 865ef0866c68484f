//! Anthropic Messages: JSON and SSE.

use serde_json::{Value, json};

use super::answer::{Content, Directives, Served};

pub const TEXT: &str = "Good day from the origin ✓";

pub fn messages(body: &Value, d: &Directives, mut served: Served, n: u64) -> Content {
    let asked = body["model"].as_str().unwrap_or(&served.model);
    served.model = model(asked);
    served.input = Some(1000 + n);
    if !d.nocache {
        served.cache_read = Some(2000 + n);
        served.cache_write_5m = Some(300 + n);
        served.cache_write_1h = Some(400 + n);
    }
    served.output = Some(500 + n);
    served.reasoning = d.thinking.then_some(50 + n);
    served.web_searches = d.search.then_some(2);
    if served.stream { stream(d, served, n) } else { whole(d, served, n) }
}

pub fn error(status: u16, request_id: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": "as the test asked" },
            "request_id": request_id })
}

/// An alias is answered by a dated model; the clouds' names are theirs alone.
fn model(requested: &str) -> String {
    let requested = requested.rsplit_once("anthropic.").map_or(requested, |(_, model)| model);
    match requested.strip_suffix("-v1:0").unwrap_or(requested) {
        "claude-sonnet-4-5" => "claude-sonnet-4-5-20250929".to_owned(),
        // Vertex's spelling, and Copilot's.
        other => other.replace(['@', '.'], "-"),
    }
}

fn whole(d: &Directives, served: Served, n: u64) -> Content {
    let mut usage = start_usage(&served);
    usage["output_tokens"] = json!(served.output);
    final_details(&mut usage, &served, d);
    let message = json!({
        "id": format!("msg_test_{n}"), "type": "message", "role": "assistant",
        "model": served.model, "content": [{ "type": "text", "text": TEXT }],
        "stop_reason": "end_turn", "stop_sequence": null, "usage": usage,
    });
    Content::json(&message, Some(served))
}

fn stream(d: &Directives, mut served: Served, n: u64) -> Content {
    let mut parts = Vec::new();
    let mut usage = start_usage(&served);
    usage["output_tokens"] = json!(1);
    parts.push(event(&json!({ "type": "message_start", "message": {
        "id": format!("msg_test_{n}"), "type": "message", "role": "assistant",
        "model": served.model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": usage,
    } })));
    parts.push(event(&json!({ "type": "content_block_start", "index": 0,
        "content_block": { "type": "text", "text": "" } })));
    parts.push(event(&json!({ "type": "ping" })));
    for word in TEXT.split_inclusive(' ') {
        parts.push(event(&json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": word } })));
    }
    if d.error {
        // The provider gives up: what is known is the start's usage.
        parts.push(event(&json!({ "type": "error",
            "error": { "type": "overloaded_error", "message": "as the test asked" } })));
        served.output = Some(1);
        served.reasoning = None;
        served.web_searches = None;
        return Content::events(parts, served);
    }
    parts.push(event(&json!({ "type": "content_block_stop", "index": 0 })));
    if d.search {
        // Cumulative, not additive: the last one counts.
        parts.push(delta(&json!({ "output_tokens": 17,
            "server_tool_use": { "web_search_requests": 1 } })));
        served.input = served.input.map(|i| i + 700);
    }
    let mut last = json!({ "output_tokens": served.output });
    if d.search {
        last["input_tokens"] = json!(served.input);
    }
    final_details(&mut last, &served, d);
    parts.push(delta(&last));
    parts.push(event(&json!({ "type": "message_stop" })));
    Content::events(parts, served)
}

fn start_usage(served: &Served) -> Value {
    let mut usage = json!({ "input_tokens": served.input, "service_tier": "standard" });
    if let (Some(short), Some(long)) = (served.cache_write_5m, served.cache_write_1h) {
        usage["cache_read_input_tokens"] = json!(served.cache_read);
        usage["cache_creation_input_tokens"] = json!(short + long);
        usage["cache_creation"] =
            json!({ "ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long });
    }
    usage
}

fn final_details(usage: &mut Value, served: &Served, d: &Directives) {
    if let Some(thinking) = served.reasoning {
        usage["output_tokens_details"] = json!({ "thinking_tokens": thinking });
    }
    if d.search {
        usage["server_tool_use"] = json!({ "web_search_requests": served.web_searches });
    }
}

fn delta(usage: &Value) -> Vec<u8> {
    event(&json!({ "type": "message_delta",
        "delta": { "stop_reason": "end_turn", "stop_sequence": null }, "usage": usage }))
}

fn event(data: &Value) -> Vec<u8> {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap_or_default()).into_bytes()
}
