//! The projects of the ledger: a list, and one of them in detail.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::{OptionalExtension, params, params_from_iter};
use serde::Serialize;

use super::clause::{Clause, Named};
use super::record::Micros;
use super::report::{GroupBy, ReportQuery, Window};
use super::seen::Kind;
use super::{Ledger, LedgerError, Totals};

/// A project of a list.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectSum {
    /// `None`: requests of which it is not known.
    pub project: Option<String>,
    /// The names that rows have for it, where it is not its own alone.
    pub recorded_as: Vec<String>,
    /// Of any request, also one before or after the list's time.
    pub last_at: Option<Timestamp>,
    #[serde(flatten)]
    pub totals: Totals,
}

/// One project.
#[derive(Clone, Debug, Serialize)]
pub struct ProjectDetail {
    #[serde(flatten)]
    pub sum: ProjectSum,
    pub first_at: Option<Timestamp>,
    /// How the requests were found to be its own.
    pub sources: Vec<Share>,
    /// Where they came from, those of most requests first. At most [`SHARES`] of each kind.
    pub directories: Vec<Share>,
    pub branches: Vec<Share>,
    pub clients: Vec<Share>,
    pub models: Vec<Share>,
}

/// How many requests have something in common.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Share {
    /// `None`: not known.
    pub name: Option<String>,
    pub requests: u64,
}

/// Of one kind, in [`ProjectDetail`].
pub const SHARES: usize = 10;

impl Ledger {
    /// Projects with requests in the window, by what they cost.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn projects(&self, window: Window) -> Result<Vec<ProjectSum>, LedgerError> {
        let query = ReportQuery {
            window,
            by: vec![GroupBy::Project],
            project: None,
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        let groups = self.report(&query)?.groupings.into_iter().flat_map(|g| g.groups);
        let mut recorded: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in self.recorded_names()? {
            recorded.entry(self.names.shown(&name).to_owned()).or_default().push(name);
        }
        groups
            .map(|group| {
                let names = group.key.as_ref().and_then(|key| recorded.remove(key));
                self.sum(group.key, names.unwrap_or_default(), group.totals)
            })
            .collect()
    }

