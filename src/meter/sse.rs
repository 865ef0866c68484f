//! Reads `text/event-stream` as it arrives, by the rules of the HTML standard, with a cap.

use std::borrow::Cow;

use memchr::memchr2;

/// Longest event name that is kept.
const MAX_NAME: usize = 256;
/// Room in the line buffer for what comes before the value.
const FIELD_ROOM: usize = 64;

/// One event of the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event<'a> {
    /// The `event` field, or empty.
    pub name: &'a str,
    /// The `data` lines, joined by line feeds.
    pub data: &'a str,
    /// `data` is only the start: the rest was over the cap.
    pub truncated: bool,
}

/// An incremental reader.
#[derive(Debug)]
pub struct Parser {
    max_event: usize,
    /// Bytes of a byte order mark that have matched; `None` behind the start of the stream.
    mark: Option<usize>,
    /// A carriage return ended the last line: a line feed that follows belongs to it.
    after_cr: bool,
    line: Vec<u8>,
    line_truncated: bool,
    name: String,
    data: String,
    has_data: bool,
    truncated: bool,
}

const MARK: &[u8] = b"\xef\xbb\xbf";

impl Parser {
    /// `max_event_bytes` bounds the data of one event.
    #[must_use]
    pub const fn new(max_event_bytes: usize) -> Self {
        Self {
            max_event: max_event_bytes,
            mark: Some(0),
            after_cr: false,
            line: Vec::new(),
            line_truncated: false,
            name: String::new(),
            data: String::new(),
            has_data: false,
            truncated: false,
        }
    }

    /// Feeds bytes of the body; `sink` receives the events that they complete.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        let mut bytes = self.skip_mark(bytes);
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                bytes = rest;
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes);
                return;
            };
            let (now, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            self.after_cr = rest.first() == Some(&b'\r');
            bytes = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() && !self.line_truncated {
                self.take_line(now, sink);
            } else {
                self.keep(now);
                self.take_kept(sink);
            }
        }
    }

    /// The stream is over: an event without its blank line is delivered too.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if !self.line.is_empty() {
            self.take_kept(sink);
        }
        self.dispatch(sink);
    }

    fn skip_mark<'b>(&mut self, mut bytes: &'b [u8]) -> &'b [u8] {
        while let (Some(seen), Some((first, rest))) = (self.mark, bytes.split_first()) {
            if MARK.get(seen) != Some(first) {
                // Not a mark after all, or behind it: what matched belongs to the first line.
                self.mark = None;
                if seen < MARK.len() {
                    self.keep(MARK.get(..seen).unwrap_or_default());
                }
                break;
            }
            self.mark = Some(seen + 1);
            bytes = rest;
        }
        bytes
    }

    fn keep(&mut self, bytes: &[u8]) {
        // As much as any field can use, so that a line in pieces says the same as a whole one.
        let most = self.max_event.max(MAX_NAME).saturating_add(FIELD_ROOM);
        let room = most.saturating_sub(self.line.len());
        let fits = bytes.get(..room).unwrap_or(bytes);
        self.line_truncated |= fits.len() < bytes.len();
        self.line.extend_from_slice(fits);
    }

    fn take_kept(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        let mut line = std::mem::take(&mut self.line);
        self.take_line(&line, sink);
        line.clear();
        self.line = line;
        self.line_truncated = false;
    }

    fn take_line(&mut self, line: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        if line.is_empty() {
            self.dispatch(sink);
            return;
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.truncated |= !push(&mut self.data, "\n", self.max_event);
                }
                self.truncated |= !push(&mut self.data, &text(value), self.max_event);
                self.truncated |= self.line_truncated;
            }
            b"event" => {
                self.name.clear();
                push(&mut self.name, &text(value), MAX_NAME);
            }
            // Comments (an empty field name), `id`, `retry` and what is unknown.
            _ => {}
        }
    }

    fn dispatch(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if self.has_data {
            sink(Event { name: &self.name, data: &self.data, truncated: self.truncated });
        }
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.truncated = false;
    }
}

/// Nearly all of it is valid, which is found out ten times faster than it is repaired.
fn text(value: &[u8]) -> Cow<'_, str> {
    str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed)
}

