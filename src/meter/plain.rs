//! An end of a connection whose client speaks plain HTTP, for [`super::pump`]: without TLS, or the
//! server's over TLS, which the client has left to its proxy.
//!
//! Of a request that was asked of the proxy itself two heads are not as they came: the request's is
//! the edge's rewriting and goes out first, the response's is rewritten here, by the edge's own
//! rules. Everything else passes as it is, as it does without us, but what comes behind the request and
//! behind its answer ([`crate::edge::extent`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

use super::pump::Peer;
use crate::edge::extent::{Answer, Extent};
use crate::edge::forward::ResponseGate;

/// One end. What was put in front is read first.
#[derive(Debug)]
pub struct Plain<S = BufReader<TcpStream>> {
    stream: S,
    front: Vec<u8>,
    taken: usize,
    gate: Option<ResponseGate>,
    reach: Option<Reach>,
}

/// How far what it says goes, and what of it is in the stream's buffer.
#[derive(Debug)]
struct Reach {
    extent: Extent,
    /// What is behind a request is read and dropped; with an answer this end has said all.
    ends: bool,
    within: usize,
    behind: usize,
}

impl Plain {
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self::over(BufReader::new(stream))
    }
}

impl<S: Peer> Plain<S> {
    #[must_use]
    pub fn over(stream: S) -> Self {
        Self { stream, front: Vec::new(), taken: 0, gate: None, reach: None }
    }

    /// `head` comes before what this end says itself, of which nothing is read that is behind this request.
    #[must_use]
    pub fn with_request_head(self, head: Vec<u8>) -> Self {
        let extent = Extent::of(&head);
        Self { front: head, reach: Reach::new(extent, false), ..self }
    }

    /// The head of what it says is rewritten, as the edge would, and it ends with its answer to `request`.
    #[must_use]
    pub fn with_gate(self, request: &[u8]) -> Self {
        Self { gate: Some(ResponseGate::new(Answer::to(request))), ..self }
    }

    /// Fills the front from behind the gate; ready when there is something, or nothing comes.
    fn poll_gate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(gate) = &mut self.gate {
            let chunk = ready!(Pin::new(&mut self.stream).poll_fill_buf(cx))?;
            let length = chunk.len();
            if length == 0 {
                let gate = self.gate.take();
                self.front = gate.map(ResponseGate::finish).unwrap_or_default();
                return Poll::Ready(Ok(()));
            }
            let passed = gate.feed(chunk);
            Pin::new(&mut self.stream).consume(length);
            if let Some(rest) = passed.rest {
                self.gate = None;
                self.reach = Reach::new(rest, true);
            }
            if !passed.bytes.is_empty() {
                self.front = passed.bytes;
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Reach {
    fn new(extent: Extent, ends: bool) -> Option<Self> {
        (!extent.is_open()).then_some(Self { extent, ends, within: 0, behind: 0 })
    }

    /// Ready when the stream's buffer holds some of the request, or nothing comes any more.
    fn poll_within<S: Peer>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        while self.within == 0 && !(self.ends && self.extent.is_over()) {
            let chunk = ready!(Pin::new(&mut *stream).poll_fill_buf(cx))?;
            let length = chunk.len();
            if length == 0 {
                break;
            }
            self.within = self.extent.take(chunk);
            self.behind = length - self.within;
            self.drop_behind(stream);
        }
        Poll::Ready(Ok(()))
    }

    fn consumed<S: Peer>(&mut self, amount: usize, stream: &mut S) {
        self.within = self.within.saturating_sub(amount);
        self.drop_behind(stream);
    }

    fn drop_behind<S: Peer>(&mut self, stream: &mut S) {
        if self.within == 0 {
            Pin::new(stream).consume(std::mem::take(&mut self.behind));
        }
    }
}

impl<S: Peer> AsyncBufRead for Plain<S> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.front.is_empty() {
            ready!(this.poll_gate(cx))?;
        }
        if this.front.is_empty() {
            let Some(reach) = &mut this.reach else {
                return Pin::new(&mut this.stream).poll_fill_buf(cx);
            };
            ready!(reach.poll_within(cx, &mut this.stream))?;
            if reach.within == 0 {
                return Poll::Ready(Ok(&[]));
            }
            let chunk = ready!(Pin::new(&mut this.stream).poll_fill_buf(cx))?;
            return Poll::Ready(Ok(chunk.get(..reach.within).unwrap_or(chunk)));
        }
        Poll::Ready(Ok(this.front.get(this.taken..).unwrap_or_default()))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        if this.front.is_empty() {
            Pin::new(&mut this.stream).consume(amount);
            if let Some(reach) = &mut this.reach {
                reach.consumed(amount, &mut this.stream);
            }
            return;
        }
        this.taken += amount;
        if this.taken >= this.front.len() {
            // Its room too: from here on it is the socket's turn.
            (this.front, this.taken) = (Vec::new(), 0);
        }
    }
}

