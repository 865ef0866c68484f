//! `up`: the whole tree in the foreground. Lines as things happen; on a terminal a short header that
//! stays on top of them.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::Signal;

use super::client::Tree;
use super::lifecycle::{self, Ready};
use super::live::{self, Ended};
use super::{Context, Exit, Failure, env, output, requests as rows_of, say};
use crate::supervisor::journal;

const TICK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(ctx: &Context) -> Result<Exit, Failure> {
    ctx.home.create()?;
    env::prepare_ca(ctx)?;
    let ended = Ended::on_signals()?;
    let journal = journal::Tail::at_end(&ctx.home.journal_file());
    let tree = Tree::look(ctx, Duration::from_secs(1));
    let root = if tree.root.is_some() {
        say("already running: showing it; Ctrl-C ends this view only");
        None
    } else {
        let _ = std::fs::remove_file(ctx.home.user_stopped());
        Some(spawn(ctx)?)
    };
    match lifecycle::ensure(ctx, PATIENCE) {
        Ready::Metering => say(format_args!(
            "metering on {}; in another shell: eval \"$(halton-meter env)\"",
            ctx.loaded.config.edge.addr()
        )),
        Ready::Passing(why) => say(format_args!("not metering: {why}")),
        Ready::NoEdge(why) => {
            if let Some(root) = root {
                end(root)?;
            }
            return Err(Failure::new(Exit::UNAVAILABLE, why));
        }
    }
    let watched = watch(ctx, journal, &ended);
    match root {
        Some(root) => end(root)?,
        None => say("still running"),
    }
    watched?;
    Ok(Exit::OK)
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

fn end(mut root: Child) -> std::io::Result<()> {
    say("ending; exchanges in flight finish first");
    lifecycle::signal(root.id(), Signal::TERM)?;
    root.wait().map(drop)
}

fn watch(ctx: &Context, mut journal: journal::Tail, ended: &Ended) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    let live = out.is_terminal();
    let since = Timestamp::now();
    let mut shown = HashSet::new();
    let (mut requests, mut nanousd) = (0u64, 0i128);
    while !ended.yet() {
        let mut lines: Vec<String> = journal.poll().iter().map(ToString::to_string).collect();
        let rows = live::rows(&ctx.home, since, 200).unwrap_or_default();
        // In the order of their ends: a long one may have begun before many that are shown.
        for row in rows.iter().rev().filter(|r| r.ended_at.is_some()) {
            if shown.insert(row.id) {
                requests += 1;
                nanousd += i128::from(row.cost_nanousd.unwrap_or(0));
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
            write!(out, "{requests} requests · {} · Ctrl-C ends", output::money(nanousd))?;
        }
        out.flush()?;
        std::thread::sleep(TICK);
    }
    if live {
        writeln!(out)?;
    }
    Ok(())
}
