//! What we set in the environment of programs, and how it is told from what the user has there. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::home::Home;
use crate::meter::ca::CaError;

pub type Vars = BTreeMap<String, String>;
/// Variables with what becomes of them; `None`: they are no more.
pub type Changes = BTreeMap<String, Option<String>>;

/// The file with the user's roots and ours.
pub type United = Result<Option<PathBuf>, CaError>;

/// Proxy variables; tools differ in which case they read.
pub const PROXY_VARS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
/// Where a request to an `https://` address goes: tools look at the first of these that they know.
const HTTPS_WAYS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// The same of an `http://` address: a cache of packages stands there alone, say.
const HTTP_WAYS: [&str; 4] = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
pub const NO_PROXY_VARS: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Variables that name a file of trusted roots. All but `NODE_EXTRA_CA_CERTS` and `DENO_CERT`
/// *replace* a tool's own store, hence the bundle with the system's roots in it.
pub const CA_VARS: [&str; 8] = [
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "CODEX_CA_CERTIFICATE",
    "DENO_CERT",
    // Google's own SDKs speak gRPC to Vertex.
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
];
/// Earlier versions set these, and what they set stands in sessions and shells: where it is ours it goes
/// (ADR 0023).
pub const FORMER_VARS: [&str; 1] = ["GIT_SSL_CAINFO"];
/// Node 22.21 and later: use the proxy variables for `fetch` too.
pub const NODE_PROXY_VAR: &str = "NODE_USE_ENV_PROXY";
const NODE_PROXY: &str = "1";
/// Where our proxy variables lead: they are known by it after the edge has moved.
const EDGE_VAR: &str = "HALTON_EDGE";
/// What the user had in a variable is kept in one of this name and the variable's. Empty: nothing.
const WAS: &str = "HALTON_WAS_";
/// What never goes through a proxy. Earlier versions set these alone.
pub const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// This machine by other addresses: a server that is told to listen on all of them is asked for there. Not
/// by its name: the rule would cover all that is below it, which may be anybody's.
const THIS_MACHINE: [&str; 3] = ["127.0.0.0/8", "0.0.0.0", "::"];

/// What else they reach without us: rules for `NO_PROXY`.
#[derive(Clone, Debug, Default)]
pub struct Direct {
    /// All that there are on this platform.
    pub known: &'static [&'static str],
    pub now: Vec<&'static str>,
}

impl Direct {
    /// `proxied`: our own way out will be a proxy that the configuration lacks yet.
    #[must_use]
    pub fn of(known: &'static [&'static str], config: &Config, proxied: bool) -> Self {
        let now = if proxied { Vec::new() } else { config.without_us(known) };
        Self { known, now }
    }
}

/// Every variable that we set for tools, or did.
pub fn names() -> impl Iterator<Item = &'static str> {
    let now = PROXY_VARS.into_iter().chain(NO_PROXY_VARS).chain(CA_VARS).chain([NODE_PROXY_VAR]);
    now.chain(FORMER_VARS)
}

/// The same, and what else says where a program's requests go.
pub fn looked_at() -> impl Iterator<Item = &'static str> {
    names().chain(HTTPS_WAYS.into_iter().filter(|name| !PROXY_VARS.contains(name)))
}

/// An environment, with ours in it told from the user's own.
#[derive(Debug)]
pub struct Environment<'a> {
    present: &'a Vars,
    home: &'a Home,
    /// As proxy variables name the edge.
    edges: Vec<String>,
    /// What `NO_PROXY` may have behind it, as the configuration was.
    direct: &'static [&'static str],
}

