//! Gemini generateContent and streamGenerateContent, plain or in Code Assist's wrapper, and Live's turns.

use jiff::Timestamp;
use serde_json::Value;

use super::count::{as_count, count, minus, plus, text};
use super::error::in_stream;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::quota::{self, Window};
use crate::meter::usage::{Cached, Counts, Tokens, Usage};

/// Every chunk has running totals: the last one wins as a whole.
#[derive(Debug, Default)]
pub(super) struct Gemini {
    model: Option<String>,
    /// The model that was asked for: not every answer names one.
    asked: Option<String>,
    id: Option<String>,
    usage: Option<Value>,
    tier: Option<String>,
    /// Tokens that were told of each text that was embedded, together.
    embedded: Option<u64>,
    finished: bool,
    settled: bool,
    /// Characters that were embedded.
    characters: Option<u64>,
    /// A turn of a Live session.
    live: bool,
    /// Searches that grounded the answer.
    searches: Option<u64>,
    /// Google Maps did.
    on_maps: bool,
    /// Numbers for what was embedded: of a video they cost more than of an image.
    embeds: bool,
    /// What Code Assist says is left of credits that were bought.
    credits: Option<Window>,
    /// … and that it took some of them.
    on_credits: bool,
    now: Option<Timestamp>,
    error: Option<&'static str>,
}

impl Gemini {
    /// Embeddings have no candidates that could finish.
    pub(super) fn for_embeddings() -> Self {
        Self { finished: true, embeds: true, ..Self::default() }
    }

    /// A turn says that it is over, whichever message has told its usage.
    pub(super) fn for_live() -> Self {
        Self { live: true, ..Self::default() }
    }
}

impl Gemini {
    /// What is billed by count. How often Maps was asked for an answer is not told. Google's cloud counts
    /// the characters of whatever is embedded, and bills Gemini's own by the token.
    fn counts(&self) -> Counts {
        let video = || SPLITS.of(self.usage.as_ref()?, SPLITS.prompt, VIDEO);
        let video = self.embeds.then(video).flatten().filter(|tokens| *tokens > 0);
        let maps = self.on_maps.then_some(1);
        let by_token = || self.asked.as_deref().is_none_or(|name| name.starts_with("gemini"));
        let characters = self.characters.filter(|_| self.embeds && !by_token());
        [("maps_queries", maps), ("video_tokens", video), ("characters", characters)]
            .into_iter()
            .filter_map(|(name, count)| Some((name.to_owned(), count?)))
            .collect()
    }
}

/// From Gemini 3 on each query is billed, before that the answer that was grounded.
pub(super) fn billed_searches(model: Option<&str>, queries: Option<u64>) -> Option<u64> {
    let name = model.and_then(|model| model.rsplit('/').next()).unwrap_or_default();
    let version = name.trim_start_matches("gemini-").trim_start_matches("live-");
    let old = version.starts_with(['1', '2']);
    queries.map(|queries| if old { 1 } else { queries })
}

impl Reader for Gemini {
    fn at(&mut self, moment: Timestamp) {
        self.now = Some(moment);
    }

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
            self.tier = tier(usage).or_else(|| self.tier.take());
            // What counts nothing takes back no count.
            if COUNTS.iter().any(|name| count(usage, &[name]).is_some()) {
                self.usage = Some(usage.clone());
                // Totals from before the end are not the last word, whatever else the end brings.
                self.settled = self.finished;
            }
        }
        let told = [Field::PredictionTokens, Field::PredictionTokenCount];
        let told = told.into_iter().flat_map(|field| found.all(field as usize));
        let embedded = told.map(as_count).fold(None, plus);
        if embedded.is_some() {
            self.embedded = embedded;
            // Of more texts than are looked at, the rest is missing.
            self.settled = !found.is_cut();
        }
        self.characters =
            found.field(Field::BilledCharacters).and_then(as_count).or(self.characters);
        self.settled |= self.live && self.finished;
        let queries = [Field::Searches, Field::WrappedSearches, Field::LiveSearches]
            .into_iter()
            .filter_map(|field| found.field(field)?.as_array())
            .map(|queries| queries.len() as u64)
            .max();
        self.searches = queries.filter(|n| *n > 0).max(self.searches);
        self.on_maps |= found.field(Field::Maps).is_some();
        let credits = found.field(Field::RemainingCredits);
        let credits = credits.and_then(|credits| quota::from_credits(credits, self.now));
        self.credits = credits.or_else(|| self.credits.take());
        self.on_credits |= found.field(Field::ConsumedCredits).is_some_and(quota::took_credits);
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
                state: state(usage.is_some() || self.embedded.is_some(), self.settled),
                tokens: match usage {
                    Some(usage) => tokens(usage, self.live),
                    None => Tokens { input: self.embedded, ..Tokens::default() },
                },
                cached: usage.map(|usage| SPLITS.cached(usage)).unwrap_or_default(),
                tier: self.tier.clone(),
                web_searches: billed_searches(
                    self.model.as_deref().or(self.asked.as_deref()),
                    self.searches,
                ),
                counts: self.counts(),
                ..Usage::default()
            },
            error: self.error,
            over: self.settled,
            quota: self.credits.iter().cloned().collect(),
            beyond_plan: self.on_credits,
            ..Reading::default()
        }
    }
}

