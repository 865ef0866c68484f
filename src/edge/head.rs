//! A client's request head, taken apart as leniently as servers do: what they let through is no reason
//! for a proxy to refuse it. Odd bytes pass as they came, for whoever is asked to judge them. So do those
//! of a response's, in whatever number its fields come.
//!
//! Nothing can be smuggled through: a connection serves one request both ways (`Connection: close`), so what
//! is behind its head is its body, or nobody's. All the same a field stays refused if it may say to one
//! server and not to the next how long the body is: a proxy that shares its connections may come after us.

use memchr::{memchr, memchr2_iter, memrchr};

/// What frames a body.
const FRAMING: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// A head that is whole.
#[derive(Debug, Eq, PartialEq)]
pub struct Head<'h> {
    pub method: &'h str,
    /// May hold blanks, and bytes that are no UTF-8.
    pub target: &'h [u8],
    /// The minor one, of HTTP/1.
    pub version: u8,
    /// Each with the lines that continue it, without the end of the last.
    pub lines: Vec<&'h [u8]>,
    /// With its blank line, and what was before it.
    pub length: usize,
}

/// A response's head that is whole.
#[derive(Debug, Eq, PartialEq)]
pub struct Response<'h> {
    pub status: u16,
    /// The minor one, of HTTP/1.
    pub version: u8,
    /// Where its first line ends, with what was before it.
    pub start: usize,
    /// As in [`Head`].
    pub lines: Vec<&'h [u8]>,
    pub length: usize,
}

/// Why there will be none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Error {
    NotHttp,
    /// Another version than HTTP/1.0 and 1.1.
    Version,
}

/// A header field, with its name as it came and its value without the blanks around it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field<'h> {
    pub name: &'h [u8],
    pub value: &'h [u8],
}

/// `None`: more must come.
///
/// # Errors
/// As soon as its first line says that it is none.
pub fn read(bytes: &[u8]) -> Result<Option<Head<'_>>, Error> {
    let begun = behind_blank(bytes);
    let method = begun.iter().take_while(|byte| is_token(**byte)).count();
    match begun.get(method) {
        None => return Ok(None),
        Some(b' ') if method > 0 => {}
        Some(_) => return Err(Error::NotHttp),
    }
    let first = next_line(begun);
    let line = first.map_or(begun.strip_suffix(b"\r").unwrap_or(begun), |(line, _)| line);
    if line.iter().any(u8::is_ascii_control) {
        return Err(Error::NotHttp);
    }
    let Some((line, rest)) = first else { return Ok(None) };
    let (method, target, version) = words(line, method).ok_or(Error::NotHttp)?;
    let version = match version {
        b"HTTP/1.1" => 1,
        b"HTTP/1.0" => 0,
        [b'H', b'T', b'T', b'P', b'/', ..] => return Err(Error::Version),
        [..] => return Err(Error::NotHttp),
    };
    let Some((lines, rest)) = lines(rest) else { return Ok(None) };
    Ok(Some(Head { method, target, version, lines, length: bytes.len() - rest.len() }))
}

/// The same of a response. Servers put an empty line before it, and clients pass over that.
///
/// # Errors
/// As [`read`].
pub fn read_response(bytes: &[u8]) -> Result<Option<Response<'_>>, Error> {
    const VERSION: &[u8] = b"HTTP/1.";
    let begun = behind_blank(bytes);
    let known = begun.len().min(VERSION.len());
    if begun.get(..known) != VERSION.get(..known) {
        return Err(Error::NotHttp);
    }
    let Some((line, rest)) = next_line(begun) else { return Ok(None) };
    let (version, status) = status(line).ok_or(Error::NotHttp)?;
    let start = bytes.len() - rest.len();
    let Some((lines, rest)) = lines(rest) else { return Ok(None) };
    Ok(Some(Response { status, version, start, lines, length: bytes.len() - rest.len() }))
}

/// `HTTP/1.1 200 Fine`, also without the last word, and with more blanks or none before it: clients don't
/// insist. The minor version, and the status.
fn status(line: &[u8]) -> Option<(u8, u16)> {
    let [version @ b'0'..=b'9', code @ ..] = line.get(7..)? else { return None };
    let (code, reason) = code.strip_prefix(b" ")?.trim_ascii_start().split_at_checked(3)?;
    let digits = code.iter().all(u8::is_ascii_digit) && !matches!(reason, [b'0'..=b'9', ..]);
    let status = str::from_utf8(code).ok().filter(|_| digits)?.parse().ok()?;
    Some((version - b'0', status))
}

fn behind_blank(bytes: &[u8]) -> &[u8] {
    let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    bytes.get(blank..).unwrap_or_default()
}

