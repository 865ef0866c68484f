//! Gemini Interactions and decisions.

use serde_json::Value;

use super::count::{count, minus, plus, text};
use super::error::in_stream;
use super::gemini::{Splits, billed_searches, named_tier};
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Counts, Tokens, Usage};

/// `usage` of the interaction, in the document or in the stream's last event. Google Cloud writes all
/// names of it as one word.
#[derive(Debug, Default)]
pub(super) struct Interactions {
    model: Option<String>,
    id: Option<String>,
    tier: Option<String>,
    usage: Option<Value>,
    error: Option<&'static str>,
}

impl Reader for Interactions {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let either = |plain, inner| found.field(inner).or_else(|| found.field(plain));
        let name = |plain, inner| found.text(inner).or_else(|| found.text(plain));
        // An agent chooses its models itself, and is billed under its own name.
        let agent = name(Field::Agent, Field::InteractionAgent);
        keep(&mut self.model, name(Field::Model, Field::InteractionModel).or(agent));
        keep(&mut self.id, name(Field::Id, Field::InteractionId));
        // Bedrock has a name like Google Cloud's, and it is no text there.
        let tier = name(Field::ServiceTier, Field::InteractionTier)
            .or_else(|| name(Field::BedrockTier, Field::InteractionTierOfCloud));
        keep(&mut self.tier, tier);
        let status = name(Field::Status, Field::InteractionStatus);
        if let Some(usage) = either(Field::Usage, Field::InteractionUsage)
            && usage.is_object()
            && !matches!(status, Some("in_progress" | "queued"))
        {
            self.usage = Some(usage.clone());
        }
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn reading(&self) -> Reading {
        let usage = self.usage.as_ref();
        let searches = usage.and_then(|usage| grounded(usage, "google_search"));
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(usage.is_some(), true),
                tokens: usage.map(tokens).unwrap_or_default(),
                cached: usage.map(|usage| SPLITS.cached(usage)).unwrap_or_default(),
                tier: self.tier.as_deref().map(named_tier),
                web_searches: billed_searches(self.model.as_deref(), searches),
                counts: usage.map(counts).unwrap_or_default(),
                ..Usage::default()
            },
            error: self.error,
            over: usage.is_some(),
            // Nothing in it says that it ran in the background: whether it was told before is the
            // ledger's to know, by its id.
            deferred: usage.is_some() && self.id.is_some(),
            ..Reading::default()
        }
    }
}

const SPLITS: Splits = Splits {
    prompt: &["input_tokens_by_modality", "inputTokensByModality"],
    tools: &["tool_use_tokens_by_modality", "toolUseTokensByModality"],
    cached: &["cached_tokens_by_modality", "cachedTokensByModality"],
    output: &["output_tokens_by_modality", "outputTokensByModality"],
    number: "tokens",
};

/// Thoughts are beside the output, what tools put into the prompt beside the input.
fn tokens(usage: &Value) -> Tokens {
    let total = |name, of_cloud| count(usage, &[name]).or_else(|| count(usage, &[of_cloud]));
    let prompt = total("total_input_tokens", "totalInputTokens");
    let cached = total("total_cached_tokens", "totalCachedTokens");
    let tools = total("total_tool_use_tokens", "totalToolUseTokens");
    let thoughts = total("total_thought_tokens", "totalThoughtTokens");
    let output = total("total_output_tokens", "totalOutputTokens");
    SPLITS.split(
        usage,
        Tokens {
            input: plus(minus(prompt, cached), tools),
            cache_read: cached,
            output: plus(output, thoughts),
            reasoning: thoughts,
            ..Tokens::default()
        },
    )
}

/// What is billed and is neither a token nor a search of the web.
fn counts(usage: &Value) -> Counts {
    [("map_searches", "google_maps"), ("retrievals", "retrieval")]
        .into_iter()
        .filter_map(|(name, tool)| Some((name.to_owned(), grounded(usage, tool)?)))
        .collect()
}

/// How often a tool looked something up.
fn grounded(usage: &Value, tool: &str) -> Option<u64> {
    let list = usage.get("grounding_tool_count").or_else(|| usage.get("groundingToolCount"));
    list?
        .as_array()?
        .iter()
        .filter(|of| text(of, &["type"]).is_some_and(|name| name.eq_ignore_ascii_case(tool)))
        .fold(None, |sum, of| plus(sum, count(of, &["count"])))
        .filter(|times| *times > 0)
}
