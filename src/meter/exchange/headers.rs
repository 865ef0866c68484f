//! What only the headers of a response tell.

use crate::meter::http::Headers;
use crate::meter::usage::Tokens;

/// Bedrock's own count, for models whose answers have none.
pub(super) fn bedrock_tokens(headers: &Headers) -> Tokens {
    let count = |what: &str| {
        headers.get(&format!("x-amzn-bedrock-{what}-token-count"))?.trim().parse().ok()
    };
    Tokens {
        input: count("input"),
        output: count("output"),
        cache_read: count("cache-read-input"),
        cache_write_other: count("cache-write-input"),
        ..Tokens::default()
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
