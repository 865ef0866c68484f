//! What concerns the machine rather than our own parts.

use std::path::Path;

use super::super::facts::{Facts, Keeper, Kept};
use super::{Finding, or_ok};
use crate::config::UpstreamProxy;

/// 2020-01-01: a clock before it was never set.
const PLAUSIBLE: i64 = 1_577_836_800;
/// How far ahead of the clock something may be that we have written down: clocks are corrected.
const AHEAD: i64 = 10 * 60;

const INIT: &str = "`halton-meter init`";
const CONFIG: &str = "`halton-meter config path` says where that is";

pub(super) fn services(f: &Facts) -> Vec<Finding> {
    let Some(keeper) = &f.keeper else {
        return vec![Finding::ok("services", "none here: `run` and `start` keep the processes")];
    };
    let defined = keeper.services.iter().any(|s| s.program.is_some());
    if !keeper.installed && !defined {
        let what = format!("none installed; {INIT} would have {} keep the processes", keeper.name);
        return vec![Finding::ok("services", what)];
    }
    if let Some(why) = &keeper.unreachable {
        return vec![Finding::skipped("services", why)];
    }
    if !keeper.installed {
        let what = format!("{} has services of ours that no `init` knows of", keeper.name);
        let next = format!("{INIT}, or `halton-meter uninstall`");
        return vec![Finding::degraded("services", what).next(next)];
    }
    let mut found: Vec<_> = keeper.services.iter().filter_map(|s| service(f, keeper, s)).collect();
    let elsewhere = |s: &&Kept| s.program_there && s.program.as_ref() != Some(&keeper.own);
    if let Some(program) = keeper.services.iter().find(elsewhere).and_then(|s| s.program.as_ref()) {
        let what =
            format!("they start {}, and this is {}", program.display(), keeper.own.display());
        let next = format!("if this one is to be used: {INIT}");
        found.push(Finding::ok("services", what).next(next));
    }
    or_ok(found, "services", || format!("{} keeps the processes", keeper.name))
}

fn service(f: &Facts, keeper: &Keeper, service: &Kept) -> Option<Finding> {
    let name = service.name;
    let Some(program) = &service.program else {
        let what = format!("{name}: its definition is gone; {} does not start it", keeper.name);
        return Some(Finding::degraded("services", what).next(INIT));
    };
    if !service.program_there {
        let what =
            format!("{name}: {} is not there any more, so it can't start", program.display());
        let next = format!("{INIT} by the program where it is now");
        // What runs goes on until it ends.
        let finding = if service.name == "edge" && service.pid.is_none() {
            Finding::broken("services", what)
        } else {
            Finding::degraded("services", what)
        };
        return Some(finding.next(next));
    }
    if let Some((known, false)) = &service.known_by {
        return Some(known_by_none(keeper, service, known));
    }
    if !service.enabled {
        let what = format!("{name}: it is not started at the next login");
        return Some(Finding::degraded("services", what).next(INIT));
    }
    if service.pid.is_some() || f.stopped {
        return service.known_by.as_ref().map(|(known, _)| {
            let (manager, known) = (keeper.name, known.display());
            let what = format!("{name}: {manager} knows it as {known} until your next login");
            Finding::ok("services", what).next("leave that program there until then")
        });
    }
    let ended = service.last_exit.as_ref().map(|how| format!("; it ended last with {how}"));
    let mut what = format!("{name}: not running{}", ended.unwrap_or_default());
    if service.refused {
        let manager = keeper.name;
        what.push_str(&format!(
            "; {manager} may not start it before it is loaded anew, as its program's file has been replaced"
        ));
    }
    Some(Finding::degraded("services", what).next(super::START).fix(super::Fix::Start))
}

/// An `init` by a program that is somewhere else has left it running.
fn known_by_none(keeper: &Keeper, service: &Kept, known: &Path) -> Finding {
    let (name, manager, known) = (service.name, keeper.name, known.display());
    let what =
        format!("{name}: {manager} knows it as {known}, which is not there: it can't start again");
    // What runs goes on until it ends.
    let finding = if name == "edge" && service.pid.is_none() {
        Finding::broken("services", what)
    } else {
        Finding::degraded("services", what)
    };
    finding.next(format!("{INIT}, which closes the port for a moment, or your next login"))
}

