//! What only the headers of a response tell.

use crate::meter::http::Headers;
use crate::meter::row::Billing;
use crate::meter::usage::{self, Tokens, Usage, UsageState};

use super::request::short;

/// Bedrock's own count, for models whose answers have none.
pub(super) fn bedrock_tokens(headers: &Headers) -> Tokens {
    let count = |name| headers.get(name)?.trim().parse().ok();
    Tokens {
        input: count("x-amzn-bedrock-input-token-count"),
        output: count("x-amzn-bedrock-output-token-count"),
        cache_read: count("x-amzn-bedrock-cache-read-input-token-count"),
        cache_write_other: count("x-amzn-bedrock-cache-write-input-token-count"),
        ..Tokens::default()
    }
}

/// What a body is encoded with, in the order in which it was done: the codings of the content, then
/// those that are put on for the way besides `chunked`, which is off by now.
pub(super) fn codings(headers: &Headers) -> String {
    if ["content-encoding", "transfer-encoding"]
        .iter()
        .all(|name| headers.all(name).next().is_none())
    {
        return String::new();
    }
    let content = headers.list("content-encoding");
    let way = headers.list("transfer-encoding");
    let more = way.split(',').map(str::trim).filter(|name| !name.eq_ignore_ascii_case("chunked"));
    [content.as_str()].into_iter().chain(more).collect::<Vec<_>>().join(",")
}

/// `usage` with what only that count tells.
pub(super) fn complete(usage: &mut Usage, told: &Tokens) {
    if *told == Tokens::default() {
        return;
    }
    if usage.state == UsageState::Absent {
        usage.tokens = *told;
        usage.state = UsageState::Reported;
    } else if usage.parts.is_empty() {
        usage.tokens = usage.tokens.with_caches(told);
    }
}

/// Who pays. Claude's plans cover no fast mode: it is billed from the first token.
pub(super) fn billing(plan: bool, provider: &str, speed: Option<&str>) -> Billing {
    let fast = provider == "anthropic" && speed == Some("fast");
    if plan && !fast { Billing::Subscription } else { Billing::Metered }
}

/// Bedrock's tier for a model that is asked in its own way: asked for and answered by one name.
const BEDROCK_TIER: &str = "x-amzn-bedrock-service-tier";
/// Likewise, how fast it answers: `optimized` costs more.
const BEDROCK_LATENCY: &str = "x-amzn-bedrock-performanceconfig-latency";
/// Headers with the tier that the answer was made in.
const TIERS: &[&str] = &[BEDROCK_TIER, "x-gemini-service-tier"];

/// What headers tell of the tier: the answer's word, or else the request's.
#[derive(Clone, Debug, Default)]
pub(super) struct Tiers {
    tier: Option<String>,
    latency: Option<String>,
}

impl Tiers {
    pub(super) fn asked(headers: &Headers) -> Self {
        Self::told(headers, &[BEDROCK_TIER])
    }

    pub(super) fn answered(&mut self, headers: &Headers) {
        let told = Self::told(headers, TIERS);
        self.tier = told.tier.or(self.tier.take());
        self.latency = told.latency.or(self.latency.take());
    }

    fn told(headers: &Headers, tiers: &[&str]) -> Self {
        let value = |name: &str| headers.get(name).and_then(short);
        Self { tier: tiers.iter().copied().find_map(value), latency: value(BEDROCK_LATENCY) }
    }

    /// The tier that counts. On Bedrock a body is the model maker's, who knows nothing of its tiers.
    pub(super) fn or(&self, body: Option<&str>) -> Option<String> {
        let tier = self.tier.clone().or_else(|| body.and_then(short));
        usage::or_optimized(tier, self.latency.as_deref())
    }
}

/// Headers with the provider's id of the request, the most telling first.
pub(super) const REQUEST_IDS: &[&str] = &[
    "request-id",
    "x-request-id",
    "apim-request-id",
    "x-amzn-requestid",
    "x-debug-trace-id",
    "x-generation-id",
];
