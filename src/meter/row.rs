//! One row of the ledger: one request to a provider.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::quota::Window;
use super::usage::{Cached, Caveat, Counts, Tokens, UsagePart, UsageState};

/// The classes of what one side ended before its time, though an answer had begun.
const CUTS: [&str; 2] = ["client_abort", "upstream_cut"];

/// Whether a good answer was cut short. Providers bill what they had made by then, and tell of it with
/// the last word, if at all. What a daemon had in hand when it ended has no class.
#[must_use]
pub fn is_cut_short(
    completeness: Completeness,
    status: Option<u16>,
    error_class: Option<&str>,
) -> bool {
    let good = |status: u16| status < 300;
    let cut = match error_class {
        Some(class) => CUTS.contains(&class) && status.is_some_and(good),
        None => status.is_none_or(good),
    };
    completeness == Completeness::Interrupted && cut
}

/// Whether it was only told to ask elsewhere: no model answered, and nothing is missing.
#[must_use]
pub fn is_redirect(status: Option<u16>) -> bool {
    status.is_some_and(|status| (300..400).contains(&status))
}

/// Protocol of the exchange as the client spoke it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    H1,
    H2,
    Ws,
}

impl Protocol {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::Ws => "ws",
        }
    }
}

/// Whether the row tells the whole exchange.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Completeness {
    /// Written when the request is seen. Rows still `open` at the daemon's start become
    /// `interrupted`.
    Open,
    Complete,
    /// The exchange was cut by one of the peers, or by the end of our process.
    Interrupted,
    /// The exchange went through, but we could not follow it.
    Lossy,
}

impl Completeness {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Interrupted => "interrupted",
            Self::Lossy => "lossy",
        }
    }
}

/// Whether the user pays for these tokens, or a subscription covers them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Billing {
    Metered,
    Subscription,
}

impl Billing {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metered => "metered",
            Self::Subscription => "subscription",
        }
    }
}

/// What the price needs of a request besides the columns.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct Detail {
    /// What is priced apart, when it was not one request to one model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<UsagePart>,
    /// The lifetime that was applied or asked for, of cache writes that the response does not split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_ttl: Option<String>,
    /// The parts of the cache reads that were audio or images.
    #[serde(skip_serializing_if = "Cached::is_empty")]
    pub cached: Cached,
    /// How many of the cache writes of no other lifetime are kept for 12 hours, where the response
    /// tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_12h: Option<u64>,
    /// What is billed by count: `file_searches`, `audio_seconds`, `pages` …
    #[serde(skip_serializing_if = "Counts::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    pub counts: Counts,
    /// The model declined before it said anything: most who sell it bill nothing then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
    /// Why the figures are not simply the provider's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caveat: Option<Caveat>,
}

/// The ledger row of contract section 6. JSON names are the public ones.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize, ToSchema)]
pub struct Row {
    /// UUIDv7; writing the same id again replaces the row.
    #[schema(value_type = String, format = "uuid")]
    pub id: Uuid,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    pub host: String,
    /// Path without query; secrets never get here.
    pub path: String,
    pub method: String,
    pub protocol: Protocol,
    pub provider: String,
    /// Which API shape was recognised, e.g. `anthropic.messages`; `None`: no adapter.
    pub surface: Option<String>,
    /// A request to a model; side calls (token counting, model lists, telemetry) are not.
    pub billable: bool,
    pub model_requested: Option<String>,
    /// The model that answered, by the response; falls back to nothing.
    pub model: Option<String>,
    pub provider_request_id: Option<String>,
    /// The provider's id of the answer, or of the batch: the same answer is counted once.
    #[serde(default)]
    pub response_id: Option<String>,
    pub stream: Option<bool>,
    pub status: Option<u16>,
    /// `rate_limit`, `overloaded`, `server_error`, `bad_request`, `auth`, `timeout`, `network`,
    /// `client_abort`, `upstream_cut`, `in_stream` …
    pub error_class: Option<String>,
    pub usage: UsageState,
    pub tokens: Tokens,
    pub web_searches: Option<u64>,
    pub tier: Option<String>,
    pub speed: Option<String>,
    pub geo: Option<String>,
    pub cost_nanousd: Option<i64>,
    pub price_rule: Option<String>,
    pub cost_estimated: bool,
    /// Why there is no cost, or why it is an estimate.
    pub cost_reason: Option<String>,
    pub provider_cost_nanousd: Option<i64>,
    /// What our list says, where the cost is the provider's own figure.
    #[serde(default)]
    pub list_nanousd: Option<i64>,
    #[serde(default)]
    pub detail: Detail,
    /// What the response told of the plan's limits; kept apart from the row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(ignore)]
    pub quota: Vec<Window>,
    pub billing: Billing,
    pub completeness: Completeness,
    /// Why the row is not complete.
    pub completeness_reason: Option<String>,
    pub ttfb_ms: Option<u64>,
    pub duration_ms: Option<u64>,
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
    pub project: Option<String>,
    /// How it was found: `explicit`, `file`, `git`, `editor`, `cwd`, `program`; `retag`: somebody said so
    /// afterwards.
    pub project_source: Option<String>,
    pub client: Option<String>,
    pub client_pid: Option<u32>,
    /// The `halton-meter run` that the client was started by (`HALTON_RUN` in its environment): `OUTER/INNER`
    /// for one within another.
    pub run: Option<String>,
    pub session: Option<String>,
    /// The sub-agent that asked, where the client tells; the session's main agent has none.
    #[serde(default)]
    pub agent: Option<String>,
    /// Who started it: an agent, or a session.
    #[serde(default)]
    pub agent_parent: Option<String>,
    /// What the client calls such agents.
    #[serde(default)]
    pub agent_kind: Option<String>,
    pub branch: Option<String>,
    pub cwd: Option<String>,
    /// The client's connection that the request came on.
    #[schema(value_type = Option<String>, format = "uuid")]
    pub connection: Option<Uuid>,
}

/// A row as `requests --json` and `/v1/requests` show it: the fields of [`Row`] and the cost as a
/// decimal string, for readers whose numbers are floats.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PublicRow {
    #[serde(flatten)]
    pub row: Row,
    pub cost_usd: Option<String>,
    /// Whether the bodies of request and answer are kept (`bodies.enabled`).
    pub bodies: bool,
}

impl PublicRow {
    #[must_use]
    pub fn new(row: Row, bodies: bool) -> Self {
        Self { cost_usd: row.cost_nanousd.map(usd_decimal), bodies, row }
    }
}

/// Nano-dollars as an exact decimal number of dollars: `0.0123`, `12.00`.
#[must_use]
pub fn usd_decimal(nanousd: i64) -> String {
    let sign = if nanousd < 0 { "-" } else { "" };
    let magnitude = nanousd.unsigned_abs();
    let mut fraction = format!("{:09}", magnitude % 1_000_000_000);
    while fraction.len() > 2 && fraction.ends_with('0') {
        fraction.pop();
    }
    format!("{sign}{}.{fraction}", magnitude / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_never_shorter_than_cents() {
        assert_eq!(usd_decimal(0), "0.00");
        assert_eq!(usd_decimal(12_300_000), "0.0123");
        assert_eq!(usd_decimal(1), "0.000000001");
        assert_eq!(usd_decimal(12_000_000_000), "12.00");
        assert_eq!(usd_decimal(-1_500_000_000), "-1.50");
        assert_eq!(usd_decimal(i64::MIN), "-9223372036.854775808");
    }
}
