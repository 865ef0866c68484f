//! From facts to findings: pure. One function per layer, in the order of the way of a byte.

mod ledger;
mod machine;

use std::path::PathBuf;

use super::super::client::Settings;
use super::super::intruder::UNHEARD;
use super::super::lifecycle::move_edge;
use super::super::no_edge::{Signs, Why};
use super::facts::{Facts, Process, ProxyVariable, Says};
use crate::selftest::Level;

const LAYERS: usize = 19;

const SOON: i64 = 45;

const START: &str = "`halton-meter start`";
const RESTART: &str = "`halton-meter restart`";

/// What can be put right without asking.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fix {
    /// Starts what is not running.
    Start,
    /// The bundle of CA certificates, from the system's roots and ours.
    Bundle,
    /// No rights for others.
    Tighten(PathBuf),
    Remove(PathBuf),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    pub layer: &'static str,
    pub level: Level,
    pub what: String,
    pub next: Option<String>,
    pub fix: Option<Fix>,
}

impl Finding {
    fn new(layer: &'static str, level: Level, what: impl Into<String>) -> Self {
        Self { layer, level, what: what.into(), next: None, fix: None }
    }

    fn ok(layer: &'static str, what: impl Into<String>) -> Self {
        Self::new(layer, Level::Ok, what)
    }

    fn degraded(layer: &'static str, what: impl Into<String>) -> Self {
        Self::new(layer, Level::Degraded, what)
    }

    fn broken(layer: &'static str, what: impl Into<String>) -> Self {
        Self::new(layer, Level::Broken, what)
    }

    fn skipped(layer: &'static str, what: impl Into<String>) -> Self {
        Self::new(layer, Level::Skipped, what)
    }

    fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    fn fix(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }
}

/// Every layer has at least one finding.
#[must_use]
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let layers: [fn(&Facts) -> Vec<Finding>; LAYERS] = [
        home,
        config,
        machine::services,
        root,
        edge,
        daemon,
        watchdog,
        control,
        ca,
        ledger::ledger,
        bodies,
        token,
        machine::upstream,
        bypass,
        projects,
        environment,
        machine::system_proxy,
        machine::clock,
        selftest,
    ];
    layers.iter().flat_map(|layer| layer(facts)).collect()
}

fn home(f: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(problem) = &f.home_problem {
        let next = "make it a directory of yours that you can write to, or set HALTON_METER_HOME";
        found.push(Finding::degraded("home", problem).next(next));
    }
    for path in &f.wide {
        let what = format!("{} can be read or written by others", path.display());
        let next = format!("chmod go= {}", path.display());
        found.push(Finding::degraded("home", what).next(next).fix(Fix::Tighten(path.clone())));
    }
    for path in &f.stale {
        let what =
            format!("{} was left by a process that is gone; it does no harm", path.display());
        found.push(Finding::ok("home", what).fix(Fix::Remove(path.clone())));
    }
    or_ok(found, "home", || f.home.display().to_string())
}

fn config(f: &Facts) -> Vec<Finding> {
    let next = "mend it; `halton-meter config check` checks";
    let wrong = f.config_problems.iter().map(|p| Finding::degraded("config", p).next(next));
    let unread = match f.settings {
        Settings::InForce => None,
        Settings::Refused => {
            let what =
                "the edge finds a mistake in it that is none here: in a variable of its own, maybe";
            Some(Finding::degraded("config", what).next("logs/edge.err.log in the home names it"))
        }
        Settings::Unread => {
            let what = "the edge has not read it since it was edited";
            Some(Finding::degraded("config", what).next(RESTART))
        }
    };
    // What runs looks at these itself.
    let own = f.own_problems.iter().map(|p| Finding::degraded("config", p).next(next));
    let stray = |s| Finding::ok("config", s).next("unset it, or mend its name");
    let strays = f.strays.iter().map(stray);
    or_ok(wrong.chain(unread).chain(own).chain(strays).collect(), "config", || {
        "no mistakes".to_owned()
    })
}