/// The first line in three: the target is all that is between its first blank and its last.
fn words(line: &[u8], method: usize) -> Option<(&str, &[u8], &[u8])> {
    let last = memrchr(b' ', line)?;
    let method_text = str::from_utf8(line.get(..method)?).ok()?;
    Some((method_text, line.get(method + 1..last)?, line.get(last + 1..)?))
}

/// The fields, and what is behind the head.
fn lines(mut rest: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    let mut lines = Vec::new();
    loop {
        let (mut field, mut after) = next_line(rest)?;
        if field.is_empty() {
            return Some((lines, after));
        }
        while let Some((line, behind)) = next_line(after)
            && matches!(line, [b' ' | b'\t', ..])
        {
            field = rest.get(..rest.len() - after.len() + line.len())?;
            after = behind;
        }
        lines.push(field);
        rest = after;
    }
}

/// A line without its end, and what is behind it.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at_checked(memchr(b'\n', bytes)?)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), rest.get(1..)?))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl<'h> Head<'h> {
    /// `None`: one of them can be read in two ways.
    #[must_use]
    pub fn fields(&self) -> Option<Vec<Field<'h>>> {
        self.lines.iter().map(|line| Field::read(line)).collect()
    }
}

impl<'h> Response<'h> {
    /// As [`Head::fields`].
    #[must_use]
    pub fn fields(&self) -> Option<Vec<Field<'h>>> {
        self.lines.iter().map(|line| Field::read(line)).collect()
    }
}

impl<'h> Field<'h> {
    /// Whatever is odd in it; without a colon all of it is a name.
    #[must_use]
    pub fn split(line: &'h [u8]) -> Self {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at_checked(colon).unwrap_or((line, &[]));
        Self { name, value: value.get(1..).unwrap_or_default().trim_ascii() }
    }

    fn read(line: &'h [u8]) -> Option<Self> {
        let field = line.contains(&b':').then(|| Self::split(line))?;
        let named = field.name.first().is_some_and(|byte| !byte.is_ascii_whitespace());
        (named && !is_broken(line) && !field.is_framing_in_disguise()).then_some(field)
    }

    /// Whether a server may take it for this one. `name`: in small letters.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
    }

    /// Some servers would pass over what is odd in it, others over the field.
    fn is_framing_in_disguise(&self) -> bool {
        let bare: Vec<u8> = self.name.iter().copied().filter(|byte| is_token(*byte)).collect();
        let is_plain = bare.len() == self.name.len()
            && !self.value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
        !is_plain && FRAMING.iter().any(|name| bare.eq_ignore_ascii_case(name))
    }
}

