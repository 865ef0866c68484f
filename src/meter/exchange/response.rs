//! The response's body: content coding off, framing off, one JSON unit after another to the reader.

use jiff::Timestamp;

use super::headers::codings;
use super::messages::Messages;
use crate::meter::bodies::Capture;
use crate::meter::http::{Headers, ResponseHead};
use crate::meter::surface::grpc;
use crate::meter::surface::scan::{Found, Scanner};
use crate::meter::surface::{self, Kind, Reader, Reading};
use crate::meter::{coding, connect_rpc, eventstream, sse};

/// Decoded response bytes that are looked at.
const MAX_DECODED: u64 = 4 * 1024 * 1024 * 1024;
/// What of an event is held. Longer ones are read piece by piece: the terminal event of the Responses
/// API repeats the whole output, images included.
const MAX_PIECE: usize = 64 * 1024;
/// A message of Amazon's has a checksum, and is held whole.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// Follows the response's body and knows what it said so far.
#[derive(Debug)]
pub(super) struct Response {
    decoder: Option<coding::Decoder>,
    framing: Framing,
    reader: Option<Box<dyn Reader>>,
    /// Files are served as anything.
    reads_any_media: bool,
    /// It may be such messages; once its head is there: it is.
    messages: Option<Messages>,
    pub(super) bytes: u64,
    /// The model that answers when the response names none.
    pub(super) model: Option<String>,
    /// Why the body can't be read (any more).
    unreadable: Option<coding::Error>,
    /// What of the framing could not be followed.
    flaw: Option<&'static str>,
    /// A range of what there is (206): the rest of a download that was cut.
    range: bool,
}

#[derive(Debug)]
enum Framing {
    /// Until the first byte that is not white space: `content-type` is sometimes missing or wrong.
    Undecided {
        /// It is called a stream of events.
        events: bool,
    },
    /// Each holds a document; the scanner begins anew with each.
    Events(sse::Parser, Box<Scanner>),
    Amazon(eventstream::Parser, Box<Scanner>),
    /// The scanner is for the last one.
    Envelopes(connect_rpc::Parser, Box<Scanner>),
    /// Each message becomes a document.
    Call(connect_rpc::Parser, Box<Scanner>, &'static grpc::Method),
    /// A document, several of them, or an array of them.
    Json(Box<Scanner>),
    Opaque,
}

impl Response {
    pub(super) fn new(kind: Option<Kind>) -> Self {
        Self {
            decoder: None,
            framing: Framing::Opaque,
            reader: surface::reader(kind),
            reads_any_media: matches!(kind, Some(Kind::Batch | Kind::BatchFile)),
            messages: None,
            bytes: 0,
            model: None,
            unreadable: None,
            flaw: None,
            range: false,
        }
    }

    /// The body is such messages, unless its type says otherwise.
    pub(super) fn read_messages(&mut self, messages: Messages) {
        self.messages = Some(messages);
    }

    pub(super) fn head(&mut self, head: &ResponseHead) {
        self.range = head.status == 206;
        if self.reader.is_none() {
            return;
        }
        match coding::Decoder::new(&codings(&head.headers), MAX_DECODED) {
            Ok(decoder) => self.decoder = Some(decoder),
            Err(why) => self.unreadable = Some(why),
        }
        let media = head.headers.get("content-type").unwrap_or_default().to_ascii_lowercase();
        self.messages = self.messages.filter(|messages| messages.are_in(&media));
        // Gateways give answers all kinds of names.
        let is_other = ["audio/", "image/", "video/"].iter().any(|kind| media.starts_with(kind));
        self.framing = if let Some(messages) = self.messages {
            self.failure(&head.headers);
            Framing::messages(messages, head.headers.get("grpc-encoding"))
        } else if media.contains("event-stream") {
            Framing::Undecided { events: true }
        } else if media.contains("vnd.amazon.eventstream") {
            Framing::amazon()
        } else if media.contains("json") {
            Framing::json()
        } else if is_other && !self.reads_any_media {
            Framing::Opaque
        } else {
            Framing::Undecided { events: false }
        };
    }

    /// How a call ended that did not fail at once.
    pub(super) fn trailers(&mut self, fields: &Headers) {
        if self.messages.is_some() {
            self.failure(fields);
        }
    }

    /// What a call that failed says in its head, or else behind its messages.
    fn failure(&mut self, fields: &Headers) {
        let status = fields.get("grpc-status").and_then(grpc::failure);
        if let (Some(status), Some(reader)) = (status, &mut self.reader) {
            let mut scanner = Scanner::new(surface::response_paths());
            failed(status, &mut scanner, reader.as_mut());
        }
    }

