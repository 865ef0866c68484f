//! What the pump wants of the two ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

/// One end of the connection.
pub trait Peer: AsyncBufRead + AsyncWrite + Unpin {
    /// An end without an error is one that it has said itself; its TCP's end alone is an error.
    const SAYS_GOODBYE: bool = true;
    fn socket(&self) -> Option<&TcpStream>;
    /// HTTP/2 was agreed on with it.
    fn speaks_h2(&self) -> bool {
        false
    }
    /// Ends our sending without saying so in TLS.
    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Dropping the socket becomes a reset.
    fn abort(&mut self) {
        let _ = self.socket().map(TcpStream::set_zero_linger);
    }
}

impl Peer for client::TlsStream<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }

    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().0).poll_shutdown(cx)
    }
}

impl Peer for server::TlsStream<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self.get_ref().0)
    }

    fn speaks_h2(&self) -> bool {
        self.get_ref().1.alpn_protocol() == Some(b"h2")
    }

    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().0).poll_shutdown(cx)
    }
}

impl<P: Peer> Peer for Box<P> {
    const SAYS_GOODBYE: bool = P::SAYS_GOODBYE;

    fn socket(&self) -> Option<&TcpStream> {
        (**self).socket()
    }

    fn speaks_h2(&self) -> bool {
        (**self).speaks_h2()
    }

    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        (**self).poll_bare_close(cx)
    }
}
