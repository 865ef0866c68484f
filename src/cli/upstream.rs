//! The proxy that a user already has: it becomes our upstream instead of being lost.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Context, env};
use crate::config::{Key, NoProxy, Upstream, UpstreamProxy};
use crate::dial::{DialError, dial};
use crate::home::Home;
use crate::meter::trust;
use crate::platform;

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

    /// Why an edge that goes through `edges` (`HOST:PORT`, as it says) is no way to this one.
    #[must_use]
    pub fn lost_on(&self, edges: Option<&str>) -> Option<String> {
        if !self.usable() {
            return Some(format!(
                "we can't go through your own proxy ({self}), only through http:// ones"
            ));
        }
        edges.is_none().then(|| {
            let known = "`halton-meter config path` says where to";
            format!("your own proxy ({self}) is not set as upstream.proxy; {known}")
        })
    }

    /// Whether it is at this address.
    #[must_use]
    pub fn is_at(&self, place: &UpstreamProxy) -> bool {
        UpstreamProxy::parse(&self.url)
            .is_some_and(|ours| (&ours.host, ours.port) == (&place.host, place.port))
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
    let own = own.map(String::as_str).unwrap_or_default().split(',');
    Some(Found { url, no_proxy: with_local(own) })
}

/// By the desktop's or the system's setting; never our own edge. Not every program follows it, so it is
/// taken over only by who is asked first.
#[must_use]
pub fn of_system(edge: SocketAddr) -> Option<Found> {
    let setting = platform::system_proxy();
    let ours = [edge.to_string(), format!("localhost:{}", edge.port())];
    let proxy = setting.leads_to().into_iter().find(|proxy| !ours.contains(proxy))?;
    let services = setting.read().ok().flatten().unwrap_or_default();
    let mut exceptions = setting.exceptions();
    // Those of a service that leads to us are what `init` wrote there.
    let others = services.into_iter().filter(|s| !s.http.names(edge) && !s.https.names(edge));
    exceptions.extend(others.flat_map(|service| service.bypass));
    let no_proxy = with_local(exceptions.iter().map(String::as_str));
    Some(Found { url: format!("http://{proxy}"), no_proxy })
}

/// A file of roots that this environment adds to the system's own, or puts in their place: an inspected
/// network has one. Services don't see these variables.
#[must_use]
pub fn extra_roots(present: &BTreeMap<String, String>, home: &Home) -> Option<PathBuf> {
    let named = ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"].into_iter().filter_map(|v| present.get(v));
    let mut files = named.map(PathBuf::from).filter(|file| file.is_absolute());
    files.find(|file| {
        !file.starts_with(home.path())
            && !trust::is_system_file(file)
            && !trust::read_certificates(file).is_empty()
    })
}

/// What are rules of `own`, behind what never goes through a proxy.
fn with_local<'a>(own: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut all = env::LOCAL.map(str::to_owned).to_vec();
    for rule in own.map(str::trim).filter(|rule| NoProxy::is_rule(rule)) {
        if !all.iter().any(|known| known == rule) {
            all.push(rule.to_owned());
        }
    }
    all
}

/// What an edge that answers so goes through (`HOST:PORT`).
#[must_use]
pub fn of_edge(answer: &Value) -> Option<&str> {
    answer.get("upstream_proxy").and_then(Value::as_str)
}

/// The proxy that such an edge goes past.
#[must_use]
pub fn past(answer: &Value) -> Option<&str> {
    let past = answer.get("upstream_past").and_then(Value::as_bool) == Some(true);
    of_edge(answer).filter(|_| past)
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

/// Whether a shell is to keep its own proxy, by what is known without asking anybody else: the edge goes
/// through another one (`edges`) or none. One that is `configured` was chosen with the shell's in sight.
#[must_use]
pub fn kept(own: Option<&Found>, edges: Option<&str>, configured: bool) -> bool {
    own.is_some_and(|own| {
        let elsewhere = edges.filter(|_| !configured).and_then(UpstreamProxy::parse);
        own.lost_on(edges).is_some() || elsewhere.is_some_and(|place| !own.is_at(&place))
    })
}

/// Why the running edge's own proxy (`HOST:PORT`, as it says) is a dead end; `None` also when this shell
/// would go there without us. An edge keeps the proxy of the network that it was started in.
#[must_use]
pub fn left_behind(ctx: &Context, edges: &str, own: Option<&Found>) -> Option<String> {
    let place = UpstreamProxy::parse(edges)?;
    if own.is_some_and(|own| own.is_at(&place)) {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let direct = Upstream { proxy: None, ..ctx.loaded.config.upstream.clone() };
    runtime.block_on(dial(&direct, &place.host, place.port, PATIENCE)).err().map(|e| {
        format!(
            "the edge goes through {edges}, the proxy of the shell that started it, which can't be \
             reached ({e}); after `halton-meter edge stop` the next run starts one for this network"
        )
    })
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
    fn a_shell_keeps_a_proxy_that_the_edge_does_not_go_through() {
        let proxy = |url: &str| found(&[("HTTPS_PROXY", url)]);
        let [corp, socks] = ["http://proxy.corp:3128", "socks5://proxy.corp:1080"].map(proxy);
        let (here, other) = (Some("proxy.corp:3128"), Some("proxy.home:3128"));
        for (own, edges, configured, expected) in [
            (&None, None, false, false),
            // Its shell may name it only behind our section.
            (&None, other, false, false),
            (&corp, here, false, false),
            (&corp, None, false, true),
            (&corp, other, false, true),
            // A helper for a log-in, say.
            (&corp, other, true, false),
            (&corp, None, true, true),
            (&socks, None, false, true),
            (&socks, here, true, true),
        ] {
            let seen = kept(own.as_ref(), edges, configured);
            assert_eq!(seen, expected, "{own:?} {edges:?} {configured}");
        }
    }

    #[test]
    fn a_file_of_extra_roots_is_found_unless_it_is_ours_or_the_systems() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let corp = dir.path().join("corp.pem");
        std::fs::write(&corp, &root).unwrap();
        std::fs::write(home.ca_bundle(), &root).unwrap();
        std::fs::write(dir.path().join("empty.pem"), "").unwrap();
        let roots = |name: &str, file: PathBuf| {
            let vars = BTreeMap::from([(name.to_owned(), file.display().to_string())]);
            extra_roots(&vars, &home)
        };
        assert_eq!(roots("SSL_CERT_FILE", corp.clone()), Some(corp.clone()));
        assert_eq!(roots("NODE_EXTRA_CA_CERTS", corp.clone()), Some(corp));
        assert_eq!(roots("SSL_CERT_FILE", home.ca_bundle()), None);
        assert_eq!(roots("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt".into()), None);
        assert_eq!(roots("SSL_CERT_FILE", dir.path().join("empty.pem")), None);
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
