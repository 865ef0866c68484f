//! OpenAI Chat Completions and what speaks like it: legacy completions, embeddings, xAI, Groq,
//! Mistral, DeepSeek, OpenRouter, Together, Fireworks, Perplexity, Cerebras, Moonshot, Gemini's copy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::count::{as_count, count, minus, plus, text, walk};
use super::error::in_stream;
use super::gemini::traffic_tier;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, openai_responses, state};
use crate::meter::price::nano_from_decimal;
use crate::meter::usage::{Counts, Tokens, Usage, UsagePart};

/// What Mistral bills besides tokens. What was said to a chat is billed by the second, at another rate
/// than a transcription. OpenRouter's reranks are billed by the unit.
const COUNTED: [(&str, &[&str]); 4] = [
    ("code_runs", &["connectors", "code_interpreter"]),
    ("images", &["connectors", "image_generation"]),
    ("prompt_audio_seconds", &["prompt_audio_seconds"]),
    ("search_units", &["search_units"]),
];

/// Where Vertex tells how it was paid.
const TRAFFIC: &[&str] = &["extra_properties", "google", "traffic_type"];

/// Models that search the web before each answer, which tells nothing of it; and their snapshots.
const ALWAYS_SEARCH: [&str; 3] =
    ["gpt-4o-search-preview", "gpt-4o-mini-search-preview", "gpt-5-search-api"];

/// Among what is executed, what has a column of its own.
const SEARCHES: &str = "web_searches";
/// More of Groq's tools are in no answer.
const MAX_EXECUTED: usize = 1024;

/// Usage comes once, in the document or in one of the last chunks, if it comes at all.
#[derive(Debug, Default)]
pub(super) struct Chat {
    model: Option<String>,
    id: Option<String>,
    tier: Option<String>,
    usage: Option<Value>,
    models: Option<Value>,
    /// What Groq's own tools did, as it is counted: a stream may tell of each more than once.
    executed: BTreeMap<u64, &'static str>,
    copilot_cost: Option<i64>,
    error: Option<&'static str>,
    /// A choice has said why it ended.
    finished: bool,
    over: bool,
    /// The stream has ended, and nothing of it is missing.
    whole: bool,
}

impl Reader for Chat {
    fn unit(&mut self, event: Option<&str>, found: &Found) {
        keep(&mut self.model, found.text(Field::Model));
        keep(&mut self.id, found.text(Field::Id).or_else(|| found.text(Field::GroqId)));
        if self.id.is_none() {
            // xAI's answer to one that is to be fetched later has nothing else.
            keep(&mut self.id, found.text(Field::RequestId));
        }
        keep(&mut self.tier, found.text(Field::ServiceTier));
        // Not keyed on `choices == []`: other chunks have that too. Groq says the same twice, and
        // Moonshot in the choice, and beside it once more if it is asked to.
        let usage = [Field::Usage, Field::GroqUsage, Field::ChoiceUsage].map(|f| found.field(f));
        if let Some(usage) = usage.into_iter().flatten().find(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        let either = |plain, streamed| found.field(plain).or_else(|| found.field(streamed));
        if let Some(models) = either(Field::GroqModels, Field::GroqStreamModels) {
            self.models = Some(models.clone());
        }
        self.executed(found, Field::ExecutedType, Field::ExecutedIndex);
        self.executed(found, Field::StreamExecutedType, Field::StreamExecutedIndex);
        self.copilot_cost = copilot_cost(found).or(self.copilot_cost);
        if let Some(error) = either(Field::Error, Field::GroqError) {
            self.error = Some(in_stream(error));
        }
        // OpenRouter's and MiniMax's ways to fail in an answer that is none of HTTP's errors.
        if let Some(error) = found.field(Field::ChoiceError) {
            self.error = Some(in_stream(error));
        } else if found.text(Field::ChoiceFinish) == Some("error") {
            self.error = self.error.or(Some("in_stream"));
        }
        let status = found.field(Field::MiniMaxStatus).and_then(as_count);
        self.error = status.and_then(class_of_minimax).or(self.error);
        self.finished |= found.field(Field::ChoiceFinish).is_some();
        self.over |= match event {
            None => self.usage.is_some() || self.finished,
            // Mistral's conversations name their events.
            Some(name) => name == "conversation.response.done",
        };
        if event == Some("conversation.response.error") {
            self.error = self.error.or(Some("in_stream"));
        }
    }

    fn done(&mut self) {
        self.over = true;
    }

    fn end(&mut self, whole: bool) {
        self.whole = whole;
    }

    fn reading(&self) -> Reading {
        let usage = self.usage.as_ref();
        let parts = self.parts();
        let some = |path: &[&str]| count(usage?, path).filter(|count| *count > 0);
        let mut counts: Counts = COUNTED
            .iter()
            .filter_map(|(name, path)| Some(((*name).to_owned(), some(path)?)))
            .collect();
        counts.extend(
            usage.and_then(|usage| sized(usage, self.model.as_deref())).map(|name| (name, 1)),
        );
        for name in self.executed.values() {
            *counts.entry((*name).to_owned()).or_default() += 1;
        }
        let executed = counts.remove(SEARCHES);
        let tokens = usage.map(|usage| tokens(usage, self.model.as_deref())).unwrap_or_default();
        let provider_cost_nanousd = self.copilot_cost.or_else(|| cost(usage?));
        // A usage without a figure tells nothing.
        let told = tokens != Tokens::default()
            || !parts.is_empty()
            || !counts.is_empty()
            || provider_cost_nanousd.is_some();
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(usage.is_some() && told, self.over || self.finished || self.whole),
                tokens,
                parts,
                counts,
                written_12h: usage.and_then(openai_responses::written_12h),
                web_searches: plus(
                    some(&["connectors", "web_search"]),
                    some(&["connectors", "web_search_premium"]),
                )
                .or(executed)
                .or_else(|| researched(usage?, self.model.as_deref(), "num_search_queries"))
                .or(usage.and(self.searched())),
                tier: self
                    .tier
                    .clone()
                    .or_else(|| text(usage?, &["service_tier"]).map(str::to_owned))
                    .or_else(|| traffic_tier(walk(usage?, TRAFFIC)?)),
                provider_cost_nanousd,
                ..Usage::default()
            },
            error: self.error,
            over: self.over,
            // Of those that are read back only xAI's are, which are told once.
            deferred: usage.is_some(),
            ..Reading::default()
        }
    }
}

