//! Which answer a request gets.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Request, anthropic, coding, gemini, openai};

/// Which API shape an answer has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Surface {
    AnthropicMessages,
    OpenAiChat,
    OpenAiResponses,
    /// Over a WebSocket only, as Responses may be.
    Realtime,
    Gemini,
}

/// What an answer told of itself: what a meter must find out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Served {
    pub surface: Option<Surface>,
    pub status: u16,
    /// In a header, or (Gemini) in the body.
    pub request_id: String,
    pub model: String,
    pub stream: bool,
    /// Disjoint classes; `None`: the answer says nothing of this class.
    pub input: Option<u64>,
    pub cache_read: Option<u64>,
    pub cache_write_5m: Option<u64>,
    pub cache_write_1h: Option<u64>,
    pub output: Option<u64>,
    pub reasoning: Option<u64>,
    pub web_searches: Option<u64>,
}

/// What a request may ask for: words in `[[ ]]`, separated by spaces.
#[derive(Clone, Debug, Default)]
pub struct Directives {
    /// `coding=gzip|deflate|br|zstd`.
    pub coding: Option<String>,
    /// `slice=N`: at most N bytes per write.
    pub slice: Option<usize>,
    /// `status=429`: the provider's error body.
    pub status: Option<u16>,
    /// `cut=fin|rst`: the connection ends in the middle of the body.
    pub cut: Cut,
    /// `framing=close|chunked|length`.
    pub framing: Option<Framing>,
    /// `gate`: the second half waits for `Origin::open_gate`.
    pub gate: bool,
    /// `error`: an error event in the stream, after some content.
    pub error: bool,
    /// `search`: server tools ran: several usage events, input grows on the way.
    pub search: bool,
    /// `thinking`: reasoning tokens are reported.
    pub thinking: bool,
    /// `nocache`: no cache classes in the usage.
    pub nocache: bool,
    /// `sum`: headers hold the CRC-32 of the encoded body, and of the request's.
    pub sum: bool,
    /// `slow=MS`: a pause before each part.
    pub slow: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Cut {
    #[default]
    None,
    Fin,
    Reset,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    Length,
    Chunked,
    Close,
}

/// An answer, ready for either protocol.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// Encoded body; one part per event.
    pub parts: Vec<Vec<u8>>,
    pub framing: Framing,
    pub slice: Option<usize>,
    pub cut: Cut,
    pub gate: bool,
    pub slow: Option<Duration>,
    pub served: Option<Served>,
}

impl Reply {
    /// A recorded answer, in pieces that fall anywhere.
    pub fn recorded(headers: &[(&str, &str)], body: &str) -> Self {
        Self {
            status: 200,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            parts: body.as_bytes().chunks(13).map(<[u8]>::to_vec).collect(),
            framing: Framing::Chunked,
            slice: None,
            cut: Cut::None,
            gate: false,
            slow: None,
            served: None,
        }
    }

    pub fn reason(&self) -> &'static str {
        match self.status {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            404 => "Not Found",
            429 => "Too Many Requests",
            500 => "Internal Server Error",
            529 => "Overloaded",
            _ => "Status",
        }
    }
}

/// Body of an answer before framing and coding.
pub struct Content {
    pub content_type: &'static str,
    pub parts: Vec<Vec<u8>>,
    pub served: Option<Served>,
}

impl Content {
    /// In several parts, so that a cut or a gate falls into the middle.
    pub fn json(value: &Value, served: Option<Served>) -> Self {
        let text = value.to_string();
        let size = text.len().div_ceil(4).max(1);
        let parts = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        Self { content_type: "application/json", parts, served }
    }

    pub fn events(parts: Vec<Vec<u8>>, served: Served) -> Self {
        Self { content_type: "text/event-stream; charset=utf-8", parts, served: Some(served) }
    }
}

impl Directives {
    pub fn parse(text: &str) -> Self {
        let mut found = Self::default();
        let inside = text.split("[[").skip(1).filter_map(|rest| rest.split_once("]]"));
        for word in inside.flat_map(|(words, _)| words.split_whitespace()) {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            match key {
                "coding" => found.coding = Some(value.to_owned()),
                "slice" => found.slice = value.parse().ok(),
                "status" => found.status = value.parse().ok(),
                "cut" => found.cut = if value == "rst" { Cut::Reset } else { Cut::Fin },
                "framing" => {
                    found.framing = match value {
                        "close" => Some(Framing::Close),
                        "chunked" => Some(Framing::Chunked),
                        _ => Some(Framing::Length),
                    };
                }
                "gate" => found.gate = true,
                "error" => found.error = true,
                "search" => found.search = true,
                "thinking" => found.thinking = true,
                "nocache" => found.nocache = true,
                "sum" => found.sum = true,
                "slow" => found.slow = value.parse().ok().map(Duration::from_millis),
                _ => {}
            }
        }
        found
    }
}

