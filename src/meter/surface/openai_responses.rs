//! OpenAI Responses (also Codex and xAI), image generation and audio: `input_tokens` shapes.

use jiff::Timestamp;
use serde_json::Value;

use super::count::{count, minus, plus, text, thousandths, walk};
use super::error::in_stream;
use super::openai_chat::{self, copilot_cost, cost};
use super::scan::Found;
use super::tools::{self, ToolCalls};
use super::{Field, Reader, Reading, keep, socket, state};
use crate::meter::quota;
use crate::meter::usage::{Cached, Tokens, Usage, UsagePart};

/// Usage comes with the terminal event, or in the document.
#[derive(Debug, Default)]
pub(super) struct Responses {
    model: Option<String>,
    id: Option<String>,
    tier: Option<String>,
    usage: Option<Value>,
    /// How long what was heard is, as Whisper tells it where it tells no usage.
    duration: Option<Value>,
    tools: ToolCalls,
    /// What a stream has told of its output so far.
    items: ToolCalls,
    /// For how long the response says that what it wrote to a cache is kept.
    cache_ttl: Option<String>,
    copilot_cost: Option<i64>,
    /// Asked for earlier, in the background: the usage is told to whoever reads it.
    background: bool,
    quota: Vec<quota::Window>,
    now: Option<Timestamp>,
    error: Option<&'static str>,
    over: bool,
    /// What comes out is an image.
    images: bool,
    /// … or speech.
    speech: bool,
    /// It is a piece of what is said in a session.
    piece: bool,
}

/// The last events of streams that are not a response's.
const LAST: [&str; 4] = [
    "image_generation.completed",
    "image_edit.completed",
    "transcript.text.done",
    "speech.audio.done",
];

impl Responses {
    pub(super) fn for_images() -> Self {
        Self { images: true, ..Self::default() }
    }
}

impl Reader for Responses {
    fn at(&mut self, moment: Timestamp) {
        self.now = Some(moment);
    }

    fn unit(&mut self, event: Option<&str>, found: &Found) {
        let kind = found.text(Field::Type).or(event).unwrap_or_default();
        keep(&mut self.model, found.text(Field::ResponseModel));
        keep(&mut self.id, found.text(Field::ResponseId));
        match kind {
            "response.completed" | "response.incomplete" | "response.failed" | "response.done" => {
                // Only here the tier is the one that was billed.
                keep(&mut self.tier, found.text(Field::ResponseTier));
                self.take(found.field(Field::ResponseUsage));
                keep(&mut self.cache_ttl, found.text(Field::ResponseCacheTtl));
                let (model, seen) = (self.model.as_deref(), Some(&self.items));
                self.tools.add(ToolCalls::of(found, &tools::RESPONSE, model, seen));
                self.copilot_cost = copilot_cost(found).or(self.copilot_cost);
                self.note_background(found.field(Field::ResponseBackground));
                self.over = true;
                match (kind, found.field(Field::ResponseError)) {
                    (_, Some(error)) => self.error = Some(in_stream(error)),
                    ("response.failed", None) => self.error = Some("in_stream"),
                    // Realtime ends in one way only.
                    ("response.done", None)
                        if found.text(Field::ResponseStatus) == Some("failed") =>
                    {
                        self.error = Some("in_stream");
                    }
                    _ => {}
                }
            }
            "codex.rate_limits" => quota::renew(&mut self.quota, socket::quota(found, self.now)),
            "error" => {
                let error = found.field(Field::Error).or_else(|| found.field(Field::Code));
                self.error = Some(error.map_or("in_stream", in_stream));
            }
            "response.output_item.done" => self.items.see_item(found),
            // An event that can't be a document: nothing to take from it but the names above.
            kind if kind.starts_with("response.") => {}
            kind => {
                self.speech |= kind == "speech.audio.done";
                self.piece |= kind == "conversation.item.input_audio_transcription.completed";
                self.document(found);
                // Clients hang up behind it: there is no other end.
                self.over |= LAST.contains(&kind) && self.usage.is_some();
            }
        }
    }

    fn done(&mut self) {
        self.over = true;
    }

