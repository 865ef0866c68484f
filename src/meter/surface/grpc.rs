//! Calls over gRPC whose messages are published: what a message says becomes the JSON in which the same
//! API says it over HTTP, and the readers are those of that. The numbers are those of the `.proto` files
//! of Google's APIs (`google.cloud.aiplatform`, `google.ai.generativelanguage`) and of xAI's SDK.

use serde_json::{Map, Value as Json};

use super::kind::Kind;
use super::protobuf::{Value, fields, inside};

/// A message with pictures is long, and is held whole; what is longer is not read.
pub(crate) const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// The path of the method that reads back what another began.
pub(crate) const FETCHES: &str = "/xai_api.Chat/GetDeferredCompletion";

/// What can be called.
#[derive(Debug)]
pub(crate) struct Method {
    name: &'static str,
    pub(super) kind: Kind,
    pub(crate) stream: bool,
    /// The field of the request that names the model, or what is fetched.
    names: u64,
    pub(super) fetches: bool,
    /// `None`: what it answers is not read.
    answer: Option<&'static [Field]>,
}

/// A field of a message: its number, where it stands in the JSON (`a.b`; `a[]`: one of many; nowhere:
/// its own fields do), and what it is.
type Field = (u64, &'static str, Is);

#[derive(Clone, Copy, Debug)]
enum Is {
    Count,
    Text,
    /// The names of its numbers. The first stands for "not specified", which tells nothing; what has no
    /// name here stays a number.
    Word(&'static [&'static str]),
    Message(&'static [Field]),
    /// A `google.protobuf.Value`, of which this number is wanted and stands in the same place.
    Number(&'static [&'static str]),
}

use Is::{Count, Message, Number, Text, Word};

const ONE: bool = false;
const STREAM: bool = true;

const fn read(
    name: &'static str,
    kind: Kind,
    stream: bool,
    names: u64,
    answer: &'static [Field],
) -> Method {
    Method { name, kind, stream, names, fetches: false, answer: Some(answer) }
}

/// A call that costs, and tells in no message that is known here what.
const fn unread(name: &'static str, stream: bool, names: u64) -> Method {
    Method { name, kind: Kind::Grpc, stream, names, fetches: false, answer: None }
}

/// `*` stands for the version.
const SERVICES: &[(&str, &[Method])] = &[
    ("google.cloud.aiplatform.*.PredictionService", VERTEX),
    ("google.cloud.aiplatform.*.LlmUtilityService", COUNTING),
    ("google.cloud.aiplatform.*.LlmBidiService", BIDI),
    ("google.ai.generativelanguage.*.GenerativeService", GEMINI),
    ("google.ai.generativelanguage.*.PredictionService", PREDICTION),
    ("xai_api.Chat", CHAT),
    ("xai_api.Sample", SAMPLE),
    ("xai_api.Embedder", &[read("Embed", Kind::Embeddings, ONE, 2, EMBEDDED)]),
    ("xai_api.Image", &[read("GenerateImage", Kind::Images, ONE, 2, IMAGES)]),
    ("xai_api.Video", &[unread("GenerateVideo", ONE, 2), unread("ExtendVideo", ONE, 2)]),
];

