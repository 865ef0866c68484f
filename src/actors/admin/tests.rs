//! The admin API from outside, in process.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Service, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::test::{self, TestRequest};
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::auth::Token;
use super::document;
use super::routes::{self, Api};
use crate::actors::health::{Board, Check};
use crate::actors::meter::Meter;
use crate::home::open_append;
use crate::meter::bodies::Keeper;
use crate::meter::ledger::{Register, Writer, WriterConfig, fixture, start_writer};
use crate::meter::price::Book;
use crate::meter::row::Row;
use crate::supervisor::Journal;

mod answers;

pub(super) struct Bench {
    pub(super) api: Arc<Api>,
    _writer: Writer,
    _dir: TempDir,
}

pub(super) fn bench() -> Bench {
    let (dir, home) = fixture::home();
    let (intake, writer) = start_writer(WriterConfig::new(&home, crate::log::silent())).unwrap();
    let api = Arc::new(Api {
        instance: Uuid::new_v4(),
        token: Token::load_or_create(&home).unwrap(),
        sessions: Default::default(),
        peaks: Default::default(),
        home,
        health: Board::default(),
        edge: Default::default(),
        meter: Meter::new(intake, Register::none(), Keeper::none()),
        tree: Default::default(),
        started_at: Timestamp::now(),
        born: Instant::now(),
        config_problems: Arc::default(),
        port: AtomicU16::new(8765),
        streams: Arc::new(AtomicUsize::new(0)),
        readers: Default::default(),
        answered: AtomicU64::new(0),
        journal: Journal::disabled(),
    });
    Bench { api, _writer: writer, _dir: dir }
}

fn get(path: &str) -> TestRequest {
    TestRequest::get().uri(path).insert_header(("host", "127.0.0.1:8765"))
}

impl Bench {
    fn authorized(&self, path: &str) -> TestRequest {
        get(path).insert_header(("authorization", format!("Bearer {}", self.api.token.reveal())))
    }

