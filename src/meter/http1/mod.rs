//! Follows one HTTP/1.x connection: heads, bodies, pipelining, upgrades.
//!
//! Requests queue until a response takes them. Bytes that can't be understood yet (a response
//! before its request, a client's bytes behind an upgrade that is not answered) are held, within
//! [`MAX_HEAD`], so the order in which the two directions are fed does not matter.

mod again;
mod head;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use super::http::{Cut, Follower, GaveUp, HttpEvent, Side, StreamId};
use crate::framing::{Body, Broken, Step};
pub use again::{Search, asks_again};
use head::Collector;

/// Longest message head, and most bytes held back; longer ones end the following.
pub const MAX_HEAD: usize = 256 * 1024;
/// Requests that wait for a response at once.
pub const MAX_PIPELINED: usize = 256;

type Sink<'s> = dyn FnMut(HttpEvent<'_>) + 's;

/// A follower of one HTTP/1.x connection.
#[derive(Debug, Default)]
pub struct Http1 {
    gave_up: bool,
    next: StreamId,
    client: Half,
    server: Half,
    /// Requests whose final response has not begun.
    pending: VecDeque<Pending>,
    /// The stream that owns the connection after an upgrade.
    tunnel: Option<StreamId>,
    first_ended: Option<Side>,
    /// A stream that was cut while the other direction may still speak of it.
    cut: Option<StreamId>,
}

impl Http1 {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl From<Broken> for GaveUp {
    fn from(_: Broken) -> Self {
        Self::BadFraming
    }
}

#[derive(Debug)]
struct Pending {
    stream: StreamId,
    method: Method,
    /// Asked for another protocol: what the client sends next depends on the answer.
    switches: bool,
}

/// What of the method matters for framing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Method {
    Head,
    Connect,
    Other,
}

/// One direction.
#[derive(Debug, Default)]
struct Half {
    head: Collector,
    body: Option<(StreamId, Body)>,
    held: Vec<u8>,
    ended: bool,
}

impl Follower for Http1 {
    fn feed(&mut self, side: Side, bytes: &[u8], sink: &mut dyn FnMut(HttpEvent<'_>)) {
        if self.gave_up || self.half(side).ended {
            return;
        }
        if let Err(reason) = self.take(side, bytes, sink) {
            self.give_up(reason, sink);
        }
    }

    fn finish(&mut self, side: Side, sink: &mut dyn FnMut(HttpEvent<'_>)) {
        if self.gave_up || self.half(side).ended {
            return;
        }
        let blamed = *self.first_ended.get_or_insert(side);
        self.half(side).ended = true;
        self.half(side).held = Vec::new();
        match side {
            Side::Client => self.finish_client(blamed, sink),
            Side::Server => self.finish_server(blamed, sink),
        }
    }

    fn is_asking(&self) -> bool {
        !self.client.head.is_empty() || !self.client.held.is_empty()
    }
}

impl Http1 {
    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn give_up(&mut self, reason: GaveUp, sink: &mut Sink<'_>) {
        *self = Self { gave_up: true, ..Self::default() };
        sink(HttpEvent::GaveUp { reason });
    }

    /// Whether the bytes of `side` can't be understood before the other side has spoken.
    fn blocked(&self, side: Side) -> bool {
        if self.tunnel.is_some() {
            return false;
        }
        match side {
            Side::Client => {
                self.client.body.is_none() && self.pending.back().is_some_and(|last| last.switches)
            }
            Side::Server => self.server.body.is_none() && self.pending.is_empty(),
        }
    }

    fn take(&mut self, side: Side, mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), GaveUp> {
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        while !bytes.is_empty() {
            if self.blocked(side) {
                let held = &mut self.half(side).held;
                if held.len() + bytes.len() > MAX_HEAD {
                    return Err(GaveUp::BadFraming);
                }
                held.extend_from_slice(bytes);
                return Ok(());
            }
            bytes = match side {
                Side::Client => self.client_step(bytes, sink)?,
                Side::Server => self.server_step(bytes, sink)?,
            };
            if !self.half(other).held.is_empty() && !self.blocked(other) {
                // No deeper than this: what `side` still has to say is in `bytes`, not held.
                let held = std::mem::take(&mut self.half(other).held);
                self.take(other, &held, sink)?;
            }
        }
        Ok(())
    }

    fn client_step<'b>(
        &mut self,
        bytes: &'b [u8],
        sink: &mut Sink<'_>,
    ) -> Result<&'b [u8], GaveUp> {
        if let Some((stream, body)) = &mut self.client.body {
            let stream = *stream;
            let (step, rest) = body.step(bytes)?;
            let ended = body.is_over(&step);
            if let Step::Data(data) = step {
                self.say(stream, HttpEvent::RequestBody { stream, data }, sink);
            }
            if ended {
                self.client.body = None;
                self.say(stream, HttpEvent::RequestEnd { stream }, sink);
            }
            return Ok(rest);
        }
        if let Some(stream) = self.tunnel {
            let side = Side::Client;
            self.say(stream, HttpEvent::Tunnelled { stream, side, data: bytes }, sink);
            return Ok(&[]);
        }
        let (complete, rest) = match self.client.head.push(bytes) {
            Ok(pushed) => pushed,
            Err(reason) => {
                let begun = self.client.head.take();
                let raw = if begun.is_empty() { bytes.trim_ascii_start() } else { &begun };
                return self.unread(raw, reason, sink);
            }
        };
        let Some(raw) = complete else { return Ok(rest) };
        let head::Request { head, body, method, switches } = match head::request(&raw) {
            Ok(request) => request,
            Err(reason) => return self.unread(&raw, reason, sink),
        };
        if self.pending.len() >= MAX_PIPELINED {
            return Err(GaveUp::TooManyStreams);
        }
        let stream = self.next;
        self.next += 1;
        self.pending.push_back(Pending { stream, method, switches });
        sink(HttpEvent::Request { stream, head });
        match body {
            Some(body) => self.client.body = Some((stream, body)),
            None => sink(HttpEvent::RequestEnd { stream }),
        }
        Ok(rest)
    }

