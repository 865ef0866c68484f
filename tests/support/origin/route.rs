//! Which provider a request is meant for, and what that provider says to it.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::answer::{Content, Directives, Served, Surface};
use super::{Request, anthropic, bedrock, cohere, gemini, openai, sides};

/// Status and answer. `n` numbers it.
pub fn route(request: &Request, body: &Value, d: &Directives, n: u64) -> (u16, Content) {
    let path = request.path();
    let Some(surface) = surface(request) else { return side_path(request, path, n) };
    let mut served = Served {
        surface: Some(surface),
        host: request.host().to_owned(),
        path: path.to_owned(),
        status: d.status.unwrap_or(200),
        stream: body["stream"] == true,
        ..Served::default()
    };
    if let Some((model, action)) = named_in_path(path) {
        served.model = model;
        served.stream = action.to_ascii_lowercase().contains("stream");
    }
    let header = id_header(request.host(), surface);
    if header.is_some() {
        served.request_id = format!("req_test_{n:06}");
    }
    let id = served.request_id.clone();
    let (status, mut content) = match d.status {
        Some(status) => (status, Content::json(&error(surface, status, &id), Some(served))),
        None => (200, content(request, body, d, served, n)),
    };
    content.headers.extend(header.map(|name| (name.to_owned(), id)));
    (status, content)
}

fn surface(request: &Request) -> Option<Surface> {
    let (host, path) = (request.host(), request.path());
    if request.method != "POST" {
        return None;
    }
    match path {
        "/v1/messages" => Some(Surface::AnthropicMessages),
        "/v2/chat" if host == "api.cohere.com" => Some(Surface::Cohere),
        _ if path.ends_with("/chat/completions") => Some(Surface::OpenAiChat),
        _ if path.ends_with("/responses") => Some(Surface::OpenAiResponses),
        _ if path.ends_with("enerateContent") => Some(Surface::Gemini),
        _ if path.ends_with("awPredict") && path.contains("/publishers/anthropic/") => {
            Some(Surface::AnthropicMessages)
        }
        _ if path.starts_with("/model/") && path.contains("/converse") => Some(Surface::Converse),
        _ if path.starts_with("/model/") && path.contains("/invoke") => {
            Some(Surface::AnthropicMessages)
        }
        _ => None,
    }
}

/// `/model/MODEL/ACTION` (Bedrock) and `…/MODEL:ACTION` (Google).
fn named_in_path(path: &str) -> Option<(String, &str)> {
    if let Some(rest) = path.strip_prefix("/model/") {
        let (model, action) = rest.rsplit_once('/')?;
        return Some((model.replace("%3A", ":").replace("%3a", ":"), action));
    }
    let (model, action) = path.rsplit_once('/')?.1.rsplit_once(':')?;
    Some((model.to_owned(), action))
}

/// The header that holds the id of the request; `None`: this provider sends none.
fn id_header(host: &str, surface: Surface) -> Option<&'static str> {
    match surface {
        _ if host.contains("bedrock-runtime") => Some("x-amzn-RequestId"),
        Surface::Gemini => None,
        Surface::AnthropicMessages | Surface::Converse => Some("request-id"),
        Surface::Cohere => Some("x-debug-trace-id"),
        Surface::OpenAiChat if host == "api.mistral.ai" => None,
        Surface::OpenAiChat | Surface::OpenAiResponses | Surface::Realtime => Some("x-request-id"),
    }
}

fn error(surface: Surface, status: u16, id: &str) -> Value {
    match surface {
        Surface::AnthropicMessages => anthropic::error(status, id),
        Surface::OpenAiChat | Surface::OpenAiResponses | Surface::Realtime => openai::error(status),
        Surface::Gemini => gemini::error(status),
        Surface::Converse | Surface::Cohere => json!({ "message": "as the test asked" }),
    }
}

fn content(request: &Request, body: &Value, d: &Directives, served: Served, n: u64) -> Content {
    let path = request.path();
    match served.surface.expect("a surface") {
        Surface::AnthropicMessages if path.starts_with("/model/") => {
            bedrock::invoke(body, d, served, n)
        }
        Surface::AnthropicMessages => anthropic::messages(body, d, served, n),
        Surface::OpenAiChat => openai::chat(body, d, served, n),
        Surface::OpenAiResponses | Surface::Realtime => openai::responses(body, d, served, n),
        Surface::Gemini => {
            let mut content = gemini::generate(request, body, d, served, n);
            content.headers.push(("server-timing".to_owned(), "gfet4t7; dur=12".to_owned()));
            content
        }
        Surface::Converse => bedrock::converse(d, served, n),
        Surface::Cohere => cohere::chat(served, n),
    }
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
fn side_path(request: &Request, path: &str, n: u64) -> (u16, Content) {
    const BINARY: &str = "application/octet-stream";
    let id = format!("req_test_{n:06}");
    let mut answer = match (request.method.as_str(), path) {
        ("GET", "/plain") => (200, Content::bytes("text/plain", b"plain answer\n".to_vec())),
        ("POST", "/echo") => (200, Content::bytes(BINARY, request.body.clone())),
        ("GET", "/blob") => {
            let size = request.target.rsplit('=').next().and_then(|n| n.parse().ok()).unwrap_or(0);
            (200, Content::bytes(BINARY, pattern(size)))
        }
        (method, path) => match sides::answer(request.host(), method, path) {
            Some(value) => (200, Content::json(&value, None)),
            None => (404, Content::json(&anthropic::error(404, &id), None)),
        },
    };
    answer.1.headers.push(("request-id".to_owned(), id));
    answer
}
