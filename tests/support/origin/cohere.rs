//! Cohere's chat (v2): what is billed stands beside what was counted, as floats. The model is not
//! named.

use serde_json::{Value, json};

use super::answer::{Content, Served};
use super::anthropic::TEXT;

pub fn chat(mut served: Served, n: u64) -> Content {
    let (input, output) = (900 + n, 300 + n);
    (served.input, served.output) = (Some(input), Some(output));
    let usage = json!({
        "billed_units": { "input_tokens": input as f64, "output_tokens": output as f64 },
        // With the preamble, which is not billed.
        "tokens": { "input_tokens": (input + 68) as f64, "output_tokens": (output + 2) as f64 },
    });
    let id = format!("cohere-test-{n}");
    if !served.stream {
        let message = json!({ "role": "assistant", "content": [{ "type": "text", "text": TEXT }] });
        let answer = json!({ "id": id, "message": message, "finish_reason": "COMPLETE",
                             "usage": usage });
        return Content::json(&answer, Some(served));
    }
    let event = |kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        format!("event: {kind}\ndata: {data}\n\n").into_bytes()
    };
    let mut parts = vec![
        event(
            "message-start",
            json!({ "id": id, "delta": { "message": { "role": "assistant", "content": [],
                "tool_plan": "", "tool_calls": [], "citations": [] } } }),
        ),
        event(
            "content-start",
            json!({ "index": 0, "delta": { "message": { "content":
                { "type": "text", "text": "" } } } }),
        ),
    ];
    for word in TEXT.split_inclusive(' ') {
        let delta = json!({ "message": { "content": { "text": word } } });
        parts.push(event("content-delta", json!({ "index": 0, "delta": delta })));
    }
    parts.push(event("content-end", json!({ "index": 0 })));
    parts.push(event(
        "message-end",
        json!({ "delta": { "finish_reason": "COMPLETE", "usage": usage } }),
    ));
    parts.push(b"data: [DONE]\n\n".to_vec());
    Content::events(parts, served)
}
