//! Follows one HTTP/2 connection: streams, header blocks, data. Never answers, never judges flow
//! control or priorities: the peers do that.

mod frame;
mod hpack;
mod huffman;
#[cfg(test)]
pub(in crate::meter) mod tests;

use std::collections::BTreeMap;

use super::http::{
    Cut, Follower, GaveUp, Headers, HttpEvent, RequestHead, ResponseHead, Side, StreamId,
};
use frame::{Reader, Seen};
use hpack::Hpack;

/// Streams that are followed at once; beyond them, each is lost by itself.
pub const MAX_STREAMS: usize = 1024;
/// … and that may be open at all.
const MAX_OPEN: usize = 16 * MAX_STREAMS;

type Sink<'s> = dyn FnMut(HttpEvent<'_>) + 's;

/// A follower of one HTTP/2 connection.
#[derive(Debug)]
pub struct Http2 {
    gave_up: bool,
    client: Half,
    server: Half,
    streams: BTreeMap<u32, Stream>,
    /// How many of those are lost.
    lost: usize,
    /// Highest stream that the client has opened; lower ones that are not in `streams` are over.
    opened: u32,
    /// From the server's GOAWAY: the last stream it will answer, and why.
    last_answered: Option<(u32, u32)>,
    first_ended: Option<Side>,
}

#[derive(Debug)]
struct Half {
    frames: Reader,
    hpack: Hpack,
    ended: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    connect: bool,
    tunnel: bool,
    /// Nothing more is said of it; it is known so that its end is.
    lost: bool,
    request_ended: bool,
    responded: bool,
    response_ended: bool,
}

impl Http2 {
    #[must_use]
    pub fn new() -> Self {
        let half =
            |preface| Half { frames: Reader::new(preface), hpack: Hpack::new(), ended: false };
        Self {
            gave_up: false,
            client: half(true),
            server: half(false),
            streams: BTreeMap::new(),
            lost: 0,
            opened: 0,
            last_answered: None,
            first_ended: None,
        }
    }
}

impl Default for Http2 {
    fn default() -> Self {
        Self::new()
    }
}

