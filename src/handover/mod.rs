//! The control channel between edge and daemon: a Unix stream socket in the run directory.
//!
//! The edge offers a client's socket (a descriptor by `SCM_RIGHTS`) and keeps its own copy. The
//! daemon peeks, dials the provider and, just before it consumes the first byte, asks to commit.
//! Until the edge has granted that, the unread bytes still belong to the edge, which goes on raw
//! when its deadline passes, the channel breaks, or the daemon declines.

pub mod channel;
mod head;
pub mod wire;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use head::RequestHead;

/// Version of this protocol; a peer of another version is not used (raw tunnels until both match).
pub const VERSION: u16 = 5;

/// Names an offer on its channel; never reused within a channel.
pub type OfferId = u64;

/// A client connection that the edge offers; its descriptor travels with the frame.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Offer {
    pub id: OfferId,
    /// Names the client's connection in the ledger, whichever way it takes.
    pub connection: Uuid,
    /// CONNECT target as the client wrote it (host lower-cased, IPv6 without brackets).
    pub host: String,
    pub port: u16,
    /// The client's end of its connection to the edge.
    pub client: SocketAddr,
    /// The edge's end.
    pub local: SocketAddr,
    /// A request in absolute form that was asked of the proxy itself: what goes to the origin before
    /// the client's unread bytes. The response's head is to be rewritten as the edge would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<RequestHead>,
    /// With a head: the address was an `https://` one.
    #[serde(default)]
    pub secure: bool,
}

/// Edge → daemon.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToDaemon {
    Hello {
        version: u16,
        pid: u32,
    },
    Offer(Offer),
    /// Answer to `Commit`. `granted: false` = too late: drop the descriptor, consume nothing.
    Verdict {
        id: OfferId,
        granted: bool,
    },
}

/// Daemon → edge.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToEdge {
    /// `instance` is the same id that `/health` of this daemon process answers with.
    Hello { version: u16, pid: u32, instance: Uuid },
    /// With what reads as ready as soon as the daemon dies, before the channel does. Not on every
    /// system.
    Canary,
    /// Still at work on this offer (a slow provider is not a frozen daemon).
    Progress { id: OfferId },
    /// About to consume the first byte: may I?
    Commit { id: OfferId },
    /// Not for us; nothing was consumed. The edge goes on raw and notes the reason.
    Decline { id: OfferId, reason: Decline },
    /// No new offers, please (shutdown).
    Draining,
}

/// Why the daemon left a connection to the edge.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decline {
    /// The first bytes are not a TLS ClientHello, or one that we can't serve.
    NotTls,
    /// The SNI is not a metered host.
    NotMetered,
    /// Host + program are on the bypass list.
    Bypassed,
    /// The client began before the CA was published that signs for this host.
    UnknownAuthority,
    /// The provider could not be reached.
    DialFailed,
    /// The provider's certificate failed our check, or its handshake did.
    UpstreamTls,
    /// The provider did not finish its handshake in time.
    UpstreamSlow,
    /// The provider asks for a client certificate.
    ClientCertificate,
    /// We are at a limit (connections, descriptors, memory).
    Overloaded,
    /// The ledger can't take rows.
    Degraded,
    Draining,
    Internal,
    /// A daemon of a later build has reasons that this edge does not know.
    #[serde(other)]
    Unknown,
}

impl Decline {
    pub const ALL: [Self; 13] = [
        Self::NotTls,
        Self::NotMetered,
        Self::Bypassed,
        Self::UnknownAuthority,
        Self::DialFailed,
        Self::UpstreamTls,
        Self::UpstreamSlow,
        Self::ClientCertificate,
        Self::Overloaded,
        Self::Degraded,
        Self::Draining,
        Self::Internal,
        Self::Unknown,
    ];
}
