//! Bedrock: Converse, and InvokeModel, whose bodies are the model's own.

use serde_json::Value;

use super::count::{count, text};
use super::error::{class_of_word, in_stream};
use super::scan::Found;
use super::sniff::Sniff;
use super::{Field, Kind, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage, UsageState, or_optimized};

/// `usage` of the document, or of the stream's last event, `metadata`.
#[derive(Debug, Default)]
pub(super) struct Converse {
    usage: Option<Value>,
    tier: Option<String>,
    latency: Option<String>,
    error: Option<&'static str>,
}

impl Reader for Converse {
    fn unit(&mut self, event: Option<&str>, found: &Found) {
        if let Some(usage) = found.field(Field::Usage).filter(|usage| usage.is_object()) {
            self.usage = Some(usage.clone());
        }
        keep(&mut self.tier, found.field(Field::BedrockTier).and_then(|t| text(t, &["type"])));
        keep(&mut self.latency, found.text(Field::BedrockLatency));
        self.error =
            exception(event).or_else(|| found.field(Field::Error).map(in_stream)).or(self.error);
    }

    fn reading(&self) -> Reading {
        Reading {
            usage: Usage {
                state: state(self.usage.is_some(), true),
                tokens: self.usage.as_ref().map(tokens).unwrap_or_default(),
                tier: or_optimized(self.tier.clone(), self.latency.as_deref()),
                ..Usage::default()
            },
            error: self.error,
            over: self.usage.is_some(),
            ..Reading::default()
        }
    }
}

/// The shape of the model, with Bedrock's own count where that has none.
#[derive(Debug, Default)]
pub(super) struct Invoke {
    shape: Sniff,
    /// `amazon-bedrock-invocationMetrics` of the last event.
    metrics: Option<Value>,
    error: Option<&'static str>,
}

impl Reader for Invoke {
    fn unit(&mut self, event: Option<&str>, found: &Found) {
        self.error = exception(event).or(self.error);
        if let Some(metrics) = found.field(Field::InvocationMetrics) {
            self.metrics = Some(metrics.clone());
        }
        // What the frame says is that there is a chunk; what the chunk is, it says itself.
        self.shape.unit(event.map(|_| ""), found);
    }

    fn end(&mut self, whole: bool) {
        self.shape.end(whole);
    }

    fn reading(&self) -> Reading {
        let mut reading = self.shape.reading();
        reading.error = self.error.or(reading.error);
        if let Some(metrics) = &self.metrics {
            let told = Tokens {
                input: count(metrics, &["inputTokenCount"]),
                output: count(metrics, &["outputTokenCount"]),
                cache_read: count(metrics, &["cacheReadInputTokenCount"]),
                cache_write_other: count(metrics, &["cacheWriteInputTokenCount"]),
                ..Tokens::default()
            };
            if reading.usage.state == UsageState::Absent {
                reading.usage.state = UsageState::Reported;
                reading.usage.tokens = told;
            } else if reading.usage.parts.is_empty() {
                reading.usage.tokens = reading.usage.tokens.with_caches(&told);
            }
        }
        reading.over |= self.metrics.is_some();
        reading
    }

    fn kind(&self) -> Option<Kind> {
        // The ledger names the way it was asked, not the shape that was found.
        None
    }
}

/// Frames of the event stream that tell a failure are named after it.
fn exception(event: Option<&str>) -> Option<&'static str> {
    let name = event?.strip_suffix("Exception")?;
    Some(match name {
        "throttling" | "serviceQuotaExceeded" => "rate_limit",
        "serviceUnavailable" | "modelNotReady" => "overloaded",
        "modelTimeout" => "timeout",
        "validation" => "bad_request",
        "accessDenied" => "auth",
        "internalServer" | "modelStreamError" | "modelError" => "server_error",
        other => class_of_word(other).unwrap_or("in_stream"),
    })
}

/// Cached input is beside the input, as in Anthropic's own shape. Nova's own answer has other names for
/// it than Converse.
pub(super) fn tokens(usage: &Value) -> Tokens {
    let either =
        |of_converse, of_nova| count(usage, &[of_converse]).or_else(|| count(usage, &[of_nova]));
    let written = either("cacheWriteInputTokens", "cacheWriteInputTokenCount");
    let details = usage.get("cacheDetails").and_then(Value::as_array);
    let by_ttl = |ttl: &str| {
        details?
            .iter()
            .filter(|entry| text(entry, &["ttl"]) == Some(ttl))
            .find_map(|entry| count(entry, &["inputTokens"]))
    };
    let (five, hour) = (by_ttl("5m"), by_ttl("1h"));
    let split = five.unwrap_or(0).saturating_add(hour.unwrap_or(0));
    Tokens {
        input: count(usage, &["inputTokens"]),
        output: count(usage, &["outputTokens"]),
        cache_read: either("cacheReadInputTokens", "cacheReadInputTokenCount"),
        cache_write_5m: five,
        cache_write_1h: hour,
        cache_write_other: written
            .map(|all| all.saturating_sub(split))
            .filter(|rest| *rest > 0 || (five.is_none() && hour.is_none())),
        ..Tokens::default()
    }
}
