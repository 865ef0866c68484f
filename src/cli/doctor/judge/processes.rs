//! The processes, and the socket by which two of them speak.

use super::super::super::intruder::UNHEARD;
use super::super::super::lifecycle::move_edge;
use super::super::super::no_edge::{Signs, Why};
use super::super::facts::{Facts, Process, Says};
use super::{Finding, Fix, RESTART, START, ledger};
use crate::selftest::Level;

pub(super) fn root(f: &Facts) -> Vec<Finding> {
    vec![match f.root {
        Process { pid: None, .. } if f.untouched => not_started("root"),
        Process { pid: None, .. } => {
            let what = "the supervisor is not running: nothing restarts what crashes";
            Finding::degraded("root", what).next(START).fix(Fix::Start)
        }
        Process { pid: Some(pid), suspended: true } => suspended("root", pid),
        Process { pid: Some(pid), suspended: false } => Finding::ok("root", format!("pid {pid}")),
    }]
}

pub(super) fn edge(f: &Facts) -> Vec<Finding> {
    let addr = f.edge_addr;
    if let Some(served) = f.edge_elsewhere {
        let what = format!(
            "it serves {served}, and edge.port is {} now: nothing new is metered",
            addr.port()
        );
        return vec![up(f, Finding::broken("edge", what), None)];
    }
    vec![match (f.edge.pid, f.edge_answers) {
        (Some(pid), true) => {
            let verdict = f.verdict.as_deref().unwrap_or("unknown");
            let what = format!("pid {pid} answers on {addr}; for it the daemon is {verdict}");
            if verdict == "healthy" || f.says != Says::Ok {
                // What is wrong with the daemon is said there.
                Finding::ok("edge", what)
            } else {
                Finding::degraded("edge", what).next(format!("{RESTART}, if it does not pass"))
            }
        }
        (Some(pid), false) if f.edge.suspended => {
            Finding { level: Level::Broken, ..suspended("edge", pid) }
        }
        (Some(pid), false) => {
            let what = format!("pid {pid} does not answer on {addr}: requests hang");
            Finding::broken("edge", what).next(format!("kill {pid}; another edge takes its place"))
        }
        (None, _) => no_edge(f),
    }]
}

fn no_edge(f: &Facts) -> Finding {
    let addr = f.edge_addr;
    let signs = Signs {
        holder: f.edge_port_holder.as_deref(),
        root: f.root.pid,
        manager: f.keeper.as_ref().filter(|k| k.installed).map(|k| k.name),
        last_exit: f.edge_last_exit.as_deref(),
    };
    match (signs.why(), f.root) {
        (Why::Taken, _) => {
            let who = f.edge_port_holder.as_deref().unwrap_or("another program");
            let next = format!("end it, or set edge.port to a free port; then {START}");
            Finding::broken("edge", format!("{addr} is held by {who}")).next(next)
        }
        (Why::DoesNotStart, Process { pid: Some(root), suspended: true }) => {
            let what = "nobody starts one: requests hang";
            Finding::broken("edge", what).next(format!("kill -CONT {root}"))
        }
        (Why::DoesNotStart, Process { pid: Some(_), suspended: false }) => {
            let what = format!("{}: requests fail", signs.does_not_start());
            Finding::broken("edge", what).next(signs.next())
        }
        (Why::DoesNotStart, Process { pid: None, .. }) => {
            let what = format!("{}: requests hang", signs.does_not_start());
            Finding::broken("edge", what).next(START).fix(Fix::Start)
        }
        (Why::NotRunning, _) if f.edge_port_unheard => {
            let next = format!("wait for it, or set edge.port to a free port; then {START}");
            Finding::broken("edge", format!("{addr} is held by {UNHEARD}")).next(next)
        }
        (Why::NotRunning, _) if f.untouched => Finding::degraded(
            "edge",
            "never started: nothing runs, nothing is set up, requests go their own way, unmetered",
        )
        .next(format!("{START}, or `halton-meter run -- CMD` for one command"))
        .fix(Fix::Start),
        (Why::NotRunning, _) => {
            let what = format!("not running: programs that point at {addr} can't connect");
            Finding::broken("edge", what).next(START).fix(Fix::Start)
        }
    }
}

