//! The resources of the admin API.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::{App, Error, HttpResponse, Resource, Route, web};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};
use utoipa::OpenApi;
use uuid::Uuid;

use super::auth::{self, Asked, SESSION, Token, Who};
use super::dto::{
    ActorAnswer, ActorsAnswer, CheckAnswer, EdgeAnswer, EventsQuery, HealthAnswer, HealthStatus,
    LedgerAnswer, NoQuery, ReadyAnswer, StatusAnswer,
};
use super::metrics::{self, Peaks};
use super::places::Shown;
use super::problem::Problem;
use super::session::{COOKIE as COOKIE_NAME, KEY_HEADER, Sessions, cookie};
use super::{bypass, dashboard, money, projects, rows, sse};
use crate::actors::meter::Meter;
use crate::actors::tree::View;
use crate::actors::{edge_monitor, health};
use crate::home::Home;
use crate::supervisor::Journal;
use crate::trust_store::Authority;

/// Streams of events at once; each one looks at the journal by itself.
const STREAMS: usize = 16;
/// The longest body that is read.
const BODY: usize = 4096;

/// For a whole request of somebody whom we don't know, from its first byte; and for its answer's head.
pub(super) const REQUEST: Duration = Duration::from_secs(5);

/// Where a request's connection begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
}

/// What the handlers know. One for all workers and all generations of the actor.
#[derive(Debug)]
pub struct Api {
    pub instance: Uuid,
    pub home: Home,
    pub token: Token,
    pub sessions: Sessions,
    pub peaks: Peaks,
    pub health: health::Board,
    pub edge: edge_monitor::Board,
    pub meter: Meter,
    pub tree: View,
    pub started_at: Timestamp,
    pub born: Instant,
    pub config_problems: Arc<arc_swap::ArcSwap<Vec<String>>>,
    pub port: AtomicU16,
    pub streams: Arc<AtomicUsize>,
    /// How many requests were answered.
    pub answered: AtomicU64,
    pub journal: Journal,
}

impl Api {
    /// The port that `Host` and `Origin` may name.
    pub fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    /// With the status to answer with. `known`: without a look.
    pub async fn asked_health(&self, known: bool) -> (StatusCode, HealthAnswer) {
        let checks = if known { self.health.known() } else { self.health.renewed().await };
        let (answer, _) = self.health(&checks);
        match answer.status {
            HealthStatus::Ok => (StatusCode::OK, answer),
            HealthStatus::Degraded => (StatusCode::SERVICE_UNAVAILABLE, answer),
        }
    }

    pub(super) fn health(&self, checks: &[health::Check]) -> (HealthAnswer, Vec<CheckAnswer>) {
        let reasons = health::reasons(checks);
        let status = if reasons.is_empty() { HealthStatus::Ok } else { HealthStatus::Degraded };
        let answer = HealthAnswer {
            status,
            process: "daemon",
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            instance: self.instance.to_string(),
            reasons,
            draining: checks.iter().any(health::Check::is_end),
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
        .app_data(
            web::JsonConfig::default()
                .limit(BODY)
                .error_handler(|e, _| Problem::bad_request(e.to_string()).into()),
        )
        .service(resource("/", web::get().to(dashboard::get_file)))
        .service(resource("/dashboard.css", web::get().to(dashboard::get_file)))
        .service(resource("/dashboard.js", web::get().to(dashboard::get_file)))
        .service(resource("/v1/login-codes", web::post().to(dashboard::post_code)))
        .service(
            resource(SESSION, web::post().to(dashboard::post_session))
                .route(web::delete().to(dashboard::delete_session)),
        )
        .service(resource("/health", web::get().to(get_health)))
        .service(resource("/readyz", web::get().to(get_ready)))
        .service(resource("/metrics", web::get().to(metrics::get_metrics)))
        .service(resource("/openapi.json", web::get().to(get_openapi)))
        .service(resource("/v1/status", web::get().to(get_status)))
        .service(resource("/v1/actors", web::get().to(get_actors)))
        .service(
            resource("/v1/bypass", web::get().to(bypass::get_bypass))
                .route(web::delete().to(bypass::delete_bypass)),
        )
        .service(resource("/v1/requests", web::get().to(rows::get_requests)))
        .service(resource("/v1/projects", web::get().to(projects::get_projects)))
        .service(resource("/v1/stats", web::get().to(rows::get_stats)))
        .service(resource("/v1/coverage", web::get().to(rows::get_coverage)))
        .service(
            resource("/v1/pricing", web::get().to(money::get_pricing))
                .route(web::post().to(money::post_pricing)),
        )
        .service(resource("/v1/quotas", web::get().to(money::get_quotas)))
        .service(resource("/v1/budgets", web::get().to(money::get_budgets)))
        .service(resource("/v1/flush", web::get().to(rows::get_flush)))
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
        description = "Loopback only. Everything but /health needs the bearer token of run/token; for what only \
                       reads, cookie and key of a dashboard's session will do. \
                       Errors are RFC 9457 problem documents.",
        license(name = "Apache-2.0")
    ),
    paths(
        get_health, get_ready, metrics::get_metrics, get_openapi, get_status, get_actors, rows::get_requests,
        rows::get_stats, rows::get_coverage, rows::get_flush, get_events, bypass::get_bypass,
        bypass::delete_bypass, money::get_pricing, money::post_pricing, money::get_quotas, money::get_budgets,
        projects::get_projects,
        dashboard::post_code, dashboard::post_session, dashboard::delete_session
    ),
    components(schemas(Problem)),
    modifiers(&Bearer)
)]
struct Document;

