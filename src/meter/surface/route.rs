//! What a request is, by host, method and path alone.

/// An API surface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Messages,
    CountTokens,
    Chat,
    Completions,
    Responses,
    /// Over a WebSocket only.
    Realtime,
    InputTokens,
    Embeddings,
    Images,
    Audio,
    Gemini,
    GeminiEmbed,
    GeminiCountTokens,
    CodeAssist,
    Cohere,
    /// A POST to a host that we don't know: the shape of the response decides.
    Unknown,
}

impl Kind {
    /// The name in the ledger; `None` until the shape is known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Messages => "anthropic.messages",
            Self::CountTokens => "anthropic.count_tokens",
            Self::Chat => "openai.chat",
            Self::Completions => "openai.completions",
            Self::Responses => "openai.responses",
            Self::Realtime => "openai.realtime",
            Self::InputTokens => "openai.input_tokens",
            Self::Embeddings => "openai.embeddings",
            Self::Images => "openai.images",
            Self::Audio => "openai.audio",
            Self::Gemini => "gemini.generate",
            Self::GeminiEmbed => "gemini.embed",
            Self::GeminiCountTokens => "gemini.count_tokens",
            Self::CodeAssist => "gemini.code_assist",
            Self::Cohere => "cohere.chat",
            Self::Unknown => return None,
        })
    }

    /// Whose models are called through this surface when the host is nobody's we know.
    #[must_use]
    pub fn family(self) -> Option<&'static str> {
        match self {
            Self::Messages | Self::CountTokens => Some("anthropic"),
            Self::Chat
            | Self::Completions
            | Self::Responses
            | Self::Realtime
            | Self::InputTokens
            | Self::Embeddings
            | Self::Images
            | Self::Audio => Some("openai"),
            Self::Gemini | Self::GeminiEmbed | Self::GeminiCountTokens | Self::CodeAssist => {
                Some("google")
            }
            Self::Cohere => Some("cohere"),
            Self::Unknown => None,
        }
    }

    fn side_call(self) -> bool {
        match self {
            // Unknown: until the response turns out to be a model's.
            Self::CountTokens | Self::InputTokens | Self::GeminiCountTokens | Self::Unknown => true,
            Self::Messages
            | Self::Chat
            | Self::Completions
            | Self::Responses
            | Self::Realtime
            | Self::Embeddings
            | Self::Images
            | Self::Audio
            | Self::Gemini
            | Self::GeminiEmbed
            | Self::CodeAssist
            | Self::Cohere => false,
        }
    }
}

/// What a request is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// A provider of the price book, or the host itself.
    pub provider: String,
    pub known_provider: bool,
    pub kind: Option<Kind>,
    pub billable: bool,
    /// Covered by a subscription, as the host says.
    pub subscription: bool,
    /// Gemini and the like name the model in the path.
    pub model: Option<String>,
    pub stream: Option<bool>,
    /// The region of a regional host, which has a price of its own.
    pub geo: Option<&'static str>,
}

