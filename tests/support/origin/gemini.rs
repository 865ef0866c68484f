//! Gemini generateContent: JSON, SSE (CRLF, no event names), the streamed JSON array; Live's turns. Cached
//! tokens are inside the prompt count, thoughts outside the candidates count.

use serde_json::{Value, json};

use super::Request;
use super::answer::{Content, Directives, Served};
use super::anthropic::TEXT;

pub fn generate(
    request: &Request,
    body: &Value,
    d: &Directives,
    mut served: Served,
    n: u64,
) -> Content {
    // Code Assist names the model in the body, and wraps what it says.
    let assist = request.path().starts_with("/v1internal:");
    if assist {
        served.model = body["model"].as_str().unwrap_or_default().to_owned();
    }
    served.request_id = format!("gemini-test-{n}");
    let (candidates, thoughts) = (250 + n, 60 + n);
    served.input = Some(800 + n);
    served.cache_read = (!d.nocache).then_some(100 + n);
    served.output = Some(candidates + if d.thinking { thoughts } else { 0 });
    served.reasoning = d.thinking.then_some(thoughts);
    let prompt = 800 + n + served.cache_read.unwrap_or(0);
    let chunk = |text: &str, seen: u64, last: bool| {
        let mut usage = json!({ "promptTokenCount": prompt, "candidatesTokenCount": seen,
            "totalTokenCount": prompt + seen,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": prompt }] });
        if let Some(cached) = served.cache_read {
            usage["cachedContentTokenCount"] = json!(cached);
        }
        if let (true, Some(thoughts)) = (last, served.reasoning) {
            usage["thoughtsTokenCount"] = json!(thoughts);
            usage["totalTokenCount"] = json!(prompt + seen + thoughts);
        }
        let mut candidate =
            json!({ "content": { "role": "model", "parts": [{ "text": text }] }, "index": 0 });
        if last {
            candidate["finishReason"] = json!("STOP");
        }
        let answer = json!({ "candidates": [candidate], "usageMetadata": usage,
            "modelVersion": served.model, "responseId": served.request_id });
        if assist { json!({ "response": answer, "traceId": format!("trace-{n}") }) } else { answer }
    };
    if !served.stream {
        return Content::json(&chunk(TEXT, candidates, true), Some(served));
    }
    let words: Vec<&str> = TEXT.split_inclusive(' ').collect();
    let last = words.len() - 1;
    let chunks: Vec<Value> = words
        .iter()
        .enumerate()
        .map(|(i, word)| {
            chunk(word, if i == last { candidates } else { 10 * (i as u64 + 1) }, i == last)
        })
        .collect();
    if request.target.contains("alt=sse") {
        let parts = chunks.iter().map(|c| format!("data: {c}\r\n\r\n").into_bytes()).collect();
        return Content::events(parts, served);
    }
    let mut parts: Vec<Vec<u8>> = chunks
        .iter()
        .enumerate()
        .map(|(i, c)| format!("{}{c}", if i == 0 { "[" } else { "\r\n," }).into_bytes())
        .collect();
    parts.push(b"\r\n]".to_vec());
    let content_type = "application/json; charset=UTF-8";
    Content { content_type, headers: Vec::new(), parts, served: Some(served) }
}

/// A turn of a Live session: its messages have no id and name no model, its thoughts are in no total,
/// and what it says costs what audio costs.
pub fn live(d: &Directives, mut served: Served, n: u64) -> (Vec<Value>, Served) {
    let (prompt, response, thoughts) = (800 + n, 250 + n, 60 + n);
    served.input = Some(prompt);
    served.output = Some(response + if d.thinking { thoughts } else { 0 });
    served.reasoning = d.thinking.then_some(thoughts);
    let usage = |said: u64| {
        let mut usage = json!({ "promptTokenCount": prompt, "responseTokenCount": said,
            "totalTokenCount": prompt + said,
            "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": prompt }],
            "responseTokensDetails": [{ "modality": "AUDIO", "tokenCount": said }] });
        if let Some(thoughts) = served.reasoning {
            usage["thoughtsTokenCount"] = json!(thoughts);
        }
        usage
    };
    let mut messages: Vec<Value> = TEXT
        .split_inclusive(' ')
        .map(|word| json!({ "serverContent": { "modelTurn": { "parts": [{ "text": word }] } } }))
        .collect();
    messages[1]["usageMetadata"] = usage(10);
    messages.push(json!({ "serverContent": { "generationComplete": true } }));
    messages.push(
        json!({ "serverContent": { "turnComplete": true }, "usageMetadata": usage(response) }),
    );
    (messages, served)
}

pub fn error(status: u16) -> Value {
    let kind = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        429 => "RESOURCE_EXHAUSTED",
        _ => "INTERNAL",
    };
    json!({ "error": { "code": status, "message": "as the test asked", "status": kind } })
}
