//! One request and its response, put together from what a follower saw, into one ledger row.
//!
//! Sans-IO and without a clock: every moment is passed in. The caller makes them from one monotonic
//! source, so that a step of the wall clock can't make a duration negative.

use jiff::Timestamp;
use uuid::Uuid;

use self::headers::{REQUEST_IDS, Tiers, bedrock_tokens};
use self::messages::Messages;
use self::request::{
    Asks, Request, asks_for_websocket, client, kept_path, model_of_query, of_subscriber, path,
    short,
};
use self::response::Response;
pub use self::told::Told;
use self::tunnel::Tunnel;
use super::account;
use super::bodies::Capture;
use super::http::{Cut, GaveUp, Headers, RequestHead, ResponseHead, Side};
use super::quota;
use super::row::{Completeness, Protocol};
use super::surface::{self, Kind, Route};
use super::usage::Tokens;
use super::websocket::Extensions;

mod agent;
mod bodies;
mod headers;
mod messages;
mod request;
mod response;
mod row;
#[cfg(test)]
pub(crate) mod tests;
mod told;
mod tunnel;
mod turn;
pub mod turns;

/// What is known before the first byte of the request is looked at.
#[derive(Clone, Debug)]
pub struct ExchangeStart {
    pub id: Uuid,
    pub at: Timestamp,
    pub host: String,
    pub port: u16,
    /// The models behind it are the user's own.
    pub local: bool,
    pub protocol: Protocol,
}

/// Follows one exchange. Feed it what the follower says, ask for its [`Row`](super::row::Row) at any time: right after
/// [`Exchange::new`] that is the `open` row, after the end it is the final one, under the same id.
///
/// Once it is finished, further calls only count bytes.
#[derive(Debug)]
pub struct Exchange {
    start: ExchangeStart,
    method: String,
    path: String,
    route: Route,
    subscription: bool,
    client: Option<String>,
    request: Request,
    response: Response,
    status: Option<u16>,
    /// The provider's id of the request, as a header.
    request_id: Option<String>,
    /// The tier by a header: of the response, else what the request asks for.
    tiers: Tiers,
    /// Tokens that only headers tell.
    header_tokens: Tokens,
    quota: Vec<quota::Window>,
    /// Whose limits they are.
    account: Option<String>,
    responded_at: Option<Timestamp>,
    /// It asks for a WebSocket.
    websocket: bool,
    /// The protocol has changed.
    tunnel: Option<Tunnel>,
    /// What the response says of a WebSocket's extensions; `None`: nothing that is known.
    extensions: Option<Extensions>,
    ended_at: Option<Timestamp>,
    completeness: Completeness,
    reason: Option<String>,
    /// Who ended it before its time.
    cut: Option<&'static str>,
    /// The bodies, for who wants them kept.
    capture: Option<Capture>,
}

impl Exchange {
    #[must_use]
    pub fn new(start: ExchangeStart, head: &RequestHead) -> Self {
        let path = path(&head.target);
        let headers = &head.headers;
        let upgrade = asks_for_websocket(head);
        let mut route = surface::route(&start.host, start.local, &head.method, path, upgrade);
        if upgrade && route.model.is_none() {
            route.model = model_of_query(&head.target);
        }
        let mut request = Request::new(head);
        let mut response = Response::new(route.kind);
        if let Some(model) = &route.model {
            response.asked(model);
        }
        if let Some(messages) = Messages::of(&route, path) {
            response.read_messages(messages);
            request.read_messages(messages, path);
        }
        if path.ends_with("/audio/speech") {
            request.count(Asks::Speech);
        } else if route.kind == Some(Kind::Images) {
            request.count(Asks::Images);
        }
        Self {
            method: head.method.clone(),
            path: kept_path(path),
            subscription: route.subscription || of_subscriber(&route.provider, headers),
            client: client(headers),
            request,
            response,
            route,
            status: None,
            request_id: None,
            tiers: Tiers::asked(headers),
            header_tokens: Tokens::default(),
            quota: Vec::new(),
            account: account::of_request(headers),
            responded_at: None,
            websocket: upgrade,
            tunnel: None,
            extensions: None,
            ended_at: None,
            completeness: Completeness::Open,
            reason: None,
            cut: None,
            capture: None,
            start,
        }
    }

    /// Bytes of the request's body, after transfer decoding.
    pub fn request_body(&mut self, data: &[u8]) {
        self.request.body(data, self.capture.as_mut());
    }

