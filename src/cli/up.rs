//! `up`: the whole tree in the foreground. Lines as things happen; on a terminal a short header that
//! stays on top of them.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::process::Signal;

use super::client::{self, Tree};
use super::lifecycle::{self, Ready};
use super::live::{self, Ended};
use super::{Context, Exit, Failure, env, output, requests as rows_of, say, services};
use crate::meter::ledger::{Group, Ledger, Totals, Window};
use crate::platform::Service;
use crate::supervisor::journal;

const TICK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(5);
const ASK: Duration = Duration::from_secs(1);
/// Of the latest requests, for those that get a line of their own.
const ROWS: usize = 200;
const VIEW: &str = "showing it; Ctrl-C ends this view only";

/// Who keeps the tree that is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keeper {
    /// Whoever started it.
    Another,
    /// The service manager, which starts it.
    Services,
    /// We do, for as long as it is shown.
    Us,
}

/// Never a second tree: not beside one that runs, and not beside one that services will start.
const fn keeper(runs: bool, services: bool) -> Keeper {
    match (runs, services) {
        (true, _) => Keeper::Another,
        (false, true) => Keeper::Services,
        (false, false) => Keeper::Us,
    }
}

pub fn run(ctx: &Context) -> Result<Exit, Failure> {
    ctx.home.holds_sockets()?;
    ctx.home.create()?;
    env::prepare_ca(ctx)?;
    let ended = Ended::on_signals()?;
    let journal = journal::Tail::at_end(&ctx.home.journal_file());
    let mut root = start(ctx)?;
    let stopped = ctx.home.user_stopped().exists();
    let ready = lifecycle::wait_ready(ctx, stopped, Instant::now() + PATIENCE);
    if root.as_mut().is_some_and(has_ended) {
        // Another root was faster, of a `run` in another shell.
        root = None;
        say(format_args!("already running: {VIEW}"));
    }
    let metering = format!(
        "metering on {}; in another shell: eval \"$(halton-meter env)\"",
        ctx.loaded.config.edge.addr()
    );
    let mut awaited = None;
    match ready {
        Ready::Metering => say(metering),
        Ready::Passing(why) => {
            say(format_args!("not metering: {why}"));
            awaited = Some(metering);
        }
        Ready::NoEdge(why) => {
            if let Some(root) = root {
                end(root)?;
            }
            return Err(Failure::new(Exit::UNAVAILABLE, why));
        }
    }
    let watched = watch(ctx, journal, awaited, &ended);
    let served = client::edge_serves(ctx).unwrap_or_else(|| ctx.loaded.config.edge.addr());
    let ours = root.is_some();
    if let Some(root) = root {
        end(root)?;
    }
    say(farewell(ours, lifecycle::anything_runs(ctx), served));
    watched?;
    Ok(Exit::OK)
}

/// Has the tree run. The root, if it is ours.
fn start(ctx: &Context) -> Result<Option<Child>, Failure> {
    lifecycle::await_end(ctx, PATIENCE);
    let tree = Tree::look(ctx, ASK);
    tree.is_ours()?;
    if tree.ending {
        return Err(Failure::new(Exit::UNAVAILABLE, client::ENDING));
    }
    let services = services::installed(ctx);
    let mut keeper = keeper(tree.root.is_some(), services.is_some());
    if keeper != Keeper::Another {
        lifecycle::forget_stop(ctx)?;
    }
    if keeper == Keeper::Services
        && let Some(services) = services
    {
        if services.start(&Service::ALL, PATIENCE) {
            say(format_args!("{} keeps it running: {VIEW}", services.name()));
        } else {
            keeper = Keeper::Us;
        }
    }
    // No waiting brings it here, and a root of ours would end it.
    if let Some(served) = tree.edge_elsewhere(ctx) {
        return Err(Failure::new(Exit::UNAVAILABLE, lifecycle::elsewhere(ctx, served)));
    }
    match keeper {
        Keeper::Us => match lifecycle::port_taken(ctx, &tree) {
            Some(why) => Err(Failure::new(Exit::UNAVAILABLE, why)),
            None => Ok(Some(spawn(ctx)?)),
        },
        Keeper::Another => {
            tree.root.into_iter().for_each(lifecycle::wake);
            say(format_args!("already running: {VIEW}"));
            Ok(None)
        }
        Keeper::Services => Ok(None),
    }
}

/// The root as our child, in a group of its own: Ctrl-C reaches it through us, in order.
fn spawn(ctx: &Context) -> std::io::Result<Child> {
    let log = crate::home::open_append(&ctx.home.log_file("root"))?;
    lifecycle::own_process(ctx, &["supervise", "--foreground"])?
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
}

fn has_ended(root: &mut Child) -> bool {
    !matches!(root.try_wait(), Ok(None))
}

