//! Where a request that is sent on ends. What its client says behind it (the next request, of one that does
//! not wait for answers) may name another server: this one gets nothing of it. The connection ends with the
//! answer, and the client asks again.
//!
//! It is read and dropped: a socket that is closed with bytes unread resets the connection, and the end
//! of the answer may be lost by that.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};

use super::head;
use crate::framing::{Body, Broken, Chunked};

/// How much of what comes behind a head belongs to it. Sans-IO.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Extent(Body);

impl Extent {
    /// Of a request's head as it is sent on. Where servers may differ on it, all of it does, and so where
    /// the protocol may change.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        Self(body(head).unwrap_or(Body::UntilEof))
    }

    /// It has no end but the connection's.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.0, Body::UntilEof)
    }

    /// How many of the next bytes belong to it.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() && !matches!(self.0, Body::Length(0)) {
            match self.0.step(rest) {
                Ok((step, behind)) => {
                    rest = behind;
                    if self.0.is_over(&step) {
                        self.0 = Body::Length(0);
                    }
                }
                // The server's to judge.
                Err(Broken) => self.0 = Body::UntilEof,
            }
        }
        bytes.len() - rest.len()
    }
}

fn body(head: &[u8]) -> Option<Body> {
    let head = head::read(head).ok()??;
    let fields = head.fields()?;
    let all = |name| fields.iter().filter(move |field| field.is(name)).map(|field| field.value);
    if all("upgrade").next().is_some() {
        return None;
    }
    let (mut codings, mut lengths) = (all("transfer-encoding"), all("content-length"));
    match (codings.next(), lengths.next()) {
        (None, None) => Some(Body::Length(0)),
        (None, Some(length)) => {
            let plain = length.iter().all(u8::is_ascii_digit) && lengths.all(|l| l == length);
            let length = str::from_utf8(length).ok().filter(|_| plain)?;
            length.parse().ok().map(Body::Length)
        }
        (Some(coding), None) if head.version == 1 && codings.next().is_none() => {
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
