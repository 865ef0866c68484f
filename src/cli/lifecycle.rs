//! `start`, `stop`, `restart`, `edge stop`, and what `run` needs of them.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

use super::client::{self, Settings, Tree};
use super::{Context, Exit, Failure, codex, env, lost, passing, say, services};
use crate::home::{Home, PidLock, write_atomic};
use crate::near;
use crate::platform::{self, Service};
use crate::supervisor::{JournalEntry, journal};

mod ready;

use ready::listener;
pub use ready::{
    Ready, await_end, elsewhere, ensure, ensure_all, move_edge, own_process, port_taken, wait_ready,
};

/// How long `start` and `restart` wait for `/health`.
const START_PATIENCE: Duration = Duration::from_secs(30);
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
    match ensure_all(ctx, START_PATIENCE) {
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
    ctx.home.is_ours()?;
    let tree = Tree::look_when_found(ctx, ASK);
    tree.is_ours()?;
    let services = services::installed(ctx);
    if let Some(pid) = tree.lost_edge {
        return Err(Failure::new(Exit::FAILED, lost::said(ctx, pid)));
    }
    let_try_again(&ctx.home);
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
        tell(root, Signal::HUP)?;
    }
    // No root that ends them: it died, or has only the edge below it.
    if tree.root.is_none() || services.is_some() {
        for pid in [tree.daemon, tree.watchdog].into_iter().flatten() {
            tell(pid, Signal::TERM)?;
        }
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    for (process, pid) in [("daemon", tree.daemon), ("watchdog", tree.watchdog)] {
        if !gone(ctx, process, pid, deadline) {
            return Err(Failure::new(Exit::FAILED, format!("the {process} did not end")));
        }
    }
    if tree.edge.is_some() && !tree.ending {
        say("metering stopped; the edge stays, so tools keep working, unmetered");
    } else {
        say("metering stopped");
    }
    Ok(Exit::OK)
}

pub fn restart(ctx: &Context) -> Result<Exit, Failure> {
    let before = Tree::look_when_found(ctx, ASK);
    before.is_ours()?;
    let_try_again(&ctx.home);
    renew(ctx, &before)
}

/// The same, but for clients that refused our certificate: they stay raw.
pub fn renew(ctx: &Context, before: &Tree) -> Result<Exit, Failure> {
    before.is_ours()?;
    forget_stop(ctx)?;
    // A daemon takes the CA that there is, whatever the clock says of it. What fails here `start` tells.
    let _ = ctx.home.create().map(|()| env::prepare_ca(ctx));
    if let Some(edge) = before.edge {
        // It stays, with the settings as they are now, also where their file was removed.
        signal(edge, Signal::HUP)?;
    }
    let services = services::installed(ctx).filter(|s| s.pid(Service::Daemon).is_some());
    if let Some(services) = services {
        services.restart(&Service::METERING);
    } else if let (Some(root), Some(daemon)) = (before.root, before.daemon) {
        tell(root, Signal::USR1)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while holder(ctx, "daemon") == Some(daemon) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    } else if let Some(daemon) = before.daemon {
        tell(daemon, Signal::TERM)?;
        gone(ctx, "daemon", Some(daemon), Instant::now() + STOP_PATIENCE);
    }
    let started = start(ctx, &StartArgs { quiet: false, unless_stopped: false })?;
    passing::programs(ctx).iter().for_each(say);
    Ok(started)
}

/// From the next daemon on clients that refused our certificate may try again: the user has said so. Not
/// the present one's list is removed, which it may write until its end.
pub fn let_try_again(home: &Home) {
    if !home.run_dir().exists() {
        return;
    }
    if let Err(e) = write_atomic(&home.try_again(), b"") {
        // A full disk lets files be removed.
        let _ = fs::remove_file(home.bypass_file());
        say(format_args!("programs that refused our certificate may stay unmetered: {e}"));
    }
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
    let_try_again(&ctx.home);
    if let Some(services) = services::installed(ctx) {
        services.stop(&Service::ALL);
    }
    let tree = Tree::look_when_found(ctx, ASK);
    let served = client::edge_serves(ctx).unwrap_or_else(|| ctx.loaded.config.edge.addr());
    // The root goes first: it would start the edge again.
    let processes = [
        ("root", tree.root),
        ("edge", tree.edge),
        ("daemon", tree.daemon),
        ("watchdog", tree.watchdog),
    ];
    for pid in processes.iter().filter_map(|(_, pid)| *pid) {
        let _ = tell(pid, Signal::TERM);
    }
    let deadline = Instant::now() + STOP_PATIENCE;
    for (process, pid) in processes {
        if !gone(ctx, process, pid, deadline) {
            return Err(Failure::new(Exit::FAILED, format!("the {process} did not end")));
        }
    }
    lost::end(ctx, deadline)?;
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
    if near::connect_timeout(&served, ASK).is_ok() {
        let who = listener(served);
        return format!("everything of this home is down; {who} serves {served}");
    }
    format!("everything is down; programs that still point at {served} can't connect")
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

/// Edge and daemon look at their settings by themselves, every few seconds; who has just edited them need
/// not wait. The tree after that.
pub fn tell_edited(ctx: &Context, mut tree: Tree) -> Tree {
    if tree.settings(ctx) != Settings::Unread {
        return tree;
    }
    reload(ctx);
    let deadline = Instant::now() + RELOAD_PATIENCE;
    loop {
        tree = Tree::look(ctx, ASK);
        if tree.settings(ctx) != Settings::Unread || Instant::now() >= deadline {
            return tree;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
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

/// A signal to a process of ours, suspended or not.
pub fn tell(pid: u32, what: Signal) -> std::io::Result<()> {
    signal(pid, what)?;
    wake(pid);
    Ok(())
}

/// Has it go on if it is suspended: it would do nothing that it is told.
pub fn wake(pid: u32) {
    let _ = signal(pid, Signal::CONT);
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

    #[test]
    fn who_may_try_again_is_left_word_for_the_next_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        let_try_again(&home);
        assert!(!home.path().exists(), "nobody ever refused");
        home.create().unwrap();
        write_atomic(&home.bypass_file(), b"{}").unwrap();
        let_try_again(&home);
        assert!(home.try_again().exists() && home.bypass_file().exists());
        // Where that can't be written, the list itself goes.
        fs::remove_file(home.try_again()).unwrap();
        fs::create_dir(home.try_again()).unwrap();
        let_try_again(&home);
        assert!(!home.bypass_file().exists());
    }
}
