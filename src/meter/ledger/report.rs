//! The report: rows of a time range, added up by what the user asks for.

use std::collections::HashMap;
use std::mem;
use std::ops::Range;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rusqlite::params_from_iter;
use serde::Serialize;

use super::LedgerError;
use super::clause::{Clause, Named};
use super::coverage::Coverage;
use super::query::{Ledger, SAMPLE, sample};
use super::record::{Columns, Micros};
use super::rollup::{self, HOUR, Key};
use super::silent::Silent;
use super::tally::{Tally, Totals};

/// The provider whose format nobody has published.
const UNVERIFIED: &str = "cursor";

/// A time range: `from` is in it, `to` is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Window {
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }

    /// The range of the same length that ends where this one begins.
    #[must_use]
    pub fn previous(&self) -> Self {
        let length = self.to.duration_since(self.from);
        Self { from: self.from.checked_sub(length).unwrap_or(Timestamp::MIN), to: self.from }
    }
}

/// What rows are grouped by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GroupBy {
    Project,
    Model,
    Provider,
    Client,
    Session,
    /// Sub-agents; the main ones together have no key.
    Agent,
    Day,
}

impl GroupBy {
    /// Each once, in the order in which they come first.
    #[must_use]
    pub fn unique(by: &[Self]) -> Vec<Self> {
        let mut once = Vec::new();
        for one in by {
            if !once.contains(one) {
                once.push(*one);
            }
        }
        once
    }
}

/// What a report is asked for.
#[derive(Clone, Debug)]
pub struct ReportQuery {
    pub window: Window,
    /// Each gives a list of groups of its own.
    pub by: Vec<GroupBy>,
    pub project: Option<String>,
    /// Whose midnight separates the days.
    pub zone: TimeZone,
    /// Also add up the range of the same length before this one.
    pub vs_previous: bool,
}

/// A report, before anyone formats it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub window: Window,
    pub project: Option<String>,
    pub summary: Totals,
    /// Which requests are `without_usage` in the summary.
    pub silent: Vec<Silent>,
    /// Requests whose tokens were read out of a format that nobody has published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unverified: Option<u64>,
    /// Requests of all projects that the ledger dates ahead of the clock and that are not in this
    /// range, as far as somebody looked ([`Ledger::dated_ahead`]).
    pub dated_ahead: u64,
    /// Of all projects, whatever the filter.
    pub coverage: Coverage,
    pub groupings: Vec<Grouping>,
    pub previous: Option<Previous>,
}

/// The range before the report's own.
#[derive(Clone, Debug, Serialize)]
pub struct Previous {
    #[serde(flatten)]
    pub window: Window,
    pub summary: Totals,
}

/// All groups by one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Grouping {
    pub by: GroupBy,
    pub groups: Vec<Group>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// `None`: not known of these rows.
    pub key: Option<String>,
    #[serde(flatten)]
    pub totals: Totals,
    /// The same group in the range before; there when that was asked for. One that was used only then
    /// has empty totals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Totals>,
}

impl Ledger {
    /// Adds up a time range.
    pub fn report(&self, query: &ReportQuery) -> Result<Report, LedgerError> {
        // One snapshot: sums and groups must agree while rows are being written.
        let tx = self.conn.unchecked_transaction()?;
        let now = self.tallies(query, query.window)?;
        let before =
            query.vs_previous.then(|| self.tallies(query, query.window.previous())).transpose()?;
        drop(tx);
        let (before, mut previous_groups) = match before {
            Some(sums) => {
                let groups: Vec<_> = sums.groups.into_iter().map(Groups::finish).collect();
                (Some(sums.summary), groups)
            }
            None => (None, Vec::new()),
        };
        let groupings = query
            .by
            .iter()
            .zip(now.groups)
            .enumerate()
            .map(|(i, (by, groups))| Grouping {
                by: *by,
                groups: ordered(*by, groups.finish(), previous_groups.get_mut(i).map(mem::take)),
            })
            .collect();
        let summary = now.summary.finish();
        Ok(Report {
            window: query.window,
            project: query.project.clone(),
            silent: if summary.without_usage > 0 { self.silent(query)? } else { Vec::new() },
            unverified: now.unverified.told(),
            dated_ahead: 0,
            summary,
            coverage: self.coverage(query.window)?,
            groupings,
            previous: before.map(|summary| Previous {
                window: query.window.previous(),
                summary: summary.finish(),
            }),
        })
    }

