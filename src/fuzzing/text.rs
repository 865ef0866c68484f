//! What a body is made of: codings, events, JSON.

use std::sync::Arc;

use super::same;
use crate::meter::surface::scan::{Found, Paths, Scanner};
use crate::meter::{coding, eventstream, sse};

/// The first byte chooses how long a piece may be.
pub fn sse(data: &[u8]) {
    let Some((&cap, data)) = data.split_first() else { return };
    same(|size| {
        let mut out = Vec::new();
        let mut parser = sse::Parser::new(usize::from(cap));
        let mut sink = |event: sse::Event<'_>| {
            assert!(event.data.len() <= usize::from(cap).max(1));
            out.push((event.name.to_owned(), event.data.to_owned(), event.continued, event.more));
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
        let mut sink = |found: &mut Found| out.push(format!("{found:?}"));
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
        // How much came out before an error depends on the pieces, and so which of two errors comes
        // first; a good body does not.
        result.ok().map(|()| out)
    });
}

/// The first byte chooses the cap. If it is odd, records follow (two bytes for their length) that
/// become messages with their checksums, which no chance would come by.
pub fn eventstream(data: &[u8]) {
    let Some((&cap, data)) = data.split_first() else { return };
    let made;
    let data = if cap & 1 == 0 {
        data
    } else {
        made = messages(data);
        &made
    };
    same(|size| {
        let mut out = Vec::new();
        let mut parser = eventstream::Parser::new(usize::from(cap) * 8);
        for piece in data.chunks(size) {
            let fed = parser.feed(piece, &mut |message| {
                assert!(message.payload.len() <= usize::from(cap) * 8);
                let inner = eventstream::chunk(message.payload);
                out.push(format!("{message:?} {inner:?}"));
            });
            if fed.is_err() {
                out.push("corrupt".to_owned());
                break;
            }
        }
        out
    });
}

fn messages(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (record, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        out.extend(message(record));
        rest = after;
    }
    out
}

/// A message of an event stream: the first byte says how long its headers are, the payload follows.
pub(super) fn message(record: &[u8]) -> Vec<u8> {
    let (&length, rest) = record.split_first().unwrap_or((&0, &[]));
    let (headers, payload) = rest.split_at_checked(usize::from(length)).unwrap_or((rest, &[]));
    let checked = |bytes: &[u8]| {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum().to_be_bytes()
    };
    let long = |length: usize| u32::try_from(length).expect("short").to_be_bytes();
    let mut out = [long(16 + rest.len()), long(headers.len())].concat();
    out.extend(checked(&out));
    out.extend([headers, payload].concat());
    out.extend(checked(&out));
    out
}
