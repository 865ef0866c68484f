//! Turns copies of a connection's bytes into ledger rows. Holds no socket: it can't alter or delay
//! a byte, and its panics end here.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::sync::watch;
use uuid::Uuid;

use super::attribution::Attribution;
use super::exchange::Exchange;
use super::exchange::turns::{self, News, Turns};
use super::feed::{Closing, Progress, Seen, Watch};
use super::http::{Cut, Follower, GaveUp, HttpEvent, RequestHead, Side, StreamId};
use super::http1::Search;
use super::ledger::Entry;
use super::price::Book;
use super::row::{Protocol, Row};

#[cfg(any(test, fuzzing))]
pub(crate) mod foreign;
mod protocol;
mod rows;
mod sink;
mod tracked;

use protocol::{First, spoken};
pub use protocol::{MakeFollower, follower};
pub use sink::{Recorder, RowSink};
use tracked::Tracked;

/// Rows that wait for their attribution, to be written once more with it.
const MAX_UNATTRIBUTED: usize = 256;
/// How long rows wait for it after the connection has ended.
const ATTRIBUTION_DEADLINE: Duration = Duration::from_secs(2);

/// Attribution of a connection, when it is known.
pub type Attributed = watch::Receiver<Option<Arc<Attribution>>>;

/// Which connection is observed.
#[derive(Clone, Debug)]
pub struct Subject {
    pub entry: Entry,
    pub host: String,
    pub port: u16,
    /// The models behind it are the user's own.
    pub local: bool,
    /// What client and provider agreed on.
    pub alpn: Option<Vec<u8>>,
    /// One moment by both clocks: later ones are counted from here by the monotonic one.
    pub since: (Timestamp, Instant),
    /// Both clocks when it is called; told `since`, for those that stand still.
    pub clocks: fn((Timestamp, Instant)) -> (Timestamp, Instant),
    pub attribution: Attributed,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    pub exchanges: u64,
    pub lossy: Option<GaveUp>,
    /// The client has gone in the middle of an answer.
    pub aborted: bool,
}

/// Observes one connection to its end.
pub async fn observe(
    mut watch: Watch,
    subject: Subject,
    sink: Arc<dyn RowSink>,
    book: Arc<ArcSwap<Book>>,
    make: MakeFollower,
) -> Observed {
    let mut attribution = subject.attribution.clone();
    let mut observer = Observer::new(subject, sink, book, make, watch.progress());
    loop {
        tokio::select! {
            seen = watch.next(|seen| observer.see(seen)) => {
                if seen.is_none() {
                    break;
                }
                if watch.at_rest() {
                    observer.settle();
                }
            }
            Ok(()) = attribution.changed() => observer.attribute(),
        }
    }
    observer.end();
    observer.settle();
    if !observer.unattributed.is_empty() {
        // An error means that nobody is looking for the owner any more.
        let known = attribution.wait_for(Option::is_some);
        if let Ok(Ok(_)) = tokio::time::timeout(ATTRIBUTION_DEADLINE, known).await {
            observer.attribute();
        }
    }
    observer.observed
}

struct Observer {
    subject: Subject,
    sink: Arc<dyn RowSink>,
    book: Arc<ArcSwap<Book>>,
    make: MakeFollower,
    progress: Arc<Progress>,
    follower: Option<Box<dyn Follower>>,
    first: First,
    protocol: Protocol,
    /// Boxed: a map keeps room for several, of some 2 KiB each, also when it is empty.
    streams: BTreeMap<StreamId, Box<Tracked>>,
    /// Said about exchanges that end because the connection does.
    closing: Option<Closing>,
    /// The client ended without saying so: it hears nothing any more.
    client_gone: bool,
    /// What ends now does so because its bytes stopped, not because anybody said so.
    broken_off: bool,
    /// Lost sight: nothing is followed until this finds a place to begin anew.
    lost: Option<Search>,
    /// Who spoke last, as far as that is known.
    last: Option<Side>,
    over: bool,
    unattributed: Vec<Row>,
    /// Exchanges that the register does not know of yet.
    unregistered: u64,
    observed: Observed,
}

