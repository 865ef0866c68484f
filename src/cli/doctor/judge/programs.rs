//! The user's programs: what they trust, where they run, and where their environment leads.

use super::super::super::passing::REFUSES;
use super::super::facts::{Facts, ProxyVariable};
use super::processes::up;
use super::{Finding, Fix, or_ok};

pub(super) fn bypass(f: &Facts) -> Vec<Finding> {
    let next = REFUSES.join(" ");
    let raw = f.bypass.iter().map(|who| Finding::degraded("bypass", who).next(&*next));
    let anew = "start it anew, or wait: its next connection is metered";
    let passing = f.passing.iter().map(|who| Finding::degraded("bypass", who).next(anew));
    or_ok(raw.chain(passing).collect(), "bypass", || {
        "no program refuses our certificate".to_owned()
    })
}

pub(super) fn projects(f: &Facts) -> Vec<Finding> {
    let next = "mount it again, or unmount it; on macOS, answer the question whether halton-meter may look there";
    let silent = f.silent.iter().map(|what| Finding::degraded("projects", what).next(next));
    or_ok(silent.collect(), "projects", || "programs' directories answer".to_owned())
}

pub(super) fn environment(f: &Facts) -> Vec<Finding> {
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