    /// How many requests are from after `window` and from ahead of the clock: it was, when they were made.
    pub fn dated_ahead(&self, window: Window, now: Timestamp) -> Result<u64, LedgerError> {
        // What is being made at this moment is not.
        let from = window.to.max(now.saturating_add(SignedDuration::from_mins(1)).unwrap_or(now));
        let sql = "SELECT count(*) FROM requests WHERE started_at >= ? AND billable";
        let rows: i64 = self.conn.query_row(sql, [from.as_microsecond()], |row| row.get(0))?;
        Ok(rows.unsigned_abs())
    }

    /// The sums by provider alone, as in a report.
    pub fn by_provider(&self, window: Window) -> Result<Vec<Group>, LedgerError> {
        let query = ReportQuery {
            window,
            by: vec![GroupBy::Provider],
            project: None,
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        let groups = self.tallies(&query, window)?.groups.into_iter();
        Ok(groups.flat_map(|groups| ordered(GroupBy::Provider, groups.finish(), None)).collect())
    }

    /// One pass for the sum and all groupings: over the roll-ups, and the rows that have none.
    fn tallies(&self, query: &ReportQuery, window: Window) -> Result<Tallies, LedgerError> {
        let mut sums = Tallies::default();
        sums.groups.resize_with(query.by.len(), Groups::default);
        let by_day = query.by.contains(&GroupBy::Day);
        let asked = query.project.as_deref().map(|name| self.names.shown(name));
        let rest = rollup::read(&self.conn, window, |hour, cells| {
            let day = if by_day { day_of(hour, &query.zone) } else { None };
            if by_day && day.is_none() {
                return false;
            }
            let Some(cells) = rollup::decode(cells) else { return false };
            for (key, part) in &cells {
                let key = self.shown(*key);
                if asked.is_none() || asked == key.project {
                    sums.at(query, key, day.as_deref(), |tally| tally.merge(key.model, part));
                }
            }
            true
        })?;
        for range in rest {
            self.add_rows(query, range, &mut sums)?;
        }
        Ok(sums)
    }

    fn add_rows(
        &self,
        query: &ReportQuery,
        range: Range<i64>,
        sums: &mut Tallies,
    ) -> Result<(), LedgerError> {
        let projects = query.project.as_deref().map(|name| self.names.recorded(name));
        let mut clause = Clause::default()
            .between(Some(range.start), Some(range.end))
            .named(projects.map(Named::projects));
        clause.add("billable");
        let by_day = query.by.contains(&GroupBy::Day);
        let (sql, values) = clause.select(&format!(
            "SELECT started_at, project, provider, client, session, agent, {SAMPLE}"
        ));
        let mut stmt = self.conn.prepare_cached(&sql)?;
        let mut rows = stmt.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let mut c = Columns::new(row);
            let at = c.next::<Micros>()?.0;
            let mut text = || c.next::<Option<String>>();
            let (project, provider, client) = (text()?, text()?, text()?);
            let (session, agent) = (text()?, text()?);
            let sample = sample(&mut c)?;
            let key = Key {
                project: project.as_deref(),
                model: sample.model.as_deref(),
                provider: provider.as_deref(),
                client: client.as_deref(),
                session: session.as_deref(),
                agent: agent.as_deref(),
            };
            let day = by_day.then(|| day(at, &query.zone));
            sums.at(query, self.shown(key), day.as_deref(), |tally| tally.add(&sample));
        }
        Ok(())
    }

