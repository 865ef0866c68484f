//! The report: rows of a time range, added up by what the user asks for.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::params_from_iter;
use serde::Serialize;

use super::LedgerError;
use super::coverage::Coverage;
use super::query::{Clause, Ledger, SAMPLE, sample};
use super::record::{Columns, Micros};
use super::tally::{Tally, Totals};

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
    Day,
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
    /// The same group in the range before; there when that was asked for.
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
        let mut previous_groups: Vec<HashMap<Option<String>, Totals>> = match &before {
            Some(sums) => sums.groups.iter().cloned().map(finish_all).collect(),
            None => Vec::new(),
        };
        let groupings = query
            .by
            .iter()
            .zip(now.groups)
            .enumerate()
            .map(|(i, (by, tallies))| Grouping {
                by: *by,
                groups: ordered(*by, finish_all(tallies), previous_groups.get_mut(i)),
            })
            .collect();
        Ok(Report {
            window: query.window,
            project: query.project.clone(),
            summary: now.summary.finish(),
            coverage: self.coverage(query.window)?,
            groupings,
            previous: before.map(|sums| Previous {
                window: query.window.previous(),
                summary: sums.summary.finish(),
            }),
        })
    }

    /// One pass over the rows for the sum and all groupings.
    fn tallies(&self, query: &ReportQuery, window: Window) -> Result<Tallies, LedgerError> {
        let mut clause = Clause::default();
        clause.add_opt("started_at >= ?", Some(window.from.as_microsecond()));
        clause.add_opt("started_at < ?", Some(window.to.as_microsecond()));
        clause.add_opt("project = ?", query.project.clone());
        let sql = format!(
            "SELECT started_at, project, provider, client, session, {SAMPLE} \
             FROM requests WHERE billable{}",
            clause.sql
        );
        let mut stmt = self.conn.prepare(&sql)?;
        let mut rows = stmt.query(params_from_iter(clause.values))?;
        let mut sums =
            Tallies { summary: Tally::default(), groups: vec![HashMap::new(); query.by.len()] };
        while let Some(row) = rows.next()? {
            let mut c = Columns::new(row);
            let at = c.next::<Micros>()?.0;
            let project: Option<String> = c.next()?;
            let provider: Option<String> = c.next()?;
            let client: Option<String> = c.next()?;
            let session: Option<String> = c.next()?;
            let sample = sample(&mut c)?;
            sums.summary.add(&sample);
            for (by, groups) in query.by.iter().zip(&mut sums.groups) {
                let key = match by {
                    GroupBy::Project => project.clone(),
                    GroupBy::Model => sample.model.clone(),
                    GroupBy::Provider => provider.clone(),
                    GroupBy::Client => client.clone(),
                    GroupBy::Session => session.clone(),
                    GroupBy::Day => {
                        Some(at.to_zoned_datetime(query.zone.clone()).date().to_string())
                    }
                };
                groups.entry(key).or_default().add(&sample);
            }
        }
        Ok(sums)
    }
}

struct Tallies {
    summary: Tally,
    groups: Vec<HashMap<Option<String>, Tally>>,
}

fn finish_all(tallies: HashMap<Option<String>, Tally>) -> HashMap<Option<String>, Totals> {
    tallies.into_iter().map(|(key, tally)| (key, tally.finish())).collect()
}

/// Days in their order; everything else by what it cost, then by how much it was used.
fn ordered(
    by: GroupBy,
    groups: HashMap<Option<String>, Totals>,
    mut previous: Option<&mut HashMap<Option<String>, Totals>>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = groups
        .into_iter()
        .map(|(key, totals)| Group {
            previous: previous.as_mut().map(|p| p.remove(&key).unwrap_or_default()),
            key,
            totals,
        })
        .collect();
    let worth = |t: &Totals| {
        t.cost_nanousd.unwrap_or(0).saturating_add(t.subscription_nanousd.unwrap_or(0))
    };
    groups.sort_by(|a, b| {
        let by_key = a.key.cmp(&b.key);
        match by {
            GroupBy::Day => by_key,
            GroupBy::Project
            | GroupBy::Model
            | GroupBy::Provider
            | GroupBy::Client
            | GroupBy::Session => worth(&b.totals)
                .cmp(&worth(&a.totals))
                .then(b.totals.requests.cmp(&a.totals.requests))
                .then(by_key),
        }
    });
    groups
}