impl Follower for Http2 {
    fn feed(&mut self, side: Side, bytes: &[u8], sink: &mut dyn FnMut(HttpEvent<'_>)) {
        if self.gave_up || self.half(side).ended {
            return;
        }
        if let Err(reason) = self.take(side, bytes, sink) {
            // Frees the tables and streams: nothing of them is of use any more.
            *self = Self { gave_up: true, ..Self::new() };
            sink(HttpEvent::GaveUp { reason });
        }
    }

    fn finish(&mut self, side: Side, sink: &mut dyn FnMut(HttpEvent<'_>)) {
        if self.gave_up || self.half(side).ended {
            return;
        }
        self.half(side).ended = true;
        let blamed = *self.first_ended.get_or_insert(side);
        // Without the server nothing ends well; without the client, what it had asked in full may.
        let hopeless = self.server.ended;
        let over: Vec<u32> = self
            .streams
            .iter()
            .filter(|(_, state)| hopeless || !state.request_ended)
            .map(|(stream, _)| *stream)
            .collect();
        for stream in over {
            self.cut(stream, Cut::Eof(blamed), sink);
        }
    }

    fn is_asking(&self) -> bool {
        self.lost > 0 || (!self.client.ended && self.client.frames.is_within())
    }
}

impl Http2 {
    fn half(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn take(&mut self, side: Side, mut bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), GaveUp> {
        while !bytes.is_empty() {
            let (seen, rest) = self.half(side).frames.step(bytes)?;
            bytes = rest;
            match seen {
                None => {}
                Some(Seen::Data { stream, data, end }) => self.data(side, stream, data, end, sink),
                Some(Seen::Block { stream, end_stream, promise }) => {
                    let half = self.half(side);
                    let block = half.frames.take_block();
                    // Always decoded, whoever it is for: the table depends on it.
                    let (fields, whole) = half.hpack.decode(&block)?;
                    half.frames.reuse(block);
                    match side {
                        _ if promise => {}
                        Side::Client => self.request(stream, &fields, whole, end_stream, sink)?,
                        Side::Server => self.response(stream, &fields, whole, end_stream, sink)?,
                    }
                }
                Some(Seen::TableSize(size)) => match side {
                    Side::Client => self.server.hpack.allow(size),
                    Side::Server => self.client.hpack.allow(size),
                },
                Some(Seen::Reset { stream, code }) => {
                    self.cut(stream, Cut::Reset { by: side, code }, sink);
                }
                // A client's GOAWAY is about promised streams, which are not followed.
                Some(Seen::GoAway { last, code }) if side == Side::Server => {
                    self.last_answered = Some((last, code));
                    let beyond = last.saturating_add(1)..;
                    let beyond: Vec<u32> = self.streams.range(beyond).map(|(s, _)| *s).collect();
                    for stream in beyond {
                        self.cut(stream, Cut::Reset { by: Side::Server, code }, sink);
                    }
                }
                Some(Seen::GoAway { .. }) => {}
            }
        }
        Ok(())
    }

    fn request(
        &mut self,
        stream: u32,
        fields: &Headers,
        whole: bool,
        end: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), GaveUp> {
        if stream <= self.opened {
            // Trailers, or the rest of a stream that is over.
            if end {
                self.end(stream, Side::Client, sink);
            }
            return Ok(());
        }
        if self.streams.len() >= MAX_OPEN {
            return Err(GaveUp::TooManyStreams);
        }
        self.opened = stream;
        let followed = self.streams.len().saturating_sub(self.lost);
        let head = request_head(fields).ok_or(GaveUp::BadHead)?;
        let connect = head.method == "CONNECT";
        self.streams.insert(stream, Stream { connect, ..Stream::default() });
        sink(HttpEvent::Request { stream: StreamId::from(stream), head });
        if !whole {
            self.lose(stream, GaveUp::HeadTooLarge, sink);
        } else if followed >= MAX_STREAMS {
            self.lose(stream, GaveUp::TooManyStreams, sink);
        }
        if let Some((last, code)) = self.last_answered
            && stream > last
        {
            self.cut(stream, Cut::Reset { by: Side::Server, code }, sink);
        } else if end {
            self.end(stream, Side::Client, sink);
        }
        Ok(())
    }

    fn response(
        &mut self,
        stream: u32,
        fields: &Headers,
        whole: bool,
        end: bool,
        sink: &mut Sink<'_>,
    ) -> Result<(), GaveUp> {
        // Unknown: reset by the client meanwhile, or promised.
        let Some(state) = self.streams.get_mut(&stream) else { return Ok(()) };
        let id = StreamId::from(stream);
        // Of one that is lost, only the end counts.
        if state.responded && !state.lost && !state.tunnel && !state.response_ended {
            sink(HttpEvent::Trailers { stream: id, fields });
        } else if !state.responded && !state.lost {
            let head = response_head(fields).ok_or(GaveUp::BadHead)?;
            let status = head.status;
            if (100..200).contains(&status) {
                sink(HttpEvent::Informational { stream: id, status });
                return Ok(());
            }
            state.responded = true;
            state.tunnel = state.connect && (200..300).contains(&status);
            let tunnel = state.tunnel;
            sink(HttpEvent::Response { stream: id, head });
            if !whole {
                self.lose(stream, GaveUp::HeadTooLarge, sink);
            } else if tunnel {
                sink(HttpEvent::Upgraded { stream: id });
            }
        }
        if end {
            self.end(stream, Side::Server, sink);
        }
        Ok(())
    }

    fn data(&mut self, side: Side, stream: u32, data: &[u8], end: bool, sink: &mut Sink<'_>) {
        let Some(state) = self.streams.get(&stream) else { return };
        let id = StreamId::from(stream);
        let over = match side {
            Side::Client => state.request_ended,
            Side::Server => state.response_ended || !(state.responded || state.lost),
        };
        if over {
            return;
        }
        if !data.is_empty() && !state.lost {
            sink(match side {
                _ if state.tunnel => HttpEvent::Tunnelled { stream: id, side, data },
                Side::Client => HttpEvent::RequestBody { stream: id, data },
                Side::Server => HttpEvent::ResponseBody { stream: id, data },
            });
        }
        if end {
            self.end(stream, side, sink);
        }
    }

    /// `side` has ended its half of `stream`.
    fn end(&mut self, stream: u32, side: Side, sink: &mut Sink<'_>) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        let id = StreamId::from(stream);
        let (ended, event) = match side {
            Side::Client => (&mut state.request_ended, HttpEvent::RequestEnd { stream: id }),
            Side::Server => (&mut state.response_ended, HttpEvent::ResponseEnd { stream: id }),
        };
        if !std::mem::replace(ended, true) && !state.lost {
            sink(event);
        }
        if state.request_ended && state.response_ended {
            self.forget(stream);
        }
    }

    fn cut(&mut self, stream: u32, cut: Cut, sink: &mut Sink<'_>) {
        if self.forget(stream).is_some_and(|state| !state.lost) {
            sink(HttpEvent::Cut { stream: StreamId::from(stream), cut });
        }
    }

    fn lose(&mut self, stream: u32, reason: GaveUp, sink: &mut Sink<'_>) {
        let Some(state) = self.streams.get_mut(&stream) else { return };
        state.lost = true;
        self.lost += 1;
        sink(HttpEvent::Lost { stream: StreamId::from(stream), reason });
    }

    fn forget(&mut self, stream: u32) -> Option<Stream> {
        let state = self.streams.remove(&stream)?;
        self.lost = self.lost.saturating_sub(usize::from(state.lost));
        Some(state)
    }
}

fn request_head(fields: &Headers) -> Option<RequestHead> {
    let mut head = RequestHead::default();
    for (name, value) in fields.iter() {
        match name {
            b":method" => head.method = text(value),
            b":path" => head.target = text(value),
            b":authority" => head.authority = Some(text(value)),
            b":protocol" => head.protocol = Some(text(value)),
            [b':', ..] => {}
            [..] => head.headers.push(name, value),
        }
    }
    head.authority = head.authority.or_else(|| head.headers.get("host").map(str::to_owned));
    (!head.method.is_empty()).then_some(head)
}

fn response_head(fields: &Headers) -> Option<ResponseHead> {
    let status = fields.get(":status")?.parse().ok()?;
    let headers = fields.iter().filter(|(name, _)| !name.starts_with(b":")).collect();
    Some(ResponseHead { status, headers })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
