//! A response on a WebSocket: an exchange whose request and answer are messages.

use jiff::Timestamp;
use uuid::Uuid;

use super::headers::Tiers;
use super::request::short;
use super::response::Response;
use super::{Completeness, Exchange, ExchangeStart};
use crate::meter::bodies::{Capture, MARGIN};
use crate::meter::surface::scan::Found;
use crate::meter::surface::{Kind, Route};
use crate::meter::usage::Tokens;

impl Exchange {
    /// A response of its own on the WebSocket that this exchange opened.
    pub(super) fn turn(&self, id: Uuid, at: Timestamp, kind: Kind) -> Self {
        Self {
            start: ExchangeStart { id, at, ..self.start.clone() },
            method: self.method.clone(),
            path: self.path.clone(),
            route: Route {
                kind: Some(kind),
                billable: true,
                stream: Some(true),
                // The session's, unless a message says otherwise.
                model: None,
                ..self.route.clone()
            },
            subscription: self.subscription,
            client: self.client.clone(),
            request: self.request.for_message(),
            response: Response::new(Some(kind)),
            status: self.status,
            // The handshake's; what comes in a response of its own is better.
            request_id: None,
            tiers: Tiers::default(),
            header_tokens: Tokens::default(),
            quota: Vec::new(),
            account: self.account.clone(),
            responded_at: None,
            // It is on one, and asks for none.
            websocket: false,
            tunnel: None,
            extensions: None,
            ended_at: None,
            completeness: Completeness::Open,
            reason: None,
            cut: None,
            capture: self.capture.as_ref().map(Capture::another),
        }
    }

    /// The message that asks for it. `model` is meant when it names none, `answering` when the
    /// response names none.
    pub(super) fn ask(
        &mut self,
        message: Option<&Found>,
        bytes: u64,
        model: Option<&str>,
        answering: Option<&str>,
    ) {
        self.response.model = answering.map(str::to_owned);
        if let Some(model) = model.or(answering) {
            self.response.asked(model);
        }
        if let Some(message) = message {
            self.request.message(message);
        }
        self.request.bytes = bytes;
        if self.request.model.is_none() {
            self.request.model = model.and_then(short);
        }
    }

    /// How much of a message is to be held.
    pub(super) fn holds(&self) -> usize {
        self.capture.as_ref().map_or(0, |capture| capture.cap().saturating_add(MARGIN))
    }

    /// The text of the message that asks; `bytes` long.
    pub(super) fn hold_request(&mut self, text: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.request(text);
            capture.request.whole = true;
        }
    }

    /// … and of one about it: a line each.
    pub(super) fn hold_response(&mut self, text: &[u8]) {
        if let Some(capture) = &mut self.capture {
            capture.response(text);
            capture.response(b"\n");
        }
    }

    /// A message about it came.
    pub(super) fn hear(&mut self, bytes: u64, at: Timestamp) {
        self.responded_at = self.responded_at.or(Some(at));
        self.response.bytes = self.response.bytes.saturating_add(bytes);
    }

    /// … and is one that the reader should see.
    pub(super) fn message(&mut self, message: &Found, status: Option<u16>) {
        self.status = status.or(self.status);
        self.response.message(message);
    }

    pub(super) fn unfollowable(&mut self, why: &str, at: Timestamp) {
        if !self.is_finished() {
            self.end(Completeness::Lossy, Some(why), at);
        }
    }
}
