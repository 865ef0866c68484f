//! Configuration: flag > environment > file > default, every value with its origin.
//!
//! `config/halton-meter.toml` is the default layer itself, so the documented default can't drift
//! from the code's. Commands refuse a wrong file (exit 78); a long-running process uses
//! [`Loaded::config`], in which the layer below stands for whatever was wrong, and only for that.

mod edit;
mod hosts;
mod keys;
mod layers;
mod no_proxy;
mod own;
mod recover;
mod regions;
mod stamp;
mod stray;
mod suffixes;
mod webhook;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use edit::{Refused, with_value};
pub use hosts::{
    ConnectRule, HostPattern, PlacePattern, SELFTEST_HOST, UpstreamProxy, is_selftest,
};
pub(crate) use hosts::{base64, percent_decode};
pub use keys::{DIRECT, FROM_SYSTEM, KEYS, Key, Value};
pub use layers::{Loaded, Origin, Problem, load, load_from};
pub use no_proxy::NoProxy;
pub use own::{NON_LOOPBACK_VAR, OwnPorts, is_loopback, is_own_name};
pub use stamp::{SETTLED, Stamp};
pub use stray::strays;
pub use webhook::Webhook;

/// The default layer, comments included.
pub const DEFAULTS: &str = include_str!("../../config/halton-meter.toml");

/// All settings, typed.
#[derive(Clone, Debug)]
pub struct Config {
    pub edge: Edge,
    pub daemon: Daemon,
    pub meter: Meter,
    pub upstream: Upstream,
    pub bodies: Bodies,
    pub budgets: Budgets,
    pub log: Log,
}

impl Config {
    /// Those of some rules for `NO_PROXY` by which programs may reach something without us. None where our
    /// own way out is a proxy: it may be the way to these too.
    #[must_use]
    pub fn without_us(&self, rules: &[&'static str]) -> Vec<&'static str> {
        let proxied = self.upstream.proxy.is_some() || self.upstream.http_proxy.is_some();
        if proxied { Vec::new() } else { self.meter.spares(rules) }
    }
}

#[derive(Clone, Debug)]
pub struct Edge {
    pub port: u16,
}

impl Edge {
    /// Where tools connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

#[derive(Clone, Debug)]
pub struct Daemon {
    pub api_port: u16,
    /// How long a good probe is trusted.
    pub edge_health_ttl: Duration,
}

impl Daemon {
    #[must_use]
    pub fn api_addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.api_port).into()
    }
}

#[derive(Clone, Debug)]
pub struct Meter {
    /// `hosts` and `extra_hosts`.
    pub hosts: Vec<HostPattern>,
    /// What is metered without TLS.
    pub plain: Vec<PlacePattern>,
    /// Whose models are the user's own.
    pub local: Vec<PlacePattern>,
}

impl Meter {
    /// Whether plain HTTP to this target is metered.
    #[must_use]
    pub fn is_plain(&self, host: &str, port: u16) -> bool {
        self.plain.iter().any(|p| p.matches(host, port))
    }

    /// Those of some rules without a port that cover nothing which is metered by its name or address.
    #[must_use]
    pub fn spares(&self, rules: &[&'static str]) -> Vec<&'static str> {
        let named = || self.hosts.iter().chain(self.plain.iter().filter_map(PlacePattern::host));
        let keeps = |rule: &str| {
            let rule = NoProxy::new([rule.to_owned()]);
            named().any(|host| rule.covers(host.name(), host.port()))
        };
        rules.iter().copied().filter(|rule| !keeps(rule)).collect()
    }

    /// Whether the models behind it are the user's own.
    #[must_use]
    pub fn is_local(&self, host: &str, port: u16) -> bool {
        self.local.iter().any(|p| p.matches(host, port))
    }

    /// Whether TLS connections to this target are metered.
    #[must_use]
    pub fn is_metered(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|p| p.matches(host, port)) || (is_selftest(host) && port == 443)
    }
}

#[derive(Clone, Debug)]
pub struct Upstream {
    /// The way to `https://` addresses, and of all else that is tunnelled.
    pub proxy: Option<UpstreamProxy>,
    /// The way to `http://` addresses: the same, unless it is set apart.
    pub http_proxy: Option<UpstreamProxy>,
    /// It is set apart, to another proxy or to none.
    pub http_apart: bool,
    pub no_proxy: NoProxy,
    pub extra_ca_file: Option<PathBuf>,
    /// In order of precedence: exact host before `*`.
    pub connect: Vec<ConnectRule>,
    /// A proxy that turns out to be at one of these is us.
    pub own: OwnPorts,
}

impl Upstream {
    /// The address that configuration gives for this target, if any.
    #[must_use]
    pub fn connect_override(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.connect.iter().find(|r| r.matches(host, port)).map(|r| r.to)
    }

    /// The proxy to use for this target, if any. What is tunnelled to port 80 is plain HTTP too.
    #[must_use]
    pub fn proxy_for(&self, host: &str, port: u16) -> Option<&UpstreamProxy> {
        if port == 80 {
            return self.http_proxy_for(host, port);
        }
        self.proxy.as_ref().filter(|_| !self.is_direct(host, port))
    }

    /// The same for plain HTTP.
    #[must_use]
    pub fn http_proxy_for(&self, host: &str, port: u16) -> Option<&UpstreamProxy> {
        self.http_proxy.as_ref().filter(|_| !self.is_direct(host, port))
    }

    fn is_direct(&self, host: &str, port: u16) -> bool {
        // A zone is a name of this machine's own, which no proxy knows.
        host.contains('%') || self.no_proxy.covers(host, port)
    }

    /// The proxy that a request which was asked in absolute form goes to in the same form, if any: few
    /// proxies take a `CONNECT` to a port of plain HTTP.
    #[must_use]
    pub fn forwards_to(&self, host: &str, port: u16) -> Option<&UpstreamProxy> {
        self.http_proxy_for(host, port).filter(|_| self.connect_override(host, port).is_none())
    }

    /// Whether the connection is made to this very port.
    #[must_use]
    pub fn keeps_port(&self, host: &str, port: u16) -> bool {
        self.connect_override(host, port).is_none()
            && self.proxy_for(host, port).is_none()
            && self.http_proxy_for(host, port).is_none()
    }
}

/// What is kept of requests and responses themselves.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bodies {
    pub enabled: bool,
    /// Of each body.
    pub body_bytes: usize,
    pub total_bytes: u64,
    pub retention_days: u32,
}

/// Who is told when a budget passes a threshold.
#[derive(Clone, Debug)]
pub struct Budgets {
    pub desktop: bool,
    pub webhook: Option<Webhook>,
}

#[derive(Clone, Debug)]
pub struct Log {
    pub level: slog::Level,
}