    fn reading(&self) -> Reading {
        let usage = self.usage.as_ref();
        let mut tokens = usage.map(tokens).unwrap_or_default();
        if self.images {
            tokens.image_output = tokens.image_output.or(tokens.output);
        }
        if self.speech {
            tokens.audio_output = tokens.audio_output.or(tokens.output);
        }
        let mut counts = self.tools.counts.clone();
        counts.extend(usage.and_then(|usage| audio(usage, self.piece)));
        let heard = self.duration.as_ref().filter(|_| usage.is_none());
        let seconds = heard.and_then(|duration| thousandths(duration, &[])).map(whole_seconds);
        counts.extend(seconds.map(|n| ("audio_seconds".to_owned(), n)));
        let (cached, written_12h) =
            (usage.map(cached_parts).unwrap_or_default(), usage.and_then(written_12h));
        let mut parts = self.tools.parts.clone();
        let known = usage.is_some() || !parts.is_empty() || seconds.is_some();
        if usage.is_some() && !parts.is_empty() {
            parts.insert(0, UsagePart { tokens, cached, written_12h, ..UsagePart::default() });
        }
        if known {
            let all = parts.iter().map(|part| part.tokens);
            tokens = all.reduce(|sum, part| sum.plus(&part)).unwrap_or(tokens);
        }
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(known, true),
                tokens,
                parts,
                cached,
                written_12h,
                cache_ttl: self.cache_ttl.clone(),
                tier: self
                    .tier
                    .clone()
                    .or_else(|| text(usage?, &["service_tier"]).map(str::to_owned)),
                web_searches: self.tools.searches,
                counts,
                provider_cost_nanousd: self.copilot_cost.or_else(|| cost(usage?)),
                ..Usage::default()
            },
            error: self.error,
            over: self.over,
            quota: self.quota.clone(),
            deferred: self.background && usage.is_some(),
            ..Reading::default()
        }
    }
}

impl Responses {
    fn document(&mut self, found: &Found) {
        keep(&mut self.model, found.text(Field::Model));
        keep(&mut self.id, found.text(Field::Id));
        keep(&mut self.tier, found.text(Field::ServiceTier));
        self.take(found.field(Field::Usage));
        keep(&mut self.duration, found.field(Field::Duration));
        keep(&mut self.cache_ttl, found.text(Field::CacheTtl));
        self.tools.add(ToolCalls::of(found, &tools::DOCUMENT, self.model.as_deref(), None));
        self.copilot_cost = copilot_cost(found).or(self.copilot_cost);
        self.note_background(found.field(Field::Background));
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        } else if found.text(Field::Status) == Some("failed") {
            self.error = Some("in_stream");
        }
    }

    fn take(&mut self, usage: Option<&Value>) {
        if let Some(usage) = usage.filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
    }

    fn note_background(&mut self, flag: Option<&Value>) {
        self.background |= flag.and_then(Value::as_bool) == Some(true);
    }
}

/// Transcriptions are billed by tokens or by time; Mistral tells both, and bills time. OpenAI rounds it to
/// whole seconds; a piece of what is said is counted finer: many short ones would come to nothing.
fn audio(usage: &Value, piece: bool) -> Option<(String, u64)> {
    let told = |name| thousandths(usage, &[name]);
    let thousandths = told("seconds").or_else(|| told("prompt_audio_seconds"))?;
    let (name, n) = if piece && !thousandths.is_multiple_of(1000) {
        ("audio_milliseconds", thousandths)
    } else {
        ("audio_seconds", whole_seconds(thousandths))
    };
    Some((name.to_owned(), n))
}

fn whole_seconds(thousandths: u64) -> u64 {
    thousandths.saturating_add(500) / 1000
}

/// How much of what was written to a cache is kept for half a day; the rest is for half an hour.
pub(super) fn written_12h(usage: &Value) -> Option<u64> {
    let details = ["input_tokens_details", "input_token_details", "prompt_tokens_details"];
    let split = |details: &&str| walk(usage, &[details, "cache_write_tokens_details"]);
    let split = details.iter().find_map(split)?;
    let [long, short] = ["ttl_12h_tokens", "ttl_30m_tokens"].map(|kind| count(split, &[kind]));
    long.filter(|_| plus(long, short) > Some(0))
}

/// Realtime says which part of what came out of the cache was no text.
fn cached_parts(usage: &Value) -> Cached {
    let of = |field| count(usage, &["input_token_details", "cached_tokens_details", field]);
    Cached { audio: of("audio_tokens"), image: of("image_tokens") }
}

pub(super) fn tokens(usage: &Value) -> Tokens {
    if usage.get("input_tokens").is_none() && usage.get("prompt_tokens").is_some() {
        // Others' audio says it like a chat.
        return openai_chat::tokens(usage, None);
    }
    // Audio and images write `token_details`, Responses `tokens_details`.
    let details = |side: &str, field: &str| {
        count(usage, &[&format!("{side}_tokens_details"), field])
            .or_else(|| count(usage, &[&format!("{side}_token_details"), field]))
    };
    // Of what is not in the cache.
    let Cached { audio, image } = cached_parts(usage);
    let fresh = |field: &str, cached| minus(details("input", field), cached);
    let cached = details("input", "cached_tokens");
    let written = details("input", "cache_write_tokens");
    Tokens {
        input: minus(minus(count(usage, &["input_tokens"]), cached), written),
        cache_read: cached,
        cache_write_other: written,
        output: count(usage, &["output_tokens"]),
        reasoning: details("output", "reasoning_tokens"),
        audio_input: fresh("audio_tokens", audio),
        audio_output: details("output", "audio_tokens"),
        image_input: fresh("image_tokens", image),
        image_output: details("output", "image_tokens"),
        ..Tokens::default()
    }
}