const VERTEX: &[Method] = &[
    read("GenerateContent", Kind::Gemini, ONE, 5, OF_VERTEX),
    read("StreamGenerateContent", Kind::Gemini, STREAM, 5, OF_VERTEX),
    read("EmbedContent", Kind::GeminiEmbed, ONE, 1, EMBEDDED_BY_VERTEX),
    read("Predict", Kind::GeminiPredict, ONE, 1, PREDICTIONS),
    read("CountTokens", Kind::GeminiCountTokens, ONE, 3, &[]),
    unread("RawPredict", ONE, 1),
    unread("StreamRawPredict", STREAM, 1),
    unread("ServerStreamingPredict", STREAM, 1),
    unread("StreamingPredict", STREAM, 1),
    unread("StreamingRawPredict", STREAM, 1),
    unread("DirectPredict", ONE, 1),
    unread("DirectRawPredict", ONE, 1),
    unread("StreamDirectPredict", STREAM, 1),
    unread("StreamDirectRawPredict", STREAM, 1),
    unread("ChatCompletions", STREAM, 1),
];
const COUNTING: &[Method] = &[read("CountTokens", Kind::GeminiCountTokens, ONE, 3, &[])];
const BIDI: &[Method] = &[unread("BidiGenerateContent", STREAM, NOWHERE)];
const GEMINI: &[Method] = &[
    read("GenerateContent", Kind::Gemini, ONE, 1, OF_GEMINI),
    read("StreamGenerateContent", Kind::Gemini, STREAM, 1, OF_GEMINI),
    read("EmbedContent", Kind::GeminiEmbed, ONE, 1, &[]),
    read("BatchEmbedContents", Kind::GeminiEmbed, ONE, 1, &[]),
    read("CountTokens", Kind::GeminiCountTokens, ONE, 1, &[]),
    unread("GenerateAnswer", ONE, 1),
    unread("BidiGenerateContent", STREAM, NOWHERE),
];
const PREDICTION: &[Method] = &[
    read("Predict", Kind::GeminiPredict, ONE, 1, PREDICTIONS),
    read("PredictLongRunning", Kind::GeminiVideo, ONE, 1, &[]),
];
const CHAT: &[Method] = &[
    read("GetCompletion", Kind::Chat, ONE, 2, COMPLETION),
    read("GetCompletionChunk", Kind::Chat, STREAM, 2, CHUNK),
    read("StartDeferredCompletion", Kind::Chat, ONE, 2, DEFERRED),
    Method { fetches: true, ..read("GetDeferredCompletion", Kind::Chat, ONE, 1, FETCHED) },
    read("CompactContext", Kind::Chat, ONE, 1, COMPACTED),
];
const SAMPLE: &[Method] = &[
    read("SampleText", Kind::Completions, ONE, 3, COMPLETION),
    read("SampleTextStreaming", Kind::Completions, STREAM, 3, COMPLETION),
];
/// No field has this number.
const NOWHERE: u64 = 0;

const OF_VERTEX: &[Field] = &[
    (2, "candidates[]", Message(CANDIDATE_OF_VERTEX)),
    (3, "promptFeedback", Message(&[(1, "blockReason", Word(&[""]))])),
    (4, "usageMetadata", Message(USAGE_OF_VERTEX)),
    (11, "modelVersion", Text),
    (13, "responseId", Text),
];
const CANDIDATE_OF_VERTEX: &[Field] = &[
    (3, "finishReason", Word(&[""])),
    (7, "groundingMetadata", Message(&[(1, "webSearchQueries[]", Text)])),
];
/// An answer's and an embedding's have the same numbers; 13 is in the files for embeddings only.
const USAGE_OF_VERTEX: &[Field] = &[
    (1, "promptTokenCount", Count),
    (2, "candidatesTokenCount", Count),
    (3, "totalTokenCount", Count),
    (5, "cachedContentTokenCount", Count),
    (8, "trafficType", Word(TRAFFIC)),
    (9, "promptTokensDetails[]", Message(MODALITY)),
    (10, "cacheTokensDetails[]", Message(MODALITY)),
    (11, "candidatesTokensDetails[]", Message(MODALITY)),
    (12, "toolUsePromptTokensDetails[]", Message(MODALITY)),
    (13, "toolUsePromptTokenCount", Count),
    (14, "thoughtsTokenCount", Count),
];
const TRAFFIC: &[&str] =
    &["", "ON_DEMAND", "PROVISIONED_THROUGHPUT", "ON_DEMAND_PRIORITY", "ON_DEMAND_FLEX"];
const MODALITY: &[Field] = &[(1, "modality", Count), (2, "tokenCount", Count)];
const EMBEDDED_BY_VERTEX: &[Field] = &[(2, "usageMetadata", Message(USAGE_OF_VERTEX))];
const PREDICTIONS: &[Field] = &[
    (1, "predictions[]", Number(&["embeddings", "statistics", "token_count"])),
    (1, "predictions[]", Number(&["embeddings", "statistics", "tokenCount"])),
];

