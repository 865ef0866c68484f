//! The resources of the admin API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::{App, Error, HttpResponse, Resource, Route, web};
use clap::ValueEnum;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;
use utoipa::OpenApi;
use uuid::Uuid;

use super::auth::{self, Asked, Token};
use super::dto::{
    ActorAnswer, ActorsAnswer, CheckAnswer, EdgeAnswer, EventsQuery, FlushAnswer, HealthAnswer,
    HealthStatus, LedgerAnswer, ReadyAnswer, RequestsAnswer, RequestsQuery, StatsQuery,
    StatusAnswer,
};
use super::problem::Problem;
use super::sse;
use crate::actors::meter::Meter;
use crate::actors::tree::View;
use crate::actors::{edge_monitor, health};
use crate::home::Home;
use crate::meter::ledger::{
    Cursor, GroupBy, Ledger, LedgerError, ReportQuery, RequestFilter, Window,
};
use crate::supervisor::Journal;

/// Rows of a page.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1000;
/// Streams of events at once; each one looks at the journal by itself.
const STREAMS: usize = 16;
/// What a flush may take, and how often the observers are looked at meanwhile.
const FLUSH: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(4);
const QUIET_LOOKS: u32 = 3;

/// What the handlers know. One for all workers and all generations of the actor.
#[derive(Debug)]
pub struct Api {
    pub instance: Uuid,
    pub home: Home,
    pub token: Token,
    pub health: health::Board,
    pub edge: edge_monitor::Board,
    pub meter: Meter,
    pub tree: View,
    pub started_at: Timestamp,
    pub born: Instant,
    pub config_problems: Arc<arc_swap::ArcSwap<Vec<String>>>,
    pub port: AtomicU16,
    pub streams: Arc<AtomicUsize>,
    pub journal: Journal,
}

impl Api {
    /// The port that `Host` and `Origin` may name.
    pub fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    fn health(&self) -> (HealthAnswer, Vec<CheckAnswer>) {
        let checks = self.health.read(Instant::now());
        let reasons = health::reasons(&checks);
        let status = if reasons.is_empty() { HealthStatus::Ok } else { HealthStatus::Degraded };
        let answer = HealthAnswer {
            status,
            process: "daemon",
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            instance: self.instance.to_string(),
            reasons,
        };
        (answer, checks.iter().map(CheckAnswer::from).collect())
    }
}

/// The application; every request passes the guard first.
pub fn app(
    api: Arc<Api>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    App::new()
        .app_data(web::Data::from(api))
        .app_data(
            web::QueryConfig::default()
                .error_handler(|e, _| Problem::bad_request(e.to_string()).into()),
        )
        .service(resource("/health", web::get().to(get_health)))
        .service(resource("/readyz", web::get().to(get_ready)))
        .service(resource("/openapi.json", web::get().to(get_openapi)))
        .service(resource("/v1/status", web::get().to(get_status)))
        .service(resource("/v1/actors", web::get().to(get_actors)))
        .service(resource("/v1/requests", web::get().to(get_requests)))
        .service(resource("/v1/stats", web::get().to(get_stats)))
        .service(resource("/v1/flush", web::get().to(get_flush)))
        .service(resource("/v1/events", web::get().to(get_events)))
        .default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::not_found()) }))
        .wrap(from_fn(guard))
        .wrap(
            DefaultHeaders::new()
                .add(("cache-control", "no-store"))
                .add(("x-content-type-options", "nosniff")),
        )
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Halton Meter admin API",
        description = "Loopback only. Everything but /health needs the bearer token of run/token. \
                       Errors are RFC 9457 problem documents.",
        license(name = "Apache-2.0")
    ),
    paths(
        get_health, get_ready, get_openapi, get_status, get_actors, get_requests, get_stats,
        get_flush, get_events
    ),
    components(schemas(Problem)),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        document
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn resource(path: &str, get: Route) -> Resource {
    web::resource(path.to_owned())
        .route(get)
        .default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::method()) }))
}

async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let headers = request.headers();
    let asked = Asked {
        path: request.path(),
        host: only(headers, &HOST),
        // A field that is there but can't be read is as foreign as can be.
        origin: headers.contains_key(ORIGIN).then(|| only(headers, &ORIGIN).unwrap_or("null")),
        authorization: only(headers, &AUTHORIZATION),
    };
    let verdict = match request.app_data::<web::Data<Api>>() {
        Some(api) => auth::judge(asked, &api.token, api.port.load(Ordering::Relaxed)),
        None => Err(Problem::unavailable("starting")),
    };
    verdict?;
    next.call(request).await
}

