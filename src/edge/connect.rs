//! What a client asks of the proxy: the request head, read so that nothing behind it is consumed.
//!
//! Sans-IO: [`Reader::feed`] gets what was peeked and says how much of it to take.

use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::forward;
use super::head::{self, Field, Head};
use super::route::Asked;

/// Longest CONNECT head.
pub const MAX_CONNECT: usize = 8 * 1024;
/// Longest head of a plain HTTP request (cookies).
pub const MAX_FORWARD: usize = 64 * 1024;

/// Up to here every chunk is parsed, so that garbage is refused at once; later only new lines are.
const EAGER: usize = 64;

/// Host (lower case; IPv6 without brackets, with its zone) and port that a client wants to reach.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Target {
    pub host: Box<str>,
    pub port: u16,
}

/// A request that the edge can serve.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    Connect(Target),
    /// A request in absolute form: `head` is rewritten for the origin; what follows it streams as it
    /// is. `secure`: the address is an `https://` one, so the origin gets both over TLS.
    Forward {
        target: Target,
        head: Vec<u8>,
        secure: bool,
    },
    /// `GET /health` to the edge itself.
    Health,
    /// `GET /passing`: which metered hosts' tunnels are raw now.
    Passing,
}

impl Request {
    /// Where it leads; nowhere for a question to the edge itself.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Connect(target) | Self::Forward { target, .. } => Some(target),
            Self::Health | Self::Passing => None,
        }
    }

    /// How it is asked for.
    #[must_use]
    pub fn how(&self) -> Asked {
        match self {
            Self::Forward { secure: true, .. } => Asked::Secure,
            Self::Forward { secure: false, .. } => Asked::Forward,
            Self::Connect(_) | Self::Health | Self::Passing => Asked::Tunnel,
        }
    }
}

/// A request that it can't, with the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    pub status: u16,
    pub why: &'static str,
}

/// What to do with the peeked bytes.
#[derive(Debug, Eq, PartialEq)]
pub enum Step {
    /// All of them belong to the head: take them and go on.
    More,
    /// The first `take` of them end the head.
    Done {
        take: usize,
        request: Request,
    },
    Refuse(Refusal),
}

/// Collects one request head.
#[derive(Debug, Default)]
pub struct Reader {
    head: Vec<u8>,
}

impl Reader {
    /// Goes on with what another reader had taken.
    #[must_use]
    pub fn resume(head: Vec<u8>) -> Self {
        Self { head }
    }

    /// What was taken so far.
    #[must_use]
    pub fn taken(&self) -> &[u8] {
        &self.head
    }

    /// `chunk` continues what was taken so far; it is never empty.
    pub fn feed(&mut self, chunk: &[u8]) -> Step {
        let before = self.head.len();
        let limit = self.limit(chunk);
        let room = limit.saturating_sub(before).min(chunk.len());
        self.head.extend_from_slice(chunk.get(..room).unwrap_or_default());
        if before >= EAGER && !chunk.contains(&b'\n') && before + chunk.len() <= limit {
            return Step::More;
        }
        match parse(&self.head) {
            Ok(Some((length, request))) => {
                Step::Done { take: length.saturating_sub(before), request }
            }
            Ok(None) if before + chunk.len() > limit => {
                Step::Refuse(Refusal { status: 431, why: "the request head is too long" })
            }
            Ok(None) => Step::More,
            Err(refusal) => Step::Refuse(refusal),
        }
    }

    fn limit(&self, chunk: &[u8]) -> usize {
        let first = self.head.first().or(chunk.first());
        let second = self.head.get(1).or_else(|| chunk.get(1 - self.head.len().min(1)));
        let is =
            |byte: Option<&u8>, letter: u8| byte.is_some_and(|b| b.eq_ignore_ascii_case(&letter));
        if is(first, b'C') && is(second, b'O') { MAX_CONNECT } else { MAX_FORWARD }
    }
}

