//! `halton-meter requests`: the rows themselves, newest first.

use std::io::Write;

use clap::Subcommand;
use clap::builder::RangedU64ValueParser;
use jiff::ZonedDateTime;

use super::output::{
    Column, Style, Table, UsageError, all_input, clean, count, count_or_dash, finish, local,
    millis_or_dash, money, write_json,
};
use super::range::begun;
use super::{Context, Exit, Failure, client};
use crate::home::Home;
use crate::meter::bodies::Shelf;
use crate::meter::ledger::{Cursor, Ledger, Page, PublicPage, RequestFilter};
use crate::meter::row::{Billing, Completeness, Row, is_redirect};
use crate::meter::usage::UsageState;

mod show;

#[derive(Clone, Debug, Subcommand)]
pub enum RequestsCommand {
    /// One request, with what was said if it was kept.
    Show(show::ShowArgs),
}

/// Single requests, newest first
#[derive(Clone, Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  halton-meter requests --limit 5
  halton-meter requests --since today --project my-app
  halton-meter requests show last
  halton-meter requests --since 30d --limit 1000 --json | jq '.requests[].cost_usd'"
)]
pub struct RequestsArgs {
    #[command(subcommand)]
    pub command: Option<RequestsCommand>,
    /// How far back: 5m, 12h, 30d, today, or a date; default: everything
    #[arg(long, value_name = "WHEN")]
    pub since: Option<String>,
    /// How many rows at most
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = at_least_one())]
    pub limit: usize,
    /// Only this project
    #[arg(long)]
    pub project: Option<String>,
    /// Only this model
    #[arg(long)]
    pub model: Option<String>,
    /// Go on behind this place (`next` of an earlier --json)
    #[arg(long, value_name = "CURSOR")]
    pub before: Option<String>,
    /// Side calls too (token counting, model lists, telemetry)
    #[arg(long)]
    pub all: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// With none there would be nothing to say, as if there were no requests.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

pub fn run(ctx: &Context, args: &RequestsArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    client::settle_ledger(ctx);
    let style = Style::detect(ctx.color);
    let now = ZonedDateTime::now();
    finish(match &args.command {
        Some(RequestsCommand::Show(one)) => {
            show::show(one, &ctx.home, ctx.loaded.config.bodies.enabled, &now, out)
        }
        None => list(args, &ctx.home, style, &now, out),
    })
}

fn list(
    args: &RequestsArgs,
    home: &Home,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let before = args.before.as_deref().map(str::parse::<Cursor>).transpose();
    let filter = RequestFilter {
        since: args.since.as_deref().map(|s| begun(s, now)).transpose()?,
        project: args.project.clone(),
        model: args.model.clone(),
        all: args.all,
        limit: Some(args.limit),
        before: before.map_err(|e| UsageError(e.to_string()))?,
        ..RequestFilter::default()
    };
    let page = Ledger::open(home)?.requests(&filter)?;
    if args.json {
        write_json(out, &PublicPage::new(page, &Shelf::of(home)))?;
    } else {
        out.write_all(human(&page, args, &Shelf::of(home), now, style).as_bytes())?;
    }
    Ok(())
}

/// A finished row as `up` shows it when it happens.
pub fn line(row: &Row) -> String {
    let mut parts =
        vec![row.project.as_deref().map_or_else(|| "(no project)".to_owned(), clean), model(row)];
    parts.extend(row.status.filter(|s| *s >= 400).map(|s| s.to_string()));
    if let Some(input) = all_input(&row.tokens) {
        parts.push(format!("{} in", count(input)));
    }
    if let Some(output) = row.tokens.output {
        parts.push(format!("{} out", count(output)));
    }
    parts.push(cost(row));
    parts.push(millis_or_dash(row.duration_ms));
    let note = note(row);
    if !note.is_empty() {
        parts.push(note);
    }
    parts.join(" · ")
}

