//! What only the headers of a response tell.

use crate::meter::http::Headers;
use crate::meter::row::Billing;
use crate::meter::usage::Tokens;

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

/// Who pays. Claude's plans cover no fast mode: it is billed from the first token.
pub(super) fn billing(plan: bool, provider: &str, speed: Option<&str>) -> Billing {
    let fast = provider == "anthropic" && speed == Some("fast");
    if plan && !fast { Billing::Subscription } else { Billing::Metered }
}

/// Bedrock's tier for a model that is asked in its own way: asked for and answered by one name.
pub(super) const BEDROCK_TIER: &str = "x-amzn-bedrock-service-tier";

/// Headers with the tier that the answer was made in.
pub(super) const TIERS: &[&str] = &[BEDROCK_TIER, "x-gemini-service-tier"];

/// Headers with the provider's id of the request, the most telling first.
pub(super) const REQUEST_IDS: &[&str] = &[
    "request-id",
    "x-request-id",
    "apim-request-id",
    "x-amzn-requestid",
    "x-debug-trace-id",
    "x-generation-id",
];