struct Bearer;

impl utoipa::Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::security::{
            ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme,
        };
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        let cookie = ApiKey::Cookie(ApiKeyValue::new(COOKIE_NAME));
        components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
        let key = ApiKey::Header(ApiKeyValue::new(KEY_HEADER));
        components.add_security_scheme("key", SecurityScheme::ApiKey(key));
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
    let api = request.app_data::<web::Data<Api>>();
    let cookie = only(headers, &COOKIE).and_then(cookie);
    let key = only(headers, &HeaderName::from_static(KEY_HEADER));
    let session = match (api, cookie, key) {
        (Some(api), Some(cookie), Some(key)) => {
            api.sessions.knows(cookie, key, std::time::Instant::now())
        }
        (_, _, _) => false,
    };
    let asked = Asked {
        session,
        method: request.method().as_str(),
        path: request.path(),
        host: only(headers, &HOST),
        // A field that is there but can't be read is as foreign as can be.
        origin: headers.contains_key(ORIGIN).then(|| only(headers, &ORIGIN).unwrap_or("null")),
        authorization: only(headers, &AUTHORIZATION),
    };
    let verdict = match api {
        Some(api) => auth::judge(asked, &api.token, api.port.load(Ordering::Relaxed)),
        None => Err(Problem::unavailable("starting")),
    };
    let api = api.cloned();
    let answer = match verdict? {
        Who::Anybody => match timeout(REQUEST, next.call(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(Problem::timeout().into()),
        },
        Who::User => {
            if let Some(shown) = request.conn_data::<Shown>() {
                shown.is_user();
            }
            next.call(request).await
        }
    };
    api.inspect(|api| _ = api.answered.fetch_add(1, Ordering::Relaxed));
    answer
}

/// The value of a field that comes exactly once.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name);
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

/// Whether connections are metered right now, as was found within the last half second. With the query
/// `known` it is what was found last: enough to see that there is a daemon.
#[utoipa::path(
    get,
    path = "/health",
    params(("known" = Option<String>, Query, description = "without a look")),
    responses(
        (status = 200, description = "connections are metered", body = HealthAnswer),
        (status = 503, description = "connections pass raw; see `reasons`", body = HealthAnswer),
        (status = 421, description = "Host is not this machine", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_health(api: web::Data<Api>, request: actix_web::HttpRequest) -> HttpResponse {
    let (status, answer) = api.asked_health(request.query_string() == "known").await;
    HttpResponse::build(status).json(answer)
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
    let (answer, checks) = api.health(&api.health.renewed().await);
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
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_status(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
    let (checks, edge) = tokio::join!(api.health.renewed(), api.edge.renewed());
    let (health, checks) = api.health(&checks);
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
        authority: api.meter.tap().map(|tap| {
            let file = Default::default();
            Authority { file, certificate: tap.authority() }.fingerprint()
        }),
        bypass: bypass::entries(&api),
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
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "no valid token", body = Problem,
            content_type = "application/problem+json"),
    )
)]
async fn get_actors(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
    let actors: Vec<ActorAnswer> = api.tree.observe().await;
    HttpResponse::Ok().json(ActorsAnswer { actors })
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
