//! What a request is, by host, method and path alone.

use super::grpc;
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

impl Route {
    /// The model that was asked for, `named` in the body where the path names none: there too by an ARN.
    #[must_use]
    pub fn asked(&self, named: Option<&str>) -> Option<String> {
        let in_body = || match &*self.provider {
            "bedrock" => named.map(bedrock_model),
            _ => named.map(str::to_owned),
        };
        self.model.clone().or_else(in_body)
    }
}

/// Classifies a request. `local`: the host's models are the user's own. `path` is without the query;
/// `upgrade` = it asks for a WebSocket.
#[must_use]
pub fn route(host: &str, local: bool, method: &str, path: &str, upgrade: bool) -> Route {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let known = if local { Some((LOCAL, Terms::Metered)) } else { of_host(&host) };
    let path = path.trim_end_matches('/');
    let posted = method.eq_ignore_ascii_case("POST");
    let call = grpc::method(path).filter(|_| posted);
    let asked = (posted || upgrade) && !call.is_some_and(|call| call.fetches);
    let mut class = if let Some(call) = call {
        Class { stream: Some(call.stream), ..call.kind.into() }
    } else if asked {
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
        geo: geo(&host),
        subject: class.subject,
    }
}

/// Plans at a host that serves those who pay by use too. Z.ai's Anthropic endpoint is its plan's: who
/// pays by use has the same keys and another path.
const PLANS: &[(&str, &str)] = &[
    ("zai", "/api/coding/"),
    ("zai", "/api/anthropic/"),
    ("bigmodel", "/api/coding/"),
    ("bigmodel", "/api/anthropic/"),
    ("volcengine", "/api/coding/"),
];

fn is_plan(provider: &str, path: &str) -> bool {
    PLANS.iter().any(|(who, prefix)| provider == *who && path.starts_with(prefix))
}

fn geo(host: &str) -> Option<&'static str> {
    match host {
        "us.api.openai.com" | "api.us.mistral.ai" => Some("us"),
        "eu.api.openai.com" | "api.eu.mistral.ai" => Some("eu"),
        "aiplatform.googleapis.com" | "aiplatform.mtls.googleapis.com" => None,
        _ if host.contains("aiplatform.") => Some("regional"),
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
    ("openai", "/v1/decisions", Kind::Decisions),
    ("openai", "/v1/live/sessions", Kind::LiveSession),
    ("openai", "/v1/realtime/translations", Kind::LiveSession),
    ("openai", "/v1/videos", Kind::Video),
    ("openai", "/v1/videos/edits", Kind::Video),
    ("openai", "/v1/videos/extensions", Kind::Video),
    ("azure", "/v1/videos", Kind::Video),
    ("openai", "/fine_tuning/jobs", Kind::FineTuning),
    ("azure", "/fine_tuning/jobs", Kind::FineTuning),
    ("mistral", "/fine_tuning/jobs", Kind::FineTuning),
    ("perplexity", "/search", Kind::Search),
    ("perplexity", "/v1/sonar", Kind::Chat),
    ("perplexity", "/v1/agent", Kind::Responses),
    ("perplexity", "/v1/contextualizedembeddings", Kind::Embeddings),
    ("minimax", "/text/chatcompletion_v2", Kind::Chat),
    ("minimax", "/t2a_v2", Kind::Speech),
    ("minimax", "/t2a_async_v2", Kind::Speech),
    ("openrouter", "/rerank", Kind::Rerank),
    ("together", "/rerank", Kind::Rerank),
    ("fireworks", "/rerank", Kind::Rerank),
    ("cohere", "/chat", Kind::Cohere),
    ("cohere", "/embed", Kind::Cohere),
    ("cohere", "/rerank", Kind::Cohere),
    ("cohere", "/v1/classify", Kind::Cohere),
    ("cohere", "/v1/generate", Kind::Cohere),
    ("cohere", "/v1/summarize", Kind::Cohere),
    // Foundry has others' models at paths of theirs.
    ("azure", "/cohere/v2/rerank", Kind::Cohere),
    ("azure", "/mistral/azure/ocr", Kind::Ocr),
    ("mistral", "/v1/ocr", Kind::Ocr),
    ("mistral", "/v1/conversations", Kind::Chat),
    ("mistral", "/moderations", Kind::Moderation),
    ("mistral", "/classifications", Kind::Moderation),
    ("google", "/cachedContents", Kind::Cache),
    ("vertex", "/cachedContents", Kind::Cache),
    ("google", "/interactions", Kind::Interactions),
    ("google", "/decisions", Kind::Interactions),
    ("vertex", "/interactions", Kind::Interactions),
    ("vertex", "/decisions", Kind::Interactions),
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
    // Some clients encode the colon too.
    let last = String::from_utf8_lossy(&percent_decode(last)).into_owned();
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
    if matches!(provider, Some("openai" | "azure"))
        && path.contains("/v1/videos/")
        && last == "remix"
    {
        return Kind::Video.into();
    }
    let own = OWN_ENDS
        .iter()
        .find(|(who, end, _)| provider == Some(who) && path.ends_with(end))
        .map(|(.., kind)| *kind);
    let kind = own.or_else(|| ENDS.iter().find(|(end, _)| path.ends_with(end)).map(|(_, k)| *k));
    let model = match kind {
        // The list's name for it: a search has no model.
        Some(Kind::Search) => Some("search".to_owned()),
        Some(_) => deployment(path),
        None => None,
    };
    Class { kind, model, ..Class::default() }
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
        [.., "chat", "deferred-completion", id] if provider == Some("xai") => {
            Class { subject: Some((*id).to_owned()), ..Kind::Chat.into() }
        }
        [.., "responses", id] if !id.is_empty() => Kind::Responses.into(),
        [.., "videos", id] if matches!(provider, Some("openai" | "azure")) => {
            Class { subject: Some((*id).to_owned()), ..Kind::Video.into() }
        }
        [.., "fine_tuning", "jobs", id]
            if matches!(provider, Some("openai" | "azure" | "mistral")) =>
        {
            Class { subject: Some((*id).to_owned()), ..Kind::FineTuning.into() }
        }
        [.., "interactions", id]
            if matches!(provider, Some("google" | "vertex")) && !id.is_empty() =>
        {
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
        "predictLongRunning" => (Kind::GeminiVideo, Some(false)),
        "countTokens" => (Kind::GeminiCountTokens, Some(false)),
        "rawPredict" if name == "count-tokens" => (Kind::CountTokens, Some(false)),
        "rawPredict" | "streamRawPredict" => {
            let kind = if parent.contains("/publishers/anthropic/") {
                Kind::Messages
            } else if name.starts_with("mistral-ocr") {
                Kind::Ocr
            } else {
                Kind::Chat
            };
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
mod tests;
