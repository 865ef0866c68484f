//! An edge of this home that its lock does not tell of: the home was removed under it, or could not be
//! reached when it started.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use super::client::lost_edge;
use super::lifecycle::signal;
use super::{Context, Exit, Failure};
use crate::home::{HOME_VAR, Home};

const ASK: Duration = Duration::from_millis(1000);
const LOOK: Duration = Duration::from_millis(20);

/// What to say of one that was to have found its home again.
pub fn said(ctx: &Context, pid: u32) -> String {
    let port = ctx.loaded.config.edge.port;
    format!(
        "a halton-meter edge (pid {pid}) serves port {port}, its home was removed, and it can't write \
         it anew: see that {} can be written",
        ctx.home.path().display()
    )
}

/// Ends it, if there is one.
pub fn end(ctx: &Context, deadline: Instant) -> Result<(), Failure> {
    let Some(pid) = lost_edge(ctx, ASK) else { return Ok(()) };
    // Whoever has the port can name any pid.
    if !is_edge_of(&ctx.home, pid) {
        return Err(Failure::new(Exit::FAILED, said(ctx, pid)));
    }
    signal(pid, Signal::TERM)?;
    while lost_edge(ctx, ASK) == Some(pid) {
        if Instant::now() >= deadline {
            return Err(Failure::new(Exit::FAILED, format!("the edge (pid {pid}) did not end")));
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// By its command line and environment: a root starts it so.
fn is_edge_of(home: &Home, pid: u32) -> bool {
    let pid = sysinfo::Pid::from_u32(pid);
    let Ok(mut system) = System::new() else { return false };
    let kind =
        ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).with_environ(UpdateKind::Always);
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    let named = |variable: &std::ffi::OsString| {
        let named = variable.to_str().and_then(|v| v.split_once('='));
        named.is_some_and(|(name, path)| name == HOME_VAR && home.path().to_str() == Some(path))
    };
    system.process(pid).is_some_and(|process| {
        process.cmd().get(1).is_some_and(|word| word == "edge")
            && process.environ().iter().any(named)
    })
}
