//! Budgets: what somebody means to spend. They warn; they never stand in a request's way.

use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan, ZonedDateTime};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::ledger::{Group, GroupBy, Ledger, LedgerError, ReportQuery, Totals, Window};
use super::own_file::{self, OwnError};
use super::price::Dollars;
use crate::home::Home;

mod told;
pub mod webhook;

pub use told::{Channel, Told, claim};

/// Where it warns, in per cent of the limit.
pub const THRESHOLDS: [u64; 3] = [50, 80, 100];

const NANO: u64 = 1_000_000_000;

/// An amount for a span of time, of everything or of a part.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    pub name: String,
    #[serde(deserialize_with = "checked_limit")]
    pub limit: Dollars,
    pub per: Per,
    #[serde(default, deserialize_with = "checked_part", skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(default, deserialize_with = "checked_part", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Counts what a subscription covers too, at list prices.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub covered: bool,
}

/// The calendar's spans, by the user's clock; a week begins on Monday.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    Day,
    Week,
    Month,
}

/// How a budget stands.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Standing {
    #[serde(flatten)]
    pub budget: Budget,
    #[serde(flatten)]
    pub window: Window,
    pub spent_nanousd: u64,
    /// Requests in it that have no price, or whose usage was not told: the truth is higher.
    pub unpriced: u64,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    budget: Vec<Budget>,
}

/// Nothing would be passed before anything is spent.
///
/// # Errors
/// Says what is expected.
pub fn some_amount(limit: Dollars) -> Result<Dollars, &'static str> {
    if limit.nano() > 0 { Ok(limit) } else { Err("expected more than $0: at least 0.000000001") }
}

/// A project or a model without a word in its name would be of nothing, ever.
///
/// # Errors
/// Says what is expected.
pub fn some_name(part: String) -> Result<String, &'static str> {
    if part.trim().is_empty() {
        Err("expected a name; without the option all count")
    } else {
        Ok(part)
    }
}