impl Chat {
    fn executed(&mut self, found: &Found, types: Field, indexes: Field) {
        let at: Vec<u64> = found.all(indexes as usize).filter_map(as_count).collect();
        let kinds = found.all(types as usize).filter_map(Value::as_str);
        for (n, kind) in kinds.enumerate() {
            let name = match kind {
                "search" => SEARCHES,
                "python" => "code_runs",
                // Visits, browsers and whatever comes: none has a price in the list.
                _ => "tool_calls",
            };
            if self.executed.len() < MAX_EXECUTED {
                self.executed.insert(at.get(n).copied().unwrap_or(n as u64), name);
            }
        }
    }

    fn searched(&self) -> Option<u64> {
        let model = self.model.as_deref()?;
        ALWAYS_SEARCH.iter().any(|name| model.starts_with(name)).then_some(1)
    }

    /// Groq's compound systems run several models for one answer.
    fn parts(&self) -> Vec<UsagePart> {
        let Some(models) = self.models.as_ref().and_then(Value::as_array) else {
            return Vec::new();
        };
        let part = |entry: &Value| {
            let model = text(entry, &["model"])?;
            Some(UsagePart {
                model: Some(model.to_owned()),
                tokens: tokens(entry.get("usage")?, Some(model)),
                ..UsagePart::default()
            })
        };
        models.iter().filter_map(part).collect()
    }
}

/// Disjoint classes out of fields that contain one another.
pub(super) fn tokens(usage: &Value, model: Option<&str>) -> Tokens {
    let completion = count(usage, &["completion_tokens"]);
    let total = count(usage, &["total_tokens"]);
    // Voyage's and Jina's embeddings tell the total only.
    let all = total.filter(|_| completion.is_none());
    let prompt = count(usage, &["prompt_tokens"]).or(all);
    let cached = count(usage, &["prompt_tokens_details", "cached_tokens"])
        .or_else(|| count(usage, &["prompt_cache_hit_tokens"]))
        .or_else(|| count(usage, &["cached_tokens"]))
        .or_else(|| count(usage, &["cache_read_input_tokens"]));
    let writes = Writes::of(usage);
    let reasoning = count(usage, &["completion_tokens_details", "reasoning_tokens"])
        .or_else(|| count(usage, &["reasoning_tokens"]));
    // xAI counts reasoning beside the completion. Whether a provider does is in its own total; only
    // Perplexity's has none of what its research thought, which may be more than all that it said.
    let beside = plus(plus(prompt, completion), reasoning);
    let in_total = reasoning.is_some_and(|r| r > 0) && total.is_some() && total == beside;
    let outside = in_total || (model.is_some_and(researches) && reasoning > completion);
    // Google's thoughts are in its total and in nothing else.
    let thoughts = total
        .filter(|_| reasoning.is_none() && prompt.is_some() && model.is_some_and(is_gemini))
        .and_then(|total| total.checked_sub(plus(prompt, completion)?))
        .filter(|thoughts| *thoughts > 0);
    // What Mistral's connectors gave the model to read; in the total and in nothing else.
    let read = count(usage, &["connector_tokens"])
        .filter(|read| total == plus(plus(prompt, completion), Some(*read)))
        .or_else(|| researched(usage, model, "citation_tokens"));
    Tokens {
        input: plus(minus(minus(prompt, cached), writes.all()), read)
            .or_else(|| count(usage, &["prompt_cache_miss_tokens"])),
        cache_read: cached,
        cache_write_5m: writes.five_minutes,
        cache_write_1h: writes.an_hour,
        cache_write_other: writes.other,
        output: plus(completion, if outside { reasoning } else { thoughts }),
        reasoning: reasoning.or(thoughts),
        audio_input: count(usage, &["prompt_tokens_details", "audio_tokens"]),
        audio_output: count(usage, &["completion_tokens_details", "audio_tokens"]),
        image_input: count(usage, &["prompt_tokens_details", "image_tokens"]),
        image_output: count(usage, &["completion_tokens_details", "image_tokens"]),
    }
}

