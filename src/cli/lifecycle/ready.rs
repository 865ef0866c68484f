//! Bringing the tree up for a command that is about to run, and what to say where it does not come.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;

use super::super::client::{self, Health, Tree};
use super::super::intruder::{self, Intruder, UNHEARD};
use super::super::no_edge::{self, Signs, Why};
use super::super::{Context, env, lost, say, services, status, upstream};
use super::{ASK, gone, signal, tell_edited, wake};
use crate::home::{HOME_VAR, PidLock, open_append};
use crate::limits;
use crate::near;
use crate::platform::Service;

const JOURNAL_LOOK: Duration = Duration::from_millis(250);

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

/// Starts what is not running and waits until it can serve.
pub fn ensure(ctx: &Context, patience: Duration) -> Ready {
    await_end(ctx, patience);
    let stopped = ctx.home.user_stopped().exists();
    let deadline = Instant::now() + patience;
    let tree = tell_edited(ctx, Tree::look_when_found(ctx, ASK.min(patience)));
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
    // For whoever comes now its port is as good as closed.
    if tree.ending {
        return verdict(ctx, &tree, stopped);
    }
    if let Some(root) = tree.root {
        wake(root);
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

/// The same, and starts each service that is not there: who only wants to be metered does without the watchdog.
pub fn ensure_all(ctx: &Context, patience: Duration) -> Ready {
    let ready = ensure(ctx, patience);
    let tree = Tree::look(ctx, ASK);
    let pids = [(Service::Edge, tree.root), (Service::Daemon, tree.daemon)];
    let pids = pids.into_iter().chain([(Service::Watchdog, tree.watchdog)]);
    let down: Vec<_> = pids.filter(|(_, pid)| pid.is_none()).map(|(service, _)| service).collect();
    if ready == Ready::Metering
        && !down.is_empty()
        && !tree.foreign
        && let Some(services) = services::installed(ctx)
    {
        services.start(&down, patience);
    }
    ready
}

/// Waits that long for a root that is on its way out: who starts one anew comes after it.
pub fn await_end(ctx: &Context, patience: Duration) {
    let pid_file = ctx.home.pid_file("root");
    if PidLock::is_ending(&pid_file)
        && let Some(root) = PidLock::holder_here(&pid_file)
    {
        wake(root);
        gone(ctx, "root", Some(root), Instant::now() + patience);
    }
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
        let hopeless = tree.ending
            || (looks && no_edge::is_hopeless(&ctx.home, begun))
            || (tree.edge_answer.is_some() && tree.disk_is_full(ctx));
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
        return Some(lost::said(ctx, pid));
    }
    (tree.edge.is_none() && port_answers(ctx)).then(|| taken(ctx))
}

fn verdict(ctx: &Context, tree: &Tree, stopped: bool) -> Ready {
    if tree.ending {
        return Ready::NoEdge(client::ENDING.to_owned());
    }
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
        (Health::Degraded(_), false) => {
            Ready::Passing(format!("the daemon is {}", status::words(&tree.health)))
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
    own_process(ctx, &["supervise"])?.current_dir("/").stdout(Stdio::null()).stderr(log).spawn()?;
    if let Some(seconds) = limits::cpu_seconds() {
        say(format_args!(
            "`ulimit -t` holds for what was started here too: each of our processes is killed after \
             {seconds} s of CPU time, with what it has in hand, and started again. Without: \
             `halton-meter edge stop`, and `start` in a shell that has no such limit"
        ));
    }
    Ok(())
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
        Why::NotRunning if intruder::is_unheard(ctx.loaded.config.edge.addr()) => {
            let port = ctx.loaded.config.edge.port;
            format!("port {port} is held by {UNHEARD}; the edge takes it as soon as it is free")
        }
        Why::NotRunning => "the edge did not come up".to_owned(),
    }
}

fn taken(ctx: &Context) -> String {
    let addr = ctx.loaded.config.edge.addr();
    format!("port {} is held by {}; set edge.port to a free port", addr.port(), listener(addr))
}

pub(super) fn listener(addr: SocketAddr) -> String {
    let who = crate::platform::listener_on(addr);
    who.map_or_else(|| "another program".to_owned(), |who| format!("another program ({who})"))
}