impl Target {
    /// `host:port` or `[v6]:port`; the port falls back to `default`.
    #[must_use]
    pub fn parse(text: &str, default: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, tail) = rest.split_once(']')?;
                (address(host)?, if tail.is_empty() { None } else { Some(tail.strip_prefix(':')?) })
            }
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
                None => (text.to_ascii_lowercase(), None),
            },
        };
        let port = match port {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                if digits.is_empty() {
                    default?
                } else {
                    digits.parse().ok()?
                }
            }
            Some(_) => return None,
            None => default?,
        };
        let named = text.starts_with('[') || is_name(&host);
        (named && port != 0).then(|| Self { host: host.into_boxed_str(), port })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The head's length and meaning, once it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Request)>, Refusal> {
    let refuse = |status, why| Err(Refusal { status, why });
    let read = match head::read(bytes) {
        Ok(Some(read)) => read,
        Ok(None) => return Ok(None),
        Err(head::Error::Version) => return refuse(505, "only HTTP/1 is spoken here"),
        Err(head::Error::NotHttp) => {
            return refuse(400, "this is an HTTP proxy; what came is no HTTP request");
        }
    };
    let uri = read.target;
    let meaning = if read.method.eq_ignore_ascii_case("CONNECT") {
        // Its fields go nowhere, whatever is in them.
        match str::from_utf8(uri).ok().and_then(|uri| Target::parse(uri, None)) {
            Some(target) if read.length <= MAX_CONNECT => Request::Connect(target),
            Some(_) => return refuse(431, "the request head is too long"),
            None => return refuse(400, "CONNECT needs host:port"),
        }
    } else if let Some(rest) = strip_scheme(uri, b"http://") {
        forwarded(false, rest, &read)?
    } else if let Some(rest) = strip_scheme(uri, b"https://") {
        // axios before 1.17 asks every proxy so.
        forwarded(true, rest, &read)?
    } else if uri == b"/health" && read.method == "GET" && asks_loopback(&read) {
        Request::Health
    } else if uri == b"/passing" && read.method == "GET" && asks_loopback(&read) {
        Request::Passing
    } else if uri.starts_with(b"/") {
        return refuse(
            404,
            "this is a proxy, not a web server; its status is at /health. If this port is to be another program's, \
             set edge.port",
        );
    } else {
        return refuse(400, "the request target is neither host:port nor an http(s):// address");
    };
    Ok(Some((read.length, meaning)))
}

fn forwarded(secure: bool, rest: &[u8], read: &Head<'_>) -> Result<Request, Refusal> {
    let refusal = |why| Refusal { status: 400, why };
    let fields = read.fields().ok_or(refusal("a header field can be read in two ways"))?;
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, b""));
    let authority = str::from_utf8(authority).unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let target = Target::parse(host, Some(if secure { 443 } else { 80 }))
        .ok_or(refusal("the address has no proper host"))?;
    let path = path.split(|byte| *byte == b'#').next().unwrap_or_default();
    let path = match path.first() {
        Some(b'/') => path.to_vec(),
        Some(_) => [b"/", path].concat(),
        None if read.method == "OPTIONS" => b"*".to_vec(),
        None => b"/".to_vec(),
    };
    let host = without_zone(host);
    let head = forward::request_head(read.method, &path, &host, read.version, &fields);
    Ok(Request::Forward { target, head, secure })
}

fn strip_scheme<'a>(uri: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = uri.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// A web page that made its own name point at us must not read our status.
fn asks_loopback(read: &Head<'_>) -> bool {
    let is_loopback = |field: &Field<'_>| {
        str::from_utf8(field.value)
            .ok()
            .and_then(|host| Target::parse(host, Some(80)))
            .is_some_and(|target| super::route::is_loopback(&target.host))
    };
    read.fields().is_some_and(|all| all.iter().filter(|f| f.is("host")).all(is_loopback))
}

/// An IPv6 address as it stands in brackets. A link-local one leads somewhere with its zone only, the
/// name of an interface; in a URL the sign before it is written as `%25`.
fn address(text: &str) -> Option<String> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(a, zone)| (a, Some(zone)));
    address.parse::<Ipv6Addr>().ok()?;
    let address = address.to_ascii_lowercase();
    let Some(zone) = zone else { return Some(address) };
    let zone = zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone);
    is_name(zone).then(|| format!("{address}%{zone}"))
}

/// A zone means something on this machine only (RFC 6874).
fn without_zone(authority: &str) -> String {
    let address = |(address, zone): (&str, &str)| {
        let (_, port) = zone.split_once(']')?;
        Some(format!("{address}]{port}"))
    };
    authority.split_once('%').and_then(address).unwrap_or_else(|| authority.to_owned())
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 254
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
