//! Totals in words: the line at the end of `run`, and what every report says of gaps.

use std::cmp::Reverse;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::output::{Column, Table, all_input, clean, count, count_or_dash, counted, local, money};
use crate::home::Home;
use crate::meter::ledger::{Coverage, Gap, Ledger, Totals, Window};
use crate::meter::usage::Tokens;

/// The line of one `run`, read from the ledger. `started` bounds what counts as passed through
/// meanwhile, of any program: what was not read can't be told apart.
/// `idle`: nothing came by the proxy since then, as far as can be told; asked if there were no requests.
pub fn summary_of_run(
    home: &Home,
    run: &str,
    started: Timestamp,
    idle: &mut dyn FnMut() -> bool,
) -> anyhow::Result<String> {
    let ledger = Ledger::open(home)?;
    let run = ledger.totals_for_run(run)?;
    let to = Timestamp::now().saturating_add(Span::new().seconds(1)).unwrap_or(Timestamp::MAX);
    let coverage = ledger.coverage(Window { from: started, to })?;
    let line = run_summary(&run.totals, &coverage, run.projects.first().map(String::as_str));
    let idle = run.totals.requests == 0 && idle();
    Ok(if idle { line.replacen(NONE, "nothing came by this proxy", 1) } else { line })
}

const NONE: &str = "no requests to a model";

/// How many requests of a run have not ended, as far as the ledger can tell.
pub fn open_of_run(home: &Home, run: &str) -> u64 {
    let run = Ledger::open(home).and_then(|ledger| ledger.totals_for_run(run));
    run.map_or(0, |run| run.totals.open)
}

/// `2 requests · 1,234 in (800 cached) · 56 out · $0.0123 · all metered · project my-app`
pub fn run_summary(totals: &Totals, coverage: &Coverage, project: Option<&str>) -> String {
    let mut parts = Vec::new();
    if totals.requests == 0 {
        parts.push(NONE.to_owned());
    } else {
        parts.push(counted(totals.requests, "request"));
        if totals.errors > 0 {
            parts.push(format!("{} failed", count(totals.errors)));
        }
        parts.extend(short_tokens(&totals.tokens));
        parts.extend(cost_parts(totals));
        if totals.open > 0 {
            parts.push(format!("{} still running", count(totals.open)));
        }
        if totals.incomplete > 0 {
            parts.push(format!("{} incomplete", count(totals.incomplete)));
        }
    }
    let gaps = gaps(coverage);
    if gaps.is_empty() && totals.requests > 0 {
        parts.push("all metered".to_owned());
    }
    if !gaps.is_empty() {
        parts.push(format!("meanwhile, of any program: {}", gaps.join(", ")));
    }
    if let Some(project) = project {
        parts.push(format!("project {}", clean(project)));
    }
    parts.join(" · ")
}

/// `1,234 in (800 cached) · 56 out`.
fn short_tokens(tokens: &Tokens) -> Option<String> {
    let input = all_input(tokens);
    if tokens.output.is_none() && input.is_none() {
        return None;
    }
    let mut text = format!("{} in", count_or_dash(input));
    if let Some(cached) = tokens.cache_read.filter(|n| *n > 0) {
        text.push_str(&format!(" ({} cached)", count(cached)));
    }
    if let Some(output) = tokens.output {
        text.push_str(&format!(" · {} out", count(output)));
    }
    Some(text)
}

/// Money, and every reason why it may not be all of it.
fn cost_parts(totals: &Totals) -> Vec<String> {
    let mut parts = Vec::new();
    if let Some(cost) = totals.cost_nanousd {
        parts.push(if totals.estimated > 0 {
            format!("{} ({} estimated)", money(cost), count(totals.estimated))
        } else {
            money(cost)
        });
    }
    if let Some(cost) = totals.subscription_nanousd {
        parts.push(format!("{} worth, covered by a subscription", money(cost)));
    }
    if totals.unpriced > 0 {
        parts.push(format!("{} unpriced ({})", count(totals.unpriced), unpriced_models(totals)));
    }
    if totals.without_usage > 0 {
        parts.push(format!("{} without usage", count(totals.without_usage)));
    }
    parts
}

