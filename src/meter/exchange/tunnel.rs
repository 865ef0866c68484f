//! An exchange that changes the protocol: a WebSocket, or something that nobody reads.

use jiff::Timestamp;
use uuid::Uuid;

use super::Exchange;
use super::turns::Turns;
use crate::meter::http::Side;
use crate::meter::quota;
use crate::meter::row::{Completeness, Protocol};
use crate::meter::surface::socket::spoken;

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
    /// The protocol changes (101, extended CONNECT). The row stays open until [`Exchange::cut`],
    /// [`Exchange::response_end`] or [`Exchange::lossy`]. Returns what is to be fed with the bytes
    /// that follow, if there are responses of a model in them; `fresh` makes the ids of their rows.
    pub fn upgraded(&mut self, at: Timestamp, fresh: fn() -> Uuid) -> Option<Turns> {
        self.start.protocol = Protocol::Ws;
        self.responded_at = self.responded_at.or(Some(at));
        // HTTP/1.1 follows 101 with no response of its own.
        self.status = self.status.or(Some(101));
        let (tunnel, turns) = match (self.route.kind.and_then(spoken), self.extensions) {
            _ if !self.websocket => (Tunnel::Unread("the upgraded protocol is not known"), None),
            (Some(kind), Some(extensions)) => {
                let model = self.route.model.clone();
                (Tunnel::Followed, Some(Turns::new(kind, extensions, model, fresh)))
            }
            (Some(_), None) => (Tunnel::Unread("the WebSocket's extensions are not known"), None),
            (None, _) if self.route.billable => {
                (Tunnel::Unread("what is said on this WebSocket is not known"), None)
            }
            (None, _) => (Tunnel::Counted, None),
        };
        self.route.billable |= matches!(tunnel, Tunnel::Unread(_));
        self.tunnel = Some(tunnel);
        turns
    }

    /// What the WebSocket's responses have come to: whether what is said there can still be read, and,
    /// once it is over, what none of them took along.
    pub fn after(&mut self, turns: &mut Turns) {
        if let Some(why) = turns.gave_up() {
            self.tunnel = Some(Tunnel::Unread(why));
        }
        quota::renew(&mut self.quota, turns.left_over());
    }

    /// Bytes of the protocol that was upgraded to; those of a WebSocket's messages are counted in
    /// their rows too.
    pub fn tunnelled(&mut self, side: Side, data: &[u8]) {
        let bytes = match side {
            Side::Client => &mut self.request.bytes,
            Side::Server => &mut self.response.bytes,
        };
        *bytes = bytes.saturating_add(data.len() as u64);
    }

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
