//! `uninstall`: undoes what `init` did. What running programs need stays where they look for it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use super::apply::Leftover;
use super::{Context, Exit, Failure, apply, ca, codex, env, init, say};
use crate::platform;
use crate::setup::plan::{self, FromPlatform, Part, WayOut};
use crate::setup::{self, Step};
use crate::trust_store::{Change, Plan};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter uninstall             everything out, the edge down; what was metered stays\n  \
    halton-meter uninstall --graceful  running tools keep working until the next reboot\n  \
    halton-meter uninstall --purge     the ledger goes too")]
pub struct UninstallArgs {
    /// The edge goes on, unmetered, until the next reboot: no running program loses its connection.
    #[arg(long)]
    graceful: bool,
    /// Remove the home directory too: ledger, kept bodies, settings, certificate authority.
    #[arg(long)]
    purge: bool,
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

pub fn run(ctx: &Context, args: &UninstallArgs) -> Result<Exit, Failure> {
    let lock = apply::begin(ctx, Leftover::Forget)?;
    let installation = init::installation(ctx)?;
    let (user, edge) = (&installation.user, installation.edge);
    let found = init::found(ctx, &init::shells(user));
    let old = found.state.clone().unwrap_or_default();
    let mut from = FromPlatform::default();
    let proxy = platform::system_proxy();
    let services = proxy.read().map_err(init::tool)?.unwrap_or_default();
    from.proxy = init::proxy_back(&*proxy, edge, &old, &services);
    let elsewhere: Vec<_> =
        old.elsewhere(&services).iter().map(|s| format!("{}: {}", s.place, s.name)).collect();
    let leads = old.leads_session();
    let mut out_of_reach = None;
    if let Some(session) = platform::session_environment() {
        let names: Vec<&str> = env::names().collect();
        let was = old.session.unwrap_or_default();
        from.session = session.unset(user, &names, &was).map_err(init::tool)?;
        if leads {
            out_of_reach = session.out_of_reach(user).map_err(init::tool)?;
        }
    }
    let way = WayOut::of(args.graceful, leads, out_of_reach.is_none());
    if let Some(manager) = platform::service_manager() {
        let services = manager.uninstall(user, way.keeps_edge());
        from.services = services.map_err(|e| match manager.missing() {
            Some(why) => {
                init::tool(format!("services of ours are installed; {}: {why}", manager.name()))
            }
            None => init::tool(e),
        })?;
    }
    let trust = untrust(ctx);
    let parts = plan::uninstall(&installation, &found, from, way);
    // The home says what the session's variables were.
    let purge = args.purge && way != WayOut::KeepSession;
    let mut purged = if purge { purgeable(ctx, args.graceful)? } else { Vec::new() };
    // What waits for the rest to be undone waits with it.
    let keys = if way == WayOut::KeepSession { Vec::new() } else { keys(ctx, &purged) };
    let untrusts = !trust.steps.is_empty() && !trust.needs_root;
    if let Some(why) = &out_of_reach {
        say(format_args!(
            "programs of the session at the screen are led to {edge}, which can't be undone from here: {why}"
        ));
    }
    if parts.is_empty() && !untrusts && purged.is_empty() && keys.is_empty() {
        if way == WayOut::KeepSession {
            tell(ctx, args, way, edge, None);
            return Ok(Exit::OK);
        }
        say("nothing to do: nothing of ours is installed");
        return Ok(Exit::OK);
    }
    apply::show(&parts);
    if untrusts {
        apply::show(&[Part { title: "Trust", steps: trust.steps.clone() }]);
    }
    if !keys.is_empty() {
        let steps = keys.iter().map(Step::remove).collect();
        apply::show(&[Part { title: "Key of our certificate authority", steps }]);
    }
    if !purged.is_empty() {
        say(
            "For good: the ledger with all that was metered, bodies that were kept, settings, certificate authority",
        );
        purged.iter().for_each(|path| apply::detail(format_args!("rm -r {}", path.display())));
    }
    if !args.yes && !apply::consent("Go on?")? {
        return Err(Failure::new(Exit::FAILED, "nothing was changed"));
    }
    let steps: Vec<Step> = parts.into_iter().flat_map(|p| p.steps).collect();
    apply::execute(ctx, &lock, &steps)?;
    // On its own and last: the person may refuse it, which is no reason to keep all the rest.
    if untrusts && let Err(e) = apply::execute(ctx, &lock, &trust.steps) {
        say(format_args!("our CA could not be taken out of the trust store: {e}"));
    }
    let still_trusted = by_hand(&untrust(ctx));
    if still_trusted.is_some() {
        // The command that takes it out reads the certificate.
        let certificates = crate::meter::ca::files(&ctx.home);
        purged.retain(|path| !certificates.contains(path));
    }
    // Whoever still trusts the CA, nobody can sign with it any more.
    for path in purged.iter().chain(&keys) {
        remove(path)?;
    }
    tell(ctx, args, way, edge, still_trusted);
    if !elsewhere.is_empty() {
        say(format_args!(
            "network services of other locations may still lead to {edge}; there, run `halton-meter \
             reset-proxy`:"
        ));
        elsewhere.iter().for_each(apply::detail);
    }
    Ok(Exit::OK)
}

/// What takes our CA out of the system's trust store. Where there is no store that we know, nothing of
/// ours is in it.
fn untrust(ctx: &Context) -> Plan {
    let plan = platform::trust_store().plan(Change::Untrust, &ca::authorities(&ctx.home));
    plan.unwrap_or_default()
}

fn by_hand(plan: &Plan) -> Option<String> {
    let lines: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
    match (lines.is_empty(), plan.needs_root) {
        (true, _) => None,
        (false, true) => Some(setup::as_root(&plan.steps)),
        (false, false) => Some(lines.join("; ")),
    }
}

/// Everything in the home but what running programs may still read: the bundles of roots.
fn purgeable(ctx: &Context, graceful: bool) -> io::Result<Vec<PathBuf>> {
    let entries = |dir: &Path| -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other?.map(|e| e.map(|e| e.path())).collect(),
        }
    };
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let keep_run = graceful.then(|| ctx.home.run_dir());
    let mut paths: Vec<_> = entries(ctx.home.path())?
        .into_iter()
        .filter(|p| *p != ctx.home.ca_dir() && Some(p) != keep_run.as_ref())
        .collect();
    paths.extend(entries(&ctx.home.ca_dir())?.into_iter().filter(|p| {
        *p != ctx.home.ca_bundle() && !name(p).is_some_and(|n| n.starts_with("union"))
    }));
    paths.sort();
    Ok(paths)
}