/// Their names, the most used first.
pub fn unpriced_models(totals: &Totals) -> String {
    const NAMED: usize = 5;
    let mut names: Vec<String> = totals
        .unpriced_models
        .iter()
        .take(NAMED)
        .map(|m| m.model.as_deref().map_or_else(|| "model unknown".to_owned(), clean))
        .collect();
    if let Some(more) = totals.unpriced_models.len().checked_sub(NAMED).filter(|n| *n > 0) {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// What is missing from the figures, in words; empty when nothing is.
pub fn gaps(coverage: &Coverage) -> Vec<String> {
    let mut gaps = Vec::new();
    if coverage.passed_connections > 0 {
        let reasons: Vec<String> = coverage
            .passed_by_reason
            .iter()
            .map(|(reason, n)| format!("{} {}", clean(reason), count(*n)))
            .collect();
        gaps.push(format!(
            "{} passed through unmetered ({})",
            counted(coverage.passed_connections, "connection"),
            reasons.join(", "),
        ));
    }
    if coverage.passed_lines_lost > 0 {
        gaps.push(format!(
            "{} lost, each of the beginning or the end of an unmetered connection, as the spool could not be \
             written",
            counted(coverage.passed_lines_lost, "record")
        ));
    }
    if coverage.cut_connections > 0 {
        gaps.push(format!(
            "{} cut when the daemon died",
            counted(coverage.cut_connections, "connection")
        ));
    }
    if coverage.unfollowed_connections > 0 {
        gaps.push(format!(
            "{} lost sight of (not all that was asked there is counted)",
            counted(coverage.unfollowed_connections, "connection")
        ));
    }
    if coverage.lost_connections > 0 {
        gaps.push(format!("{} lost", counted(coverage.lost_connections, "connection")));
    }
    if coverage.lost_rows > 0 {
        gaps.push(format!("{} lost", counted(coverage.lost_rows, "metered row")));
    }
    for name in &coverage.set_aside {
        gaps.push(format!("a corrupt ledger was set aside as {}", clean(name)));
    }
    if coverage.ledgers_gone > 0 {
        gaps.push(format!(
            "{} removed, moved away or replaced (what it held is not counted)",
            counted(coverage.ledgers_gone, "ledger")
        ));
    }
    gaps
}

/// The gaps by host and reason, the widest first; `None`: there are none.
pub fn gap_table(coverage: &Coverage, zone: &TimeZone) -> Option<Table> {
    const SHOWN: usize = 10;
    if coverage.gaps.is_empty() {
        return None;
    }
    let mut gaps: Vec<&Gap> = coverage.gaps.iter().collect();
    gaps.sort_by_key(|gap| Reverse(gap.connections));
    let mut table = Table::new(&[
        Column::text("NOT METERED", 0),
        Column::number("CONNECTIONS", 1),
        Column::text("HOST", 0),
        Column::text("WHY", 2),
        Column::text("FIRST", 4),
        Column::text("LAST", 3),
    ]);
    let when = |at| local(at, zone, "%Y-%m-%d %H:%M:%S");
    for gap in gaps.iter().take(SHOWN) {
        table.row(vec![
            gap.kind.as_str().to_owned(),
            count(gap.connections),
            clean(&gap.host),
            clean(&gap.reason),
            when(gap.first_at),
            when(gap.last_at),
        ]);
    }
    if let Some(more) = gaps.get(SHOWN..).filter(|more| !more.is_empty()) {
        let connections = more.iter().map(|gap| gap.connections).sum();
        let hosts = format!("({} more)", count(more.len() as u64));
        let blank = String::new;
        table.row(vec![blank(), count(connections), hosts, blank(), blank(), blank()]);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::UnpricedModel;
    use crate::meter::ledger::fixture::{at, home, row, store};

    #[test]
    fn the_summary_of_a_run() {
        let mut totals = Totals {
            requests: 2,
            tokens: Tokens {
                input: Some(434),
                cache_read: Some(800),
                output: Some(56),
                ..Tokens::default()
            },
            cost_nanousd: Some(12_300_000),
            ..Totals::default()
        };
        let mut coverage = Coverage::default();
        assert_eq!(
            run_summary(&totals, &coverage, Some("my-app")),
            "2 requests · 1,234 in (800 cached) · 56 out · $0.0123 · all metered · \
             project my-app"
        );
        totals.unpriced = 1;
        totals.unpriced_models = vec![UnpricedModel { model: Some("new".into()), requests: 1 }];
        totals.cost_nanousd = None;
        totals.errors = 1;
        coverage.passed_connections = 1;
        coverage.passed_by_reason.insert("deadline".into(), 1);
        coverage.unfollowed_connections = 2;
        coverage.lost_rows = 3;
        coverage.passed_lines_lost = 2;
        assert_eq!(
            run_summary(&totals, &coverage, None),
            "2 requests · 1 failed · 1,234 in (800 cached) · 56 out · 1 unpriced (new) \
             · meanwhile, of any program: 1 connection passed through unmetered (deadline 1), 2 records lost, \
             each of the beginning or the end of an unmetered connection, as the spool could not be written, \
             2 connections lost sight of (not all that was asked there is counted), 3 metered rows lost"
        );
        assert_eq!(
            run_summary(&Totals::default(), &Coverage::default(), None),
            "no requests to a model"
        );
    }

    #[test]
    fn a_run_is_summed_up_from_the_ledger() {
        let (_dir, home) = home();
        let mut mine = row(1, "2026-11-24T01:00:00Z");
        mine.run = Some("r".into());
        store(&home, &[mine, row(2, "2026-11-24T01:00:00Z")]);
        let text = summary_of_run(&home, "r", at("2026-11-24T00:00:00Z"), &mut || true);
        assert_eq!(
            text.unwrap(),
            "1 request · 100 in · 50 out · $0.0123 · all metered · project my-app"
        );
        let none = |mut idle: bool| {
            summary_of_run(&home, "none", at("2026-11-24T00:00:00Z"), &mut || {
                std::mem::take(&mut idle)
            })
        };
        assert_eq!(none(true).unwrap(), "nothing came by this proxy");
        assert_eq!(none(false).unwrap(), "no requests to a model");
    }
}