fn human(
    page: &Page,
    args: &RequestsArgs,
    shelf: &Shelf,
    now: &ZonedDateTime,
    style: Style,
) -> String {
    if page.rows.is_empty() {
        return if args.since.is_some() || args.project.is_some() || args.model.is_some() {
            "No requests match.\n".to_owned()
        } else {
            "No requests yet.\n".to_owned()
        };
    }
    let mut table = Table::new(&[
        Column::text("TIME", 0),
        Column::text("PROJECT", 2),
        Column::text("MODEL", 1),
        Column::number("STATUS", 3),
        Column::number("INPUT", 2),
        Column::number("CACHED", 4),
        Column::number("OUTPUT", 2),
        Column::number("COST", 0),
        Column::number("FIRST BYTE", 6),
        Column::number("TIME TAKEN", 5),
        Column::text("NOTE", 4),
    ]);
    for row in &page.rows {
        table.row(vec![
            when(row, now),
            row.project.as_deref().map(clean).unwrap_or_default(),
            model(row),
            row.status.map(|s| s.to_string()).unwrap_or_default(),
            count_or_dash(all_input(&row.tokens)),
            count_or_dash(row.tokens.cache_read),
            count_or_dash(row.tokens.output),
            cost(row),
            millis_or_dash(row.ttfb_ms),
            millis_or_dash(row.duration_ms),
            [note(row), kept(row, shelf)]
                .into_iter()
                .filter(|n| !n.is_empty())
                .collect::<Vec<_>>()
                .join(", "),
        ]);
    }
    let mut out = table.render(style);
    if page.next.is_some() {
        let more = format!("There are more; --limit shows more than {}.\n", args.limit);
        out.push_str(&style.dim(&more));
    }
    out
}

/// The time of a row of today, with the date otherwise.
fn when(row: &Row, now: &ZonedDateTime) -> String {
    let zone = now.time_zone();
    let today = row.started_at.to_zoned_datetime(zone.clone()).date() == now.date();
    local(row.started_at, zone, if today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" })
}

/// What answered, else what was asked for; a side call shows its path.
pub(super) fn model(row: &Row) -> String {
    let name = row.model.as_deref().or(row.model_requested.as_deref());
    match name {
        Some(name) => clean(name),
        None if row.billable => "(unknown)".to_owned(),
        None => clean(&row.path),
    }
}

fn cost(row: &Row) -> String {
    match (row.cost_nanousd, row.usage) {
        (Some(cost), _) => {
            let mark = match row.billing {
                Billing::Metered if row.cost_estimated => "~",
                Billing::Metered => "",
                // Covered by a plan: nobody paid that.
                Billing::Subscription => "≈",
            };
            format!("{mark}{}", money(cost))
        }
        (None, UsageState::Reported | UsageState::Partial) if row.billable => "unpriced".to_owned(),
        (None, UsageState::Reported | UsageState::Partial | UsageState::Absent) => "–".to_owned(),
    }
}

/// How `show` finds what was said.
fn kept(row: &Row, shelf: &Shelf) -> String {
    let id = row.id.simple().to_string();
    let end = id.get(id.len() - 8..).unwrap_or_default();
    if shelf.has(row.id) { format!("bodies: {end}") } else { String::new() }
}

/// What the figures alone would not say.
fn note(row: &Row) -> String {
    let mut notes = Vec::new();
    notes.extend(row.error_class.as_deref().map(clean));
    match row.completeness {
        Completeness::Open => notes.push("running".to_owned()),
        Completeness::Complete => {}
        Completeness::Interrupted | Completeness::Lossy => {
            let why = row.completeness_reason.as_deref().map(clean);
            let what = row.completeness.as_str();
            notes.push(why.map_or_else(|| what.to_owned(), |why| format!("{what}: {why}")));
        }
    }
    let told = row.usage != UsageState::Absent
        || row.error_class.is_some()
        || row.detail.caveat.is_some()
        || is_redirect(row.status);
    if row.billable && !told && row.completeness == Completeness::Complete {
        notes.push("usage not told".to_owned());
    }
    notes.extend(row.detail.refused.then(|| "refused".to_owned()));
    notes.extend(row.detail.caveat.map(|caveat| caveat.note().to_owned()));
    match row.billing {
        Billing::Metered => {}
        Billing::Subscription => notes.push("subscription".to_owned()),
    }
    notes.join(", ")
}

#[cfg(test)]
mod tests;
