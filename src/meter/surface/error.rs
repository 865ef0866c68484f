//! Error classes: few enough to count by, the same for every provider.

use serde_json::Value;

use super::count::text;

/// The class of an HTTP status ≥ 400, when the body does not say it better.
#[must_use]
pub fn class_of_status(status: u16) -> Option<&'static str> {
    Some(match status {
        0..400 => return None,
        401 | 403 => "auth",
        402 => "billing",
        404 => "not_found",
        408 | 504 => "timeout",
        413 => "too_large",
        429 => "rate_limit",
        503 | 529 => "overloaded",
        400..500 => "bad_request",
        500.. => "server_error",
    })
}

/// The class of an `error` object (or text): its most specific word that is known. Failing that, a
/// numeric code counts as a status.
#[must_use]
pub fn class_of_error(error: &Value) -> Option<&'static str> {
    let words =
        [text(error, &["code"]), text(error, &["type"]), text(error, &["status"]), error.as_str()];
    words.into_iter().flatten().find_map(class_of_word).or_else(|| {
        let code = error.get("code").or_else(|| error.get("status"))?.as_u64()?;
        class_of_status(u16::try_from(code).ok()?)
    })
}

pub(super) fn class_of_word(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "rate_limit_error"
        | "rate_limit_exceeded"
        | "rate_limit_reached"
        | "resource_exhausted"
        | "too_many_requests"
        | "requests"
        | "tokens"
        | "usage_limit_reached" => "rate_limit",
        "overloaded_error"
        | "overloaded"
        | "unavailable"
        | "server_overloaded"
        | "engine_overloaded"
        | "service_unavailable"
        | "server_is_overloaded" => "overloaded",
        "api_error" | "server_error" | "internal" | "internal_error" | "internal_server_error" => {
            "server_error"
        }
        "authentication_error"
        | "permission_error"
        | "invalid_api_key"
        | "unauthenticated"
        | "permission_denied"
        | "invalid_authentication"
        | "api_key_invalid" => "auth",
        "billing_error"
        | "insufficient_quota"
        | "billing_hard_limit_reached"
        | "billing_not_active"
        | "payment_required"
        | "insufficient_balance" => "billing",
        "not_found_error" | "not_found" | "model_not_found" => "not_found",
        "request_too_large" | "context_length_exceeded" | "string_above_max_length" => "too_large",
        "timeout_error" | "deadline_exceeded" | "timeout" => "timeout",
        "content_filter" | "content_policy_violation" | "invalid_prompt" | "cyber_policy" => {
            "content_filter"
        }
        "invalid_request_error"
        | "invalid_argument"
        | "failed_precondition"
        | "bad_request"
        | "out_of_range"
        | "invalid_value"
        | "unsupported_parameter"
        | "missing_required_parameter"
        | "unknown_parameter" => "bad_request",
        _ => return None,
    })
}

/// An error that came inside a 200: its class, or that it was one.
pub(super) fn in_stream(error: &Value) -> &'static str {
    class_of_error(error).unwrap_or("in_stream")
}
