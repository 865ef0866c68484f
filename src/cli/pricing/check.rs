//! `halton-meter pricing check`: the list against what was used, what was billed, and its sources.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use jiff::civil::Date;
use jiff::{Span, ZonedDateTime};
use serde::Serialize;

use crate::cli::output::{clean, count, counted, money, write_json};
use crate::cli::range::RangeArgs;
use crate::home::Home;
use crate::meter::ledger::{GroupBy, Ledger, ReportQuery, Totals};
use crate::meter::price::{Book, Comparison, Difference, read_own};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  halton-meter pricing check
  halton-meter pricing check --since 7d --verbose

Exit 1 when something that was used has no price, or the sources differ and nobody knows why.
Rates are in dollars per million tokens.")]
pub struct CheckArgs {
    /// How far back the ledger is looked at
    #[arg(long, value_name = "WHEN", default_value = "30d")]
    since: String,
    /// Every difference between the sources, also those that are explained
    #[arg(long)]
    verbose: bool,
    /// One JSON document (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// What `pricing check` found.
#[derive(Serialize)]
struct Checked {
    book: String,
    age_days: i64,
    /// The last day of which the list knows whether it is a holiday, where a price depends on it.
    holidays_until: Option<Date>,
    own_prices: usize,
    unpriced: Vec<Unpriced>,
    /// The provider's own figures against the list.
    reported: Vec<Compared>,
    /// The list's sources against each other, and the list against them.
    sources: Comparison,
}

#[derive(Serialize)]
struct Unpriced {
    model: Option<String>,
    requests: u64,
    /// Its tiers and speeds that have no price, where it has one itself.
    tiers: Vec<String>,
}

#[derive(Serialize)]
struct Compared {
    provider: String,
    requests: u64,
    charged_nanousd: i64,
    list_nanousd: i64,
}

/// A list older than this is said to be.
const OLD_DAYS: i64 = 60;
/// A calendar that ends in less than this is said to.
const SOON_DAYS: i64 = 45;

pub(super) fn check(
    args: &CheckArgs,
    home: &Home,
    now: &ZonedDateTime,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let checked = look(&args.since, home, now)?;
    if args.json {
        write_json(out, &checked)?;
    } else {
        tell(&checked, args, now.date(), out)?;
    }
    Ok(checked.is_sound())
}

impl Checked {
    fn is_sound(&self) -> bool {
        self.unpriced.is_empty() && self.sources.is_sound()
    }
}

fn look(since: &str, home: &Home, now: &ZonedDateTime) -> anyhow::Result<Checked> {
    let own = read_own(&home.prices_file())?;
    let book = Book::builtin();
    let window = RangeArgs::default().window(since, now)?;
    let ledger = Ledger::open(home)?;
    let query = ReportQuery {
        window,
        by: vec![GroupBy::Model],
        project: None,
        zone: now.time_zone().clone(),
        vs_previous: false,
    };
    let totals: Totals = ledger.report(&query)?.summary;
    let reported = ledger.reported_against_list(window)?;
    let mut tiers = ledger.tiers_without_price(window)?;
    let day: Date = book.date().parse()?;
    Ok(Checked {
        book: book.date().to_owned(),
        age_days: i64::from(now.date().since(day)?.get_days()),
        holidays_until: book.holidays_until(),
        own_prices: own.len(),
        unpriced: totals
            .unpriced_models
            .into_iter()
            .map(|m| Unpriced {
                tiers: tiers.remove(&m.model).unwrap_or_default(),
                model: m.model,
                requests: m.requests,
            })
            .collect(),
        reported: reported
            .into_iter()
            .map(|(provider, requests, charged_nanousd, list_nanousd)| Compared {
                provider,
                requests,
                charged_nanousd,
                list_nanousd,
            })
            .collect(),
        sources: Comparison::builtin(&book)?,
    })
}

fn tell(
    checked: &Checked,
    args: &CheckArgs,
    today: Date,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let old = if checked.age_days > OLD_DAYS {
        ": old, `halton-meter upgrade` may know newer"
    } else {
        ""
    };
    writeln!(out, "list      of {}, {} days old{old}", checked.book, checked.age_days)?;
    let soon = today.saturating_add(Span::new().days(SOON_DAYS));
    if let Some(until) = checked.holidays_until.filter(|until| *until < soon) {
        writeln!(out, "holidays  known until {until}: after it, peak prices are estimates")?;
    }
    writeln!(out, "own       {}", counted(checked.own_prices as u64, "price"))?;
    for missing in &checked.unpriced {
        let requests = counted(missing.requests, "request");
        match missing.model.as_deref().map(clean) {
            Some(model) => {
                let tiers = clean(&missing.tiers.join("|"));
                let tier = if tiers.is_empty() { tiers } else { format!(" --tier {tiers}") };
                writeln!(
                    out,
                    "unpriced  {model}: {requests}; `halton-meter pricing set PROVIDER/{model}{tier} --input …`"
                )?;
            }
            // No price is for a model without a name.
            None => writeln!(
                out,
                "unpriced  (unknown): {requests} that named no model; `halton-meter requests` shows them"
            )?,
        }
    }
    for compared in &checked.reported {
        writeln!(
            out,
            "billed    {}: {} by its own figures, {} by the list, {}",
            compared.provider,
            money(compared.charged_nanousd),
            money(compared.list_nanousd),
            counted(compared.requests, "request"),
        )?;
    }
    tell_sources(&checked.sources, args.verbose, out)?;
    if checked.is_sound() {
        writeln!(out, "ok: everything that was used since {} has a price", args.since)?;
    }
    Ok(())
}

/// The reasons why rates differ, if wanted with the rates; what nobody explains last, where it is seen.
fn tell_sources(compared: &Comparison, verbose: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let names: Vec<&str> = compared.providers.iter().map(String::as_str).collect();
    writeln!(
        out,
        "sources   {}: {} rates of {} on {}, {} disputed",
        compared.sources.join(", "),
        count(compared.rates as u64),
        names.join(", "),
        compared.day,
        count(compared.differences.len() as u64),
    )?;
    let mut by_reason: BTreeMap<&str, Vec<&Difference>> = BTreeMap::new();
    for difference in &compared.differences {
        if let Some(reason) = &difference.explanation {
            by_reason.entry(reason).or_default().push(difference);
        }
    }
    for (reason, differences) in by_reason {
        writeln!(out, "explained {}: {reason}", counted(differences.len() as u64, "rate"))?;
        for difference in differences.into_iter().filter(|_| verbose) {
            writeln!(out, "          {}", line(difference))?;
        }
    }
    if !verbose && compared.differences.iter().any(|d| d.explanation.is_some()) {
        writeln!(out, "          each of them: --verbose")?;
    }
    for difference in compared.unexplained() {
        writeln!(out, "disputed  {}", line(difference))?;
    }
    for pattern in &compared.stale_explanations {
        writeln!(out, "stale     nothing differs at {pattern} any more")?;
    }
    Ok(())
}

fn line(difference: &Difference) -> String {
    let says: Vec<String> =
        difference.says.iter().map(|(source, rate)| format!("{source} {rate}")).collect();
    let list = difference.list.as_deref().unwrap_or("nothing");
    format!("{}: list {list}, {}", difference.place(), says.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found, and words that are said of it, or not.
    type Case<'a> = (&'a dyn Fn(&mut Checked), &'a str, bool);

    fn told(change: impl FnOnce(&mut Checked)) -> String {
        let book = Book::builtin();
        let mut checked = Checked {
            book: "2026-11-01".to_owned(),
            age_days: OLD_DAYS,
            holidays_until: None,
            own_prices: 1,
            unpriced: Vec::new(),
            reported: Vec::new(),
            sources: Comparison::builtin(&book).unwrap(),
        };
        change(&mut checked);
        let args = CheckArgs { since: "7d".to_owned(), verbose: false, json: false };
        let mut out = Vec::new();
        tell(&checked, &args, "2026-12-31".parse().unwrap(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_wants_a_hand_is_told_with_the_command_for_it() {
        let unpriced = |model: Option<&str>, tiers: &[&str]| Unpriced {
            model: model.map(str::to_owned),
            requests: 2,
            tiers: tiers.iter().map(|tier| (*tier).to_owned()).collect(),
        };
        let until = |day: &str| Some(day.parse().unwrap());
        let cases: [Case<'_>; 8] = [
            (&|_| {}, "ok: everything that was used since 7d", true),
            (&|c| c.age_days = OLD_DAYS, "`halton-meter upgrade` may know newer", false),
            (&|c| c.age_days = OLD_DAYS + 1, "`halton-meter upgrade` may know newer", true),
            (&|c| c.holidays_until = until("2027-03-01"), "holidays  known until", false),
            (&|c| c.holidays_until = until("2027-01-01"), "holidays  known until 2027-01-01", true),
            (&|c| c.unpriced.push(unpriced(None, &[])), "2 requests that named no model", true),
            (
                &|c| c.unpriced.push(unpriced(Some("m"), &["flex", "fast"])),
                "pricing set PROVIDER/m --tier flex|fast --input",
                true,
            ),
            (&|c| c.unpriced.push(unpriced(Some("m"), &[])), "ok: everything", false),
        ];
        for (change, words, there) in cases {
            let told = told(change);
            assert_eq!(told.contains(words), there, "{words}: {told}");
        }
    }
}
