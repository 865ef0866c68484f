//! Which thresholds were told, where, and for which span: each once, whoever tells.
//!
//! It is written down before anything is told: a warning may get lost, it does not come twice.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::{fmt, io};

use jiff::ZonedDateTime;
use rustix::fs::{FlockOperation, flock};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Standing;
use crate::home::{Home, write_atomic};

/// Spans that are remembered of each budget: a clock that was set back may come to them again.
const SPANS: usize = 64;

/// Where a threshold is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channel {
    /// At the end of `halton-meter run`.
    Run,
    Desktop,
    Webhook,
}

impl Channel {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Desktop => "desktop",
            Self::Webhook => "webhook",
        }
    }
}

/// By channel, budget and span: the highest threshold.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Told(BTreeMap<String, BTreeMap<String, Spans>>);

/// Spans and what was told of each, the latest last; in the file an object, in this order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Spans(Vec<(String, u64)>);

impl Spans {
    fn of(&self, span: &str) -> Option<u64> {
        self.0.iter().find(|(name, _)| name == span).map(|(_, told)| *told)
    }

    /// The one that was told longest ago makes room: by their dates, a clock that was set back would
    /// have it be the one that is told now.
    fn tell(&mut self, span: String, passed: u64) {
        self.0.retain(|(name, _)| *name != span);
        self.0.push((span, passed));
        let over = self.0.len().saturating_sub(SPANS);
        self.0.drain(..over);
    }
}

impl Serialize for Spans {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(span, told)| (span, told)))
    }
}

impl<'de> Deserialize<'de> for Spans {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Spans;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("what was told of each span")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Spans, A::Error> {
                let mut spans = Spans::default();
                while let Some((span, told)) = all.next_entry()? {
                    spans.tell(span, told);
                }
                Ok(spans)
            }
        }
        from.deserialize_map(InOrder)
    }
}

impl Told {
    /// Whether this is news: a threshold that was not told there of this span. From then on it was.
    pub fn news(&mut self, channel: Channel, standing: &Standing, now: &ZonedDateTime) -> bool {
        let Some(passed) = standing.passed() else { return false };
        // By the calendar: another time zone is no other day.
        let first = standing.window.from.to_zoned_datetime(now.time_zone().clone()).date();
        let span = format!("{first} {}", standing.budget.per.as_str());
        let budgets = self.0.entry(channel.as_str().to_owned()).or_default();
        let spans = budgets.entry(standing.budget.name.clone()).or_default();
        if spans.of(&span).is_some_and(|told| told >= passed) {
            return false;
        }
        spans.tell(span, passed);
        true
    }
}

/// What of `standings` is to be told on `channel` now; it counts as told from here on.
///
/// # Errors
/// When that can't be written down; then nothing is to be told.
pub fn claim(
    home: &Home,
    channel: Channel,
    standings: &[Standing],
    now: &ZonedDateTime,
) -> io::Result<Vec<Standing>> {
    if standings.iter().all(|standing| standing.passed().is_none()) {
        return Ok(Vec::new());
    }
    let path = home.budgets_told();
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.with_extension("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    // A file that is broken has told nothing.
    let text = fs::read_to_string(&path).ok();
    let mut told: Told = text.and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default();
    let news: Vec<Standing> =
        standings.iter().filter(|s| told.news(channel, s, now)).cloned().collect();
    if !news.is_empty() {
        write_atomic(&path, serde_json::to_string(&told)?.as_bytes())?;
    }
    Ok(news)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::budget::{Budget, Per};
    use crate::meter::ledger::Window;

    fn stands(per: Per, dollars: u64, from: &str) -> Standing {
        let from = from.parse().unwrap();
        Standing {
            budget: Budget {
                name: "b".to_owned(),
                limit: "10".parse().unwrap(),
                per,
                project: None,
                model: None,
                covered: false,
            },
            window: Window { from, to: jiff::Timestamp::MAX },
            spent_nanousd: dollars * 1_000_000_000,
            unpriced: 0,
        }
    }

    fn at(zone: &str) -> ZonedDateTime {
        format!("2026-11-25T12:00:00[{zone}]").parse().unwrap()
    }

    #[test]
    fn each_threshold_is_news_once_in_each_span_and_on_each_channel() {
        let mut told = Told::default();
        let now = at("UTC");
        let mut day =
            |dollars, from| told.news(Channel::Run, &stands(Per::Day, dollars, from), &now);
        let today = "2026-11-25T00:00:00Z";
        let said: Vec<bool> = [4, 5, 7, 8, 9, 12, 99].map(|dollars| day(dollars, today)).into();
        assert_eq!(said, [false, true, false, true, false, true, false]);
        // The limit is raised and reached again, or what was spent is priced anew.
        assert!(!day(4, today) && !day(8, today) && !day(12, today));
        assert!(day(12, "2026-11-26T00:00:00Z"), "another day");
        assert!(!day(12, today), "the clock was set back");
        assert!(!day(12, "2026-11-26T00:00:00Z"), "and forth");
        assert!(told.news(Channel::Webhook, &stands(Per::Day, 12, today), &now));
        // A month begins with a day.
        assert!(told.news(Channel::Run, &stands(Per::Month, 12, today), &now));
        // The same day, elsewhere.
        let moved = stands(Per::Day, 12, "2026-11-24T23:00:00Z");
        assert!(!told.news(Channel::Run, &moved, &at("Europe/Berlin")));
    }

    #[test]
    fn a_clock_that_is_set_far_back_has_nothing_told_twice() {
        let mut told = Told::default();
        let now = at("UTC");
        let day = |n: i64| {
            (jiff::Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_hours(24 * n)).to_string()
        };
        let mut tell = |n| {
            let news = told.news(Channel::Run, &stands(Per::Day, 12, &day(n)), &now);
            // Kept between, in its order.
            let text = serde_json::to_string(&told).unwrap();
            assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told);
            news
        };
        let spans = i64::try_from(SPANS).unwrap();
        assert!((1000..1000 + spans).all(&mut tell));
        assert!(tell(10) && !tell(10), "before all that are remembered");
        assert!(!tell(1001) && tell(1000), "told longest ago");
    }

    #[test]
    fn what_an_earlier_version_wrote_was_told() {
        let text = r#"{"run":{"b":{"2026-11-25 day":100}}}"#;
        let mut told: Told = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&told).unwrap(), text);
        let standing = stands(Per::Day, 12, "2026-11-25T00:00:00Z");
        assert!(!told.news(Channel::Run, &standing, &at("UTC")));
    }

    #[test]
    fn only_one_of_many_tells_and_only_what_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let standings = [stands(Per::Day, 8, "2026-11-25T00:00:00Z")];
        let tell = || claim(&home, Channel::Run, &standings, &at("UTC"));
        let told: usize = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| tell().unwrap().len())).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(told, 1);
        fs::remove_file(home.budgets_told()).unwrap();
        fs::create_dir(home.budgets_told()).unwrap();
        assert!(tell().is_err(), "or it would be told over and over");
    }
}
