//! Picks a few values out of JSON that streams by, without holding the rest.
//!
//! Prompts, images and embeddings are most of the bytes and none of the meaning here, so bodies are
//! not kept: strings are skipped at memchr's speed, and only the values at the wanted paths are
//! copied, up to a cap. The scanner does not validate; what is not JSON yields nothing.

mod paths;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use memchr::memchr2;
use serde_json::Value;

pub use paths::Paths;
use paths::{Place, ROOT};

/// A wanted value may have this many bytes …
const MAX_VALUE: usize = 256 * 1024;
/// … and a document this many values and bytes of them in all.
const MAX_VALUES: usize = 4096;
const MAX_TOTAL: usize = 1024 * 1024;
/// Keys longer than this are not ours.
const MAX_KEY: usize = 128;
/// Wanted paths are at most this deep.
const MAX_DEPTH: usize = 8;
/// Most of the values and keys that are wanted are not longer.
const SHORT: usize = 64;
/// Most documents have not more of them.
const FEW: usize = 16;
/// Longest capture whose room is kept for the next.
const MAX_SPARE: usize = 4096;

/// The values found in one document, in order.
#[derive(Clone, Debug, Default)]
pub struct Found {
    values: Vec<(usize, Value)>,
    cut: bool,
}

impl Found {
    /// The last value at the path with this index in [`Paths::new`]; `null` counts as absent.
    #[must_use]
    pub fn last(&self, index: usize) -> Option<&Value> {
        self.values.iter().rev().find(|(i, v)| *i == index && !v.is_null()).map(|(_, v)| v)
    }

    pub fn all(&self, index: usize) -> impl Iterator<Item = &Value> {
        self.values.iter().filter(move |(i, _)| *i == index).map(|(_, v)| v)
    }

    /// Takes in what was found otherwise, in place of an earlier one.
    pub fn set(&mut self, index: usize, value: Value) {
        self.values.retain(|(known, _)| *known != index);
        self.values.push((index, value));
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// There was more than is kept of one document.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }
}

/// Scans one or more documents: NDJSON and whitespace between documents are fine, and the elements
/// of a top-level array are documents themselves (Gemini streams such arrays).
#[derive(Debug)]
pub struct Scanner {
    paths: Arc<Paths>,
    stack: Vec<Frame>,
    /// Containers open below the innermost frame, where nothing is wanted.
    skipped: usize,
    lexer: Lexer,
    key: Key,
    capture: Option<Capture>,
    /// The room of an earlier capture.
    spare: Vec<u8>,
    found: Found,
    total: usize,
    /// Something of the current document has been seen.
    begun: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lexer {
    Between,
    Text {
        escaped: bool,
        key: bool,
    },
    /// A number, `true`, `false`, `null`.
    Bare,
}

#[derive(Debug)]
struct Frame {
    object: bool,
    /// An object's next string is a key.
    key_next: bool,
    place: Place,
    /// Of the value that comes next; `None`: nothing in it is wanted.
    value: Option<Place>,
}

#[derive(Debug, Default)]
struct Key {
    bytes: Vec<u8>,
    escapes: bool,
}

#[derive(Debug)]
struct Capture {
    path: usize,
    bytes: Vec<u8>,
    /// Containers open inside the captured value.
    depth: usize,
    overflow: bool,
}

impl Scanner {
    #[must_use]
    pub fn new(paths: Arc<Paths>) -> Self {
        Self {
            paths,
            stack: Vec::new(),
            skipped: 0,
            lexer: Lexer::Between,
            key: Key::default(),
            capture: None,
            spare: Vec::new(),
            found: Found::default(),
            total: 0,
            begun: false,
        }
    }