    /// Status, content type, JSON body.
    async fn ask(&self, request: TestRequest) -> (StatusCode, String, Value) {
        let app = test::init_service(routes::app(Arc::clone(&self.api))).await;
        // Errors of the guard come as `Err`, which the server would turn into a response.
        let response: ServiceResponse<_> = match app.call(request.to_request()).await {
            Ok(response) => response.map_into_boxed_body(),
            Err(e) => {
                let response = e.error_response();
                ServiceResponse::new(TestRequest::default().to_http_request(), response)
            }
        };
        let status = response.status();
        let kind = response
            .headers()
            .get("content-type")
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let body = test::read_body(response).await;
        (status, kind, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

fn row(n: u128, billable: bool) -> Row {
    let row = fixture::row(n, &format!("2026-11-01T00:00:{n:02}Z"));
    Row { billable, model: Some(format!("m{n}")), ..row }
}

#[actix_web::test]
async fn health_needs_no_token_and_says_why_it_is_degraded() {
    let bench = bench();
    let (status, _, body) = bench.ask(get("/health")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["status"], "degraded");
    assert_eq!(body["reasons"][0], "health: nothing is known yet");

    bench.api.health.publish(vec![Check { name: "tap", fault: None }], Instant::now());
    let (status, _, body) = bench.ask(get("/health")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["status"], "ok");
    assert_eq!(body["process"], "daemon");
    assert_eq!(body["pid"], std::process::id());
    assert_eq!(body["instance"], bench.api.instance.to_string());
    assert!(body["reasons"].as_array().unwrap().is_empty());
    assert_eq!(body["draining"], false);

    bench.api.health.publish(vec![Check { name: "draining", fault: None }], Instant::now());
    bench.api.health.drain();
    let (_, _, body) = bench.ask(get("/health")).await;
    assert_eq!((&body["status"], &body["draining"]), (&"degraded".into(), &true.into()));

    let fault = Some("refused".to_owned());
    bench.api.health.publish(vec![Check { name: "tap", fault }], Instant::now());
    let (status, _, body) = bench.ask(bench.authorized("/readyz")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["ready"], false);
    assert_eq!(body["checks"][0]["fault"], "refused");
}

#[actix_web::test]
async fn money_is_told_as_the_commands_tell_it() {
    let bench = bench();
    bench.api.meter.publish_book(Book::builtin());
    let (status, _, body) = bench.ask(bench.authorized("/v1/pricing")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body["prices"].as_array().unwrap().len() > 500);
    // Nobody is there to take others over.
    let (status, _, body) = bench.ask(bench.authorized("/v1/pricing").method(Method::POST)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    for (path, list) in [("/v1/quotas", "quotas"), ("/v1/budgets", "budgets")] {
        let (status, _, body) = bench.ask(bench.authorized(path)).await;
        assert_eq!((status, body[list].as_array().unwrap().len()), (StatusCode::OK, 0), "{path}");
    }
    fs::write(bench.api.home.budgets_file(), "[[budget]]\nname = 1\n").unwrap();
    let (status, _, body) = bench.ask(bench.authorized("/v1/budgets")).await;
    assert_eq!((status, body["budgets"].as_array().unwrap().len()), (StatusCode::OK, 0));
    assert!(body["problem"].as_str().unwrap().contains("budgets.toml:2: "), "{body}");
}

#[actix_web::test]
async fn a_browser_logs_in_reads_and_logs_out() {
    let bench = bench();
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let request = bench.authorized("/v1/login-codes").method(Method::POST);
    let (status, _, code) = bench.ask(request).await;
    assert_eq!((status, code["expires_in_s"].as_u64()), (StatusCode::OK, Some(60)), "{code}");
    let code = code["path"].as_str().unwrap().strip_prefix("/#login=").unwrap().to_owned();
    let login = |code: &str| {
        TestRequest::post()
            .uri("/v1/session")
            .insert_header(("host", "127.0.0.1:8765"))
            .insert_header(("origin", "http://127.0.0.1:8765"))
            .set_json(serde_json::json!({ "code": code }))
    };
    let (status, _, body) = bench.ask(login("nonsense")).await;
    assert_eq!(
        (status, &body["type"]),
        (StatusCode::UNAUTHORIZED, &"urn:halton-meter:problem:stale-code".into())
    );
    let page = bench.api.home.login_page();
    fs::write(&page, &code).unwrap();
    let response = app.call(login(&code).to_request()).await.unwrap();
    assert!(!page.exists(), "with the code in it");
    let cookie = response.headers().get("set-cookie").unwrap().to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let body: Value = test::read_body_json(response).await;
    let key = body["key"].as_str().unwrap().to_owned();
    assert_eq!(bench.ask(login(&code)).await.0, StatusCode::UNAUTHORIZED, "a second time");

    let with = |request: TestRequest, cookie: &str, key: &str| {
        request.insert_header(("cookie", cookie)).insert_header(("x-halton-key", key))
    };
    assert_eq!(bench.ask(with(get("/v1/status"), &cookie, &key)).await.0, StatusCode::OK);
    // A page of another port has the cookie and not the key.
    assert_eq!(bench.ask(with(get("/v1/status"), &cookie, "")).await.0, StatusCode::UNAUTHORIZED);
    let delete = |path: &str| get(path).method(Method::DELETE);
    let (status, _, _) = bench.ask(with(delete("/v1/bypass"), &cookie, &key)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let (status, _, _) = bench.ask(with(delete("/v1/session"), &cookie, &key)).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _, _) = bench.ask(with(get("/v1/status"), &cookie, &key)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn the_page_is_small_and_makes_no_markup() {
    let bench = bench();
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let mut size = 0;
    for path in ["/", "/dashboard.css", "/dashboard.js"] {
        let response = app.call(get(path).to_request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers().get("content-security-policy").unwrap().to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let text = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        size += text.len();
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "document.write",
            "eval(",
            "http:",
            "https:",
            "style=",
            "onclick",
        ] {
            assert!(!text.contains(way), "{path}: {way}");
        }
    }
    assert!(size < 60 * 1024, "{size}");
}

#[actix_web::test]
async fn refusals_are_problem_documents() {
    let bench = bench();
    let auth = format!("Bearer {}", bench.api.token.reveal());
    let table = [
        (get("/v1/status"), 401, "unauthorized"),
        (get("/v1/nothing"), 401, "unauthorized"),
        (get("/metrics"), 401, "unauthorized"),
        (bench.authorized("/metrics").method(Method::POST), 405, "method"),
        (bench.authorized("/v1/nothing"), 404, "not-found"),
        (TestRequest::post().uri("/health").insert_header(("host", "localhost")), 405, "method"),
        (TestRequest::get().uri("/health"), 421, "foreign-host"),
        (
            TestRequest::get().uri("/health").insert_header(("host", "evil.example")),
            421,
            "foreign-host",
        ),
        (get("/health").append_header(("host", "evil.example")), 421, "foreign-host"),
        (
            bench.authorized("/v1/status").insert_header(("origin", "https://evil.example")),
            403,
            "foreign-origin",
        ),
        (
            get("/v1/status")
                .append_header(("authorization", "Bearer x"))
                .append_header(("authorization", auth)),
            401,
            "unauthorized",
        ),
        (
            TestRequest::delete().uri("/v1/bypass").insert_header(("host", "localhost")),
            401,
            "unauthorized",
        ),
        (bench.authorized("/v1/bypass").method(Method::DELETE), 503, "unavailable"),
        (bench.authorized("/v1/bypass").method(Method::POST), 405, "method"),
        (bench.authorized("/v1/status").method(Method::DELETE), 405, "method"),
        (
            bench
                .authorized("/v1/bypass")
                .method(Method::DELETE)
                .insert_header(("origin", "https://evil.example")),
            403,
            "foreign-origin",
        ),
        (bench.authorized("/v1/requests?limit=0"), 400, "bad-request"),
        (bench.authorized("/v1/requests?limit=x"), 400, "bad-request"),
        (bench.authorized("/v1/requests?cursor=nonsense"), 400, "bad-request"),
        (bench.authorized("/v1/requests?since=yesterday"), 400, "bad-request"),
        (bench.authorized("/v1/requests?sinse=1d"), 400, "bad-request"),
        (bench.authorized("/v1/stats?by=mood"), 400, "bad-request"),
        (bench.authorized("/v1/requests?since=1d&until=2d"), 400, "bad-request"),
        (bench.authorized("/v1/stats?since=1d&until=2d"), 400, "bad-request"),
        (bench.authorized("/v1/coverage?since=2999-01-01T00:00:00Z"), 400, "bad-request"),
    ];
    for (i, (request, want, kind)) in table.into_iter().enumerate() {
        let (status, content_type, body) = bench.ask(request).await;
        assert_eq!(status, want, "{i} {body}");
        assert_eq!(content_type, "application/problem+json", "{i}");
        assert_eq!(body["type"], format!("urn:halton-meter:problem:{kind}"), "{i}");
        assert_eq!(body["status"], want, "{i}");
        assert!(body["title"].is_string(), "{i}");
    }
}

#[actix_web::test]
async fn a_parameter_that_does_not_exist_is_refused_by_all_of_v1() {
    let bench = bench();
    let document = serde_json::to_value(document::openapi()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method: Method = method.to_ascii_uppercase().parse().unwrap();
            let request = bench
                .authorized(&format!("{path}?sinse=7d"))
                .insert_header(("origin", "http://127.0.0.1:8765"))
                .method(method.clone());
            let (status, _, body) = bench.ask(request).await;
            let refused = status == StatusCode::BAD_REQUEST
                && body["detail"].as_str().unwrap_or_default().contains("sinse");
            assert_eq!(refused, path.starts_with("/v1/"), "{method} {path}: {status} {body}");
        }
    }
}

#[actix_web::test]
async fn requests_come_newest_first_in_pages_that_fit_together() {
    let bench = bench();
    let intake = bench.api.meter.intake();
    for n in 0..5 {
        intake.record(row(n, true));
    }
    intake.record(row(9, false));
    assert!(intake.flush(std::time::Instant::now() + Duration::from_secs(10)));

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/requests?limit=2{cursor}");
        let (status, _, body) = bench.ask(bench.authorized(&path)).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        seen.extend(body["requests"].as_array().unwrap().clone());
        match body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let models: Vec<_> = seen.iter().map(|r| r["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["m4", "m3", "m2", "m1", "m0"]);
    assert_eq!(seen[0]["cost_nanousd"], 12_300_000);
    assert_eq!(seen[0]["cost_usd"], "0.0123");
    assert_eq!(seen[0]["tokens"]["input"], 100);
    assert_eq!(seen[0]["tokens"]["cache_read"], Value::Null);

    let (_, _, all) = bench.ask(bench.authorized("/v1/requests?all=true")).await;
    assert_eq!(all["requests"].as_array().unwrap().len(), 6);
    let (_, _, stats) =
        bench.ask(bench.authorized("/v1/stats?since=2026-01-01T00:00:00Z&by=model")).await;
    assert_eq!(stats["summary"]["requests"], 5, "{stats}");
    let (_, _, status) = bench.ask(bench.authorized("/v1/status")).await;
    assert_eq!(status["ledger"]["queued"], 0);
    assert_eq!(status["ledger"]["lost"], 0);
}

#[actix_web::test]
async fn metrics_go_up_with_each_request() {
    let bench = bench();
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let requests = async || {
        let response = app.call(bench.authorized("/metrics").to_request()).await.unwrap();
        let kind = response.headers().get("content-type").unwrap().to_str().unwrap();
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        let text = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        let sample = "halton_meter_requests_total{provider=\"anthropic\"} ";
        text.lines().find_map(|line| line.strip_prefix(sample)?.parse::<u64>().ok())
    };
    assert_eq!(requests().await, None);
    for n in 1..=2 {
        let now = Timestamp::now();
        bench.api.meter.intake().record(Row { started_at: now, ..row(n, true) });
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        assert!(bench.api.meter.intake().flush(deadline));
        assert_eq!(requests().await, Some(n as u64));
    }
}

#[actix_web::test]
async fn metrics_leave_out_what_a_clock_that_was_ahead_has_dated() {
    let bench = bench();
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let record = |n, started_at| {
        bench.api.meter.intake().record(Row { started_at, ..row(n, true) });
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        assert!(bench.api.meter.intake().flush(deadline));
    };
    let samples = async || {
        let response = app.call(bench.authorized("/metrics").to_request()).await.unwrap();
        let text = String::from_utf8(test::read_body(response).await.to_vec()).unwrap();
        let sample = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.split(' ').nth(1));
            value.unwrap().to_owned()
        };
        let names = ["requests_total", "tokens_total", "cost_dollars_total"];
        names.map(|name| sample(&format!("halton_meter_{name}{{provider=\"anthropic\"")))
    };
    let tomorrow = Timestamp::now() + jiff::SignedDuration::from_hours(24);
    record(1, tomorrow);
    assert_eq!(samples().await, ["0", "0", "0.00"]);
    record(2, Timestamp::now());
    assert_eq!(samples().await, ["1", "100", "0.0123"]);
    // The daemon's own clock runs ahead now.
    record(3, tomorrow);
    assert_eq!(samples().await, ["2", "200", "0.0246"]);
}

#[actix_web::test]
async fn events_resume_and_go_on() {
    let bench = bench();
    let journal = bench.api.home.journal_file();
    let append = |path: &Path, seq: u64| {
        let line = serde_json::json!({
            "seq": seq, "at": "2026-11-01T00:00:00Z", "process": "daemon", "instance": "i",
            "event": "child_ready", "child": "tap",
        });
        writeln!(open_append(path).unwrap(), "{line}").unwrap();
    };
    append(&journal, 1);
    append(&journal, 2);
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let request = bench.authorized("/v1/events").insert_header(("last-event-id", "i:1"));
    let response = app.call(request.to_request()).await.unwrap();
    assert_eq!(response.headers().get("content-type").unwrap(), "text/event-stream");
    let mut body = Box::pin(response.into_body());
    let mut text = String::new();
    let mut more = async |until: &str| {
        while !text.contains(until) {
            let chunk = std::future::poll_fn(|cx| body.as_mut().poll_next(cx)).await;
            text.push_str(std::str::from_utf8(&chunk.unwrap().ok().unwrap()).unwrap());
        }
        text.clone()
    };
    let first = more("id: i:2\n").await;
    assert!(first.starts_with("retry: "), "{first}");
    assert!(!first.contains("id: i:1\n"), "{first}");
    assert!(first.contains("event: child_ready\ndata: {\"seq\":2"), "{first}");
    append(&journal, 3);
    more("id: i:3\n").await;
}

#[::core::prelude::v1::test]
fn the_document_is_the_committed_one() {
    let mut now = document::openapi().to_pretty_json().unwrap();
    now.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == now, "docs/openapi.json is out of date: run with UPDATE_SNAPSHOTS=1");
}
