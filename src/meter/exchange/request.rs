//! What the request says: model, stream, who asks. Nothing of it is kept but that.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::agent::Agent;
use super::headers::codings;
use super::messages::Messages;
use crate::meter::bodies::Capture;
use crate::meter::http::{Headers, RequestHead};
use crate::meter::surface::scan::{Found, Paths, Scanner};
use crate::meter::usage::{Counts, Usage};
use crate::meter::{coding, connect_rpc, multipart, secrets};

/// Decoded request bytes that are looked at; what is behind is passed over.
const MAX_DECODED: u64 = 1024 * 1024 * 1024;
/// What a client's message may have, to be looked at.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
const MAX_PATH: usize = 512;
const MAX_NAME: usize = 200;

pub(super) const PATHS: &[&str] = &[
    "model",
    "stream",
    "generate",
    "metadata.user_id",
    "request.session_id",
    "prompt_cache_options.ttl",
    "client_metadata.x-openai-subagent",
    "client_metadata.x-codex-parent-thread-id",
];
const MODEL: usize = 0;
const STREAM: usize = 1;
const GENERATE: usize = 2;
const USER_ID: usize = 3;
const SESSION: usize = 4;
const CACHE_TTL: usize = 5;
const CODEX_KIND: usize = 6;
const CODEX_PARENT: usize = 7;

/// What a request asks for that is billed by count, when the answer says nothing of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asks {
    /// Its `input` is read aloud.
    Speech,
    /// So many images, of a size and a quality.
    Images,
}

impl Asks {
    /// Behind [`PATHS`].
    const fn paths(self) -> &'static [&'static str] {
        match self {
            Self::Speech => SPEECH_PATHS,
            Self::Images => IMAGE_PATHS,
        }
    }
}

const SPEECH_PATHS: &[&str] = &["input"];
const IMAGE_PATHS: &[&str] = &["n", "size", "quality"];

/// Headers that name the session: of Claude Code, Codex (now and formerly), opencode, Copilot CLI.
const SESSIONS: &[&str] = &[
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "x-session-affinity",
    "x-client-session-id",
];

/// How a body says what it asks for.
#[derive(Debug)]
enum Shape {
    Json(Scanner),
    /// With files: of its fields those that [`PATHS`] and what else is looked for name.
    Form(multipart::Parser, Found),
    /// Messages that are no JSON.
    Envelopes(connect_rpc::Parser, Messages),
}

/// Follows the request's body. It is scanned as it streams by, in whatever coding it has.
#[derive(Debug)]
pub(super) struct Request {
    decoder: Option<coding::Decoder>,
    shape: Shape,
    pub(super) bytes: u64,
    pub(super) model: Option<String>,
    pub(super) stream: Option<bool>,
    /// The request only warms something up: nothing is generated.
    pub(super) warm_up: bool,
    cache_ttl: Option<String>,
    pub(super) session: Option<String>,
    pub(super) agent: Agent,
    /// Codex's name for what asks; a sub-agent has one of its own.
    thread: Option<String>,
    asks: Option<Asks>,
    /// What the messages of a call are compressed with.
    compression: Option<String>,
    /// What was asked for earlier and is read back.
    pub(super) subject: Option<String>,
    /// What is asked for, by count.
    pub(super) counts: Counts,
}

impl Request {
    pub(super) fn new(head: &RequestHead) -> Self {
        let coding = codings(&head.headers);
        let form = head.headers.get("content-type").and_then(multipart::Parser::new);
        Self {
            // A body that can't be decoded only means that the model is not known from it.
            decoder: coding::Decoder::new(&coding, MAX_DECODED).ok(),
            shape: match form {
                Some(parser) => Shape::Form(parser, Found::default()),
                None => Shape::Json(Scanner::new(paths())),
            },
            bytes: 0,
            model: None,
            stream: None,
            warm_up: false,
            cache_ttl: None,
            session: SESSIONS.iter().find_map(|name| head.headers.get(name)).and_then(short),
            agent: Agent::of(&head.headers),
            thread: head.headers.get("thread-id").and_then(short),
            asks: None,
            compression: head.headers.get("grpc-encoding").map(str::to_owned),
            subject: None,
            counts: Counts::new(),
        }
    }