const OF_GEMINI: &[Field] = &[
    (1, "candidates[]", Message(CANDIDATE_OF_GEMINI)),
    (2, "promptFeedback", Message(&[(1, "blockReason", Word(&[""]))])),
    (3, "usageMetadata", Message(USAGE_OF_GEMINI)),
    (4, "modelVersion", Text),
    (5, "responseId", Text),
];
const CANDIDATE_OF_GEMINI: &[Field] = &[
    (2, "finishReason", Word(&[""])),
    (9, "groundingMetadata", Message(&[(5, "webSearchQueries[]", Text)])),
];
const USAGE_OF_GEMINI: &[Field] = &[
    (1, "promptTokenCount", Count),
    (2, "candidatesTokenCount", Count),
    (3, "totalTokenCount", Count),
    (4, "cachedContentTokenCount", Count),
    (5, "promptTokensDetails[]", Message(MODALITY)),
    (6, "cacheTokensDetails[]", Message(MODALITY)),
    (7, "candidatesTokensDetails[]", Message(MODALITY)),
    (8, "toolUsePromptTokenCount", Count),
    (9, "toolUsePromptTokensDetails[]", Message(MODALITY)),
    (10, "thoughtsTokenCount", Count),
];

/// A sample of text has the same numbers.
const COMPLETION: &[Field] = &[
    (1, "id", Text),
    (2, "choices[]", Message(&[(1, "finish_reason", Word(&[""]))])),
    (6, "model", Text),
    (9, "usage", Message(USAGE_OF_XAI)),
    (15, "service_tier", Word(TIER)),
];
const CHUNK: &[Field] = &[
    (1, "id", Text),
    (2, "choices[]", Message(&[(3, "finish_reason", Word(&[""]))])),
    (4, "model", Text),
    (6, "usage", Message(USAGE_OF_XAI)),
    (12, "service_tier", Word(TIER)),
];
const USAGE_OF_XAI: &[Field] = &[
    (1, "completion_tokens", Count),
    (2, "prompt_tokens", Count),
    (3, "total_tokens", Count),
    (5, "prompt_tokens_details.image_tokens", Count),
    (6, "completion_tokens_details.reasoning_tokens", Count),
    (7, "prompt_tokens_details.cached_tokens", Count),
    (11, "cost_in_usd_ticks", Count),
];
const TIER: &[&str] = &["", "default", "priority"];
const DEFERRED: &[Field] = &[(1, "request_id", Text)];
const FETCHED: &[Field] = &[(1, "", Message(COMPLETION))];
const COMPACTED: &[Field] = &[(1, "id", Text), (4, "usage", Message(USAGE_OF_XAI))];
/// Its usage tells how many embeddings there are, and of no token.
const EMBEDDED: &[Field] = &[(1, "id", Text), (4, "model", Text)];
const IMAGES: &[Field] = &[(2, "model", Text), (3, "usage", Message(USAGE_OF_XAI))];

/// The method that a request with this path calls.
pub(crate) fn method(path: &str) -> Option<&'static Method> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    // Each has its package before it, which the first part of other paths has not: most need no comparison.
    if !service.contains('.') {
        return None;
    }
    let (_, methods) = SERVICES.iter().find(|(pattern, _)| is_called(pattern, service))?;
    methods.iter().find(|method| method.name == name)
}

fn is_called(pattern: &str, service: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == service };
    let version = service.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    version.is_some_and(|v| v.starts_with('v') && v.bytes().all(|b| b.is_ascii_alphanumeric()))
}

impl Method {
    /// The model that the message asks.
    pub(crate) fn model(&self, message: &[u8]) -> Option<String> {
        let name = self.named(message).filter(|_| !self.fetches)?;
        name.rsplit('/').next().map(str::to_owned)
    }

    /// What the message wants to have that was asked for earlier.
    pub(crate) fn subject(&self, message: &[u8]) -> Option<String> {
        self.named(message).filter(|_| self.fetches).map(str::to_owned)
    }

    fn named<'m>(&self, message: &'m [u8]) -> Option<&'m str> {
        std::str::from_utf8(inside(message, self.names)?).ok()
    }

    /// Whether its answers are read.
    pub(crate) const fn is_read(&self) -> bool {
        self.answer.is_some()
    }

    /// What a message of the answer says, as JSON; `None`: it is no message.
    pub(crate) fn told(&self, message: &[u8]) -> Option<Json> {
        object(message, self.answer.unwrap_or_default()).map(Json::Object)
    }
}