    /// Feeds bytes; `sink` gets the finds of each document that ends in them, and may take them away.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&mut Found)) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.whole() > 0 {
                rest = self.read_on(rest, sink);
                continue;
            }
            match self.lexer {
                Lexer::Text { escaped: true, key } => {
                    self.keep(&[byte], key);
                    self.lexer = Lexer::Text { escaped: false, key };
                    rest = after;
                }
                Lexer::Text { escaped: false, key } => {
                    let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    let (text, tail) = rest.split_at(end);
                    self.keep(text, key);
                    rest = tail;
                    let Some((&stop, after)) = tail.split_first() else { continue };
                    rest = after;
                    if stop == b'\\' {
                        self.key.escapes |= key;
                        self.keep(&[stop], key);
                        self.lexer = Lexer::Text { escaped: true, key };
                    } else {
                        self.lexer = Lexer::Between;
                        if key {
                            self.end_key();
                        } else {
                            self.keep(&[stop], false);
                            self.end_value(sink);
                        }
                    }
                }
                Lexer::Bare => {
                    let end = rest.iter().position(|&b| ends_bare(b)).unwrap_or(rest.len());
                    let (text, tail) = rest.split_at(end);
                    self.keep(text, false);
                    rest = tail;
                    if !tail.is_empty() {
                        // The delimiter is not part of the value: looked at again below.
                        self.lexer = Lexer::Between;
                        self.end_value(sink);
                    }
                }
                Lexer::Between => {
                    self.between(byte, sink);
                    rest = after;
                }
            }
        }
    }

    /// No more bytes: hands out what was found of a document that was cut off.
    pub fn finish(&mut self, sink: &mut dyn FnMut(&mut Found)) {
        if self.lexer == Lexer::Bare {
            self.lexer = Lexer::Between;
            self.end_value(sink);
        }
        if self.begun {
            self.end_document(sink);
        }
        self.stack.clear();
        self.skipped = 0;
        self.capture = None;
        self.lexer = Lexer::Between;
    }

    /// Containers open in the value that is picked or passed over as a whole.
    fn whole(&self) -> usize {
        self.capture.as_ref().map_or(self.skipped, |capture| capture.depth)
    }

    /// Reads such a value, to its end if that is among these bytes; returns what is behind.
    fn read_on<'b>(&mut self, bytes: &'b [u8], sink: &mut dyn FnMut(&mut Found)) -> &'b [u8] {
        let mut depth = self.whole();
        let mut rest = bytes;
        while depth > 0 && !rest.is_empty() {
            let stop;
            (stop, rest) = match self.lexer {
                Lexer::Text { escaped: true, .. } => behind(rest, Some(0)),
                Lexer::Text { escaped: false, .. } => behind(rest, memchr2(b'"', b'\\', rest)),
                Lexer::Between | Lexer::Bare => {
                    behind(rest, rest.iter().position(|&b| begins_or_ends(b)))
                }
            };
            let text = |escaped| Lexer::Text { escaped, key: false };
            self.lexer = match (self.lexer, stop) {
                (Lexer::Text { escaped: true, .. }, _) => text(false),
                (Lexer::Text { escaped: false, .. }, Some(b'\\')) => text(true),
                (Lexer::Text { escaped: false, .. }, None)
                | (Lexer::Between | Lexer::Bare, Some(b'"')) => text(false),
                (Lexer::Between | Lexer::Bare, Some(b'{' | b'[')) => {
                    depth += 1;
                    Lexer::Between
                }
                (Lexer::Between | Lexer::Bare, Some(_)) => {
                    depth -= 1;
                    Lexer::Between
                }
                (Lexer::Text { escaped: false, .. }, Some(_))
                | (Lexer::Between | Lexer::Bare, None) => Lexer::Between,
            };
        }
        let read = bytes.len() - rest.len();
        match &mut self.capture {
            Some(capture) => {
                capture.push(bytes.get(..read).unwrap_or_default());
                capture.depth = depth;
            }
            None => self.skipped = depth,
        }
        if depth == 0 {
            self.end_value(sink);
        }
        rest
    }

    fn between(&mut self, byte: u8, sink: &mut dyn FnMut(&mut Found)) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {}
            // A byte order mark before a document.
            0xEF | 0xBB | 0xBF if self.stack.is_empty() => {}
            b'"' => {
                let key = self.stack.last().is_some_and(|frame| frame.object && frame.key_next);
                if key {
                    self.key.clear();
                } else {
                    self.begin_value();
                    self.keep(b"\"", false);
                }
                self.lexer = Lexer::Text { escaped: false, key };
            }
            b'{' | b'[' => self.open(byte),
            b'}' | b']' => {
                if self.stack.pop().is_some() {
                    self.end_value(sink);
                }
            }
            b':' => {}
            b',' => {
                if let Some(frame) = self.stack.last_mut() {
                    frame.key_next = frame.object;
                }
            }
            _ => {
                self.begin_value();
                self.keep(&[byte], false);
                self.lexer = Lexer::Bare;
            }
        }
    }

    fn open(&mut self, byte: u8) {
        if self.stack.is_empty() && !self.begun && byte == b'[' {
            return; // The elements of a top-level array are the documents.
        }
        self.begin_value();
        if let Some(capture) = &mut self.capture {
            capture.depth = 1;
            capture.push(&[byte]);
            return;
        }
        let Some(place) = self.next_place().filter(|_| self.stack.len() < MAX_DEPTH) else {
            self.skipped = 1;
            return;
        };
        let object = byte == b'{';
        let value = if object { None } else { self.paths.each(place) };
        self.stack.push(Frame { object, key_next: object, place, value });
    }

    /// A value starts here; is it one that is wanted?
    fn begin_value(&mut self) {
        self.begun = true;
        let full = self.found.values.len() >= MAX_VALUES || self.total >= MAX_TOTAL;
        if let Some(path) = self.next_place().and_then(|place| self.paths.path(place)) {
            if full {
                self.found.cut = true;
                return;
            }
            let mut bytes = std::mem::take(&mut self.spare);
            bytes.reserve(SHORT);
            self.capture = Some(Capture { path, bytes, depth: 0, overflow: false });
        }
    }

    fn end_value(&mut self, sink: &mut dyn FnMut(&mut Found)) {
        if let Some(mut capture) = self.capture.take() {
            self.total += capture.bytes.len();
            if !capture.overflow
                && let Some(value) = value(&capture.bytes)
            {
                self.found.values.push((capture.path, value));
            }
            if capture.bytes.capacity() <= MAX_SPARE {
                capture.bytes.clear();
                self.spare = capture.bytes;
            }
        }
        match self.stack.last_mut() {
            Some(frame) if frame.object => frame.value = None,
            Some(_) => {}
            None => self.end_document(sink),
        }
    }

    fn end_document(&mut self, sink: &mut dyn FnMut(&mut Found)) {
        self.begun = false;
        self.total = 0;
        sink(&mut self.found);
        self.found.cut = false;
        self.found.values.clear();
        self.found.values.shrink_to(FEW);
    }

    fn end_key(&mut self) {
        let key = self.key.text();
        let Some(frame) = self.stack.last_mut() else { return };
        frame.key_next = false;
        frame.value = key.and_then(|key| self.paths.key(frame.place, &key));
    }

    /// Where the value that comes next is.
    fn next_place(&self) -> Option<Place> {
        self.stack.last().map_or(Some(ROOT), |frame| frame.value)
    }

    fn keep(&mut self, bytes: &[u8], key: bool) {
        if key {
            if self.key.bytes.len() + bytes.len() <= MAX_KEY {
                self.key.bytes.extend_from_slice(bytes);
            } else {
                // Too long to be wanted: make it something that no path names.
                self.key.bytes.clear();
                self.key.bytes.push(0);
            }
        } else if let Some(capture) = &mut self.capture {
            capture.push(bytes);
        }
    }
}