impl<'a> Environment<'a> {
    /// `edges`: where it serves, or did.
    #[must_use]
    pub fn new(
        present: &'a Vars,
        home: &'a Home,
        edges: &[SocketAddr],
        direct: &'static [&'static str],
    ) -> Self {
        let edges = edges.iter().map(SocketAddr::to_string);
        let edges = edges.chain(present.get(EDGE_VAR).cloned()).map(|e| format!("http://{e}"));
        Self { present, home, edges: edges.collect(), direct }
    }

    /// What rids it of ours: each variable with what the user had there, or nothing. A file of roots
    /// that `holds_theirs` stays where it is not known which one it was made of.
    #[must_use]
    pub fn taken_back(&self, holds_theirs: &dyn Fn(&Path) -> bool) -> Changes {
        let stays = |name: &str| {
            let file = CA_VARS.contains(&name).then(|| self.present.get(name)).flatten();
            self.was(name).is_none() && file.is_some_and(|file| holds_theirs(Path::new(file)))
        };
        let ours = names().filter(|name| self.is_ours(name) && !stays(name));
        let ours = ours.map(|name| (name.to_owned(), self.was(name).map(str::to_owned)));
        let notes = self.present.keys().filter(|name| *name == EDGE_VAR || name.starts_with(WAS));
        ours.chain(notes.map(|name| (name.clone(), None))).collect()
    }

    /// What an earlier version set and we don't.
    pub fn former(&self) -> impl Iterator<Item = &'static str> {
        FORMER_VARS.into_iter().filter(|name| self.is_ours(name))
    }

    fn is_ours(&self, name: &str) -> bool {
        let Some(value) = self.present.get(name) else { return false };
        if PROXY_VARS.contains(&name) {
            self.edges.contains(value)
        } else if CA_VARS.contains(&name) || FORMER_VARS.contains(&name) {
            Path::new(value).starts_with(self.home.path())
        } else if NO_PROXY_VARS.contains(&name) {
            let least = no_proxy(NO_PROXY_VARS.map(|name| self.was(name)), &[], &[]);
            let [rules, least] = [value, &least].map(|list| list.split(',').collect::<Vec<_>>());
            let more = rules.strip_prefix(least.as_slice());
            let known = |rule: &&str| THIS_MACHINE.contains(rule) || self.direct.contains(rule);
            self.leads_here() && more.is_some_and(|more| more.iter().all(known))
        } else {
            self.leads_here() && value == NODE_PROXY
        }
    }

    /// Variables that could be anybody's are ours beside those that can't.
    fn leads_here(&self) -> bool {
        self.present.contains_key(EDGE_VAR) || PROXY_VARS.iter().any(|name| self.is_ours(name))
    }

    fn was(&self, name: &str) -> Option<&'a str> {
        said(self.present.get(&format!("{WAS}{name}")))
    }

    /// What the user has in a variable, or had there before us.
    fn own(&self, name: &str) -> Option<&'a str> {
        if self.is_ours(name) { self.was(name) } else { said(self.present.get(name)) }
    }
}

/// Tools take an empty variable for none.
fn said(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|value| !value.is_empty())
}

fn no_proxy(own: [Option<&str>; 2], more: &[&str], direct: &[&str]) -> String {
    let own = own.into_iter().flatten().flat_map(|v| v.split(',')).map(str::trim);
    let mut rules: Vec<&str> = own.filter(|rule| !rule.is_empty()).collect();
    rules.extend(LOCAL.iter().chain(more).chain(direct));
    let mut seen = std::collections::BTreeSet::new();
    rules.retain(|rule| seen.insert(*rule));
    rules.join(",")
}

/// All variables to set, given the ones that are `present`; given their result, they are the same
/// again. `union` makes a bundle of a file that the user had named and our CA, or takes one that it
/// made, and returns its path (or `None`, when that is no file of roots: then the user's own setting stays).
///
/// # Errors
/// When `union` fails: a program that the other variables lead to us would not trust us.
pub fn variables(
    present: &Vars,
    edge: SocketAddr,
    home: &Home,
    direct: &Direct,
    union: &dyn Fn(&Home, &Path) -> United,
) -> Result<Vars, CaError> {
    let found = Environment::new(present, home, &[edge], direct.known);
    let mut vars = Vars::new();
    for name in PROXY_VARS {
        vars.insert(name.to_owned(), format!("http://{edge}"));
    }
    // Who had a proxy before us goes through it to these as well.
    let proxied = HTTPS_WAYS.iter().chain(&HTTP_WAYS).any(|name| found.own(name).is_some());
    let direct: &[&str] = if proxied { &[] } else { &direct.now };
    let rules = no_proxy(NO_PROXY_VARS.map(|name| found.own(name)), &THIS_MACHINE, direct);
    for name in NO_PROXY_VARS {
        vars.insert(name.to_owned(), rules.clone());
    }
    let united = |file: &str| union(home, Path::new(file));
    for name in CA_VARS {
        let ours = said(present.get(name)).filter(|_| found.is_ours(name));
        let path = match (found.own(name), ours) {
            (Some(own), None) => united(own)?,
            // A file that is gone since is in the union still.
            (own, ours) => {
                let first = own.into_iter().chain(ours).find_map(|file| united(file).transpose());
                first.transpose()?.or_else(|| Some(home.ca_bundle()))
            }
        };
        if let Some(path) = path {
            vars.insert(name.to_owned(), path.display().to_string());
        }
    }
    vars.insert(NODE_PROXY_VAR.to_owned(), NODE_PROXY.to_owned());
    for name in names().filter(|name| vars.contains_key(*name)).collect::<Vec<_>>() {
        let note = format!("{WAS}{name}");
        match found.own(name) {
            Some(own) => vars.insert(note, own.to_owned()),
            None if present.contains_key(&note) => vars.insert(note, String::new()),
            None => None,
        };
    }
    vars.insert(EDGE_VAR.to_owned(), edge.to_string());
    Ok(vars)
}

/// The proxies that the user had before us for `https://` and for `http://` addresses, unless they are us.
pub fn foreign_proxies(present: &Vars, edge: SocketAddr) -> [Option<&str>; 2] {
    let ours = |url: &str| {
        crate::config::UpstreamProxy::parse(url)
            .is_some_and(|p| p.port == edge.port() && crate::config::is_loopback(&p.host))
    };
    [HTTPS_WAYS, HTTP_WAYS].map(|names| {
        names.iter().filter_map(|name| said(present.get(*name))).find(|url| !ours(url))
    })
}

#[cfg(test)]
mod tests;
