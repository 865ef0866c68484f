//! Message heads of HTTP/1.x: collecting them, parsing them, what they say about the body.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use memchr::{memchr, memchr_iter};

use super::again::request_line;
use super::{MAX_HEAD, Method};
use crate::framing::{Body, Chunked};
use crate::meter::http::{GaveUp, Headers, RequestHead, ResponseHead};

/// Bytes copied at a time while a head is incomplete, so that little of a body behind it is.
const STEP: usize = 4096;

/// Finds the end of a head that may come in pieces.
#[derive(Debug, Default)]
pub(super) struct Collector {
    partial: Vec<u8>,
    /// Before this no head ends.
    scanned: usize,
}

/// A request, with what its head says about the rest.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: RequestHead,
    pub(super) body: Option<Body>,
    pub(super) method: Method,
    pub(super) switches: bool,
}

/// A response, with what its head says about the rest.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) head: ResponseHead,
    pub(super) body: Option<Body>,
    pub(super) switched: bool,
}

impl Collector {
    /// Takes bytes up to the end of the head; returns the head when it is whole, and the rest.
    #[expect(clippy::type_complexity, reason = "read once, by the two callers")]
    pub(super) fn push<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<(Option<Cow<'b, [u8]>>, &'b [u8]), GaveUp> {
        if self.partial.is_empty() {
            let blank = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let bytes = bytes.get(blank..).unwrap_or_default();
            if let Ok(end) = find_end(bytes, 0) {
                let (head, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
                return if head.len() > MAX_HEAD {
                    Err(GaveUp::HeadTooLarge)
                } else {
                    Ok((Some(Cow::Borrowed(head)), rest))
                };
            }
            return self.append(bytes);
        }
        self.append(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.partial.is_empty()
    }

    /// What was collected of an incomplete head.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.scanned = 0;
        std::mem::take(&mut self.partial)
    }

    #[expect(clippy::type_complexity, reason = "as `push`")]
    fn append<'b>(&mut self, bytes: &'b [u8]) -> Result<(Option<Cow<'b, [u8]>>, &'b [u8]), GaveUp> {
        let before = self.partial.len();
        let (now, later) = bytes.split_at_checked(STEP).unwrap_or((bytes, &[]));
        self.partial.extend_from_slice(now);
        match find_end(&self.partial, self.scanned) {
            Ok(end) if end <= MAX_HEAD => {
                let mut head = self.take();
                head.truncate(end);
                let used = end.saturating_sub(before);
                Ok((Some(Cow::Owned(head)), bytes.get(used..).unwrap_or_default()))
            }
            Ok(_) => Err(GaveUp::HeadTooLarge),
            Err(_) if self.partial.len() > MAX_HEAD => Err(GaveUp::HeadTooLarge),
            Err(scanned) => {
                self.scanned = scanned;
                Ok((None, later))
            }
        }
    }
}

/// Where the head ends (after its blank line), or from where to look again.
fn find_end(bytes: &[u8], from: usize) -> Result<usize, usize> {
    let tail = bytes.get(from..).unwrap_or_default();
    for at in memchr_iter(b'\n', tail) {
        match tail.get(at + 1..).unwrap_or_default() {
            [b'\n', ..] => return Ok(from + at + 2),
            [b'\r', b'\n', ..] => return Ok(from + at + 3),
            [] | [b'\r'] => return Err(from + at),
            [..] => {}
        }
    }
    Err(bytes.len())
}

pub(super) fn request(raw: &[u8]) -> Result<Request, GaveUp> {
    or_unfolded(raw, read_request)
}

pub(super) fn response(raw: &[u8], to: Method) -> Result<Response, GaveUp> {
    or_unfolded(raw, |raw| read_response(raw, to))
}

/// Old senders continue a field on the next line, which the parser refuses; the standard lets a reader
/// make it one line.
fn or_unfolded<T>(raw: &[u8], read: impl Fn(&[u8]) -> Result<T, GaveUp>) -> Result<T, GaveUp> {
    read(raw).or_else(|why| unfold(raw).map_or(Err(why), |line| read(&line)))
}

fn read_request(raw: &[u8]) -> Result<Request, GaveUp> {
    let mut fields = room(raw);
    let mut parsed = httparse::Request::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    complete(config.parse_request_with_uninit_headers(&mut parsed, raw, &mut fields))?;
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(GaveUp::BadHead);
    };
    let headers = copy(parsed.headers);
    let framing = Framing::of(&headers)?;
    let kind = match method {
        "HEAD" => Method::Head,
        "CONNECT" => Method::Connect,
        _ => Method::Other,
    };
    let body = match framing {
        Framing::Chunked | Framing::OtherCoding | Framing::Length(_) | Framing::Unsaid
            if kind == Method::Connect =>
        {
            None
        }
        Framing::Chunked => Some(Body::Chunked(Chunked::new())),
        // RFC 9112 6.3: the length of such a request can't be known.
        Framing::OtherCoding => return Err(GaveUp::BadFraming),
        Framing::Length(0) | Framing::Unsaid => None,
        Framing::Length(length) => Some(Body::Length(length)),
    };
    let asks = headers.get("upgrade").is_some() && has_token(&headers, "connection", "upgrade");
    let (authority, target) = split_target(target);
    let authority = authority.or_else(|| headers.get("host")).map(str::to_owned);
    Ok(Request {
        head: RequestHead {
            method: method.to_owned(),
            target: target.to_owned(),
            authority,
            protocol: None,
            headers,
        },
        body,
        method: kind,
        switches: asks || kind == Method::Connect,
    })
}

