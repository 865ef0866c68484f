//! Splits a streamed JSON array into its elements as they arrive (Gemini without `alt=sse`:
//! `[{…}\r\n,{…}]`). Values outside an array, one after another, are elements too.
//!
//! This finds where values end; whether they are valid is for the JSON parser to say.

use memchr::memchr2;

/// One top-level element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Item<'a> {
    /// Its bytes, without surrounding white space.
    pub json: &'a [u8],
    /// `json` is only the start: the rest was over the cap.
    pub truncated: bool,
}

/// An incremental splitter.
#[derive(Debug)]
pub struct Parser {
    max_item: usize,
    in_array: bool,
    state: State,
    /// What earlier feeds brought of the current element.
    partial: Vec<u8>,
    truncated: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Between elements.
    Between,
    /// In an object or array, this many deep.
    Nested(u32),
    /// In a string: to go back to `Nested`, or to `Between` at depth 0.
    Text(u32),
    /// Behind a backslash in a string.
    Escape(u32),
    /// In a number or a word.
    Bare,
}

impl Parser {
    /// `max_item_bytes` bounds what is kept of one element.
    #[must_use]
    pub const fn new(max_item_bytes: usize) -> Self {
        Self {
            max_item: max_item_bytes,
            in_array: false,
            state: State::Between,
            partial: Vec::new(),
            truncated: false,
        }
    }

    /// Feeds bytes of the body; `sink` receives the elements that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Item<'_>)) {
        loop {
            if self.state == State::Between {
                bytes = self.skip(bytes);
            }
            if bytes.is_empty() {
                return;
            }
            let Some(end) = self.scan(bytes) else {
                self.keep(bytes);
                return;
            };
            let (now, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            bytes = rest;
            if self.partial.is_empty() && !self.truncated && now.len() <= self.max_item {
                sink(Item { json: now, truncated: false });
            } else {
                self.keep(now);
                sink(Item { json: &self.partial, truncated: self.truncated });
                self.partial.clear();
                self.truncated = false;
            }
        }
    }

    /// Skips what lies between elements, and enters the one that begins.
    fn skip<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let Some((&first, rest)) = bytes.split_first() {
            match first {
                b'[' if !self.in_array => self.in_array = true,
                b']' => self.in_array = false,
                // White space, separators, closers that close nothing, a byte order mark.
                b' ' | b'\t' | b'\r' | b'\n' | b',' | b':' | b'}' | 0xef | 0xbb | 0xbf | 0x1e => {}
                b'{' | b'[' => {
                    self.state = State::Nested(0);
                    break;
                }
                b'"' => {
                    // The scan sees the quotation mark again and would take it for the end.
                    self.state = State::Nested(0);
                    break;
                }
                _ => {
                    self.state = State::Bare;
                    break;
                }
            }
            bytes = rest;
        }
        bytes
    }

    /// Finds the end of the current element.
    fn scan(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Text(depth) => {
                    let tail = bytes.get(at..).unwrap_or_default();
                    at += memchr2(b'"', b'\\', tail)?;
                    if bytes.get(at) == Some(&b'\\') {
                        self.state = State::Escape(depth);
                    } else if depth == 0 {
                        self.state = State::Between;
                        return Some(at + 1);
                    } else {
                        self.state = State::Nested(depth);
                    }
                }
                State::Escape(depth) => self.state = State::Text(depth),
                State::Nested(depth) => match byte {
                    b'"' => self.state = State::Text(depth),
                    b'{' | b'[' => self.state = State::Nested(depth.saturating_add(1)),
                    b'}' | b']' if depth <= 1 => {
                        self.state = State::Between;
                        return Some(at + 1);
                    }
                    b'}' | b']' => self.state = State::Nested(depth - 1),
                    _ => {}
                },
                State::Bare => {
                    if matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n') {
                        self.state = State::Between;
                        return Some(at);
                    }
                }
                State::Between => return Some(at),
            }
            at += 1;
        }
        None
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.max_item.saturating_sub(self.partial.len());
        let fits = bytes.get(..room).unwrap_or(bytes);
        self.truncated |= fits.len() < bytes.len();
        self.partial.extend_from_slice(fits);
    }
}
