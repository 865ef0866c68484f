//! The proxy that a user already has: it becomes our upstream instead of being lost.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Context, env};
use crate::config::{Key, NoProxy, Upstream, UpstreamProxy};
use crate::dial::{DialError, dial};

/// A proxy is near.
const PATIENCE: Duration = Duration::from_secs(1);

/// What leads to the internet here. `Debug` and `Display` show no password.
#[derive(Clone, Eq, PartialEq)]
pub struct Found {
    /// For `upstream.proxy`; may hold a password.
    pub url: String,
    /// For `upstream.no_proxy`.
    pub no_proxy: Vec<String>,
}

impl Found {
    /// Whether we can go through it: only HTTP proxies that are asked by CONNECT.
    #[must_use]
    pub fn usable(&self) -> bool {
        UpstreamProxy::parse(&self.url).is_some()
    }

    /// The settings as variables for the processes that are about to start.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> + use<> {
        let settings = self.usable().then(|| {
            [("upstream.proxy", self.url.clone()), ("upstream.no_proxy", self.no_proxy.join(","))]
        });
        let settings = settings.into_iter().flatten();
        settings.filter_map(|(name, value)| Some((Key::find(name)?.variable(), value)))
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("http", &self.url));
        let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
        // Nothing behind the authority: it is of no use here and could hold anything.
        let address = address.split(['/', '?', '#']).next().unwrap_or_default();
        write!(f, "{scheme}://{address}")
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} but for {:?}", self.no_proxy)
    }
}

/// By the variables of this environment; never our own edge.
#[must_use]
pub fn of_environment(present: &BTreeMap<String, String>, edge: SocketAddr) -> Option<Found> {
    let url = env::foreign_proxy(present, edge)?.to_owned();
    let own = env::NO_PROXY_VARS.iter().find_map(|name| present.get(*name));
    let own = own.map(String::as_str).unwrap_or_default().split(',').map(str::trim);
    let mut no_proxy = env::LOCAL.map(str::to_owned).to_vec();
    for rule in own.filter(|rule| NoProxy::is_rule(rule)) {
        if !no_proxy.iter().any(|known| known == rule) {
            no_proxy.push(rule.to_owned());
        }
    }
    Some(Found { url, no_proxy })
}

/// Why this proxy does not let us through; `None` also when it can't be told in time. Only a refused
/// log-in is told: whatever else is wrong would be wrong without us too.
#[must_use]
pub fn refusal(ctx: &Context, found: &Found) -> Option<String> {
    let config = &ctx.loaded.config;
    let target = config.meter.hosts.iter().find(|host| !host.covers_subdomains())?;
    let upstream = Upstream {
        proxy: UpstreamProxy::parse(&found.url),
        no_proxy: NoProxy::new(found.no_proxy.iter().cloned()),
        ..config.upstream.clone()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    match runtime.block_on(dial(&upstream, target.name(), target.port(), PATIENCE)) {
        Err(e @ DialError::ProxyLogin(_)) => Some(e.to_string()),
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(vars: &[(&str, &str)]) -> Option<Found> {
        let present = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        of_environment(&present, ([127, 0, 0, 1], 8081).into())
    }

    #[test]
    fn a_corporate_proxy_becomes_two_settings() {
        let found = found(&[
            ("https_proxy", "http://me:s3cret@proxy.corp:3128/"),
            ("NO_PROXY", "localhost, .corp.example,<local>,10.0.0.0/8"),
        ]);
        let found = found.unwrap();
        assert_eq!(
            found.no_proxy,
            ["localhost", "127.0.0.1", "::1", ".corp.example", "10.0.0.0/8"]
        );
        let settings: BTreeMap<_, _> = found.variables().collect();
        assert_eq!(settings["HALTON_METER_UPSTREAM_PROXY"], "http://me:s3cret@proxy.corp:3128/");
        let rules = "localhost,127.0.0.1,::1,.corp.example,10.0.0.0/8";
        assert_eq!(settings["HALTON_METER_UPSTREAM_NO_PROXY"], rules);
        assert_eq!(found.to_string(), "http://proxy.corp:3128");
        assert!(!format!("{found:?}").contains("s3cret"));
    }

    #[test]
    fn what_we_cannot_go_through_sets_nothing_and_our_edge_is_none() {
        for url in ["socks5://u:p@h:1080", "https://proxy.corp:443", "http://u:p@h/x?token=y"] {
            let found = found(&[("HTTPS_PROXY", url)]).unwrap();
            assert!(!found.usable() && found.variables().count() == 0, "{url}");
            assert!(!found.to_string().contains(":p@") && !found.to_string().contains("token"));
        }
        assert_eq!(found(&[("HTTPS_PROXY", "http://127.0.0.1:8081")]), None);
        assert_eq!(found(&[("HTTPS_PROXY", "")]), None);
    }
}
