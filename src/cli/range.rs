//! Time ranges as people write them: `30d`, `5m`, `today`, `--from 2026-11-01 --to 2026-11-07`.

use jiff::civil::{Date, DateTime};
use jiff::{Span, Timestamp, ZonedDateTime};

use super::output::UsageError;
use crate::meter::ledger::Window;

/// `--since`, `--from`, `--to`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RangeArgs {
    /// How far back: 5m, 12h, 30d, 2w, today, yesterday, or a date
    #[arg(long, value_name = "WHEN", conflicts_with_all = ["from", "to"])]
    pub since: Option<String>,
    /// First moment: a date (its midnight), today, yesterday, or an RFC 3339 time
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Last day (all of it), or the moment it ends; default: now
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

impl RangeArgs {
    /// The range that is asked for; `default` stands for a missing `--since`.
    pub fn window(&self, default: &str, now: &ZonedDateTime) -> Result<Window, UsageError> {
        // "Up to now" includes what began this instant.
        let soon = now.timestamp().saturating_add(Span::new().seconds(1));
        let soon = soon.unwrap_or(Timestamp::MAX);
        if self.from.is_none() && self.to.is_none() {
            let since = self.since.as_deref().unwrap_or(default);
            return Ok(Window { from: begun(since, now)?, to: soon });
        }
        let to = self.to.as_deref().map_or(Ok(soon), |t| parse_end(t, now))?;
        let from = match &self.from {
            Some(text) => parse_start(text, now)?,
            None => Timestamp::UNIX_EPOCH,
        };
        if from >= to {
            return Err(UsageError(format!(
                "--from ({}) is not before --to ({})",
                self.from.as_deref().unwrap_or("the beginning"),
                self.to.as_deref().unwrap_or("now"),
            )));
        }
        Ok(Window { from, to })
    }
}

/// The moment that `--since` names, which is not to come.
pub fn begun(text: &str, now: &ZonedDateTime) -> Result<Timestamp, UsageError> {
    let from = parse_since(text, now)?;
    if from > now.timestamp() {
        return Err(UsageError(format!("--since ({text}) is not before now")));
    }
    Ok(from)
}

/// The moment that `--since` names.
fn parse_since(text: &str, now: &ZonedDateTime) -> Result<Timestamp, UsageError> {
    let text = text.trim();
    let midnight = |date: Date| {
        date.to_zoned_datetime(now.time_zone().clone())
            .map(|z| z.timestamp())
            .map_err(|_| not_understood(text))
    };
    if let Some(date) = named_day(text, now).or_else(|| compact(text)) {
        return midnight(date);
    }
    if let Some((span, unit)) = split_unit(text) {
        let span = match unit {
            "s" | "sec" => Span::new().try_seconds(span),
            "m" | "min" => Span::new().try_minutes(span),
            "h" => Span::new().try_hours(span),
            // A bare number counts days.
            "d" | "" => Span::new().try_days(span),
            "w" => Span::new().try_weeks(span),
            _ => return Err(not_understood(text)),
        };
        return span
            .and_then(|span| now.checked_sub(span))
            .map(|then| then.timestamp())
            .map_err(|_| UsageError(format!("--since {text:?} is too far back")));
    }
    parse_start(text, now).map_err(|_| not_understood(text))
}

fn not_understood(text: &str) -> UsageError {
    UsageError(format!(
        "{text:?} is not a time; write 5m, 12h, 30d, 2w, today, yesterday or a date (2026-11-01)"
    ))
}

fn named_day(text: &str, now: &ZonedDateTime) -> Option<Date> {
    match text {
        "today" => Some(now.date()),
        "yesterday" => now.date().yesterday().ok(),
        _ => None,
    }
}

/// `20261101`: nobody means so many days.
fn compact(text: &str) -> Option<Date> {
    let digits = text.len() == "20261101".len() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Date::strptime("%Y%m%d", text).ok()).flatten()
}

/// `30d` → 30 and `d`.
fn split_unit(text: &str) -> Option<(i64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let known = unit.bytes().all(|b| b.is_ascii_alphabetic());
    known.then(|| number.parse().ok().map(|n| (n, unit))).flatten()
}