    pub fn request_end(&mut self) {
        self.request.end();
        if let Some(capture) = &mut self.capture {
            capture.request.whole = true;
        }
    }

    /// An interim (1xx) response: says nothing that is metered.
    pub fn informational(&mut self, _status: u16) {}

    pub fn response(&mut self, head: &ResponseHead, at: Timestamp) {
        if self.is_finished() {
            return;
        }
        self.status = Some(head.status);
        self.responded_at = Some(at);
        let named = |names: &[&str]| names.iter().find_map(|name| head.headers.get(name));
        self.request_id = named(REQUEST_IDS).and_then(short);
        self.tiers.answered(&head.headers);
        self.header_tokens = bedrock_tokens(&head.headers);
        self.quota = quota::from_headers(&head.headers, at);
        // A workload's token looks like a subscriber's: the limits tell them apart.
        let by_use = !self.route.subscription && quota::by_use(&head.headers);
        self.subscription &= !by_use && !quota::beyond_plan(&head.headers);
        self.account = account::of_response(&head.headers).or(self.account.take());
        self.extensions = Extensions::agreed(&head.headers);
        self.response.head(head);
    }

    /// Bytes of the response's body, after transfer decoding, before content decoding.
    pub fn response_body(&mut self, data: &[u8], at: Timestamp) {
        self.response.body(data, at, self.capture.as_mut());
    }

    /// What is said behind the response's body.
    pub fn trailers(&mut self, fields: &Headers) {
        if !self.is_finished() {
            self.response.trailers(fields);
        }
    }

    pub fn response_end(&mut self, at: Timestamp) {
        if self.is_finished() {
            return;
        }
        // An early answer, to a request that was not read to its end.
        self.request.end();
        self.response.end(true);
        if let Some(capture) = &mut self.capture {
            capture.response.whole = true;
        }
        if self.tunnel.is_some() {
            return self.end_tunnel(at);
        }
        match self.response.lossy() {
            Some(why) if !self.response.reading().over => {
                self.end(Completeness::Lossy, Some(&why), at);
            }
            Some(_) | None => self.end(Completeness::Complete, None, at),
        }
    }

    /// The connection ended without a word, and with it a body that has no length. Many servers end
    /// so; but a stream of events knows its last one.
    pub fn response_broken_off(&mut self, at: Timestamp) {
        if self.response.is_event_stream() {
            self.cut(Cut::Eof(Side::Server), at);
        } else {
            self.response_end(at);
        }
    }

    /// The exchange will not complete.
    ///
    /// `cut` names the side that ended it: when the client has gone, that is [`Side::Client`], though
    /// it is the server whose message is unfinished.
    pub fn cut(&mut self, cut: Cut, at: Timestamp) {
        if self.is_finished() {
            return;
        }
        // Whether the last event had come; asked before what was cut short is looked at.
        let over = self.response.reading().over;
        self.request.end();
        self.response.end(false);
        if self.tunnel.is_some() {
            return self.end_tunnel(at);
        }
        if over {
            // Clients hang up after `[DONE]`: what is missing is framing, nothing of the message.
            self.end(Completeness::Complete, None, at);
            return;
        }
        let (class, reason) = match cut {
            Cut::Eof(Side::Client) => ("client_abort", "the client hung up"),
            Cut::Reset { by: Side::Client, .. } => ("client_abort", "the client reset the stream"),
            // Nothing of a response: more likely the way there than the provider.
            Cut::Eof(Side::Server) if self.status.is_none() => {
                ("network", "the connection ended before a response")
            }
            Cut::Eof(Side::Server) => ("upstream_cut", "the provider's response was cut short"),
            Cut::Reset { by: Side::Server, .. } => {
                ("upstream_cut", "the provider reset the stream")
            }
        };
        self.cut = Some(class);
        self.end(Completeness::Interrupted, Some(reason), at);
    }

    /// The follower lost the thread; the bytes themselves went through.
    pub fn lossy(&mut self, why: GaveUp, at: Timestamp) {
        if self.is_finished() {
            return;
        }
        self.request.end();
        self.response.end(false);
        self.end(Completeness::Lossy, Some(&why.to_string()), at);
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.completeness != Completeness::Open
    }

    fn end(&mut self, completeness: Completeness, reason: Option<&str>, at: Timestamp) {
        self.completeness = completeness;
        self.reason = reason.map(str::to_owned);
        self.ended_at = Some(at);
    }
}
