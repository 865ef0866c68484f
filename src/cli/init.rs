//! `init`: services, and as far as wanted the user's shells, session and system proxy lead through us.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::apply::Leftover;
use super::client::Tree;
use super::{Context, Exit, Failure, apply, containers, env, say, services, upstream};
use crate::config::{self, Origin};
use crate::home::{HOME_VAR, own_program};
use crate::platform::{self, Installation, NetworkService, User};
use crate::setup::plan::{self, Found, FromPlatform, Part};
use crate::setup::shell::{self, Shells};
use crate::setup::{Machine, Mode, Os, Step, SystemState, section};

const ASK: std::time::Duration = std::time::Duration::from_millis(1000);
/// macOS asks its user, in our name, when we do so in its protected folders.
const LOOKS: &str = "for the project of a request we look for .halton.toml and .git where its program works; in \
    Documents, Desktop, Downloads and on other disks macOS may ask you whether halton-meter may. \
    If not, the directory's name is the project's";
/// How far from the configured port another one is looked for.
const NEIGHBOURS: u16 = 100;

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter init                  services only; `halton-meter run -- claude` meters\n  \
    halton-meter init --apps           new shells and programs of the session are metered too\n  \
    halton-meter init --full --dry-run what --full would change\n  \
    halton-meter init                  back to services only: the rest is undone")]
