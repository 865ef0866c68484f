//! One request and its response, put together from what a follower saw, into one ledger row.
//!
//! Sans-IO and without a clock: every moment is passed in. The caller makes them from one monotonic
//! source, so that a step of the wall clock can't make a duration negative.

use jiff::Timestamp;
use uuid::Uuid;

use self::headers::{REQUEST_IDS, Tiers, bedrock_tokens, billing};
use self::messages::Messages;
use self::request::{
    Asks, Request, asks_for_websocket, client, model_of_query, of_subscriber, path, short, shorten,
};
use self::response::Response;
pub use self::told::Told;
use self::turns::Turns;
use super::account;
use super::bodies::Capture;
use super::charge::charge;
use super::http::{Cut, GaveUp, Headers, RequestHead, ResponseHead, Side};
use super::price::Book;
use super::quota;
use super::row::{Completeness, Detail, Protocol, Row};
use super::surface::socket::spoken;
use super::surface::{self, Kind, Reading, Route, class_of_status};
use super::usage::{Caveat, Tokens, Usage, UsageState};
use super::websocket::Extensions;

mod agent;
mod bodies;
mod headers;
mod messages;
mod request;
mod response;
#[cfg(test)]
pub(crate) mod tests;
mod told;
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

/// Follows one exchange. Feed it what the follower says, ask for its [`Row`] at any time: right after
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

/// What another protocol is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tunnel {
    /// A WebSocket that leads to no model: passed and counted.
    Counted,
    /// What its messages cost is in rows of their own.
    Followed,
    /// There may be a model behind it, and nobody reads what it says.
    Unread(&'static str),
}

