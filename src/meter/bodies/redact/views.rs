//! A text as its readers will read it: as it is, with escapes undone, and with what a stream tells in
//! pieces put together.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// Nesting that is followed; what is deeper counts as one level.
const MAX_DEPTH: usize = 128;

/// Some reading of the text.
#[derive(Debug)]
pub(super) struct View<'t> {
    text: Cow<'t, str>,
    /// For each byte where it comes from; `None`: it is the text itself.
    from: Option<Vec<Range<u32>>>,
    structured: bool,
}

impl View<'_> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether there is JSON around the strings.
    pub(super) const fn is_structured(&self) -> bool {
        self.structured
    }

    /// The pieces of the text that `range` of the view comes from.
    pub(super) fn sources(&self, range: Range<usize>, sink: &mut dyn FnMut(Range<usize>)) {
        let Some(from) = &self.from else { return sink(range) };
        let mut piece: Option<Range<usize>> = None;
        for byte in from.get(range).unwrap_or_default() {
            let (start, end) = (byte.start as usize, byte.end as usize);
            match &mut piece {
                Some(piece) if start <= piece.end && start >= piece.start => {
                    piece.end = piece.end.max(end);
                }
                Some(_) | None => {
                    if let Some(piece) = piece.replace(start..end) {
                        sink(piece);
                    }
                }
            }
        }
        if let Some(piece) = piece {
            sink(piece);
        }
    }
}

/// All readings.
pub(super) fn views(text: &str) -> Vec<View<'_>> {
    let strings = strings(text);
    let structured = !strings.is_empty();
    let mut views = vec![View { text: Cow::Borrowed(text), from: None, structured }];
    let whole = Mapped::of(text, 0..text.len());
    views.extend(whole.flat().map(|flat| flat.view(structured)));
    // The pieces of one string of a stream: by their place alone, and by all that tells them apart.
    let mut joined: BTreeMap<(bool, u64), Mapped> = BTreeMap::new();
    for string in &strings {
        let piece = Mapped::of(text, string.range.clone()).unescaped();
        for key in [(false, string.place), (true, string.lane)] {
            joined.entry(key).or_default().append(&piece);
        }
    }
    for piece in joined.into_values() {
        views.extend(piece.flat().map(|flat| flat.view(false)));
        views.push(piece.view(false));
    }
    views
}

/// Text whose bytes know where they come from.
#[derive(Clone, Debug, Default)]
struct Mapped {
    text: String,
    from: Vec<Range<u32>>,
}

impl Mapped {
    fn of(text: &str, range: Range<usize>) -> Self {
        let from = range.clone().map(|at| place(at)..place(at + 1)).collect();
        Self { text: text.get(range).unwrap_or_default().to_owned(), from }
    }

    fn view<'t>(self, structured: bool) -> View<'t> {
        View { text: Cow::Owned(self.text), from: Some(self.from), structured }
    }

    fn append(&mut self, other: &Self) {
        self.text.push_str(&other.text);
        self.from.extend_from_slice(&other.from);
    }

    fn push(&mut self, c: char, from: Range<u32>) {
        self.text.push(c);
        self.from.extend(std::iter::repeat_n(from, c.len_utf8()));
    }

    fn span(&self, range: Range<usize>) -> Range<u32> {
        let bytes = self.from.get(range).unwrap_or_default();
        match (bytes.first(), bytes.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            (_, _) => 0..0,
        }
    }

    /// What a JSON string says.
    fn unescaped(self) -> Self {
        if !self.text.contains('\\') {
            return self;
        }
        self.decoded(|rest| {
            let mut chars = rest.chars();
            (chars.next() == Some('\\')).then(|| escape(rest, 1)).flatten()
        })
    }

    /// All escapes undone, however often they were done: runs of backslashes as one, and `%XX`.
    /// `None`: there are none.
    fn flat(&self) -> Option<Self> {
        if !self.text.contains(['\\', '%']) {
            return None;
        }
        Some(self.clone().decoded(|rest| match rest.as_bytes() {
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
        }))
    }

    /// `decode` says which character the text begins with and how many bytes stand for it, if that is
    /// not plain.
    fn decoded(self, decode: impl Fn(&str) -> Option<(char, usize)>) -> Self {
        let mut decoded = Self::default();
        let mut at = 0;
        while let Some(rest) = self.text.get(at..).filter(|rest| !rest.is_empty()) {
            let plain = || rest.chars().next().map(|c| (c, c.len_utf8()));
            let Some((c, length)) = decode(rest).or_else(plain) else { break };
            decoded.push(c, self.span(at..at + length));
            at += length;
        }
        decoded
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

/// Bodies are far below 4 GiB.
fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// A string that is a value in some JSON of the text.
struct Found {
    /// Without its quotes.
    range: Range<usize>,
    /// Its path, without positions in lists.
    place: u64,
    /// Its path with them, and whatever in its document says which of several streams it belongs to.
    lane: u64,
}

/// The strings of a text that is JSON, one document behind another, or lines of it (`data: {…}`).
fn strings(text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    if text.trim_start().starts_with(['{', '[']) {
        Walker::new(text, 0).documents(&mut found);
        return found;
    }
    let mut at = 0;
    for line in text.split_inclusive(['\n', '\r']) {
        let json = line.strip_prefix("data:").unwrap_or(line).trim_start();
        if json.starts_with(['{', '[']) {
            let start = at + line.len() - json.len();
            Walker::new(text.get(..at + line.len()).unwrap_or_default(), start)
                .documents(&mut found);
        }
        at += line.len();
    }
    found
}

/// Goes through JSON and minds nothing: what is broken or cut off gives what was there.
struct Walker<'t> {
    text: &'t str,
    at: usize,
    /// Where we are: for each level its name, and the position if it is a list.
    path: Vec<Level<'t>>,
    /// What tells the streams within one document apart.
    tags: u64,
    /// Of this document, until its tags are known.
    open: Vec<Found>,
}

#[derive(Clone, Copy, Debug)]
struct Level<'t> {
    key: &'t str,
    list: bool,
    position: usize,
}

impl<'t> Walker<'t> {
    const fn new(text: &'t str, at: usize) -> Self {
        Self { text, at, path: Vec::new(), tags: 0, open: Vec::new() }
    }

    fn documents(mut self, found: &mut Vec<Found>) {
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
                        self.close(found);
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
        self.close(found);
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
        if self.path.len() <= 2 && self.path.last().is_some_and(|level| level.key == "type") {
            self.tag(self.text.get(range.clone()).unwrap_or_default());
        }
        let mut place = DefaultHasher::new();
        let mut lane = DefaultHasher::new();
        for (depth, level) in self.path.iter().enumerate() {
            (level.key, level.list).hash(&mut place);
            // A stream may be one list: its positions are time.
            let position = if level.list && depth > 0 { level.position } else { 0 };
            (level.key, position).hash(&mut lane);
        }
        self.open.push(Found { range, place: place.finish(), lane: lane.finish() });
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

    fn close(&mut self, found: &mut Vec<Found>) {
        let tags = std::mem::take(&mut self.tags);
        found.extend(self.open.drain(..).map(|mut string| {
            let mut lane = DefaultHasher::new();
            (string.lane, tags).hash(&mut lane);
            string.lane = lane.finish();
            string
        }));
    }
}
