//! Followers of a connection: what both sides said, as events.

use std::collections::BTreeMap;

use super::{pieces, same};
use crate::meter::http::{Follower, Headers, HttpEvent, Side, StreamId};
use crate::meter::{http1, http2};

pub fn http1(data: &[u8]) {
    follower(data, || Box::new(http1::Http1::new()));
}

pub fn http2(data: &[u8]) {
    follower(data, || Box::new(http2::Http2::new()));
}

/// Header blocks of one connection, without the frames around them: a record for each block, its tag
/// says who speaks. The first byte is the size of the table that is allowed, in units of 512.
pub fn hpack(data: &[u8]) {
    let Some((&table, script)) = data.split_first() else { return };
    same(|size| {
        let mut transcript = Transcript::default();
        let mut follower = http2::Http2::new();
        let mut say = |side, bytes: &[u8]| {
            follower.feed(side, bytes, &mut |event| transcript.add(&event));
        };
        let settings = settings(u32::from(table) * 512);
        say(Side::Client, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat());
        say(Side::Server, &settings);
        let mut stream = 1;
        pieces(script, usize::MAX, |side, block| {
            let Some(block) = block else {
                stream += 2;
                return;
            };
            // In CONTINUATIONs, at most some hundred of them.
            let parts: Vec<&[u8]> = block.chunks(size.max(block.len() / 256).max(1)).collect();
            for (n, part) in parts.iter().enumerate() {
                let kind = if n == 0 { 1 } else { 9 };
                let flags = if n + 1 == parts.len() { 4 } else { 0 };
                say(side, &frame(kind, flags, stream, part));
            }
        });
        transcript.lines()
    });
}

fn settings(table: u32) -> Vec<u8> {
    frame(4, 0, 0, &[&[0, 1][..], &table.to_be_bytes()].concat())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[..], &[kind, flags], &stream, payload].concat()
}

fn follower(data: &[u8], make: impl Fn() -> Box<dyn Follower>) {
    same(|size| {
        let mut transcript = Transcript::default();
        let mut follower = make();
        pieces(data, size, |side, piece| match piece {
            Some(piece) => follower.feed(side, piece, &mut |event| transcript.add(&event)),
            None => follower.finish(side, &mut |event| transcript.add(&event)),
        });
        transcript.lines()
    });
}

/// What a follower said, with adjacent body pieces joined; checks the promises of [`HttpEvent`].
#[derive(Debug, Default)]
pub struct Transcript {
    lines: Vec<String>,
    body: Option<(&'static str, StreamId, Vec<u8>)>,
    streams: BTreeMap<StreamId, Promises>,
    gave_up: bool,
}

#[derive(Debug, Default)]
struct Promises {
    request_ended: bool,
    responded: bool,
    response_ended: bool,
    tunnel: bool,
    over: bool,
}

impl Transcript {
    pub fn add(&mut self, event: &HttpEvent<'_>) {
        assert!(!self.gave_up, "said something after giving up: {event:?}");
        let line = match *event {
            HttpEvent::RequestBody { stream, data } => {
                assert!(!self.stream(stream).request_ended, "{event:?}");
                return self.add_body("request-body", stream, data);
            }
            HttpEvent::ResponseBody { stream, data } => {
                let promises = self.stream(stream);
                assert!(promises.responded && !promises.response_ended, "{event:?}");
                return self.add_body("response-body", stream, data);
            }
            HttpEvent::Tunnelled { stream, side, data } => {
                assert!(self.stream(stream).tunnel, "{event:?}");
                let kind = match side {
                    Side::Client => "client",
                    Side::Server => "server",
                };
                return self.add_body(kind, stream, data);
            }
            HttpEvent::Request { stream, ref head } => {
                let before = self.streams.insert(stream, Promises::default());
                assert!(before.is_none(), "a second request: {event:?}");
                let fields = fields(&head.headers);
                let authority = head.authority.as_deref().unwrap_or("-");
                let protocol = head.protocol.as_deref().unwrap_or("-");
                format!(
                    "{stream} request {} {} {authority} {protocol} [{fields}]",
                    head.method, head.target
                )
            }
            HttpEvent::RequestEnd { stream } => {
                let promises = self.stream(stream);
                assert!(!std::mem::replace(&mut promises.request_ended, true), "{event:?}");
                promises.over = promises.response_ended;
                format!("{stream} request-end")
            }
            HttpEvent::Informational { stream, status } => {
                assert!(!self.stream(stream).responded, "{event:?}");
                format!("{stream} informational {status}")
            }
            HttpEvent::Response { stream, ref head } => {
                let promises = self.stream(stream);
                assert!(!std::mem::replace(&mut promises.responded, true), "{event:?}");
                format!("{stream} response {} [{}]", head.status, fields(&head.headers))
            }
            HttpEvent::Trailers { stream, fields: trailers } => {
                let promises = self.stream(stream);
                assert!(promises.responded && !promises.response_ended, "{event:?}");
                format!("{stream} trailers [{}]", fields(trailers))
            }
            HttpEvent::ResponseEnd { stream } => {
                let promises = self.stream(stream);
                assert!(!std::mem::replace(&mut promises.response_ended, true), "{event:?}");
                promises.over = promises.request_ended;
                format!("{stream} response-end")
            }
            HttpEvent::Upgraded { stream } => {
                self.stream(stream).tunnel = true;
                format!("{stream} upgraded")
            }
            HttpEvent::Cut { stream, cut } => {
                self.stream(stream).over = true;
                format!("{stream} cut {cut:?}")
            }
            HttpEvent::Lost { stream, reason } => {
                let promises = self.stream(stream);
                promises.over = true;
                promises.tunnel = false;
                format!("{stream} lost: {reason:?}")
            }
            HttpEvent::GaveUp { reason } => {
                self.gave_up = true;
                format!("gave up: {reason:?}")
            }
        };
        self.end_body();
        self.lines.push(line);
    }

    /// One line per event; bodies as escaped text.
    #[must_use]
    pub fn lines(mut self) -> Vec<String> {
        self.end_body();
        self.lines
    }

    fn stream(&mut self, stream: StreamId) -> &mut Promises {
        let promises = self.streams.get_mut(&stream).expect("an event before its request");
        // A tunnel's client may speak on after its request, and the server's end is its own.
        assert!(!promises.over || promises.tunnel, "{stream} said something after its end");
        promises
    }

    fn add_body(&mut self, kind: &'static str, stream: StreamId, data: &[u8]) {
        assert!(!data.is_empty(), "an empty piece");
        match &mut self.body {
            Some((k, s, body)) if *k == kind && *s == stream => body.extend_from_slice(data),
            Some(_) | None => {
                self.end_body();
                self.body = Some((kind, stream, data.to_vec()));
            }
        }
    }

    fn end_body(&mut self) {
        if let Some((kind, stream, body)) = self.body.take() {
            self.lines.push(format!("{stream} {kind} {}", body.escape_ascii()));
        }
    }
}

fn fields(fields: &Headers) -> String {
    let field = |(name, value): (&[u8], &[u8])| {
        format!("{}: {}", name.escape_ascii(), value.escape_ascii())
    };
    fields.iter().map(field).collect::<Vec<_>>().join("; ")
}