impl Exchange {
    #[must_use]
    pub fn new(start: ExchangeStart, head: &RequestHead) -> Self {
        let path = path(&head.target);
        let headers = &head.headers;
        let upgrade = asks_for_websocket(head);
        let mut route = surface::route(&start.host, start.local, &head.method, &path, upgrade);
        if upgrade && route.model.is_none() {
            route.model = model_of_query(&head.target);
        }
        let mut request = Request::new(head);
        let mut response = Response::new(route.kind);
        if let Some(model) = &route.model {
            response.asked(model);
        }
        if let Some(messages) = Messages::of(&route, &path) {
            response.read_messages(messages);
            request.read_messages(messages, &path);
        }
        if path.ends_with("/audio/speech") {
            request.count(Asks::Speech);
        } else if route.kind == Some(Kind::Images) {
            request.count(Asks::Images);
        }
        Self {
            method: head.method.clone(),
            path,
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

    /// The protocol changes (101, extended CONNECT). The row stays open until [`Exchange::cut`],
    /// [`Exchange::response_end`] or [`Exchange::lossy`]. Returns what is to be fed with the bytes
    /// that follow, if there are responses of a model in them; `fresh` makes the ids of their rows.
    pub fn upgraded(&mut self, at: Timestamp, fresh: fn() -> Uuid) -> Option<Turns> {
        self.start.protocol = Protocol::Ws;
        self.responded_at = self.responded_at.or(Some(at));
        // HTTP/1.1 follows 101 with no response of its own.
        self.status = self.status.or(Some(101));
        let (tunnel, turns) = match (self.route.kind.and_then(spoken), self.extensions) {
            _ if !self.websocket => (Tunnel::Unread("the upgraded protocol is not known"), None),
            (Some(kind), Some(extensions)) => {
                let model = self.route.model.clone();
                (Tunnel::Followed, Some(Turns::new(kind, extensions, model, fresh)))
            }
            (Some(_), None) => (Tunnel::Unread("the WebSocket's extensions are not known"), None),
            (None, _) if self.route.billable => {
                (Tunnel::Unread("what is said on this WebSocket is not known"), None)
            }
            (None, _) => (Tunnel::Counted, None),
        };
        self.route.billable |= matches!(tunnel, Tunnel::Unread(_));
        self.tunnel = Some(tunnel);
        turns
    }

    /// What the WebSocket's responses have come to: whether what is said there can still be read, and,
    /// once it is over, what none of them took along.
    pub fn after(&mut self, turns: &mut Turns) {
        if let Some(why) = turns.gave_up() {
            self.tunnel = Some(Tunnel::Unread(why));
        }
        quota::renew(&mut self.quota, turns.left_over());
    }

    /// Bytes of the protocol that was upgraded to; those of a WebSocket's messages are counted in
    /// their rows too.
    pub fn tunnelled(&mut self, side: Side, data: &[u8]) {
        let bytes = match side {
            Side::Client => &mut self.request.bytes,
            Side::Server => &mut self.response.bytes,
        };
        *bytes = bytes.saturating_add(data.len() as u64);
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

    /// The row as far as it is known. Attribution (project, process, cwd …) is the caller's to add;
    /// `client` is a guess from `User-Agent` for when the process is not known.
    #[must_use]
    pub fn row(&self, book: &Book) -> Row {
        let reading = self.response.reading();
        let kind = self.response.kind().or(self.route.kind);
        let surfaced = self.response.kind().is_some();
        let late = self.route.reread && reading.deferred;
        let billable = (self.route.billable || surfaced || late)
            && !(self.request.warm_up || reading.warm_up)
            && !self.is_only_a_tunnel()
            && !self.is_only_a_handshake();
        let usage = if billable { self.usage(&reading) } else { Usage::default() };
        let model_requested = self.route.asked(self.request.model.as_deref());
        let model = reading.model.as_deref().and_then(short);
        let error = self.error_class(&reading);
        let plan = self.subscription && !reading.beyond_plan;
        let billing = billing(plan, &self.route.provider, usage.speed.as_deref());
        let subject = self.route.subject.as_ref().or(self.request.subject.as_ref());
        let response_id = subject.or(reading.id.as_ref());
        let mut quota = [&self.quota[..], &reading.quota].concat();
        quota.iter_mut().for_each(|window| window.account.clone_from(&self.account));
        let mut row = Row {
            id: self.start.id,
            started_at: self.start.at,
            ended_at: self.ended_at,
            host: self.start.host.clone(),
            path: self.path.clone(),
            method: self.method.clone(),
            protocol: self.start.protocol,
            provider: self.route.provider.clone(),
            surface: kind.and_then(Kind::name).map(str::to_owned),
            billable,
            model_requested,
            model,
            provider_request_id: self.request_id.clone().or(reading.id.as_deref().and_then(short)),
            response_id: response_id.and_then(|id| short(id)),
            stream: self.stream(),
            status: self.status,
            error_class: error.map(str::to_owned),
            usage: usage.state,
            tokens: usage.tokens,
            web_searches: usage.web_searches,
            tier: usage.tier,
            speed: usage.speed,
            geo: usage.geo,
            cost_nanousd: None,
            price_rule: None,
            cost_estimated: false,
            cost_reason: None,
            provider_cost_nanousd: usage.provider_cost_nanousd,
            list_nanousd: None,
            detail: Detail {
                parts: usage.parts,
                cache_ttl: usage.cache_ttl,
                cached: usage.cached,
                written_12h: usage.written_12h,
                counts: usage.counts,
                refused: usage.refused,
                caveat: usage.caveat,
            },
            quota,
            billing,
            completeness: self.completeness,
            completeness_reason: self.reason.clone(),
            ttfb_ms: self.since_start(self.responded_at),
            duration_ms: self.since_start(self.ended_at),
            request_bytes: Some(self.request.bytes),
            response_bytes: self.responded_at.map(|_| self.response.bytes),
            project: None,
            project_source: None,
            client: self.client.clone(),
            client_pid: None,
            run: None,
            session: self.request.session.clone(),
            agent: self.request.agent.id.clone(),
            agent_parent: self.request.agent.parent.clone(),
            agent_kind: self.request.agent.kind.clone(),
            branch: None,
            cwd: None,
            connection: None,
        };
        charge(&mut row, book);
        row
    }

    /// The reading's usage with what only the exchange knows.
    fn usage(&self, reading: &Reading) -> Usage {
        let mut usage = reading.usage.clone();
        shorten(&mut usage);
        headers::complete(&mut usage, &self.header_tokens);
        let answered = self.status.is_some_and(|status| (200..300).contains(&status));
        let told = usage.state != UsageState::Absent || !usage.counts.is_empty();
        if !told && answered && !self.request.counts.is_empty() {
            usage.counts = self.request.counts.clone();
            usage.caveat = Some(Caveat::FromRequest);
        }
        usage.tier = self.tiers.or(usage.tier.as_deref());
        self.request.cache_lifetime(&mut usage);
        usage.geo = self.route.geo.map(str::to_owned).or(usage.geo);
        if usage.state == UsageState::Reported && reading.error.is_some() {
            // It failed on the way: what was said before is what is known.
            usage.state = UsageState::Partial;
        }
        usage.within()
    }

    /// By the status, unless the body says it better; then an error inside a good response; then who
    /// ended it.
    fn error_class(&self, reading: &Reading) -> Option<&'static str> {
        let by_status = self.status.and_then(class_of_status);
        match (by_status, reading.error) {
            (Some(class), Some("in_stream")) => Some(class),
            (_, Some(class)) | (Some(class), None) => Some(class),
            (None, None) => self.cut,
        }
    }

    fn stream(&self) -> Option<bool> {
        self.request.stream.or(self.route.stream).or_else(|| {
            // Not asked for is not streamed, once the answer is there.
            let billable = self.route.billable && self.responded_at.is_some();
            billable.then(|| self.response.is_event_stream())
        })
    }

    fn since_start(&self, at: Option<Timestamp>) -> Option<u64> {
        let elapsed = at?.duration_since(self.start.at).as_millis();
        Some(u64::try_from(elapsed).unwrap_or(0))
    }

    /// What it carried is in other rows, or nobody's business.
    fn is_only_a_tunnel(&self) -> bool {
        match self.tunnel {
            Some(Tunnel::Counted | Tunnel::Followed) => self.completeness != Completeness::Lossy,
            Some(Tunnel::Unread(_)) | None => false,
        }
    }

    /// It asked for a WebSocket and has none (yet): nothing was asked of a model. A server that
    /// answers as if nobody had spoken of one has been asked.
    fn is_only_a_handshake(&self) -> bool {
        let answered = self.status.is_some_and(|status| (200..300).contains(&status));
        self.websocket && self.tunnel.is_none() && !answered
    }

    fn end_tunnel(&mut self, at: Timestamp) {
        match self.tunnel {
            Some(Tunnel::Unread(why)) => self.end(Completeness::Lossy, Some(why), at),
            Some(Tunnel::Counted | Tunnel::Followed) | None => {
                self.end(Completeness::Complete, None, at);
            }
        }
    }

    fn end(&mut self, completeness: Completeness, reason: Option<&str>, at: Timestamp) {
        self.completeness = completeness;
        self.reason = reason.map(str::to_owned);
        self.ended_at = Some(at);
    }
}
