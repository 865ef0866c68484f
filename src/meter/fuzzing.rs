//! Entry points for `fuzz/` and for the tests that replay its corpus. Each feeds the same bytes in
//! different pieces and panics when what comes out depends on the pieces, or breaks a promise.

mod connect;
mod sockets;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::http::{Follower, HttpEvent, Side, StreamId};
use super::surface::scan::{Found, Paths, Scanner};
use super::{coding, http1, http2, sse};
pub use connect::connect;
pub use sockets::{eventstream, turns, websocket};

/// Ways of cutting the input: as it is, bytewise, and in pieces of a few odd lengths.
const PIECES: [usize; 5] = [usize::MAX, 1, 2, 7, 61];

pub fn http1(data: &[u8]) {
    follower(data, || Box::new(http1::Http1::new()));
}

pub fn http2(data: &[u8]) {
    follower(data, || Box::new(http2::Http2::new()));
}

/// The first byte chooses the cap.
pub fn sse(data: &[u8]) {
    let Some((&cap, data)) = data.split_first() else { return };
    same(|size| {
        let mut out = Vec::new();
        let mut parser = sse::Parser::new(usize::from(cap));
        let mut sink = |event: sse::Event<'_>| {
            assert!(event.data.len() <= usize::from(cap));
            out.push((event.name.to_owned(), event.data.to_owned(), event.truncated));
        };
        for piece in data.chunks(size) {
            parser.feed(piece, &mut sink);
        }
        parser.finish(&mut sink);
        out
    });
}

/// JSON, a streamed JSON array or JSON lines, as a provider's body is read.
pub fn scan(data: &[u8]) {
    let paths = Paths::new(&["model", "usage", "usageMetadata", "error.type", "choices[].delta"]);
    same(|size| {
        let mut out = Vec::new();
        let mut scanner = Scanner::new(Arc::clone(&paths));
        let mut sink = |found: Found| out.push(format!("{found:?}"));
        for piece in data.chunks(size) {
            scanner.feed(piece, &mut sink);
        }
        scanner.finish(&mut sink);
        out
    });
}

/// The first byte chooses the codings.
pub fn coding(data: &[u8]) {
    const NAMES: [&str; 6] = ["gzip", "deflate", "br", "zstd", "gzip, br", "zstd, gzip"];
    const CAP: u64 = 1 << 20;
    let Some((&choice, data)) = data.split_first() else { return };
    let name = NAMES.get(usize::from(choice) % NAMES.len()).copied().unwrap_or_default();
    same(|size| {
        let mut out = Vec::new();
        let mut decoder = coding::Decoder::new(name, CAP).expect("a known coding");
        let mut result = Ok(());
        for piece in data.chunks(size) {
            result = result.and(decoder.feed(piece, &mut |bytes| out.extend_from_slice(bytes)));
        }
        assert!(out.len() as u64 <= CAP);
        // How much came out before an error depends on the pieces; a good body does not.
        result.map(|()| out)
    });
}

