//! From facts to findings: pure. One function per layer, in the order of the way of a byte.

mod belongings;
mod ledger;
mod machine;
mod processes;
mod programs;

use std::path::PathBuf;

use super::facts::Facts;
use crate::selftest::Level;

const LAYERS: usize = 19;

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
        belongings::home,
        belongings::config,
        machine::services,
        processes::root,
        processes::edge,
        processes::daemon,
        processes::watchdog,
        processes::control,
        belongings::ca,
        ledger::ledger,
        belongings::bodies,
        belongings::token,
        machine::upstream,
        programs::bypass,
        programs::projects,
        programs::environment,
        machine::system_proxy,
        machine::clock,
        selftest,
    ];
    layers.iter().flat_map(|layer| layer(facts)).collect()
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
