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
}

impl NetworkService {
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
