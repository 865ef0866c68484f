//! Moves decrypted bytes between client and provider, verbatim, in one task.
//!
//! Each chunk goes from the one TLS session's buffer straight into the other; no buffer of ours is
//! held in between, so an idle connection costs none. The observer gets a copy after the write.
//! The way a side ends is mirrored: `close_notify` as `close_notify`, a bare end of TCP as a bare
//! end (turning a truncation into a clean end would complete a body that was cut), a reset as a
//! reset. Nothing is added, but for one frame of HTTP/2 to a client that has to go ([`parting`]).

mod parting;
mod peer;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::feed::{Boundary, Closing, Feed};
use super::http::Side;
use crate::dial::{LOOK, is_break, is_gone, watch_half_closed};
use parting::{Parting, Word};
pub use peer::Peer;

/// How often a draining connection is looked at, and how long it must have been quiet.
const DRAIN_TICK: Duration = Duration::from_millis(50);
const QUIET_BETWEEN: u32 = 2;
/// A connection on which nothing was said yet is about to be used.
const QUIET_FRESH: u32 = 40;
/// One that is not followed any more: long pauses within an answer are usual.
const QUIET_UNKNOWN: u32 = 200;
/// A connection of HTTP/2 on which requests still begin after so long, and one is always open, has no end
/// that could be waited for. Not sooner: to some clients a GOAWAY is the end of what is under way, too.
const PARTING: Duration = Duration::from_secs(10);
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// A request that crossed our goodbye is there by then.
const CROSSING: Duration = Duration::from_millis(50);

/// What the tap wants of its connections.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    #[default]
    Serving,
    /// Close where an exchange ends.
    Draining,
    /// Close now.
    Cut,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    pub how: Closing,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// Moves bytes until both directions have ended, or the tap wants the connection closed.
pub async fn run<C: Peer, S: Peer>(
    client: &mut C,
    server: &mut S,
    feed: &mut Feed,
    stage: &mut watch::Receiver<Stage>,
) -> Ended {
    let parting = client.speaks_h2().then(|| Box::new(Parting::new()));
    let mut flow = Flow { parting, ..Flow::default() };
    let how = match serve(&mut flow, client, server, feed, stage).await {
        Some(how) => how,
        None => drain(&mut flow, client, server, feed, stage).await,
    };
    feed.closed(how);
    Ended { how, bytes_up: flow.up.bytes, bytes_down: flow.down.bytes }
}

