//! `uninstall`: undoes what `init` did. What running programs need stays where they look for it.

mod services;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::apply::Leftover;
use super::{Context, Exit, Failure, apply, ca, codex, env, init, lifecycle, say};
use crate::platform::{self, Running};
use crate::setup::plan::{self, FromPlatform, Part, WayOut};
use crate::setup::{self, Step};
use crate::trust_store::{Change, Plan};
use services::Services;

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
    let Undoing { parts, edge, way, out_of_reach, elsewhere, unread } = Undoing::look(ctx, args)?;
    let trust = untrust(ctx);
    // The home says what the session's variables were.
    let purge = args.purge && way != WayOut::KeepSession;
    let mut purged = if purge { purgeable(ctx, way.keeps_edge())? } else { Vec::new() };
    // What waits for the rest to be undone waits with it.
    let keys = if way == WayOut::KeepSession { Vec::new() } else { keys(ctx, &purged) };
    let untrusts = !trust.steps.is_empty() && !trust.needs_root;
    if let Some(why) = &out_of_reach {
        say(format_args!(
            "programs of the session at the screen are led to {edge}, which can't be undone from here: {why}"
        ));
    }
    if !unread.is_empty() {
        say(format_args!(
            "network services that we led to {edge} can't be read: they are switched off, if that works, instead of \
             put back, and the edge stays"
        ));
        unread.iter().for_each(apply::detail);
    }
    if parts.is_empty() && !untrusts && purged.is_empty() && keys.is_empty() {
        if way == WayOut::KeepSession {
            Left::look(ctx, args, way, edge).tell();
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
    let off = Services::off(&*platform::system_proxy(), edge, &unread);
    let steps: Vec<Step> = parts.into_iter().flat_map(|p| p.steps).collect();
    apply::execute(ctx, &lock, &steps)?;
    lifecycle::let_try_again(&ctx.home);
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
    let left = Left::look(ctx, args, way, edge);
    Left { by_hand: still_trusted, elsewhere, still_on: off.err(), ..left }.tell();
    Ok(Exit::OK)
}

/// What is to be undone, and what can't be from here.
struct Undoing {
    parts: Vec<Part>,
    edge: SocketAddr,
    way: WayOut,
    /// Why the session's variables can't be taken back.
    out_of_reach: Option<String>,
    /// Network services of other locations that may lead to the edge.
    elsewhere: Vec<String>,
    /// The same of services that can't be read.
    unread: Vec<String>,
}

impl Undoing {
    fn look(ctx: &Context, args: &UninstallArgs) -> Result<Self, Failure> {
        let installation = init::installation(ctx)?;
        let (user, edge) = (&installation.user, installation.edge);
        let found = init::found(ctx, &init::shells(user));
        let old = found.state.clone().unwrap_or_default();
        let mut from = FromPlatform::default();
        let proxy = platform::system_proxy();
        let led = init::led(ctx, found.state.as_ref());
        let Services { found: services, unread } = Services::look(&*proxy, led, &old);
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
        // What may still lead to the edge must find it.
        let graceful = args.graceful || !unread.is_empty();
        let way = WayOut::of(graceful, leads, out_of_reach.is_none());
        if let Some(manager) = platform::service_manager() {
            let services = manager.uninstall(user, way.keeps_edge());
            from.services = services.map_err(|e| match manager.missing() {
                Some(why) => {
                    init::tool(format!("services of ours are installed; {}: {why}", manager.name()))
                }
                None => init::tool(e),
            })?;
        }
        let parts = plan::uninstall(&installation, &found, from, way);
        Ok(Self { parts, edge, way, out_of_reach, elsewhere, unread })
    }
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

/// What is left, and what only the user can do about it.
#[derive(Clone, Debug)]
struct Left {
    edge: SocketAddr,
    way: WayOut,
    purge: bool,
    /// Programs that have the edge in their environment, and what ends those that outlive their user.
    programs: Vec<(Running, Option<&'static str>)>,
    bundle: Option<PathBuf>,
    /// Where what was metered is.
    ledger: Option<PathBuf>,
    /// What takes our CA out of the trust store.
    by_hand: Option<String>,
    /// Network services of other locations that may lead to the edge.
    elsewhere: Vec<String>,
    /// Why those that can't be read may do so too.
    still_on: Option<String>,
}

impl Left {
    fn look(ctx: &Context, args: &UninstallArgs, way: WayOut, edge: SocketAddr) -> Self {
        let with_end = |program: Running| {
            let end = codex::end_of(&program);
            (program, end)
        };
        let programs = platform::programs_pointing_at(edge).into_iter();
        let there = |file: PathBuf| Some(file).filter(|file| file.exists());
        Self {
            edge,
            way,
            purge: args.purge,
            programs: programs.map(with_end).collect(),
            bundle: there(ctx.home.ca_bundle()),
            ledger: there(ctx.home.ledger_file()).map(|_| ctx.home.path().to_path_buf()),
            by_hand: None,
            elsewhere: Vec::new(),
            still_on: None,
        }
    }

    fn tell(&self) {
        for line in self.lines() {
            match line {
                Line::Says(text) => say(text),
                Line::Detail(text) => apply::detail(text),
            }
        }
    }

    fn lines(&self) -> Vec<Line> {
        let (edge, mut lines) = (self.edge, Vec::new());
        let keeps_edge = self.way.keeps_edge();
        let mut says = |text: String| lines.push(Line::Says(text));
        if keeps_edge {
            says(format!(
                "the edge stays on {edge} until the next reboot and passes everything, unmetered"
            ));
        }
        if self.way == WayOut::KeepSession {
            let purge = if self.purge { " --purge, which has removed nothing yet" } else { "" };
            says(format!("for the rest, in Terminal at the screen: halton-meter uninstall{purge}"));
        }
        // The session bus: it connects to nothing itself, and ends with the session.
        let is_bus = |running: &Running| running.name.starts_with("dbus-");
        let (buses, users): (Vec<_>, Vec<_>) =
            self.programs.iter().partition(|(program, _)| is_bus(program));
        if !users.is_empty() {
            let then = if keeps_edge {
                "restart them before the reboot"
            } else {
                "they can't connect any more: restart them"
            };
            says(format!("these running programs have {edge} in their environment; {then}"));
            lines.extend(users.into_iter().map(|(program, end)| {
                Line::Detail(match end {
                    Some(end) => format!("{program}: {end}"),
                    None => program.to_string(),
                })
            }));
        }
        let mut says = |text: String| lines.push(Line::Says(text));
        for (bus, _) in buses {
            says(format!("the session bus ({bus}) has it too; log out and in once"));
        }
        if let Some(bundle) = &self.bundle {
            says(format!(
                "{} stays, as running programs may read their roots from it; remove it after a reboot",
                bundle.display()
            ));
        }
        if let Some(home) = self.ledger.as_ref().filter(|_| !self.purge) {
            says(format!("what was metered stays in {}; --purge removes it", home.display()));
        }
        if let Some(command) = &self.by_hand {
            says("our CA is still in the system's trust store; this takes it out:".to_owned());
            lines.push(Line::Detail(command.clone()));
        }
        if !self.elsewhere.is_empty() {
            lines.push(Line::Says(format!(
                "network services of other locations may still lead to {edge}; there, run \
                 `halton-meter reset-proxy`:"
            )));
            lines.extend(self.elsewhere.iter().cloned().map(Line::Detail));
        }
        if let Some(why) = &self.still_on {
            lines.push(Line::Says(format!(
                "a network service may still lead to {edge}: before the reboot `halton-meter reset-proxy`, or the \
                 network settings, by hand: {why}"
            )));
        }
        lines
    }
}

#[derive(Debug, Eq, PartialEq)]
enum Line {
    Says(String),
    Detail(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there, and words that are said of it.
    type Case<'a> = (&'a dyn Fn(&mut Left), &'a [&'a str]);

    #[test]
    fn what_is_left_is_told_by_what_is_there() {
        let nothing = Left {
            edge: ([127, 0, 0, 1], 8081).into(),
            way: WayOut::All,
            purge: false,
            programs: Vec::new(),
            bundle: None,
            ledger: None,
            by_hand: None,
            elsewhere: Vec::new(),
            still_on: None,
        };
        assert!(nothing.lines().is_empty());
        let program = |name: &str, end| {
            let running = Running { pid: 7, name: name.to_owned(), age: None };
            vec![(running, end)]
        };
        let with = |change: &dyn Fn(&mut Left)| {
            let mut left = nothing.clone();
            change(&mut left);
            let lines = left.lines().into_iter().map(|line| match line {
                Line::Says(text) => text,
                Line::Detail(text) => format!("  {text}"),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let cases: [Case<'_>; 10] = [
            (&|l| l.way = WayOut::KeepEdge, &["the edge stays on 127.0.0.1:8081"]),
            (
                &|l| l.way = WayOut::KeepSession,
                &["the edge stays", "at the screen: halton-meter uninstall"],
            ),
            (
                &|l| (l.way, l.purge) = (WayOut::KeepSession, true),
                &["uninstall --purge, which has removed nothing"],
            ),
            (
                &|l| l.programs = program("node", None),
                &["they can't connect any more", "\n  node, pid 7"],
            ),
            (
                &|l| {
                    l.way = WayOut::KeepEdge;
                    l.programs = program("codex", Some("this ends it"));
                },
                &["restart them before the reboot", "\n  codex, pid 7: this ends it"],
            ),
            (
                &|l| l.programs = program("dbus-daemon", None),
                &["the session bus (dbus-daemon, pid 7)"],
            ),
            (&|l| l.bundle = Some("/b".into()), &["/b stays"]),
            (&|l| l.ledger = Some("/h".into()), &["what was metered stays in /h; --purge"]),
            (
                &|l| (l.by_hand, l.elsewhere) = (Some("rm it".into()), vec!["Work: Wi-Fi".into()]),
                &["takes it out:\n  rm it", "`halton-meter reset-proxy`:\n  Work: Wi-Fi"],
            ),
            (&|l| l.still_on = Some("exit 8".into()), &["before the reboot", "by hand: exit 8"]),
        ];
        for (change, words) in cases {
            let told = with(change);
            assert!(words.iter().all(|words| told.contains(words)), "{words:?}: {told}");
        }
        assert_eq!(with(&|l| (l.ledger, l.purge) = (Some("/h".into()), true)), "");
    }
}