/// `n` is unique per answer and goes into its token counts, so that no two answers look alike.
pub fn reply(request: &Request, scripted: Option<&str>, n: u64) -> Reply {
    let plain = match request.header("content-encoding") {
        Some("zstd") => zstd::decode_all(&request.body[..]).expect("a zstd body"),
        _ => request.body.clone(),
    };
    let directives = match scripted.or_else(|| request.header("x-origin")) {
        Some(words) => Directives::parse(words),
        None => Directives::parse(&String::from_utf8_lossy(&plain)),
    };
    let body: Value = serde_json::from_slice(&plain).unwrap_or(Value::Null);
    let request_id = format!("req_test_{n:06}");
    let (status, content) = route(request, &body, &directives, &request_id, n);
    let streamed = content.content_type.starts_with("text/event-stream");
    let array = content.parts.first().is_some_and(|p| p.starts_with(b"["));
    let mut headers = vec![
        ("content-type".to_owned(), content.content_type.to_owned()),
        ("Server".to_owned(), "test-origin".to_owned()),
    ];
    headers.push(match request.path() {
        p if p.contains(":generateContent") || p.contains(":streamGenerateContent") => {
            ("server-timing".to_owned(), "gfet4t7; dur=12".to_owned())
        }
        p if p.starts_with("/v1/chat") || p.starts_with("/v1/responses") => {
            ("x-request-id".to_owned(), request_id)
        }
        _ => ("request-id".to_owned(), request_id),
    });
    if matches!(status, 429 | 529) {
        headers.push(("retry-after-ms".to_owned(), "10".to_owned()));
    }
    let parts = match &directives.coding {
        Some(coding) => {
            headers.push(("content-encoding".to_owned(), coding.clone()));
            coding::encode(coding, &content.parts).expect("a coding that the origin knows")
        }
        None => content.parts,
    };
    if directives.sum {
        let mut sum = flate2::Crc::new();
        parts.iter().for_each(|part| sum.update(part));
        headers.push(("x-sum".to_owned(), sum.sum().to_string()));
        let mut got = flate2::Crc::new();
        got.update(&request.body);
        headers.push(("x-got".to_owned(), got.sum().to_string()));
    }
    Reply {
        status,
        headers,
        parts,
        framing: directives.framing.unwrap_or(if streamed || array {
            Framing::Chunked
        } else {
            Framing::Length
        }),
        slice: directives.slice,
        cut: directives.cut,
        gate: directives.gate,
        slow: directives.slow,
        served: content.served,
    }
}

fn route(
    request: &Request,
    body: &Value,
    directives: &Directives,
    request_id: &str,
    n: u64,
) -> (u16, Content) {
    let path = request.path();
    let served = |surface| Served {
        surface: Some(surface),
        status: directives.status.unwrap_or(200),
        request_id: request_id.to_owned(),
        stream: body["stream"] == true,
        ..Served::default()
    };
    if request.method == "POST" {
        let surface = match path {
            "/v1/messages" => Some(Surface::AnthropicMessages),
            "/v1/chat/completions" => Some(Surface::OpenAiChat),
            "/v1/responses" | "/backend-api/codex/responses" => Some(Surface::OpenAiResponses),
            _ if path.ends_with("enerateContent") => Some(Surface::Gemini),
            _ => None,
        };
        if let Some(surface) = surface {
            let mut served = served(surface);
            if surface == Surface::Gemini {
                served.stream = path.ends_with(":streamGenerateContent");
            }
            if let Some(status) = directives.status {
                let error = match surface {
                    Surface::AnthropicMessages => anthropic::error(status, request_id),
                    Surface::OpenAiChat | Surface::OpenAiResponses | Surface::Realtime => {
                        openai::error(status)
                    }
                    Surface::Gemini => {
                        served.request_id = String::new();
                        gemini::error(status)
                    }
                };
                return (status, Content::json(&error, Some(served)));
            }
            let content = match surface {
                Surface::AnthropicMessages => anthropic::messages(body, directives, served, n),
                Surface::OpenAiChat => openai::chat(body, directives, served, n),
                Surface::OpenAiResponses | Surface::Realtime => {
                    openai::responses(body, directives, served, n)
                }
                Surface::Gemini => gemini::generate(request, directives, served, n),
            };
            return (200, content);
        }
    }
    side_path(request, path, request_id)
}

/// Bytes that no shift or repetition of themselves equals, for a mebibyte; then again.
fn pattern(size: usize) -> Vec<u8> {
    static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let words = (0u64..).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        words.take(1 << 20).collect()
    });
    let mut bytes = BLOCK.repeat(size.div_ceil(BLOCK.len()));
    bytes.truncate(size);
    bytes
}

/// What the clients ask for besides the model.
fn side_path(request: &Request, path: &str, request_id: &str) -> (u16, Content) {
    let ok = |value: Value| (200, Content::json(&value, None));
    match (request.method.as_str(), path) {
        ("POST", "/v1/messages/count_tokens") => ok(json!({ "input_tokens": 42 })),
        ("POST", p) if p.ends_with(":countTokens") => ok(json!({ "totalTokens": 42 })),
        ("GET", "/v1/models") => ok(json!({
            "object": "list", "has_more": false, "first_id": null, "last_id": null,
            "data": [{ "id": "test-model", "type": "model", "object": "model",
                       "display_name": "Test", "created_at": "2026-01-01T00:00:00Z" }],
        })),
        ("GET", "/plain") => {
            let content_type = "text/plain";
            (200, Content { content_type, parts: vec![b"plain answer\n".to_vec()], served: None })
        }
        ("POST", "/echo") => {
            let content_type = "application/octet-stream";
            (200, Content { content_type, parts: vec![request.body.clone()], served: None })
        }
        ("GET", "/blob") => {
            let size = request.target.rsplit('=').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            let content_type = "application/octet-stream";
            (200, Content { content_type, parts: vec![pattern(size)], served: None })
        }
        (_, p) if p.starts_with("/api/") => ok(json!({})),
        _ => (404, Content::json(&anthropic::error(404, request_id), None)),
    }
}
