//! The responses on one WebSocket: each is an exchange of its own, and a row.
//!
//! A client asks with `response.create`; the provider names the response in its first word of it
//! and again in its last. Realtime answers unasked too. Between the two, messages are only counted.
//! Gemini Live names nothing: there is one turn after the other.

use std::collections::VecDeque;

use jiff::Timestamp;
use uuid::Uuid;

use super::Exchange;
use super::request::PATHS;
use crate::meter::http::{Cut, GaveUp, Side};
use crate::meter::quota::{Window, renew};
use crate::meter::surface::Kind;
use crate::meter::surface::scan::{Found, Paths, Scanner};
use crate::meter::surface::socket::{self, Asked, CLIENT_PATHS, Said, Step};
use crate::meter::websocket::{Extensions, WebSocket, WsEvent};

mod live;

/// Responses that may be under way at once on one WebSocket.
const MAX_OPEN: usize = 64;
/// Ids of responses that are over: providers may say the last word twice.
const MAX_REMEMBERED: usize = 64;

/// What happened to one of the exchanges.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum News {
    Opened,
    Ended,
}

/// Receives each exchange of the WebSocket when it is opened and when it has ended.
pub type Sink<'s> = dyn FnMut(&mut Exchange, News) + 's;

/// Follows one WebSocket that leads to a model.
#[derive(Debug)]
pub struct Turns {
    follower: WebSocket,
    talk: Talk,
}

#[derive(Debug)]
struct Talk {
    kind: Kind,
    fresh: fn() -> Uuid,
    client: Heard,
    server: Heard,
    open: VecDeque<Turn>,
    over: VecDeque<String>,
    /// The model that the client wants for the session, and the one that the provider says it has.
    model: Option<String>,
    answering: Option<String>,
    transcriber: Option<String>,
    /// What was told of the plan's limits, until a row takes it along.
    quota: Vec<Window>,
    /// Who said first that the WebSocket ends.
    closed_by: Option<Side>,
    gave_up: bool,
    ended: bool,
}

/// The message that one side is sending.
#[derive(Debug)]
struct Heard {
    scanner: Scanner,
    found: Option<Found>,
    /// Of this message.
    size: u64,
    /// Of the messages since they were last taken account of.
    bytes: u64,
    /// The message itself, if it is wanted.
    text: Vec<u8>,
}

#[derive(Debug)]
struct Turn {
    exchange: Exchange,
    lane: Option<String>,
    /// Of the client's message.
    event_id: Option<String>,
    /// The provider's id, once it is known.
    response: Option<String>,
    /// An error came, after which there may be more or not.
    failed: bool,
    /// A message that may have been its last word could not be read.
    missed: Option<String>,
    /// Since when it is over, though its usage may come yet.
    over: Option<Timestamp>,
}

impl Turns {
    /// `fresh` makes the ids of the rows.
    pub(super) fn new(
        kind: Kind,
        extensions: Extensions,
        model: Option<String>,
        fresh: fn() -> Uuid,
    ) -> Self {
        let heard = |paths| Heard {
            scanner: Scanner::new(paths),
            found: None,
            size: 0,
            bytes: 0,
            text: Vec::new(),
        };
        Self {
            follower: WebSocket::new(extensions),
            talk: Talk {
                kind,
                fresh,
                client: heard(Paths::new(&[PATHS, CLIENT_PATHS].concat())),
                server: heard(socket::server_paths()),
                open: VecDeque::new(),
                over: VecDeque::new(),
                model,
                answering: None,
                transcriber: None,
                quota: Vec::new(),
                closed_by: None,
                gave_up: false,
                ended: false,
            },
        }
    }

    /// Bytes behind the handshake. `opened` is the exchange of the handshake itself.
    pub fn feed(
        &mut self,
        opened: &Exchange,
        side: Side,
        bytes: &[u8],
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let talk = &mut self.talk;
        self.follower.feed(side, bytes, &mut |event| talk.hear(event, opened, at, sink));
    }

    /// The WebSocket is over; `by` broke it off, unless a side had said that it would.
    pub fn end(&mut self, by: Option<Side>, at: Timestamp, sink: &mut Sink<'_>) {
        let by = self.talk.closed_by.or(by).unwrap_or(Side::Server);
        self.cut(Cut::Eof(by), at, sink);
    }

    pub fn cut(&mut self, cut: Cut, at: Timestamp, sink: &mut Sink<'_>) {
        self.talk.ended = true;
        while let Some(mut turn) = self.talk.open.pop_front() {
            if !turn.settle(at) {
                turn.exchange.cut(cut, at);
            }
            end(&mut turn.exchange, &mut self.talk.quota, sink);
        }
    }

    /// The bytes can't be followed any more.
    pub fn lossy(&mut self, why: GaveUp, at: Timestamp, sink: &mut Sink<'_>) {
        self.talk.lose(&why.to_string(), at, sink);
    }

