//! What a request is, by host, method and path alone.

use super::kind::Kind;
use super::provider::{LOCAL, Terms, of_host};
use crate::config::percent_decode;

/// What a request is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// A provider that we know, or the host itself.
    pub provider: String,
    pub kind: Option<Kind>,
    pub billable: bool,
    /// Reads what an earlier request asked for: counts only what was not told then, and only once.
    pub reread: bool,
    /// Covered by a subscription, as the host says.
    pub subscription: bool,
    /// Gemini, the clouds and the like name the model in the path.
    pub model: Option<String>,
    pub stream: Option<bool>,
    /// The region of a regional host, which has a price of its own.
    pub geo: Option<&'static str>,
    /// What the path reads back: a batch or a file.
    pub subject: Option<String>,
}

/// Classifies a request. `local`: the host's models are the user's own. `path` is without the query;
/// `upgrade` = it asks for a WebSocket.
#[must_use]
pub fn route(host: &str, local: bool, method: &str, path: &str, upgrade: bool) -> Route {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let known = if local { Some((LOCAL, Terms::Metered)) } else { of_host(&host) };
    let path = path.trim_end_matches('/');
    let asked = method.eq_ignore_ascii_case("POST") || upgrade;
    let mut class = if asked {
        classify(known.map(|(provider, _)| provider), path)
    } else if method.eq_ignore_ascii_case("GET") {
        read_back(known.map(|(provider, _)| provider), path)
    } else {
        Class::default()
    };
    if asked && class.kind.is_none() && (local || known.is_none()) {
        class.kind = Some(Kind::Unknown);
    }
    let over_socket = matches!(class.kind, Some(Kind::Realtime | Kind::Live));
    Route {
        provider: known.map_or_else(|| host.clone(), |(provider, _)| provider.to_owned()),
        kind: class.kind,
        billable: asked && class.kind.is_some_and(Kind::asks_model),
        reread: !asked && class.kind.is_some(),
        subscription: known
            .is_some_and(|(provider, terms)| terms == Terms::Plan || is_plan(provider, path)),
        model: class.model,
        stream: class.stream.or(over_socket.then_some(true)),
        geo: geo(&host, path),
        subject: class.subject,
    }
}

/// A plan at the host that serves those who pay by use too.
fn is_plan(provider: &str, path: &str) -> bool {
    provider == "zai" && path.starts_with("/api/coding/")
}

fn geo(host: &str, path: &str) -> Option<&'static str> {
    match host {
        "us.api.openai.com" | "api.us.mistral.ai" => Some("us"),
        "eu.api.openai.com" | "api.eu.mistral.ai" => Some("eu"),
        "aiplatform.googleapis.com" | "aiplatform.mtls.googleapis.com" => None,
        // Vertex's own models cost the same everywhere.
        _ if path.contains("/publishers/anthropic/") && host.contains("aiplatform.") => {
            Some("regional")
        }
        _ => None,
    }
}

#[derive(Default)]
struct Class {
    kind: Option<Kind>,
    model: Option<String>,
    stream: Option<bool>,
    subject: Option<String>,
}

impl From<Kind> for Class {
    fn from(kind: Kind) -> Self {
        Self { kind: Some(kind), ..Self::default() }
    }
}

/// Surfaces that the end of the path tells, whoever the host is: gateways mount them anywhere. The
/// first match counts.
const ENDS: &[(&str, Kind)] = &[
    ("/v1/messages/count_tokens", Kind::CountTokens),
    ("/v1/messages", Kind::Messages),
    ("/chat/completions", Kind::Chat),
    ("/completions", Kind::Completions),
    ("/responses/input_tokens", Kind::InputTokens),
    ("/responses", Kind::Responses),
    ("/responses/compact", Kind::Responses),
    ("/realtime", Kind::Realtime),
    ("/embeddings", Kind::Embeddings),
    ("/images/generations", Kind::Images),
    ("/images/edits", Kind::Images),
    ("/audio/transcriptions", Kind::Audio),
    ("/audio/translations", Kind::Audio),
    ("/audio/speech", Kind::Audio),
    (".GenerativeService.BidiGenerateContent", Kind::Live),
    (".GenerativeService.BidiGenerateContentConstrained", Kind::Live),
    (".LlmBidiService/BidiGenerateContent", Kind::Live),
];

