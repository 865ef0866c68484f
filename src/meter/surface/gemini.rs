//! Gemini generateContent and streamGenerateContent, plain or in Code Assist's wrapper, and Live's turns.

use serde_json::Value;

use super::count::{count, minus, plus, text};
use super::error::in_stream;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Cached, Tokens, Usage};

/// Every chunk has running totals: the last one wins as a whole.
#[derive(Debug, Default)]
pub(super) struct Gemini {
    model: Option<String>,
    /// The model that was asked for: not every answer names one.
    asked: Option<String>,
    id: Option<String>,
    usage: Option<Value>,
    finished: bool,
    settled: bool,
    /// A turn of a Live session.
    live: bool,
    /// Searches that grounded the answer.
    searches: Option<u64>,
    error: Option<&'static str>,
}

impl Gemini {
    /// Embeddings have no candidates that could finish.
    pub(super) fn for_embeddings() -> Self {
        Self { finished: true, ..Self::default() }
    }

    /// A turn says that it is over, whichever message has told its usage.
    pub(super) fn for_live() -> Self {
        Self { live: true, ..Self::default() }
    }

    /// From Gemini 3 on each query is billed, before that the answer that was grounded.
    fn billed_searches(&self) -> Option<u64> {
        let model = self.model.as_deref().or(self.asked.as_deref()).unwrap_or_default();
        let version = model.trim_start_matches("gemini-").trim_start_matches("live-");
        let old = version.starts_with(['1', '2']);
        self.searches.map(|queries| if old { 1 } else { queries })
    }
}

impl Reader for Gemini {
    fn asked(&mut self, model: &str) {
        self.asked = Some(model.to_owned());
    }

    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let either = |plain, wrapped| found.field(plain).or_else(|| found.field(wrapped));
        let name = |plain, wrapped| found.text(plain).or_else(|| found.text(wrapped));
        keep(&mut self.model, name(Field::ModelVersion, Field::WrappedVersion));
        keep(&mut self.id, name(Field::GeminiId, Field::WrappedId));
        if self.id.is_none() {
            keep(&mut self.id, found.text(Field::TraceId));
        }
        self.finished |= either(Field::Finish, Field::WrappedFinish).is_some()
            || either(Field::Blocked, Field::WrappedBlocked).is_some()
            || found.field(Field::TurnComplete).and_then(Value::as_bool) == Some(true);
        if let Some(usage) = either(Field::UsageMetadata, Field::WrappedUsage)
            && usage.is_object()
        {
            self.usage = Some(usage.clone());
            // Totals from before the end are not the last word, whatever else the end brings.
            self.settled = self.finished;
        }
        self.settled |= self.live && self.finished;
        let queries = [Field::Searches, Field::WrappedSearches, Field::LiveSearches]
            .into_iter()
            .filter_map(|field| found.field(field)?.as_array())
            .map(|queries| queries.len() as u64)
            .max();
        self.searches = queries.filter(|n| *n > 0).max(self.searches);
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn reading(&self) -> Reading {
        let usage = self.usage.as_ref();
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(usage.is_some(), self.settled),
                tokens: usage.map(|usage| tokens(usage, self.live)).unwrap_or_default(),
                cached: usage.map(cached).unwrap_or_default(),
                tier: usage.and_then(tier),
                web_searches: self.billed_searches(),
                ..Usage::default()
            },
            error: self.error,
            over: self.settled,
            ..Reading::default()
        }
    }
}

pub(super) fn tokens(usage: &Value, live: bool) -> Tokens {
    let prompt = count(usage, &["promptTokenCount"]);
    let cached = count(usage, &["cachedContentTokenCount"]);
    let tools = count(usage, &["toolUsePromptTokenCount"]);
    let thoughts = count(usage, &["thoughtsTokenCount"]);
    let candidates = count(usage, &["candidatesTokenCount"]);
    let response = count(usage, &["responseTokenCount"]);
    // Some say that thoughts are inside the candidates, some outside. The total knows.
    let said = plus(prompt, tools);
    let output = match count(usage, &["totalTokenCount"]) {
        // … but not in Live, where it leaves the thoughts out.
        _ if live && response.is_some() => plus(response, thoughts),
        Some(total) if prompt.is_some() && said.is_some_and(|said| total >= said) => {
            minus(Some(total), said)
        }
        _ => plus(candidates.or(response), thoughts),
    };
    let of = |list, wanted| modality(usage, list, wanted);
    let fresh = |wanted| minus(of("promptTokensDetails", wanted), of("cacheTokensDetails", wanted));
    let said = |wanted| {
        of("candidatesTokensDetails", wanted).or_else(|| of("responseTokensDetails", wanted))
    };
    Tokens {
        input: plus(minus(prompt, cached), tools),
        cache_read: cached,
        output,
        reasoning: thoughts,
        audio_input: fresh(AUDIO),
        image_input: fresh(IMAGES),
        audio_output: said(AUDIO),
        image_output: said(IMAGES),
        ..Tokens::default()
    }
}

fn cached(usage: &Value) -> Cached {
    let of = |wanted| modality(usage, "cacheTokensDetails", wanted);
    Cached { audio: of(AUDIO), image: of(IMAGES) }
}

const AUDIO: &[&str] = &["AUDIO"];
/// The frames of a video cost what images do.
const IMAGES: &[&str] = &["IMAGE", "VIDEO"];

fn modality(usage: &Value, list: &str, wanted: &[&str]) -> Option<u64> {
    let entries = usage.get(list)?.as_array()?.iter();
    entries
        .filter(|entry| text(entry, &["modality"]).is_some_and(|name| wanted.contains(&name)))
        .fold(None, |sum, entry| plus(sum, count(entry, &["tokenCount"])))
}

fn tier(usage: &Value) -> Option<String> {
    let named = text(usage, &["serviceTier"]).map(|tier| tier.to_ascii_lowercase());
    named.or_else(|| {
        Some(match text(usage, &["trafficType"])? {
            "ON_DEMAND" | "TRAFFIC_TYPE_UNSPECIFIED" => "standard".to_owned(),
            "ON_DEMAND_PRIORITY" => "priority".to_owned(),
            "ON_DEMAND_FLEX" => "flex".to_owned(),
            other => other.to_ascii_lowercase(),
        })
    })
}
