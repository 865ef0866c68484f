//! Reads `text/event-stream` as it arrives, by the rules of the HTML standard, with a cap.

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
        let room = self.max_event.saturating_add(FIELD_ROOM).saturating_sub(self.line.len());
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
                let value = String::from_utf8_lossy(value);
                self.truncated |= !push(&mut self.data, &value, self.max_event);
                self.truncated |= self.line_truncated;
            }
            b"event" => {
                self.name.clear();
                push(&mut self.name, &String::from_utf8_lossy(value), MAX_NAME);
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

/// Appends what fits; false when something did not.
fn push(to: &mut String, text: &str, cap: usize) -> bool {
    let fits = text.floor_char_boundary(cap.saturating_sub(to.len()));
    to.push_str(text.get(..fits).unwrap_or_default());
    fits == text.len()
}