fn end(mut root: Child) -> std::io::Result<()> {
    if has_ended(&mut root) {
        return Ok(());
    }
    say("ending; exchanges in flight finish first");
    lifecycle::tell(root.id(), Signal::TERM)?;
    root.wait().map(drop)
}

/// `ours`: the root was a child of ours. What it began may run on without it, if it died.
fn farewell(ours: bool, runs: bool, served: SocketAddr) -> String {
    match (ours, runs) {
        (true | false, false) => lifecycle::all_down(served),
        (true, true) => "still running; `halton-meter edge stop` ends it".to_owned(),
        (false, true) => "still running".to_owned(),
    }
}

/// `awaited`: what to say once it meters after all.
fn watch(
    ctx: &Context,
    mut journal: journal::Tail,
    mut awaited: Option<String>,
    ended: &Ended,
) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let live = out.is_terminal();
    let since = Timestamp::now();
    let mut shown = HashSet::new();
    let mut totals = all_of(&[]);
    while !ended.yet() {
        let mut lines: Vec<String> = journal.poll().iter().map(ToString::to_string).collect();
        if awaited.is_some() && Tree::look(ctx, ASK).metering() {
            lines.extend(awaited.take());
        }
        // What can't be read now is read the next time.
        let ledger = Ledger::open(&ctx.home).ok();
        let rows =
            ledger.as_ref().and_then(|l| live::rows(l, since, ROWS).ok()).unwrap_or_default();
        // In the order of their ends: a long one may have begun before many that are shown.
        for row in rows.iter().rev().filter(|r| r.ended_at.is_some()) {
            if shown.insert(row.id) {
                lines.push(rows_of::line(row));
            }
        }
        if live {
            // Clear the header of the last tick, print what is new, put the header below it.
            write!(out, "\r\x1b[2K")?;
        }
        for line in lines {
            writeln!(out, "{line}")?;
        }
        if live {
            let sums =
                ledger.and_then(|l| l.by_provider(Window { from: since, to: Timestamp::MAX }).ok());
            totals = sums.map_or(totals, |groups| all_of(&groups));
            write!(out, "{totals} · Ctrl-C ends")?;
        }
        out.flush()?;
        std::thread::sleep(TICK);
    }
    if live {
        writeln!(out)?;
    }
    Ok(())
}

/// Requests that are over, and what they cost.
fn all_of(groups: &[Group]) -> String {
    let totals = || groups.iter().map(|group| &group.totals);
    let sum = |of: fn(&Totals) -> Option<i64>| totals().filter_map(of).reduce(i64::saturating_add);
    let ended = totals().map(|t| t.requests - t.open).sum();
    let unknown = totals().map(Totals::unknown).sum();
    let spent = output::spent(sum(|t| t.cost_nanousd), sum(|t| t.subscription_nanousd), unknown);
    format!("{} · {spent}", output::counted(ended, "request"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{at, home, row, store};
    use crate::meter::row::{Billing, Completeness, Row};
    use crate::meter::usage::UsageState;

    #[test]
    fn there_is_one_tree_and_its_end_is_told() {
        assert_eq!(keeper(false, false), Keeper::Us);
        assert_eq!(keeper(false, true), Keeper::Services);
        assert_eq!([keeper(true, false), keeper(true, true)], [Keeper::Another; 2]);
        let said = |ours, runs| farewell(ours, runs, ([127, 0, 0, 1], 8081).into());
        for ours in [true, false] {
            assert!(said(ours, false).contains("still point at 127.0.0.1:8081 can't connect"));
        }
        assert!(said(true, true).contains("edge stop"), "its root died, the rest goes on");
        assert_eq!(said(false, true), "still running");
    }

    #[test]
    fn totals_are_of_all_requests() {
        let (_dir, home) = home();
        let began = "2026-11-25T11:00:00Z";
        let mut rows: Vec<Row> = (1..=300).map(|n| row(n, began)).collect();
        rows[0].completeness = Completeness::Open;
        rows[0].cost_nanousd = None;
        rows[0].usage = UsageState::Absent;
        rows[1].billing = Billing::Subscription;
        rows[2].provider = "openai".to_owned();
        store(&home, &rows);
        let ledger = Ledger::open(&home).unwrap();
        let window = Window { from: at(began), to: Timestamp::MAX };
        let groups = ledger.by_provider(window).unwrap();
        assert_eq!(all_of(&groups), "299 requests · $3.67 + ≈$0.0123 covered");
        assert_eq!(all_of(&[]), "0 requests · –");
        let untold = Totals { requests: 2, without_usage: 2, ..Totals::default() };
        let group = Group { key: None, totals: untold, previous: None };
        assert_eq!(all_of(&[group]), "2 requests · 2 unpriced");
    }
}
