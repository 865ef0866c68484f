//! `config.toml` as `init` leaves it: services read it, unlike our flags and our environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::client::Tree;
use super::super::{Context, Exit, Failure, apply, env, say, upstream};
use super::ASK;
use crate::config::{self, Origin};
use crate::platform::{self, Installation};
use crate::setup::{Mode, Step};

/// How far from a configured port another one is looked for.
const NEIGHBOURS: u16 = 100;

/// What services read, unlike our flags and our environment.
pub(super) struct ConfigFile {
    path: PathBuf,
    before: String,
    text: String,
    /// A proxy of the user's was added.
    pub(super) proxied: bool,
}

impl ConfigFile {
    pub(super) fn read(ctx: &Context) -> Result<Self, Failure> {
        let elsewhere = ctx.loaded.values.iter().find(|(key, _, origin)| {
            ["edge.port", "daemon.api_port"].contains(&key.name)
                && matches!(origin, Origin::Flag | Origin::Environment { .. })
        });
        let path = ctx.home.config_file();
        if let Some((key, value, origin)) = elsewhere {
            let why =
                format!("{} = {value} comes from {origin}, which services don't see", key.name);
            return Err(
                Failure::new(Exit::CONFIG, why).hint(format!("write it to {}", path.display()))
            );
        }
        let before = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        Ok(Self { path, text: before.clone(), before, proxied: false })
    }

    /// `false`: the file has a form that we don't change, or the value would be wrong there.
    fn set(&mut self, key: &str, value: &str) -> bool {
        let edited = config::with_value(&self.text, key, value);
        let done = edited.is_ok();
        self.text = edited.unwrap_or_else(|_| std::mem::take(&mut self.text));
        done
    }

    /// The ports are configured facts. Where another program has one, another one is offered, once, and written
    /// down.
    pub(super) fn settle_ports(
        &mut self,
        ctx: &Context,
        mut installation: Installation,
        silent: bool,
    ) -> Result<Installation, Failure> {
        let wanted = [
            ("edge.port", installation.edge),
            ("daemon.api_port", ctx.loaded.config.daemon.api_addr()),
        ];
        // Whoever is installed holds them himself, or his service manager does.
        let tree = Tree::look(ctx, ASK);
        let ours = [tree.edge, tree.root, tree.daemon].iter().any(Option::is_some);
        if ours || Mode::installed(&ctx.home).is_some() {
            return Ok(installation);
        }
        let taken = wanted.iter().filter(|(_, addr)| platform::bind(*addr).is_err());
        let taken: Vec<_> = taken.copied().collect();
        if taken.is_empty() {
            return Ok(installation);
        }
        let who = taken.iter().map(|(_, addr)| {
            let who = platform::listener_on(*addr).unwrap_or_else(|| "another program".to_owned());
            format!("port {} is held by {who}", addr.port())
        });
        let who = who.collect::<Vec<_>>().join("; ");
        let free = free_instead(&taken, &wanted);
        let set = taken.iter().enumerate().map(|(n, (key, _))| {
            let port = free.get(n).map(|port| format!(" ({port} is)"));
            format!("set {key} to a free port{}", port.unwrap_or_default())
        });
        let set = set.collect::<Vec<_>>().join(" and ");
        let hint = format!("end what holds it, or {set} in {}", self.path.display());
        if silent || free.len() < taken.len() {
            return Err(Failure::new(Exit::FAILED, who).hint(hint));
        }
        say(&who);
        let ports = free.iter().map(u16::to_string).collect::<Vec<_>>().join(" and ");
        let consent = apply::ask(&format!("Use port {ports} from now on?"))? == Some(true);
        let mut settled = taken.iter().zip(&free);
        if !consent || !settled.all(|((key, _), port)| self.set(key, &port.to_string())) {
            return Err(Failure::new(Exit::FAILED, "nothing was changed").hint(hint));
        }
        if let Some((_, port)) = taken.iter().zip(&free).find(|((key, _), _)| *key == "edge.port") {
            installation.edge.set_port(*port);
        }
        Ok(installation)
    }

