//! `halton-meter report`: what was used and what it cost.

use std::io::Write;

use jiff::ZonedDateTime;

use super::output::{
    Column, Style, Table, all_input, clean, count, count_or_dash, counted, csv_count, csv_text,
    csv_usd, finish, local, millis, millis_or_dash, money, write_csv, write_json,
};
use super::range::RangeArgs;
use super::summary::{gap_table, gaps, unpriced_models};
pub use super::summary::{open_of_run, summary_of_run};
use super::{Context, Exit, Failure, client};
use crate::home::Home;
use crate::meter::ledger::{Group, GroupBy, Grouping, Ledger, Report, ReportQuery, Silent, Totals};
use crate::meter::usage::Tokens;

/// What was used and what it cost
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  halton-meter report                        the last 30 days, by project and model
  halton-meter report --since today --by client
  halton-meter report --from 2026-11-01 --to 2026-11-07 --by day --vs-previous
  halton-meter report --since 30d --project my-app --json
  halton-meter report --quota                what is left of Claude, ChatGPT, Copilot plans")]
pub struct ReportArgs {
    #[command(flatten)]
    pub range: RangeArgs,
    /// What to group by (several, with commas)
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["project", "model"])]
    pub by: Vec<GroupBy>,
    /// Only this project
    #[arg(long)]
    pub project: Option<String>,
    /// Compare with the range of the same length before
    #[arg(long)]
    pub vs_previous: bool,
    /// What is left of the plans, as the providers told it last
    #[arg(long, conflicts_with_all = ["csv", "vs_previous", "project", "by", "since", "from", "to"])]
    pub quota: bool,
    /// Comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

pub fn run(ctx: &Context, args: &ReportArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    client::settle_ledger(ctx);
    let style = Style::detect(ctx.color);
    finish(show(args, &ctx.home, style, &ZonedDateTime::now(), out))
}

fn show(
    args: &ReportArgs,
    home: &Home,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    if args.quota {
        return super::quota::show(home, args.json, style, now, out);
    }
    let query = ReportQuery {
        window: args.range.window("30d", now)?,
        by: GroupBy::unique(&args.by),
        project: args.project.clone(),
        zone: now.time_zone().clone(),
        vs_previous: args.vs_previous,
    };
    let ledger = Ledger::open(home)?;
    let mut report = ledger.report(&query)?;
    report.dated_ahead = ledger.dated_ahead(query.window, now.timestamp())?;
    if args.json {
        write_json(out, &report)?;
    } else if args.csv {
        csv(&report, out)?;
    } else {
        out.write_all(human(&report, now, style).as_bytes())?;
        if let Some(name) = &args.project
            && report.summary.requests == 0
            && !ledger.project_names()?.contains(ledger.shown_project(name))
        {
            let none = format!("There is no project {}; ", clean(name));
            writeln!(out, "{none}`halton-meter project list` shows those that there are.")?;
        }
    }
    Ok(())
}

fn human(report: &Report, now: &ZonedDateTime, style: Style) -> String {
    let mut out = heading(report, now, style);
    let t = &report.summary;
    let before = report.previous.as_ref().map_or(0, |previous| previous.summary.requests);
    if t.requests == 0 && before == 0 {
        out.push_str("No requests to a model in this range.\n");
        for gap in gaps(&report.coverage).into_iter().chain(ahead(report)) {
            out.push_str(&style.warn(&format!("But {gap}.\n")));
        }
        push_gaps(report, now, style, &mut out);
        return out;
    }
    out.push('\n');
    for (label, text) in summary_lines(report) {
        let text = if label == "Gaps" || label == "Unpriced" { style.warn(&text) } else { text };
        out.push_str(&format!("{label:<10}{text}\n"));
    }
    push_silent(report, style, &mut out);
    for grouping in &report.groupings {
        out.push('\n');
        out.push_str(&group_table(grouping, report.previous.is_some()).render(style));
    }
    push_gaps(report, now, style, &mut out);
    out
}

/// So many kinds are named; all are in `--json`.
const SILENT: usize = 5;