    /// Nobody is speaking or waited for, and a client that opens another loses nothing. The state of a
    /// spoken session is lost with its socket, so that is never between.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.talk.kind == Kind::Responses && self.is_silent()
    }

    /// Nobody is speaking or waited for.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let Talk { client, server, open, gave_up, .. } = &self.talk;
        !gave_up
            && client.size == 0
            && server.size == 0
            && open.iter().all(|turn| turn.over.is_some())
    }

    /// What was told of the plan's limits after the last response, once there can be no other.
    pub(super) fn left_over(&mut self) -> Vec<Window> {
        if self.talk.ended { std::mem::take(&mut self.talk.quota) } else { Vec::new() }
    }

    /// Nothing more is read of it, though it goes on.
    #[must_use]
    pub(super) fn gave_up(&self) -> Option<&'static str> {
        self.talk.gave_up.then_some("a WebSocket frame was malformed")
    }
}

impl Talk {
    fn hear(&mut self, event: WsEvent<'_>, opened: &Exchange, at: Timestamp, sink: &mut Sink<'_>) {
        match event {
            WsEvent::Data { side, data } => self.heard(side).take(data, opened.holds()),
            WsEvent::End { side, lost, .. } => {
                let found = self.heard(side).end(lost.is_none());
                let text = std::mem::take(&mut self.heard(side).text);
                match (side, lost) {
                    (Side::Client, None) => self.client_message(&found, &text, opened, at, sink),
                    (Side::Server, None) => self.server_message(&found, &text, opened, at, sink),
                    // The response that it may have asked for will look as if nobody had.
                    (Side::Client, Some(_)) => {}
                    (Side::Server, Some(why)) => self.miss(&why.to_string()),
                }
            }
            WsEvent::Close { side, .. } => self.closed_by = self.closed_by.or(Some(side)),
            WsEvent::GaveUp(why) => {
                self.gave_up = true;
                self.lose(&why.to_string(), at, sink);
            }
        }
    }