fn root(f: &Facts) -> Vec<Finding> {
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

fn edge(f: &Facts) -> Vec<Finding> {
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

fn daemon(f: &Facts) -> Vec<Finding> {
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

fn watchdog(f: &Facts) -> Vec<Finding> {
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
fn up(f: &Facts, finding: Finding, instead: Option<&str>) -> Finding {
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

fn control(f: &Facts) -> Vec<Finding> {
    vec![match (&f.control, f.daemon.pid) {
        (_, None) => Finding::skipped("control", "no daemon, no socket"),
        (Ok(()), _) => Finding::ok("control", "the daemon greets an edge"),
        (Err(why), _) => Finding::degraded("control", why).next(RESTART),
    }]
}

fn ca(f: &Facts) -> Vec<Finding> {
    if f.untouched {
        return vec![Finding::skipped("ca", "none yet; the first start makes it")];
    }
    let mut found = Vec::new();
    match &f.ca.problem {
        Some(why) => {
            let what = format!("the certificate authority can't be used: {why}");
            found.push(Finding::degraded("ca", what).next(RESTART));
        }
        None if f.ca.days_left < SOON => {
            let what = format!("expires in {} days; a new one is made before", f.ca.days_left);
            found.push(Finding::ok("ca", what));
        }
        None => {}
    }
    if f.ca.next_waits && f.ca.problem.is_none() {
        let what = "a next CA waits for the programs that know only this one";
        found.push(Finding::ok("ca", what).next("`halton-meter ca rotate` goes on"));
    }
    if f.ca.other_in_daemon {
        let what = "the daemon signs with another CA than the one in its home: programs refuse it";
        found.push(Finding::broken("ca", what).next(RESTART).fix(Fix::Bundle));
    }
    // Without a CA there is nothing that it could hold.
    if !f.ca.bundle_holds && f.ca.problem.is_none() {
        let what = "the bundle does not hold our CA: programs refuse our certificates";
        let next = "`halton-meter doctor --fix` writes it again";
        found.push(Finding::broken("ca", what).next(next).fix(Fix::Bundle));
    }
    or_ok(found, "ca", || format!("good for {} days, and in the bundle", f.ca.days_left))
}

fn bodies(f: &Facts) -> Vec<Finding> {
    let said = f.bodies.as_deref().unwrap_or("bodies are not kept");
    vec![Finding::ok("bodies", said)]
}

fn token(f: &Facts) -> Vec<Finding> {
    vec![match (&f.token, f.daemon.pid) {
        (_, None) => Finding::skipped("token", "no daemon to ask"),
        (Some(why), _) => Finding::degraded("token", why).next(RESTART),
        (None, _) => Finding::ok("token", "the daemon takes it"),
    }]
}

fn bypass(f: &Facts) -> Vec<Finding> {
    let next =
        "`halton-meter ca trust`, or point it at `halton-meter ca bundle`; then it may try again";
    let raw = f.bypass.iter().map(|who| Finding::degraded("bypass", who).next(next));
    let anew = "start it anew, or wait: its next connection is metered";
    let passing = f.passing.iter().map(|who| Finding::degraded("bypass", who).next(anew));
    or_ok(raw.chain(passing).collect(), "bypass", || {
        "no program refuses our certificate".to_owned()
    })
}

fn projects(f: &Facts) -> Vec<Finding> {
    let next = "mount it again, or unmount it; on macOS, answer the question whether halton-meter may look there";
    let silent = f.silent.iter().map(|what| Finding::degraded("projects", what).next(next));
    or_ok(silent.collect(), "projects", || "programs' directories answer".to_owned())
}

fn environment(f: &Facts) -> Vec<Finding> {
    let mut found: Vec<_> =
        f.proxies.iter().filter_map(|variable| proxy_variable(f, variable)).collect();
    for (who, port) in &f.stranded {
        let what = format!("{who} goes through {port}, where nobody listens: its requests fail");
        let finding = Finding::broken("environment", what);
        found.push(if *port == f.edge_addr {
            up(f, finding, Some("end that program"))
        } else {
            finding.next("end that program and start it again: our port was another one then")
        });
    }
    for (name, path) in &f.dangling {
        let what = format!("{name} names {}, which is not there: TLS fails here", path.display());
        let next = format!("unset {name}, or `halton-meter doctor --fix` if it is ours");
        let finding = Finding::broken("environment", what).next(next);
        let ours = path.starts_with(&f.home);
        found.push(if ours { finding.fix(Fix::Bundle) } else { finding });
    }
    or_ok(found, "environment", || {
        let through = f.proxies.iter().any(|v| v.local_port == Some(f.edge_addr.port()));
        if through { "this shell goes through us" } else { "this shell does not go through us" }
            .to_owned()
    })
}

fn proxy_variable(f: &Facts, variable: &ProxyVariable) -> Option<Finding> {
    let ProxyVariable { name, shown, local_port, alive } = variable;
    let port = (*local_port)?;
    let ours = f.edge_addr.port();
    let next = format!("unset {name}, or eval \"$(halton-meter env)\"");
    // Where it is now it serves this shell.
    if f.edge_elsewhere.is_some_and(|served| served.port() == port) {
        return None;
    }
    match (port == ours, *alive) {
        (true, true) => None,
        (true, false) => {
            let what = format!("{name} points at our edge, which is down");
            let instead = format!("unset {name}");
            Some(up(f, Finding::broken("environment", what), Some(&instead)))
        }
        (false, false) => {
            let what = format!("{name} points at {shown}, where nobody listens");
            Some(Finding::broken("environment", what).next(next))
        }
        (false, true) => {
            let what = format!("{name} points at {shown}, not at our edge (port {ours})");
            Some(Finding::degraded("environment", what).next(next))
        }
    }
}

fn selftest(f: &Facts) -> Vec<Finding> {
    vec![match &f.selftest {
        _ if !f.edge_answers => Finding::skipped("selftest", "no edge to test"),
        Err(why) => Finding::degraded("selftest", why).next("try again"),
        Ok(report) => {
            let worst = report.checks.iter().find(|c| c.level == report.level);
            let what = match report.level {
                Level::Ok | Level::Skipped => {
                    format!("{} checks in {} ms", report.checks.len(), report.duration_ms)
                }
                Level::Degraded | Level::Broken => {
                    worst.map_or_else(String::new, |c| format!("{}: {}", c.name, c.detail))
                }
            };
            let next = report.next().map(str::to_owned);
            Finding { next, ..Finding::new("selftest", report.level, what) }
        }
    }]
}

fn or_ok(
    mut found: Vec<Finding>,
    layer: &'static str,
    what: impl FnOnce() -> String,
) -> Vec<Finding> {
    if found.is_empty() {
        found.push(Finding::ok(layer, what()));
    }
    found
}

#[cfg(test)]
mod tests;