    /// A request's head that can't be followed: what was asked is told all the same, if its first line
    /// says it.
    fn unread<T>(&self, raw: &[u8], reason: GaveUp, sink: &mut Sink<'_>) -> Result<T, GaveUp> {
        if let Some(head) = head::first_line(raw) {
            sink(HttpEvent::Request { stream: self.next, head });
        }
        Err(reason)
    }

    fn server_step<'b>(
        &mut self,
        bytes: &'b [u8],
        sink: &mut Sink<'_>,
    ) -> Result<&'b [u8], GaveUp> {
        if let Some(stream) = self.tunnel {
            let side = Side::Server;
            self.say(stream, HttpEvent::Tunnelled { stream, side, data: bytes }, sink);
            return Ok(&[]);
        }
        if let Some((stream, body)) = &mut self.server.body {
            let stream = *stream;
            let (step, rest) = body.step(bytes)?;
            let ended = body.is_over(&step);
            if let Step::Data(data) = step {
                self.say(stream, HttpEvent::ResponseBody { stream, data }, sink);
            }
            if ended {
                self.server.body = None;
                self.say(stream, HttpEvent::ResponseEnd { stream }, sink);
            }
            return Ok(rest);
        }
        let Some(front) = self.pending.front() else { return Ok(&[]) };
        let (stream, method) = (front.stream, front.method);
        let (complete, rest) = self.server.head.push(bytes)?;
        let Some(raw) = complete else { return Ok(rest) };
        let head::Response { head, body, switched } = head::response(&raw, method)?;
        let status = head.status;
        if (100..200).contains(&status) && !switched {
            self.say(stream, HttpEvent::Informational { stream, status }, sink);
            return Ok(rest);
        }
        self.pending.pop_front();
        self.say(stream, HttpEvent::Response { stream, head }, sink);
        if switched {
            self.upgrade(stream, sink)?;
        } else if let Some(body) = body {
            self.server.body = Some((stream, body));
        } else {
            self.say(stream, HttpEvent::ResponseEnd { stream }, sink);
        }
        Ok(rest)
    }

    fn upgrade(&mut self, stream: StreamId, sink: &mut Sink<'_>) -> Result<(), GaveUp> {
        if !self.pending.is_empty() {
            return Err(GaveUp::BadFraming);
        }
        self.tunnel = Some(stream);
        self.say(stream, HttpEvent::Upgraded { stream }, sink);
        // A switch that nobody asked for: what looked like the start of a head was not.
        let data = self.client.head.take();
        if !data.is_empty() {
            let side = Side::Client;
            self.say(stream, HttpEvent::Tunnelled { stream, side, data: &data }, sink);
        }
        Ok(())
    }

    /// Passes `event` on, unless its stream was cut before.
    fn say(&self, stream: StreamId, event: HttpEvent<'_>, sink: &mut Sink<'_>) {
        if self.cut != Some(stream) {
            sink(event);
        }
    }

    fn finish_client(&mut self, blamed: Side, sink: &mut Sink<'_>) {
        self.client.head = Collector::default();
        if let Some((stream, _)) = self.client.body {
            self.cut_once(stream, blamed, sink);
            self.client.body = None;
        }
        if self.server.ended {
            self.cut_pending(blamed, sink);
        }
    }

    fn finish_server(&mut self, blamed: Side, sink: &mut Sink<'_>) {
        self.server.head = Collector::default();
        if let Some(stream) = self.tunnel {
            self.say(stream, HttpEvent::ResponseEnd { stream }, sink);
            return;
        }
        match self.server.body.take() {
            // After the client has gone, the end says nothing about the message.
            Some((stream, Body::UntilEof)) if blamed == Side::Server => {
                self.say(stream, HttpEvent::ResponseEnd { stream }, sink);
            }
            Some((stream, _)) => self.cut_once(stream, blamed, sink),
            None => {}
        }
        self.cut_pending(blamed, sink);
        self.client.held = Vec::new();
    }

    fn cut_pending(&mut self, blamed: Side, sink: &mut Sink<'_>) {
        while let Some(pending) = self.pending.pop_front() {
            self.cut_once(pending.stream, blamed, sink);
        }
    }

    fn cut_once(&mut self, stream: StreamId, blamed: Side, sink: &mut Sink<'_>) {
        if self.cut == Some(stream) {
            return;
        }
        // Only the stream whose body the client is in the middle of can speak again.
        if self.client.body.as_ref().is_some_and(|body| body.0 == stream) {
            self.cut = Some(stream);
        }
        sink(HttpEvent::Cut { stream, cut: Cut::Eof(blamed) });
    }
}
