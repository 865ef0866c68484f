//! `start`, `stop`, `restart`, `edge stop`, and what `run` needs of them.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{self, Health, Tree};
use super::intruder::{self, Intruder};
use super::no_edge::{self, Signs, Why};
use super::{Context, Exit, Failure, codex, env, passing, say, services, upstream};
use crate::home::{HOME_VAR, PidLock, open_append, write_atomic};
use crate::near;
use crate::platform::{self, Service};
use crate::supervisor::{JournalEntry, journal};

/// How long `start` and `restart` wait for `/health`.
const START_PATIENCE: Duration = Duration::from_secs(30);
const JOURNAL_LOOK: Duration = Duration::from_millis(250);
/// A drain takes 30 s at most; then the process is ended.
const STOP_PATIENCE: Duration = Duration::from_secs(40);
const RELOAD_PATIENCE: Duration = Duration::from_secs(2);
const ASK: Duration = Duration::from_millis(1000);

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    halton-meter start\n  \
    halton-meter start --quiet || echo 'not metering'\n  \
    halton-meter start --quiet --unless-stopped &    in a shell's start file")]
pub struct StartArgs {
    /// Say nothing when all is well.
    #[arg(long)]
    quiet: bool,
    /// Do nothing after `halton-meter stop`: what you stopped stays stopped.
    #[arg(long)]
    unless_stopped: bool,
}

/// What the tree can do for a command that is about to run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ready {
    /// Edge and daemon are up.
    Metering,
    /// The edge is up; the requests go through, unmetered, for this reason.
    Passing(String),
    /// No edge to point a program at, for this reason.
    NoEdge(String),
}

pub fn start(ctx: &Context, args: &StartArgs) -> Result<Exit, Failure> {
    if args.unless_stopped && ctx.home.user_stopped().exists() {
        if !args.quiet {
            say("stopped by you; `halton-meter start` starts it");
        }
        return Ok(Exit::OK);
    }
    ctx.home.create()?;
    env::prepare_ca(ctx)?;
    forget_stop(ctx)?;
    match ensure(ctx, START_PATIENCE) {
        Ready::Metering => {
            if !args.quiet {
                say(format_args!("metering on {}", ctx.loaded.config.edge.addr()));
            }
            Ok(Exit::OK)
        }
        Ready::Passing(why) | Ready::NoEdge(why) => Err(Failure::new(Exit::UNAVAILABLE, why)
            .hint(format!("see {}", ctx.home.log_dir().display()))),
    }
}