    /// `None`: no row is its own.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn project(
        &self,
        name: &str,
        window: Window,
    ) -> Result<Option<ProjectDetail>, LedgerError> {
        let known = self.recorded_names()?;
        let mut recorded = self.names.recorded(name);
        recorded.retain(|name| known.contains(name));
        if recorded.is_empty() {
            return Ok(None);
        }
        let query = ReportQuery {
            window,
            by: Vec::new(),
            project: Some(name.to_owned()),
            zone: TimeZone::UTC,
            vs_previous: false,
        };
        let totals = self.report(&query)?.summary;
        let first_at = self.moments(Which::First, &recorded)?.into_iter().min();
        let share = |column| self.shares(column, &recorded, window);
        Ok(Some(ProjectDetail {
            first_at,
            sources: share("project_source")?,
            directories: share("cwd")?,
            branches: share("branch")?,
            clients: share("client")?,
            models: share("coalesce(model, model_requested)")?,
            sum: self.sum(Some(self.names.shown(name).to_owned()), recorded, totals)?,
        }))
    }

    /// Names that projects are shown under.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn project_names(&self) -> Result<BTreeSet<String>, LedgerError> {
        let recorded = self.recorded_names()?;
        Ok(recorded.iter().map(|name| self.names.shown(name).to_owned()).collect())
    }

    /// What a name is shown as.
    #[must_use]
    pub fn shown_project<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.shown(name)
    }

    /// The recorded names of what is shown as `name`, or recorded as it.
    #[must_use]
    pub fn recorded_as(&self, name: &str) -> Vec<String> {
        self.names.recorded(name)
    }

    /// Names that rows have: a look or two for each that was ever recorded.
    ///
    /// # Errors
    /// When the ledger can't be read.
    pub fn recorded_names(&self) -> Result<BTreeSet<String>, LedgerError> {
        let mut next = self.conn.prepare(
            "SELECT name FROM seen WHERE kind = ? AND name > ? AND name < x'' ORDER BY name LIMIT 1",
        )?;
        let mut names = BTreeSet::new();
        let mut last = String::new();
        while let Some(name) =
            next.query_row(params![Kind::Project as i64, last], |row| row.get(0)).optional()?
        {
            last = name;
            // Rows may have lost it.
            if self.moment(Which::Last, Some(&last))?.is_some() {
                names.insert(last.clone());
            }
        }
        Ok(names)
    }

    fn sum(
        &self,
        project: Option<String>,
        mut recorded_as: Vec<String>,
        totals: Totals,
    ) -> Result<ProjectSum, LedgerError> {
        let last_at = match project {
            Some(_) => self.moments(Which::Last, &recorded_as)?.into_iter().max(),
            None => self.moment(Which::Last, None)?,
        };
        if let ([one], Some(shown)) = (&recorded_as[..], &project)
            && one == shown
        {
            recorded_as.clear();
        }
        Ok(ProjectSum { project, recorded_as, last_at, totals })
    }

    /// Of each that has one.
    fn moments(&self, which: Which, names: &[String]) -> Result<Vec<Timestamp>, LedgerError> {
        let each = names.iter().filter_map(|name| self.moment(which, Some(name)).transpose());
        each.collect()
    }

    /// The first or the last row of this name; `None`: of those that have none.
    fn moment(&self, which: Which, name: Option<&str>) -> Result<Option<Timestamp>, LedgerError> {
        let clause = Clause::default().named(Some(Named::project(name)));
        let (sql, values) = clause.ordered("SELECT started_at", which == Which::Last);
        let mut stmt = self.conn.prepare_cached(&format!("{sql} LIMIT 1"))?;
        let at = stmt.query_row(params_from_iter(values), |row| row.get::<_, Micros>(0));
        Ok(at.optional()?.map(|Micros(at)| at))
    }

    fn shares(
        &self,
        column: &str,
        names: &[String],
        window: Window,
    ) -> Result<Vec<Share>, LedgerError> {
        let mut clause = Clause::within(window).named(Some(Named::projects(names.to_vec())));
        clause.add("billable");
        let (mut sql, values) =
            clause.select(&format!("SELECT {column} AS name, count(*) AS requests"));
        sql.push_str(&format!(" GROUP BY name ORDER BY requests DESC, name LIMIT {SHARES}"));
        let mut stmt = self.conn.prepare(&sql)?;
        let shares = stmt.query_map(params_from_iter(values), |row| {
            let requests: i64 = row.get(1)?;
            Ok(Share { name: row.get(0)?, requests: requests.unsigned_abs() })
        })?;
        Ok(shares.collect::<rusqlite::Result<_>>()?)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Which {
    First,
    Last,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::ledger::{RequestFilter, roll_up};
    use crate::meter::projects::{self, Names};
    use crate::meter::row::Row;

    const ALL: Window = Window { from: Timestamp::MIN, to: Timestamp::MAX };

    fn of(n: u128, project: Option<&str>) -> Row {
        Row {
            project: project.map(str::to_owned),
            project_source: Some("git".to_owned()),
            cwd: project.map(|project| format!("/src/{project}")),
            ..row(n, &format!("2026-11-24T01:00:{n:02}Z"))
        }
    }

    fn with_rows(rules: &[(&str, &str)]) -> (tempfile::TempDir, Home) {
        let (dir, home) = home();
        store(
            &home,
            &[of(1, Some("a")), of(2, Some("a")), of(3, Some("b")), of(4, None), of(5, Some("c"))],
        );
        let mut names = Names::default();
        rules.iter().for_each(|(from, to)| names.show_as(from, to));
        projects::write(&home.projects_file(), &names).unwrap();
        (dir, home)
    }

    fn list(home: &Home) -> Vec<(Option<String>, u64, Vec<String>)> {
        let projects = Ledger::open(home).unwrap().projects(ALL).unwrap();
        projects.into_iter().map(|p| (p.project, p.totals.requests, p.recorded_as)).collect()
    }

    #[test]
    fn a_merged_project_is_one_with_and_without_rollups() {
        let (_dir, home) = with_rows(&[("b", "a"), ("gone", "a"), ("c", "see")]);
        let text = |t: &str| Some(t.to_owned());
        let expected = [
            (text("a"), 3, vec!["a".to_owned(), "b".to_owned()]),
            (None, 1, Vec::new()),
            (text("see"), 1, vec!["c".to_owned()]),
        ];
        assert_eq!(list(&home), expected);
        roll_up(&home.ledger_file(), "2026-11-25T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(list(&home), expected);
        let ledger = Ledger::open(&home).unwrap();
        for name in ["a", "b"] {
            let query = ReportQuery {
                window: ALL,
                by: Vec::new(),
                project: Some(name.to_owned()),
                zone: TimeZone::UTC,
                vs_previous: false,
            };
            assert_eq!(ledger.report(&query).unwrap().summary.requests, 3, "{name}");
            let filter =
                RequestFilter { project: Some(name.to_owned()), ..RequestFilter::default() };
            let rows = ledger.requests(&filter).unwrap().rows;
            assert_eq!(rows.len(), 3);
            assert!(rows.iter().all(|row| row.project.as_deref() == Some("a")), "{name}");
        }
    }

    #[test]
    fn each_has_its_last_request_also_those_without_a_name() {
        let (_dir, home) = with_rows(&[("b", "a")]);
        let last = |window| {
            let projects = Ledger::open(&home).unwrap().projects(window).unwrap();
            let mut last: Vec<_> =
                projects.into_iter().map(|p| (p.project, p.last_at.unwrap())).collect();
            last.sort();
            last
        };
        let at = |n: u8| format!("2026-11-24T01:00:{n:02}Z").parse::<Timestamp>().unwrap();
        let of = |name: &str, n| (Some(name.to_owned()), at(n));
        assert_eq!(last(ALL), [(None, at(4)), of("a", 3), of("c", 5)]);
        store(&home, &[Row { billable: false, ..self::of(9, None) }]);
        let window = Window { from: Timestamp::MIN, to: at(5) };
        assert_eq!(last(window), [(None, at(9)), of("a", 3)], "of any request");
    }

    #[test]
    fn a_project_in_detail() {
        let (_dir, home) = with_rows(&[("b", "a")]);
        let ledger = Ledger::open(&home).unwrap();
        let detail = ledger.project("b", ALL).unwrap().unwrap();
        assert_eq!(detail.sum.project.as_deref(), Some("a"));
        assert_eq!((detail.sum.totals.requests, detail.sum.recorded_as.len()), (3, 2));
        let at = |n: u8| Some(format!("2026-11-24T01:00:{n:02}Z").parse().unwrap());
        assert_eq!((detail.first_at, detail.sum.last_at), (at(1), at(3)));
        let share = |name: &str, requests| Share { name: Some(name.to_owned()), requests };
        assert_eq!(detail.sources, [share("git", 3)]);
        assert_eq!(detail.directories, [share("/src/a", 2), share("/src/b", 1)]);
        assert!(ledger.project("x", ALL).unwrap().is_none());
    }
}