    pub(super) fn body(&mut self, data: &[u8], at: Timestamp, mut capture: Option<&mut Capture>) {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        let Some(mut decoder) = self.decoder.take() else { return };
        let (framing, reader) = (&mut self.framing, &mut self.reader);
        reader.iter_mut().for_each(|reader| reader.at(at));
        let flaw = &mut self.flaw;
        let result = decoder.feed(data, &mut |plain| {
            if let Some(reader) = reader {
                *flaw = flaw.or(framing.feed(plain, reader.as_mut(), capture.as_deref_mut()));
            }
        });
        match result {
            Ok(()) => self.decoder = Some(decoder),
            Err(why) => self.unreadable = Some(why),
        }
    }

    /// A message of a WebSocket instead of a body.
    pub(super) fn message(&mut self, found: &Found) {
        if let Some(reader) = &mut self.reader {
            reader.unit(None, found);
        }
    }

    /// The body is complete, or (`complete` = false) nothing more of it will come.
    pub(super) fn end(&mut self, complete: bool) {
        self.decoder = None;
        let whole = complete && !self.range && self.lossy().is_none();
        if let Some(reader) = &mut self.reader {
            self.framing.finish(complete, reader.as_mut());
            reader.end(whole);
        }
    }

    /// Why the reading may lack something that was there.
    pub(super) fn lossy(&self) -> Option<String> {
        match self.unreadable {
            Some(why) => Some(why.to_string()),
            None => self.flaw.map(str::to_owned),
        }
    }

    /// The model that was asked for.
    pub(super) fn asked(&mut self, model: &str) {
        if let Some(reader) = &mut self.reader {
            reader.asked(model);
        }
    }

    pub(super) fn reading(&self) -> Reading {
        let mut reading = self.reader.as_ref().map(|reader| reader.reading()).unwrap_or_default();
        reading.model = reading.model.or_else(|| self.model.clone());
        reading
    }

    /// The surface that the response's shape gave away.
    pub(super) fn kind(&self) -> Option<Kind> {
        self.reader.as_ref().and_then(|reader| reader.kind())
    }

    pub(super) fn is_event_stream(&self) -> bool {
        match self.framing {
            Framing::Events(..) | Framing::Amazon(..) | Framing::Envelopes(..) => true,
            Framing::Call(_, _, method) => method.stream,
            Framing::Undecided { events } => events,
            Framing::Json(_) | Framing::Opaque => false,
        }
    }
}

impl Framing {
    fn events() -> Self {
        let scanner = Scanner::new(surface::response_paths());
        Self::Events(sse::Parser::new(MAX_PIECE), Box::new(scanner))
    }

    fn amazon() -> Self {
        let scanner = Scanner::new(surface::response_paths());
        Self::Amazon(eventstream::Parser::new(MAX_EVENT), Box::new(scanner))
    }

    fn messages(messages: Messages, compression: Option<&str>) -> Self {
        let scanner = Box::new(Scanner::new(surface::response_paths()));
        let parser = connect_rpc::Parser::new(messages.longest()).compressed_by(compression);
        match messages {
            Messages::Cursor => Self::Envelopes(parser, scanner),
            Messages::Call(method) if method.is_read() => Self::Call(parser, scanner, method),
            Messages::Call(_) => Self::Opaque,
        }
    }

    fn json() -> Self {
        Self::Json(Box::new(Scanner::new(surface::response_paths())))
    }