/// A date means its midnight.
fn parse_start(text: &str, now: &ZonedDateTime) -> Result<Timestamp, UsageError> {
    moment(text, now, false)
}

/// A date means the end of that day.
fn parse_end(text: &str, now: &ZonedDateTime) -> Result<Timestamp, UsageError> {
    moment(text, now, true)
}

fn moment(text: &str, now: &ZonedDateTime, end: bool) -> Result<Timestamp, UsageError> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let wrong = || {
        UsageError(format!(
            "{text:?} is not a time; write a date (2026-11-01), today, yesterday or an RFC 3339 time \
             (2026-11-01T09:30:00Z)"
        ))
    };
    let zone = now.time_zone().clone();
    let day = named_day(text, now).or_else(|| compact(text));
    let zoned = if day.is_some() || text.len() <= "2026-11-01".len() {
        let date = day.map_or_else(|| text.parse(), Ok).map_err(|_| wrong())?;
        let date = if end { date.tomorrow().map_err(|_| wrong())? } else { date };
        date.to_zoned_datetime(zone)
    } else {
        text.parse::<DateTime>().map_err(|_| wrong())?.to_zoned_datetime(zone)
    };
    zoned.map(|z| z.timestamp()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        // The day after the clocks went back in Berlin: that Sunday had 25 hours.
        "2026-10-26T12:00:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    fn since(text: &str) -> String {
        parse_since(text, &now()).map(|t| t.to_string()).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn since_counts_calendar_days_and_exact_hours() {
        assert_eq!(since("5m"), "2026-10-26T10:55:00Z");
        assert_eq!(since("24h"), "2026-10-25T11:00:00Z");
        assert_eq!(since("2d"), "2026-10-24T10:00:00Z");
        assert_eq!(since("2"), since("2d"));
        assert_eq!(since("1w"), "2026-10-19T10:00:00Z");
        assert_eq!(since("today"), "2026-10-25T23:00:00Z");
        assert_eq!(since("yesterday"), "2026-10-24T22:00:00Z");
        assert_eq!(since("2026-10-01"), "2026-09-30T22:00:00Z");
        assert_eq!(since("20261001"), since("2026-10-01"));
        assert!(since("20261301").contains("too far back"), "no date");
    }

    #[test]
    fn nonsense_is_refused_with_an_example() {
        for text in ["", "soon", "5x", "-5d", "d", "5 d", "99999999999999999999d", "ü"] {
            let said = parse_since(text, &now()).unwrap_err().to_string();
            assert!(said.contains("30d"), "{text}: {said}");
        }
        assert!(since("9999999999d").contains("too far back"));
    }

    #[test]
    fn a_range_has_begun() {
        let range = |since: &str| {
            RangeArgs { since: Some(since.into()), ..RangeArgs::default() }.window("30d", &now())
        };
        for since in ["2026-10-27", "2027-01-01", "2026-10-26T12:00:01+01:00"] {
            let said = range(since).unwrap_err().to_string();
            assert_eq!(said, format!("--since ({since}) is not before now"));
        }
        for since in ["0m", "today", "2026-10-26", "2026-10-26T12:00:00+01:00"] {
            assert!(range(since).is_ok_and(|range| range.from < range.to), "{since}");
        }
    }

    #[test]
    fn a_last_day_is_all_of_it_and_order_matters() {
        let range = |from: &str, to: &str| {
            RangeArgs { since: None, from: Some(from.into()), to: Some(to.into()) }
                .window("30d", &now())
        };
        let day = range("2026-10-25", "2026-10-25").unwrap();
        assert_eq!(day.to.duration_since(day.from).as_hours(), 25);
        assert_eq!(range("yesterday", "20261025").unwrap(), day);
        assert_eq!(range("today", "today").unwrap(), range("2026-10-26", "2026-10-26").unwrap());
        assert!(range("2026-10-26", "2026-10-25").is_err());
        assert!(range("2026-10-25T10:00:00Z", "2026-10-25T10:00:00Z").is_err());
        assert!(range("2026-10-25T10:00", "2026-10-25T10:00:00Z").is_ok());
    }
}