/// Most are short strings, of which each event of a stream repeats some. What is not UTF-8 is repaired.
fn value(json: &[u8]) -> Option<Value> {
    let plain = |byte: &u8| !matches!(byte, b'\\' | b'"' | 0..0x20);
    match json {
        b"null" => Some(Value::Null),
        b"true" => Some(Value::Bool(true)),
        b"false" => Some(Value::Bool(false)),
        [b'"', text @ .., b'"'] if text.iter().all(plain) => Some(match str::from_utf8(text) {
            Ok(text) => text.into(),
            Err(_) => String::from_utf8_lossy(text).into(),
        }),
        _ => match str::from_utf8(json) {
            Ok(json) => serde_json::from_str(json).ok(),
            Err(_) => serde_json::from_str(&String::from_utf8_lossy(json)).ok(),
        },
    }
}

/// The byte at a place and what is behind it; nowhere: all has been passed.
fn behind(bytes: &[u8], place: Option<usize>) -> (Option<u8>, &[u8]) {
    let Some((byte, rest)) = place.and_then(|place| bytes.get(place..)?.split_first()) else {
        return (None, &[]);
    };
    (Some(*byte), rest)
}

/// A string, or a container.
const fn begins_or_ends(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
}

/// What follows a number, `true`, `false` or `null`.
const fn ends_bare(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')
}

impl Key {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.reserve(SHORT);
        self.escapes = false;
    }

    fn text(&self) -> Option<Cow<'_, str>> {
        if self.escapes {
            let mut quoted = Vec::with_capacity(self.bytes.len() + 2);
            quoted.push(b'"');
            quoted.extend_from_slice(&self.bytes);
            quoted.push(b'"');
            return serde_json::from_slice(&quoted).ok().map(Cow::Owned);
        }
        std::str::from_utf8(&self.bytes).ok().map(Cow::Borrowed)
    }
}

impl Capture {
    fn push(&mut self, bytes: &[u8]) {
        if self.overflow || self.bytes.len() + bytes.len() > MAX_VALUE {
            self.overflow = true;
            self.bytes = Vec::new();
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }
}