/// What of a message is in `table`.
fn object(message: &[u8], table: &'static [Field]) -> Option<Map<String, Json>> {
    let mut out = Map::new();
    for (number, wire) in fields(message)? {
        for (_, place, is) in table.iter().filter(|(known, ..)| *known == number) {
            match is.of(wire) {
                Some(Json::Object(inner)) if place.is_empty() => out.extend(inner),
                Some(value) => put(&mut out, place, value),
                None => {}
            }
        }
    }
    Some(out)
}

fn put(out: &mut Map<String, Json>, place: &str, value: Json) {
    if let Some((first, rest)) = place.split_once('.') {
        let inner = out.entry(first).or_insert_with(|| Json::Object(Map::new()));
        if let Json::Object(inner) = inner {
            put(inner, rest, value);
        }
    } else if let Some(name) = place.strip_suffix("[]") {
        if let Json::Array(all) = out.entry(name).or_insert_with(|| Json::Array(Vec::new())) {
            all.push(value);
        }
    } else {
        out.insert(place.to_owned(), value);
    }
}

impl Is {
    fn of(self, wire: Value<'_>) -> Option<Json> {
        match (self, wire) {
            // Below zero is no count.
            (Self::Count, Value::Varint(n)) => i64::try_from(n).ok().map(Json::from),
            (Self::Text, Value::Bytes(text)) => std::str::from_utf8(text).ok().map(Json::from),
            (Self::Word(_), Value::Varint(0)) => None,
            (Self::Word(names), Value::Varint(n)) => {
                let name = usize::try_from(n).ok().and_then(|n| names.get(n));
                Some(name.map_or_else(|| Json::from(n), |name| Json::from(*name)))
            }
            (Self::Message(table), Value::Bytes(inner)) => object(inner, table).map(Json::Object),
            (Self::Number(path), Value::Bytes(inner)) => {
                let number = Json::from(number(inner, path)?);
                Some(path.iter().rev().fold(number, |inner, key| {
                    Json::Object(Map::from_iter([((*key).to_owned(), inner)]))
                }))
            }
            (
                Self::Count | Self::Text | Self::Word(_) | Self::Message(_) | Self::Number(_),
                Value::Varint(_) | Value::Bytes(_) | Value::Wide(_) | Value::Fixed,
            ) => None,
        }
    }
}

/// The number at `path` in a `google.protobuf.Value { 2: number, 5: Struct { 1: { 1: key, 2: Value } } }`.
fn number(value: &[u8], path: &[&str]) -> Option<f64> {
    let Some((key, rest)) = path.split_first() else {
        return fields(value)?.into_iter().rev().find_map(|(n, value)| match value {
            Value::Wide(bits) if n == 2 => Some(f64::from_bits(bits)),
            Value::Wide(_) | Value::Varint(_) | Value::Bytes(_) | Value::Fixed => None,
        });
    };
    fields(inside(value, 5)?)?.into_iter().find_map(|(n, entry)| match entry {
        Value::Bytes(entry) if n == 1 && inside(entry, 1) == Some(key.as_bytes()) => {
            number(inside(entry, 2)?, rest)
        }
        Value::Bytes(_) | Value::Varint(_) | Value::Wide(_) | Value::Fixed => None,
    })
}

/// A status that is no success, by the name that it has in JSON.
pub(crate) fn failure(status: &str) -> Option<&'static str> {
    const NAMES: [&str; 17] = [
        "",
        "cancelled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ];
    let code: usize = status.trim().parse().ok().filter(|code| *code > 0)?;
    Some(NAMES.get(code).copied().unwrap_or("unknown"))
}

/// Such a status among what gRPC for browsers says behind the messages: a header field a line.
pub(crate) fn ended(fields: &[u8]) -> Option<&'static str> {
    let mut fields = str::from_utf8(fields).ok()?.lines().filter_map(|line| line.split_once(':'));
    let (_, status) = fields.find(|(name, _)| name.eq_ignore_ascii_case("grpc-status"))?;
    failure(status)
}

#[cfg(test)]
mod tests;