    /// With the project's name as it is to be seen.
    fn shown<'a>(&'a self, key: Key<'a>) -> Key<'a> {
        Key { project: key.project.map(|name| self.names.shown(name)), ..key }
    }
}

fn day(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned_datetime(zone.clone()).date().to_string()
}

/// The day that a whole hour is in; `None`: a midnight is in it.
fn day_of(hour: i64, zone: &TimeZone) -> Option<String> {
    let at = |micros| Timestamp::from_microsecond(micros).ok().map(|at| day(at, zone));
    let (first, last) = (at(hour * HOUR)?, at((hour + 1) * HOUR - 1)?);
    (first == last).then_some(first)
}

#[derive(Default)]
struct Tallies {
    summary: Tally,
    /// What is told in a format that nobody has published.
    unverified: Tally,
    groups: Vec<Groups>,
}

impl Tallies {
    /// Adds something to all that it belongs to.
    fn at(
        &mut self,
        query: &ReportQuery,
        key: Key<'_>,
        day: Option<&str>,
        add: impl Fn(&mut Tally),
    ) {
        add(&mut self.summary);
        if key.provider == Some(UNVERIFIED) {
            add(&mut self.unverified);
        }
        for (by, groups) in query.by.iter().zip(&mut self.groups) {
            let key = match by {
                GroupBy::Project => key.project,
                GroupBy::Model => key.model,
                GroupBy::Provider => key.provider,
                GroupBy::Client => key.client,
                GroupBy::Session => key.session,
                GroupBy::Agent => key.agent,
                GroupBy::Day => day,
            };
            groups.at(key, &add);
        }
    }
}

/// Tallies by key.
#[derive(Default)]
struct Groups {
    known: HashMap<String, Tally>,
    unknown: Option<Tally>,
}

impl Groups {
    fn at(&mut self, key: Option<&str>, add: impl FnOnce(&mut Tally)) {
        let Some(key) = key else { return add(self.unknown.get_or_insert_default()) };
        match self.known.get_mut(key) {
            Some(tally) => add(tally),
            None => add(self.known.entry(key.to_owned()).or_default()),
        }
    }

    fn finish(self) -> HashMap<Option<String>, Totals> {
        let known = self.known.into_iter().map(|(key, tally)| (Some(key), tally.finish()));
        known.chain(self.unknown.map(|tally| (None, tally.finish()))).collect()
    }
}

/// Days in their order; everything else by what it cost, then by how much it was used, then by what it
/// had cost before.
fn ordered(
    by: GroupBy,
    groups: HashMap<Option<String>, Totals>,
    mut previous: Option<HashMap<Option<String>, Totals>>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|(key, totals)| Group {
            previous: previous.as_mut().map(|p| p.remove(&key).unwrap_or_default()),
            key,
            totals,
        })
        .collect();
    let gone = match by {
        // No day is in both ranges.
        GroupBy::Day => None,
        GroupBy::Project
        | GroupBy::Model
        | GroupBy::Provider
        | GroupBy::Client
        | GroupBy::Session
        | GroupBy::Agent => previous,
    };
    groups.extend(gone.into_iter().flatten().map(|(key, before)| Group {
        key,
        totals: Totals::default(),
        previous: Some(before),
    }));
    let worth = |t: &Totals| {
        t.cost_nanousd.unwrap_or(0).saturating_add(t.subscription_nanousd.unwrap_or(0))
    };
    let before = |group: &Group| group.previous.as_ref().map_or(0, worth);
    groups.sort_by(|a, b| {
        let by_key = a.key.cmp(&b.key);
        match by {
            GroupBy::Day => by_key,
            GroupBy::Project
            | GroupBy::Model
            | GroupBy::Provider
            | GroupBy::Client
            | GroupBy::Session
            | GroupBy::Agent => worth(&b.totals)
                .cmp(&worth(&a.totals))
                .then(b.totals.requests.cmp(&a.totals.requests))
                .then(before(b).cmp(&before(a)))
                .then(by_key),
        }
    });
    groups
}
