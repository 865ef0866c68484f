//! A text as its readers will read it: as it is, with escapes undone, and with what a stream tells in
//! pieces put together.
//!
//! One reading at a time, and none of them remembers where its bytes come from: bodies are long. Where
//! something was found the text is read once more.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use super::span::{Span, place};

/// Nesting that is followed; what is deeper counts as one level.
const MAX_DEPTH: usize = 128;
/// No secret that is known by its look, or by what is beside it, is shorter.
const SHORTEST: usize = 6;
/// The lane of strings that were read as one already.
const READ: u64 = 0;

/// Some reading of the text.
#[derive(Debug)]
pub(super) struct View<'t> {
    text: Cow<'t, str>,
    structured: bool,
    of: Of<'t>,
}

/// What it is a reading of.
#[derive(Debug)]
enum Of<'t> {
    /// It is the text itself.
    Text,
    /// What strings of the text say, one behind another.
    Strings(&'t str, &'t [Found]),
    /// Another reading with all escapes undone.
    View(&'t View<'t>),
}

/// Which character a text begins with and how many bytes stand for it, if that is not plain.
type Decode = fn(&str) -> Option<(char, usize)>;

impl View<'_> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether there is JSON around the strings.
    pub(super) const fn is_structured(&self) -> bool {
        self.structured
    }

    /// The pieces of the text that these come from; they are in order, without overlaps.
    pub(super) fn sources(&self, spans: Vec<Span>) -> Vec<Span> {
        match self.of {
            _ if spans.is_empty() => spans,
            Of::Text => spans,
            Of::View(view) => {
                let mut back = Back::new(&spans);
                back.read(&view.text, 0, flat);
                view.sources(back.found)
            }
            Of::Strings(text, strings) => {
                let mut back = Back::new(&spans);
                for string in strings {
                    back.read(string.of(text), string.start, json);
                }
                back.found
            }
        }
    }

    /// All escapes undone, however often they were done. `None`: there are none.
    fn flat(&self) -> Option<View<'_>> {
        let text = self.text.contains(['\\', '%']).then(|| {
            let mut text = String::with_capacity(self.text.len());
            decoded(&self.text, flat, |c, _| text.push(c));
            text
        })?;
        Some(View { text: text.into(), structured: self.structured, of: Of::View(self) })
    }
}

/// Shows all readings.
pub(super) fn each(text: &str, look: &mut dyn FnMut(&View<'_>)) {
    let (mut strings, structured) = strings(text);
    both(&View { text: text.into(), structured, of: Of::Text }, look);
    // The pieces of one string of a stream: by their place alone, and by all that tells them apart.
    strings.sort_unstable_by_key(|string| (string.place, string.start));
    for pieces in strings.chunk_by_mut(|a, b| a.place == b.place) {
        both(&joined(text, pieces), look);
        let lane = pieces.first().map(|first| first.lane);
        if pieces.iter().all(|piece| Some(piece.lane) == lane) {
            pieces.iter_mut().for_each(|piece| piece.lane = READ);
        }
    }
    strings.sort_unstable_by_key(|string| (string.lane, string.start));
    let lanes = strings.chunk_by(|a, b| a.lane == b.lane);
    lanes.filter(|pieces| pieces.iter().all(|piece| piece.lane != READ)).for_each(|pieces| {
        both(&joined(text, pieces), look);
    });
}

fn both(view: &View<'_>, look: &mut dyn FnMut(&View<'_>)) {
    // A list may have a million words.
    if view.text.len() < SHORTEST {
        return;
    }
    look(view);
    if let Some(flat) = view.flat() {
        look(&flat);
    }
}

fn joined<'t>(text: &'t str, strings: &'t [Found]) -> View<'t> {
    let mut said = String::with_capacity(strings.iter().map(|string| string.of(text).len()).sum());
    for string in strings.iter().map(|string| string.of(text)) {
        if string.contains('\\') {
            decoded(string, json, |c, _| said.push(c));
        } else {
            said.push_str(string);
        }
    }
    View { text: said.into(), structured: false, of: Of::Strings(text, strings) }
}

