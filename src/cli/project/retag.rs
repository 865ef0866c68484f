//! `project retag`: rows change, for what was attributed wrongly.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{Timestamp, ZonedDateTime};
use serde::Serialize;

use super::super::output::{
    Column, Style, Table, UsageError, clean, count, counted, money, write_json,
};
use super::super::range::{RangeArgs, begun};
use super::super::report::priced;
use super::{How, name};
use crate::home::Home;
use crate::meter::ledger::{Ledger, Retag, Retagged, Selection, Window, retag};

#[derive(Args, Debug, Default)]
#[command(after_help = "Examples:
  halton-meter project retag --from shop --to api --since 2026-11-20 --cwd ~/src/api --dry-run
  halton-meter project retag --session 0198f000-… --to billing
  halton-meter project retag --undo --since 2026-11-20
The rows themselves change; their project_source is then `retag`. --undo gives back what they said
before. A request that is still running is left alone.")]
pub struct RetagArgs {
    /// The project that the requests are given to
    #[arg(long, value_name = "PROJECT", required_unless_present = "undo")]
    to: Option<String>,
    /// Give back what the rows said before they were retagged
    #[arg(long, conflicts_with = "to")]
    undo: bool,
    /// Only requests of this project
    #[arg(long, value_name = "PROJECT")]
    from: Option<String>,
    /// Only from then on: 5m, 12h, 30d, 2w, today, yesterday, or a date
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only to that day (all of it) or moment
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only of programs that ran in this directory or below it
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,
    /// Only on this git branch
    #[arg(long)]
    branch: Option<String>,
    /// Only of this program
    #[arg(long)]
    client: Option<String>,
    /// Only of this session of a tool
    #[arg(long)]
    session: Option<String>,
    /// Only of this `halton-meter run`
    #[arg(long)]
    run: Option<String>,
    #[command(flatten)]
    how: How,
}

#[derive(Serialize)]
struct Outcome<'a> {
    dry_run: bool,
    to: Option<&'a str>,
    #[serde(flatten)]
    done: Retagged,
}

pub(super) fn run(
    home: &Home,
    args: &RetagArgs,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let ledger = Ledger::open(home)?;
    let selection = selection(&ledger, args, now)?;
    let change = match &args.to {
        // A row of a renamed project would be shown under the new name all the same.
        Some(to) => Retag::To(ledger.shown_project(&name(to)?).to_owned()),
        None => Retag::Back,
    };
    drop(ledger);
    let done = retag(home, &selection, &change, args.how.dry_run)?;
    let to = match &change {
        Retag::To(to) => Some(to.as_str()),
        Retag::Back => None,
    };
    if args.how.json {
        return write_json(out, &Outcome { dry_run: args.how.dry_run, to, done });
    }
    if !done.projects.is_empty() {
        out.write_all(table(&done, to).render(style).as_bytes())?;
    }
    let verb = if args.how.dry_run { "would change" } else { "changed" };
    writeln!(out, "{} {verb}.", counted(done.changed, "row"))?;
    Ok(())
}

fn selection(ledger: &Ledger, args: &RetagArgs, now: &ZonedDateTime) -> anyhow::Result<Selection> {
    let conditions = [&args.from, &args.since, &args.until, &args.branch, &args.client];
    let more = [&args.session, &args.run];
    if !args.undo && args.cwd.is_none() && conditions.into_iter().chain(more).all(Option::is_none) {
        let all = "--since 1970-01-01 means all of them";
        return Err(
            UsageError(format!("say which requests: --from, --cwd, --since …; {all}")).into()
        );
    }
    let to = match &args.until {
        Some(_) => {
            RangeArgs { to: args.until.clone(), ..RangeArgs::default() }.window("99999d", now)?.to
        }
        // What is dated ahead is of all of them: the clock may have been.
        None => Timestamp::MAX,
    };
    let since = args.since.as_deref().map(|since| begun(since, now)).transpose()?;
    let window = Window { from: since.unwrap_or(Timestamp::UNIX_EPOCH), to };
    if window.from >= window.to {
        return Err(UsageError("--since is not before --until".to_owned()).into());
    }
    Ok(Selection {
        window,
        projects: args.from.as_deref().map(|name| ledger.recorded_as(name)),
        cwd: args.cwd.as_deref().map(absolute).transpose()?,
        branch: args.branch.clone(),
        client: args.client.clone(),
        session: args.session.clone(),
        run: args.run.clone(),
    })
}

/// As the kernel told it of the client; the directory may be gone.
fn absolute(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize().or_else(|_| std::path::absolute(dir))?;
    Ok(dir.to_string_lossy().into_owned())
}

fn table(done: &Retagged, to: Option<&str>) -> Table {
    let mut table = Table::new(&[
        Column::text("FROM", 0),
        Column::text("TO", 0),
        Column::number("REQUESTS", 1),
        Column::number("COST", 1),
        Column::number("COVERED", 2),
    ]);
    for (project, moved) in &done.projects {
        table.row(vec![
            if project.is_empty() { "(unknown)".to_owned() } else { clean(project) },
            to.map_or_else(|| "(as before)".to_owned(), clean),
            count(moved.requests),
            priced(moved.cost_nanousd, moved.unpriced),
            // Most people have no plan, or nothing else.
            moved.subscription_nanousd.map(money).unwrap_or_default(),
        ]);
    }
    table
}
