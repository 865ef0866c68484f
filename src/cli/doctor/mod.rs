//! `doctor`: every layer, asked itself, with the next action for whatever is wrong.

mod facts;
mod fix;
mod gather;
pub(crate) mod inspectors;
mod judge;

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::output::{harmless, write_json};
use super::{Context, Exit, Failure};
use crate::selftest::Level;
use judge::{Finding, Fix, judge};

/// How long what was put right may still look wrong.
const SETTLING: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(50);

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  halton-meter doctor\n  halton-meter doctor --fix\n\n\
    Exit codes: 0 healthy; 1 degraded: requests pass, but not all is metered; 2 broken: \
    requests fail.")]
pub struct DoctorArgs {
    /// Put right what is safe: start what is down, write the bundle, tighten rights, remove leftovers.
    #[arg(long)]
    fix: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &DoctorArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    let mut findings = judge(&gather::gather(ctx));
    let mut done = Vec::new();
    if args.fix {
        let mut fixes: Vec<Fix> = Vec::new();
        for fix in findings.iter().filter_map(|f| f.fix.clone()) {
            if !fixes.contains(&fix) {
                fixes.push(fix);
            }
        }
        done.extend(fixes.iter().map(|fix| fix::apply(ctx, fix)));
        // What a running process was told takes it a moment.
        let end = Instant::now() + SETTLING;
        while !done.is_empty() {
            findings = judge(&gather::gather(ctx));
            let same = |f: &Finding| f.fix.as_ref().is_some_and(|fix| fixes.contains(fix));
            if Instant::now() >= end || !findings.iter().any(same) {
                break;
            }
            std::thread::sleep(TICK);
        }
        done = fixes
            .iter()
            .zip(done)
            .map(|(fix, done)| done.and_then(|what| seen(fix, &what, &findings)))
            .collect();
    }
    let level = findings.iter().map(|f| f.level).max().unwrap_or(Level::Ok).max(Level::Ok);
    if args.json {
        let document = json!({
            "level": level,
            "findings": findings.iter().map(public).collect::<Vec<_>>(),
            "fixed": done.iter().flatten().collect::<Vec<_>>(),
            "not_fixed": done.iter().filter_map(|d| d.as_ref().err()).collect::<Vec<_>>(),
        });
        write_json(out, &document)?;
    } else {
        for done in &done {
            match done {
                Ok(what) => writeln!(out, "fixed     {}", harmless(what))?,
                Err(why) => writeln!(out, "not fixed {}", harmless(why))?,
            }
        }
        for finding in &findings {
            print(finding, out)?;
        }
        writeln!(out, "{}", headline(level))?;
    }
    Ok(Exit(level.exit()))
}

/// Whether what was done shows in another look.
fn seen(fix: &Fix, what: &str, findings: &[Finding]) -> Result<String, String> {
    match findings.iter().find(|f| f.fix.as_ref() == Some(fix)) {
        None => Ok(what.to_owned()),
        Some(f) => Err(format!("{what}, and still {}: {}", f.layer, f.what)),
    }
}

fn public(finding: &Finding) -> serde_json::Value {
    json!({
        "layer": finding.layer,
        "level": finding.level,
        "what": finding.what,
        "next": finding.next,
        "fixable": finding.fix.is_some(),
    })
}

fn print(finding: &Finding, out: &mut impl Write) -> std::io::Result<()> {
    let what = harmless(&finding.what);
    writeln!(out, "{:<9} {:<12}  {what}", finding.level.name(), finding.layer)?;
    if let Some(next) = &finding.next {
        writeln!(out, "{:24}next: {}", "", harmless(next))?;
    }
    Ok(())
}

fn headline(level: Level) -> &'static str {
    match level {
        Level::Skipped | Level::Ok => "healthy",
        Level::Degraded => "degraded: requests pass, but not all is metered",
        Level::Broken => "broken: requests fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_help_is_not_called_fixed() {
        let finding = Finding {
            layer: "watchdog",
            level: Level::Degraded,
            what: "not running".to_owned(),
            next: None,
            fix: Some(Fix::Start),
        };
        let started = "started";
        assert_eq!(
            seen(&Fix::Bundle, started, std::slice::from_ref(&finding)),
            Ok(started.to_owned())
        );
        let still = "started, and still watchdog: not running".to_owned();
        assert_eq!(seen(&Fix::Start, started, &[finding]), Err(still));
    }
}