    /// Looks for what is asked for, too.
    pub(super) fn count(&mut self, asks: Asks) {
        self.asks = Some(asks);
        if let Shape::Json(scanner) = &mut self.shape {
            *scanner = Scanner::new(Paths::new(&[PATHS, asks.paths()].concat()));
        }
    }

    /// Its body is such messages, if it is at this path.
    pub(super) fn read_messages(&mut self, messages: Messages, path: &str) {
        if messages.are_asked(path) {
            let parser = connect_rpc::Parser::new(MAX_MESSAGE);
            let parser = parser.compressed_by(self.compression.as_deref());
            self.shape = Shape::Envelopes(parser, messages);
        }
    }

    /// A request that is a message on the WebSocket that this one opened.
    pub(super) fn for_message(&self) -> Self {
        Self {
            decoder: None,
            session: self.session.clone(),
            agent: self.agent.clone(),
            thread: self.thread.clone(),
            ..Self::new(&RequestHead::default())
        }
    }

    /// The message that asks, scanned for [`PATHS`] and more.
    pub(super) fn message(&mut self, found: &Found) {
        self.take(found);
    }

    /// What it asked for, where the response does not say how long what it wrote to a cache is kept.
    pub(super) fn cache_lifetime(&self, usage: &mut Usage) {
        let written = usage.tokens.cache_write_other.is_some_and(|n| n > 0);
        let open = written && usage.written_12h.is_none();
        let ttl = usage.cache_ttl.take().or_else(|| self.cache_ttl.clone());
        usage.cache_ttl = ttl.filter(|_| open);
    }

    pub(super) fn body(&mut self, data: &[u8], mut capture: Option<&mut Capture>) {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        let Some(mut decoder) = self.decoder.take() else { return };
        let mut documents = Vec::new();
        let (shape, more) = (&mut self.shape, self.asks.map(Asks::paths));
        let (model, subject) = (&mut self.model, &mut self.subject);
        let result = decoder.feed(data, &mut |plain| {
            match shape {
                Shape::Json(scanner) => {
                    scanner.feed(plain, &mut |found| documents.push(std::mem::take(found)));
                }
                Shape::Form(parser, found) => parser.feed(plain, &mut |name, value| {
                    let mut paths = PATHS.iter().chain(more.unwrap_or_default());
                    if let Some(path) = paths.position(|path| *path == name) {
                        found.set(path, of_field(value));
                    }
                }),
                Shape::Envelopes(parser, messages) => parser.feed(plain, &mut |envelope| {
                    let (asked, fetched) = messages.asked(envelope.payload);
                    *model = model.take().or_else(|| short(&asked?));
                    *subject = subject.take().or_else(|| short(&fetched?));
                }),
            }
            if let Some(capture) = &mut capture {
                capture.request(plain);
            }
        });
        match (result, capture) {
            (Ok(()), _) => self.decoder = Some(decoder),
            (Err(why), Some(capture)) => capture.request.unread = Some(why.to_string()),
            (Err(_), None) => {}
        }
        documents.iter().for_each(|found| self.take(found));
    }

    /// No more of the body will come (or matter): what may still come is only counted.
    pub(super) fn end(&mut self) {
        self.decoder = None;
        let mut documents = Vec::new();
        match &mut self.shape {
            Shape::Json(scanner) => {
                scanner.finish(&mut |found| documents.push(std::mem::take(found)));
            }
            Shape::Form(_, found) if !found.is_empty() => documents.push(std::mem::take(found)),
            Shape::Form(..) | Shape::Envelopes(..) => {}
        }
        documents.iter().for_each(|found| self.take(found));
    }

