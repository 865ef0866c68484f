//! The proxy setting of a network service, and whose it is.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The proxies of a network service, as far as they are ours to change.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NetworkService {
    /// The set of services that it is of (macOS's network location): another one may have the same
    /// names. Empty: saved by a version that did not know.
    #[serde(default)]
    pub place: String,
    pub name: String,
    pub http: ProxySetting,
    pub https: ProxySetting,
    pub bypass: Vec<String>,
    /// A proxy auto-configuration that is on. We never change it.
    #[serde(default)]
    pub auto: Option<String>,
    /// A SOCKS proxy is on. We never change it.
    #[serde(default)]
    pub socks: bool,
    /// Switched off as a whole, by the user. Its settings stay, and count when it is on again.
    #[serde(skip)]
    pub disabled: bool,
}

/// It comes before the proxies that are set by hand.
pub const PAC: &str = "an automatic proxy configuration (PAC)";
/// The proxies for HTTP and HTTPS come before it.
pub const SOCKS: &str = "a SOCKS proxy";

impl NetworkService {
    /// Why it is not led to the edge, if that is so: in words, what it has. Ours would be in vain beside it, or
    /// take its place, and the edge can't go through it.
    #[must_use]
    pub fn own_way(&self) -> Option<&'static str> {
        let secret = |proxy: &ProxySetting| proxy.on && proxy.authenticated;
        if secret(&self.http) || secret(&self.https) {
            // It can't be read, so it could never be put back.
            Some("a proxy with a password")
        } else if self.socks {
            Some(SOCKS)
        } else {
            self.auto.as_ref().map(|_| PAC)
        }
    }

    /// What `all` holds of this service, of whatever place if that was not saved.
    #[must_use]
    pub fn find_in<'a>(&self, all: &'a [Self]) -> Option<&'a Self> {
        let of = |place: &str| all.iter().find(|s| s.name == self.name && s.place == place);
        of(&self.place).or_else(|| of(""))
    }
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProxySetting {
    pub on: bool,
    pub host: String,
    pub port: u16,
    /// It takes a password, which can't be read: it can't be restored either.
    #[serde(default)]
    pub authenticated: bool,
}

impl ProxySetting {
    /// It is on and leads to us.
    #[must_use]
    pub fn is(&self, edge: SocketAddr) -> bool {
        self.on && self.names(edge)
    }

    /// It leads to us when it is on. One that is off so is what is left of ours.
    #[must_use]
    pub fn names(&self, edge: SocketAddr) -> bool {
        self.port == edge.port() && (self.host == "localhost" || self.host == edge.ip().to_string())
    }

    #[must_use]
    pub fn names_any(&self, edges: &[SocketAddr]) -> bool {
        edges.iter().any(|edge| self.names(*edge))
    }
}
