//! Where a request that is sent on ends, and its answer. What the client says behind its request (the next
//! one, of a client that does not wait for answers) may name another server: this one gets nothing of it. The
//! connection ends with the answer, and the client asks again.
//!
//! It is read and dropped: a socket that is closed with bytes unread resets the connection, and the end
//! of the answer may be lost by that. So the client has to hear of the end with the answer, also from a
//! server that keeps its side open: it would wait for ever for an answer to what was dropped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};

use super::head::{self, Field, Response};
use crate::framing::{Body, Broken, Chunked};

/// How much of what comes behind a head belongs to it. Sans-IO.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Extent(Body);

/// What tells where the answer to a request ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The server's end alone: nothing is dropped behind the request.
    #[default]
    Open,
    /// Its head.
    Framed,
    /// Its head, behind which there is nothing, whatever that says.
    Bare,
}

impl Answer {
    /// To a request with this head.
    #[must_use]
    pub fn to(head: &[u8]) -> Self {
        match Extent::of(head) {
            extent if extent.is_open() => Self::Open,
            _ if head.starts_with(b"HEAD ") => Self::Bare,
            _ => Self::Framed,
        }
    }
}

impl Extent {
    /// Of a request's head as it is sent on. Where servers may differ on it, all of it does, and so where
    /// the protocol may change.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        Self(body(head).unwrap_or(Body::UntilEof))
    }

    /// Of an answer, by its final head. Where clients may differ on it, it has no end.
    #[must_use]
    pub fn of_answer(head: &Response<'_>, answer: Answer) -> Self {
        match (answer, head.status) {
            (Answer::Open, _) => Self::OPEN,
            (Answer::Bare, _) | (Answer::Framed, 204 | 304) => Self(Body::Length(0)),
            (Answer::Framed, _) => {
                let fields = head.fields();
                let body = fields.and_then(|all| framed(&all, head.version, Body::UntilEof));
                Self(body.unwrap_or(Body::UntilEof))
            }
        }
    }

    /// All that comes.
    pub const OPEN: Self = Self(Body::UntilEof);

    /// Nothing more belongs to it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.0, Body::Length(0))
    }

    /// Its end is known without a look at the bytes before it.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        matches!(self.0, Body::Length(_))
    }

    /// So many bytes of one that is counted have passed.
    pub fn skip(&mut self, count: usize) {
        if let Body::Length(left) = &mut self.0 {
            *left = left.saturating_sub(count as u64);
        }
    }

    /// It has no end but the connection's.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.0, Body::UntilEof)
    }

    /// How many of the next bytes belong to it.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_over() {
            match self.0.step(rest) {
                Ok((step, behind)) => {
                    rest = behind;
                    if self.0.is_over(&step) {
                        self.0 = Body::Length(0);
                    }
                }
                // The receiver's to judge.
                Err(Broken) => self.0 = Body::UntilEof,
            }
        }
        bytes.len() - rest.len()
    }
}

fn body(head: &[u8]) -> Option<Body> {
    let head = head::read(head).ok()??;
    let fields = head.fields()?;
    if fields.iter().any(|field| field.is("upgrade")) {
        return None;
    }
    framed(&fields, head.version, Body::Length(0))
}

