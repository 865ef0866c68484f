//! One request and its response, put together from what a follower saw, into one ledger row.
//!
//! Sans-IO and without a clock: every moment is passed in. The caller makes them from one monotonic
//! source, so that a step of the wall clock can't make a duration negative.

use jiff::Timestamp;
use uuid::Uuid;

use super::http::{Cut, GaveUp, RequestHead, ResponseHead, Side};
use super::price::Book;
use super::row::{Billing, Completeness, Protocol, Row};
use super::usage::{Tokens, UsageState};

/// What is known before the first byte of the request is looked at.
#[derive(Clone, Debug)]
pub struct ExchangeStart {
    pub id: Uuid,
    pub at: Timestamp,
    pub host: String,
    pub port: u16,
    pub protocol: Protocol,
}

/// Follows one exchange. Feed it what the follower says, ask for its [`Row`] at any time: right after
/// [`Exchange::new`] that is the `open` row, after the end it is the final one, under the same id.
#[derive(Debug)]
pub struct Exchange {
    start: ExchangeStart,
    method: String,
    path: String,
    status: Option<u16>,
    responded_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    request_bytes: u64,
    response_bytes: u64,
    completeness: Completeness,
}

impl Exchange {
    #[must_use]
    pub fn new(start: ExchangeStart, head: &RequestHead) -> Self {
        Self {
            start,
            method: head.method.clone(),
            path: head.target.split(['?', '#']).next().unwrap_or_default().to_owned(),
            status: None,
            responded_at: None,
            ended_at: None,
            request_bytes: 0,
            response_bytes: 0,
            completeness: Completeness::Open,
        }
    }

    pub fn request_body(&mut self, data: &[u8]) {
        self.request_bytes = self.request_bytes.saturating_add(data.len() as u64);
    }

    pub fn request_end(&mut self) {}

    /// An interim (1xx) response.
    pub fn informational(&mut self, _status: u16) {}

    pub fn response(&mut self, head: &ResponseHead, at: Timestamp) {
        self.status = Some(head.status);
        self.responded_at = Some(at);
    }

    pub fn response_body(&mut self, data: &[u8], _at: Timestamp) {
        self.response_bytes = self.response_bytes.saturating_add(data.len() as u64);
    }

    pub fn response_end(&mut self, at: Timestamp) {
        self.end(Completeness::Complete, at);
    }

    /// The protocol changes (101, extended CONNECT). The row stays open until [`Exchange::cut`],
    /// [`Exchange::response_end`] or [`Exchange::lossy`]; what follows is counted, not read.
    pub fn upgraded(&mut self, _at: Timestamp) {
        self.start.protocol = Protocol::Ws;
    }

    /// Bytes of the protocol that was upgraded to.
    pub fn tunnelled(&mut self, side: Side, data: &[u8]) {
        match side {
            Side::Client => self.request_body(data),
            Side::Server => {
                self.response_bytes = self.response_bytes.saturating_add(data.len() as u64);
            }
        }
    }

    /// The exchange will not complete.
    pub fn cut(&mut self, _cut: Cut, at: Timestamp) {
        self.end(Completeness::Interrupted, at);
    }

    /// The follower lost the thread; the bytes themselves went through.
    pub fn lossy(&mut self, _why: GaveUp, at: Timestamp) {
        self.end(Completeness::Lossy, at);
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.completeness != Completeness::Open
    }

    /// The row as far as it is known. Attribution (project, client, cwd …) is the caller's to add.
    #[must_use]
    pub fn row(&self, _book: &Book) -> Row {
        Row {
            id: self.start.id,
            started_at: self.start.at,
            ended_at: self.ended_at,
            host: self.start.host.clone(),
            path: self.path.clone(),
            method: self.method.clone(),
            protocol: self.start.protocol,
            provider: self.start.host.clone(),
            surface: None,
            billable: false,
            model_requested: None,
            model: None,
            provider_request_id: None,
            stream: None,
            status: self.status,
            error_class: None,
            usage: UsageState::Absent,
            tokens: Tokens::default(),
            web_searches: None,
            tier: None,
            speed: None,
            geo: None,
            cost_nanousd: None,
            price_rule: None,
            cost_estimated: false,
            cost_reason: None,
            provider_cost_nanousd: None,
            billing: Billing::Metered,
            completeness: self.completeness,
            completeness_reason: None,
            ttfb_ms: None,
            duration_ms: None,
            request_bytes: Some(self.request_bytes),
            response_bytes: Some(self.response_bytes),
            project: None,
            project_source: None,
            client: None,
            client_pid: None,
            run: None,
            session: None,
            branch: None,
            cwd: None,
        }
    }

    fn end(&mut self, completeness: Completeness, at: Timestamp) {
        if self.completeness == Completeness::Open {
            self.completeness = completeness;
            self.ended_at = Some(at);
        }
    }
}
