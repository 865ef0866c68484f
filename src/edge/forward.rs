//! Plain HTTP through the proxy: the two heads are rewritten, everything else streams as it is.
//!
//! One exchange per connection (`Connection: close` both ways), so bodies need no framing here.

/// Longest response head that is held back to be rewritten; a longer one streams as it is.
const MAX_RESPONSE_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 256;

/// The request head for the origin: origin-form, its own `Host`, no proxy and hop-by-hop fields.
#[must_use]
pub fn request_head(
    method: &str,
    path: &str,
    authority: &str,
    version: u8,
    headers: &[httparse::Header<'_>],
) -> Vec<u8> {
    let mut head =
        format!("{method} {path} HTTP/1.{version}\r\nHost: {authority}\r\n").into_bytes();
    let fields = headers.iter().filter(|h| !h.name.eq_ignore_ascii_case("host"));
    copy_fields(&mut head, fields.clone(), asks_upgrade(headers), &listed(headers));
    head
}

/// What [`request_head`] made, for a proxy that comes before the origin: in absolute form, with the
/// log-in that it wants.
#[must_use]
pub fn for_proxy(head: &[u8], authorization: Option<&str>) -> Vec<u8> {
    let rewritten = || {
        let (line, rest) = split_line(head)?;
        let (host, fields) = split_line(rest)?;
        let (method, rest) = line.split_once(' ')?;
        // Of `*` nothing is left.
        let rest = rest.strip_prefix('*').unwrap_or(rest);
        let authority = host.strip_prefix("Host: ")?;
        let mut head = format!("{method} http://{authority}{rest}\r\n{host}\r\n");
        if let Some(authorization) = authorization {
            head = format!("{head}Proxy-Authorization: {authorization}\r\n");
        }
        Some([head.as_bytes(), fields].concat())
    };
    rewritten().unwrap_or_else(|| head.to_vec())
}

/// What [`ResponseGate::feed`] says.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Passed {
    /// Forward these bytes now.
    pub bytes: Vec<u8>,
    /// The head is through: everything later passes untouched.
    pub done: bool,
}

/// Holds the start of a response back until its head can be rewritten. Sans-IO.
#[derive(Debug, Default)]
pub struct ResponseGate {
    held: Vec<u8>,
}

impl ResponseGate {
    /// Goes on with what another one held.
    #[must_use]
    pub fn resume(held: Vec<u8>) -> Self {
        Self { held }
    }

    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Passed {
        self.held.extend_from_slice(bytes);
        let mut passed = Passed::default();
        if !bytes.contains(&b'\n') && self.held.len() <= MAX_RESPONSE_HEAD {
            return passed;
        }
        loop {
            match rewrite(&self.held) {
                // Goes out at once: the client may be waiting for it with its body.
                Head::Interim(length) => passed.bytes.extend(self.held.drain(..length)),
                Head::Final { head, length } => {
                    self.held.drain(..length);
                    passed.bytes.extend_from_slice(&head);
                    passed.done = true;
                }
                Head::Incomplete if self.held.len() <= MAX_RESPONSE_HEAD => return passed,
                Head::Incomplete | Head::Foreign => passed.done = true,
            }
            if passed.done {
                passed.bytes.append(&mut self.held);
                return passed;
            }
        }
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
    },
    /// Not HTTP/1, or switching away from it.
    Foreign,
}

fn split_line(head: &[u8]) -> Option<(&str, &[u8])> {
    let end = head.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = head.split_at_checked(end)?;
    Some((str::from_utf8(line).ok()?, rest.get(2..)?))
}

fn rewrite(held: &[u8]) -> Head {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(held) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Head::Incomplete,
        Err(_) => return Head::Foreign,
    };
    match response.code {
        Some(101) | None => return Head::Foreign,
        Some(100..=199) => return Head::Interim(length),
        Some(_) => {}
    }
    // The status line as it came.
    let line = held.iter().position(|b| *b == b'\n').map_or(0, |end| end + 1);
    let mut head = held.get(..line).unwrap_or_default().to_vec();
    copy_fields(&mut head, response.headers.iter(), false, &listed(response.headers));
    Head::Final { head, length }
}

/// Copies fields but the hop-by-hop ones, and ends the head.
fn copy_fields<'a, 'h: 'a>(
    head: &mut Vec<u8>,
    fields: impl Iterator<Item = &'a httparse::Header<'h>>,
    upgrade: bool,
    listed: &[String],
) {
    for field in fields {
        let name = field.name.to_ascii_lowercase();
        let dropped = match name.as_str() {
            "connection" | "keep-alive" | "proxy-connection" | "proxy-authorization" => true,
            "upgrade" => !upgrade,
            // They say how the body is framed, and the body passes as it is.
            "transfer-encoding" | "content-length" | "trailer" => false,
            other => listed.iter().any(|l| l == other),
        };
        if !dropped {
            head.extend_from_slice(field.name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(field.value);
            head.extend_from_slice(b"\r\n");
        }
    }
    let connection: &[u8] =
        if upgrade { b"Connection: Upgrade\r\n\r\n" } else { b"Connection: close\r\n\r\n" };
    head.extend_from_slice(connection);
}

fn asks_upgrade(headers: &[httparse::Header<'_>]) -> bool {
    listed(headers).iter().any(|token| token == "upgrade")
        && headers.iter().any(|h| h.name.eq_ignore_ascii_case("upgrade"))
}

/// The tokens of the `Connection` fields, lower case.
fn listed(headers: &[httparse::Header<'_>]) -> Vec<String> {
    headers
        .iter()
        .filter(|h| h.name.eq_ignore_ascii_case("connection"))
        .flat_map(|h| h.value.split(|b| *b == b','))
        .map(|token| String::from_utf8_lossy(token).trim().to_ascii_lowercase())
        .collect()
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
            if passed.done {
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
        let header = httparse::Header { name: "X-Y", value: b"\xff" };
        for (method, path, wanted) in [
            ("GET", "/a?b", "GET http://h:8080/a?b HTTP/1.1"),
            ("OPTIONS", "*", "OPTIONS http://h:8080 HTTP/1.1"),
        ] {
            let head = request_head(method, path, "h:8080", 1, &[header]);
            let rest = b"X-Y: \xff\r\nConnection: close\r\n\r\n".as_slice();
            let (host, login) = ("Host: h:8080\r\n", "Proxy-Authorization: Basic eA==\r\n");
            let with = for_proxy(&head, Some("Basic eA=="));
            assert_eq!(with, [format!("{wanted}\r\n{host}{login}").as_bytes(), rest].concat());
            let without = for_proxy(&head, None);
            assert_eq!(without, [format!("{wanted}\r\n{host}").as_bytes(), rest].concat());
        }
    }

    #[test]
    fn an_upgrade_request_keeps_its_fields() {
        let header = |name, value: &'static str| httparse::Header { name, value: value.as_bytes() };
        let head = request_head(
            "GET",
            "/ws",
            "h",
            1,
            &[header("Connection", "Upgrade"), header("Upgrade", "websocket"), header("TE", "x")],
        );
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nTE: x\r\nConnection: Upgrade\r\n\r\n"
        );
    }
}
