//! The resources of the admin API.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ALLOW, AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use actix_web::middleware::{DefaultHeaders, Next, from_fn};
use actix_web::{
    App, Error, FromRequest, Handler, HttpResponse, Resource, Responder, ResponseError, Route,
    guard, web,
};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::auth::{self, Asked, SESSION, Token, Who};
use super::dto::{
    ActorAnswer, ActorsAnswer, CheckAnswer, EdgeAnswer, EventsQuery, HealthAnswer, HealthStatus,
    LedgerAnswer, NoQuery, ReadyAnswer, StatusAnswer,
};
use super::metrics::{self, Peaks};
use super::places::Shown;
use super::problem::{HEADERS, Problem};
use super::reads::Readers;
use super::session::{KEY_HEADER, Sessions, cookie};
use super::{bypass, dashboard, document, money, projects, rows, sse};
use crate::actors::meter::Meter;
use crate::actors::tree::View;
use crate::actors::{edge_monitor, health};
use crate::home::Home;
use crate::supervisor::Journal;
use crate::trust_store::Authority;

/// Streams of events at once; each one looks at the journal by itself.
const STREAMS: usize = 16;
/// The last events that can be asked for.
const EVENTS: usize = 1000;
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
    pub readers: Readers,
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
        .service(resource("/", [get(dashboard::get_file)]))
        .service(resource("/dashboard.css", [get(dashboard::get_file)]))
        .service(resource("/dashboard.js", [get(dashboard::get_file)]))
        .service(resource("/v1/login-codes", [post(dashboard::post_code)]))
        .service(resource(
            SESSION,
            [post(dashboard::post_session), delete(dashboard::delete_session)],
        ))
        .service(resource("/health", [get(get_health)]))
        .service(resource("/readyz", [get(get_ready)]))
        .service(resource("/metrics", [get(metrics::get_metrics)]))
        .service(resource("/openapi.json", [get(get_openapi)]))
        .service(resource("/v1/status", [get(get_status)]))
        .service(resource("/v1/actors", [get(get_actors)]))
        .service(resource("/v1/bypass", [get(bypass::get_bypass), delete(bypass::delete_bypass)]))
        .service(resource("/v1/requests", [get(rows::get_requests)]))
        .service(resource("/v1/projects", [get(projects::get_projects)]))
        .service(resource("/v1/stats", [get(rows::get_stats)]))
        .service(resource("/v1/coverage", [get(rows::get_coverage)]))
        .service(resource("/v1/pricing", [get(money::get_pricing), post(money::post_pricing)]))
        .service(resource("/v1/quotas", [get(money::get_quotas)]))
        .service(resource("/v1/budgets", [get(money::get_budgets)]))
        .service(resource("/v1/flush", [get(rows::get_flush)]))
        .service(resource("/v1/events", [get(get_events)]))
        .default_service(web::to(|| async { Err::<HttpResponse, _>(Problem::not_found()) }))
        .wrap(from_fn(judge))
        .wrap(HEADERS.into_iter().fold(DefaultHeaders::new(), DefaultHeaders::add))
}

/// A method's names, and what answers it.
type Answers = (&'static str, Route);

fn get<F, Args>(handler: F) -> Answers
where
    F: Handler<Args, Output: Responder>,
    Args: FromRequest + 'static,
{
    ("GET, HEAD", web::route().guard(guard::Any(guard::Get()).or(guard::Head())).to(handler))
}

fn post<F, Args>(handler: F) -> Answers
where
    F: Handler<Args, Output: Responder>,
    Args: FromRequest + 'static,
{
    ("POST", web::post().to(handler))
}

fn delete<F, Args>(handler: F) -> Answers
where
    F: Handler<Args, Output: Responder>,
    Args: FromRequest + 'static,
{
    ("DELETE", web::delete().to(handler))
}

/// Any other method is refused with the ones that there are.
fn resource<const N: usize>(path: &str, answers: [Answers; N]) -> Resource {
    let allow = answers.each_ref().map(|(names, _)| *names).join(", ");
    let refused = move || {
        let mut answer = Problem::method().error_response();
        let names = HeaderValue::from_str(&allow);
        if let Ok(names) = names {
            answer.headers_mut().insert(ALLOW, names);
        }
        ready(answer)
    };
    let resource = web::resource(path.to_owned()).default_service(web::to(refused));
    answers.into_iter().fold(resource, |resource, (_, route)| resource.route(route))
}

async fn judge(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let headers = request.headers();
    let api = request.app_data::<web::Data<Api>>();
    let session = api.zip(session(headers)).is_some_and(|(api, (cookie, key))| {
        api.sessions.knows(cookie, key, std::time::Instant::now())
    });
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
    )
)]
pub(super) async fn get_health(
    api: web::Data<Api>,
    request: actix_web::HttpRequest,
) -> HttpResponse {
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
    )
)]
pub(super) async fn get_ready(api: web::Data<Api>) -> HttpResponse {
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
pub(super) async fn get_openapi() -> HttpResponse {
    HttpResponse::Ok().json(document::openapi())
}

/// The daemon and the edge at a glance.
#[utoipa::path(
    get,
    path = "/v1/status",
    security(("token" = [])),
    responses(
        (status = 200, description = "how they are", body = StatusAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_status(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
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
        (status = 200, description = "the tree", body = ActorsAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_actors(api: web::Data<Api>, _: web::Query<NoQuery>) -> HttpResponse {
    let actors: Vec<ActorAnswer> = api.tree.observe().await;
    HttpResponse::Ok().json(ActorsAnswer { actors })
}

/// Supervision events as they happen (`text/event-stream`).
///
/// `id` is the id of the event; send the last one back as `Last-Event-ID` to go on behind it. Without
/// one the stream starts with the next event. With `last` it is no stream: the last events, and an end.
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
        (status = 400, description = "a parameter is wrong", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "too many streams", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_events(
    api: web::Data<Api>,
    request: actix_web::HttpRequest,
    query: web::Query<EventsQuery>,
) -> Result<HttpResponse, Problem> {
    let EventsQuery { after, last } = query.into_inner();
    if request.method() == Method::HEAD {
        return Ok(sse::head().finish());
    }
    if let Some(most) = last {
        if !(1..=EVENTS).contains(&most) || after.is_some() {
            return Err(Problem::bad_request(format!(
                "last: expected 1 to {EVENTS}, without after"
            )));
        }
        return Ok(sse::last(api.home.journal_file(), most).await);
    }
    let headers = request.headers();
    let last =
        only(headers, &HeaderName::from_static("last-event-id")).map(str::to_owned).or(after);
    let slot = sse::Slot::take(&api.streams, STREAMS)
        .ok_or_else(|| Problem::busy(format!("{STREAMS} streams are open")))?;
    Ok(sse::response(api.home.journal_file(), last, slot, may_listen(&api, headers)))
}

/// A stream lives no longer than the session that asked for it.
fn may_listen(api: &web::Data<Api>, headers: &HeaderMap) -> sse::May {
    if headers.contains_key(AUTHORIZATION) {
        return Box::new(|| true);
    }
    let (api, session) = (api.clone(), session(headers).map(|(a, b)| (a.to_owned(), b.to_owned())));
    Box::new(move || {
        let now = std::time::Instant::now();
        session.as_ref().is_some_and(|(cookie, key)| api.sessions.knows(cookie, key, now))
    })
}

/// Cookie and key.
fn session(headers: &HeaderMap) -> Option<(&str, &str)> {
    let cookie = only(headers, &COOKIE).and_then(cookie)?;
    Some((cookie, only(headers, &HeaderName::from_static(KEY_HEADER))?))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
