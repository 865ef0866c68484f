//! `selftest`: does it work, all of it, now?

use std::io::Write;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::client::{Health, Tree, api};
use super::{Context, Exit, Failure, intruder, output, say, status};
use crate::home::Home;
use crate::meter::ca;
use crate::selftest::{self, Check, Level, Report, Subject};

const ASK: Duration = Duration::from_secs(2);

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  halton-meter selftest\n  halton-meter selftest --json\n\n\
    Exit codes: 0 all well; 1 requests pass, but something is not metered; 2 requests \
    would fail.")]
pub struct SelftestArgs {
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &SelftestArgs, out: &mut impl Write) -> Result<Exit, Failure> {
    ctx.home.create()?;
    clean_up_on_signals(&ctx.home)?;
    let mut failed = None;
    let report = examine(ctx, &mut |check| {
        if !args.json {
            failed = print(check, out).err();
        }
    })?;
    if let Some(e) = failed {
        return Err(e.into());
    }
    if args.json {
        output::write_json(out, &report)?;
    } else {
        let verdict = match report.level {
            Level::Skipped | Level::Ok => "all well",
            Level::Degraded => "requests pass, but not all is metered as it should be",
            Level::Broken => "requests through the meter would fail",
        };
        writeln!(out, "{verdict} ({} ms)", report.duration_ms)?;
    }
    Ok(Exit(report.level.exit()))
}

/// The test itself; also the last layer of `doctor`.
pub fn examine(ctx: &Context, said: &mut dyn FnMut(&Check)) -> Result<Report, Failure> {
    let begun = Instant::now();
    let tree = Tree::look(ctx, ASK);
    let edge = edge(ctx, &tree, begun);
    said(&edge);
    let mut checks = vec![edge];
    if tree.edge_answer.is_some() {
        let subject = Subject {
            home: ctx.home.clone(),
            edge: ctx.loaded.config.edge.addr(),
            unmetered: unmetered(ctx, &tree),
            loopback_by_proxy: ctx.loaded.config.upstream.proxy_for("127.0.0.1", 443).is_some(),
        };
        // If it can't, the rows come all the same, a little later.
        let hurry = || drop(api(ctx, "/v1/flush", ASK));
        let found = selftest::run(&subject, &hurry, said).map_err(|e| match &e {
            selftest::Problem::Busy => Failure::new(Exit::FAILED, e).hint("wait for its end"),
            selftest::Problem::Io { .. } => Failure::new(Exit::CANT_CREATE, e),
        })?;
        checks.extend(found.checks);
    }
    Ok(Report::new(checks))
}

fn edge(ctx: &Context, tree: &Tree, begun: Instant) -> Check {
    let addr = ctx.loaded.config.edge.addr();
    let (level, detail, next) = match (&tree.edge_answer, tree.edge) {
        (Some(status), _) => {
            let verdict = status.get("verdict").and_then(Value::as_str).unwrap_or("unknown");
            (Level::Ok, format!("the edge answers on {addr}; daemon {verdict}"), None)
        }
        (None, Some(pid)) => (
            Level::Broken,
            format!("the edge (pid {pid}) does not answer on {addr}"),
            Some(format!("end process {pid}: another edge takes its place")),
        ),
        (None, None) => match crate::platform::listener_on(addr) {
            // The root holds the port over the lives of the edge.
            Some(who) if tree.root.is_some_and(|root| who.ends_with(&format!(", pid {root}"))) => (
                Level::Broken,
                "the edge does not start".to_owned(),
                Some("`halton-meter doctor` says why".to_owned()),
            ),
            Some(who) => (
                Level::Broken,
                format!("{addr} is held by another program ({who})"),
                Some("set edge.port to a free port, then `halton-meter start`".to_owned()),
            ),
            None => (
                Level::Broken,
                format!("nothing runs on {addr}"),
                Some("`halton-meter start`".to_owned()),
            ),
        },
    };
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Check { name: "edge", level, ms, detail, next }
}

/// Why the daemon would not meter, and what to do about it.
fn unmetered(ctx: &Context, tree: &Tree) -> Option<(String, String)> {
    let say = |why: &str, next: &str| Some((why.to_owned(), next.to_owned()));
    match &tree.health {
        Health::Down if ctx.home.user_stopped().exists() => {
            say("metering is stopped", "`halton-meter start` resumes it")
        }
        Health::Down => say("the daemon is not running", "`halton-meter start`"),
        Health::Silent if !intruder::is_there(ctx, tree) => {
            say("the daemon does not answer", "`halton-meter restart`")
        }
        Health::Foreign | Health::Silent => say(
            "another program has the daemon's port",
            "set daemon.api_port to a free port, then `halton-meter restart`",
        ),
        Health::Degraded(_) => {
            say(&format!("the daemon is {}", status::words(&tree.health)), "`halton-meter doctor`")
        }
        Health::Ok(_) => {
            let found = ca::inspect(&ctx.home, &ctx.loaded.config.meter.hosts);
            let old = found.is_ok_and(|ca| ca.is_ok_and(|ca| !ca.covers_selftest));
            old.then(|| {
                (
                    "the CA is of an earlier version and has no place for the test's host; your own \
                     hosts are not affected"
                        .to_owned(),
                    "`halton-meter ca rotate` makes one that has".to_owned(),
                )
            })
        }
    }
}

fn print(check: &Check, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<9} {:<11} {:>5} ms  {}",
        check.level.name(),
        check.name,
        check.ms,
        output::harmless(&check.detail)
    )?;
    if let Some(next) = &check.next {
        writeln!(out, "{:22} next: {}", "", output::harmless(next))?;
    }
    out.flush()
}

/// Ctrl-C leaves nothing behind. (What a killed run leaves is void, and goes with the next one.)
fn clean_up_on_signals(home: &Home) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let home = home.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            selftest::clean_up(&home);
            say("interrupted");
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
