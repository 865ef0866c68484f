//! The variables that send a program through the meter: for `run`, and for shells by `env`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Context, Exit, Failure, client, lifecycle, say};
use crate::config::NoProxy;
use crate::home::{Home, PidLock};
use crate::meter::ca::Ca;
pub use crate::meter::ca::union_bundle;
use crate::meter::trust;

/// Proxy variables; tools differ in which case they read.
pub const PROXY_VARS: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
/// Where a request to an `https://` address goes: tools look at the first of these that they know.
const WAYS_OUT: [&str; 6] =
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"];
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
pub const PROJECT_VAR: &str = "HALTON_PROJECT";
/// Ties a row to the `run` that its client was started by.
pub const RUN_VAR: &str = "HALTON_RUN";

/// What a new shell waits for an edge that says nothing.
const IF_UP: Duration = Duration::from_millis(300);
/// What never goes through a proxy.
pub const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  eval \"$(halton-meter env)\"")]
pub struct EnvArgs {
    /// Syntax of the output.
    #[arg(long, value_enum, default_value_t)]
    shell: Shell,
    /// Print the commands that take the variables away again.
    #[arg(long)]
    unset: bool,
    /// Print them only if the edge answers, and the commands that take ours away if it does not; never
    /// waits for long. For the start files of shells.
    #[arg(long, conflicts_with_all = ["unset", "json"])]
    if_up: bool,
    /// Print as one JSON object.
    #[arg(long, conflicts_with = "shell")]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Shell {
    #[default]
    Posix,
    Fish,
}

pub fn run(ctx: &Context, args: &EnvArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let present = present();
    let configured = ctx.loaded.config.edge.addr();
    // Nobody answers where an edge that was started earlier is going to be.
    let edge = client::edge_serves(ctx).unwrap_or(configured);
    let down = args.if_up && !answers(ctx, edge);
    // A shell that got ours from its session is better off without them; what else is there stays.
    let ours = |name: &&str| {
        let value = present.get(*name).map_or("", String::as_str);
        [edge, configured].iter().any(|addr| value == format!("http://{addr}"))
            || Path::new(value).starts_with(ctx.home.path())
    };
    if args.unset || down {
        let all = |name: &&str| args.unset && !FORMER_VARS.contains(name);
        for name in names().filter(|name| all(name) || ours(name)) {
            unset(args.shell, name, out)?;
        }
        return Ok(Exit::OK);
    }
    ctx.checked()?;
    ctx.home.create()?;
    prepare_ca(ctx)?;
    let vars = variables(&present, edge, &ctx.home, &union_bundle);
    if edge != configured && !args.if_up {
        say(lifecycle::elsewhere(ctx, edge));
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&vars).map_err(anyhow::Error::from)?)?;
        return Ok(Exit::OK);
    }
    for name in FORMER_VARS.iter().filter(|name| ours(name)) {
        unset(args.shell, name, out)?;
    }
    for (name, value) in &vars {
        let quoted = value.replace('\'', "'\\''");
        match args.shell {
            Shell::Posix => writeln!(out, "export {name}='{quoted}'")?,
            Shell::Fish => {
                writeln!(
                    out,
                    "set -gx {name} '{}'",
                    value.replace('\\', "\\\\").replace('\'', "\\'")
                )?;
            }
        }
    }
    Ok(Exit::OK)
}

fn unset(shell: Shell, name: &str, out: &mut impl Write) -> std::io::Result<()> {
    match shell {
        Shell::Posix => writeln!(out, "unset {name}"),
        Shell::Fish => writeln!(out, "set -e {name}"),
    }
}

/// The variables of this process, without those whose name or value is no text: no such one says
/// anything to us.
#[must_use]
pub fn present() -> BTreeMap<String, String> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// Every variable that we set, or did.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROXY_VARS
        .into_iter()
        .chain(NO_PROXY_VARS)
        .chain(CA_VARS)
        .chain([NODE_PROXY_VAR])
        .chain(FORMER_VARS)
}

/// Our edge lives, and says so at once.
fn answers(ctx: &Context, edge: SocketAddr) -> bool {
    let pid = PidLock::holder(&ctx.home.pid_file("edge")).ok().flatten();
    pid.is_some_and(|pid| client::edge_status_at(edge, pid, IF_UP).is_some())
}

/// Makes sure that the CA and the bundle are there before a program is pointed at them.
pub fn prepare_ca(ctx: &Context) -> Result<(), Failure> {
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let config = &ctx.loaded.config;
    let extra = config.upstream.extra_ca_file.as_deref().map(trust::read_certificates);
    let certificates = || {
        let read = |path: &Path| std::fs::read(path).ok();
        (read(&ctx.home.ca_cert()), read(&ctx.home.next_ca_cert()))
    };
    let before = certificates();
    Ca::load_or_create(&ctx.home, &config.meter.hosts, &log)
        .and_then(|ca| ca.write_bundle(&ctx.home, &extra.unwrap_or_default()))
        .map(drop)
        .map_err(|e| Failure::new(Exit::CANT_CREATE, e))?;
    // A daemon that went on to sign as before would be refused by every new client.
    if before.0.is_some() && before != certificates() {
        lifecycle::reload(ctx);
    }
    Ok(())
}