pub fn stop(ctx: &Context) -> Result<Exit, Failure> {
    let tree = Tree::look_when_found(ctx, ASK);
    tree.is_ours()?;
    let services = services::installed(ctx);
    if let Some(pid) = tree.lost_edge {
        return Err(Failure::new(Exit::FAILED, lost(ctx, pid)));
    }
    let idle = tree.root.is_none() && tree.daemon.is_none() && tree.watchdog.is_none();
    if idle && services.is_none() {
        say("not running");
        return Ok(Exit::OK);
    }
    let stopped = ctx.home.user_stopped();
    write_atomic(&stopped, b"").map_err(|e| Failure::cannot_write(&stopped, &e))?;
    if let Some(services) = &services {
        services.stop(&Service::METERING);
    }
    if let Some(root) = tree.root {
        signal(root, Signal::HUP)?;
    }
    // No root that ends them: it died, or has only the edge below it.
    if tree.root.is_none() || services.is_some() {
        for pid in [tree.daemon, tree.watchdog].into_iter().flatten() {
            signal(pid, Signal::TERM)?;
        }
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    for (process, pid) in [("daemon", tree.daemon), ("watchdog", tree.watchdog)] {
        if !gone(ctx, process, pid, deadline) {
            return Err(Failure::new(Exit::FAILED, format!("the {process} did not end")));
        }
    }
    if tree.edge.is_some() {
        say("metering stopped; the edge stays, so tools keep working, unmetered");
    } else {
        say("metering stopped");
    }
    Ok(Exit::OK)
}

pub fn restart(ctx: &Context) -> Result<Exit, Failure> {
    let before = Tree::look_when_found(ctx, ASK);
    before.is_ours()?;
    forget_stop(ctx)?;
    let services = services::installed(ctx).filter(|s| s.pid(Service::Daemon).is_some());
    if let Some(services) = services {
        services.restart(&Service::METERING);
    } else if let (Some(root), Some(daemon)) = (before.root, before.daemon) {
        signal(root, Signal::USR1)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while holder(ctx, "daemon") == Some(daemon) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    } else if let Some(daemon) = before.daemon {
        signal(daemon, Signal::TERM)?;
        gone(ctx, "daemon", Some(daemon), Instant::now() + STOP_PATIENCE);
    }
    let started = start(ctx, &StartArgs { quiet: false, unless_stopped: false })?;
    passing::programs(ctx).iter().for_each(say);
    Ok(started)
}

/// With the file of `stop` there nothing would meter, whoever is started.
pub fn forget_stop(ctx: &Context) -> Result<(), Failure> {
    let stopped = ctx.home.user_stopped();
    match fs::remove_file(&stopped) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::cannot_write(&stopped, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

pub fn edge_stop(ctx: &Context) -> Result<Exit, Failure> {
    Tree::look(ctx, ASK).is_ours()?;
    if let Some(services) = services::installed(ctx) {
        services.stop(&Service::ALL);
    }
    let tree = Tree::look_when_found(ctx, ASK);
    if let Some(pid) = tree.lost_edge {
        return Err(Failure::new(Exit::FAILED, lost(ctx, pid)));
    }
    let served = client::edge_serves(ctx).unwrap_or_else(|| ctx.loaded.config.edge.addr());
    // The root goes first: it would start the edge again.
    let processes = [
        ("root", tree.root),
        ("edge", tree.edge),
        ("daemon", tree.daemon),
        ("watchdog", tree.watchdog),
    ];
    for pid in processes.iter().filter_map(|(_, pid)| *pid) {
        let _ = signal(pid, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    for (process, pid) in processes {
        if !gone(ctx, process, pid, deadline) {
            return Err(Failure::new(Exit::FAILED, format!("the {process} did not end")));
        }
    }
    say(all_down(served));
    for program in platform::programs_pointing_at(served) {
        if let Some(end) = codex::end_of(&program) {
            say(format_args!(
                "{program} serves Codex in the background, and still points there: {end}"
            ));
        }
    }
    Ok(Exit::OK)
}

/// What to say when the port has been closed.
pub fn all_down(served: SocketAddr) -> String {
    format!("everything is down; programs that still point at {served} can't connect")
}

/// Starts what is not running and waits until it can serve.
pub fn ensure(ctx: &Context, patience: Duration) -> Ready {
    let stopped = ctx.home.user_stopped().exists();
    let deadline = Instant::now() + patience;
    let tree = Tree::look_when_found(ctx, ASK.min(patience));
    if tree.metering() {
        // It serves, but its root died: a new one adopts what lives. A service manager sees that itself.
        // It may hang, so nobody asks it while all is well.
        if tree.root.is_none()
            && !tree.foreign
            && services::installed(ctx).is_none()
            && let Err(e) = spawn_root(ctx)
        {
            say(format_args!("the supervisor could not be started: {e}"));
        }
        return Ready::Metering;
    }
    // Nothing that we start would get a lock, and nobody there can be told anything.
    if tree.foreign {
        return match tree.edge_answer {
            Some(_) => verdict(ctx, &tree, stopped),
            None => Ready::NoEdge(client::FOREIGN.to_owned()),
        };
    }
    let services = services::installed(ctx);
    let by_services = services.is_some_and(|services| {
        let wanted: &[Service] = if stopped { &[Service::Edge] } else { &Service::ALL };
        services.start(wanted, patience)
    });
    if !by_services && let Err(why) = bring_up(ctx, &tree, stopped) {
        return Ready::NoEdge(why);
    }
    // No waiting brings it here.
    if let Some(served) = tree.edge_elsewhere(ctx) {
        return Ready::NoEdge(elsewhere(ctx, served));
    }
    wait_ready(ctx, stopped, deadline)
}

/// Waits until what was started can serve, and starts nothing.
pub fn wait_ready(ctx: &Context, stopped: bool, deadline: Instant) -> Ready {
    let edge_deadline = deadline.max(Instant::now() + Duration::from_secs(1));
    let mut wait = Duration::from_millis(2);
    let mut intruder = Intruder::default();
    let (begun, mut read) = (Timestamp::now(), Instant::now());
    loop {
        let tree = Tree::look(ctx, ASK);
        // Each look reads the journal.
        let looks = tree.root.is_some() && tree.edge.is_none() && read.elapsed() >= JOURNAL_LOOK;
        if looks {
            read = Instant::now();
        }
        let hopeless = looks && no_edge::is_hopeless(&ctx.home, begun);
        let enough = tree.metering() || (stopped && tree.edge_answer.is_some());
        let limit = if tree.edge_answer.is_some() { deadline } else { edge_deadline };
        if enough || hopeless || Instant::now() >= limit || intruder.stays(ctx, &tree) {
            return verdict(ctx, &tree, stopped);
        }
        std::thread::sleep(intruder.pace().unwrap_or(wait));
        wait = (wait * 2).min(Duration::from_millis(10));
    }
}

/// Starts the embedded root, or tells it to look again.
fn bring_up(ctx: &Context, tree: &Tree, stopped: bool) -> Result<(), String> {
    let Some(root) = tree.root else {
        if let Some(why) = port_taken(ctx, tree) {
            return Err(why);
        }
        return spawn_root(ctx).map_err(|e| format!("the supervisor could not be started: {e}"));
    };
    if tree.daemon.is_none() && !stopped {
        // It was told to stop metering.
        let _ = signal(root, Signal::HUP);
    }
    Ok(())
}

/// Why no root could have the edge's port: another program has it, or an edge of ours that lost its home.
pub fn port_taken(ctx: &Context, tree: &Tree) -> Option<String> {
    if let Some(pid) = tree.lost_edge {
        return Some(lost(ctx, pid));
    }
    (tree.edge.is_none() && port_answers(ctx)).then(|| taken(ctx))
}

fn verdict(ctx: &Context, tree: &Tree, stopped: bool) -> Ready {
    if tree.edge_answer.is_none() {
        return Ready::NoEdge(if tree.edge.is_some() {
            "the edge does not answer".to_owned()
        } else {
            no_edge(ctx, tree.root)
        });
    }
    if let Err(e) = ctx.home.holds_sockets() {
        return Ready::Passing(e.to_string());
    }
    match (&tree.health, stopped) {
        (Health::Ok(_), _) => Ready::Metering,
        (Health::Degraded(_) | Health::Foreign | Health::Silent | Health::Down, true) => {
            Ready::Passing("metering is stopped (`halton-meter start` resumes it)".to_owned())
        }
        (Health::Degraded(body), false) => {
            let reasons: Vec<_> = body
                .get("reasons")
                .and_then(|r| r.as_array())
                .into_iter()
                .flatten()
                .filter_map(|r| r.as_str())
                .collect();
            Ready::Passing(format!("the daemon is degraded: {}", reasons.join("; ")))
        }
        (Health::Foreign, false) => Ready::Passing(client::api_port_taken(ctx, tree.daemon)),
        (Health::Silent, false) if intruder::is_there(ctx, tree) => {
            Ready::Passing(client::api_port_taken(ctx, tree.daemon))
        }
        (Health::Silent, false) => Ready::Passing("the daemon does not answer".to_owned()),
        (Health::Down, false) => Ready::Passing("the daemon is not running".to_owned()),
    }
}

/// What to say of an edge that serves another port than the configured one.
pub fn elsewhere(ctx: &Context, served: SocketAddr) -> String {
    let port = ctx.loaded.config.edge.port;
    let how = move_edge(services::installed(ctx).is_some());
    format!("the edge serves {served} still, and edge.port is {port}: {how}")
}

/// What brings the edge to the configured port. Services have the old one in their definitions; the
/// embedded root holds its socket for as long as it lives.
pub const fn move_edge(services: bool) -> &'static str {
    if services {
        "`halton-meter init`"
    } else {
        "`halton-meter edge stop`, then `halton-meter start`"
    }
}

/// Has edge and daemon read their files again, and waits until the daemon has, for a moment.
pub fn reload(ctx: &Context) {
    let asked = Timestamp::now();
    for process in ["edge", "daemon"] {
        if let Some(pid) = PidLock::holder_here(&ctx.home.pid_file(process)) {
            let _ = signal(pid, Signal::HUP);
        }
    }
    let deadline = Instant::now() + RELOAD_PATIENCE;
    let taken = |entries: Vec<JournalEntry>| {
        entries
            .iter()
            .any(|e| e.process == "daemon" && e.at >= asked && e.event.starts_with("config_"))
    };
    while PidLock::holder_here(&ctx.home.pid_file("daemon")).is_some()
        && Instant::now() < deadline
        && !journal::read_all(&ctx.home.journal_file()).is_ok_and(taken)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The command line of one of our processes, with this call's flags in its environment.
pub fn own_process(ctx: &Context, args: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args).env(HOME_VAR, ctx.home.path()).stdin(Stdio::null());
    for flag in &ctx.flags {
        if let Some((key, value)) = flag
            .split_once('=')
            .and_then(|(name, value)| Some((crate::config::Key::find(name.trim())?, value)))
        {
            command.env(key.variable(), value);
        }
    }
    // A proxy that the user already had becomes our upstream instead of being lost.
    if ctx.loaded.config.upstream.proxy.is_none() {
        let config = &ctx.loaded.config;
        let found = upstream::of_environment(&env::own(ctx), config.edge.addr());
        command.envs(found.iter().flat_map(|found| found.variables(config)));
    }
    Ok(command)
}

fn spawn_root(ctx: &Context) -> std::io::Result<()> {
    ctx.home.create().map_err(std::io::Error::other)?;
    let log = open_append(&ctx.home.log_file("root"))?;
    own_process(ctx, &["supervise"])?
        .current_dir("/")
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map(drop)
}

fn port_answers(ctx: &Context) -> bool {
    near::connect_timeout(&ctx.loaded.config.edge.addr(), ASK).is_ok()
}

/// Why no edge is there, and what next.
fn no_edge(ctx: &Context, root: Option<u32>) -> String {
    let services = services::installed(ctx);
    let listener = crate::platform::listener_on(ctx.loaded.config.edge.addr());
    let last_exit = root.and_then(|_| no_edge::last_exit(&ctx.home));
    let signs = Signs {
        holder: port_answers(ctx).then(|| listener.as_deref().unwrap_or("another program")),
        root,
        manager: services.as_ref().map(|services| services.name()),
        last_exit: last_exit.as_deref(),
    };
    match signs.why() {
        Why::Taken => taken(ctx),
        Why::DoesNotStart => format!("{}; {}", signs.does_not_start(), signs.next()),
        Why::NotRunning => "the edge did not come up".to_owned(),
    }
}

/// What to say of an edge that was to have found its home again.
pub fn lost(ctx: &Context, pid: u32) -> String {
    let port = ctx.loaded.config.edge.port;
    format!(
        "a halton-meter edge (pid {pid}) serves port {port}, its home was removed, and it can't write \
         it anew: see that {} can be written",
        ctx.home.path().display()
    )
}

fn taken(ctx: &Context) -> String {
    let addr = ctx.loaded.config.edge.addr();
    let who = crate::platform::listener_on(addr)
        .map_or_else(|| "another program".to_owned(), |who| format!("another program ({who})"));
    format!("port {} is held by {who}; set edge.port to a free port", addr.port())
}

pub fn signal(pid: u32, signal: Signal) -> std::io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| std::io::Error::other("not a pid"))?;
    match kill_process(pid, signal) {
        // It has ended by itself: as good.
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Whether any process of ours runs.
pub fn anything_runs(ctx: &Context) -> bool {
    ["root", "edge", "daemon", "watchdog"].iter().any(|process| holder(ctx, process).is_some())
}

fn holder(ctx: &Context, process: &str) -> Option<u32> {
    PidLock::holder(&ctx.home.pid_file(process)).ok().flatten()
}

/// Whether it ends: this one, whose place another one may have taken by then, or whichever there is.
fn gone(ctx: &Context, process: &str, pid: Option<u32>, deadline: Instant) -> bool {
    while holder(ctx, process).is_some_and(|now| pid.is_none_or(|pid| pid == now)) {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    #[test]
    fn what_the_user_stopped_stays_stopped_at_the_next_login() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        write_atomic(&home.user_stopped(), b"").unwrap();
        let loaded = crate::config::load(&home.config_file(), &[]);
        let color = super::super::output::Color::default();
        let ctx = Context { home, loaded, flags: Vec::new(), color };
        let args = StartArgs { quiet: true, unless_stopped: true };
        assert_eq!(start(&ctx, &args).unwrap(), Exit::OK);
        assert!(ctx.home.user_stopped().exists());
        assert!(!ctx.home.ca_cert().exists() && !anything_runs(&ctx));
    }
}
