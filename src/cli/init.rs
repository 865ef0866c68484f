//! `init`: services, and as far as wanted the user's shells, session and system proxy lead through us.

mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;

use super::apply::Leftover;
use super::client::Tree;
use super::{Context, Exit, Failure, apply, containers, env, say, services, upstream};
use crate::home::{HOME_VAR, own_program};
use crate::platform::{self, Installation, NetworkService, User};
use crate::setup::plan::{self, Found, FromPlatform, Part};
use crate::setup::shell::{self, Shells};
use crate::setup::{Machine, Mode, Os, Step, SystemState, section};
use settings::ConfigFile;

const ASK: std::time::Duration = std::time::Duration::from_millis(1000);
/// In its protected folders macOS asks its user, in our name, or refuses without a question.
const LOOKS: &str = "for the project of a request we look for .halton.toml and .git where its program works; in \
    Documents, Desktop, Downloads and on other disks macOS may ask you whether halton-meter may, after an update \
    again, or refuse it unasked (System Settings > Privacy & Security > Files and Folders). \
    If not, the directory's name is the project's";

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
    let installation = config.settle_ports(ctx, installation, silent)?;
    let mut session = Session::look(ctx, &installation, mode)?;
    config.keep_proxy(ctx, mode, session.proxy.as_ref());
    config.keep_roots(ctx);
    session.direct = env::direct(&ctx.loaded.config, config.proxied);
    session.led = mode >= Mode::Apps && !session.keeps_proxy(ctx, config.proxied);
    let parts = plan(ctx, args, mode, &*manager, &installation, &session, config.step())?;
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

/// The variables of programs that the session starts.
struct Session {
    /// All of ours and what leads to a proxy, by whomever it was set.
    now: BTreeMap<String, String>,
    /// The user's own way out.
    proxy: Option<upstream::Found>,
    /// What programs reach without us.
    direct: env::Direct,
    /// They are to lead to us.
    led: bool,
}

impl Session {
    fn look(ctx: &Context, installation: &Installation, mode: Mode) -> Result<Self, Failure> {
        let (edge, old) = (installation.edge, SystemState::read(&ctx.home));
        let names: Vec<_> = env::looked_at().collect();
        let now = match platform::session_environment() {
            Some(session) => {
                reachable(&*session, &installation.user, mode, old.as_ref())?;
                session.read(&installation.user, &names).map_err(tool)?
            }
            None => BTreeMap::new(),
        };
        let own = SystemState::own_session(old.as_ref(), ctx.home.path(), edge, &now);
        Ok(Self {
            proxy: upstream::of_environment(&own, edge),
            now,
            direct: env::Direct::default(),
            led: false,
        })
    }

    /// Through us its programs would not get out: that is said, and they keep what they have.
    fn keeps_proxy(&self, ctx: &Context, proxied: bool) -> bool {
        let configured = upstream::Configured::by(&ctx.loaded.config.upstream);
        let kept = self.proxy.as_ref().filter(|own| {
            let known =
                proxied || if own.https.is_some() { configured.https } else { configured.http };
            !own.usable() || !known
        });
        if let Some(own) = kept {
            say(format_args!(
                "programs of the session get out through {own}, and we don't go there: they keep it, unmetered"
            ));
        }
        kept.is_some()
    }
}

fn plan(
    ctx: &Context,
    args: &InitArgs,
    mode: Mode,
    manager: &dyn platform::ServiceManager,
    installation: &Installation,
    session: &Session,
    config: Option<Step>,
) -> Result<Vec<Part>, Failure> {
    let edge = installation.edge;
    let files = shells(&installation.user);
    let found = found(ctx, &files);
    let session_of = platform::session_environment();
    let names: Vec<&str> = env::names().collect();
    let proxy_of = platform::system_proxy();
    let proxy = match proxy_of.read() {
        // Nothing is to be set, and nothing of ours is there.
        Err(_) if mode < Mode::Full && !led(ctx, found.state.as_ref()) => None,
        read => read.map_err(tool)?,
    };
    let mut state = SystemState::next(
        found.state.as_ref(),
        mode,
        ctx.home.path(),
        edge,
        &session.now,
        proxy.as_deref(),
    );
    state.session = state.session.filter(|_| session.led);
    let old = found.state.clone().unwrap_or_default();
    let mut from = FromPlatform {
        services: manager.install(installation).map_err(tool)?,
        ..FromPlatform::default()
    };
    if let Some(session_of) = &session_of {
        from.session = if session.led {
            let kept = state.session.clone().unwrap_or_default();
            let direct = &session.direct;
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
        own_ways(&services);
        proxy_of.set(
            edge,
            &session.direct.now,
            state.proxy.as_deref().unwrap_or_default(),
            &services,
        )
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

/// Whether we have led the system proxy to us.
pub fn led(ctx: &Context, state: Option<&SystemState>) -> bool {
    ctx.home.proxy_managed().exists() || state.is_some_and(|state| state.proxy.is_some())
}

fn own_ways(services: &[NetworkService]) {
    for service in services.iter().filter(|service| !service.disabled) {
        if let Some(way) = service.own_way() {
            let name = &service.name;
            say(format_args!(
                "{name} has {way}: left alone; what goes by its settings is not metered"
            ));
        }
    }
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