/// What was written to a cache, by how long it is kept.
struct Writes {
    five_minutes: Option<u64>,
    an_hour: Option<u64>,
    other: Option<u64>,
}

impl Writes {
    /// OpenRouter's name for it, Qwen's, `LiteLLM`'s; the last one at the top, too.
    fn of(usage: &Value) -> Self {
        let inside = |path: &[&str]| count(usage.get("prompt_tokens_details")?, path);
        let all = inside(&["cache_write_tokens"])
            .or_else(|| inside(&["cache_creation_input_tokens"]))
            .or_else(|| inside(&["cache_creation_tokens"]))
            .or_else(|| count(usage, &["cache_creation_input_tokens"]));
        let kept = |name: &str| {
            inside(&["cache_creation", name])
                .or_else(|| inside(&["cache_creation_token_details", name]))
                .filter(|_| all != Some(0))
        };
        let (five_minutes, an_hour) =
            (kept("ephemeral_5m_input_tokens"), kept("ephemeral_1h_input_tokens"));
        let split = plus(five_minutes, an_hour);
        let other = minus(all, split).filter(|rest| *rest > 0 || split.is_none());
        Self { five_minutes, an_hour, other }
    }

    fn all(&self) -> Option<u64> {
        plus(plus(self.five_minutes, self.an_hour), self.other)
    }
}

/// What Perplexity's deep research read and looked up, which is billed; with its other models, neither
/// is billed by the piece.
fn researched(usage: &Value, model: Option<&str>, field: &str) -> Option<u64> {
    count(usage, &[field]).filter(|n| *n > 0 && model.is_some_and(researches))
}

/// The fee for a request to Perplexity's other models, by how much it searched.
fn sized(usage: &Value, model: Option<&str>) -> Option<String> {
    let size = text(usage, &["search_context_size"])?;
    let known = matches!(size, "low" | "medium" | "high") && !model.is_some_and(researches);
    known.then(|| format!("requests_{size}"))
}

fn researches(model: &str) -> bool {
    model.starts_with("sonar-deep-research")
}

/// The class of what MiniMax says went wrong: all but 0.
pub(super) fn class_of_minimax(status: u64) -> Option<&'static str> {
    Some(match status {
        0 => return None,
        1001 => "timeout",
        1002 | 1039 | 1041 | 2045 | 2056 => "rate_limit",
        1004 | 2049 => "auth",
        1008 => "billing",
        1013 | 1024 | 1033 => "server_error",
        1026 | 1027 => "content_filter",
        2013 => "bad_request",
        _ => "in_stream",
    })
}

/// Whoever passes it on: Vertex and gateways put the maker in front.
fn is_gemini(model: &str) -> bool {
    model.rsplit('/').next().is_some_and(|name| name.starts_with("gemini"))
}

/// What GitHub Copilot says beside the usage: 10⁹ nano-AIU are a credit, a credit is a cent.
pub(super) fn copilot_cost(found: &Found) -> Option<i64> {
    let credits = count(found.field(Field::CopilotUsage)?, &["total_nano_aiu"])?;
    i64::try_from(credits.checked_add(50)? / 100).ok()
}

/// What the provider says that it charged.
pub(super) fn cost(usage: &Value) -> Option<i64> {
    if let Some(ticks) = count(usage, &["cost_in_usd_ticks"]) {
        // 10¹⁰ ticks are a dollar.
        return i64::try_from(ticks.checked_add(5)? / 10).ok();
    }
    // Nobody pays back by the request.
    let money = |path: &[&str]| {
        let told = match walk(usage, path)? {
            Value::Number(number) => nano_from_decimal(&number.to_string()),
            Value::String(text) => nano_from_decimal(text),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        };
        told.filter(|nano| *nano >= 0)
    };
    let charged = money(&["cost"])
        .or_else(|| money(&["cost", "total_cost"]))
        // DeepInfra's word for it.
        .or_else(|| money(&["estimated_cost"]))?;
    // With the user's own key, OpenRouter's cost is its fee; the provider charges beside it, and where
    // that is not told the fee alone is no cost.
    match walk(usage, &["is_byok"]).and_then(Value::as_bool) {
        Some(true) => charged.checked_add(money(&["cost_details", "upstream_inference_cost"])?),
        Some(false) | None => Some(charged),
    }
}
