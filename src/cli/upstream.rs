//! The proxy that a user already has: it becomes our upstream instead of being lost.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::{Context, env};
use crate::config::{self, Config, Key, NoProxy, Upstream, UpstreamProxy};
use crate::dial::{DialError, dial, dial_by};
use crate::home::Home;
use crate::meter::trust;
use crate::platform;

const PROXY: &str = "upstream.proxy";
const HTTP_PROXY: &str = "upstream.http_proxy";
/// A proxy is near.
const PATIENCE: Duration = Duration::from_secs(1);

/// What leads to the internet here. `Debug` and `Display` show no password.
#[derive(Clone, Eq, PartialEq)]
pub struct Found {
    /// The way to `https://` addresses, for `upstream.proxy`; may hold a password.
    pub https: Option<String>,
    /// The way to `http://` ones.
    pub http: Option<String>,
    /// For `upstream.no_proxy`.
    pub no_proxy: Vec<String>,
}

/// The proxies (`HOST:PORT`) that an edge goes through, as it says.
#[derive(Clone, Debug, Default)]
pub struct Ways {
    pub https: Option<String>,
    pub http: Option<String>,
}

/// Which ways the configuration sets: chosen with the shell's in sight.
#[derive(Clone, Copy, Debug)]
pub struct Configured {
    pub https: bool,
    pub http: bool,
}

impl Configured {
    #[must_use]
    pub const fn by(upstream: &Upstream) -> Self {
        let https = upstream.proxy.is_some();
        Self { https, http: https || upstream.http_apart }
    }
}

impl Found {
    fn urls(&self) -> impl Iterator<Item = &str> {
        [&self.https, &self.http].into_iter().flatten().map(String::as_str)
    }

    /// Whether we can go through it: only HTTP proxies that are asked by CONNECT.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.urls().all(|url| UpstreamProxy::parse(url).is_some())
    }

    /// What such an edge lacks of it, and where that is set.
    #[must_use]
    pub fn missing_on(
        &self,
        edges: &Ways,
        configured: Configured,
    ) -> Option<(String, &'static str)> {
        let https = self.https.as_ref().filter(|_| edges.https.is_none());
        let http = self.http.as_ref().filter(|_| edges.http.is_none() && !configured.http);
        let missing = https.map(|url| (url, PROXY)).or_else(|| http.map(|url| (url, HTTP_PROXY)));
        missing.map(|(url, name)| (shown(url), name))
    }

    /// Why such an edge is no way to this one.
    #[must_use]
    pub fn lost_on(&self, edges: &Ways, configured: Configured) -> Option<String> {
        if !self.usable() {
            return Some(format!(
                "we can't go through your own proxy ({self}), only through http:// ones"
            ));
        }
        if let Some((proxy, name)) = self.missing_on(edges, configured) {
            let known = "`halton-meter config path` says where to";
            return Some(format!("your own proxy ({proxy}) is not set as {name}; {known}"));
        }
        self.elsewhere(edges, configured).map(|(own, edge)| {
            format!(
                "the edge goes through {edge}, the proxy of the shell that started it, and not through \
                 your own ({own}); after `halton-meter edge stop` the next run starts one that does"
            )
        })
    }

    /// One of it, and the other one that such an edge goes through without having been told to by the
    /// configuration.
    fn elsewhere(&self, edges: &Ways, configured: Configured) -> Option<(String, String)> {
        let apart = |own: &Option<String>, edge: &Option<String>| {
            let own = own.as_ref()?;
            let edge = UpstreamProxy::parse(edge.as_ref()?)?.place();
            (UpstreamProxy::parse(own)?.place() != edge).then(|| (shown(own), edge))
        };
        let https = || apart(&self.https, &edges.https).filter(|_| !configured.https);
        let http = || apart(&self.http, &edges.http).filter(|_| !configured.http);
        https().or_else(http)
    }

    /// Whether one of it is at this address.
    #[must_use]
    pub fn is_at(&self, place: &UpstreamProxy) -> bool {
        self.urls().any(|url| UpstreamProxy::parse(url).is_some_and(|p| p.place() == place.place()))
    }

    /// What gives it to a configuration without a proxy. A way for plain HTTP that is set there stays, and
    /// so does none.
    #[must_use]
    pub fn settings(&self, config: &Config) -> Vec<(&'static str, config::Value)> {
        if !self.usable() {
            return Vec::new();
        }
        let http = match (&self.https, &self.http) {
            _ if config.upstream.http_apart => None,
            (https, http) if https == http => None,
            (_, Some(http)) => Some(http.clone()),
            (_, None) => Some(config::DIRECT.to_owned()),
        };
        let text = |name, url: Option<String>| url.map(|url| (name, config::Value::Text(url)));
        let rules = ("upstream.no_proxy", config::Value::List(self.no_proxy.clone()));
        let proxies = [text(PROXY, self.https.clone()), text(HTTP_PROXY, http)];
        proxies.into_iter().flatten().chain([rules]).collect()
    }

    /// The same as variables for the processes that are about to start.
    pub fn variables(&self, config: &Config) -> impl Iterator<Item = (String, String)> + use<> {
        self.settings(config).into_iter().filter_map(|(name, value)| {
            let text = match value {
                config::Value::List(items) => items.join(","),
                config::Value::Text(text) => text,
                value
                @ (config::Value::Bool(_) | config::Value::Int(_) | config::Value::Map(_)) => {
                    value.to_string()
                }
            };
            Some((Key::find(name)?.variable(), text))
        })
    }
}