/// Surfaces that only their provider speaks at these paths.
const OWN_ENDS: &[(&str, &str, Kind)] = &[
    ("anthropic", "/v1/complete", Kind::Messages),
    ("cohere", "/chat", Kind::Cohere),
    ("cohere", "/embed", Kind::Cohere),
    ("cohere", "/rerank", Kind::Cohere),
    ("mistral", "/v1/ocr", Kind::Ocr),
    ("mistral", "/v1/conversations", Kind::Chat),
    ("google", "/interactions", Kind::Interactions),
    // Elsewhere such paths are anybody's.
    ("ollama", "/api/chat", Kind::Ollama),
    ("ollama", "/api/generate", Kind::Ollama),
    ("ollama", "/api/embed", Kind::Ollama),
    (LOCAL, "/api/chat", Kind::Ollama),
    (LOCAL, "/api/generate", Kind::Ollama),
    (LOCAL, "/api/embed", Kind::Ollama),
    ("cursor", "/agent.v1.AgentService/Run", Kind::Cursor),
    ("cursor", "/agent.v1.AgentService/RunSSE", Kind::Cursor),
    ("cursor", "/aiserver.v1.ChatService/StreamUnifiedChatWithTools", Kind::Cursor),
];

fn classify(provider: Option<&str>, path: &str) -> Class {
    let (parent, last) = path.rsplit_once('/').unwrap_or_default();
    if let Some((name, action)) = last.rsplit_once(':')
        && !parent.ends_with("/model")
    {
        return google(parent, name, action);
    }
    if let Some((_, rest)) = path.split_once("/model/")
        && let Some((model, action)) = rest.rsplit_once('/')
    {
        return bedrock(model, action);
    }
    if provider == Some("mistral") && path.contains("/v1/conversations/") {
        // Goes on with one, or begins it anew from somewhere.
        return Kind::Chat.into();
    }
    let own = OWN_ENDS
        .iter()
        .find(|(who, end, _)| provider == Some(who) && path.ends_with(end))
        .map(|(.., kind)| *kind);
    let kind = own.or_else(|| ENDS.iter().find(|(end, _)| path.ends_with(end)).map(|(_, k)| *k));
    Class { kind, model: kind.and_then(|_| deployment(path)), ..Class::default() }
}

/// What a GET may tell that nobody was told before.
fn read_back(provider: Option<&str>, path: &str) -> Class {
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [.., "messages", "batches", id, "results"] => {
            Class { subject: Some((*id).to_owned()), ..Kind::Batch.into() }
        }
        [.., "files", id, "content"] => {
            Class { subject: Some((*id).to_owned()), ..Kind::BatchFile.into() }
        }
        [.., "batches", id] if provider == Some("google") => {
            Class { subject: Some((*id).to_owned()), ..Kind::GeminiBatch.into() }
        }
        [.., "responses", id] if !id.is_empty() => Kind::Responses.into(),
        [.., "interactions", id] if provider == Some("google") && !id.is_empty() => {
            Kind::Interactions.into()
        }
        _ => Class::default(),
    }
}