impl<S: Peer> AsyncRead for Plain<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let chunk = ready!(self.as_mut().poll_fill_buf(cx))?;
        let length = chunk.len().min(buffer.remaining());
        buffer.put_slice(chunk.get(..length).unwrap_or_default());
        self.consume(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: Peer> AsyncWrite for Plain<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: Peer> Peer for Plain<S> {
    const SAYS_GOODBYE: bool = S::SAYS_GOODBYE;

    fn socket(&self) -> Option<&TcpStream> {
        self.stream.socket()
    }

    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_bare_close(cx)
    }
}

impl Peer for BufReader<TcpStream> {
    const SAYS_GOODBYE: bool = false;

    fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref())
    }

    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::testing::pair;

    #[tokio::test]
    async fn the_front_comes_first_and_the_head_is_rewritten() {
        let (mut peer, socket) = pair().await;
        let mut plain = Plain::new(socket).with_request_head(b"first ".to_vec());
        peer.write_all(b"second").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut all = String::new();
        plain.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "first second");

        let said = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody";
        for cut in 0..said.len() {
            let (mut peer, socket) = pair().await;
            peer.set_nodelay(true).unwrap();
            let mut plain = Plain::new(socket).with_gate(b"");
            let write = async {
                peer.write_all(&said[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                peer.write_all(&said[cut..]).await.unwrap();
                peer.shutdown().await.unwrap();
            };
            let mut all = String::new();
            let (_, read) = tokio::join!(write, plain.read_to_string(&mut all));
            read.unwrap();
            assert_eq!(
                all, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
                "cut at {cut}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_behind_the_request_is_not_read() {
        let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = b"5\r\nhello\r\n0\r\n\r\n";
        let said = [&body[..], b"GET http://elsewhere.example/ HTTP/1.1\r\n\r\n"].concat();
        for cut in 0..said.len() {
            let (mut peer, socket) = pair().await;
            peer.set_nodelay(true).unwrap();
            let mut plain = Plain::new(socket).with_request_head(head.to_vec());
            let write = async {
                peer.write_all(&said[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                peer.write_all(&said[cut..]).await.unwrap();
                peer.shutdown().await.unwrap();
                let mut end = Vec::new();
                peer.read_to_end(&mut end).await.unwrap();
            };
            let read = async {
                let mut all = Vec::new();
                plain.read_to_end(&mut all).await.unwrap();
                // With nothing unread it closes without a reset.
                drop(plain);
                all
            };
            let ((), all) = tokio::join!(write, read);
            assert_eq!(all, [&head[..], body].concat(), "cut at {cut}");
        }
    }

    /// The server keeps its side open, and what is dropped behind the request has no other answer.
    #[tokio::test]
    async fn it_ends_with_its_answer() {
        let head = b"GET / HTTP/1.1\r\n\r\n";
        let said = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbodymore";
        for cut in 0..said.len() {
            let (mut peer, socket) = pair().await;
            peer.set_nodelay(true).unwrap();
            let mut plain = Plain::new(socket).with_gate(head);
            let write = async {
                peer.write_all(&said[..cut]).await.unwrap();
                tokio::task::yield_now().await;
                peer.write_all(&said[cut..]).await.unwrap();
            };
            let mut all = String::new();
            let (_, read) = tokio::join!(write, plain.read_to_string(&mut all));
            read.unwrap();
            assert_eq!(
                all, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody",
                "cut at {cut}"
            );
        }
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_not_lost() {
        let (mut peer, socket) = pair().await;
        let mut plain = Plain::new(socket).with_gate(b"");
        peer.write_all(b"HTTP/1.1 200").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut all = String::new();
        plain.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "HTTP/1.1 200");
    }
}