    fn heard(&mut self, side: Side) -> &mut Heard {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn client_message(
        &mut self,
        found: &Found,
        text: &[u8],
        opened: &Exchange,
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let asked = socket::asked(found, PATHS.len());
        self.model = asked.model.map(str::to_owned).or(self.model.take());
        self.transcriber = asked.transcriber.map(str::to_owned).or(self.transcriber.take());
        if !asked.response || (self.kind == Kind::Live && self.is_waited_for()) {
            return;
        }
        self.settle(asked.lane, at, sink);
        let bytes = std::mem::take(&mut self.client.bytes);
        self.open(&asked, Some(found), bytes, opened, at, sink);
        if let Some(turn) = self.open.back_mut() {
            turn.exchange.hold_request(text);
        }
    }

    fn server_message(
        &mut self,
        found: &Found,
        text: &[u8],
        opened: &Exchange,
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        if self.kind == Kind::Live {
            return self.live_message(found, text, opened, at, sink);
        }
        let bytes = std::mem::take(&mut self.server.bytes);
        let said = socket::said(found);
        self.answering = said.model.map(str::to_owned).or(self.answering.take());
        self.transcriber = said.transcriber.map(str::to_owned).or(self.transcriber.take());
        let turn = match said.step {
            Step::Quota => {
                renew(&mut self.quota, socket::quota(found, Some(at)));
                return;
            }
            Step::Transcribed => return self.transcribed(found, bytes, opened, at, sink),
            Step::Begun | Step::Over => {
                if said.response.is_some_and(|id| self.over.iter().any(|over| over == id)) {
                    return;
                }
                match self.about(&said) {
                    None if said.response.is_some() => Some(self.unasked(&said, opened, at, sink)),
                    known => known,
                }
            }
            Step::Failed => {
                renew(&mut self.quota, socket::quota_of_failure(found, at));
                self.failed(&said)
            }
            Step::Item | Step::Other => self.open.iter().position(|turn| turn.is_in(said.lane)),
        };
        let Some(index) = turn else { return };
        let Some(turn) = self.open.get_mut(index) else { return };
        turn.exchange.hear(bytes, at);
        turn.exchange.hold_response(text);
        if said.step == Step::Other {
            return;
        }
        turn.response = said.response.map(str::to_owned).or(turn.response.take());
        turn.exchange.message(found, said.status);
        turn.failed |= said.step == Step::Failed;
        // Refused before it began: nothing more will come of it.
        let refused = turn.failed && turn.response.is_none();
        if (said.step == Step::Over || refused)
            && let Some(turn) = self.open.remove(index)
        {
            self.finish(turn, at, sink);
        }
    }

    /// The turn that a word of a response's is about: the one of its id, else the first of its lane
    /// that has none yet.
    fn about(&self, said: &Said<'_>) -> Option<usize> {
        let here = |turn: &Turn| said.lane.is_none() || turn.is_in(said.lane);
        let named = |turn: &Turn| match said.response {
            Some(_) => turn.response.as_deref() == said.response,
            None => here(turn),
        };
        let next = |turn: &Turn| turn.response.is_none() && here(turn);
        self.open.iter().position(named).or_else(|| self.open.iter().position(next))
    }

    /// The turn that an error is about. Many of a Realtime session are not about any.
    fn failed(&self, said: &Said<'_>) -> Option<usize> {
        if said.about.is_some() {
            let asked = |turn: &Turn| turn.event_id.as_deref() == said.about;
            return self.open.iter().position(asked);
        }
        self.open.iter().position(|turn| {
            turn.is_in(said.lane) && (self.kind != Kind::Realtime || turn.response.is_none())
        })
    }

    /// A response that no message of the client's asked for.
    fn unasked(
        &mut self,
        said: &Said<'_>,
        opened: &Exchange,
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) -> usize {
        let asked = Asked { lane: said.lane, ..Asked::default() };
        let bytes = std::mem::take(&mut self.client.bytes);
        self.open(&asked, None, bytes, opened, at, sink);
        self.open.len().saturating_sub(1)
    }

    fn transcribed(
        &mut self,
        found: &Found,
        bytes: u64,
        opened: &Exchange,
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        let mut exchange = opened.turn((self.fresh)(), at, Kind::Audio);
        exchange.ask(None, 0, self.transcriber.as_deref(), None);
        exchange.hear(bytes, at);
        exchange.message(found, None);
        sink(&mut exchange, News::Opened);
        exchange.response_end(at);
        end(&mut exchange, &mut self.quota, sink);
    }

    fn open(
        &mut self,
        asked: &Asked<'_>,
        message: Option<&Found>,
        bytes: u64,
        opened: &Exchange,
        at: Timestamp,
        sink: &mut Sink<'_>,
    ) {
        if self.open.len() >= MAX_OPEN
            && let Some(mut turn) = self.open.pop_front()
        {
            turn.exchange.unfollowable("too many responses were open at once", at);
            end(&mut turn.exchange, &mut self.quota, sink);
        }
        let mut exchange = opened.turn((self.fresh)(), at, self.kind);
        exchange.ask(message, bytes, self.model.as_deref(), self.answering.as_deref());
        sink(&mut exchange, News::Opened);
        self.open.push_back(Turn {
            exchange,
            lane: asked.lane.map(str::to_owned),
            event_id: asked.event_id.map(str::to_owned),
            response: None,
            failed: false,
            missed: None,
            over: None,
        });
    }

    fn finish(&mut self, mut turn: Turn, at: Timestamp, sink: &mut Sink<'_>) {
        turn.exchange.response_end(at);
        end(&mut turn.exchange, &mut self.quota, sink);
        if let Some(id) = turn.response {
            if self.over.len() >= MAX_REMEMBERED {
                self.over.pop_front();
            }
            self.over.push_back(id);
        }
    }

    /// The client goes on in `lane`: what failed there or was missed will not be heard of again.
    fn settle(&mut self, lane: Option<&str>, at: Timestamp, sink: &mut Sink<'_>) {
        self.open.retain_mut(|turn| {
            let settled = turn.is_in(lane) && turn.settle(at);
            if settled {
                end(&mut turn.exchange, &mut self.quota, sink);
            }
            !settled
        });
    }

    /// A message of the provider's could not be read.
    fn miss(&mut self, why: &str) {
        self.open.iter_mut().for_each(|turn| turn.missed = Some(why.to_owned()));
    }

    fn lose(&mut self, why: &str, at: Timestamp, sink: &mut Sink<'_>) {
        self.ended = true;
        while let Some(mut turn) = self.open.pop_front() {
            if turn.over.is_none() || !turn.settle(at) {
                turn.exchange.unfollowable(why, at);
            }
            end(&mut turn.exchange, &mut self.quota, sink);
        }
    }
}

/// It is over, however it went, and takes along what was told of the plan's limits.
fn end(exchange: &mut Exchange, quota: &mut Vec<Window>, sink: &mut Sink<'_>) {
    exchange.quota.append(quota);
    sink(exchange, News::Ended);
}

impl Turn {
    fn is_in(&self, lane: Option<&str>) -> bool {
        self.lane.as_deref() == lane
    }

    /// Ends it, if what is left of it is known.
    fn settle(&mut self, at: Timestamp) -> bool {
        if let Some(over) = self.over {
            self.exchange.response_end(over);
        } else if self.failed {
            self.exchange.response_end(at);
        } else if let Some(why) = &self.missed {
            self.exchange.unfollowable(why, at);
        }
        self.exchange.is_finished()
    }
}

impl Heard {
    fn take(&mut self, data: &[u8], hold: usize) {
        self.size = self.size.saturating_add(data.len() as u64);
        let held = data.len().min(hold.saturating_sub(self.text.len()));
        self.text.extend_from_slice(data.get(..held).unwrap_or_default());
        let found = &mut self.found;
        self.scanner.feed(data, &mut |document| *found = Some(std::mem::take(document)));
    }

    /// What the message said. How much came of one that could not be read is by chance, and does
    /// not count.
    fn end(&mut self, whole: bool) -> Found {
        let size = std::mem::take(&mut self.size);
        self.bytes = self.bytes.saturating_add(if whole { size } else { 0 });
        let found = &mut self.found;
        self.scanner.finish(&mut |document| *found = Some(std::mem::take(document)));
        self.found.take().unwrap_or_default()
    }
}
