//! `halton-meter recompute-costs`: what is in the ledger, by the prices of now.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use jiff::ZonedDateTime;
use serde::Serialize;

use super::output::{
    Column, Style, Table, clean, count, counted, finish, money_or_dash, write_json,
};
use super::range::RangeArgs;
use super::{Context, Exit, Failure};
use crate::home::Home;
use crate::meter::ledger::{Progress, Repriced, reprice};
use crate::meter::row::Billing;

/// Price the requests in the ledger again, by the list and your own prices
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  halton-meter recompute-costs --dry-run
  halton-meter recompute-costs --since 2026-11-01")]
pub struct RecomputeArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

pub fn run(ctx: &Context, args: &RecomputeArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let style = Style::detect(ctx.color);
    finish(recompute(args, &ctx.home, style, &ZonedDateTime::now(), out))
}

/// How far it is, for who watches: a large ledger takes minutes.
struct Line {
    watched: bool,
    shown: bool,
    next: Instant,
}

impl Line {
    const EVERY: Duration = Duration::from_secs(2);

    fn new() -> Self {
        let watched = std::io::stderr().is_terminal();
        Self { watched, shown: false, next: Instant::now() + Self::EVERY }
    }

    fn show(&mut self, rows: u64) {
        let now = Instant::now();
        if self.watched && now >= self.next {
            (self.shown, self.next) = (true, now + Self::EVERY);
            let _ = write!(std::io::stderr(), "\r{} looked at ...", counted(rows, "request"));
        }
    }