/// Finds out where parts of what was decoded come from.
struct Back<'s> {
    spans: &'s [Span],
    /// How much was decoded so far.
    at: u32,
    /// The last of `found` is of the first of `spans`.
    begun: bool,
    found: Vec<Span>,
}

impl<'s> Back<'s> {
    const fn new(spans: &'s [Span]) -> Self {
        Self { spans, at: 0, begun: false, found: Vec::new() }
    }

    /// Decodes once more what stands at `start`.
    fn read(&mut self, text: &str, start: u32, decode: Decode) {
        decoded(text, decode, |c, source| {
            let at = self.at;
            self.at += place(c.len_utf8());
            while let Some((span, rest)) = self.spans.split_first()
                && span.end <= at
            {
                (self.spans, self.begun) = (rest, false);
            }
            if let Some(span) = self.spans.first().filter(|span| span.start < self.at) {
                let (from, to) = (start + place(source.start), start + place(source.end));
                match self.found.last_mut().filter(|last| self.begun && last.end == from) {
                    Some(last) => last.end = to,
                    None => self.found.push(Span { start: from, end: to, class: span.class }),
                }
                self.begun = true;
            }
        });
    }
}

/// Tells each character and where it stands.
fn decoded(text: &str, decode: Decode, mut sink: impl FnMut(char, Range<usize>)) {
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let plain = || rest.chars().next().map(|c| (c, c.len_utf8()));
        let Some((c, length)) = decode(rest).or_else(plain) else { break };
        sink(c, at..at + length);
        at += length;
    }
}

/// JSON's escapes.
fn json(rest: &str) -> Option<(char, usize)> {
    rest.starts_with('\\').then(|| escape(rest, 1)).flatten()
}

/// Runs of backslashes as one, and `%XX`.
fn flat(rest: &str) -> Option<(char, usize)> {
    match rest.as_bytes() {
        [b'\\', ..] => {
            let run = rest.len() - rest.trim_start_matches('\\').len();
            // One that escapes nothing is taken as a whole: not to be counted again at each.
            escape(rest, run).or(Some(('\\', run)))
        }
        [b'%', high, low, ..] => {
            let (high, low) = (hex(*high)?, hex(*low)?);
            let byte = u8::try_from(high * 16 + low).ok()?;
            byte.is_ascii().then(|| (char::from(byte), 3))
        }
        _ => None,
    }
}

/// The character that an escape with so many backslashes stands for, and how long it is.
fn escape(text: &str, backslashes: usize) -> Option<(char, usize)> {
    let rest = text.get(backslashes..)?;
    let c = rest.chars().next()?;
    let simple = |meant: char| Some((meant, backslashes + c.len_utf8()));
    match c {
        'n' => simple('\n'),
        't' => simple('\t'),
        'r' => simple('\r'),
        'b' => simple('\u{8}'),
        'f' => simple('\u{c}'),
        'u' => {
            let digits = rest.get(1..5)?;
            let code = u32::from_str_radix(digits, 16).ok()?;
            // Halves of a pair are no part of any secret that we know.
            Some((char::from_u32(code).unwrap_or('\u{fffd}'), backslashes + 5))
        }
        other => simple(other),
    }
}

fn hex(digit: u8) -> Option<u32> {
    char::from(digit).to_digit(16)
}

/// A string that is a value in some JSON of the text.
#[derive(Debug)]
struct Found {
    /// Without its quotes.
    start: u32,
    end: u32,
    /// Its path, without positions in lists.
    place: u64,
    /// Its path with them, and whatever in its document says which of several streams it belongs to.
    lane: u64,
}

impl Found {
    fn of<'t>(&self, text: &'t str) -> &'t str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// The strings, but empty ones, of a text that is JSON, one document behind another, or lines of it
/// (`data: {…}`), and whether there are any.
fn strings(text: &str) -> (Vec<Found>, bool) {
    let mut found = Vec::new();
    let mut any = false;
    if text.trim_start().starts_with(['{', '[']) {
        any = Walker::new(text, 0, &mut found).documents();
        return (found, any);
    }
    let mut at = 0;
    for line in text.split_inclusive(['\n', '\r']) {
        let json = line.strip_prefix("data:").unwrap_or(line).trim_start();
        if json.starts_with(['{', '[']) {
            let start = at + line.len() - json.len();
            let text = text.get(..at + line.len()).unwrap_or_default();
            any |= Walker::new(text, start, &mut found).documents();
        }
        at += line.len();
    }
    (found, any)
}