    fn take(&mut self, found: &Found) {
        let text = |path| found.last(path).and_then(Value::as_str).and_then(short);
        self.model = text(MODEL).or(self.model.take());
        self.stream = found.last(STREAM).and_then(Value::as_bool).or(self.stream);
        self.warm_up |= found.last(GENERATE).and_then(Value::as_bool) == Some(false);
        self.cache_ttl = text(CACHE_TTL).or(self.cache_ttl.take());
        if self.session.is_none() {
            let user = found.last(USER_ID).and_then(Value::as_str);
            self.session = user.and_then(session_of_user).or_else(|| text(SESSION));
        }
        self.agent.of_codex(text(CODEX_KIND), text(CODEX_PARENT), self.thread.as_ref());
        match self.asks {
            Some(Asks::Speech) => self.counts = characters(found),
            Some(Asks::Images) => self.counts = images(found),
            None => {}
        }
    }
}

fn paths() -> Arc<Paths> {
    static COMPILED: LazyLock<Arc<Paths>> = LazyLock::new(|| Paths::new(PATHS));
    Arc::clone(&COMPILED)
}

/// A form's fields are text, whatever they mean.
fn of_field(text: &str) -> Value {
    let json: Option<Value> = serde_json::from_str(text).ok();
    json.filter(|json| json.is_u64() || json.is_boolean()).unwrap_or_else(|| text.into())
}

fn characters(found: &Found) -> Counts {
    let input = found.last(PATHS.len()).and_then(Value::as_str);
    input.map(|text| ("characters".to_owned(), text.chars().count() as u64)).into_iter().collect()
}

/// Named as their prices are: `images_hd_1024x1024`.
fn images(found: &Found) -> Counts {
    let [number, size, quality] = [0, 1, 2].map(|path| found.last(PATHS.len() + path));
    let name = |value: Option<&Value>| {
        let name = value.and_then(Value::as_str).unwrap_or("auto");
        let plain = |c: char| c.is_ascii_alphanumeric();
        (name.len() <= 16 && name.chars().all(plain)).then(|| name.to_ascii_lowercase())
    };
    let number = number.map_or(Some(1), Value::as_u64);
    let named = name(quality).zip(name(size)).zip(number);
    named.map(|((quality, size), n)| (format!("images_{quality}_{size}"), n)).into_iter().collect()
}

/// Claude Code's `metadata.user_id`: JSON with a `session_id`, formerly `…_session_<id>`.
fn session_of_user(user: &str) -> Option<String> {
    let json: Option<Value> = serde_json::from_str(user).ok();
    let named = json.as_ref().and_then(|json| json.get("session_id")?.as_str());
    short(named.or_else(|| Some(user.rsplit_once("_session_")?.1))?)
}

/// The path without the query, which has Gemini's key in it. There may still be one in the rest.
pub(super) fn path(target: &str) -> &str {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    // Absolute form: `http://host/path`.
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    }
}

/// What is kept of it.
pub(super) fn kept_path(path: &str) -> String {
    clip(&secrets::path(path), MAX_PATH)
}

/// HTTP/1.1's upgrade, or HTTP/2's extended CONNECT.
pub(super) fn asks_for_websocket(head: &RequestHead) -> bool {
    head.protocol.as_deref() == Some("websocket")
        || head.headers.get("upgrade").is_some_and(|to| to.eq_ignore_ascii_case("websocket"))
}

/// Realtime names its model in the query, Azure's a deployment. Nothing else of it is looked at.
pub(super) fn model_of_query(target: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let named = |name: &str| {
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
    };
    let (_, value) = named("model").or_else(|| named("deployment"))?;
    short(value)
}