fn read_response(raw: &[u8], to: Method) -> Result<Response, GaveUp> {
    let mut fields = room(raw);
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config.allow_multiple_spaces_in_response_status_delimiters(true);
    config.allow_spaces_after_header_name_in_responses(true);
    complete(config.parse_response_with_uninit_headers(&mut parsed, raw, &mut fields))?;
    let status = parsed.code.ok_or(GaveUp::BadHead)?;
    let headers = copy(parsed.headers);
    let framing = Framing::of(&headers)?;
    let switched = status == 101 || (to == Method::Connect && (200..300).contains(&status));
    let bodiless = switched || to == Method::Head || matches!(status, 100..=199 | 204 | 304);
    let body = match framing {
        _ if bodiless => None,
        Framing::Chunked => Some(Body::Chunked(Chunked::new())),
        Framing::OtherCoding | Framing::Unsaid => Some(Body::UntilEof),
        Framing::Length(0) => None,
        Framing::Length(length) => Some(Body::Length(length)),
    };
    Ok(Response { head: ResponseHead { status, headers }, body, switched })
}

fn complete(result: httparse::Result<usize>) -> Result<(), GaveUp> {
    match result {
        Ok(httparse::Status::Complete(_)) => Ok(()),
        Ok(httparse::Status::Partial) | Err(_) => Err(GaveUp::BadHead),
    }
}

/// For as many fields as there can be in it.
fn room<'h>(raw: &[u8]) -> Box<[MaybeUninit<httparse::Header<'h>>]> {
    Box::new_uninit_slice(memchr_iter(b'\n', raw).count())
}

/// What its first line says of a request whose head can't be read.
pub(super) fn first_line(raw: &[u8]) -> Option<RequestHead> {
    let (method, target) = request_line(raw)?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Some(RequestHead { method: text(method), target: text(target), ..RequestHead::default() })
}

/// With the lines of each field made one; `None`: they are.
fn unfold(raw: &[u8]) -> Option<Vec<u8>> {
    let folds = |at: usize| matches!(raw.get(at + 1), Some(b' ' | b'\t'));
    let mut line = None;
    for at in memchr_iter(b'\n', raw).filter(|&at| folds(at)) {
        let line = line.get_or_insert_with(|| raw.to_vec());
        for byte in line.iter_mut().take(at + 1).skip(at.saturating_sub(1)) {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
    }
    line
}

fn copy(fields: &[httparse::Header<'_>]) -> Headers {
    let bytes = fields.iter().map(|f| f.name.len() + f.value.len()).sum();
    let mut headers = Headers::with_capacity(fields.len(), bytes);
    fields.iter().for_each(|f| headers.push(f.name.as_bytes(), f.value));
    headers
}

/// Absolute-form targets carry the authority; the other forms are left as they are.
fn split_target(target: &str) -> (Option<&str>, &str) {
    let Some((scheme, rest)) = target.split_once("://") else { return (None, target) };
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") {
        return (None, target);
    }
    match memchr(b'/', rest.as_bytes()) {
        Some(at) => (rest.get(..at), rest.get(at..).unwrap_or("/")),
        None => (Some(rest), "/"),
    }
}

/// What the head says about the length of the body.
#[derive(Debug)]
enum Framing {
    Chunked,
    /// A transfer coding whose end is not chunked.
    OtherCoding,
    Length(u64),
    Unsaid,
}

impl Framing {
    fn of(headers: &Headers) -> Result<Self, GaveUp> {
        if let Some(last) = tokens(headers, "transfer-encoding").last() {
            // Wins over Content-Length (RFC 9112 6.3).
            if last.eq_ignore_ascii_case(b"chunked") {
                return Ok(Self::Chunked);
            }
            if !last.eq_ignore_ascii_case(b"identity") {
                return Ok(Self::OtherCoding);
            }
        }
        let mut length = None;
        for value in tokens(headers, "content-length") {
            let text = std::str::from_utf8(value).map_err(|_| GaveUp::BadFraming)?;
            if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(GaveUp::BadFraming);
            }
            let value: u64 = text.parse().map_err(|_| GaveUp::BadFraming)?;
            if length.replace(value).is_some_and(|before| before != value) {
                return Err(GaveUp::BadFraming);
            }
        }
        Ok(length.map_or(Self::Unsaid, Self::Length))
    }
}

fn has_token(headers: &Headers, name: &str, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
}

/// Comma-separated members of every field called `name`.
fn tokens<'h>(headers: &'h Headers, name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers
        .all(name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}