/// Without what is nobody's business.
fn shown(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let address = rest.rsplit_once('@').map_or(rest, |(_, address)| address);
    // Nothing behind the authority: it is of no use here and could hold anything.
    let address = address.split(['/', '?', '#']).next().unwrap_or_default();
    format!("{scheme}://{address}")
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The one that is in the way.
        let unusable = self.urls().find(|url| UpstreamProxy::parse(url).is_none());
        f.write_str(&shown(unusable.or_else(|| self.urls().next()).unwrap_or_default()))
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
    let ways = env::foreign_proxies(present, edge);
    let [https, http] = ways.map(|url| url.map(str::to_owned));
    if https.is_none() && http.is_none() {
        return None;
    }
    let own = env::NO_PROXY_VARS.iter().find_map(|name| present.get(*name));
    let own = own.map(String::as_str).unwrap_or_default().split(',');
    Some(Found { https, http, no_proxy: with_local(own) })
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
    let active = services.into_iter().filter(|s| !s.disabled);
    let others = active.filter(|s| !s.http.names(edge) && !s.https.names(edge));
    exceptions.extend(others.flat_map(|service| service.bypass));
    let no_proxy = with_local(exceptions.iter().map(String::as_str));
    let url = Some(format!("http://{proxy}"));
    Some(Found { https: url.clone(), http: url, no_proxy })
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

/// What an edge that answers so goes through.
#[must_use]
pub fn of_edge(answer: &Value) -> Ways {
    let way = |said: Option<&Value>| said.and_then(Value::as_str).map(str::to_owned);
    let https = answer.get("upstream_proxy");
    // An older one has one way for all.
    Ways { https: way(https), http: way(answer.get("upstream_http_proxy").or(https)) }
}

/// The proxy that such an edge goes past.
#[must_use]
pub fn past(answer: &Value) -> Option<String> {
    let past = answer.get("upstream_past").and_then(Value::as_bool) == Some(true);
    of_edge(answer).https.filter(|_| past)
}

/// Why this proxy does not let us through; `None` also when it can't be told in time. Only a refused
/// log-in is told: whatever else is wrong would be wrong without us too.
#[must_use]
pub fn refusal(ctx: &Context, found: &Found) -> Option<String> {
    let config = &ctx.loaded.config;
    let target = config.meter.hosts.iter().find(|host| !host.covers_subdomains())?;
    let upstream = Upstream {
        proxy: Some(UpstreamProxy::parse(found.https.as_deref()?)?),
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
/// through another one (`edges`) or none.
#[must_use]
pub fn kept(own: Option<&Found>, edges: &Ways, configured: Configured) -> bool {
    own.is_some_and(|own| own.lost_on(edges, configured).is_some())
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
    let tried = dial_by(&ctx.loaded.config.upstream, None, &place.host, place.port, PATIENCE);
    runtime.block_on(tried).err().map(|e| {
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
    fn a_corporate_proxy_becomes_settings() {
        let found = found(&[
            ("https_proxy", "http://me:s3cret@proxy.corp:3128/"),
            ("NO_PROXY", "localhost, .corp.example,<local>,10.0.0.0/8"),
        ]);
        let found = found.unwrap();
        assert_eq!(
            found.no_proxy,
            ["localhost", "127.0.0.1", "::1", ".corp.example", "10.0.0.0/8"]
        );
        let config = config::load_from(None, |_| None, &[]).config;
        let settings: BTreeMap<_, _> = found.variables(&config).collect();
        assert_eq!(settings["HALTON_METER_UPSTREAM_HTTP_PROXY"], "direct");
        assert_eq!(settings["HALTON_METER_UPSTREAM_PROXY"], "http://me:s3cret@proxy.corp:3128/");
        let rules = "localhost,127.0.0.1,::1,.corp.example,10.0.0.0/8";
        assert_eq!(settings["HALTON_METER_UPSTREAM_NO_PROXY"], rules);
        assert_eq!(found.to_string(), "http://proxy.corp:3128");
        assert!(!format!("{found:?}").contains("s3cret"));
    }

    #[test]
    fn each_scheme_keeps_its_way() {
        let of = |flags: &[&str], vars: &[(&str, &str)]| {
            let flags: Vec<_> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            let config = config::load_from(None, |_| None, &flags).config;
            let settings = found(vars).unwrap().settings(&config);
            let proxies = settings.iter().filter(|(name, _)| *name != "upstream.no_proxy");
            proxies.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let (https, http) = (("https_proxy", "http://p:1"), ("http_proxy", "http://c:2"));
        let (both, none) = (r#"upstream.proxy="http://p:1""#, r#"upstream.http_proxy="direct""#);
        let cache = r#"upstream.http_proxy="http://c:2""#;
        assert_eq!(of(&[], &[http]), cache);
        assert_eq!(of(&[], &[https]), format!("{both} {none}"));
        assert_eq!(of(&[], &[https, http]), format!("{both} {cache}"));
        assert_eq!(of(&[], &[("ALL_PROXY", https.1)]), both);
        for http_proxy in ["http://other:3", "direct"] {
            let flag = format!("upstream.http_proxy={http_proxy}");
            assert_eq!(of(&[&flag], &[https, http]), both, "{http_proxy} stays");
            assert_eq!(of(&[&flag], &[https]), both, "{http_proxy} stays");
        }
    }

    #[test]
    fn what_an_edge_says_of_its_ways() {
        let ways = |answer: Value| of_edge(&answer);
        let one = ways(serde_json::json!({ "upstream_proxy": "p:1" }));
        assert_eq!((one.https.as_deref(), one.http.as_deref()), (Some("p:1"), Some("p:1")));
        let two = ways(serde_json::json!({ "upstream_proxy": "p:1", "upstream_http_proxy": null }));
        assert_eq!((two.https.as_deref(), two.http.as_deref()), (Some("p:1"), None));
    }

    #[test]
    fn a_shell_keeps_a_proxy_that_the_edge_does_not_go_through() {
        let proxy = |url: &str| found(&[("HTTPS_PROXY", url)]);
        let [corp, socks] = ["http://proxy.corp:3128", "socks5://proxy.corp:1080"].map(proxy);
        let cache = found(&[("http_proxy", "http://cache:3142")]);
        let same = |place: &str| Ways { https: Some(place.into()), http: Some(place.into()) };
        let (none, here, other) =
            (Ways::default(), same("proxy.corp:3128"), same("proxy.home:3128"));
        let cached = Ways { https: None, http: Some("cache:3142".into()) };
        let all_by_corp = found(&[("ALL_PROXY", "http://proxy.corp:3128")]);
        let corp_alone = Ways { https: Some("proxy.corp:3128".into()), http: None };
        // Of the configuration `http_proxy` alone, the other way out of the shell.
        for (own, edges, expected) in [
            (&all_by_corp, &corp_alone, false),
            (&all_by_corp, &none, true),
            (&all_by_corp, &other, true),
            (&cache, &other, false),
            (&cache, &none, false),
        ] {
            let seen = kept(own.as_ref(), edges, Configured { https: false, http: true });
            assert_eq!(seen, expected, "{own:?} {edges:?}");
        }
        for (own, edges, configured, expected) in [
            (&None, &none, false, false),
            // Its shell may name it only behind our section.
            (&None, &other, false, false),
            (&corp, &here, false, false),
            (&corp, &none, false, true),
            (&corp, &other, false, true),
            // A helper for a log-in, say.
            (&corp, &other, true, false),
            (&corp, &none, true, true),
            (&socks, &none, false, true),
            (&socks, &here, true, true),
            (&cache, &cached, false, false),
            (&cache, &none, false, true),
            (&cache, &other, false, true),
            (&cache, &other, true, false),
        ] {
            let both = Configured { https: configured, http: configured };
            assert_eq!(kept(own.as_ref(), edges, both), expected, "{own:?} {edges:?} {configured}");
        }
        // `run` says so, and with no password.
        let own = proxy("http://me:s3cret@proxy.corp:3128").unwrap();
        let neither = Configured { https: false, http: false };
        let why = own.lost_on(&other, neither).unwrap();
        assert!(why.contains("goes through proxy.home:3128") && why.contains("edge stop"), "{why}");
        assert!(why.contains("(http://proxy.corp:3128)") && !why.contains("s3cret"), "{why}");
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
        let config = config::load_from(None, |_| None, &[]).config;
        for url in ["socks5://u:p@h:1080", "https://proxy.corp:443", "socks5h://u:p@h/x?token=y"] {
            let found = found(&[("HTTPS_PROXY", url)]).unwrap();
            assert!(!found.usable() && found.settings(&config).is_empty(), "{url}");
            assert!(!found.to_string().contains(":p@") && !found.to_string().contains("token"));
        }
        assert_eq!(found(&[("HTTPS_PROXY", "http://127.0.0.1:8081")]), None);
        assert_eq!(found(&[("HTTPS_PROXY", "")]), None);
    }
}
