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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse<'a>(cap: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, bool)> {
        let mut parser = Parser::new(cap);
        let mut out = Vec::new();
        for piece in pieces {
            parser.feed(piece, &mut |item| out.push((item.json.to_vec(), item.truncated)));
        }
        out
    }

    /// The whole items of `text`, the same at every split.
    fn items(text: &str) -> Vec<String> {
        let text = text.as_bytes();
        let whole = parse(1_000, [text]);
        assert_eq!(parse(1_000, text.chunks(1)), whole, "bytewise");
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(parse(1_000, [a, b]), whole, "cut at {cut}");
        }
        whole
            .into_iter()
            .map(|(json, truncated)| {
                assert!(!truncated);
                String::from_utf8(json).unwrap()
            })
            .collect()
    }

    #[test]
    fn a_streamed_array() {
        let text =
            "[{\"a\": [1, {}], \"t\": \"]}\\\"[{\"}\r\n,\r\n{\"b\":{\"c\":\"\\\\\"}}\r\n]\r\n";
        assert_eq!(
            items(text),
            ["{\"a\": [1, {}], \"t\": \"]}\\\"[{\"}", "{\"b\":{\"c\":\"\\\\\"}}"]
        );
    }

    #[test]
    fn single_values_lines_and_odd_elements() {
        assert_eq!(items(" {\"a\":1} "), ["{\"a\":1}"]);
        assert_eq!(items("{\"a\":1}\n{\"b\":2}\n"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(
            items("[1, \"x,]\", null,[2,[3]] , true]"),
            ["1", "\"x,]\"", "null", "[2,[3]]", "true"]
        );
        assert_eq!(items("[]"), [""; 0]);
        assert_eq!(items("[{\"a\":"), [""; 0]);
        assert_eq!(items("\u{feff}[{}]"), ["{}"]);
    }

    #[test]
    fn elements_come_as_soon_as_they_are_whole() {
        let mut parser = Parser::new(100);
        let mut seen = Vec::new();
        parser.feed(b"[{\"a\":1}", &mut |item| seen.push(item.json.to_vec()));
        assert_eq!(seen, [b"{\"a\":1}"]);
    }

    #[test]
    fn too_long_an_element_is_cut_and_the_next_one_is_whole() {
        let text = b"[{\"a\":\"0123456789}\"},{\"b\":1}]";
        let expected = [(b"{\"a\":\"01".to_vec(), true), (b"{\"b\":1}".to_vec(), false)];
        for piece in 1..text.len() {
            assert_eq!(parse(8, text.chunks(piece)), expected, "{piece}");
        }
        assert_eq!(parse(0, text.chunks(3)), [(vec![], true), (vec![], true)]);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_real_parser(
            values in proptest::collection::vec(json(), 0..6),
            pretty in any::<bool>(),
            piece in 1_usize..30,
        ) {
            let text = if pretty {
                serde_json::to_vec_pretty(&values).unwrap()
            } else {
                serde_json::to_vec(&values).unwrap()
            };
            let items: Vec<serde_json::Value> = parse(1 << 20, text.chunks(piece))
                .into_iter()
                .map(|(json, _)| serde_json::from_slice(&json).unwrap())
                .collect();
            prop_assert_eq!(items, values);
        }

        #[test]
        fn any_bytes_in_any_pieces(
            text in "[\\[\\]{}\",:\\\\a1 \n]{0,80}",
            piece in 1_usize..20,
            cap in 0_usize..40,
        ) {
            let text = text.as_bytes();
            prop_assert_eq!(parse(cap, text.chunks(piece)), parse(cap, [text]));
        }
    }
}