/// Whose usage was not told, and what to do about it.
fn push_silent(report: &Report, style: Style, out: &mut String) {
    if report.silent.is_empty() {
        return;
    }
    out.push_str("\nUsage that was not told counts as nothing: no tokens, no cost, no estimate.\n");
    for kind in report.silent.iter().take(SILENT) {
        let what = named(kind);
        let stream = if kind.stream { " stream" } else { "" };
        let model = kind.model.as_deref().map_or_else(String::new, |m| format!(" of {}", clean(m)));
        let line = format!(
            "{}: {}{stream}{model}: {}",
            counted(kind.requests, "request"),
            clean(&what),
            kind.remedy
        );
        out.push_str(&format!("  {}\n", style.warn(&line)));
    }
}

/// Most surfaces are named for whose shape it is, which many others speak.
fn named(kind: &Silent) -> String {
    match kind.surface.as_deref() {
        Some(surface) if surface.split('.').next() != Some(&*kind.provider) => {
            format!("{surface} at {}", kind.provider)
        }
        Some(surface) => surface.to_owned(),
        None => kind.provider.clone(),
    }
}

/// What a clock that was ahead has dated: no range up to now has it.
fn ahead(report: &Report) -> Option<String> {
    let rows = report.dated_ahead;
    let are = if rows == 1 { "is" } else { "are" };
    (rows > 0).then(|| format!("{} {are} dated ahead of the clock", counted(rows, "request")))
}

fn push_gaps(report: &Report, now: &ZonedDateTime, style: Style, out: &mut String) {
    if let Some(table) = gap_table(&report.coverage, now.time_zone()) {
        out.push('\n');
        out.push_str(&table.render(style));
    }
}

fn heading(report: &Report, now: &ZonedDateTime, style: Style) -> String {
    let show = |at| local(at, now.time_zone(), "%Y-%m-%d %H:%M");
    let whose = report
        .project
        .as_deref()
        .map_or_else(|| "all projects".to_owned(), |p| format!("project {}", clean(p)));
    let range = format!("{} to {}", show(report.window.from), show(report.window.to));
    format!("{} · {range} · {whose}\n", style.bold("Halton Meter report"))
}

fn summary_lines(report: &Report) -> Vec<(&'static str, String)> {
    let t = &report.summary;
    let mut lines = Vec::new();
    let mut requests = count(t.requests);
    let notes: Vec<String> =
        [(t.errors, "failed"), (t.incomplete, "incomplete"), (t.open, "still running")]
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{} {what}", count(*n)))
            .collect();
    if !notes.is_empty() {
        requests.push_str(&format!(" ({})", notes.join(", ")));
    }
    lines.push(("Requests", requests));
    lines.push(("Tokens", long_tokens(&t.tokens)));
    let mut cost = match t.cost_nanousd {
        Some(cost) => money(cost),
        None if t.unpriced > 0 => "unpriced".to_owned(),
        None => "–".to_owned(),
    };
    if t.estimated > 0 {
        cost.push_str(&format!(" ({} estimated)", counted(t.estimated, "request")));
    }
    if let Some(previous) = &report.previous {
        cost.push_str(&format!(" · {}", versus(t, &previous.summary)));
    }
    lines.push(("Cost", cost));
    if let Some(sub) = t.subscription_nanousd {
        let text = format!("{} at list prices, not part of the cost", money(sub));
        lines.push(("Covered", format!("{text} (subscription)")));
    }
    if let Some(requests) = report.unverified {
        let text = "unverified: the format of its tokens is not published";
        lines.push(("Cursor", format!("{}, {text}", counted(requests, "request"))));
    }
    if t.unpriced > 0 {
        let text = format!("{}: {}", counted(t.unpriced, "request"), unpriced_models(t));
        lines.push(("Unpriced", text));
    }
    lines.push((
        "Latency",
        format!(
            "p50 {} · p95 {} · first byte p50 {}",
            millis_or_dash(t.latency_ms.p50),
            millis_or_dash(t.latency_ms.p95),
            millis_or_dash(t.ttfb_ms.p50),
        ),
    ));
    let mut gaps = gaps(&report.coverage);
    gaps.extend(ahead(report));
    if t.without_usage > 0 {
        gaps.push(format!("{} whose usage was not told", counted(t.without_usage, "request")));
    }
    if gaps.is_empty() {
        lines.push(("Coverage", "everything was metered".to_owned()));
    } else {
        lines.push(("Gaps", gaps.join(" · ")));
    }
    lines
}