/// Runs `run` for each way of cutting and compares.
fn same<T: PartialEq + std::fmt::Debug>(run: impl Fn(usize) -> T) {
    let mut first = None;
    for size in PIECES {
        let result = run(size);
        match &first {
            None => first = Some(result),
            Some(first) => assert_eq!(&result, first, "in pieces of {size}"),
        }
    }
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

/// `data` is a script of records: a tag (bit 0: the server speaks, bit 1: it ends), and unless it is
/// an end, a length (two bytes, big-endian) and so many bytes.
fn pieces(data: &[u8], size: usize, mut each: impl FnMut(Side, Option<&[u8]>)) {
    let mut rest = data;
    while let Some((&tag, after)) = rest.split_first() {
        let side = if tag & 1 == 0 { Side::Client } else { Side::Server };
        rest = after;
        if tag & 2 != 0 {
            each(side, None);
            continue;
        }
        let Some((length, after)) = rest.split_first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        let (now, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        rest = after;
        now.chunks(size).for_each(|piece| each(side, Some(piece)));
    }
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
                let fields = fields(&head.headers.0);
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
                format!("{stream} response {} [{}]", head.status, fields(&head.headers.0))
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

fn fields(fields: &[(String, Vec<u8>)]) -> String {
    let fields: Vec<_> =
        fields.iter().map(|(name, value)| format!("{name}: {}", value.escape_ascii())).collect();
    fields.join("; ")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    fn folder(target: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
    }

    pub(super) fn replay(target: &str, entry: fn(&[u8])) {
        let mut files = 0;
        for file in std::fs::read_dir(folder(target)).unwrap() {
            entry(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "no corpus for {target}");
    }

    #[test]
    fn corpus_http1() {
        replay("http1", super::http1);
    }

    #[test]
    fn corpus_http2() {
        replay("http2", super::http2);
    }

    #[test]
    fn corpus_sse() {
        replay("sse", super::sse);
    }

    #[test]
    fn corpus_scan() {
        replay("scan", super::scan);
    }

    #[test]
    fn corpus_coding() {
        replay("coding", super::coding);
    }

    /// Writes what `follower` reads; no bytes: the side ends.
    pub(crate) fn script(acts: &[(Side, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (side, bytes) in acts {
            let tag = match side {
                Side::Client => 0,
                Side::Server => 1,
            };
            if bytes.is_empty() {
                out.push(tag | 2);
            } else {
                out.push(tag);
                out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
                out.extend(bytes);
            }
        }
        out
    }

    /// A seed of the corpus is what the code says it is; with `WRITE_SEEDS` set it is made so.
    pub(crate) fn seed(target: &str, name: &str, bytes: &[u8]) {
        let path = folder(target).join(name);
        if std::env::var_os("WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(committed == bytes, "{target}/{name} is stale: run with WRITE_SEEDS=1");
    }

    /// The seeds for the HTTP followers are beside them.
    #[test]
    fn seeds_are_current() {
        const EVENTS: &str = "\u{feff}: hi\r\nevent: message_delta\r\ndata: {\"usage\":\r\n\
            data: {\"output_tokens\": 7}}\r\n\r\nid: 1\rdata: \u{1f38c}\r\rdata:x\ndata\n\ndata: end";
        seed("sse", "mixed", format!("\u{60}{EVENTS}").as_bytes());
        seed("sse", "over-cap", format!("\u{8}{EVENTS}").as_bytes());
        const ARRAY: &str = "[{\"usageMetadata\": {\"totalTokenCount\": 7, \"x\": \"]}\\\"\"}}\r\n,\r\n\
            {\"model\": \"m\", \"error\": {\"type\": \"t\"}}, \"s\", 12 ,null,[]]\r\n";
        const LINES: &str = "{\"choices\": [{\"delta\": {\"a\": [1.5e3]}}, {}], \"usage\": null}\n\
            {\"usage\":{\"n\":-1}}";
        seed("scan", "array", ARRAY.as_bytes());
        seed("scan", "lines", LINES.as_bytes());

        let text = EVENTS.repeat(3).into_bytes();
        let level = flate2::Compression::default();
        let coded = |choice: u8, name: &str, bytes: &[u8]| {
            seed("coding", name, &[&[choice], bytes].concat());
        };
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let brotli = |bytes: &[u8]| {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes).unwrap();
            encoder.into_inner()
        };
        coded(0, "gzip", &gzip(&text));
        coded(0, "gzip-members", &[gzip(b"one"), gzip(b"two"), vec![0; 9]].concat());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
        zlib.write_all(&text).unwrap();
        coded(1, "zlib", &zlib.finish().unwrap());
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), level);
        raw.write_all(&text).unwrap();
        coded(1, "deflate", &raw.finish().unwrap());
        coded(2, "br", &brotli(&text));
        coded(3, "zstd", &zstd::stream::encode_all(&text[..], 3).unwrap());
        coded(4, "gzip-br", &brotli(&gzip(&text)));
        let zstd = zstd::stream::encode_all(&text[..], 3).unwrap();
        coded(5, "zstd-gzip", &gzip(&zstd));
    }
}