pub(super) fn daemon(f: &Facts) -> Vec<Finding> {
    let pid = f.daemon.pid.map_or_else(String::new, |pid| format!("pid {pid} "));
    vec![match &f.says {
        Says::Ok => Finding::ok("daemon", format!("{pid}answers on {} and can meter", f.api_addr)),
        Says::Down if f.untouched => not_started("daemon"),
        Says::Down if f.stopped => {
            let what = "stopped by `halton-meter stop`: requests pass, unmetered";
            Finding::degraded("daemon", what).next(START)
        }
        Says::Down => Finding::degraded("daemon", "not running: requests pass, unmetered")
            .next(START)
            .fix(Fix::Start),
        Says::Silent => match (&f.api_port_holder, f.daemon) {
            (_, Process { pid: Some(pid), suspended: true }) => suspended("daemon", pid),
            (Some(who), _) => {
                Finding::degraded("daemon", format!("{} is held by {who}", f.api_addr))
                    .next(format!("end it, or set daemon.api_port to a free port; then {RESTART}"))
            }
            (None, _) if f.api_port_unheard => {
                let next =
                    format!("wait for it, or set daemon.api_port to a free port; then {RESTART}");
                Finding::degraded("daemon", format!("{} is held by {UNHEARD}", f.api_addr))
                    .next(next)
            }
            (None, _) => Finding::degraded("daemon", format!("{pid}does not answer")).next(RESTART),
        },
        Says::Foreign => {
            let who = f.api_port_holder.as_deref().unwrap_or("another program");
            let what = format!("{who} answers on {}", f.api_addr);
            Finding::degraded("daemon", what)
                .next(format!("end it, or set daemon.api_port to a free port; then {RESTART}"))
        }
        Says::Degraded(reasons) => {
            let next = reasons.first().map_or(RESTART, |reason| remedy(reason));
            Finding::degraded("daemon", format!("{pid}can't meter: {}", reasons.join("; ")))
                .next(next)
        }
    }]
}

/// What to do about a reason that `/health` gives.
fn remedy(reason: &str) -> &'static str {
    match reason.split_once(':').map_or(reason, |(part, _)| part) {
        "ledger" => ledger::remedy(reason),
        "clock" => "set the clock",
        "ca" => "set the clock; if it is right, `halton-meter restart` makes another CA",
        "draining" => "wait: it is ending",
        _ => RESTART,
    }
}

pub(super) fn watchdog(f: &Facts) -> Vec<Finding> {
    vec![match f.watchdog {
        Process { pid: Some(pid), suspended: true } => suspended("watchdog", pid),
        Process { pid: Some(pid), .. } => Finding::ok("watchdog", format!("pid {pid}")),
        Process { pid: None, .. } if f.untouched => not_started("watchdog"),
        Process { pid: None, .. } if f.stopped => {
            Finding::skipped("watchdog", "stopped with the daemon")
        }
        Process { pid: None, .. } => {
            let what = "not running: nobody takes the system proxy off when we fail";
            Finding::degraded("watchdog", what).next(START).fix(Fix::Start)
        }
    }]
}

/// What has the edge serve where it is looked for.
pub(super) fn up(f: &Facts, finding: Finding, instead: Option<&str>) -> Finding {
    let instead = instead.map(|what| format!(", or {what}")).unwrap_or_default();
    if f.edge_elsewhere.is_none() {
        return finding.next(format!("{START}{instead}")).fix(Fix::Start);
    }
    let services = f.keeper.as_ref().is_some_and(|k| k.installed && k.unreachable.is_none());
    finding.next(format!("{}{instead}", move_edge(services)))
}

fn not_started(layer: &'static str) -> Finding {
    Finding::skipped(layer, "not started yet")
}

fn suspended(layer: &'static str, pid: u32) -> Finding {
    Finding::degraded(layer, format!("pid {pid} is suspended")).next(format!("kill -CONT {pid}"))
}

pub(super) fn control(f: &Facts) -> Vec<Finding> {
    vec![match (&f.control, f.daemon.pid) {
        (_, None) => Finding::skipped("control", "no daemon, no socket"),
        (Ok(()), _) => Finding::ok("control", "the daemon greets an edge"),
        (Err(why), _) => Finding::degraded("control", why).next(RESTART),
    }]
}
