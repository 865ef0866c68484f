//! Which protocol is spoken: what was agreed on, or else the client's first bytes.

use std::borrow::Cow;

use crate::meter::http::Follower;
use crate::meter::http1::Http1;
use crate::meter::http2::Http2;
use crate::meter::row::Protocol;

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Makes the follower for a connection; a parameter for tests.
pub type MakeFollower = fn(alpn: Option<&[u8]>, first: &[u8]) -> Option<Box<dyn Follower>>;

/// The follower that the protocol asks for; `None`: none is known.
#[must_use]
pub fn follower(alpn: Option<&[u8]>, first: &[u8]) -> Option<Box<dyn Follower>> {
    match spoken(alpn, first)? {
        Protocol::H2 => Some(Box::new(Http2::new())),
        // A WebSocket begins as HTTP.
        Protocol::H1 | Protocol::Ws => Some(Box::new(Http1::new())),
    }
}

/// The protocol itself. Clients that know their server speak HTTP/2 without asking.
pub(super) fn spoken(alpn: Option<&[u8]>, first: &[u8]) -> Option<Protocol> {
    match alpn {
        Some(b"h2") => Some(Protocol::H2),
        None if first.starts_with(H2_PREFACE) => Some(Protocol::H2),
        None | Some(b"http/1.1" | b"http/1.0") => Some(Protocol::H1),
        Some(_) => None,
    }
}

/// What the client began with, as long as it may become either protocol.
#[derive(Debug, Default)]
pub(super) struct First(Vec<u8>);

impl First {
    /// All that the client said, once it tells the protocol.
    pub(super) fn more<'b>(
        &mut self,
        alpn: Option<&[u8]>,
        bytes: &'b [u8],
    ) -> Option<Cow<'b, [u8]>> {
        let all = match self.0.is_empty() {
            true => Cow::Borrowed(bytes),
            false => [&self.take(), bytes].concat().into(),
        };
        if alpn.is_none() && all.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&all) {
            self.0 = all.into_owned();
            return None;
        }
        Some(all)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// There is no more to wait for.
    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
