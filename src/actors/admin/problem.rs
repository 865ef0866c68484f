//! Errors of the admin API as RFC 9457 problem documents.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use utoipa::ToSchema;

/// Of every answer: nobody keeps it, nobody guesses what it is.
pub const HEADERS: [(&str, &str); 2] =
    [("cache-control", "no-store"), ("x-content-type-options", "nosniff")];

/// `application/problem+json`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: `urn:halton-meter:problem:…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The same for every problem of this kind.
    pub title: String,
    pub status: u16,
    /// What was wrong with this request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, kind: &str, title: &str) -> Self {
        Self {
            kind: format!("urn:halton-meter:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: None,
        }
    }

    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "the request can't be understood")
            .detail(detail)
    }

    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "a valid bearer token is needed")
            .detail("send the content of run/token as `Authorization: Bearer …`")
    }

    #[must_use]
    pub fn stale_code() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "stale-code", "no such code, or not any more")
            .detail("`halton-meter dashboard` gives a new one")
    }

    #[must_use]
    pub fn read_only() -> Self {
        Self::new(StatusCode::FORBIDDEN, "read-only", "a session can only read")
    }

    #[must_use]
    pub fn foreign_host() -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", "Host is not this machine")
    }

    #[must_use]
    pub fn foreign_origin() -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign-origin", "Origin is not this machine")
    }

    #[must_use]
    pub fn foreign_user() -> Self {
        Self::new(StatusCode::FORBIDDEN, "foreign-user", "the request is another user's")
    }

    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "there is no such resource")
    }

    #[must_use]
    pub fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method", "the resource has no such method")
    }

    #[must_use]
    pub fn timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the request did not come in time")
    }

    #[must_use]
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "at a limit").detail(detail)
    }

    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "a part of the meter is down")
            .detail(detail)
    }

    fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)
    }
}

impl std::error::Error for Problem {}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.status()
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status());
        response.insert_header((CONTENT_TYPE, "application/problem+json"));
        // The guard's refusals don't come by what adds these to every other answer.
        HEADERS.into_iter().for_each(|field| _ = response.insert_header(field));
        if self.status() == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_vec(self).unwrap_or_default())
    }
}