    /// A proxy that the user has becomes our upstream: services would know nothing of it.
    pub(super) fn keep_proxy(
        &mut self,
        ctx: &Context,
        mode: Mode,
        of_session: Option<&upstream::Found>,
    ) {
        let known = ctx.loaded.config.upstream.proxy.as_ref();
        if known.is_some_and(|proxy| !proxy.from_system) {
            return;
        }
        let edge = ctx.loaded.config.edge.addr();
        let of_shell = upstream::of_environment(&env::own(ctx), edge);
        let of_variables = || [of_shell.as_ref(), of_session].into_iter().flatten();
        let of_variables = || of_variables().filter(|_| known.is_none()).cloned();
        // A cache for plain HTTP says nothing of the way to all else.
        let whole = of_variables().find(|found| found.https.is_some());
        let of_system = if whole.is_some() { None } else { upstream::of_system(edge) };
        let from = if of_system.is_some() { config::FROM_SYSTEM } else { "" };
        let Some(found) = whole.or(of_system).or_else(|| of_variables().next()) else { return };
        // The one of another network stays, if this one has none.
        if known.is_some_and(|known| found.is_at(known) || !found.usable()) {
            return;
        }
        if found.https.is_none() && ctx.loaded.config.upstream.http_apart {
            return;
        }
        if let Some(why) = unmetered(&found, mode) {
            say(why);
        }
        if !found.usable() {
            return;
        }
        let before = self.text.clone();
        let settings = found.settings(&ctx.loaded.config);
        let done = settings.iter().all(|(key, value)| self.set(key, &value.to_string()))
            && (from.is_empty() || self.set("upstream.proxy_from", &format!("{from:?}")));
        self.proxied = done;
        if !done {
            self.text = before;
            say(format_args!(
                "{found} leads to the internet here, and services don't know it: set upstream.proxy in {}",
                self.path.display()
            ));
        }
    }

    /// The same of a file of roots.
    pub(super) fn keep_roots(&mut self, ctx: &Context) {
        if ctx.loaded.config.upstream.extra_ca_file.is_none()
            && let Some(file) = upstream::extra_roots(&env::own(ctx), &ctx.home)
        {
            self.set("upstream.extra_ca_file", &format!("{:?}", file.display().to_string()));
        }
    }

    pub(super) fn step(self) -> Option<Step> {
        (self.text != self.before).then(|| Step::write(self.path, self.text, 0o600))
    }
}

/// Shells that are to lead through us and will not.
fn unmetered(found: &upstream::Found, mode: Mode) -> Option<String> {
    let led = match mode {
        Mode::EnvOnly => false,
        Mode::Apps | Mode::Full => true,
    };
    (led && !found.usable()).then(|| {
        format!(
            "{found} leads to the internet here, and we can't go through it, only through http:// \
             proxies: shells that have it keep it, unmetered"
        )
    })
}

/// A free port near each of `taken`; fewer, if there is none.
fn free_instead(taken: &[(&str, SocketAddr)], wanted: &[(&str, SocketAddr)]) -> Vec<u16> {
    let mut chosen: Vec<u16> = Vec::new();
    for (_, addr) in taken {
        let near = addr.port().saturating_add(1)..=addr.port().saturating_add(NEIGHBOURS);
        let unused = |port: &u16| {
            !chosen.contains(port) && !wanted.iter().any(|(_, addr)| addr.port() == *port)
        };
        let free = |port: &u16| platform::bind((addr.ip(), *port).into()).is_ok();
        let Some(port) = near.into_iter().filter(unused).find(free) else { break };
        chosen.push(port);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_we_cannot_go_through_is_named_where_shells_are_led() {
        let why = |url: &str, mode| {
            let https = Some(url.to_owned());
            let found = upstream::Found { https, http: None, no_proxy: Vec::new() };
            unmetered(&found, mode)
        };
        for mode in [Mode::Apps, Mode::Full] {
            let said = why("socks5://me:s3cret@proxy.corp:1080", mode).unwrap();
            assert!(said.starts_with("socks5://proxy.corp:1080 leads"), "{said}");
            assert_eq!(why("http://proxy.corp:3128", mode), None);
        }
        assert_eq!(why("socks5://proxy.corp:1080", Mode::EnvOnly), None);
    }
}
