//! The dashboard: three files in the program, and how a browser logs in. What it shows it reads from the
//! same resources as everybody else.

use std::time::Instant;

use actix_web::http::header::{COOKIE, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, web};

use super::dto::{LoginAnswer, LoginCodeAnswer, LoginRequest, NoQuery};
use super::problem::Problem;
use super::routes::{Api, Ends, only};
use super::session::{self, CODE_LIFE, SESSION_LIFE};
use crate::platform::owner;

/// The page and what it is made of, by path, with their types. Nothing in them is anybody's secret.
const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/dashboard.css", "text/css; charset=utf-8", include_str!("dashboard.css")),
    ("/dashboard.js", "text/javascript; charset=utf-8", include_str!("dashboard.js")),
];

/// Nothing from elsewhere, nothing inline, in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Whether this is a file that anybody on this machine may see.
#[must_use]
pub fn is_file(path: &str) -> bool {
    FILES.iter().any(|(known, ..)| *known == path)
}

/// Serves one of [`FILES`].
pub async fn get_file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let file = FILES.iter().find(|(path, ..)| *path == request.path());
    let (_, kind, content) = file.ok_or_else(Problem::not_found)?;
    Ok(HttpResponse::Ok()
        .insert_header(("content-type", *kind))
        .insert_header(("content-security-policy", POLICY))
        .insert_header(("referrer-policy", "no-referrer"))
        .insert_header(("x-frame-options", "DENY"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("cross-origin-resource-policy", "same-origin"))
        .body(*content))
}

/// A code that a browser exchanges for a session, once, within a minute.
#[utoipa::path(
    post,
    tag = "dashboard",
    path = "/v1/login-codes",
    security(("token" = [])),
    responses(
        (status = 200, description = "the code", body = LoginCodeAnswer),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn post_code(
    api: web::Data<Api>,
    _: web::Query<NoQuery>,
) -> Result<HttpResponse, Problem> {
    let code = api.sessions.code(Instant::now());
    let code = code.map_err(|e| Problem::unavailable(e.to_string()))?;
    let path = format!("/#login={code}");
    Ok(HttpResponse::Ok().json(LoginCodeAnswer { path, expires_in_s: CODE_LIFE.as_secs() }))
}

/// Begins a session that can read: the cookie comes with it, the key goes into `X-Halton-Key`.
#[utoipa::path(
    post,
    tag = "dashboard",
    path = "/v1/session",
    request_body = LoginRequest,
    responses(
        (status = 200, description = "the session", body = LoginAnswer),
        (status = 400, description = "the body can't be understood, or there is a parameter", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "no such code, or not any more", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "not asked by our own page, or by another user", body = Problem,
            content_type = "application/problem+json"),
        (status = 408, description = "the request did not come in time", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "no secret can be made now", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn post_session(
    api: web::Data<Api>,
    request: HttpRequest,
    _: web::Query<NoQuery>,
    login: web::Json<LoginRequest>,
) -> Result<HttpResponse, Problem> {
    let uid = request.conn_data::<Ends>().and_then(|ends| owner::uid(ends.peer, ends.local));
    if !may_log_in(uid, rustix::process::geteuid().as_raw()) {
        return Err(Problem::foreign_user());
    }
    let login = api.sessions.login(&login.code, Instant::now());
    let login = login.map_err(|e| Problem::unavailable(e.to_string()))?;
    let login = login.ok_or_else(Problem::stale_code)?;
    // It has served.
    let _ = std::fs::remove_file(api.home.login_page());
    Ok(HttpResponse::Ok()
        .insert_header((SET_COOKIE, session::set_cookie(Some(&login.cookie))))
        .json(LoginAnswer { key: login.key, expires_in_s: SESSION_LIFE.as_secs() }))
}

/// A code stands in the browser's command line, which every user can read. `None`: not told whose.
fn may_log_in(uid: Option<u32>, own: u32) -> bool {
    uid.is_none_or(|uid| uid == own || uid == 0)
}

/// Ends the session.
#[utoipa::path(
    delete,
    tag = "dashboard",
    path = "/v1/session",
    security(("session" = [], "key" = [])),
    responses(
        (status = 204, description = "ended"),
        (status = 400, description = "it has no parameters", body = Problem,
            content_type = "application/problem+json"),
    )
)]
pub(super) async fn delete_session(
    api: web::Data<Api>,
    request: HttpRequest,
    _: web::Query<NoQuery>,
) -> HttpResponse {
    if let Some(cookie) = only(request.headers(), &COOKIE).and_then(session::cookie) {
        api.sessions.logout(cookie, Instant::now());
    }
    HttpResponse::NoContent().insert_header((SET_COOKIE, session::set_cookie(None))).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_with_the_code_stays_out() {
        for (uid, may) in [(Some(1000), true), (Some(0), true), (None, true), (Some(1001), false)] {
            assert_eq!(may_log_in(uid, 1000), may, "{uid:?}");
        }
        assert!(!may_log_in(Some(1000), 0));
    }
}