/// `…/models/MODEL:action`, Vertex's publishers included, and Code Assist's `/v1internal:action`.
fn google(parent: &str, name: &str, action: &str) -> Class {
    let assist = name == "v1internal";
    let (kind, stream) = match action {
        "generateContent" if assist => (Kind::CodeAssist, Some(false)),
        "streamGenerateContent" if assist => (Kind::CodeAssist, Some(true)),
        "retrieveUserQuota" if assist => (Kind::CodeAssistQuota, None),
        "generateContent" => (Kind::Gemini, Some(false)),
        "streamGenerateContent" => (Kind::Gemini, Some(true)),
        "embedContent" | "batchEmbedContents" => (Kind::GeminiEmbed, Some(false)),
        "predict" => (Kind::GeminiPredict, Some(false)),
        "countTokens" => (Kind::GeminiCountTokens, Some(false)),
        "rawPredict" if name == "count-tokens" => (Kind::CountTokens, Some(false)),
        "rawPredict" | "streamRawPredict" => {
            let kind =
                if parent.contains("/publishers/anthropic/") { Kind::Messages } else { Kind::Chat };
            (kind, Some(action == "streamRawPredict"))
        }
        _ => return Class::default(),
    };
    let model = (!name.is_empty() && !assist && name != "count-tokens").then(|| name.to_owned());
    Class { kind: Some(kind), model, stream, ..Class::default() }
}

fn bedrock(model: &str, action: &str) -> Class {
    let (kind, stream) = match action {
        "converse" => (Kind::Converse, Some(false)),
        "converse-stream" => (Kind::Converse, Some(true)),
        "invoke" => (Kind::Invoke, Some(false)),
        "invoke-with-response-stream" | "invoke-with-bidirectional-stream" => {
            (Kind::Invoke, Some(true))
        }
        "count-tokens" => (Kind::BedrockCountTokens, Some(false)),
        _ => return Class::default(),
    };
    Class { kind: Some(kind), model: Some(bedrock_model(model)), stream, ..Class::default() }
}

/// The model's id out of an encoded id or ARN. An application profile hides which model it is, and
/// is named by itself.
fn bedrock_model(encoded: &str) -> String {
    let text = String::from_utf8_lossy(&percent_decode(encoded)).into_owned();
    let Some(rest) = text.strip_prefix("arn:") else { return text };
    match rest.rsplit_once('/') {
        Some((kind, id)) if !kind.ends_with("application-inference-profile") => id.to_owned(),
        Some((_, id)) => format!("application-inference-profile/{id}"),
        None => rest.rsplit(':').next().unwrap_or_default().to_owned(),
    }
}