const PROVIDERS: &[(&str, &str)] = &[
    ("api.anthropic.com", "anthropic"),
    (crate::config::SELFTEST_HOST, "anthropic"),
    ("api.openai.com", "openai"),
    ("us.api.openai.com", "openai"),
    ("eu.api.openai.com", "openai"),
    ("chatgpt.com", "openai"),
    ("generativelanguage.googleapis.com", "google"),
    ("generativelanguage.mtls.googleapis.com", "google"),
    ("cloudcode-pa.googleapis.com", "google"),
    ("daily-cloudcode-pa.googleapis.com", "google"),
    ("api.x.ai", "xai"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral"),
    ("codestral.mistral.ai", "mistral"),
    ("api.deepseek.com", "deepseek"),
    ("openrouter.ai", "openrouter"),
    ("api.together.ai", "together"),
    ("api.together.xyz", "together"),
    ("api-inference.together.ai", "together"),
    ("api.fireworks.ai", "fireworks"),
    ("api.cohere.com", "cohere"),
    ("api.perplexity.ai", "perplexity"),
    ("api.cerebras.ai", "cerebras"),
];

/// Classifies a request. `path` is without the query; `upgrade` = it asks for a WebSocket.
#[must_use]
pub fn route(host: &str, method: &str, path: &str, upgrade: bool) -> Route {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let known = PROVIDERS.iter().find(|(name, _)| *name == host).map(|(_, provider)| *provider);
    let provider = known.unwrap_or(&host).to_owned();
    let path = path.trim_end_matches('/');
    let posted = method.eq_ignore_ascii_case("POST");
    let (kind, model, stream) = if upgrade && path.ends_with("/realtime") {
        (Some(Kind::Realtime), None, Some(true))
    } else {
        kind(known, path, posted || upgrade)
    };
    // Reading a stored response back repeats its usage: only what creates one is billed.
    let billable = kind.is_some_and(|kind| !kind.side_call()) && (posted || upgrade);
    Route {
        known_provider: known.is_some(),
        kind: kind.filter(|_| posted || upgrade),
        billable,
        subscription: host == "chatgpt.com" || host.ends_with("cloudcode-pa.googleapis.com"),
        model,
        stream,
        geo: match host.as_str() {
            "us.api.openai.com" => Some("us"),
            "eu.api.openai.com" => Some("eu"),
            _ => None,
        },
        provider,
    }
}

type Classified = (Option<Kind>, Option<String>, Option<bool>);

fn kind(known: Option<&str>, path: &str, posted: bool) -> Classified {
    let last = path.rsplit('/').next().unwrap_or_default();
    if let Some((name, action)) = last.rsplit_once(':') {
        let assist = path.starts_with("/v1internal:");
        let model = (!name.is_empty() && !assist).then(|| name.to_owned());
        let (kind, stream) = match action {
            "generateContent" => (Kind::Gemini, Some(false)),
            "streamGenerateContent" => (Kind::Gemini, Some(true)),
            "embedContent" | "batchEmbedContents" => (Kind::GeminiEmbed, Some(false)),
            "countTokens" => (Kind::GeminiCountTokens, Some(false)),
            _ => return (None, None, None),
        };
        let kind = if assist && kind == Kind::Gemini { Kind::CodeAssist } else { kind };
        return (Some(kind), model, stream);
    }
    let ends = |suffix: &str| path.ends_with(suffix);
    let cohere = known == Some("cohere");
    let kind = if ends("/v1/messages/count_tokens") {
        Some(Kind::CountTokens)
    } else if ends("/v1/messages") {
        Some(Kind::Messages)
    } else if ends("/chat/completions") {
        Some(Kind::Chat)
    } else if ends("/completions") {
        Some(Kind::Completions)
    } else if ends("/responses/input_tokens") {
        Some(Kind::InputTokens)
    } else if ends("/responses") || ends("/responses/compact") {
        Some(Kind::Responses)
    } else if ends("/embeddings") {
        Some(Kind::Embeddings)
    } else if ends("/images/generations") || ends("/images/edits") {
        Some(Kind::Images)
    } else if ends("/audio/transcriptions") || ends("/audio/translations") || ends("/audio/speech")
    {
        Some(Kind::Audio)
    } else if cohere && (ends("/chat") || ends("/embed") || ends("/rerank")) {
        Some(Kind::Cohere)
    } else if known.is_none() && posted {
        Some(Kind::Unknown)
    } else {
        None
    };
    (kind, None, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_what_their_paths_say() {
        for (host, method, path, kind, billable) in [
            ("api.anthropic.com", "POST", "/v1/messages", Some(Kind::Messages), true),
            (
                "api.anthropic.com",
                "POST",
                "/v1/messages/count_tokens",
                Some(Kind::CountTokens),
                false,
            ),
            ("api.anthropic.com", "POST", "/v1/messages/batches", None, false),
            ("api.anthropic.com", "GET", "/v1/models", None, false),
            ("api.anthropic.com", "POST", "/api/event_logging/v2/batch", None, false),
            ("api.openai.com", "POST", "/v1/chat/completions", Some(Kind::Chat), true),
            ("api.openai.com", "GET", "/v1/chat/completions", None, false),
            ("api.openai.com", "POST", "/v1/completions", Some(Kind::Completions), true),
            ("api.openai.com", "POST", "/v1/responses", Some(Kind::Responses), true),
            ("api.openai.com", "GET", "/v1/responses/resp_1", None, false),
            (
                "api.openai.com",
                "POST",
                "/v1/responses/input_tokens",
                Some(Kind::InputTokens),
                false,
            ),
            ("api.openai.com", "POST", "/v1/responses/resp_1/cancel", None, false),
            ("api.openai.com", "POST", "/v1/threads/t/messages", None, false),
            ("api.openai.com", "POST", "/v1/embeddings", Some(Kind::Embeddings), true),
            ("chatgpt.com", "POST", "/backend-api/codex/responses", Some(Kind::Responses), true),
            ("chatgpt.com", "GET", "/backend-api/codex/models", None, false),
            ("API.Groq.com.", "POST", "/openai/v1/chat/completions", Some(Kind::Chat), true),
            ("api.deepseek.com", "POST", "/anthropic/v1/messages", Some(Kind::Messages), true),
            ("api.cohere.com", "POST", "/v2/chat", Some(Kind::Cohere), true),
            (
                "cloudcode-pa.googleapis.com",
                "POST",
                "/v1internal:streamGenerateContent",
                Some(Kind::CodeAssist),
                true,
            ),
            ("cloudcode-pa.googleapis.com", "POST", "/v1internal:loadCodeAssist", None, false),
            ("llm.corp.example", "POST", "/proxy/v1/chat/completions", Some(Kind::Chat), true),
            ("llm.corp.example", "POST", "/ask", Some(Kind::Unknown), false),
            ("llm.corp.example", "GET", "/ask", None, false),
            ("", "", "", None, false),
        ] {
            let route = route(host, method, path, false);
            assert_eq!((route.kind, route.billable), (kind, billable), "{method} {host}{path}");
        }
    }

    #[test]
    fn a_websocket_is_opened_with_get() {
        let socket = route("api.openai.com", "GET", "/v1/responses", true);
        assert_eq!((socket.kind, socket.billable), (Some(Kind::Responses), true));
    }

    #[test]
    fn gemini_names_the_model_in_the_path() {
        let path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
        let gemini = route("generativelanguage.googleapis.com", "POST", path, false);
        assert_eq!(gemini.model.as_deref(), Some("gemini-2.5-pro"));
        assert_eq!((gemini.kind, gemini.stream), (Some(Kind::Gemini), Some(true)));
        let count = route("x", "POST", "/v1/models/gemini-2.5-pro:countTokens", false);
        assert_eq!((count.kind, count.billable), (Some(Kind::GeminiCountTokens), false));
    }

    #[test]
    fn hosts_say_who_and_on_what_terms() {
        assert!(route("chatgpt.com", "POST", "/", false).subscription);
        assert!(!route("api.openai.com", "POST", "/", false).subscription);
        assert_eq!(route("eu.api.openai.com", "POST", "/", false).geo, Some("eu"));
        let unknown = route("Llm.Corp.example", "POST", "/", false);
        assert_eq!(
            (unknown.provider.as_str(), unknown.known_provider),
            ("llm.corp.example", false)
        );
    }
}
