//! `project list` and `project show`.

use std::io::Write;

use jiff::{Timestamp, ZonedDateTime};

use super::super::output::{
    Column, Style, Table, UsageError, all_input, clean, count, count_or_dash, counted, harmless,
    local, money, write_json,
};
use super::super::range::RangeArgs;
use super::super::report::cost_cell;
use super::{ListArgs, ShowArgs};
use crate::home::Home;
use crate::meter::ledger::{Ledger, ProjectDetail, ProjectSum, Share};

/// As far back as there are requests.
const ALWAYS: &str = "99999d";

pub(super) fn list(
    home: &Home,
    args: &ListArgs,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let projects = Ledger::open(home)?.projects(args.range.window(ALWAYS, now)?)?;
    if args.json {
        return write_json(out, &serde_json::json!({ "projects": projects }));
    }
    if projects.is_empty() {
        let RangeArgs { since, from, to } = &args.range;
        let limited = [since, from, to].into_iter().any(Option::is_some);
        let said =
            if limited { "No requests to a model in this range." } else { "No projects yet." };
        writeln!(out, "{said}")?;
        return Ok(());
    }
    let mut table = Table::new(&[
        Column::text("PROJECT", 0),
        Column::number("REQUESTS", 1),
        Column::number("INPUT", 3),
        Column::number("OUTPUT", 3),
        Column::number("COST", 0),
        Column::number("COVERED", 2),
        Column::text("LAST", 1),
        Column::text("RECORDED AS", 4),
    ]);
    for ProjectSum { project, recorded_as, last_at, totals } in &projects {
        table.row(vec![
            project.as_deref().map_or_else(|| "(unknown)".to_owned(), clean),
            count(totals.requests),
            count_or_dash(all_input(&totals.tokens)),
            count_or_dash(totals.tokens.output),
            cost_cell(totals, totals.unknown()),
            totals.subscription_nanousd.map(money).unwrap_or_default(),
            last_at.map(|at| minute(at, now)).unwrap_or_default(),
            recorded_as.iter().map(|name| clean(name)).collect::<Vec<_>>().join(", "),
        ]);
    }
    out.write_all(table.render(style).as_bytes())?;
    Ok(())
}

pub(super) fn show(
    home: &Home,
    args: &ShowArgs,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let window = args.range.window(ALWAYS, now)?;
    let Some(detail) = Ledger::open(home)?.project(&args.name, window)? else {
        let known = "`halton-meter project list` shows those that there are";
        let name = &args.name;
        return Err(UsageError(format!("no request belongs to a project {name:?}; {known}")).into());
    };
    if args.json {
        return write_json(out, &detail);
    }
    out.write_all(text(&detail, now).as_bytes())?;
    Ok(())
}

fn text(detail: &ProjectDetail, now: &ZonedDateTime) -> String {
    let ProjectDetail { sum, first_at, sources, directories, branches, clients, models } = detail;
    let t = &sum.totals;
    let mut lines = vec![
        ("Project", sum.project.as_deref().map(clean).unwrap_or_default()),
        ("Requests", counted(t.requests, "request")),
        ("Cost", cost_cell(t, t.unknown())),
    ];
    lines.extend(t.subscription_nanousd.map(|covered| ("Covered", money(covered))));
    lines.extend(first_at.map(|at| ("First", minute(at, now))));
    lines.extend(sum.last_at.map(|at| ("Last", minute(at, now))));
    if !sum.recorded_as.is_empty() {
        let names: Vec<String> = sum.recorded_as.iter().map(|name| clean(name)).collect();
        lines.push(("Recorded as", names.join(", ")));
    }
    for (title, shares) in [
        ("Found by", sources),
        ("Directories", directories),
        ("Branches", branches),
        ("Programs", clients),
        ("Models", models),
    ] {
        lines.extend(parts(shares).map(|parts| (title, parts)));
    }
    lines.iter().map(|(title, text)| format!("{title:<12} {text}\n")).collect()
}

/// `None`: nothing is known of any.
fn parts(shares: &[Share]) -> Option<String> {
    shares.iter().find(|share| share.name.is_some())?;
    let part = |share: &Share| {
        let name = share.name.as_deref().map_or_else(|| "(unknown)".to_owned(), harmless);
        format!("{name} ({})", count(share.requests))
    };
    Some(shares.iter().map(part).collect::<Vec<_>>().join(", "))
}

fn minute(at: Timestamp, now: &ZonedDateTime) -> String {
    local(at, now.time_zone(), "%Y-%m-%d %H:%M")
}