/// A name for the client when the process is not known: the product token of its `User-Agent`.
pub(super) fn client(headers: &Headers) -> Option<String> {
    let agent = headers.get("user-agent")?;
    let product = agent.split(['/', ' ', '(']).next().unwrap_or_default();
    let known = match product.to_ascii_lowercase().as_str() {
        "claude-cli" => "claude-code",
        "codex_exec" | "codex_cli_rs" | "codex" | "codex-tui" | "codex_vscode" => "codex",
        "geminicli" | "geminicli-tui" | "gemini-cli" => "gemini-cli",
        "openai" | "asyncopenai" => "openai-sdk",
        "anthropic" | "asyncanthropic" => "anthropic-sdk",
        "google-genai-sdk" => "google-genai",
        "githubcopilotcli" | "copilot" | "githubcopilotchat" => "copilot",
        _ => "",
    };
    if !known.is_empty() {
        return Some(known.to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!product.is_empty() && product.len() <= 32 && product.chars().all(plain))
        .then(|| product.to_ascii_lowercase())
}

/// What subscribers send: Claude Code an OAuth token, `MiniMax`'s a key of the plan's own. Its kind is
/// looked at, never kept.
pub(super) fn of_subscriber(provider: &str, headers: &Headers) -> bool {
    let bearer = headers.get("authorization").and_then(|value| value.split_once(' '));
    let bearer = bearer.map(|(_, token)| token.trim_start());
    let keys = [bearer, headers.get("x-api-key").map(str::trim_start)];
    bearer.is_some_and(|token| token.starts_with("sk-ant-oat"))
        || (provider == "minimax" && keys.iter().flatten().any(|key| key.starts_with("sk-cp-")))
}

/// Identifiers are short; what is not is not one.
pub(super) fn short(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control))
        .then(|| text.to_owned())
}

/// What a provider calls things, bounded as its identifiers are.
pub(super) fn shorten(usage: &mut Usage) {
    let parts = usage.parts.iter_mut().flat_map(|part| [&mut part.model, &mut part.geo]);
    for name in parts.chain([&mut usage.speed, &mut usage.geo, &mut usage.cache_ttl]) {
        *name = name.as_deref().and_then(short);
    }
}

fn clip(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_hold_no_secret() {
        for (target, expected) in [
            ("/v1/messages?beta=true", "/v1/messages"),
            ("/v1beta/models/g:generateContent?key=AIzaSecret", "/v1beta/models/g:generateContent"),
            ("http://127.0.0.1:11434/api/chat?x=1", "/api/chat"),
            ("http://host", "/"),
            ("/u/sk-ant-api03-secret/x", "/u/[redacted]/x"),
            ("", ""),
            ("*", "*"),
        ] {
            assert_eq!(kept_path(path(target)), expected, "{target}");
        }
        assert_eq!(kept_path(&format!("/{}", "é".repeat(1000))).len(), 511);
    }

    #[test]
    fn clients_by_user_agent() {
        for (agent, expected) in [
            ("claude-cli/2.1.330 (external, sdk-cli)", Some("claude-code")),
            ("codex_exec/0.169.0", Some("codex")),
            ("OpenAI/Python 2.54.0", Some("openai-sdk")),
            ("GeminiCLI-tui/0.61.0/gemini-2.5-flash (linux; x64; terminal)", Some("gemini-cli")),
            ("copilot/1.0.102 (linux v24.20.0) term/unknown client/github/cli", Some("copilot")),
            ("curl/8.5.0", Some("curl")),
            ("(odd)", None),
            ("", None),
        ] {
            let headers = [("user-agent", agent)].into_iter().collect();
            assert_eq!(client(&headers).as_deref(), expected, "{agent}");
        }
    }

    #[test]
    fn sessions_by_header() {
        for name in SESSIONS {
            let headers = [(name, "s-1")].into_iter().collect();
            let head = RequestHead { headers, ..RequestHead::default() };
            assert_eq!(Request::new(&head).session.as_deref(), Some("s-1"), "{name}");
        }
    }

    #[test]
    fn sessions_in_both_forms_of_the_user_id() {
        let json = r#"{"device_id":"d","account_uuid":"a","session_id":"s-1"}"#;
        assert_eq!(session_of_user(json).as_deref(), Some("s-1"));
        assert_eq!(session_of_user("user_ab_account__session_s-2").as_deref(), Some("s-2"));
        assert_eq!(session_of_user("someone@example.com"), None);
    }
}