/// The value of a field that comes exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name);
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

/// Whether connections are metered right now. From memory.
#[utoipa::path(
    get,
    path = "/health",
    responses(
        (status = 200, description = "connections are metered", body = HealthAnswer),
        (status = 503, description = "connections pass raw; see `reasons`", body = HealthAnswer),
        (status = 421, description = "Host is not this machine", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_health(api: web::Data<Api>) -> HttpResponse {
    let (answer, _) = api.health();
    match answer.status {
        HealthStatus::Ok => HttpResponse::Ok().json(answer),
        HealthStatus::Degraded => HttpResponse::ServiceUnavailable().json(answer),
    }
}

/// The conditions of metering, one by one.
#[utoipa::path(
    get,
    path = "/readyz",
    security(("token" = [])),
    responses(
        (status = 200, description = "ready", body = ReadyAnswer),
        (status = 503, description = "not ready; see `checks`", body = ReadyAnswer),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_ready(api: web::Data<Api>) -> HttpResponse {
    let (answer, checks) = api.health();
    let ready = answer.status == HealthStatus::Ok;
    let mut response = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    response.json(ReadyAnswer { ready, checks })
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    security(("token" = [])),
    responses((status = 200, description = "an OpenAPI document", body = Object))
)]
async fn get_openapi() -> HttpResponse {
    HttpResponse::Ok().json(openapi())
}

/// The daemon and the edge at a glance.
#[utoipa::path(
    get,
    path = "/v1/status",
    security(("token" = [])),
    responses(
        (status = 200, body = StatusAnswer),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_status(api: web::Data<Api>) -> HttpResponse {
    let (health, checks) = api.health();
    let edge = api.edge.read();
    let ledger = api.meter.intake().stats();
    HttpResponse::Ok().json(StatusAnswer {
        health,
        checks,
        started_at: api.started_at.to_string(),
        uptime_ms: millis(api.born.elapsed()),
        edge: EdgeAnswer {
            pid: edge.pid,
            status: edge.status.clone(),
            fault: edge.fault.clone(),
            seen_at: edge.at.map(|at| at.to_string()),
        },
        ledger: LedgerAnswer {
            queued: ledger.queued,
            written: ledger.written,
            lost: ledger.lost,
            last_commit_age_ms: ledger.last_commit_age.map(millis),
            heartbeat_age_ms: millis(ledger.heartbeat_age),
            degraded: ledger.degraded,
            set_aside: ledger.set_aside.map(|path| path.display().to_string()),
        },
        config_problems: api.config_problems.load().to_vec(),
    })
}

/// The supervision tree: every child, its generation, its restarts, its own state.
#[utoipa::path(
    get,
    path = "/v1/actors",
    security(("token" = [])),
    responses(
        (status = 200, body = ActorsAnswer),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_actors(api: web::Data<Api>) -> HttpResponse {
    let actors: Vec<ActorAnswer> = api.tree.observe().await;
    HttpResponse::Ok().json(ActorsAnswer { actors })
}

/// Requests, newest first.
#[utoipa::path(
    get,
    path = "/v1/requests",
    params(RequestsQuery),
    security(("token" = [])),
    responses(
        (status = 200, body = RequestsAnswer),
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_requests(
    api: web::Data<Api>,
    query: web::Query<RequestsQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let now = Timestamp::now();
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!("limit: expected 1 to {PAGE_MAX}")));
    }
    let cursor = query.cursor.as_deref().map(str::parse::<Cursor>).transpose();
    let filter = RequestFilter {
        since: moment("since", query.since.as_deref(), now)?,
        until: moment("until", query.until.as_deref(), now)?,
        project: query.project,
        model: query.model,
        provider: query.provider,
        run: query.run,
        all: query.all,
        limit: Some(limit),
        before: cursor.map_err(|e| Problem::bad_request(format!("cursor: {e}")))?,
    };
    let page = read(&api, move |ledger| ledger.requests(&filter)).await?;
    Ok(HttpResponse::Ok().json(RequestsAnswer {
        requests: page.rows.into_iter().map(Into::into).collect(),
        next: page.next.map(|cursor| cursor.to_string()),
    }))
}

/// Sums: tokens, cost, latency, coverage. The document of `halton-meter report --json`.
#[utoipa::path(
    get,
    path = "/v1/stats",
    params(StatsQuery),
    security(("token" = [])),
    responses(
        (status = 200, description = "see docs/json.md, `report`", body = Object),
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "the ledger can't be read", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_stats(
    api: web::Data<Api>,
    query: web::Query<StatsQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let now = Timestamp::now();
    let since = query.since.as_deref().unwrap_or("30d");
    let window = Window {
        from: moment("since", Some(since), now)?.unwrap_or(Timestamp::MIN),
        // "Up to now" includes what began this instant.
        to: moment("until", query.until.as_deref(), now)?
            .unwrap_or_else(|| now.saturating_add(SignedDuration::from_secs(1)).unwrap_or(now)),
    };
    if window.from > window.to {
        return Err(Problem::bad_request("since is later than until"));
    }
    let by = match query.by.as_deref() {
        None => Vec::new(),
        Some(name) => vec![GroupBy::from_str(name, false).map_err(|_| {
            Problem::bad_request("by: expected project, model, provider, client, session or day")
        })?],
    };
    let report = ReportQuery {
        window,
        by,
        project: query.project,
        zone: TimeZone::system(),
        vs_previous: false,
    };
    let report = read(&api, move |ledger| ledger.report(&report)).await?;
    Ok(HttpResponse::Ok().json(report))
}

/// Waits, a second at most, until finished exchanges are in the ledger.
///
/// For those who read the ledger right after a program has ended.
#[utoipa::path(
    get,
    path = "/v1/flush",
    security(("token" = [])),
    responses(
        (status = 200, body = FlushAnswer),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_flush(api: web::Data<Api>) -> HttpResponse {
    let deadline = Instant::now() + FLUSH;
    let settled = settle(&api.meter, deadline).await;
    let intake = api.meter.intake().clone();
    let flushed = web::block(move || intake.flush(deadline.into_std())).await;
    HttpResponse::Ok().json(FlushAnswer { flushed: settled && flushed.unwrap_or(false) })
}

/// Waits until the observers have nothing to do for a few looks in a row: what a client did last
/// before it ended may just be on its way to them.
async fn settle(meter: &Meter, deadline: Instant) -> bool {
    let mut quiet = 0;
    while quiet < QUIET_LOOKS {
        if Instant::now() >= deadline {
            return false;
        }
        let busy = meter.tap().is_some_and(|tap| {
            let now = tap.snapshot();
            now.observer_bytes > 0 || now.closing > 0
        });
        quiet = if busy { 0 } else { quiet + 1 };
        tokio::time::sleep(LOOK).await;
    }
    true
}

/// Supervision events as they happen (`text/event-stream`).
///
/// `id` is the id of the event; send the last one back as `Last-Event-ID` to go on behind it. Without
/// one the stream starts with the next event.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "the last event that was seen")
    ),
    security(("token" = [])),
    responses(
        (status = 200, description = "a stream of journal entries", content_type = "text/event-stream",
            body = String),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "too many streams", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_events(
    api: web::Data<Api>,
    request: actix_web::HttpRequest,
    query: web::Query<EventsQuery>,
) -> Result<HttpResponse, Problem> {
    let last = only(request.headers(), &HeaderName::from_static("last-event-id"))
        .map(str::to_owned)
        .or_else(|| query.into_inner().after);
    let slot = sse::Slot::take(&api.streams, STREAMS)
        .ok_or_else(|| Problem::busy(format!("{STREAMS} streams are open")))?;
    Ok(sse::response(api.home.journal_file(), last, slot))
}

/// Runs a query on a thread that may block.
async fn read<T: Send + 'static>(
    api: &Api,
    query: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Problem> {
    let home = api.home.clone();
    let answer = web::block(move || query(&Ledger::open(&home)?)).await;
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(Problem::unavailable(e.to_string())),
        Err(_) => Err(Problem::unavailable("the query did not finish")),
    }
}

/// A timestamp, or a span back from now.
fn moment(name: &str, text: Option<&str>, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let bad = || {
        Problem::bad_request(format!(
            "{name}: expected a timestamp like 2026-01-31T12:00:00Z, or a span like 30m, 12h, 7d"
        ))
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Some(at));
    }
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        Some('w') => 7 * 86_400,
        Some(_) | None => return Err(bad()),
    };
    let count: i64 = text.get(..text.len() - 1).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    if count < 0 {
        return Err(bad());
    }
    let span = count.checked_mul(unit).map(SignedDuration::from_secs).ok_or_else(bad)?;
    Ok(Some(now.checked_sub(span).unwrap_or(Timestamp::MIN)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