    fn clear(&self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[derive(Default, Serialize)]
struct Change {
    requests: u64,
    /// Here and below: of those that have a price; `None`: none has one.
    before_nanousd: Option<i64>,
    after_nanousd: Option<i64>,
    /// What a plan covers; nothing of it is in the other two.
    before_covered_nanousd: Option<i64>,
    after_covered_nanousd: Option<i64>,
    /// Had no price, or have none any more.
    newly_priced: u64,
    newly_unpriced: u64,
}

#[derive(Serialize)]
struct Outcome {
    dry_run: bool,
    looked_at: u64,
    changed: u64,
    /// Ran on several models, of which an earlier version kept only the sum.
    kept: u64,
    models: BTreeMap<String, Change>,
}

fn recompute(
    args: &RecomputeArgs,
    home: &Home,
    style: Style,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let book = super::pricing::book(home)?;
    let window = args.range.window("99999d", now)?;
    let mut models: BTreeMap<String, Change> = BTreeMap::new();
    let mut line = Line::new();
    let done = reprice(home, &book, window, args.dry_run, &mut |progress| match progress {
        Progress::LookedAt(rows) => line.show(rows),
        Progress::Changes(row) => note(&mut models, row),
    });
    line.clear();
    let done = done?;
    let outcome = Outcome {
        dry_run: args.dry_run,
        looked_at: done.looked_at,
        changed: done.changed,
        kept: done.kept,
        models,
    };
    if args.json {
        return write_json(out, &outcome);
    }
    if !outcome.models.is_empty() {
        let mut table = Table::new(&[
            Column::text("MODEL", 0),
            Column::number("REQUESTS", 1),
            Column::number("BEFORE", 0),
            Column::number("AFTER", 0),
            Column::text("COVERED", 2),
            Column::number("NEWLY PRICED", 2),
            Column::number("UNPRICED", 2),
        ]);
        for (model, change) in &outcome.models {
            table.row(vec![
                if model.is_empty() { "(unknown)".to_owned() } else { clean(model) },
                count(change.requests),
                money_or_dash(change.before_nanousd),
                money_or_dash(change.after_nanousd),
                covered(change),
                count(change.newly_priced),
                count(change.newly_unpriced),
            ]);
        }
        out.write_all(table.render(style).as_bytes())?;
    }
    let verb = if args.dry_run { "would change" } else { "changed" };
    let looked_at = counted(outcome.looked_at, "request");
    writeln!(out, "{} of {looked_at} {verb}.", count(outcome.changed))?;
    if outcome.kept > 0 {
        let kept = counted(outcome.kept, "request");
        writeln!(out, "{kept} kept: several models worked on each, and only the sum was written.")?;
    }
    Ok(())
}

fn covered(change: &Change) -> String {
    let (before, after) = (change.before_covered_nanousd, change.after_covered_nanousd);
    if (before, after) == (None, None) {
        return String::new();
    }
    format!("{} → {}", money_or_dash(before), money_or_dash(after))
}

fn note(models: &mut BTreeMap<String, Change>, row: &Repriced) {
    let (before, after) = (row.before.cost_nanousd, row.after.cost_nanousd);
    let model = row.after.model.as_ref().or(row.after.model_requested.as_ref());
    let change = models.entry(model.cloned().unwrap_or_default()).or_default();
    change.requests += 1;
    let (was, is) = match row.after.billing {
        Billing::Metered => (&mut change.before_nanousd, &mut change.after_nanousd),
        Billing::Subscription => {
            (&mut change.before_covered_nanousd, &mut change.after_covered_nanousd)
        }
    };
    for (sum, cost) in [(was, before), (is, after)] {
        *sum = cost.map(|cost| sum.unwrap_or(0).saturating_add(cost)).or(*sum);
    }
    change.newly_priced += u64::from(before.is_none() && after.is_some());
    change.newly_unpriced += u64::from(before.is_some() && after.is_none());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::row::Row;

    #[test]
    fn what_has_no_price_is_not_told_as_nothing() {
        let (_dir, home) = home();
        let of = |n, model: Option<&str>, cost| Row {
            provider: "openai".to_owned(),
            model: model.map(str::to_owned),
            model_requested: None,
            cost_nanousd: cost,
            ..row(n, "2026-11-24T00:00:00Z")
        };
        store(
            &home,
            &[of(1, None, Some(1_000_000_000)), of(2, Some("gpt-unheard-of"), Some(3_000_000_000))],
        );
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let said = |json| {
            let args = RecomputeArgs { range: RangeArgs::default(), dry_run: true, json };
            let mut out = Vec::new();
            recompute(&args, &home, Style::default(), &now, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let text = said(false);
        assert!(text.contains("(unknown)") && !text.contains("$0.00"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&said(true)).unwrap();
        let one = &json["models"]["gpt-unheard-of"];
        assert_eq!(
            (&one["before_nanousd"], &one["after_nanousd"]),
            (&3_000_000_000_u64.into(), &serde_json::Value::Null)
        );
    }

    #[test]
    fn the_outcome_is_told_by_model() {
        let (_dir, home) = home();
        let rows: Vec<Row> = (1..=3)
            .map(|n| Row {
                provider: "openai".to_owned(),
                model: Some("gpt-4o-mini".to_owned()),
                cost_nanousd: if n == 3 { None } else { Some(1_000_000_000) },
                billing: if n == 2 { Billing::Subscription } else { Billing::Metered },
                ..row(n, "2026-11-24T00:00:00Z")
            })
            .collect();
        store(&home, &rows);
        let now = "2026-11-25T12:00:00+00:00[UTC]".parse().unwrap();
        let said = |dry_run| {
            let args = RecomputeArgs { range: RangeArgs::default(), dry_run, json: false };
            let mut out = Vec::new();
            recompute(&args, &home, Style::default(), &now, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let dry = said(true);
        assert!(dry.contains("gpt-4o-mini") && !dry.contains("$2.00"), "{dry}");
        assert_eq!(dry.matches("$1.00").count(), 2, "paid and covered, apart: {dry}");
        assert!(dry.ends_with("3 of 3 requests would change.\n"), "{dry}");
        assert!(said(false).ends_with("3 of 3 requests changed.\n"));
        assert_eq!(said(false), "0 of 3 requests changed.\n");
    }
}