fn checked_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Dollars, D::Error> {
    some_amount(Dollars::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn checked_part<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let part: Option<String> = Option::deserialize(deserializer)?;
    part.map(some_name).transpose().map_err(D::Error::custom)
}

/// The budgets of a file; none when there is none.
///
/// # Errors
/// Names the file, and what is wrong in it.
pub fn read(path: &Path) -> Result<Vec<Budget>, OwnError> {
    own_file::read(path, parse)
}

pub(crate) fn parse(text: &str) -> Result<Vec<Budget>, toml::de::Error> {
    toml::from_str(text).map(|file: File| file.budget)
}

/// # Errors
/// When the file can't be written.
pub fn write(path: &Path, budgets: &[Budget]) -> Result<(), OwnError> {
    own_file::write(path, print(budgets))
}

pub(crate) fn print(budgets: &[Budget]) -> Result<String, toml::ser::Error> {
    toml::to_string(&File { budget: budgets.to_vec() })
}

/// How each budget stands now.
///
/// # Errors
/// When budgets or ledger can't be read.
pub fn standings(home: &Home, now: &ZonedDateTime) -> anyhow::Result<Vec<Standing>> {
    let budgets = read(&home.budgets_file())?;
    if budgets.is_empty() {
        return Ok(Vec::new());
    }
    let ledger = Ledger::open(home)?;
    Ok(budgets.iter().map(|b| b.standing(&ledger, now)).collect::<Result<_, _>>()?)
}

impl Per {
    /// The span that `now` is in.
    #[must_use]
    pub fn window(self, now: &ZonedDateTime) -> Window {
        let today = now.date();
        let (first, next) = match self {
            Self::Day => (today, today.saturating_add(1.day())),
            Self::Week => {
                let since = i64::from(today.weekday().to_monday_zero_offset());
                let monday = today.saturating_sub(since.days());
                (monday, monday.saturating_add(7.days()))
            }
            Self::Month => {
                let first = today.first_of_month();
                (first, first.saturating_add(1.month()))
            }
        };
        let midnight = |day: jiff::civil::Date| {
            day.to_zoned_datetime(now.time_zone().clone()).map(|z| z.timestamp())
        };
        Window {
            from: midnight(first).unwrap_or(Timestamp::MIN),
            to: midnight(next).unwrap_or(Timestamp::MAX),
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

impl Budget {
    /// # Errors
    /// When the ledger can't be read.
    pub fn standing(&self, ledger: &Ledger, now: &ZonedDateTime) -> Result<Standing, LedgerError> {
        let window = self.per.window(now);
        Ok(self.stands(window, &self.counted(ledger, window)?))
    }

    /// Whether the ledger has anything that counts for it, of whatever time.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn is_of_something(&self, ledger: &Ledger) -> Result<bool, LedgerError> {
        let ever = Window { from: Timestamp::UNIX_EPOCH, to: Timestamp::MAX };
        Ok(self.counted(ledger, ever)?.iter().any(|totals| totals.requests > 0))
    }

    /// The sums that make up what was spent.
    fn counted(&self, ledger: &Ledger, window: Window) -> Result<Vec<Totals>, LedgerError> {
        let query = ReportQuery {
            window,
            by: self.model.iter().map(|_| GroupBy::Model).collect(),
            project: self.project.clone(),
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        let report = ledger.report(&query)?;
        let Some(model) = &self.model else { return Ok(vec![report.summary]) };
        let groups = report.groupings.into_iter().flat_map(|grouping| grouping.groups);
        let called = |group: &Group| group.key.as_ref().is_some_and(|key| is_called(key, model));
        Ok(groups.filter(called).map(|group| group.totals).collect())
    }

    pub(crate) fn stands(&self, window: Window, counted: &[Totals]) -> Standing {
        let covered = |t: &Totals| t.subscription_nanousd.filter(|_| self.covered);
        let spent = counted
            .iter()
            .flat_map(|t| [t.cost_nanousd, covered(t)])
            .flatten()
            .fold(0, i64::saturating_add);
        Standing {
            budget: self.clone(),
            window,
            spent_nanousd: u64::try_from(spent).unwrap_or(0),
            unpriced: counted.iter().map(Totals::unknown).sum(),
        }
    }
}

/// Whether people call the model that answered so: by its own name, or without the date that providers
/// put behind it (`-20250929`, `-2025-09-29`, `@20250929`), for which `-latest` stands too.
fn is_called(model: &str, name: &str) -> bool {
    let plain = name.strip_suffix("-latest").unwrap_or(name);
    let Some(rest) = model.strip_prefix(plain) else { return false };
    let date = rest.strip_prefix(['-', '@']).unwrap_or_default();
    let dashes: Vec<usize> = date.match_indices('-').map(|(at, _)| at).collect();
    let digits = date.bytes().filter(u8::is_ascii_digit).count();
    let is_date = digits == 8 && matches!((dashes.as_slice(), date.len()), ([], 8) | ([4, 7], 10));
    rest.is_empty() || rest == "-latest" || is_date
}

impl Standing {
    /// In per cent of the limit, rounded down.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let used = u128::from(self.spent_nanousd) * 100;
        let share = used.checked_div(u128::from(self.budget.limit.nano()));
        share.map_or(100, |share| u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// The highest threshold that it has passed.
    #[must_use]
    pub fn passed(&self) -> Option<u64> {
        THRESHOLDS.into_iter().rev().find(|threshold| self.percent() >= *threshold)
    }

    /// `budget all has passed 80%: $8.40 of $10.00 this month (84%)`.
    #[must_use]
    pub fn line(&self) -> String {
        let Budget { name, limit, per, .. } = &self.budget;
        let name: String = name.chars().filter(|c| !c.is_control()).take(48).collect();
        let passed = self.passed().map(|t| format!(" has passed {t}%")).unwrap_or_default();
        let unpriced = if self.unpriced > 0 { ", and what has no price" } else { "" };
        format!(
            "budget {name}{passed}: {} of {} this {} ({}%){unpriced}",
            dollars(self.spent_nanousd),
            dollars(limit.nano()),
            per.as_str(),
            self.percent(),
        )
    }
}

/// Cents, rounded down as the per cents are; of less than a dollar three digits that count.
fn dollars(nano: u64) -> String {
    let decimals = match nano {
        0 | NANO.. => 2,
        // 999,999,999 has nine digits: three decimals.
        less => 11u32.saturating_sub(less.ilog10()).clamp(2, 9),
    };
    let mut fraction = format!("{:09}", nano % NANO);
    fraction.truncate(decimals as usize);
    while fraction.len() > 2 && fraction.ends_with('0') {
        fraction.pop();
    }
    format!("${}.{fraction}", nano / NANO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::ledger::roll_up;
    use crate::meter::row::{Billing, Completeness, Row};
    use crate::meter::usage::UsageState;

    fn now() -> ZonedDateTime {
        "2026-11-25T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    fn budget(per: Per) -> Budget {
        Budget {
            name: "b".to_owned(),
            limit: "10".parse().unwrap(),
            per,
            project: None,
            model: None,
            covered: false,
        }
    }

    #[test]
    fn spans_are_the_calendars() {
        let window = |per: Per| {
            let window = per.window(&now());
            (window.from.to_string(), window.to.to_string())
        };
        let midnight = |day: &str| format!("{day}T23:00:00Z");
        assert_eq!(window(Per::Day), (midnight("2026-11-24"), midnight("2026-11-25")));
        assert_eq!(window(Per::Week), (midnight("2026-11-22"), midnight("2026-11-29")));
        // The clocks went back in October.
        assert_eq!(window(Per::Month), (midnight("2026-10-31"), midnight("2026-11-30")));
    }

    #[test]
    fn amounts_have_the_digits_that_tell_them_apart() {
        let said = |spent_nanousd, limit: &str| {
            let budget = Budget { limit: limit.parse().unwrap(), ..budget(Per::Month) };
            let window = Per::Month.window(&now());
            Standing { budget, window, spent_nanousd, unpriced: 0 }.line()
        };
        for (spent, limit, line) in [
            (8_409_999_999, "10", "b has passed 80%: $8.40 of $10.00 this month (84%)"),
            (650_000_000, "0.004", "b has passed 100%: $0.65 of $0.004 this month (16250%)"),
            (119_900_000, "0.1", "b has passed 100%: $0.119 of $0.10 this month (119%)"),
            (0, "0.01", "b: $0.00 of $0.01 this month (0%)"),
            (123_456, "0.01", "b: $0.000123 of $0.01 this month (1%)"),
            (1, "0.000000002", "b has passed 50%: $0.000000001 of $0.000000002 this month (50%)"),
        ] {
            assert_eq!(said(spent, limit), format!("budget {line}"));
        }
    }

    #[test]
    fn what_counts_is_what_is_paid_for() {
        let (_dir, home) = home();
        let cost = |n, at: &str, dollars: i64| Row {
            cost_nanousd: Some(dollars * 1_000_000_000),
            ..row(n, at)
        };
        let untold = |n| Row {
            cost_nanousd: None,
            usage: UsageState::Absent,
            ..row(n, "2026-11-25T10:00:00Z")
        };
        let cut = Row {
            error_class: Some("client_abort".to_owned()),
            completeness: Completeness::Interrupted,
            ..untold(7)
        };
        store(
            &home,
            &[
                cost(1, "2026-11-25T08:00:00Z", 4),
                Row { project: Some("other".to_owned()), ..cost(2, "2026-11-25T09:00:00Z", 2) },
                Row { billing: Billing::Subscription, ..cost(3, "2026-11-25T09:30:00Z", 1) },
                Row { model: Some("gpt-9".to_owned()), ..cost(4, "2026-11-24T08:00:00Z", 3) },
                Row { cost_nanousd: None, ..row(5, "2026-11-25T10:00:00Z") },
                untold(6),
                cut,
                Row { status: Some(429), ..untold(8) },
            ],
        );
        let ledger = Ledger::open(&home).unwrap();
        let percent = |budget: &Budget| budget.standing(&ledger, &now()).unwrap().percent();
        let day = budget(Per::Day);
        assert_eq!(percent(&day), 60);
        assert_eq!(percent(&budget(Per::Week)), 90);
        assert_eq!(percent(&Budget { project: Some("other".to_owned()), ..day.clone() }), 20);
        assert_eq!(percent(&Budget { covered: true, ..day.clone() }), 70);
        let week = budget(Per::Week);
        assert_eq!(percent(&Budget { model: Some("gpt-9".to_owned()), ..week.clone() }), 30);
        assert_eq!(percent(&Budget { model: Some("none".to_owned()), ..week.clone() }), 0);
        let of = |model: Option<&str>, project: Option<&str>| {
            let part = |name: Option<&str>| name.map(str::to_owned);
            let budget = Budget { model: part(model), project: part(project), ..week.clone() };
            budget.is_of_something(&ledger).unwrap()
        };
        assert!(of(None, Some("other")) && of(Some("gpt-9"), Some("my-app")));
        assert!(!of(None, Some("none")) && !of(Some("gpt-9"), Some("other")));
        assert_eq!(day.standing(&ledger, &now()).unwrap().unpriced, 3);
    }

    #[test]
    fn a_model_is_called_by_its_name_without_the_date() {
        let yes = [
            ("claude-sonnet-4-5", "claude-sonnet-4-5"),
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5-20250929"),
            ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("mistral-large-latest", "mistral-large"),
            ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-latest"),
        ];
        let no = [
            ("claude-sonnet-4-5-20250929", "claude-sonnet-4"),
            ("claude-sonnet-4-20250514", "claude-sonnet-4-5"),
            ("gpt-4o-mini", "gpt-4o"),
            ("gpt-4o-mini-2024-07-18", "gpt-4o"),
            ("gpt-4o-2024-0806", "gpt-4o"),
            ("gpt-4o20240806", "gpt-4o"),
            ("gpt-4", "gpt-4o"),
        ];
        for (served, name) in yes {
            assert!(is_called(served, name), "{served} {name}");
        }
        for (served, name) in no {
            assert!(!is_called(served, name), "{served} {name}");
        }
    }

    #[test]
    fn dated_models_of_one_name_add_up_by_rows_and_by_roll_ups() {
        let (_dir, home) = home();
        let of = |n, at: &str, model: &str| Row {
            model: Some(model.to_owned()),
            cost_nanousd: Some(2_000_000_000),
            ..row(n, at)
        };
        store(
            &home,
            &[
                of(1, "2026-11-25T08:00:00Z", "claude-sonnet-4-5-20250929"),
                of(2, "2026-11-25T09:00:00Z", "claude-sonnet-4-5"),
                of(3, "2026-11-25T09:30:00Z", "claude-sonnet-4-20250514"),
            ],
        );
        let budget = Budget { model: Some("claude-sonnet-4-5".to_owned()), ..budget(Per::Day) };
        let percent = || {
            let ledger = Ledger::open(&home).unwrap();
            budget.standing(&ledger, &now()).unwrap().percent()
        };
        assert_eq!(percent(), 40);
        assert!(roll_up(&home.ledger_file(), now().timestamp()).unwrap() > 0);
        assert_eq!(percent(), 40);
    }

    #[test]
    fn a_file_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("budgets.toml");
        assert_eq!(read(&path).unwrap(), []);
        let all = [budget(Per::Month), Budget { covered: true, ..budget(Per::Day) }];
        write(&path, &all).unwrap();
        assert_eq!(read(&path).unwrap(), all);
        // A limit that is passed from the beginning, and a part that nothing is of.
        for (bad, why) in [
            ("limit = 0", "more than $0"),
            ("limit = '0.0000000001'", "more than $0"),
            ("limit = 5\nproject = ''", "a name"),
            ("limit = 5\nmodel = ' '", "a name"),
        ] {
            std::fs::write(&path, format!("[[budget]]\nname = 'a'\nper = 'day'\n{bad}\n")).unwrap();
            let said = read(&path).unwrap_err().to_string();
            let line = 3 + bad.lines().count();
            assert!(said.contains(&format!("budgets.toml:{line}: expected {why}")), "{said}");
        }
        std::fs::write(&path, "[[budget]]\nname = 1\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("budgets.toml"));
    }
}
