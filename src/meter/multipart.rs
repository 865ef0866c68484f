//! Reads the short fields of `multipart/form-data` as it streams by (RFC 7578). Files, which are nearly
//! all of such a body, are passed over and not kept.

use memchr::memchr;

/// A field that is longer is passed over.
const MAX_VALUE: usize = 256;
/// Lines before a field's value; what has longer ones is no form of ours.
const MAX_LINE: usize = 4096;
/// RFC 2046 allows 70.
const MAX_BOUNDARY: usize = 200;

/// An incremental reader.
#[derive(Debug)]
pub struct Parser {
    /// What ends a value: a line break, two hyphens and the boundary.
    delimiter: Vec<u8>,
    /// How much of it the latest bytes are.
    matched: usize,
    place: Place,
    /// The line that is being read.
    line: Vec<u8>,
    /// The field that is being read, as far as it is wanted.
    field: Option<Field>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// A value, or what stands before the first part.
    Value,
    /// Behind a delimiter.
    Delimiter,
    /// The head of a part.
    Head,
    /// Behind the last part; or this is no form.
    Over,
}

#[derive(Debug)]
struct Field {
    name: String,
    value: Vec<u8>,
    overflow: bool,
}

impl Parser {
    /// For a body with this `Content-Type`; `None`: it is no form.
    #[must_use]
    pub fn new(content_type: &str) -> Option<Self> {
        let (media, _) = content_type.split_once(';')?;
        if !media.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameter(content_type, "boundary")?;
        let fits = (1..=MAX_BOUNDARY).contains(&boundary.len());
        (fits && !boundary.chars().any(char::is_control)).then(|| Self {
            delimiter: ["\r\n--", boundary].concat().into_bytes(),
            // The first one needs no line before it.
            matched: 2,
            place: Place::Value,
            line: Vec::new(),
            field: None,
        })
    }

    /// Feeds bytes of the body; `sink` receives name and value of the fields that end in them.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(&str, &str)) {
        while !bytes.is_empty() {
            bytes = match self.place {
                Place::Value => self.value(bytes, sink),
                Place::Delimiter | Place::Head => self.lines(bytes),
                Place::Over => return,
            };
        }
    }

    /// Takes some of non-empty `bytes`; returns the rest.
    fn value<'b>(&mut self, bytes: &'b [u8], sink: &mut dyn FnMut(&str, &str)) -> &'b [u8] {
        let Some((first, rest)) = bytes.split_first() else { return bytes };
        if self.delimiter.get(self.matched) == Some(first) {
            self.matched += 1;
            if self.matched == self.delimiter.len() {
                self.matched = 0;
                self.place = Place::Delimiter;
                if let Some(field) = self.field.take().filter(|field| !field.overflow)
                    && let Ok(value) = std::str::from_utf8(&field.value)
                {
                    sink(&field.name, value);
                }
            }
            return rest;
        }
        // A carriage return is in a delimiter at its start only: none begins in what matched.
        let seen = std::mem::take(&mut self.matched);
        let plain = match seen {
            0 => memchr(b'\r', bytes).unwrap_or(bytes.len()),
            _ => 0,
        };
        let (now, rest) = bytes.split_at_checked(plain).unwrap_or((bytes, &[]));
        if let Some(field) = &mut self.field {
            field.keep(self.delimiter.get(..seen).unwrap_or_default());
            field.keep(now);
        }
        rest
    }

    fn lines<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let end = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        let (now, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        if self.line.len() + now.len() > MAX_LINE {
            self.place = Place::Over;
            self.line = Vec::new();
            return &[];
        }
        self.line.extend_from_slice(now);
        if let Some(line) = self.line.strip_suffix(b"\r\n") {
            match (self.place, line) {
                (Place::Delimiter, [b'-', b'-', ..]) => self.place = Place::Over,
                (Place::Delimiter, _) => self.place = Place::Head,
                (Place::Head, []) => self.place = Place::Value,
                (Place::Head, line) => {
                    let field = std::str::from_utf8(line).ok().and_then(Field::of_head);
                    self.field = field.or(self.field.take());
                }
                (Place::Value | Place::Over, _) => {}
            }
            self.line.clear();
        }
        rest
    }
}

impl Field {
    /// `Content-Disposition: form-data; name="model"`; not a file.
    fn of_head(line: &str) -> Option<Self> {
        let (head, value) = line.split_once(':')?;
        if !head.trim().eq_ignore_ascii_case("content-disposition") {
            return None;
        }
        let name = parameter(value, "name")?;
        let file = parameter(value, "filename").or_else(|| parameter(value, "filename*"));
        file.is_none().then(|| Self { name: name.to_owned(), value: Vec::new(), overflow: false })
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.overflow |= self.value.len() + bytes.len() > MAX_VALUE;
        if !self.overflow {
            self.value.extend_from_slice(bytes);
        }
    }
}

