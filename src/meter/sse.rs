//! Reads `text/event-stream` as it arrives, by the rules of the HTML standard. What is long is handed
//! out in pieces: images come in events of many megabytes, with the usage behind them.

use memchr::memchr2;

/// Longest event name that is kept.
const MAX_NAME: usize = 256;
/// Of a line that is no data so much is held: a name, and room for what comes before it.
const MAX_LINE: usize = MAX_NAME + 64;

/// One event of the stream, or a piece of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Event<'a> {
    /// The `event` field, or empty.
    pub name: &'a str,
    /// The `data` lines, joined by line feeds.
    pub data: &'a [u8],
    /// `data` goes on from the last piece …
    pub continued: bool,
    /// … and in the next one.
    pub more: bool,
}

/// An incremental reader.
#[derive(Debug)]
pub struct Parser {
    max_piece: usize,
    /// Bytes of a byte order mark that have matched; `None` behind the start of the stream.
    mark: Option<usize>,
    /// A carriage return ended the last line: a line feed that follows belongs to it.
    after_cr: bool,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// That line is data, which is not held there.
    in_data: bool,
    name: String,
    data: Vec<u8>,
    has_data: bool,
    continued: bool,
}

const MARK: &[u8] = b"\xef\xbb\xbf";

impl Parser {
    /// Data of more than `max_piece` bytes comes in pieces of so many.
    #[must_use]
    pub const fn new(max_piece: usize) -> Self {
        Self {
            max_piece: if max_piece == 0 { 1 } else { max_piece },
            mark: Some(0),
            after_cr: false,
            line: Vec::new(),
            in_data: false,
            name: String::new(),
            data: Vec::new(),
            has_data: false,
            continued: false,
        }
    }

    /// Feeds bytes of the body; `sink` receives the events that they complete, and pieces of long ones.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        let mut bytes = self.skip_mark(bytes, sink);
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr)
                && let Some(rest) = bytes.strip_prefix(b"\n")
            {
                bytes = rest;
                continue;
            }
            let Some(end) = memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes, sink);
                return;
            };
            let (now, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            self.after_cr = rest.first() == Some(&b'\r');
            bytes = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() && !self.in_data {
                self.take_line(now, sink);
            } else {
                self.keep(now, sink);
                self.take_kept(sink);
            }
        }
    }

    /// The stream is over: an event without its blank line is delivered too.
    pub fn finish(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if !self.line.is_empty() || self.in_data {
            self.take_kept(sink);
        }
        self.dispatch(sink);
    }

    fn skip_mark<'b>(&mut self, mut bytes: &'b [u8], sink: &mut dyn FnMut(Event<'_>)) -> &'b [u8] {
        while let (Some(seen), Some((first, rest))) = (self.mark, bytes.split_first()) {
            if MARK.get(seen) != Some(first) {
                // Not a mark after all, or behind it: what matched belongs to the first line.
                self.mark = None;
                if seen < MARK.len() {
                    self.keep(MARK.get(..seen).unwrap_or_default(), sink);
                }
                break;
            }
            self.mark = Some(seen + 1);
            bytes = rest;
        }
        bytes
    }

    /// A part of a line. Data is passed on at once; of other lines as much is held as any field can
    /// use, so that a line in pieces says the same as a whole one.
    fn keep(&mut self, bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        if self.in_data {
            return self.push(bytes, sink);
        }
        let room = MAX_LINE.saturating_sub(self.line.len());
        let (fits, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
        self.line.extend_from_slice(fits);
        // What is behind the colon may be the space that does not count: it has to be there.
        if self.line.len() > b"data:".len() && self.line.starts_with(b"data:") {
            self.take_kept(sink);
            self.in_data = true;
            self.push(rest, sink);
        }
    }

    fn take_kept(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if std::mem::take(&mut self.in_data) {
            return;
        }
        let mut line = std::mem::take(&mut self.line);
        self.take_line(&line, sink);
        line.clear();
        self.line = line;
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
                    self.push(b"\n", sink);
                }
                self.push(value, sink);
            }
            b"event" => {
                let name = String::from_utf8_lossy(value);
                let fits = name.floor_char_boundary(MAX_NAME);
                self.name.clear();
                self.name.push_str(name.get(..fits).unwrap_or_default());
            }
            // Comments (an empty field name), `id`, `retry` and what is unknown.
            _ => {}
        }
    }

    fn push(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Event<'_>)) {
        loop {
            let room = self.max_piece.saturating_sub(self.data.len());
            let (now, rest) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            self.data.extend_from_slice(now);
            if rest.is_empty() {
                return;
            }
            self.hand_out(true, sink);
            bytes = rest;
        }
    }

    fn dispatch(&mut self, sink: &mut dyn FnMut(Event<'_>)) {
        if std::mem::take(&mut self.has_data) {
            self.hand_out(false, sink);
        }
        self.name.clear();
    }

    fn hand_out(&mut self, more: bool, sink: &mut dyn FnMut(Event<'_>)) {
        let continued = std::mem::replace(&mut self.continued, more);
        sink(Event { name: &self.name, data: &self.data, continued, more });
        self.data.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (String, String, bool);

    fn parse<'a>(cap: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Owned> {
        let mut parser = Parser::new(cap);
        let mut out = Vec::new();
        let mut more = false;
        let mut sink = |e: Event<'_>| {
            assert!(e.data.len() <= cap.max(1));
            assert_eq!(e.continued, more);
            more = e.more;
            out.push((e.name.to_owned(), String::from_utf8_lossy(e.data).into_owned(), more));
        };
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
    fn too_long_an_event_comes_in_pieces_and_the_next_one_is_whole() {
        let piece = |name: &str, data: &str| (name.to_owned(), data.to_owned(), true);
        let x = "x".repeat(20);
        let long = format!("event: big\ndata: {x}{x}x\ndata: more\n\ndata: ok\n\n");
        let expected =
            [piece("big", &x), piece("big", &x), event("big", "x\nmore"), event("", "ok")];
        assert_eq!(events(20, long.as_bytes()), expected);
        // A line that is no data is none of it.
        let text = format!(": {}\ndata: 1\n\n", "c".repeat(500));
        assert_eq!(events(20, text.as_bytes()), [event("", "1")]);
        // A name may be longer than the data.
        let name = "n".repeat(MAX_NAME);
        let text = format!("event: {name}n\ndata: 1\n\n");
        assert_eq!(events(1, text.as_bytes()), [event(&name, "1")]);
        // Exactly as long as a piece, and one more.
        assert_eq!(events(5, b"data: 12345\n\n"), [event("", "12345")]);
        assert_eq!(events(5, b"data: 12345\ndata\n\n"), [piece("", "12345"), event("", "\n")]);
    }

    #[test]
    fn memory_stays_bounded() {
        for begin in ["", "data: ", "data: x\n\nevent: "] {
            let mut parser = Parser::new(1_000);
            parser.feed(begin.as_bytes(), &mut |_| {});
            for _ in 0..1_000 {
                parser.feed(&[b'x'; 1_000], &mut |_| {});
            }
            assert!(parser.line.capacity() <= 2 * MAX_LINE, "{begin:?}");
            assert!(parser.data.capacity() <= 2_000, "{begin:?}");
        }
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