/// Goes through JSON and minds nothing: what is broken or cut off gives what was there.
struct Walker<'t, 'f> {
    text: &'t str,
    at: usize,
    /// Where we are: for each level its name, and the position if it is a list.
    path: Vec<Level<'t>>,
    /// What tells the streams within one document apart.
    tags: u64,
    found: &'f mut Vec<Found>,
    /// Those of this document begin here.
    open: usize,
    any: bool,
}

#[derive(Clone, Copy, Debug)]
struct Level<'t> {
    key: &'t str,
    list: bool,
    position: usize,
}

impl<'t, 'f> Walker<'t, 'f> {
    const fn new(text: &'t str, at: usize, found: &'f mut Vec<Found>) -> Self {
        let open = found.len();
        Self { text, at, path: Vec::new(), tags: 0, found, open, any: false }
    }

    /// Whether there was a string.
    fn documents(mut self) -> bool {
        // Before a colon a string is a key.
        let mut value_next = true;
        while let Some(byte) = self.text.as_bytes().get(self.at).copied() {
            match byte {
                b'{' | b'[' => {
                    self.descend(byte == b'[');
                    value_next = byte == b'[';
                    self.at += 1;
                }
                b'}' | b']' => {
                    self.path.pop();
                    self.at += 1;
                    // The elements of a list on top are documents of their own.
                    if self.path.iter().all(|level| level.list) && self.path.len() <= 1 {
                        self.close();
                    }
                }
                b',' => {
                    if let Some(level) = self.path.last_mut() {
                        level.position += 1;
                        value_next = level.list;
                    }
                    self.at += 1;
                }
                b':' => {
                    value_next = true;
                    self.at += 1;
                }
                b'"' => {
                    let range = self.string();
                    if value_next {
                        self.value(range);
                    } else if let Some(level) = self.path.last_mut() {
                        level.key = self.text.get(range).unwrap_or_default();
                    }
                }
                b'0'..=b'9' => self.number(),
                _ => self.at += 1,
            }
        }
        self.close();
        self.any
    }

    fn descend(&mut self, list: bool) {
        if self.path.len() < MAX_DEPTH {
            self.path.push(Level { key: "", list, position: 0 });
        }
    }

    /// The string that begins here; afterwards we are behind it.
    fn string(&mut self) -> Range<usize> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut end = start;
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        let end = end.min(self.text.len());
        self.at = end + 1;
        start..end
    }

    fn value(&mut self, range: Range<usize>) {
        self.any = true;
        if self.path.len() <= 2 && self.path.last().is_some_and(|level| level.key == "type") {
            self.tag(self.text.get(range.clone()).unwrap_or_default());
        }
        if range.is_empty() {
            return;
        }
        let mut place = DefaultHasher::new();
        let mut lane = DefaultHasher::new();
        for (depth, level) in self.path.iter().enumerate() {
            (level.key, level.list).hash(&mut place);
            // A stream may be one list: its positions are time.
            let position = if level.list && depth > 0 { level.position } else { 0 };
            (level.key, position).hash(&mut lane);
        }
        self.found.push(Found {
            start: super::span::place(range.start),
            end: super::span::place(range.end),
            place: place.finish(),
            lane: lane.finish(),
        });
    }

    fn number(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        if self.path.last().is_some_and(|level| level.key.ends_with("index")) {
            self.tag(rest.get(..length).unwrap_or_default());
        }
        self.at += length;
    }

    fn tag(&mut self, tag: &str) {
        let mut hasher = DefaultHasher::new();
        (self.tags, tag).hash(&mut hasher);
        self.tags = hasher.finish();
    }

    /// Now its tags are known.
    fn close(&mut self) {
        let tags = std::mem::take(&mut self.tags);
        for string in self.found.get_mut(self.open..).unwrap_or_default() {
            let mut lane = DefaultHasher::new();
            (string.lane, tags).hash(&mut lane);
            string.lane = lane.finish();
        }
        self.open = self.found.len();
    }
}