/// `unsaid`: what it is where no field says. `None`: they say it in no plain way.
fn framed(fields: &[Field<'_>], version: u8, unsaid: Body) -> Option<Body> {
    let all = |name| fields.iter().filter(move |field| field.is(name)).map(|field| field.value);
    let (mut codings, mut lengths) = (all("transfer-encoding"), all("content-length"));
    match (codings.next(), lengths.next()) {
        (None, None) => Some(unsaid),
        (None, Some(length)) => {
            let plain = length.iter().all(u8::is_ascii_digit) && lengths.all(|l| l == length);
            let length = str::from_utf8(length).ok().filter(|_| plain)?;
            length.parse().ok().map(Body::Length)
        }
        (Some(coding), None) if version == 1 && codings.next().is_none() => {
            let last = coding.rsplit(|byte| *byte == b',').next()?.trim_ascii();
            last.eq_ignore_ascii_case(b"chunked").then(|| Body::Chunked(Chunked::new()))
        }
        (Some(_), None | Some(_)) => None,
    }
}

/// Reads no further than the request goes; the rest is dropped as it comes.
#[derive(Debug)]
pub struct Within<R> {
    source: R,
    extent: Extent,
}

impl<R> Within<R> {
    #[must_use]
    pub fn new(source: R, extent: Extent) -> Self {
        Self { source, extent }
    }

    #[must_use]
    pub fn into_inner(self) -> R {
        self.source
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Within<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            ready!(Pin::new(&mut self.source).poll_read(cx, buffer))?;
            let came = buffer.filled().get(before..).unwrap_or_default();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let kept = self.extent.take(came);
            buffer.set_filled(before + kept);
            if kept > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    const NEXT: &str = "GET http://elsewhere.example/ HTTP/1.1\r\nAuthorization: x\r\n\r\n";

    fn of(fields: &str) -> Extent {
        Extent::of(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes())
    }

    fn taken(mut extent: Extent, input: &str, size: usize) -> String {
        let pieces = input.as_bytes().chunks(size);
        let kept = pieces.flat_map(|piece| &piece[..extent.take(piece)]).copied();
        String::from_utf8(kept.collect()).unwrap()
    }

    #[test]
    fn nothing_behind_a_request_belongs_to_it() {
        let chunked = "5;x=y\r\nhello\r\n0\r\nTrailer: a\r\n\r\n";
        for (fields, body) in [
            ("", ""),
            ("Content-Length: 0\r\n", ""),
            ("Content-Length: 5\r\n", "hello"),
            ("Content-Length: 5\r\ncontent-length: 5\r\n", "hello"),
            ("Transfer-Encoding: chunked\r\n", chunked),
            ("Transfer-Encoding: gzip, Chunked\r\n", chunked),
        ] {
            let input = format!("{body}{NEXT}{NEXT}");
            for size in 1..=input.len() {
                assert_eq!(taken(of(fields), &input, size), body, "{fields} in pieces of {size}");
            }
        }
    }

    #[test]
    fn all_of_it_does_where_its_end_is_not_plain() {
        for fields in [
            "Upgrade: websocket\r\nConnection: Upgrade\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
        ] {
            assert!(of(fields).is_open(), "{fields}");
            assert_eq!(taken(of(fields), NEXT, 7), NEXT);
        }
        assert!(Extent::of(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").is_open());
        // Not chunked after all: whatever it is, the server is to see it.
        let broken = "5\r\nhello\r\nno size\r\n";
        assert_eq!(taken(of("Transfer-Encoding: chunked\r\n"), broken, 3), broken);
    }

    #[test]
    fn an_answer_ends_where_every_client_says_so() {
        let get = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        let chunked = "5;x=y\r\nhello\r\n0\r\nTrailer: a\r\n\r\n";
        let more = "HTTP/1.1 200 OK\r\n\r\n";
        for (request, head, body) in [
            (&get[..], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Some("hello")),
            (get, "HTTP/1.0 404 No\r\ncontent-length: 5\r\nContent-Length: 5\r\n", Some("hello")),
            (get, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", Some("")),
            (get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", Some(chunked)),
            (get, "HTTP/1.1 204 Empty\r\n", Some("")),
            (get, "HTTP/1.1 304 Same\r\nContent-Length: 5\r\n", Some("")),
            (b"HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Some("")),
            // With the server's end only.
            (get, "HTTP/1.1 200 OK\r\n", None),
            (get, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", None),
            (get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n", None),
            (get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n", None),
            (get, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length : 6\r\n", None),
            (get, "HTTP/1.1 200 OK\r\nX: \rContent-Length: 5\r\n", None),
            (
                b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
                None,
            ),
            (b"", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", None),
        ] {
            let (read, answer) = (format!("{head}\r\n"), Answer::to(request));
            let read = head::read_response(read.as_bytes()).unwrap().unwrap();
            let extent = Extent::of_answer(&read, answer);
            let Some(body) = body else {
                assert!(extent.is_open() && !extent.is_over(), "{head}");
                continue;
            };
            let input = format!("{body}{more}");
            for size in 1..=input.len() {
                assert_eq!(taken(extent.clone(), &input, size), body, "{head} in pieces of {size}");
            }
            let mut extent = extent;
            extent.take(body.as_bytes());
            assert!(extent.is_over(), "{head}");
        }
    }

    #[test]
    fn a_counted_one_ends_unseen_too() {
        let mut extent = of("Content-Length: 5\r\n");
        assert!(extent.is_counted() && !of("Transfer-Encoding: chunked\r\n").is_counted());
        extent.skip(4);
        assert!(!extent.is_over());
        extent.skip(2);
        assert!(extent.is_over());
    }

    #[tokio::test]
    async fn a_reader_drops_what_is_behind() {
        let input = format!("hello{NEXT}");
        let mut within = Within::new(input.as_bytes(), of("Content-Length: 5\r\n"));
        let mut read = String::new();
        within.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "hello");
        assert!(within.into_inner().is_empty(), "nothing is left to reset the connection");
    }
}