/// Appends what fits; false when something did not.
fn push(to: &mut String, text: &str, cap: usize) -> bool {
    let fits = text.floor_char_boundary(cap.saturating_sub(to.len()));
    to.push_str(text.get(..fits).unwrap_or_default());
    fits == text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (String, String, bool);

    fn parse<'a>(cap: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
        let mut parser = Parser::new(cap);
        let mut out = Vec::new();
        let mut sink = |e: Event<'_>| out.push((e.name.to_owned(), e.data.to_owned(), e.truncated));
        for piece in pieces {
            parser.feed(piece, &mut sink);
        }
        parser.finish(&mut sink);
        out
    }

    /// The events of `text`, the same at every split.
    fn events(cap: usize, text: &[u8]) -> Vec<Owned> {
        let whole = parse(cap, [text]);
        assert_eq!(parse(cap, text.chunks(1)), whole, "bytewise");
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(parse(cap, [a, b]), whole, "cut at {cut}");
        }
        whole
    }

    fn event(name: &str, data: &str) -> Owned {
        (name.to_owned(), data.to_owned(), false)
    }

    #[test]
    fn line_ends_of_all_three_kinds() {
        let expected = [event("a", "1"), event("", "2\n3"), event("", "4")];
        for end in ["\n", "\r\n", "\r"] {
            let text = ["event: a", "data: 1", "", "data:2", "data: 3", "", "", "data: 4", ""]
                .map(|line| line.to_owned() + end)
                .concat();
            assert_eq!(events(100, text.as_bytes()), expected, "{end:?}");
        }
        assert_eq!(events(100, b"event: a\rdata: 1\n\r\ndata:2\r\ndata: 3\n\ndata: 4"), expected);
    }

    #[test]
    fn fields_comments_and_what_is_no_event() {
        let text =
            b": ping\n\nevent: lonely\n\nid: 7\nretry: 10\nunknown: x\ndata\n\ndata:  two\n\n";
        assert_eq!(events(100, text), [event("", ""), event("", " two")]);
        // The name does not leak into the next event.
        let text = b"event: x\ndata: 1\n\ndata: 2\n\n";
        assert_eq!(events(100, text), [event("x", "1"), event("", "2")]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once() {
        assert_eq!(events(100, b"\xef\xbb\xbfdata: 1\n\n"), [event("", "1")]);
        assert_eq!(events(100, b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n"), []);
        // Half a mark is part of an unknown field.
        assert_eq!(events(100, b"\xef\xbbdata: 1\n\ndata: 2\n\n"), [event("", "2")]);
    }

    #[test]
    fn characters_split_anywhere_and_invalid_ones() {
        let text = "data: Grüße, 東京 🎌\n\n".as_bytes();
        assert_eq!(events(100, text), [event("", "Grüße, 東京 🎌")]);
        assert_eq!(events(100, b"data: a\xffb\n\n"), [event("", "a\u{fffd}b")]);
    }

    #[test]
    fn the_last_event_needs_no_blank_line_nor_line_end() {
        assert_eq!(events(100, b"data: 1\n"), [event("", "1")]);
        assert_eq!(events(100, b"data: 1"), [event("", "1")]);
        assert_eq!(events(100, b""), []);
    }

    #[test]
    fn too_long_an_event_is_cut_and_the_next_one_is_whole() {
        let long = format!("event: big\ndata: {}\ndata: more\n\ndata: ok\n\n", "x".repeat(500));
        let expected = [("big".to_owned(), "x".repeat(20), true), event("", "ok")];
        assert_eq!(events(20, long.as_bytes()), expected);
        // At a character's edge, and over several lines.
        let expected = [("".to_owned(), "é\né".to_owned(), true)];
        assert_eq!(events(6, "data: é\ndata: éé\n\n".as_bytes()), expected);
        // An over-long line that is no data does not taint the event.
        let text = format!(": {}\ndata: 1\n\n", "c".repeat(500));
        assert_eq!(events(20, text.as_bytes()), [event("", "1")]);
        // A name may be longer than the data.
        let name = "n".repeat(MAX_NAME);
        let text = format!("event: {name}n\ndata: 1\n\n");
        assert_eq!(events(1, text.as_bytes()), [event(&name, "1")]);
        // Exactly as long as allowed.
        assert_eq!(events(5, b"data: 12345\n\n"), [event("", "12345")]);
    }

    #[test]
    fn memory_stays_bounded() {
        let mut parser = Parser::new(1_000);
        for _ in 0..1_000 {
            parser.feed(&[b'x'; 1_000], &mut |_| {});
        }
        assert!(parser.line.len() <= 1_000 + FIELD_ROOM);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            text in proptest::collection::vec(
                prop_oneof![
                    Just(b"data: ".to_vec()), Just(b"event:".to_vec()), Just(b"\n".to_vec()),
                    Just(b"\r".to_vec()), Just(b"\xef\xbb\xbf".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..12),
                ],
                0..40,
            ),
            piece in 1_usize..20,
            cap in 0_usize..40,
        ) {
            let text = text.concat();
            prop_assert_eq!(parse(cap, text.chunks(piece)), parse(cap, [&text[..]]));
        }
    }
}
