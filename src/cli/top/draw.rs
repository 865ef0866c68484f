//! A frame as lines of text: pure.

use jiff::{Timestamp, ZonedDateTime};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::super::output::{
    Column, Style, Table, all_input, clean, count, count_or_dash, counted, millis,
};
use super::super::status::State;
use super::super::summary::gaps;
use super::super::{budget, output, quota, requests};
use super::frame::Frame;
use crate::meter::ledger::{Group, GroupBy, Totals};

/// Groups shown of each kind, and requests that run.
const GROUPS: usize = 5;
const RUNNING: usize = 8;
/// Finished requests, where there is no screen to fill.
const LAST: usize = 10;

/// `height`: of the screen, which is filled and never scrolled.
pub fn lines(
    frame: &Frame,
    now: &ZonedDateTime,
    style: Style,
    height: Option<usize>,
) -> Vec<String> {
    let mut out = head(frame, now, style);
    let mut section = |table: Table| {
        out.push(String::new());
        out.extend(table.render(style).lines().map(str::to_owned));
    };
    if !frame.running.is_empty() {
        section(running(frame, now.timestamp()));
    }
    for grouping in frame.groupings.iter().filter(|grouping| !grouping.groups.is_empty()) {
        let title = match grouping.by {
            GroupBy::Project => "PROJECT TODAY",
            GroupBy::Model => "MODEL TODAY",
            GroupBy::Client => "CLIENT TODAY",
            GroupBy::Provider | GroupBy::Session | GroupBy::Agent | GroupBy::Day => "TODAY",
        };
        section(groups(title, &grouping.groups));
    }
    if !frame.last.is_empty() {
        out.push(String::new());
        out.push(style.bold("LAST"));
    }
    let room = height.map_or(LAST, |height| height.saturating_sub(out.len() + 1));
    for row in frame.last.iter().take(room) {
        let at = row.row.ended_at.unwrap_or(row.row.started_at);
        let line = format!("{}  {}", clock(at, now), requests::line(&row.row));
        out.push(fit(&line, style));
    }
    if let Some(height) = height {
        out.truncate(height.saturating_sub(1));
        out.push(style.dim("q ends"));
    }
    out
}

fn head(frame: &Frame, now: &ZonedDateTime, style: Style) -> Vec<String> {
    let mut parts = vec![frame.state.name().to_uppercase()];
    parts.extend(frame.reasons.iter().map(|reason| clean(reason)));
    if let Some(open) = frame.open_connections {
        let metered = frame.metered_connections.map(|n| format!(" ({} metered)", count(n)));
        parts.push(format!("{} open{}", counted(open, "connection"), metered.unwrap_or_default()));
    }
    parts.push(clock(frame.at, now));
    let line = fit(&format!("Halton Meter · {}", parts.join(" · ")), style);
    let mut out = vec![match frame.state {
        State::Metering => style.bold(&line),
        State::Stopped | State::Passing | State::Down => style.warn(&line),
    }];
    if frame.state == State::Down {
        out.push(
            "no edge answers: these are the ledger's figures; `halton-meter status` says more"
                .into(),
        );
    }
    let gaps = gaps(&frame.coverage);
    let coverage = if gaps.is_empty() { "all metered".to_owned() } else { gaps.join(" · ") };
    let today = format!("today        {} · {coverage}", totals(&frame.today));
    let today = fit(&today, style);
    out.push(if gaps.is_empty() { today } else { style.warn(&today) });
    let minute = &frame.last_minute;
    let minute = format!(
        "last minute  {} · {} out, {} tokens/s · {}",
        counted(minute.requests, "request"),
        count(minute.output_tokens),
        count(minute.output_tokens_per_second),
        output::spent(minute.cost_nanousd, minute.subscription_nanousd, minute.unpriced),
    );
    out.push(fit(&minute, style));
    for line in quota::lines(&frame.quotas, now.timestamp()) {
        out.push(fit(&format!("quota        {line}"), style));
    }
    for standing in &frame.budgets {
        let line = fit(&budget::line(standing), style);
        out.push(if standing.passed().is_some() { style.warn(&line) } else { line });
    }
    out
}

fn totals(totals: &Totals) -> String {
    let mut parts = vec![spent(totals), counted(totals.requests, "request")];
    if totals.errors > 0 {
        parts.push(format!("{} failed", count(totals.errors)));
    }
    parts.push(format!(
        "{} in, {} out",
        count_or_dash(all_input(&totals.tokens)),
        count_or_dash(totals.tokens.output)
    ));
    parts.join(" · ")
}

fn spent(totals: &Totals) -> String {
    output::spent(totals.cost_nanousd, totals.subscription_nanousd, totals.unknown())
}

fn running(frame: &Frame, now: Timestamp) -> Table {
    let mut table = Table::new(&[
        Column::text("RUNNING", 0),
        Column::text("PROJECT", 1),
        Column::text("CLIENT", 2),
        Column::number("FOR", 0),
        Column::number("OUTPUT", 3),
    ]);
    for row in frame.running.iter().take(RUNNING).map(|public| &public.row) {
        let age = u64::try_from(now.duration_since(row.started_at).as_millis()).unwrap_or(0);
        table.row(vec![
            requests::model(row),
            row.project.as_deref().map(clean).unwrap_or_default(),
            row.client.as_deref().map(clean).unwrap_or_default(),
            millis(age),
            row.tokens.output.map(count).unwrap_or_default(),
        ]);
    }
    if let Some(more) = frame.running.len().checked_sub(RUNNING).filter(|more| *more > 0) {
        let blank = String::new;
        table.row(vec![format!("({more} more)"), blank(), blank(), blank(), blank()]);
    }
    table
}

fn groups(title: &'static str, groups: &[Group]) -> Table {
    let mut table = Table::new(&[
        Column::text(title, 0),
        Column::number("REQUESTS", 1),
        Column::number("INPUT", 2),
        Column::number("OUTPUT", 3),
        Column::number("COST", 0),
    ]);
    for group in groups.iter().take(GROUPS) {
        table.row(vec![
            group.key.as_deref().map_or_else(|| "(unknown)".to_owned(), clean),
            count(group.totals.requests),
            count_or_dash(all_input(&group.totals.tokens)),
            count_or_dash(group.totals.tokens.output),
            spent(&group.totals),
        ]);
    }
    table
}

fn clock(at: Timestamp, now: &ZonedDateTime) -> String {
    output::local(at, now.time_zone(), "%H:%M:%S")
}

/// No longer than the terminal is wide.
fn fit(line: &str, style: Style) -> String {
    let width = style.width.map_or(usize::MAX, usize::from);
    if line.width() <= width {
        return line.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let fits = |c: &char| {
        let left = room.checked_sub(c.width().unwrap_or(0));
        room = left.unwrap_or(0);
        left.is_some()
    };
    line.chars().take_while(fits).chain(['…']).collect()
}

#[cfg(test)]
mod tests;
