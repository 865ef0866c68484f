//! Where whoever has lost its place on a connection finds it again: a client that has its answer asks
//! again.

use std::borrow::Cow;

use crate::meter::http::Side;

/// Longest first line that is waited for.
const MAX_LINE: usize = 8 * 1024;

/// Whether a client that has its answer asks again with these bytes, where `last` spoke before.
#[must_use]
pub fn asks_again(last: Option<Side>, side: Side, bytes: &[u8]) -> bool {
    last == Some(Side::Server) && side == Side::Client && request_line(bytes).is_some()
}

/// Looks for that place, in whatever pieces the bytes come.
#[derive(Debug)]
pub struct Search(At);

#[derive(Debug)]
enum At {
    /// The server spoke last.
    Answered,
    /// The client speaks since: so far a part of a line.
    Line(Vec<u8>),
    /// What the client says does not begin a request.
    Elsewhere,
}

impl Search {
    /// `last`: who spoke last.
    #[must_use]
    pub fn behind(last: Option<Side>) -> Self {
        Self(if last == Some(Side::Server) { At::Answered } else { At::Elsewhere })
    }

    /// The request that begins, from its first byte to the last of `bytes`, once it does.
    pub fn feed<'a>(&mut self, side: Side, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if bytes.is_empty() {
            return None;
        }
        let before = std::mem::replace(&mut self.0, At::Elsewhere);
        let said = match (side, before) {
            (Side::Server, _) => {
                self.0 = At::Answered;
                return None;
            }
            (Side::Client, At::Elsewhere) => return None,
            (Side::Client, At::Answered) => Cow::Borrowed(bytes),
            (Side::Client, At::Line(mut line)) => {
                line.extend_from_slice(bytes);
                Cow::Owned(line)
            }
        };
        let start = said.get(..MAX_LINE).unwrap_or(&said);
        if request_line(start).is_some() {
            return Some(said);
        }
        if start.len() < MAX_LINE && !start.contains(&b'\n') {
            self.0 = At::Line(said.into_owned());
        }
        None
    }
}

/// Method and target of the request that begins, once its first line is whole.
pub(super) fn request_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let line = start.get(..memchr::memchr(b'\n', start)?)?.strip_suffix(b"\r")?;
    let words: Vec<&[u8]> = line.splitn(4, |byte| *byte == b' ').collect();
    let [method, target, b"HTTP/1.1" | b"HTTP/1.0"] = words[..] else { return None };
    let known = (3..=7).contains(&method.len()) && method.iter().all(u8::is_ascii_uppercase);
    (known && target.starts_with(b"/")).then_some((method, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_first_line() {
        for yes in [
            "POST /v1/messages HTTP/1.1\r\nhost: x",
            "GET / HTTP/1.0\r\n",
            "OPTIONS /a?b=c HTTP/1.1\r\n\r\n",
        ] {
            assert!(request_line(yes.as_bytes()).is_some(), "{yes}");
        }
        for no in [
            "",
            "POST /v1/messages HTTP/1.1",
            "POST /v1/messages HTTP/1.1\n",
            "POST /v1/messages HTTP/2.0\r\n",
            "POST /v1/mess ages HTTP/1.1\r\n",
            "post /v1/messages HTTP/1.1\r\n",
            "{\"text\": \"POST / HTTP/1.1\"}\r\n",
            "HTTP/1.1 200 OK\r\n",
            "PRI * HTTP/2.0\r\n",
            "\r\nPOST / HTTP/1.1\r\n",
        ] {
            assert!(request_line(no.as_bytes()).is_none(), "{no}");
        }
    }

    #[test]
    fn the_place_is_found_in_whatever_pieces_the_bytes_come() {
        let request = "POST /v1/messages HTTP/1.1\r\nhost: x\r\n\r\n{}";
        let (line, long) = ("a line\r\n", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9_000)));
        // Who spoke last, what the server and the client say in turn, and whether it is found.
        let cases: [(Option<Side>, &[&str], bool); 8] = [
            (Some(Side::Server), &["", request], true),
            (Some(Side::Client), &["", request], false),
            (None, &["", request], false),
            (None, &["bytes", request], true),
            (Some(Side::Client), &["", line, "bytes", request], true),
            (Some(Side::Server), &["", &format!("{line}{request}")], false),
            (Some(Side::Server), &["", "POST /v1", "bytes", "/messages HTTP/1.1\r\n"], false),
            (Some(Side::Server), &["", &long], false),
        ];
        for (last, said, expected) in cases {
            for size in [1, 2, 7, 40, usize::MAX] {
                let mut search = Search::behind(last);
                let mut found: Option<Vec<u8>> = None;
                for (n, text) in said.iter().enumerate() {
                    let side = if n % 2 == 0 { Side::Server } else { Side::Client };
                    for piece in text.as_bytes().chunks(size.min(text.len().max(1))) {
                        match &mut found {
                            Some(found) => found.extend_from_slice(piece),
                            None => found = search.feed(side, piece).map(Cow::into_owned),
                        }
                    }
                }
                let expected = expected.then(|| request.as_bytes().to_vec());
                assert_eq!(found, expected, "{last:?} {said:?} by {size}");
            }
        }
    }
}
