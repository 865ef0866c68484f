//! Bedrock: Invoke (the model's own shape), Converse, and the binary event stream of both.

use serde_json::{Value, json};

use super::answer::{Content, Directives, Served};
use super::anthropic::{self, TEXT};

pub const EVENTSTREAM: &str = "application/vnd.amazon.eventstream";

/// Claude's own answer; as a stream its events in base64, with the metrics in the last.
pub fn invoke(body: &Value, d: &Directives, served: Served, n: u64) -> Content {
    let mut content = anthropic::messages(body, d, served, n);
    let served = content.served.clone().expect("what was served");
    let counts = [
        ("input", served.input),
        ("output", served.output),
        ("cache-read-input", served.cache_read),
        ("cache-write-input", written(&served)),
    ];
    if !served.stream {
        for (what, count) in counts {
            let value = count.unwrap_or(0).to_string();
            content.headers.push((format!("X-Amzn-Bedrock-{what}-Token-Count"), value));
        }
        return content;
    }
    content.content_type = EVENTSTREAM;
    for part in &mut content.parts {
        let text = String::from_utf8_lossy(part);
        let (_, data) = text.split_once("data: ").expect("an event");
        let mut event: Value = serde_json::from_str(data).expect("JSON");
        if event["type"] == "message_stop" {
            let [input, output, read, write] = counts.map(|(_, count)| count.unwrap_or(0));
            event["amazon-bedrock-invocationMetrics"] = json!({ "inputTokenCount": input,
                "outputTokenCount": output, "cacheReadInputTokenCount": read,
                "cacheWriteInputTokenCount": write, "invocationLatency": 12,
                "firstByteLatency": 3 });
        }
        let payload = json!({ "bytes": base64(event.to_string().as_bytes()), "p": "abcdefgh" });
        *part = frame("chunk", &payload);
    }
    content
}

/// It does not name the model.
pub fn converse(d: &Directives, mut served: Served, n: u64) -> Content {
    served.model = String::new();
    served.input = Some(1000 + n);
    served.output = Some(500 + n);
    if !d.nocache {
        served.cache_read = Some(2000 + n);
        served.cache_write_5m = Some(300 + n);
    }
    let mut usage = json!({ "inputTokens": served.input, "outputTokens": served.output,
        "totalTokens": served.input.unwrap_or(0) + served.output.unwrap_or(0)
            + served.cache_read.unwrap_or(0) + written(&served).unwrap_or(0) });
    if let (Some(read), Some(write)) = (served.cache_read, served.cache_write_5m) {
        usage["cacheReadInputTokens"] = json!(read);
        usage["cacheWriteInputTokens"] = json!(write);
        usage["cacheDetails"] = json!([{ "ttl": "5m", "inputTokens": write }]);
    }
    let metrics = json!({ "latencyMs": 12 });
    if !served.stream {
        let answer = json!({
            "output": { "message": { "role": "assistant", "content": [{ "text": TEXT }] } },
            "stopReason": "end_turn", "usage": usage, "metrics": metrics });
        return Content::json(&answer, Some(served));
    }
    let mut parts = vec![frame("messageStart", &json!({ "role": "assistant", "p": "ab" }))];
    for word in TEXT.split_inclusive(' ') {
        let delta = json!({ "contentBlockIndex": 0, "delta": { "text": word }, "p": "abc" });
        parts.push(frame("contentBlockDelta", &delta));
    }
    parts.push(frame("contentBlockStop", &json!({ "contentBlockIndex": 0, "p": "a" })));
    parts.push(frame("messageStop", &json!({ "stopReason": "end_turn", "p": "abcd" })));
    parts.push(frame("metadata", &json!({ "metrics": metrics, "usage": usage, "p": "ab" })));
    Content { content_type: EVENTSTREAM, headers: Vec::new(), parts, served: Some(served) }
}

fn written(served: &Served) -> Option<u64> {
    let (short, long) = (served.cache_write_5m, served.cache_write_1h);
    short.or(long).map(|_| short.unwrap_or(0) + long.unwrap_or(0))
}

/// One message of the event stream.
fn frame(event: &str, payload: &Value) -> Vec<u8> {
    let mut headers = Vec::new();
    for (name, value) in
        [(":event-type", event), (":content-type", "application/json"), (":message-type", "event")]
    {
        headers.push(name.len() as u8);
        headers.extend(name.as_bytes());
        headers.push(7);
        headers.extend((value.len() as u16).to_be_bytes());
        headers.extend(value.as_bytes());
    }
    let payload = payload.to_string();
    let total = (16 + headers.len() + payload.len()) as u32;
    let mut out = Vec::new();
    out.extend(total.to_be_bytes());
    out.extend((headers.len() as u32).to_be_bytes());
    out.extend(crc32(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload.as_bytes());
    out.extend(crc32(&out).to_be_bytes());
    out
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}

pub fn base64(data: &[u8]) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in data.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| u32::from(chunk.get(i).copied().unwrap_or_default()));
        let bits = a << 16 | b << 8 | c;
        for i in 0..4 {
            let index = (bits >> (18 - 6 * i) & 63) as usize;
            out.push(if i <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}
