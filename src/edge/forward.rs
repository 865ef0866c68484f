//! Plain HTTP through the proxy: the two heads are rewritten, everything else streams as it is.
//!
//! One exchange per connection (`Connection: close` both ways), which ends with the answer; where that ends,
//! and the request, [`super::extent`] tells.

use memchr::{memchr, memchr_iter};

use super::extent::{Answer, Extent};
use super::head::{self, Field};

/// Longest response head that is held back to be rewritten; a longer one streams as it is. Clients read
/// some of 300 kB: who is not told that the connection ends asks on it again.
const MAX_RESPONSE_HEAD: usize = 1024 * 1024;
/// From here on it is read anew only where it may end.
const LONG: usize = 64 * 1024;
/// How each head ends, but that of a request to change the protocol.
const CLOSE: &[u8] = b"Connection: close\r\n\r\n";

/// The request head for the origin: origin-form, its own `Host`, no proxy and hop-by-hop fields.
#[must_use]
pub fn request_head(
    method: &str,
    path: &[u8],
    authority: &str,
    version: u8,
    fields: &[Field<'_>],
) -> Vec<u8> {
    let line = format!(" HTTP/1.{version}\r\nHost: {authority}\r\n");
    let mut head = [method.as_bytes(), b" ", path, line.as_bytes()].concat();
    let listed = listed(fields);
    for field in fields.iter().filter(|field| !field.is("host") && !is_dropped(field, &listed)) {
        head.extend([field.name, b": ", field.value, b"\r\n"].concat());
    }
    match upgrade(fields) {
        Some(to) => {
            head.extend([b"Upgrade: ", &to[..], b"\r\nConnection: Upgrade\r\n\r\n"].concat());
        }
        None => head.extend_from_slice(CLOSE),
    }
    head
}

/// What [`request_head`] made, for a proxy that comes before the origin: in absolute form, with the
/// log-in that it wants.
#[must_use]
pub fn for_proxy(head: &[u8], authorization: Option<&str>) -> Vec<u8> {
    let rewritten = || {
        let (line, rest) = split_line(head)?;
        let (host, fields) = split_line(rest)?;
        let (method, rest) = line.split_at_checked(memchr(b' ', line)? + 1)?;
        // Of `*` nothing is left.
        let rest = rest.strip_prefix(b"*").unwrap_or(rest);
        let authority = host.strip_prefix(b"Host: ")?;
        let login = authorization.map(|login| format!("Proxy-Authorization: {login}\r\n"));
        let login = login.as_deref().unwrap_or_default().as_bytes();
        Some([method, b"http://", authority, rest, b"\r\n", host, b"\r\n", login, fields].concat())
    };
    rewritten().unwrap_or_else(|| head.to_vec())
}

/// What [`ResponseGate::feed`] says.
#[derive(Debug, Default)]
pub struct Passed {
    /// Forward these bytes now.
    pub bytes: Vec<u8>,
    /// The head is through, and this much of the answer is still to pass, untouched.
    pub rest: Option<Extent>,
}

/// Holds the start of a response back until its head can be rewritten. Sans-IO.
#[derive(Debug, Default)]
pub struct ResponseGate {
    held: Vec<u8>,
    answer: Answer,
}

impl ResponseGate {
    #[must_use]
    pub fn new(answer: Answer) -> Self {
        Self::resume(Vec::new(), answer)
    }

    /// Goes on with what another one held.
    #[must_use]
    pub fn resume(held: Vec<u8>, answer: Answer) -> Self {
        Self { held, answer }
    }

    #[must_use]
    pub fn answer(&self) -> Answer {
        self.answer
    }

    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Passed {
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        let mut passed = Passed::default();
        if self.held.len() <= MAX_RESPONSE_HEAD && !self.may_end(before) {
            return passed;
        }
        loop {
            let mut rest = match rewrite(&self.held, self.answer) {
                // Goes out at once: the client may be waiting for it with its body.
                Head::Interim(length) => {
                    passed.bytes.extend(self.held.drain(..length));
                    continue;
                }
                Head::Final { head, length, rest } => {
                    self.held.drain(..length);
                    passed.bytes.extend_from_slice(&head);
                    rest
                }
                Head::Incomplete if self.held.len() <= MAX_RESPONSE_HEAD => return passed,
                Head::Incomplete | Head::Foreign => Extent::OPEN,
            };
            let belongs = rest.take(&self.held);
            passed.bytes.extend(self.held.drain(..belongs));
            passed.rest = Some(rest);
            return passed;
        }
    }

    /// Whether what is held may be a whole head now, and was not when there was `before` of it.
    fn may_end(&self, before: usize) -> bool {
        let new = self.held.get(before.saturating_sub(2)..).unwrap_or_default();
        if before <= LONG {
            return new.contains(&b'\n') || self.held.len() > LONG;
        }
        memchr_iter(b'\n', new)
            .any(|at| matches!(new.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
    }

    /// What is still held when the origin ends early.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.held
    }
}

enum Head {
    Incomplete,
    /// 1xx: another head follows.
    Interim(usize),
    Final {
        head: Vec<u8>,
        length: usize,
        rest: Extent,
    },
    /// Not HTTP/1, or switching away from it.
    Foreign,
}

fn split_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = head.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = head.split_at_checked(end)?;
    Some((line, rest.get(2..)?))
}

fn rewrite(held: &[u8], answer: Answer) -> Head {
    let response = match head::read_response(held) {
        Ok(Some(response)) => response,
        Ok(None) => return Head::Incomplete,
        Err(head::Error::NotHttp | head::Error::Version) => return Head::Foreign,
    };
    match response.status {
        101 => return Head::Foreign,
        100..=199 => return Head::Interim(response.length),
        _ => {}
    }
    // The status line as it came, with what was before it; so the fields that stay.
    let mut head = held.get(..response.start).unwrap_or_default().to_vec();
    let fields: Vec<Field<'_>> = response.lines.iter().map(|line| Field::split(line)).collect();
    let listed = listed(&fields);
    for (line, field) in response.lines.iter().zip(&fields) {
        if !is_dropped(field, &listed) {
            head.extend([line, &b"\r\n"[..]].concat());
        }
    }
    head.extend_from_slice(CLOSE);
    Head::Final { head, length: response.length, rest: Extent::of_answer(&response, answer) }
}

/// Whether a field is for this hop only.
fn is_dropped(field: &Field<'_>, listed: &[Vec<u8>]) -> bool {
    let name = field.name.trim_ascii().to_ascii_lowercase();
    match name.as_slice() {
        b"connection"
        | b"keep-alive"
        | b"proxy-connection"
        | b"proxy-authorization"
        | b"upgrade"
        | b"http2-settings" => true,
        // They say how the body is framed, and the body passes as it is.
        b"transfer-encoding" | b"content-length" | b"trailer" => false,
        _ => listed.contains(&name),
    }
}

/// The protocols that a client asks to change to. Of HTTP/2 it is not asked: the client would take the
/// connection for one to its proxy, and send on it what is for other servers.
fn upgrade(fields: &[Field<'_>]) -> Option<Vec<u8>> {
    let asked = listed(fields).iter().any(|token| token == b"upgrade");
    let protocols: Vec<&[u8]> =
        tokens(fields, "upgrade").filter(|name| !name.eq_ignore_ascii_case(b"h2c")).collect();
    (asked && !protocols.is_empty() && !is_framed_twice(fields)).then(|| protocols.join(&b", "[..]))
}

/// Whether servers may differ on where the body ends: this one must be the connection's last request,
/// also if the protocol does not change.
fn is_framed_twice(fields: &[Field<'_>]) -> bool {
    let all = |name| fields.iter().filter(move |field| field.is(name)).map(|field| field.value);
    let mut lengths = all("content-length");
    let length = lengths.next();
    lengths.any(|other| Some(other) != length)
        || all("transfer-encoding").count() > usize::from(length.is_none())
}

/// The tokens of the `Connection` fields, lower case.
fn listed(fields: &[Field<'_>]) -> Vec<Vec<u8>> {
    tokens(fields, "connection").map(<[u8]>::to_ascii_lowercase).collect()
}

/// The members of all fields of this name.
fn tokens<'a>(fields: &'a [Field<'_>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    let members = |field: &Field<'a>| field.value.split(|byte| *byte == b',');
    fields
        .iter()
        .filter(move |field| field.is(name))
        .flat_map(members)
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(input: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut gate = ResponseGate::default();
        let mut out = Vec::new();
        let mut chunks = input.chunks(size);
        for chunk in chunks.by_ref() {
            let passed = gate.feed(chunk);
            out.extend(passed.bytes);
            if passed.rest.is_some() {
                out.extend(chunks.flatten());
                return (out, true);
            }
        }
        out.extend(gate.finish());
        (out, false)
    }

    #[test]
    fn the_final_head_says_close_and_the_body_is_untouched() {
        let input = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\nConnection: keep-alive\r\n\
            Keep-Alive: timeout=5\r\nETag: \"x\"\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        for size in 1..=input.len() {
            let (out, done) = through(input, size);
            assert!(done);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\nETag: \"x\"\r\n\
                 Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
                "pieces of {size}"
            );
        }
    }

    /// A browser and curl pass over it.
    #[test]
    fn an_empty_line_before_the_response_passes_with_all_that_follows() {
        let input =
            b"\r\n\nHTTP/1.1 100 Go on\r\n\r\n\r\nHTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\
            Content-Length: 2\r\n\r\nhi";
        for size in 1..=input.len() {
            let (out, done) = through(input, size);
            assert!(done);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                "\r\n\nHTTP/1.1 100 Go on\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\
                 Connection: close\r\n\r\nhi",
                "pieces of {size}"
            );
        }
    }

    #[test]
    fn a_head_of_many_and_odd_fields_says_close_too() {
        let many: String = (0..2_000).map(|n| format!("X-{n}: a\r\n")).collect();
        let odd = "X(y):\u{1}\u{e9}\r\nno colon\r\nFolded: a\r\n\tb\r\nUntidy:c\r\n";
        let input = format!(
            "HTTP/1.1 200\r\n{many}connection : x-hop,\r\n keep-alive\r\nX-Hop: 1\r\n{odd}\r\nbody"
        );
        let (out, done) = through(input.as_bytes(), 4096);
        assert!(done);
        let expected = format!("HTTP/1.1 200\r\n{many}{odd}Connection: close\r\n\r\nbody");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_long_head_says_close_too_and_the_answer_has_an_end() {
        let many: String = (0..300).map(|n| format!("X-{n}: {}\r\n", "a".repeat(1000))).collect();
        for (end, blank) in [("\r\n", "\r\n"), ("\n", "\n")] {
            let input = format!("HTTP/1.1 200OK\r\n{many}Content-Length: 4{end}{blank}bodymore");
            for size in [1, 1000, 16 * 1024, input.len()] {
                let mut gate = ResponseGate::new(Answer::Framed);
                let (mut out, mut over) = (Vec::new(), false);
                let mut chunks = input.as_bytes().chunks(size);
                while let Some(chunk) = chunks.next() {
                    let passed = gate.feed(chunk);
                    out.extend(passed.bytes);
                    if let Some(mut rest) = passed.rest {
                        out.extend(chunks.by_ref().flat_map(|c| &c[..rest.take(c)]));
                        over = rest.is_over();
                    }
                }
                let expected = format!(
                    "HTTP/1.1 200OK\r\n{many}Content-Length: 4\r\nConnection: close\r\n\r\nbody"
                );
                assert!(over && out == expected.as_bytes(), "pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_not_ours_to_read_passes() {
        let upgrade = b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nraw";
        let half = b"HTTP/1.1 200 OK\r\nContent-Le";
        let foreign = b"SSH-2.0-x\r\n";
        let endless = vec![b'x'; MAX_RESPONSE_HEAD + 10];
        for input in [&upgrade[..], half, foreign, &endless] {
            for size in [1, 7, input.len()] {
                assert_eq!(through(input, size).0, input);
            }
        }
    }

    #[test]
    fn a_proxy_gets_the_absolute_form() {
        let field = Field { name: b"X-Y", value: b"\xff" };
        for (method, path, wanted) in [
            ("GET", &b"/a?b"[..], &b"GET http://h:8080/a?b HTTP/1.1\r\n"[..]),
            ("GET", b"/caf\xe9 b", b"GET http://h:8080/caf\xe9 b HTTP/1.1\r\n"),
            ("OPTIONS", b"*", b"OPTIONS http://h:8080 HTTP/1.1\r\n"),
        ] {
            let head = request_head(method, path, "h:8080", 1, &[field]);
            let rest = b"X-Y: \xff\r\nConnection: close\r\n\r\n".as_slice();
            let (host, login) = ("Host: h:8080\r\n", "Proxy-Authorization: Basic eA==\r\n");
            let with = for_proxy(&head, Some("Basic eA=="));
            assert_eq!(with, [wanted, host.as_bytes(), login.as_bytes(), rest].concat());
            let without = for_proxy(&head, None);
            assert_eq!(without, [wanted, host.as_bytes(), rest].concat());
        }
    }

    fn forwarded(fields: &[(&str, &str)]) -> String {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| Field { name: name.as_bytes(), value: value.as_bytes() })
            .collect();
        let head = request_head("GET", b"/ws", "h", 1, &fields);
        let head = String::from_utf8(head).unwrap();
        head.strip_prefix("GET /ws HTTP/1.1\r\nHost: h\r\n").unwrap().to_owned()
    }

    #[test]
    fn an_upgrade_request_keeps_its_fields() {
        assert_eq!(
            forwarded(&[("Connection", "Upgrade"), ("Upgrade", "websocket"), ("TE", "x")]),
            "TE: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        );
    }

    #[test]
    fn nobody_changes_to_http2_in_the_clear() {
        let asked = ("Connection", "Upgrade, HTTP2-Settings");
        let settings = ("HTTP2-Settings", "AAMAAABk");
        let close = "Connection: close\r\n\r\n";
        assert_eq!(forwarded(&[asked, ("Upgrade", "h2c"), settings]), close);
        assert_eq!(forwarded(&[("Connection", "upgrade"), ("Upgrade", "H2C, "), settings]), close);
        assert_eq!(
            forwarded(&[asked, ("Upgrade", "h2c, websocket"), settings, ("Upgrade", "tcp")]),
            "Upgrade: websocket, tcp\r\nConnection: Upgrade\r\n\r\n"
        );
        assert_eq!(forwarded(&[("Upgrade", "websocket"), settings]), close, "not asked for");
    }

    #[test]
    fn a_body_that_may_end_in_two_places_is_the_last_thing_on_its_connection() {
        let ask = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
        let changes = |framing: &[(&str, &str)]| {
            let head = forwarded(&[&ask[..], framing].concat());
            assert!(framing.iter().all(|(name, value)| head.contains(&format!("{name}: {value}"))));
            head.ends_with("Connection: Upgrade\r\n\r\n")
        };
        let (five, six) = (("Content-Length", "5"), ("content-length", "6"));
        let chunked = ("Transfer-Encoding", "chunked");
        assert!(changes(&[]) && changes(&[five]) && changes(&[five, five]) && changes(&[chunked]));
        assert!(
            !changes(&[five, six]) && !changes(&[chunked, five]) && !changes(&[chunked, chunked])
        );
    }
}