/// All variables to set, given the ones that are `present`. `union` makes a bundle of a file that
/// the user had named and our CA, and returns its path (or `None`, when that can't be done: then
/// the user's own setting stays).
pub fn variables(
    present: &BTreeMap<String, String>,
    edge: SocketAddr,
    home: &Home,
    union: &dyn Fn(&Home, &Path) -> Option<PathBuf>,
) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    let proxy = format!("http://{edge}");
    for name in PROXY_VARS {
        vars.insert(name.to_owned(), proxy.clone());
    }

    let mut rules: Vec<&str> = NO_PROXY_VARS
        .iter()
        .filter_map(|v| present.get(*v))
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|r| !r.is_empty())
        .collect();
    rules.extend(LOCAL);
    let mut seen = std::collections::BTreeSet::new();
    rules.retain(|r| seen.insert(*r));
    for name in NO_PROXY_VARS {
        vars.insert(name.to_owned(), rules.join(","));
    }

    let bundle = home.ca_bundle();
    for name in CA_VARS {
        let path = match present.get(name).filter(|v| !v.is_empty()).map(Path::new) {
            Some(own) if own.starts_with(home.path()) => Some(bundle.clone()),
            Some(own) => union(home, own),
            None => Some(bundle.clone()),
        };
        if let Some(path) = path {
            vars.insert(name.to_owned(), path.display().to_string());
        }
    }
    vars.insert(NODE_PROXY_VAR.to_owned(), "1".to_owned());
    vars
}

/// The proxy that the user had before us, unless it is us.
pub fn foreign_proxy(present: &BTreeMap<String, String>, edge: SocketAddr) -> Option<&str> {
    let ours = |url: &str| {
        crate::config::UpstreamProxy::parse(url).is_some_and(|p| {
            p.port == edge.port() && NoProxy::new(LOCAL.map(str::to_owned)).covers(&p.host, p.port)
        })
    };
    WAYS_OUT
        .iter()
        .filter_map(|v| present.get(*v))
        .map(String::as_str)
        .find(|url| !url.is_empty() && !ours(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(items: &[(&str, &str)]) -> BTreeMap<String, String> {
        items.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_variable_of_the_contract_is_set() {
        let home = Home::at("/h");
        let vars = variables(&map(&[]), ([127, 0, 0, 1], 8081).into(), &home, &|_, _| None);
        assert_eq!(vars["https_proxy"], "http://127.0.0.1:8081");
        assert_eq!(vars["NO_PROXY"], "localhost,127.0.0.1,::1");
        for name in CA_VARS {
            assert_eq!(vars[name], "/h/ca/bundle.pem", "{name}");
        }
        assert_eq!(vars[NODE_PROXY_VAR], "1");
        let former = map(&[("GIT_SSL_CAINFO", "/h/ca/bundle.pem")]);
        let vars = variables(&former, ([127, 0, 0, 1], 8081).into(), &home, &|_, _| None);
        assert!(FORMER_VARS.iter().all(|name| !vars.contains_key(*name)));
    }

    #[test]
    fn what_the_user_had_is_kept() {
        let home = Home::at("/h");
        let present = map(&[
            ("no_proxy", "corp.example, localhost"),
            ("SSL_CERT_FILE", "/corp.pem"),
            ("CURL_CA_BUNDLE", "/unreadable.pem"),
            ("AWS_CA_BUNDLE", "/h/ca/bundle.pem"),
        ]);
        let union = |_: &Home, own: &Path| {
            (own == Path::new("/corp.pem")).then(|| PathBuf::from("/h/ca/union-corp.pem"))
        };
        let vars = variables(&present, ([127, 0, 0, 1], 8081).into(), &home, &union);
        assert_eq!(vars["NO_PROXY"], "corp.example,localhost,127.0.0.1,::1");
        assert_eq!(vars["SSL_CERT_FILE"], "/h/ca/union-corp.pem");
        assert!(!vars.contains_key("CURL_CA_BUNDLE"));
        assert_eq!(vars["AWS_CA_BUNDLE"], "/h/ca/bundle.pem");
    }

    #[test]
    fn our_own_proxy_is_not_foreign() {
        let edge = ([127, 0, 0, 1], 8081).into();
        assert_eq!(foreign_proxy(&map(&[("HTTPS_PROXY", "http://127.0.0.1:8081")]), edge), None);
        assert_eq!(foreign_proxy(&map(&[("https_proxy", "http://localhost:8081/")]), edge), None);
        assert_eq!(
            foreign_proxy(&map(&[("https_proxy", "http://proxy.corp:3128")]), edge),
            Some("http://proxy.corp:3128")
        );
        let socks = ("ALL_PROXY", "socks5://proxy.corp:1080");
        assert_eq!(foreign_proxy(&map(&[socks]), edge), Some(socks.1));
        let both = map(&[socks, ("HTTP_PROXY", "http://plain.corp:3128")]);
        assert_eq!(foreign_proxy(&both, edge), Some(socks.1));
        let both = map(&[socks, ("https_proxy", "http://proxy.corp:3128")]);
        assert_eq!(foreign_proxy(&both, edge), Some("http://proxy.corp:3128"));
    }
}