/// `1,234 in (800 from cache, 12 to cache) · 56 out (10 reasoning)`.
fn long_tokens(tokens: &Tokens) -> String {
    let with = |total: Option<u64>, what: &str, parts: &[(Option<u64>, &str)]| {
        let parts: Vec<String> = parts
            .iter()
            .filter_map(|(n, name)| n.filter(|n| *n > 0).map(|n| format!("{} {name}", count(n))))
            .collect();
        let total = count_or_dash(total);
        if parts.is_empty() {
            format!("{total} {what}")
        } else {
            format!("{total} {what} ({})", parts.join(", "))
        }
    };
    let input = with(
        all_input(tokens),
        "in",
        &[(tokens.cache_read, "from cache"), (cache_writes(tokens), "to cache")],
    );
    format!("{input} · {}", with(tokens.output, "out", &[(tokens.reasoning, "reasoning")]))
}

fn cache_writes(tokens: &Tokens) -> Option<u64> {
    [tokens.cache_write_5m, tokens.cache_write_1h, tokens.cache_write_other]
        .into_iter()
        .flatten()
        .reduce(u64::saturating_add)
}

/// `$1.20 before, +25%`.
fn versus(now: &Totals, before: &Totals) -> String {
    let Some(old) = before.cost_nanousd else { return "nothing before".to_owned() };
    match change_of(now, old) {
        Some(change) => format!("{} before, {change}", money(old)),
        None => format!("{} before", money(old)),
    }
}

/// `None`: what there is now has no price.
fn change_of(now: &Totals, before: i64) -> Option<String> {
    change(now.cost_nanousd.or((now.unknown() == 0).then_some(0))?, before)
}

/// In per cent, rounded towards zero; `None`: there is nothing to compare with.
fn change(now: i64, before: i64) -> Option<String> {
    let percent = (i128::from(now) - i128::from(before)) * 100;
    let percent = percent.checked_div(i128::from(before))?;
    Some(match percent {
        1000.. => format!("×{}", count(u64::try_from(now / before).unwrap_or(0))),
        _ => format!("{percent:+}%"),
    })
}

fn group_table(grouping: &Grouping, versus: bool) -> Table {
    let mut columns = vec![
        Column::text(title(grouping.by), 0),
        Column::number("REQUESTS", 1),
        Column::number("FAILED", 5),
        Column::number("INPUT", 2),
        Column::number("FROM CACHE", 3),
        Column::number("TO CACHE", 4),
        Column::number("OUTPUT", 2),
        Column::number("REASONING", 6),
        Column::number("COST", 0),
        Column::number("COVERED", 3),
        Column::number("P50", 7),
        Column::number("P95", 7),
    ];
    if versus {
        columns.push(Column::number("BEFORE", 1));
        columns.push(Column::number("CHANGE", 1));
    }
    let mut table = Table::new(&columns);
    for group in &grouping.groups {
        let t = &group.totals;
        let mut cells = vec![
            group.key.as_deref().map_or_else(|| nobody(grouping.by).to_owned(), clean),
            count(t.requests),
            if t.errors == 0 { String::new() } else { count(t.errors) },
            count_or_dash(all_input(&t.tokens)),
            count_or_dash(t.tokens.cache_read),
            count_or_dash(cache_writes(&t.tokens)),
            count_or_dash(t.tokens.output),
            count_or_dash(t.tokens.reasoning),
            // What was not told is a line and a table of its own.
            cost_cell(t, t.unpriced),
            t.subscription_nanousd.map(money).unwrap_or_default(),
            t.latency_ms.p50.map(millis).unwrap_or_default(),
            t.latency_ms.p95.map(millis).unwrap_or_default(),
        ];
        if versus {
            let before = group.previous.as_ref().and_then(|p| p.cost_nanousd);
            let change = before.and_then(|old| change_of(t, old));
            cells.push(before.map_or_else(|| "–".to_owned(), money));
            cells.push(change.unwrap_or_else(|| "–".to_owned()));
        }
        table.row(cells);
    }
    table
}

