//! What holds of the answers of every resource.

use super::super::problem::HEADERS;
use super::*;

/// Method, path and the value of this field in the answer.
async fn field_of(bench: &Bench, method: Method, path: &str, field: &str) -> (StatusCode, String) {
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let request = bench.authorized(path).method(method).to_request();
    let response = app.call(request).await.unwrap();
    let value = response.headers().get(field).map(|v| v.to_str().unwrap().to_owned());
    (response.status(), value.unwrap_or_default())
}

#[actix_web::test]
async fn what_can_be_got_can_be_asked_for_by_its_head_and_no_other_way() {
    let bench = bench();
    for path in ["/", "/metrics", "/openapi.json", "/v1/status", "/v1/requests", "/v1/events"] {
        let (status, _) = field_of(&bench, Method::HEAD, path, "content-type").await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    for (method, path, allow) in [
        (Method::POST, "/v1/status", "GET, HEAD"),
        (Method::PUT, "/v1/bypass", "GET, HEAD, DELETE"),
        (Method::GET, "/v1/login-codes", "POST"),
        (Method::GET, "/v1/session", "POST, DELETE"),
    ] {
        let told = field_of(&bench, method, path, "allow").await;
        assert_eq!(told, (StatusCode::METHOD_NOT_ALLOWED, allow.to_owned()), "{path}");
    }
}

#[actix_web::test]
async fn nobody_keeps_an_answer_nor_a_refusal() {
    let bench = bench();
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    for request in [bench.authorized("/v1/status"), get("/v1/status"), TestRequest::get().uri("/")]
    {
        let response = match app.call(request.to_request()).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(e) => e.error_response(),
        };
        for (name, value) in HEADERS {
            assert_eq!(response.headers().get(name).unwrap(), value, "{}", response.status());
        }
    }
}

#[actix_web::test]
async fn the_last_events_come_without_a_stream() {
    let bench = bench();
    let mut journal = open_append(&bench.api.home.journal_file()).unwrap();
    for seq in 1..=5 {
        let line = serde_json::json!({
            "seq": seq, "at": "2026-11-01T00:00:00Z", "process": "daemon", "instance": "i", "event": "ready",
        });
        writeln!(journal, "{line}").unwrap();
    }
    let app = test::init_service(routes::app(Arc::clone(&bench.api))).await;
    let request = bench.authorized("/v1/events?last=2").to_request();
    let body = test::read_body(app.call(request).await.unwrap()).await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    let ids: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["i:4", "i:5"]);
    for wrong in ["last=0", "last=1001", "last=1&after=0"] {
        let (status, _, _) = bench.ask(bench.authorized(&format!("/v1/events?{wrong}"))).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}