pub(super) fn upstream(f: &Facts) -> Vec<Finding> {
    let up = &f.upstream;
    let mut found = Vec::new();
    for (name, way) in [("upstream.proxy", &up.proxy), ("upstream.http_proxy", &up.http)] {
        let Some((proxy, Err(why))) = way else { continue };
        let what = format!("{name} {proxy}: {why}");
        found.push(
            Finding::broken("upstream", what).next(format!("mend it in config.toml; {CONFIG}")),
        );
    }
    if let Some(times @ 1..) = f.local_network_failures {
        let what = format!(
            "the edge found no way to addresses of your local network, {times} times since it last reached \
             one: macOS may be keeping it from there"
        );
        let next = "allow halton-meter in System Settings > Privacy & Security > Local Network";
        found.push(Finding::degraded("upstream", what).next(next));
    }
    if let Some(ignored) = &up.ignored {
        let what = format!("{ignored} leads out of here, and we don't go through it");
        let settings = "upstream.proxy, or upstream.http_proxy for http:// alone,";
        let next = format!("if it is needed, set {settings} to it in config.toml; {CONFIG}");
        found.push(Finding::degraded("upstream", what).next(next));
    }
    if let Some(why) = &up.extra_roots {
        let what = format!("upstream.extra_ca_file: {why}");
        found
            .push(Finding::degraded("upstream", what).next(format!("name another file; {CONFIG}")));
    }
    for who in &up.inspectors {
        let what = format!("this system trusts {who} to read TLS traffic, ours with it");
        found.push(Finding::ok("upstream", what));
    }
    or_ok(found, "upstream", || {
        let all = match &up.proxy {
            Some((proxy, _)) if up.past => format!(
                "{proxy}, the system's proxy at `init`, can't be reached from here: going past it"
            ),
            Some((proxy, _)) => format!("through {proxy}"),
            None => "direct".to_owned(),
        };
        match &up.http {
            Some((http, _)) => format!("{all}; http:// through {http}"),
            None => all,
        }
    })
}

pub(super) fn system_proxy(f: &Facts) -> Vec<Finding> {
    let ours = f.system_proxies.iter().find(|shown| {
        UpstreamProxy::parse(shown).is_some_and(|p| {
            p.port == f.edge_addr.port() && matches!(p.host.as_str(), "127.0.0.1" | "localhost")
        })
    });
    vec![match (ours, f.system_proxies.first()) {
        (Some(shown), _) if !f.edge_answers => {
            let what = format!("the system proxy is {shown}, and our edge does not answer");
            Finding::broken("system-proxy", what).next("`halton-meter reset-proxy`")
        }
        (ours, _) if let Some(way) = f.other_way => {
            other_way(way, ours.is_some() || f.proxy_managed)
        }
        (Some(shown), _) => Finding::ok("system-proxy", format!("{shown}: through us")),
        (None, Some(other)) if f.proxy_managed => {
            let what =
                format!("somebody else has set it to {other}: what goes by it is not metered");
            let next =
                "`halton-meter init --full` sets it again; `halton-meter init` leaves it alone";
            Finding::degraded("system-proxy", what).next(next)
        }
        (None, Some(other)) => Finding::ok("system-proxy", format!("{other}: not ours")),
        (None, None) => Finding::ok("system-proxy", "does not point at us"),
    }]
}

/// `wanted`: somebody has wanted ours to be in force.
fn other_way(way: &str, wanted: bool) -> Finding {
    if !wanted {
        return Finding::ok("system-proxy", format!("{way} is in force: not ours"));
    }
    let what = format!("{way} is in force, and not our proxy: what goes by it is not metered");
    let next = "if it is not needed, switch it off in the network settings, then `halton-meter init --full`";
    Finding::degraded("system-proxy", what).next(next)
}

pub(super) fn clock(f: &Facts) -> Vec<Finding> {
    let ahead = f.latest - f.clock;
    vec![if f.clock < PLAUSIBLE {
        Finding::degraded("clock", "the system clock was never set").next("set it")
    } else if ahead > AHEAD {
        let what = format!("{} min behind what we have written down already", ahead / 60);
        Finding::degraded("clock", what).next("set it: certificates and reports go by it")
    } else {
        Finding::ok("clock", "plausible")
    }]
}