pub(super) fn cost_cell(t: &Totals, unpriced: u64) -> String {
    priced(t.cost_nanousd, unpriced)
}

/// `$1.20`, `$1.20 + unpriced`, `unpriced`.
pub(super) fn priced(cost_nanousd: Option<i64>, unpriced: u64) -> String {
    match (cost_nanousd, unpriced) {
        (Some(cost), 0) => money(cost),
        (Some(cost), _) => format!("{} + unpriced", money(cost)),
        (None, 0) => "–".to_owned(),
        (None, _) => "unpriced".to_owned(),
    }
}

const fn title(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Project => "PROJECT",
        GroupBy::Model => "MODEL",
        GroupBy::Provider => "PROVIDER",
        GroupBy::Client => "CLIENT",
        GroupBy::Session => "SESSION",
        GroupBy::Agent => "AGENT",
        GroupBy::Day => "DAY",
    }
}

/// Rows without a key.
const fn nobody(by: GroupBy) -> &'static str {
    match by {
        GroupBy::Agent => "(main)",
        GroupBy::Project
        | GroupBy::Model
        | GroupBy::Provider
        | GroupBy::Client
        | GroupBy::Session
        | GroupBy::Day => "(unknown)",
    }
}

/// One record for the sum and one per group; the money is in dollars, exact.
fn csv(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut header: Vec<String> = [
        "level",
        "key",
        "requests",
        "errors",
        "incomplete",
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "cache_write_other_tokens",
        "output_tokens",
        "reasoning_tokens",
        "cost_usd",
        "subscription_usd",
        "estimated",
        "unpriced",
        "without_usage",
        "latency_p50_ms",
        "latency_p95_ms",
        "ttfb_p50_ms",
    ]
    .map(str::to_owned)
    .to_vec();
    if report.previous.is_some() {
        header.push("previous_requests".to_owned());
        header.push("previous_cost_usd".to_owned());
    }
    write_csv(out, &header)?;
    let previous = report.previous.as_ref().map(|p| &p.summary);
    write_csv(out, &csv_record("summary", None, &report.summary, previous))?;
    for grouping in &report.groupings {
        let level = title(grouping.by).to_lowercase();
        for Group { key, totals, previous } in &grouping.groups {
            write_csv(out, &csv_record(&level, key.as_deref(), totals, previous.as_ref()))?;
        }
    }
    Ok(())
}

fn csv_record(
    level: &str,
    key: Option<&str>,
    t: &Totals,
    previous: Option<&Totals>,
) -> Vec<String> {
    let mut fields = vec![
        level.to_owned(),
        csv_text(key.unwrap_or_default()),
        t.requests.to_string(),
        t.errors.to_string(),
        t.incomplete.to_string(),
        csv_count(t.tokens.input),
        csv_count(t.tokens.cache_read),
        csv_count(t.tokens.cache_write_5m),
        csv_count(t.tokens.cache_write_1h),
        csv_count(t.tokens.cache_write_other),
        csv_count(t.tokens.output),
        csv_count(t.tokens.reasoning),
        csv_usd(t.cost_nanousd),
        csv_usd(t.subscription_nanousd),
        t.estimated.to_string(),
        t.unpriced.to_string(),
        t.without_usage.to_string(),
        csv_count(t.latency_ms.p50),
        csv_count(t.latency_ms.p95),
        csv_count(t.ttfb_ms.p50),
    ];
    if let Some(previous) = previous {
        fields.push(previous.requests.to_string());
        fields.push(csv_usd(previous.cost_nanousd));
    }
    fields
}

#[cfg(test)]
mod tests;
