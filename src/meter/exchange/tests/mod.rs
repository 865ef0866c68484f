mod batches;
mod counted;
mod dialects;
mod elsewhere;
mod ends;
pub(crate) mod framings;
mod google;
mod grpc;
mod hosted;
mod inside;
mod iterations;
mod limits;
mod live;
mod odd;
mod paid;
mod plans;
mod refusals;
mod rows;
pub(crate) mod shapes;
mod sockets;

use super::*;
use crate::meter::http::Headers;
use crate::meter::price::Book;
use crate::meter::row::{Billing, Row};
use crate::meter::usage::{Tokens, Usage, UsageState};

/// One exchange as data.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) host: &'static str,
    pub(crate) method: &'static str,
    pub(crate) target: &'static str,
    pub(crate) request: Vec<u8>,
    pub(crate) request_headers: Vec<(&'static str, &'static str)>,
    pub(crate) status: u16,
    pub(crate) media: &'static str,
    pub(crate) response_headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Vec<u8>,
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
    pairs.iter().copied().collect()
}

impl Case {
    fn start(&self) -> Exchange {
        let start = ExchangeStart {
            id: Uuid::nil(),
            at: at(0),
            host: self.host.to_owned(),
            port: 443,
            local: false,
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

    pub(crate) fn row(&self) -> Row {
        self.row_of(&[&self.body])
    }

    /// The row when the body is cut after `len` bytes by `who`.
    pub(crate) fn cut(&self, len: usize, who: Side) -> Row {
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
        request:
            br#"{"stream":true,"model":"gpt-4o-mini","stream_options":{"include_usage":true}}"#
                .to_vec(),
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
    let chunk =
        |rest: &str| format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"x"}}]}}{rest}"#);
    let body = [
        chunk(
            r#"}],"usageMetadata":{"promptTokenCount":100,"totalTokenCount":110,"thoughtsTokenCount":10},"modelVersion":"gemini-2.5-pro","responseId":"r1"}"#,
        ),
        chunk(
            r#","finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":40,"candidatesTokenCount":20,"thoughtsTokenCount":30,"toolUsePromptTokenCount":7,"totalTokenCount":157},"modelVersion":"gemini-2.5-pro","responseId":"r1"}"#,
        ),
    ];
    Case {
        host: "generativelanguage.googleapis.com",
        target: "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse&key=AIzaSecret",
        request: br#"{"contents":[]}"#.to_vec(),
        media: "text/event-stream",
        body: body
            .iter()
            .map(|data| format!("data: {data}\r\n\r\n"))
            .collect::<String>()
            .into_bytes(),
        ..Case::default()
    }
}

fn gemini_array() -> Case {
    let stream = gemini_stream();
    let text = String::from_utf8(stream.body).unwrap();
    let items: Vec<&str> =
        text.split("\r\n\r\n").filter_map(|l| l.strip_prefix("data: ")).collect();
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

pub(crate) fn streams() -> Vec<Case> {
    vec![anthropic_stream(), chat_stream(), responses_stream(), gemini_stream(), gemini_array()]
}