/// What signs with our CA, if it does not go with the rest: it is of use to nobody but a thief.
fn keys(ctx: &Context, purged: &[PathBuf]) -> Vec<PathBuf> {
    let keys = [ctx.home.ca_key(), ctx.home.next_ca_key()];
    keys.into_iter().filter(|key| key.exists() && !purged.contains(key)).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is still to be done, by the user.
fn tell(
    ctx: &Context,
    args: &UninstallArgs,
    way: WayOut,
    edge: std::net::SocketAddr,
    by_hand: Option<String>,
) {
    if way.keeps_edge() {
        say(format_args!(
            "the edge stays on {edge} until the next reboot and passes everything, unmetered"
        ));
    }
    if way == WayOut::KeepSession {
        let purge = if args.purge { " --purge, which has removed nothing yet" } else { "" };
        say(format_args!("for the rest, in Terminal at the screen: halton-meter uninstall{purge}"));
    }
    // The session bus: it connects to nothing itself, and ends with the session.
    let is_bus = |running: &platform::Running| running.name.starts_with("dbus-");
    let (buses, users): (Vec<_>, Vec<_>) =
        platform::programs_pointing_at(edge).into_iter().partition(is_bus);
    if !users.is_empty() {
        let then = if way.keeps_edge() {
            "restart them before the reboot"
        } else {
            "they can't connect any more: restart them"
        };
        say(format_args!("these running programs have {edge} in their environment; {then}"));
        for program in &users {
            match codex::end_of(program) {
                Some(end) => apply::detail(format_args!("{program}: {end}")),
                None => apply::detail(program),
            }
        }
    }
    for bus in buses {
        say(format_args!("the session bus ({bus}) has it too; log out and in once"));
    }
    let bundle = ctx.home.ca_bundle();
    if bundle.exists() {
        say(format_args!(
            "{} stays, as running programs may read their roots from it; remove it after a reboot",
            bundle.display()
        ));
    }
    if !args.purge && ctx.home.ledger_file().exists() {
        say(format_args!(
            "what was metered stays in {}; --purge removes it",
            ctx.home.path().display()
        ));
    }
    if let Some(command) = by_hand {
        say("our CA is still in the system's trust store; this takes it out:");
        apply::detail(command);
    }
}