/// To some servers a lone carriage return ends a line, and a zero byte the text.
fn is_broken(line: &[u8]) -> bool {
    memchr2_iter(0, b'\r', line)
        .any(|at| line.get(at) == Some(&0) || line.get(at + 1) != Some(&b'\n'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn field<'h>(name: &'h str, value: &'h [u8]) -> Field<'h> {
        Field { name: name.as_bytes(), value }
    }

    #[test]
    fn what_servers_let_through_is_read() {
        let input =
            b"GET http://h/caf\xe9 au lait HTTP/1.1\r\nX(y): \x01\x7f\r\nX Y:\r\n \ta\r\n\tb\r\n\
            Spaced : c \nX[z]:d\r\n\r\nbody";
        for cut in 0..input.len() - 4 {
            assert_eq!(read(&input[..cut]), Ok(None), "{cut}");
        }
        let head = read(input).unwrap().unwrap();
        assert_eq!((head.method, head.version), ("GET", 1));
        assert_eq!(head.target, b"http://h/caf\xe9 au lait");
        assert_eq!(head.length, input.len() - 4);
        let fields = head.fields().unwrap();
        assert_eq!(
            fields,
            [
                field("X(y)", b"\x01\x7f"),
                field("X Y", b"a\r\n\tb"),
                field("Spaced ", b"c"),
                field("X[z]", b"d")
            ]
        );
        assert!(fields[2].is("spaced"));
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not() {
        for line in [
            "no colon",
            ": no name",
            " continues nothing: x",
            "X: a\rX-Smuggled: b",
            "X: a\r\r\n b",
            "X: \0",
            "Content-Length : 5",
            "Content-Length\t: 5",
            "Content-Length: 5\r\n 0",
            "Content-Length: 5\x0b",
            "content-length(: 5",
            "Content\x7f-Length: 5",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\r\n : chunked",
            "Transfer-Encoding:\r\n chunked,\r\n x",
            "Transfer-Encoding: \x0bchunked",
            "[Transfer-Encoding]: chunked",
            "Transfer-\u{e9}Encoding: chunked",
        ] {
            let input = format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n");
            let head = match line.strip_prefix(' ') {
                // As the first of all.
                Some(_) => input.replacen("Host: h\r\n", "", 1),
                None => input,
            };
            let read = read(head.as_bytes()).unwrap().unwrap();
            assert_eq!((read.length, read.fields()), (head.len(), None), "{line:?}");
        }
        // The value on the next line is one value still.
        let plain = read(b"GET / HTTP/1.1\r\nContent-Length:\r\n 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(plain.fields(), Some(vec![field("Content-Length", b"5")]));
    }

    #[test]
    fn a_response_is_read_as_leniently() {
        let input =
            b"\r\n\nHTTP/1.1 200\r\nno colon\nX(y):\x00\rz\r\n more\r\nSpaced : a\r\n\r\nbody";
        for cut in 0..input.len() - 4 {
            assert_eq!(read_response(&input[..cut]), Ok(None), "{cut}");
        }
        let head = read_response(input).unwrap().unwrap();
        assert_eq!((head.status, head.start, head.length), (200, 17, input.len() - 4));
        for untidy in ["HTTP/1.0 404", "HTTP/1.0 404OK", "HTTP/1.0  404 \t x", "HTTP/1.0 \t404"] {
            let head = [untidy.as_bytes(), b"\r\n\r\n"].concat();
            let head = read_response(&head).unwrap().unwrap();
            assert_eq!((head.version, head.status), (0, 404), "{untidy}");
        }
        assert_eq!(head.lines, [&b"no colon"[..], b"X(y):\x00\rz\r\n more", b"Spaced : a"]);
        assert_eq!(Field::split(head.lines[0]), field("no colon", b""));
        assert!(Field::split(head.lines[2]).is("spaced"));
        for foreign in [
            "SSH-2.0-x",
            "ICY 200 OK\r\n",
            "HTTP/2 200\r\n",
            "HTTP/1.1 2000\r\n",
            "HTTP/1.1 x\r\n",
            "HTTP/1.1200\r\n",
            " HTTP",
        ] {
            assert_eq!(read_response(foreign.as_bytes()), Err(Error::NotHttp), "{foreign}");
        }
    }

    #[test]
    fn what_is_no_request_is_known_by_its_first_line() {
        for (input, error) in [
            (&b"\x16\x03\x01\x02"[..], Error::NotHttp),
            (b" GET / HTTP/1.1", Error::NotHttp),
            (b"SSH-2.0-x\r\n", Error::NotHttp),
            (b"GET /\r\n", Error::NotHttp),
            (b"GET /\x01", Error::NotHttp),
            (b"GET / HTTP/1.1\rX", Error::NotHttp),
            (b"GET / FTP/1.1\r\n", Error::NotHttp),
            (b"PRI * HTTP/2.0\r\n", Error::Version),
        ] {
            assert_eq!(read(input), Err(error), "{input:?}");
        }
    }

    proptest! {
        #[test]
        fn what_the_strict_parser_takes_is_read_as_it_reads_it(
            head in "(\r?\n){0,2}[A-Z]{1,5} [a-z:/.é]{1,12} HTTP/1.[01]\r?\n\
                     ([A-Za-z!~-]{1,8}:[ \t]{0,2}[ -~é]{0,12}\r?\n){0,5}\r?\n(body)?",
            broken in proptest::option::of((any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut head = head.into_bytes();
            if let Some((at, byte)) = broken {
                let at = at.index(head.len());
                head[at] = byte;
            }
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut strict = httparse::Request::new(&mut fields);
            match strict.parse(&head) {
                Ok(httparse::Status::Complete(length)) => {
                    let lenient = read(&head).unwrap().unwrap();
                    prop_assert_eq!(Some(lenient.method), strict.method);
                    prop_assert_eq!(lenient.target, strict.path.unwrap().as_bytes());
                    prop_assert_eq!(Some(lenient.version), strict.version);
                    prop_assert_eq!(lenient.length, length);
                    let expected: Vec<_> =
                        strict.headers.iter().map(|h| field(h.name, h.value)).collect();
                    prop_assert_eq!(lenient.fields(), Some(expected));
                }
                Ok(httparse::Status::Partial) => prop_assert_eq!(read(&head), Ok(None)),
                Err(_) => {}
            }
        }

        #[test]
        fn more_of_it_takes_nothing_back(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b' '), Just(b'\r'), Just(b'\n'), Just(b':'), any::<u8>()], 0..80),
            valid in any::<bool>(), cut in any::<prop::sample::Index>(),
        ) {
            let first: &[u8] = if valid { b"GET / HTTP/1.1\r\n" } else { b"" };
            let bytes = [first, &bytes].concat();
            let cut = cut.index(bytes.len() + 1);
            match (read(&bytes[..cut]), read(&bytes)) {
                (Ok(None), _) => {}
                (known, whole) => prop_assert_eq!(known, whole),
            }
        }
    }
}