pub struct InitArgs {
    /// New shells and the programs that the session starts go through the meter.
    #[arg(long)]
    apps: bool,
    /// The system proxy leads to the meter too (macOS).
    #[arg(long, conflicts_with = "apps")]
    full: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Never ask: do it, or fail.
    #[arg(long)]
    non_interactive: bool,
    /// Leave the start files of shells alone.
    #[arg(long)]
    no_shell_rc: bool,
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

pub fn run(ctx: &Context, args: &InitArgs) -> Result<Exit, Failure> {
    env::nameable(&ctx.home)?;
    let mode = wanted_mode(args);
    let silent = args.yes || args.non_interactive;
    let Some(manager) = platform::service_manager().filter(|m| m.missing().is_none()) else {
        return Err(no_manager());
    };
    let lock = if args.dry_run {
        if apply::interrupted(ctx) {
            say("an earlier run was cut short; what it had begun would be taken back first");
        }
        None
    } else {
        Some(apply::begin(ctx, Leftover::Refuse)?)
    };
    ctx.home.holds_sockets()?;
    let installation = installation(ctx)?;
    if lock.is_some() {
        env::prepare_ca(ctx)?;
    }
    let mut config = ConfigFile::read(ctx)?;
    let installation = settle_port(ctx, installation, &mut config, silent)?;
    config.keep_proxy(ctx, mode);
    config.keep_roots(ctx);
    let direct = env::direct(&ctx.loaded.config, config.proxied);
    let parts = plan(ctx, args, mode, &*manager, &installation, &direct, config.step())?;
    if parts.is_empty() {
        say(format_args!("nothing to do: installed as {mode}"));
        return Ok(Exit::OK);
    }
    apply::show(&parts);
    let containers = containers::advice(&installation.user);
    let Some(lock) = lock else {
        say("nothing was changed");
        containers.iter().for_each(say);
        return Ok(Exit::OK);
    };
    if !silent && !apply::consent("Go on?")? {
        return Err(Failure::new(Exit::FAILED, "nothing was changed"));
    }
    let steps: Vec<Step> = parts.into_iter().flat_map(|p| p.steps).collect();
    apply::execute(ctx, &lock, &steps)?;
    say(format_args!("installed as {mode}; {} keeps it running", manager.name()));
    let advice = manager.advice(&installation.user).into_iter().chain(containers);
    next_steps(mode, &advice.collect::<Vec<_>>());
    Ok(Exit::OK)
}

fn wanted_mode(args: &InitArgs) -> Mode {
    if args.full && platform::has_system_proxy() {
        return Mode::Full;
    }
    if args.full {
        say(
            "--full: there is no system proxy that we could set here, so this is --apps: new shells and \
             the session's programs. A program that reads neither has a proxy setting of its own",
        );
    }
    if args.full || args.apps { Mode::Apps } else { Mode::EnvOnly }
}

fn no_manager() -> Failure {
    let why =
        platform::service_manager().and_then(|m| Some(format!("{}: {}", m.name(), m.missing()?)));
    let why = why.unwrap_or_else(|| "no service manager that we know".to_owned());
    Failure::new(Exit::UNAVAILABLE, why).hint(
        "nothing needs to be installed: `halton-meter run -- CMD` and `halton-meter start` keep their \
         processes themselves; for each login put `halton-meter start --quiet --unless-stopped &` into your shell's start file",
    )
}

/// What is installed, from where, for whom.
pub fn installation(ctx: &Context) -> Result<Installation, Failure> {
    let user = User::from_env()
        .ok_or_else(|| Failure::new(Exit::NO_PERMISSION, "HOME is not set").hint("set HOME"))?;
    let home = ctx.home.path();
    let mut environment = BTreeMap::new();
    if home != user.home.join(".halton-meter") {
        environment.insert(HOME_VAR.to_owned(), home.display().to_string());
    }
    Ok(Installation {
        program: own_program()?,
        home: ctx.home.clone(),
        environment,
        edge: ctx.loaded.config.edge.addr(),
        user,
    })
}

/// What services read, unlike our flags and our environment.
struct ConfigFile {
    path: PathBuf,
    before: String,
    text: String,
    /// A proxy of the user's was added.
    proxied: bool,
}

impl ConfigFile {
    fn read(ctx: &Context) -> Result<Self, Failure> {
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

    /// A proxy that the user has becomes our upstream: services would know nothing of it.
    fn keep_proxy(&mut self, ctx: &Context, mode: Mode) {
        let known = ctx.loaded.config.upstream.proxy.as_ref();
        if known.is_some_and(|proxy| !proxy.from_system) {
            return;
        }
        let edge = ctx.loaded.config.edge.addr();
        let of_shell = upstream::of_environment(&env::own(ctx), edge).filter(|_| known.is_none());
        // A cache for plain HTTP says nothing of the way to all else.
        let whole = of_shell.as_ref().is_some_and(|found| found.https.is_some());
        let of_system = if whole { None } else { upstream::of_system(edge) };
        let from = if of_system.is_some() { config::FROM_SYSTEM } else { "" };
        let Some(found) = of_system.or(of_shell) else { return };
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
    fn keep_roots(&mut self, ctx: &Context) {
        if ctx.loaded.config.upstream.extra_ca_file.is_none()
            && let Some(file) = upstream::extra_roots(&env::own(ctx), &ctx.home)
        {
            self.set("upstream.extra_ca_file", &format!("{:?}", file.display().to_string()));
        }
    }

    fn step(self) -> Option<Step> {
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

/// The configured port is one fact. If another program has it, another one is offered, once, and
/// written down.
fn settle_port(
    ctx: &Context,
    mut installation: Installation,
    config: &mut ConfigFile,
    silent: bool,
) -> Result<Installation, Failure> {
    let addr = installation.edge;
    // Whoever is installed holds it himself, or his service manager does.
    let tree = Tree::look(ctx, ASK);
    let ours = tree.edge.is_some() || tree.root.is_some() || Mode::installed(&ctx.home).is_some();
    if ours || platform::bind(addr).is_ok() {
        return Ok(installation);
    }
    let who = platform::listener_on(addr).unwrap_or_else(|| "another program".to_owned());
    let taken = format!("port {} is held by {who}", addr.port());
    let ports = addr.port().saturating_add(1)..=addr.port().saturating_add(NEIGHBOURS);
    let api = ctx.loaded.config.daemon.api_port;
    let free = ports
        .filter(|port| *port != api)
        .find(|port| platform::bind((addr.ip(), *port).into()).is_ok());
    let hint = format!(
        "end that program, or set edge.port in {} to a free port{}",
        config.path.display(),
        free.map(|p| format!(" ({p} is)")).unwrap_or_default()
    );
    let Some(port) = free.filter(|_| !silent) else {
        return Err(Failure::new(Exit::FAILED, taken).hint(hint));
    };
    say(&taken);
    if apply::ask(&format!("Use port {port} from now on?"))? != Some(true)
        || !config.set("edge.port", &port.to_string())
    {
        return Err(Failure::new(Exit::FAILED, "nothing was changed").hint(hint));
    }
    installation.edge.set_port(port);
    Ok(installation)
}

fn plan(
    ctx: &Context,
    args: &InitArgs,
    mode: Mode,
    manager: &dyn platform::ServiceManager,
    installation: &Installation,
    direct: &env::Direct,
    config: Option<Step>,
) -> Result<Vec<Part>, Failure> {
    let edge = installation.edge;
    let files = shells(&installation.user);
    let found = found(ctx, &files);
    let session_of = platform::session_environment();
    if let Some(session) = session_of.as_deref() {
        reachable(session, &installation.user, mode, found.state.as_ref())?;
    }
    let names: Vec<&str> = env::names().collect();
    let session = match &session_of {
        Some(session) => session.read(&installation.user, &names).map_err(tool)?,
        None => BTreeMap::new(),
    };
    let proxy_of = platform::system_proxy();
    let proxy = proxy_of.read().map_err(tool)?;
    let state = SystemState::next(
        found.state.as_ref(),
        mode,
        ctx.home.path(),
        edge,
        &session,
        proxy.as_deref(),
    );
    let old = found.state.clone().unwrap_or_default();
    let mut from = FromPlatform {
        services: manager.install(installation).map_err(tool)?,
        ..FromPlatform::default()
    };
    if let Some(session_of) = &session_of {
        from.session = if mode >= Mode::Apps {
            let kept = state.session.clone().unwrap_or_default();
            let mut vars = env::variables(&kept, edge, &ctx.home, direct, &env::union_bundle)
                .map_err(|e| Failure::new(Exit::CANT_CREATE, e))?;
            // What was there before is in the state, not in the session.
            vars.retain(|name, _| names.contains(&name.as_str()));
            session_of.set(installation, &vars).map_err(tool)?
        } else {
            let was = old.session.clone().unwrap_or_default();
            session_of.unset(&installation.user, &names, &was).map_err(tool)?
        };
    }
    let services = proxy.unwrap_or_default();
    from.proxy = if mode == Mode::Full {
        proxy_of.set(edge, &direct.now, state.proxy.as_deref().unwrap_or_default(), &services)
    } else {
        proxy_back(&*proxy_of, edge, &old, &services)
    };
    let exists = |path: &Path| path.exists();
    let sections: Vec<(PathBuf, String)> = if mode >= Mode::Apps && !args.no_shell_rc {
        let wanted = files.wanted(&exists).into_iter();
        wanted.map(|(kind, path)| (path, shell::body(kind, installation))).collect()
    } else {
        Vec::new()
    };
    Ok(plan::init(installation, mode, &found, from, &sections, &state, config))
}

/// Over ssh, `launchctl` would set and take away the variables of another session than that of the screen.
fn reachable(
    session: &dyn platform::SessionEnvironment,
    user: &User,
    mode: Mode,
    state: Option<&SystemState>,
) -> Result<(), Failure> {
    let leads = state.is_some_and(SystemState::leads_session);
    if mode < Mode::Apps && !leads {
        return Ok(());
    }
    let Some(why) = session.out_of_reach(user).map_err(tool)? else { return Ok(()) };
    let hint = if leads {
        "do this in Terminal at the screen; nothing was changed"
    } else {
        "do this in Terminal at the screen; from here, `halton-meter init` sets up the services alone"
    };
    Err(Failure::new(Exit::UNAVAILABLE, why).hint(hint))
}

/// Whatever leads to our present or earlier port is as it was.
pub fn proxy_back(
    proxy: &dyn platform::SystemProxy,
    edge: std::net::SocketAddr,
    old: &SystemState,
    found: &[NetworkService],
) -> Vec<Step> {
    let was = old.proxy.clone().unwrap_or_default();
    let earlier = old.edge.filter(|e| *e != edge);
    [edge].into_iter().chain(earlier).flat_map(|e| proxy.restore(e, &was, found)).collect()
}

/// Where shells have their files.
pub fn shells(user: &User) -> Shells {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    Shells {
        home: user.home.clone(),
        config: user.config.clone(),
        zdotdir: set("ZDOTDIR"),
        login: set("SHELL"),
        macos: platform::is_macos(),
    }
}

/// What is there of ours.
pub fn found(ctx: &Context, shells: &Shells) -> Found {
    let body = |path: &Path| {
        let blob = Os::default().read(path).ok().flatten()?;
        section::body(&blob.content)
    };
    let tree = Tree::look(ctx, ASK);
    let lives = [tree.root, tree.edge, tree.daemon, tree.watchdog].iter().any(Option::is_some);
    Found {
        sections: shells.all().into_iter().map(|(_, path)| (path.clone(), body(&path))).collect(),
        state: SystemState::read(&ctx.home),
        tree: lives && !services::keep(ctx),
        files: Found::sentinels(&ctx.home),
    }
}

pub fn tool(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::FAILED, error).hint("nothing was changed")
}

fn next_steps(mode: Mode, advice: &[String]) {
    match mode {
        Mode::EnvOnly => {
            say("next: `halton-meter run -- claude`, or eval \"$(halton-meter env)\" in a shell");
        }
        Mode::Apps | Mode::Full => {
            say("next: open a new shell; programs that run already are not metered");
        }
    }
    if mode == Mode::Full {
        say(
            "programs that read the system proxy need our CA: `halton-meter ca trust` asks you for it",
        );
    }
    if platform::is_macos() {
        say(LOOKS);
    }
    advice.iter().for_each(say);
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