/// `None`: the tap no longer wants to serve.
async fn serve<C: Peer, S: Peer>(
    flow: &mut Flow,
    client: &mut C,
    server: &mut S,
    feed: &mut Feed,
    stage: &mut watch::Receiver<Stage>,
) -> Option<Closing> {
    let mut half_closed = false;
    loop {
        let news = poll_fn(|cx| match flow.poll(cx, client, server, feed) {
            Poll::Ready(how) => Poll::Ready(Some(how)),
            Poll::Pending if flow.up.state == State::Done && !half_closed => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        tokio::select! {
            biased;
            news = news => {
                if news.is_some() {
                    return news;
                }
                half_closed = true;
                if let Some(socket) = client.socket() {
                    watch_half_closed(socket);
                }
            }
            // An error (nobody is left to say otherwise) counts as the wish to stop.
            _ = stage.wait_for(|s| *s != Stage::Serving) => return None,
            () = sleep(LOOK), if half_closed => if client.socket().is_some_and(is_gone) {
                return Some(Closing::By(Side::Client));
            }
        }
    }
}

/// Goes on until an exchange ends, or the tap cuts it off.
async fn drain<C: Peer, S: Peer>(
    flow: &mut Flow,
    client: &mut C,
    server: &mut S,
    feed: &mut Feed,
    stage: &mut watch::Receiver<Stage>,
) -> Closing {
    let mut tick = interval(DRAIN_TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet = 0;
    let mut moved = flow.moved();
    let (began, mut begun) = (Instant::now(), feed.begun());
    if let Some(parting) = &mut flow.parting {
        parting.leave();
    }
    loop {
        let news = poll_fn(|cx| match flow.poll(cx, client, server, feed) {
            Poll::Ready(how) => Poll::Ready(Some(how)),
            Poll::Pending if flow.has_parted() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        tokio::select! {
            biased;
            news = news => match news {
                Some(how) => return how,
                None => break,
            },
            _ = stage.wait_for(|s| *s == Stage::Cut) => {
                client.abort();
                server.abort();
                return Closing::Ours;
            }
            _ = tick.tick() => {}
        }
        quiet = if flow.moved() == moved { quiet + 1 } else { 0 };
        moved = flow.moved();
        if began.elapsed() < PARTING / 2 {
            // Not counted from the start: the observer hears late of what was under way then.
            begun = feed.begun();
        } else if began.elapsed() >= PARTING
            && feed.begun() != begun
            && !feed.is_lossy()
            && flow.down.state == State::Moving
            && let Some(parting) = &mut flow.parting
        {
            feed.parts();
            parting.want();
        }
        let enough = match feed.boundary() {
            Boundary::Between => QUIET_BETWEEN,
            Boundary::Fresh => QUIET_FRESH,
            // Whoever spoke last waits for an answer: the client's request is under way.
            Boundary::Unknown if flow.last == Some(Side::Client) => continue,
            Boundary::Unknown => QUIET_UNKNOWN,
            Boundary::Within => continue,
        };
        if quiet >= enough {
            break;
        }
    }
    flow.say_goodbye();
    let goodbye = poll_fn(|cx| flow.poll(cx, client, server, feed));
    let how = match timeout(CLOSE_DEADLINE, goodbye).await {
        Ok(Closing::By(side)) => return Closing::By(side),
        Ok(Closing::Orderly | Closing::Ours) | Err(_) => Closing::Ours,
    };
    linger(client).await;
    how
}

/// A request may have crossed our goodbye. Closing over its unread bytes would reset the connection,
/// and destroy what of the last answer the client has not read yet; taken from the socket, all that
/// the client sees is a connection that ended while it was idle, which it knows to repeat.
async fn linger<C: Peer>(client: &mut C) {
    let mut patience = CROSSING;
    let end = Instant::now() + CLOSE_DEADLINE;
    while Instant::now() < end {
        let more = poll_fn(|cx| {
            Pin::new(&mut *client).poll_fill_buf(cx).map(|read| read.map_or(0, <[u8]>::len))
        });
        match timeout(patience, more).await {
            Ok(n @ 1..) => Pin::new(&mut *client).consume(n),
            Ok(0) | Err(_) => break,
        }
        patience = end.saturating_duration_since(Instant::now());
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    Moving,
    /// The source ended; what was written must go out first. `clean`: with a `close_notify`.
    Closing {
        clean: bool,
    },
    Done,
    /// The destination takes no more; what it still has to say goes on.
    Refused,
}

#[derive(Debug, Default)]
struct Direction {
    state: State,
    bytes: u64,
    unflushed: bool,
    /// A write found the destination's connection broken, which the kernel says once.
    broke: bool,
}

/// The source broke off.
struct Broken;

/// What a direction needs besides the two ends.
struct Turn<'a> {
    /// Whose bytes they are.
    side: Side,
    /// The source's connection did, so that an end of its TCP is none.
    broke: bool,
    feed: &'a mut Feed,
    parting: Option<&'a mut Parting>,
}

impl Turn<'_> {
    fn due(&self) -> Option<Word> {
        match self.side {
            Side::Client => None,
            Side::Server => self.parting.as_ref()?.due(),
        }
    }

    fn reach(&self, bytes: &[u8]) -> usize {
        match (self.side, &self.parting) {
            (Side::Server, Some(parting)) => parting.reach(bytes),
            (Side::Client, _) | (_, None) => bytes.len(),
        }
    }

    fn passed(&mut self, bytes: &[u8]) {
        if let Some(parting) = &mut self.parting {
            parting.passed(self.side, bytes);
        }
        self.feed.bytes(self.side, bytes);
    }
}

#[derive(Debug, Default)]
struct Flow {
    up: Direction,
    down: Direction,
    /// Who spoke last.
    last: Option<Side>,
    /// Of HTTP/2.
    parting: Option<Box<Parting>>,
}

impl Flow {
    fn moved(&self) -> u64 {
        self.up.bytes.wrapping_add(self.down.bytes)
    }

    fn say_goodbye(&mut self) {
        if let Some(parting) = &mut self.parting {
            parting.forget();
        }
        for direction in [&mut self.up, &mut self.down] {
            if direction.state == State::Moving {
                direction.state = State::Closing { clean: true };
            }
        }
    }

    /// Nothing more of the client's goes to the server.
    fn is_parting(&self) -> bool {
        self.up.state == State::Moving && self.parting.as_ref().is_some_and(|p| p.has_closed())
    }

    /// The client was told so, or can't be told anything any more.
    fn has_parted(&self) -> bool {
        let told = self.parting.as_ref().is_some_and(|p| p.due().is_none());
        self.is_parting() && (told || self.down.state == State::Refused)
    }

    /// Ready when the connection is over.
    fn poll<C: Peer, S: Peer>(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut C,
        server: &mut S,
        feed: &mut Feed,
    ) -> Poll<Closing> {
        let before = (self.up.bytes, self.down.bytes);
        let up = if self.is_parting() {
            Poll::Pending
        } else {
            let parting = self.parting.as_deref_mut();
            let turn = &mut Turn { side: Side::Client, broke: self.down.broke, feed, parting };
            self.up.poll(cx, client, server, turn)
        };
        let down = if let Poll::Ready(Err(Broken)) = up {
            Poll::Pending
        } else {
            let parting = self.parting.as_deref_mut();
            let turn = &mut Turn { side: Side::Server, broke: self.up.broke, feed, parting };
            self.down.poll(cx, server, client, turn)
        };
        if self.up.bytes != before.0 {
            self.last = Some(Side::Client);
        } else if self.down.bytes != before.1 {
            self.last = Some(Side::Server);
        }
        let by = match (up, down) {
            (Poll::Ready(Err(Broken)), _) => Side::Client,
            (_, Poll::Ready(Err(Broken))) => Side::Server,
            (Poll::Pending, _) | (_, Poll::Pending) => return Poll::Pending,
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                if self.up.state == State::Refused {
                    Side::Server
                } else if self.down.state == State::Refused {
                    Side::Client
                } else {
                    return Poll::Ready(Closing::Orderly);
                }
            }
        };
        client.abort();
        server.abort();
        Poll::Ready(Closing::By(by))
    }
}

impl Direction {
    /// Ready when nothing more can move this way.
    fn poll<F: Peer, T: Peer>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        turn: &mut Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            match (self.state, turn.due()) {
                (State::Moving, Some(word)) => ready!(self.poll_part(cx, to, word, turn)),
                (State::Closing { .. }, Some(word)) if word.has_begun() => {
                    ready!(self.poll_part(cx, to, word, turn));
                }
                (State::Moving, None) => ready!(self.poll_move(cx, from, to, turn))?,
                (State::Closing { clean }, _) => {
                    let closed = self.poll_flush(cx, to).map_ok(|()| ());
                    let closed = match closed {
                        Poll::Ready(Ok(())) if clean => Pin::new(&mut *to).poll_shutdown(cx),
                        Poll::Ready(Ok(())) => to.poll_bare_close(cx),
                        Poll::Ready(Err(_)) | Poll::Pending => closed,
                    };
                    // A peer that is gone already needs no goodbye.
                    let _ = ready!(closed).inspect_err(|e| self.note(e));
                    self.state = State::Done;
                }
                (State::Done | State::Refused, _) => return Poll::Ready(Ok(())),
            }
        }
    }

    /// One chunk. Ready when there may be more to do.
    fn poll_move<F: Peer, T: Peer>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut F,
        to: &mut T,
        turn: &mut Turn<'_>,
    ) -> Poll<Result<(), Broken>> {
        let (side, broke) = (turn.side, turn.broke);
        let chunk = match Pin::new(&mut *from).poll_fill_buf(cx) {
            Poll::Ready(Ok(chunk)) => chunk,
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof && !broke => {
                turn.feed.end(side, false);
                self.state = State::Closing { clean: false };
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
            Poll::Pending => {
                if let Poll::Ready(Err(e)) = self.poll_flush(cx, to) {
                    self.note(&e);
                    self.state = State::Refused;
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
        };
        if chunk.is_empty() && broke && !F::SAYS_GOODBYE {
            return Poll::Ready(Err(Broken));
        }
        if chunk.is_empty() {
            turn.feed.end(side, true);
            self.state = State::Closing { clean: true };
            return Poll::Ready(Ok(()));
        }
        let chunk = chunk.get(..turn.reach(chunk)).unwrap_or(chunk);
        match ready!(Pin::new(&mut *to).poll_write(cx, chunk)) {
            Ok(n @ 1..) => {
                let n = n.min(chunk.len());
                let written = chunk.get(..n).unwrap_or(chunk);
                turn.passed(written);
                Pin::new(&mut *from).consume(n);
                self.bytes = self.bytes.wrapping_add(n as u64);
                self.unflushed = true;
            }
            Ok(0) => self.state = State::Refused,
            Err(e) => {
                self.note(&e);
                self.state = State::Refused;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says some of what is due between two frames.
    fn poll_part<T: Peer>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut T,
        word: Word,
        turn: &mut Turn<'_>,
    ) -> Poll<()> {
        match ready!(Pin::new(to).poll_write(cx, word.rest(&word.frame()))) {
            Ok(n @ 1..) => {
                if let Some(parting) = &mut turn.parting {
                    parting.said(n);
                }
                self.unflushed = true;
            }
            Ok(0) => self.state = State::Refused,
            Err(e) => {
                self.note(&e);
                self.state = State::Refused;
            }
        }
        Poll::Ready(())
    }

    fn note(&mut self, error: &io::Error) {
        self.broke |= is_break(error);
    }

    fn poll_flush<T: Peer>(&mut self, cx: &mut Context<'_>, to: &mut T) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