    /// Says what could not be followed.
    fn feed(
        &mut self,
        mut plain: &[u8],
        reader: &mut dyn Reader,
        mut capture: Option<&mut Capture>,
    ) -> Option<&'static str> {
        // What is not text is kept as if it were a stream of text.
        if let (false, Some(capture)) = (matches!(self, Self::Amazon(..)), &mut capture) {
            capture.response(plain);
        }
        if let Self::Undecided { events } = *self {
            // A byte order mark says nothing. A line that begins with a space is one of a stream, if a
            // senseless one.
            let blank = |byte: u8| {
                matches!(byte, b'\r' | b'\n' | 0xEF | 0xBB | 0xBF)
                    || (!events && byte.is_ascii_whitespace())
            };
            let first = plain.iter().position(|byte| !blank(*byte))?;
            plain = plain.get(first..)?;
            *self = match plain.first()? {
                b'{' | b'[' => Self::json(),
                // A field's name or a comment.
                b'e' | b'd' | b'i' | b'r' | b':' => Self::events(),
                _ if events => Self::events(),
                _ => Self::Opaque,
            };
        }
        let mut truncated = false;
        match self {
            Self::Events(parser, scanner) => {
                parser.feed(plain, &mut |event| one_event(&event, scanner, reader));
            }
            Self::Amazon(parser, scanner) => {
                let fed = parser.feed(plain, &mut |message| {
                    truncated |= message.truncated;
                    one_message(&message, scanner, reader);
                    if let Some(capture) = &mut capture {
                        write_message(&message, capture);
                    }
                });
                if fed.is_err() {
                    return Some("the event stream is corrupt");
                }
            }
            Self::Envelopes(parser, scanner) => parser.feed(plain, &mut |envelope| {
                if envelope.last {
                    one_unit(Some(""), envelope.payload, scanner, reader);
                } else {
                    reader.binary(envelope.payload);
                }
            }),
            Self::Call(parser, scanner, method) => {
                let mut broken = false;
                // A message of many is read like an event.
                let name = method.stream.then_some("");
                parser.feed(plain, &mut |envelope| {
                    // How the stream ended, in gRPC for browsers, is no message.
                    if envelope.last {
                        if let Some(status) = grpc::ended(envelope.payload) {
                            failed(status, scanner, reader);
                        }
                    } else if let Some(json) = method.told(envelope.payload) {
                        one_unit(name, json.to_string().as_bytes(), scanner, reader);
                    } else {
                        broken = true;
                    }
                });
                if broken || parser.has_missed() {
                    return Some("a message could not be read");
                }
            }
            Self::Json(scanner) => scanner.feed(plain, &mut |found| reader.unit(None, found)),
            Self::Undecided { .. } | Self::Opaque => {}
        }
        truncated.then_some("an event was over the size cap")
    }

    fn finish(&mut self, complete: bool, reader: &mut dyn Reader) {
        match self {
            // Half an event is no event; half a document has a model and maybe more.
            Self::Events(..) if !complete => {}
            Self::Events(parser, scanner) => {
                parser.finish(&mut |event| one_event(&event, scanner, reader));
            }
            Self::Json(scanner) => scanner.finish(&mut |found| reader.unit(None, found)),
            Self::Amazon(..)
            | Self::Envelopes(..)
            | Self::Call(..)
            | Self::Undecided { .. }
            | Self::Opaque => {}
        }
    }
}

fn one_event(event: &sse::Event<'_>, scanner: &mut Scanner, reader: &mut dyn Reader) {
    if !event.continued && !event.more && event.data.trim_ascii() == b"[DONE]" {
        reader.done();
        return;
    }
    let unit = &mut |found: &mut Found| reader.unit(Some(event.name), found);
    scanner.feed(event.data, unit);
    if !event.more {
        scanner.finish(unit);
    }
}

fn one_message(message: &eventstream::Message<'_>, scanner: &mut Scanner, reader: &mut dyn Reader) {
    let name = message.name;
    if message.failure && message.payload.is_empty() {
        // All that it says is in its header fields.
        let error = serde_json::json!({"error": {"code": name}});
        return one_unit(Some(name), error.to_string().as_bytes(), scanner, reader);
    }
    // A model that is asked in its own way answers so, in a wrapper.
    match (name == "chunk").then(|| eventstream::chunk(message.payload)).flatten() {
        Some(inner) => one_unit(Some(name), &inner, scanner, reader),
        None => one_unit(Some(name), message.payload, scanner, reader),
    }
}

/// As a server-sent event.
fn write_message(message: &eventstream::Message<'_>, capture: &mut Capture) {
    let inner = (message.name == "chunk").then(|| eventstream::chunk(message.payload)).flatten();
    capture.response(format!("event: {}\ndata: ", message.name).as_bytes());
    capture.response(inner.as_deref().unwrap_or(message.payload));
    capture.response(b"\n\n");
}

/// As the same API would say it over HTTP.
fn failed(status: &str, scanner: &mut Scanner, reader: &mut dyn Reader) {
    let error = serde_json::json!({"error": {"status": status}});
    one_unit(None, error.to_string().as_bytes(), scanner, reader);
}

fn one_unit(name: Option<&str>, json: &[u8], scanner: &mut Scanner, reader: &mut dyn Reader) {
    scanner.feed(json, &mut |found| reader.unit(name, found));
    scanner.finish(&mut |found| reader.unit(name, found));
}