impl Observer {
    fn new(
        subject: Subject,
        sink: Arc<dyn RowSink>,
        book: Arc<ArcSwap<Book>>,
        make: MakeFollower,
        progress: Arc<Progress>,
    ) -> Self {
        let protocol = spoken(subject.alpn.as_deref(), &[]).unwrap_or(Protocol::H1);
        Self {
            subject,
            sink,
            book,
            make,
            progress,
            follower: None,
            first: First::default(),
            protocol,
            streams: BTreeMap::new(),
            closing: None,
            client_gone: false,
            broken_off: false,
            lost: None,
            last: None,
            over: false,
            unattributed: Vec::new(),
            unregistered: 0,
            observed: Observed::default(),
        }
    }

    /// Everything that reads foreign bytes runs below this.
    fn see(&mut self, seen: Seen<'_>) {
        if self.over {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| self.look(seen))).is_err() {
            self.give_up(GaveUp::Panicked, Instant::now());
        }
        // Of several on one connection none is a WebSocket, or hardly ever.
        let between = self.streams.len() == 1 && self.streams.values().all(|t| t.is_between());
        let asking =
            !self.first.is_empty() || self.follower.as_ref().is_some_and(|f| f.is_asking());
        let open = if between { 0 } else { self.streams.len() };
        self.progress.set_open(open + usize::from(asking));
    }

    fn look(&mut self, seen: Seen<'_>) {
        match seen {
            Seen::Bytes { side, at, bytes } => {
                self.last = Some(side);
                match &mut self.lost {
                    None => self.bytes(side, at, bytes),
                    Some(search) => {
                        if let Some(request) = search.feed(side, bytes) {
                            self.lost = None;
                            self.progress.set_lossy(false);
                            self.bytes(side, at, &request);
                        }
                    }
                }
            }
            Seen::Gap { at } => {
                if self.lost.is_none() {
                    self.give_up(GaveUp::Overrun, at);
                }
                // The feed goes on where a client asks again only.
                self.lost = Some(Search::behind(Some(Side::Server)));
            }
            Seen::End { side, clean, at } => {
                self.broken_off = !clean;
                self.client_gone |= side == Side::Client;
                self.finish(&[side], at);
                self.broken_off = false;
            }
            Seen::Closed { how, at } => {
                self.closing = Some(how);
                self.broken_off = how != Closing::Orderly;
                match how {
                    Closing::By(Side::Client) => self.finish(&[Side::Client, Side::Server], at),
                    Closing::By(Side::Server) | Closing::Orderly | Closing::Ours => {
                        self.finish(&[Side::Server, Side::Client], at);
                    }
                }
                self.over = true;
            }
        }
    }

    fn bytes(&mut self, side: Side, at: Instant, bytes: &[u8]) {
        if self.follower.is_none() {
            match side {
                Side::Client => {
                    if let Some(first) = self.first.more(self.subject.alpn.as_deref(), bytes) {
                        self.begin(&first, at);
                    }
                    return;
                }
                Side::Server => {
                    let first = self.first.take();
                    self.begin(&first, at);
                }
            }
        }
        self.follow(at, |follower, sink| follower.feed(side, bytes, sink));
    }

    /// Chooses the follower by the client's first bytes.
    fn begin(&mut self, first: &[u8], at: Instant) {
        self.protocol = spoken(self.subject.alpn.as_deref(), first).unwrap_or(self.protocol);
        self.follower = (self.make)(self.subject.alpn.as_deref(), first);
        if self.follower.is_none() {
            self.give_up(GaveUp::UnknownProtocol, at);
            self.over = true;
        } else if !first.is_empty() {
            self.follow(at, |follower, sink| follower.feed(Side::Client, first, sink));
        }
    }

    fn finish(&mut self, sides: &[Side], at: Instant) {
        let first = self.first.take();
        if !first.is_empty() {
            self.begin(&first, at);
        }
        for side in sides {
            self.follow(at, |follower, sink| follower.finish(*side, sink));
        }
    }

    fn follow(
        &mut self,
        at: Instant,
        run: impl FnOnce(&mut dyn Follower, &mut dyn FnMut(HttpEvent<'_>)),
    ) {
        let Some(mut follower) = self.follower.take() else { return };
        let now = self.moment(at);
        let mut gave_up = None;
        run(&mut *follower, &mut |event| {
            if let Some(reason) = self.event(event, now) {
                gave_up = Some(reason);
            }
        });
        self.follower = Some(follower);
        if let Some(reason) = gave_up {
            self.give_up(reason, at);
        }
    }

    fn event(&mut self, event: HttpEvent<'_>, at: Timestamp) -> Option<GaveUp> {
        match event {
            HttpEvent::Request { stream, head } => self.open(stream, &head, at),
            HttpEvent::RequestBody { stream, data } => {
                self.with(stream, |t| t.exchange.request_body(data));
            }
            HttpEvent::RequestEnd { stream } => self.with(stream, |t| {
                t.exchange.request_end();
                t.request_ended = true;
            }),
            HttpEvent::Informational { stream, status } => {
                self.with(stream, |t| t.exchange.informational(status));
            }
            HttpEvent::Response { stream, head } => {
                self.with(stream, |t| t.exchange.response(&head, t.at(at)));
            }
            HttpEvent::ResponseBody { stream, data } => {
                self.with(stream, |t| t.exchange.response_body(data, t.at(at)));
            }
            HttpEvent::Trailers { stream, fields } => {
                self.with(stream, |t| t.exchange.trailers(fields));
            }
            HttpEvent::ResponseEnd { stream } => {
                let broken_off = self.broken_off;
                let by = match self.closing() {
                    Some(Closing::By(side)) => Some(side),
                    Some(Closing::Orderly) | None if self.client_gone => Some(Side::Client),
                    Some(Closing::Orderly | Closing::Ours) | None => None,
                };
                self.observed.aborted |= broken_off && by == Some(Side::Client);
                self.turns(stream, at, |turns, _, at, sink| turns.end(by, at, sink));
                self.with(stream, |t| {
                    t.response_ended = true;
                    if broken_off {
                        t.exchange.response_broken_off(t.at(at));
                    } else {
                        t.exchange.response_end(t.at(at));
                    }
                });
            }
            HttpEvent::Upgraded { stream } => {
                self.with(stream, |t| t.turns = t.exchange.upgraded(t.at(at), Uuid::now_v7));
                // Until now it looked like a request to a model.
                self.write(stream);
            }
            HttpEvent::Tunnelled { stream, side, data } => {
                self.with(stream, |t| t.exchange.tunnelled(side, data));
                self.begin_turn(stream);
                self.turns(stream, at, |turns, opened, at, sink| {
                    turns.feed(opened, side, data, at, sink);
                });
            }
            HttpEvent::Cut { stream, cut } => self.cut(stream, cut, at),
            HttpEvent::Lost { stream, reason } => self.lose(stream, reason, at),
            HttpEvent::GaveUp { reason } => return Some(reason),
        }
        None
    }

    fn open(&mut self, stream: StreamId, head: &RequestHead, at: Timestamp) {
        // A follower never says a stream twice; if it did, the first must not vanish unwritten.
        self.cut(stream, Cut::Eof(Side::Client), at);
        let ahead = self.ahead();
        let mut exchange = Exchange::new(self.start(at, ahead), head);
        exchange.capture(self.sink.begin_bodies());
        self.note_exchange();
        self.progress.note_begun();
        self.streams.insert(stream, Box::new(Tracked::new(exchange, ahead)));
    }

    /// Applies what was seen, notes whether it is worth a row, writes that at once when it is the
    /// last, forgets the stream once it is over.
    fn with(&mut self, stream: StreamId, apply: impl FnOnce(&mut Tracked)) {
        let Some(tracked) = self.streams.get_mut(&stream) else { return };
        let state = |t: &Tracked| (t.exchange.is_finished(), t.request_ended);
        let before = state(tracked);
        apply(tracked);
        tracked.fed = true;
        // With its request whole a row names its model: all that is left of it if we die now.
        tracked.news |= before != state(tracked);
        let finished = tracked.exchange.is_finished();
        let over = tracked.request_ended && tracked.response_ended;
        if (finished || over) && tracked.news {
            self.write(stream);
        }
        if over {
            self.streams.remove(&stream);
        }
    }

    /// Lets the responses of a WebSocket hear what happened, and writes what comes of it.
    fn turns(
        &mut self,
        stream: StreamId,
        at: Timestamp,
        apply: impl FnOnce(&mut Turns, &Exchange, Timestamp, &mut turns::Sink<'_>),
    ) {
        let closing = self.closing();
        let Some(tracked) = self.streams.get_mut(&stream) else { return };
        let Tracked { exchange: opened, turns: Some(turns), turns_ahead, .. } = &mut **tracked
        else {
            return;
        };
        let at = at.checked_add(*turns_ahead).unwrap_or(at);
        let mut news = Vec::new();
        apply(turns, opened, at, &mut |exchange, what| {
            let row = rows::row_of(exchange, &self.book.load(), closing);
            rows::keep(&*self.sink, exchange, &row);
            news.push((row, what));
        });
        opened.after(turns);
        for (row, what) in news {
            match what {
                News::Opened => self.note_exchange(),
                News::Ended => {}
            }
            self.record(row);
        }
    }

    fn cut(&mut self, stream: StreamId, cut: Cut, at: Timestamp) {
        if !self.streams.contains_key(&stream) {
            return;
        }
        // A client that goes away takes the provider's half with it: the follower sees the end of
        // the bytes, the pump knows who broke off.
        let cut = match (cut, self.closing()) {
            (Cut::Eof(_), Some(Closing::By(side))) => Cut::Eof(side),
            (Cut::Eof(_), Some(Closing::Orderly) | None) if self.client_gone => {
                Cut::Eof(Side::Client)
            }
            (cut, Some(Closing::By(_) | Closing::Orderly | Closing::Ours) | None) => cut,
        };
        self.observed.aborted |= cut == Cut::Eof(Side::Client);
        self.turns(stream, at, |turns, _, at, sink| turns.cut(cut, at, sink));
        if let Some(tracked) = self.streams.get_mut(&stream) {
            tracked.exchange.cut(cut, tracked.at(at));
        }
        self.write(stream);
        self.streams.remove(&stream);
    }

    /// Ends everything that is open; each exchange is a row, and so is a connection without one.
    fn give_up(&mut self, reason: GaveUp, at: Instant) {
        self.lost = Some(Search::behind(self.last));
        self.follower = None;
        self.first.take();
        self.observed.lossy = Some(reason);
        self.progress.set_lossy(true);
        let now = self.moment(at);
        // Over HTTP/1.1 it is followed on where the next request begins; but of one that was never seen
        // to begin nobody knows what it asked.
        if (self.protocol == Protocol::H2 || self.streams.is_empty()) && !self.over {
            let when = now.checked_add(self.ahead()).unwrap_or(now);
            self.sink.lost_sight(self.subject.entry.id(), when, &self.subject.host);
        }
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        if streams.is_empty() {
            let start = self.start(now, self.ahead());
            let now = start.at;
            let mut exchange = Exchange::new(start, &RequestHead::default());
            exchange.lossy(reason, now);
            self.note_exchange();
            self.record(exchange.row(&self.book.load()));
        }
        for stream in streams {
            self.lose(stream, reason, now);
        }
        self.progress.set_open(0);
    }

    /// Nothing more will be seen.
    fn end(&mut self) {
        if self.over {
            return;
        }
        // The pump's task was dropped in the middle.
        self.see(Seen::Closed { how: Closing::Ours, at: Instant::now() });
    }
}

#[cfg(test)]
mod tests;