/// Azure's `/openai/deployments/NAME/…`.
fn deployment(path: &str) -> Option<String> {
    let (_, rest) = path.split_once("/deployments/")?;
    Some(rest.split('/').next()?.to_owned()).filter(|name| !name.is_empty())
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
            ("api.openai.com", "GET", "/v1/responses/resp_1/input_items", None, false),
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
            ("ollama.com", "POST", "/api/chat", Some(Kind::Ollama), true),
            ("llm.corp.example", "POST", "/api/chat", Some(Kind::Unknown), false),
            ("api.githubcopilot.com", "POST", "/chat/completions", Some(Kind::Chat), true),
            ("api.githubcopilot.com", "POST", "/responses", Some(Kind::Responses), true),
            ("api.githubcopilot.com", "POST", "/v1/messages", Some(Kind::Messages), true),
            ("api.githubcopilot.com", "POST", "/mcp/readonly", None, false),
            (
                "copilot-proxy.githubusercontent.com",
                "POST",
                "/v1/engines/copilot-codex/completions",
                Some(Kind::Completions),
                true,
            ),
            ("api.mistral.ai", "POST", "/v1/ocr", Some(Kind::Ocr), true),
            ("api.mistral.ai", "POST", "/v1/conversations", Some(Kind::Chat), true),
            ("api.mistral.ai", "POST", "/v1/conversations/conv_1", Some(Kind::Chat), true),
            ("api.mistral.ai", "POST", "/v1/conversations/conv_1/restart", Some(Kind::Chat), true),
            ("api.mistral.ai", "GET", "/v1/conversations/conv_1", None, false),
            ("api.openai.com", "POST", "/v1/conversations", None, false),
            ("api.mistral.ai", "POST", "/v1/fim/completions", Some(Kind::Completions), true),
            (
                "generativelanguage.googleapis.com",
                "POST",
                "/v1beta/interactions",
                Some(Kind::Interactions),
                true,
            ),
            (
                "agent.api5.cursor.sh",
                "POST",
                "/agent.v1.AgentService/RunSSE",
                Some(Kind::Cursor),
                true,
            ),
            ("", "", "", None, false),
        ] {
            let route = route(host, false, method, path, false);
            assert_eq!((route.kind, route.billable), (kind, billable), "{method} {host}{path}");
        }
    }

    #[test]
    fn models_of_ones_own() {
        for (path, kind) in [
            ("/api/chat", Kind::Ollama),
            ("/api/generate", Kind::Ollama),
            ("/api/embed", Kind::Ollama),
            ("/v1/chat/completions", Kind::Chat),
            ("/v1/messages", Kind::Messages),
            ("/completion", Kind::Unknown),
        ] {
            let route = route("gpu-box", true, "POST", path, false);
            assert_eq!((route.kind, &*route.provider), (Some(kind), LOCAL), "{path}");
            assert_eq!(route.billable, kind != Kind::Unknown);
        }
        assert_eq!(route("gpu-box", true, "GET", "/api/tags", false).kind, None);
    }

    #[test]
    fn clouds_name_the_model_in_the_path() {
        let vertex = "/v1/projects/p/locations/us-east5/publishers";
        for (host, path, kind, model, stream) in [
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke-with-response-stream"
                    .to_owned(),
                Kind::Invoke,
                Some("us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
                Some(true),
            ),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Feu.amazon.nova-lite-v1%3A0/converse".to_owned(),
                Kind::Converse,
                Some("eu.amazon.nova-lite-v1:0"),
                Some(false),
            ),
            (
                "bedrock-runtime.us-east-1.amazonaws.com",
                "/model/arn:aws:bedrock:us-east-1:1:application-inference-profile/x/converse-stream".to_owned(),
                Kind::Converse,
                Some("application-inference-profile/x"),
                Some(true),
            ),
            (
                "us-east5-aiplatform.googleapis.com",
                format!("{vertex}/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict"),
                Kind::Messages,
                Some("claude-sonnet-4-5@20250929"),
                Some(true),
            ),
            (
                "us-east5-aiplatform.googleapis.com",
                format!("{vertex}/anthropic/models/count-tokens:rawPredict"),
                Kind::CountTokens,
                None,
                Some(false),
            ),
            (
                "aiplatform.googleapis.com",
                format!("{vertex}/mistralai/models/mistral-medium-3:rawPredict"),
                Kind::Chat,
                Some("mistral-medium-3"),
                Some(false),
            ),
            (
                "aiplatform.googleapis.com",
                format!("{vertex}/google/models/gemini-2.5-pro:streamGenerateContent"),
                Kind::Gemini,
                Some("gemini-2.5-pro"),
                Some(true),
            ),
            (
                "corp.openai.azure.com",
                "/openai/deployments/my-gpt/chat/completions".to_owned(),
                Kind::Chat,
                Some("my-gpt"),
                None,
            ),
        ] {
            let route = route(host, false, "POST", &path, false);
            assert_eq!(route.kind, Some(kind), "{path}");
            assert_eq!((route.model.as_deref(), route.stream), (model, stream), "{path}");
        }
    }

    #[test]
    fn what_is_read_back_is_not_asked_again() {
        for (path, kind, subject) in [
            ("/v1/responses/resp_1", Kind::Responses, None),
            ("/v1/messages/batches/msgbatch_1/results", Kind::Batch, Some("msgbatch_1")),
            ("/v1/files/file-1/content", Kind::BatchFile, Some("file-1")),
        ] {
            let route = route("api.openai.com", false, "GET", path, false);
            assert_eq!((route.kind, route.subject.as_deref()), (Some(kind), subject), "{path}");
            assert_eq!((route.billable, route.reread), (false, true), "{path}");
        }
    }

    #[test]
    fn interactions_are_read_back_where_they_are_known() {
        let read = |host, path| route(host, false, "GET", path, false);
        let google = "generativelanguage.googleapis.com";
        let known = read(google, "/v1beta/interactions/v1_a");
        assert_eq!((known.kind, known.reread), (Some(Kind::Interactions), true));
        for (host, path) in
            [(google, "/v1beta/interactions"), ("api.openai.com", "/v1/interactions/v1_a")]
        {
            assert_eq!(read(host, path).kind, None, "{host}{path}");
        }
    }

    #[test]
    fn a_host_with_more_than_models_counts_the_models_only() {
        let host = "corp.cognitiveservices.azure.com";
        let chat = "/openai/deployments/gpt/chat/completions";
        assert!(route(host, false, "POST", chat, false).billable);
        for path in [
            "/speechtotext/transcriptions:transcribe",
            "/language/:analyze-text",
            "/documentintelligence/documentModels/prebuilt-layout:analyze",
            "/contentsafety/text:analyze",
            "/vision/v3.2/analyze",
            "/translator/text/v3.0/translate",
            "/stt/speech/universal/v2",
            "/tts/cognitiveservices/v1",
        ] {
            for (method, upgrade) in [("POST", false), ("GET", false), ("GET", true)] {
                let other = route(host, false, method, path, upgrade);
                assert_eq!((other.kind, other.billable), (None, false), "{method} {path}");
            }
        }
    }

    #[test]
    fn a_websocket_is_opened_with_get() {
        let socket = route("api.openai.com", false, "GET", "/v1/responses", true);
        assert_eq!((socket.kind, socket.billable), (Some(Kind::Responses), true));
    }

    #[test]
    fn gemini_names_the_model_in_the_path() {
        let path = "/v1beta/models/gemini-2.5-pro:streamGenerateContent";
        let gemini = route("generativelanguage.googleapis.com", false, "POST", path, false);
        assert_eq!(gemini.model.as_deref(), Some("gemini-2.5-pro"));
        assert_eq!((gemini.kind, gemini.stream), (Some(Kind::Gemini), Some(true)));
        let count = route("x", false, "POST", "/v1/models/gemini-2.5-pro:countTokens", false);
        assert_eq!((count.kind, count.billable), (Some(Kind::GeminiCountTokens), false));
    }

    #[test]
    fn hosts_say_who_and_on_what_terms() {
        assert!(route("chatgpt.com", false, "POST", "/", false).subscription);
        assert!(!route("api.openai.com", false, "POST", "/", false).subscription);
        let zai = |path| route("api.z.ai", false, "POST", path, false);
        let plan = zai("/api/coding/paas/v4/chat/completions");
        assert_eq!((plan.kind, plan.subscription), (Some(Kind::Chat), true));
        assert!(!zai("/api/paas/v4/chat/completions").subscription);
        assert_eq!(route("eu.api.openai.com", false, "POST", "/", false).geo, Some("eu"));
        let claude = "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict";
        for (host, geo) in [
            ("aiplatform.googleapis.com", None),
            ("us-east5-aiplatform.googleapis.com", Some("regional")),
            ("aiplatform.eu.rep.googleapis.com", Some("regional")),
        ] {
            assert_eq!(route(host, false, "POST", claude, false).geo, geo, "{host}");
            let gemini = claude.replace("anthropic", "google");
            assert_eq!(route(host, false, "POST", &gemini, false).geo, None, "{host}");
        }
        let unknown = route("Llm.Corp.example", false, "POST", "/", false);
        assert_eq!(unknown.provider, "llm.corp.example");
    }
}