/// A parameter of a header's value, quoted or not.
fn parameter<'a>(value: &'a str, wanted: &str) -> Option<&'a str> {
    let (_, mut rest) = value.split_once(';')?;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut ends = quoted.match_indices('"').map(|(at, _)| at);
                let escaped = |at: usize| quoted.get(..at).is_some_and(|v| v.ends_with('\\'));
                quoted.split_at_checked(ends.find(|at| !escaped(*at))?)?
            }
            None => after.split_at_checked(after.find(';').unwrap_or(after.len()))?,
        };
        if name.trim().eq_ignore_ascii_case(wanted) {
            return Some(value.trim());
        }
        (_, rest) = after.split_once(';')?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=----x-1";

    fn read(content_type: &str, pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::new(content_type).unwrap();
        let mut fields = Vec::new();
        for piece in pieces {
            parser.feed(piece, &mut |name, value| fields.push((name.to_owned(), value.to_owned())));
            assert!(parser.line.len() <= MAX_LINE);
            assert!(parser.field.as_ref().is_none_or(|field| field.value.len() <= MAX_VALUE));
        }
        fields
    }

    fn form(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (head, value) in parts {
            body.extend_from_slice(format!("------x-1\r\n{head}\r\n\r\n").as_bytes());
            body.extend_from_slice(value);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"------x-1--\r\n");
        body
    }

    fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn short_fields_are_read_and_files_are_not() {
        let long = vec![b'a'; MAX_VALUE + 1];
        let model = r#"Content-Disposition: form-data; name="model""#;
        let body = form(&[
            (
                "Content-Disposition: form-data; name=\"file\"; filename=\"a\\\"; name=\\\"model\"\r\nContent-Type: audio/wav",
                b"\r\n------x-2\r\r\n--\0\xff",
            ),
            (model, b"gpt-4o-transcribe"),
            ("content-disposition:form-data;name=stream", b"true"),
            (r#"Content-Disposition: form-data; name="prompt""#, &long),
            (r#"Content-Disposition: form-data; name="empty""#, b""),
            (r#"Content-Disposition: form-data; name="binary""#, b"\xff"),
            ("Content-Type: text/plain", b"of no name"),
            ("Content-Disposition: form-data; filename*=x; name=\"later\"", b"file"),
            (
                "Content-Disposition: form-data; name=\"lines\"\r\nContent-Type: text/plain",
                b"a\r\n-b",
            ),
        ]);
        let expected = owned(&[
            ("model", "gpt-4o-transcribe"),
            ("stream", "true"),
            ("empty", ""),
            ("lines", "a\r\n-b"),
        ]);
        for at in 0..=body.len() {
            let (a, b) = body.split_at(at);
            assert_eq!(read(TYPE, &[a, b]), expected, "cut at {at}");
        }
        // Something before the first part, spaces behind the boundary, something behind the last.
        let mut odd = b"preamble\r\n------x-1 \t\r\n".to_vec();
        odd.extend_from_slice(&form(&[(model, b"m")])[11..]);
        odd.extend_from_slice(&form(&[(model, b"no part any more")]));
        assert_eq!(
            read(r#"Multipart/Form-Data; charset=utf-8; boundary="----x-1""#, &[&odd]),
            owned(&[("model", "m")])
        );
        // What is cut off is not known.
        assert_eq!(read(TYPE, &[&form(&[(model, b"m")])[..70]]), []);
    }

    #[test]
    fn what_is_no_form_is_not_read() {
        for other in [
            "application/json",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; charset=utf-8",
            "multipart/mixed; boundary=x",
            "multipart/form-data; boundary=\"x",
            "",
        ] {
            assert!(Parser::new(other).is_none(), "{other}");
        }
        let mut endless = b"------x-1\r\n".to_vec();
        endless.resize(100_000, b'a');
        endless.extend_from_slice(&form(&[("Content-Disposition: form-data; name=a", b"b")]));
        assert_eq!(read(TYPE, &[&endless]), []);
    }

    /// Delimiters and lines are made of these more often than of any bytes.
    const PIECES: &[&str] = &[
        "\r\n------x-1\r\n",
        "------x-1",
        "\r\n",
        "\r",
        "\n",
        "--",
        "a",
        "Content-Disposition: form-data; name=\"model\"\r\n\r\n",
        "content-disposition: form-data; name=n; filename=f\r\n",
    ];

    proptest! {
        #[test]
        fn in_any_pieces_the_same(
            body in prop::collection::vec(
                prop::sample::select(PIECES),
                0..40,
            ),
            cuts in prop::collection::vec(0_usize..600, 0..6),
        ) {
            let body = body.concat().into_bytes();
            let whole = read(TYPE, &[&body]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
            prop_assert_eq!(&read(TYPE, &pieces), &whole);
            let bytes: Vec<&[u8]> = body.chunks(1).collect();
            prop_assert_eq!(&read(TYPE, &bytes), &whole);
        }
    }
}
