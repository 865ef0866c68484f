//! Which answer a request gets.

use std::time::Duration;

use serde_json::Value;

use super::route::route;
use super::{Request, bedrock, coding};

/// Which API shape an answer has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Surface {
    AnthropicMessages,
    OpenAiChat,
    OpenAiResponses,
    /// Over a WebSocket only, as Responses may be.
    Realtime,
    Gemini,
    /// Bedrock's own shape.
    Converse,
    Cohere,
}

/// What an answer told of itself: what a meter must find out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Served {
    pub surface: Option<Surface>,
    /// Where the client asked.
    pub host: String,
    pub path: String,
    pub status: u16,
    /// In a header, or in the body where the provider has none (Gemini).
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
    /// Headers of this surface alone.
    pub headers: Vec<(String, String)>,
    pub parts: Vec<Vec<u8>>,
    pub served: Option<Served>,
}

impl Content {
    /// In several parts, so that a cut or a gate falls into the middle.
    pub fn json(value: &Value, served: Option<Served>) -> Self {
        let text = value.to_string();
        let size = text.len().div_ceil(4).max(1);
        let parts = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        Self { content_type: "application/json", headers: Vec::new(), parts, served }
    }

    pub fn events(parts: Vec<Vec<u8>>, served: Served) -> Self {
        Self {
            content_type: "text/event-stream; charset=utf-8",
            headers: Vec::new(),
            parts,
            served: Some(served),
        }
    }

    pub fn bytes(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { content_type, headers: Vec::new(), parts: vec![body], served: None }
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
    let (status, content) = route(request, &body, &directives, n);
    let streamed = content.content_type.starts_with("text/event-stream")
        || content.content_type == bedrock::EVENTSTREAM;
    let array = content.parts.first().is_some_and(|p| p.starts_with(b"["));
    let mut headers = vec![
        ("content-type".to_owned(), content.content_type.to_owned()),
        ("Server".to_owned(), "test-origin".to_owned()),
    ];
    headers.extend(content.headers);
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
