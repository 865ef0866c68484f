//! What the HTTP followers say they saw, the same for HTTP/1.1 and HTTP/2.

use std::fmt;

/// Which peer sent the bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Side {
    /// The user's tool: request bytes.
    Client,
    /// The provider: response bytes.
    Server,
}

/// Names an exchange within its connection: the HTTP/2 stream id, or 0, 1, 2 … on HTTP/1.1.
pub type StreamId = u64;

/// Header fields in the order they came; names lower-cased. All of them in one piece: a head has some
/// twenty, and most are looked at by nobody.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Headers {
    /// Name, value, name, value …
    bytes: Vec<u8>,
    fields: Vec<Field>,
    /// The bits of all tags: most of what is looked for is not there.
    tags: u64,
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Field {
    tag: Tag,
    /// Where the name and the value end.
    name: usize,
    value: usize,
}

/// Tells most names apart: some thirty are looked for in each head.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Tag([u8; 4]);

impl Tag {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "a hint")]
    fn of(name: &[u8]) -> Self {
        let at = |place: usize| name.get(place).copied().unwrap_or_default();
        let length = name.len();
        Self([length as u8, at(0), at(length / 2), at(length.saturating_sub(1))])
    }

    /// One of 64, by Fibonacci hashing.
    #[inline]
    const fn bit(self) -> u64 {
        1 << (u32::from_ne_bytes(self.0).wrapping_mul(0x9E37_79B9) >> 26)
    }
}

impl Headers {
    /// For so many fields, of so many bytes in all.
    #[must_use]
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        let (bytes, fields) = (Vec::with_capacity(bytes), Vec::with_capacity(fields));
        Self { bytes, fields, tags: 0 }
    }

    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(name);
        let lower = self.bytes.get_mut(begin..).unwrap_or_default();
        lower.make_ascii_lowercase();
        let tag = Tag::of(lower);
        self.tags |= tag.bit();
        let name = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.fields.push(Field { tag, name, value: self.bytes.len() });
    }

    /// First value of `name` (lower-case) as text; `None` when absent or not UTF-8.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next().and_then(|value| std::str::from_utf8(value).ok())
    }

    /// All values of `name` (lower-case).
    #[inline]
    pub fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let tag = Tag::of(name.as_bytes());
        let fields = if self.tags & tag.bit() == 0 { &[] } else { &self.fields[..] };
        let alike = fields.iter().enumerate().filter(move |(_, field)| field.tag == tag);
        alike
            .map(|(place, field)| self.field(place, field))
            .filter(move |(n, _)| *n == name.as_bytes())
            .map(|(_, value)| value)
    }

    /// All values of `name` (lower-case) as one, as RFC 9110 lets them be read.
    #[must_use]
    pub fn list(&self, name: &str) -> String {
        let values: Vec<_> = self.all(name).map(String::from_utf8_lossy).collect();
        values.join(",")
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().enumerate().map(|(place, field)| self.field(place, field))
    }

    fn field(&self, place: usize, field: &Field) -> (&[u8], &[u8]) {
        let before = place.checked_sub(1).and_then(|before| self.fields.get(before));
        let part = |from, to| self.bytes.get(from..to).unwrap_or_default();
        let begin = before.map_or(0, |before| before.value);
        (part(begin, field.name), part(field.name, field.value))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

impl<N: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(fields: T) -> Self {
        let mut headers = Self::default();
        fields.into_iter().for_each(|(name, value)| headers.push(name.as_ref(), value.as_ref()));
        headers
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields =
            self.iter().map(|(n, v)| (String::from_utf8_lossy(n), String::from_utf8_lossy(v)));
        f.debug_map().entries(fields).finish()
    }
}

/// Request line (or pseudo header fields) and header fields.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestHead {
    pub method: String,
    /// Path with query, as sent. May hold secrets (`?key=`): redact before it is stored or logged.
    pub target: String,
    /// `Host` or `:authority`.
    pub authority: Option<String>,
    /// HTTP/2 `:protocol` (extended CONNECT), e.g. `websocket`.
    pub protocol: Option<String>,
    pub headers: Headers,
}

/// Status and header fields of a final (or 101) response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResponseHead {
    pub status: u16,
    pub headers: Headers,
}

/// How a stream ended early.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// The connection ended before the exchange did; names the side that stopped sending first
    /// (a client that gives up takes the provider's half down with it).
    Eof(Side),
    /// HTTP/2 `RST_STREAM`, or a `GOAWAY` that excludes the stream, with its error code.
    Reset { by: Side, code: u32 },
}

/// One thing a follower saw. Body slices borrow from the bytes just fed.
///
/// An exchange is over after both `RequestEnd` and `ResponseEnd`, or after `Cut` or `Lost`; each comes at
/// most once and nothing follows. `Cut` after `ResponseEnd` means that the answer was whole and only the
/// upload was not. The ends of an upgraded stream are told by the same two events.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpEvent<'a> {
    Request {
        stream: StreamId,
        head: RequestHead,
    },
    RequestBody {
        stream: StreamId,
        data: &'a [u8],
    },
    RequestEnd {
        stream: StreamId,
    },
    /// An interim response (1xx but not 101).
    Informational {
        stream: StreamId,
        status: u16,
    },
    Response {
        stream: StreamId,
        head: ResponseHead,
    },
    /// Body bytes after transfer decoding (chunked, DATA frames), before content decoding.
    ResponseBody {
        stream: StreamId,
        data: &'a [u8],
    },
    /// Fields behind the response's body (HTTP/2).
    Trailers {
        stream: StreamId,
        fields: &'a Headers,
    },
    ResponseEnd {
        stream: StreamId,
    },
    /// 101, or an accepted extended CONNECT: from here the bytes are another protocol's.
    Upgraded {
        stream: StreamId,
    },
    /// Bytes of the protocol that was upgraded to.
    Tunnelled {
        stream: StreamId,
        side: Side,
        data: &'a [u8],
    },
    /// The exchange will not complete.
    Cut {
        stream: StreamId,
        cut: Cut,
    },
    /// The follower will say no more of this exchange, which goes on; the others are followed as before.
    Lost {
        stream: StreamId,
        reason: GaveUp,
    },
    /// The follower lost the thread and will say no more (terminal).
    GaveUp {
        reason: GaveUp,
    },
}

/// Why a follower stopped, for good or for one exchange. That becomes "lossy"; no byte of the user's is touched.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GaveUp {
    #[error("a message head was malformed")]
    BadHead,
    #[error("a message head was over the size cap")]
    HeadTooLarge,
    #[error("a chunk or frame was malformed")]
    BadFraming,
    #[error("a header block could not be decoded")]
    BadHeaderBlock,
    #[error("too many streams were open at once")]
    TooManyStreams,
    #[error("the observer fell behind the bytes")]
    Overrun,
    #[error("the observer panicked")]
    Panicked,
    #[error("the protocol is not one that is followed")]
    UnknownProtocol,
}

/// A follower of one connection, both directions. Sans-IO: no clock, no runtime, no socket.
pub trait Follower: Send {
    /// Feeds bytes that `side` sent; `sink` receives the events they complete, in order.
    fn feed(&mut self, side: Side, bytes: &[u8], sink: &mut dyn FnMut(HttpEvent<'_>));
    /// `side` will send no more. Ends close-delimited bodies, cuts what was open.
    fn finish(&mut self, side: Side, sink: &mut dyn FnMut(HttpEvent<'_>));
    /// Something is under way that no event tells of: the client has begun to say something, a head
    /// mostly, or an exchange goes on that was lost.
    fn is_asking(&self) -> bool;
}