/// Any of these makes a usage one. A last chunk may tell its tier and nothing else.
const COUNTS: &[&str] = &[
    "promptTokenCount",
    "cachedContentTokenCount",
    "toolUsePromptTokenCount",
    "candidatesTokenCount",
    "responseTokenCount",
    "thoughtsTokenCount",
    "totalTokenCount",
];

pub(super) fn tokens(usage: &Value, live: bool) -> Tokens {
    let prompt = count(usage, &["promptTokenCount"]);
    let cached = count(usage, &["cachedContentTokenCount"]);
    // Vertex' gRPC tells them by kind only.
    let tools = count(usage, &["toolUsePromptTokenCount"]).or_else(|| SPLITS.of_tools(usage));
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
    SPLITS.split(
        usage,
        Tokens {
            input: plus(minus(prompt, cached), tools),
            cache_read: cached,
            output,
            reasoning: thoughts,
            ..Tokens::default()
        },
    )
}

const SPLITS: Splits = Splits {
    prompt: &["promptTokensDetails"],
    tools: &["toolUsePromptTokensDetails"],
    cached: &["cacheTokensDetails"],
    output: &["candidatesTokensDetails", "responseTokensDetails"],
    number: "tokenCount",
};

/// The lists that say which tokens were what, by the names that they have; the first that says it counts.
#[derive(Debug)]
pub(super) struct Splits {
    pub(super) prompt: &'static [&'static str],
    pub(super) tools: &'static [&'static str],
    pub(super) cached: &'static [&'static str],
    pub(super) output: &'static [&'static str],
    /// How many they are, in an entry.
    pub(super) number: &'static str,
}

const AUDIO: &[&str] = &["AUDIO"];
const VIDEO: &[&str] = &["VIDEO"];
/// The frames of a video cost what images do, but where they are embedded.
const IMAGES: &[&str] = &["IMAGE", "VIDEO"];
/// By number, where the client asks for that (`$alt=json;enum-encoding=int`).
const MODALITIES: [&str; 6] = ["UNSPECIFIED", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT"];

impl Splits {
    /// `tokens` with what of them is audio or an image.
    pub(super) fn split(&self, usage: &Value, tokens: Tokens) -> Tokens {
        let of = |lists, wanted| self.of(usage, lists, wanted);
        let fresh = |wanted| {
            let prompt = minus(of(self.prompt, wanted), of(self.cached, wanted));
            plus(prompt, of(self.tools, wanted))
        };
        Tokens {
            audio_input: fresh(AUDIO),
            image_input: fresh(IMAGES),
            audio_output: of(self.output, AUDIO),
            image_output: of(self.output, IMAGES),
            ..tokens
        }
    }

    pub(super) fn cached(&self, usage: &Value) -> Cached {
        let of = |wanted| self.of(usage, self.cached, wanted);
        Cached { audio: of(AUDIO), image: of(IMAGES) }
    }

    fn of_tools(&self, usage: &Value) -> Option<u64> {
        let entries = self.tools.iter().find_map(|list| usage.get(list)?.as_array());
        entries?.iter().fold(None, |sum, entry| plus(sum, count(entry, &[self.number])))
    }

    fn of(&self, usage: &Value, lists: &[&str], wanted: &[&str]) -> Option<u64> {
        let is_wanted = |entry: &&Value| {
            let name = text(entry, &["modality"]).or_else(|| {
                let number = usize::try_from(count(entry, &["modality"])?).ok()?;
                MODALITIES.get(number).copied()
            });
            name.is_some_and(|name| wanted.iter().any(|kind| kind.eq_ignore_ascii_case(name)))
        };
        let sum = |list: &&str| {
            let entries = usage.get(list)?.as_array()?.iter().filter(is_wanted);
            entries.fold(None, |sum, entry| plus(sum, count(entry, &[self.number])))
        };
        lists.iter().find_map(sum)
    }
}

fn tier(usage: &Value) -> Option<String> {
    let named = usage.get("serviceTier").and_then(service_tier);
    let paid = || usage.get("trafficType").and_then(traffic_tier);
    // Not to say it leaves it to the other.
    named.clone().filter(|tier| tier != UNSPECIFIED).or_else(paid).or(named)
}

const UNSPECIFIED: &str = "unspecified";

fn service_tier(told: &Value) -> Option<String> {
    match told.as_u64() {
        Some(0) => Some(UNSPECIFIED.to_owned()),
        Some(number) => Some(number.to_string()),
        None => told.as_str().filter(|name| !name.is_empty()).map(named_tier),
    }
}

/// The tier by any of its names: `FLEX`, Vertex's `SERVICE_TIER_FLEX`.
pub(super) fn named_tier(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_prefix("service_tier_").unwrap_or(&name).to_owned()
}

/// The tier by how Vertex says that it was paid. A number of which we know no name is one without a
/// price.
pub(super) fn traffic_tier(told: &Value) -> Option<String> {
    let name = match told.as_u64() {
        Some(0 | 1) => "on_demand".to_owned(),
        Some(2) => "provisioned_throughput".to_owned(),
        Some(number) => number.to_string(),
        None => told.as_str().filter(|name| !name.is_empty())?.to_ascii_lowercase(),
    };
    Some(match name.as_str() {
        "on_demand" | "traffic_type_unspecified" => "standard".to_owned(),
        other => other.strip_prefix("on_demand_").unwrap_or(other).to_owned(),
    })
}
