//! What the admin API answers with. The names here are public: docs/openapi.json is made of them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::actors::health::Check;
use crate::meter::ledger::Coverage;
use crate::meter::row::PublicRow;
use crate::meter::tap::Bypassed;

/// `ok`: connections are metered. `degraded`: they pass raw.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    Ok,
    Degraded,
}

/// `/health`: the one resource that needs no token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct HealthAnswer {
    pub status: HealthStatus,
    /// `daemon`.
    pub process: &'static str,
    pub version: &'static str,
    pub pid: u32,
    /// Names this process; the control channel to the edge says the same.
    #[schema(format = "uuid")]
    pub instance: String,
    /// Why it is degraded, as `part: fault`.
    pub reasons: Vec<String>,
    /// It is degraded because it ends: nothing is wrong with it.
    pub draining: bool,
}

/// One condition of metering.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckAnswer {
    pub name: &'static str,
    pub ok: bool,
    pub fault: Option<String>,
}

impl From<&Check> for CheckAnswer {
    fn from(check: &Check) -> Self {
        Self { name: check.name, ok: check.fault.is_none(), fault: check.fault.clone() }
    }
}

/// `/readyz`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReadyAnswer {
    pub ready: bool,
    pub checks: Vec<CheckAnswer>,
}

/// `/v1/status`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StatusAnswer {
    pub health: HealthAnswer,
    pub checks: Vec<CheckAnswer>,
    #[schema(format = DateTime)]
    pub started_at: String,
    pub uptime_ms: u64,
    pub edge: EdgeAnswer,
    pub ledger: LedgerAnswer,
    /// The CA that signs for hosts: SHA-256 of its certificate, in upper-case hex.
    pub authority: Option<String>,
    /// Clients that broke off handshakes with us.
    pub bypass: Vec<BypassEntry>,
    /// What was wrong with the configuration that is in force.
    pub config_problems: Vec<String>,
}

/// The edge, as the daemon sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EdgeAnswer {
    pub pid: Option<u32>,
    /// The edge's own status document.
    #[schema(value_type = Option<Object>)]
    pub status: Option<Value>,
    pub fault: Option<String>,
    #[schema(format = DateTime)]
    pub seen_at: Option<String>,
}

/// The ledger's writer.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LedgerAnswer {
    /// Rows that wait for the disk.
    pub queued: u64,
    /// Rows written by this process.
    pub written: u64,
    /// Rows that could not be kept.
    pub lost: u64,
    pub last_commit_age_ms: Option<u64>,
    pub heartbeat_age_ms: u64,
    pub degraded: Option<String>,
    /// Where a corrupt database was put.
    pub set_aside: Option<String>,
}

/// A client that did not accept our certificate: its connections to this host stay raw for a while.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BypassEntry {
    pub host: String,
    /// Null: it could not be told who the client is.
    pub program: Option<String>,
    /// Raw until then; null: not yet, it has broken off once.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// Handshakes that it broke off since it was last on the list.
    pub strikes: u32,
    /// How often it was put on the list; each stay is twice as long.
    pub stays: u32,
    /// Clients that can't be told stay raw at this host until the list is cleared, whatever `until` says.
    pub lasting: bool,
    /// It has said that it does not accept our certificate; who has not, has only broken off.
    pub refused: bool,
}

impl From<Bypassed> for BypassEntry {
    fn from(entry: Bypassed) -> Self {
        let Bypassed { host, program, until, strikes, stays, lasting, refused } = entry;
        let until = until.map(|at| at.to_string());
        Self { host, program, until, strikes, stays, lasting, refused }
    }
}

/// `GET /v1/bypass`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BypassAnswer {
    pub bypass: Vec<BypassEntry>,
}

/// `DELETE /v1/bypass`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct ClearedAnswer {
    /// How many entries there were.
    pub cleared: usize,
}

/// `/v1/actors`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ActorsAnswer {
    pub actors: Vec<ActorAnswer>,
}

/// One supervised child; a supervisor's own children follow it, as `meter.ledger`.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct ActorAnswer {
    pub id: String,
    pub state: String,
    /// Grows with each start.
    pub generation: u64,
    pub restarts: u64,
    pub last_exit: Option<String>,
    /// What the actor says of itself; null when it did not answer in time.
    #[schema(value_type = Option<Object>)]
    pub observed: Value,
}

/// Which requests to list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RequestsQuery {
    /// From this moment on: a timestamp, or a span back from now (`30m`, `12h`, `7d`).
    pub since: Option<String>,
    /// Before this moment.
    pub until: Option<String>,
    pub project: Option<String>,
    pub model: Option<String>,
    pub provider: Option<String>,
    /// The `halton-meter run` that they belong to, or that the run is in that they belong to.
    pub run: Option<String>,
    /// Side calls (token counting, model lists) too.
    #[serde(default)]
    pub all: bool,
    /// 1 to 1000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// `/v1/requests`: newest first. The document of `halton-meter requests --json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RequestsAnswer {
    pub requests: Vec<PublicRow>,
    /// The cursor of the next page; null: this was the last.
    pub next: Option<String>,
}

/// What to sum up.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct StatsQuery {
    /// From this moment on: a timestamp, or a span back from now (`30m`, `12h`, `7d`). Default `30d`.
    pub since: Option<String>,
    /// Before this moment.
    pub until: Option<String>,
    /// `project`, `model`, `provider`, `client`, `session`, `agent` or `day`; several with commas.
    pub by: Option<String>,
    pub project: Option<String>,
}

/// A time range.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CoverageQuery {
    /// From this moment on: a timestamp, or a span back from now (`30m`, `12h`, `7d`). Default `30d`.
    pub since: Option<String>,
    /// Before this moment.
    pub until: Option<String>,
}

/// `/v1/coverage`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CoverageAnswer {
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    #[serde(flatten)]
    pub coverage: Coverage,
}

/// `POST /v1/login-codes`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LoginCodeAnswer {
    /// Where a browser logs in: the code stands behind the `#`, which is not sent.
    pub path: String,
    pub expires_in_s: u64,
}

/// `POST /v1/session`.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoginRequest {
    /// Good once.
    pub code: String,
}

/// The other half of a session is its cookie.
#[derive(Clone, Serialize, ToSchema)]
pub(super) struct LoginAnswer {
    /// For `X-Halton-Key` of each request.
    pub key: String,
    pub expires_in_s: u64,
}

/// `/v1/flush`.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct FlushAnswer {
    /// False: not all of it in time.
    pub flushed: bool,
}

/// Of a resource without parameters: whoever names one means something.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// Where to go on in the stream of events.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// As the `Last-Event-ID` field: the id of the last event that was seen; `0`: all that are kept.
    pub after: Option<String>,
    /// No stream: the last so many events (1 to 1000), and an end.
    #[param(minimum = 1, maximum = 1000)]
    pub last: Option<usize>,
}
