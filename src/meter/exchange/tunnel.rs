//! An exchange whose connection goes on in another protocol.

use jiff::Timestamp;

use super::{Completeness, Exchange};

/// What another protocol is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tunnel {
    /// A WebSocket that leads to no model: passed and counted.
    Counted,
    /// What its messages cost is in rows of their own.
    Followed,
    /// There may be a model behind it, and nobody reads what it says.
    Unread(&'static str),
}

impl Exchange {
    /// What it carried is in other rows, or nobody's business.
    pub(super) fn is_only_a_tunnel(&self) -> bool {
        match self.tunnel {
            Some(Tunnel::Counted | Tunnel::Followed) => self.completeness != Completeness::Lossy,
            Some(Tunnel::Unread(_)) | None => false,
        }
    }

    /// It asked for a WebSocket and has none (yet): nothing was asked of a model. A server that
    /// answers as if nobody had spoken of one has been asked.
    pub(super) fn is_only_a_handshake(&self) -> bool {
        let answered = self.status.is_some_and(|status| (200..300).contains(&status));
        self.websocket && self.tunnel.is_none() && !answered
    }

    pub(super) fn end_tunnel(&mut self, at: Timestamp) {
        match self.tunnel {
            Some(Tunnel::Unread(why)) => self.end(Completeness::Lossy, Some(why), at),
            Some(Tunnel::Counted | Tunnel::Followed) | None => {
                self.end(Completeness::Complete, None, at);
            }
        }
    }
}
