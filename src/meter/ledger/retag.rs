//! Gives rows that were attributed wrongly to another project, and takes that back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use serde::Serialize;

use super::batches::{self, BATCH};
use super::clause::{Clause, Named};
use super::record::Columns;
use super::seen::Entry;
use super::{LedgerError, Window};
use crate::home::Home;

/// The `project_source` of such rows.
pub const RETAG: &str = "retag";

/// Which rows. What is empty is no condition.
#[derive(Clone, Debug)]
pub struct Selection {
    pub window: Window,
    /// Recorded names.
    pub projects: Option<Vec<String>>,
    /// This directory, or one below it.
    pub cwd: Option<String>,
    pub branch: Option<String>,
    pub client: Option<String>,
    pub session: Option<String>,
    pub run: Option<String>,
}

/// What becomes of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Retag {
    To(String),
    /// What the row said before.
    Back,
}

/// What came of it.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Retagged {
    /// Rows, side calls among them.
    pub changed: u64,
    /// Requests to models and their cost, by the name that they had.
    pub projects: BTreeMap<String, Moved>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Moved {
    pub requests: u64,
    /// Here and below: of those that have a price; `None`: none has one.
    pub cost_nanousd: Option<i64>,
    /// What a plan covers; nothing of it is in the cost.
    pub subscription_nanousd: Option<i64>,
    /// Requests with usage but without a price.
    pub unpriced: u64,
}

/// Changes the rows of `selection`; `dry` changes none. A daemon may run meanwhile. A request that is
/// still running is left alone: the daemon would write its project again at its end.
///
/// # Errors
/// When the ledger can't be read or written. What was done by then is done.
pub fn retag(
    home: &Home,
    selection: &Selection,
    change: &Retag,
    dry: bool,
) -> Result<Retagged, LedgerError> {
    let mut done = Retagged::default();
    let mut after = (i64::MIN, Vec::new());
    let read = |conn: &Connection| {
        let rows = batch(conn, selection, change, &after)?;
        let Some(last) = rows.last() else { return Ok(None) };
        after = (last.started_at, last.id.clone());
        for row in &rows {
            done.changed += 1;
            let moved = done.projects.entry(row.project.clone().unwrap_or_default()).or_default();
            moved.requests += u64::from(row.billable);
            moved.unpriced += u64::from(row.billable && row.used && row.cost.is_none());
            let sum =
                if row.covered { &mut moved.subscription_nanousd } else { &mut moved.cost_nanousd };
            *sum = row.cost.map(|cost| sum.unwrap_or(0).saturating_add(cost)).or(*sum);
        }
        Ok(Some(rows))
    };
    batches::each(&home.ledger_file(), dry, read, |conn, row| {
        apply(conn, &row.id, change)?;
        // Or whoever asks for the name would look there in vain from now on.
        let left = Entry::project(row.project.as_deref(), row.started_at);
        if left.is_superfluous(conn)? {
            left.remove(conn)?;
        }
        Ok(())
    })?;
    Ok(done)
}

struct Candidate {
    id: Vec<u8>,
    started_at: i64,
    project: Option<String>,
    billable: bool,
    cost: Option<i64>,
    covered: bool,
    used: bool,
}

fn batch(
    conn: &Connection,
    selection: &Selection,
    change: &Retag,
    after: &(i64, Vec<u8>),
) -> Result<Vec<Candidate>, LedgerError> {
    let (sql, values) = page(selection, change, after);
    let mut stmt = conn.prepare_cached(&sql)?;
    let rows = stmt.query_map(params_from_iter(values), |row| {
        let mut c = Columns::new(row);
        Ok(Candidate {
            id: c.next()?,
            started_at: c.next()?,
            project: c.next()?,
            billable: c.next()?,
            cost: c.next()?,
            covered: c.next()?,
            used: c.next()?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The query of a batch.
fn page(selection: &Selection, change: &Retag, (at, id): &(i64, Vec<u8>)) -> (String, Vec<Value>) {
    let Selection { window, projects, cwd, branch, client, session, run } = selection;
    // From the cursor on: SQLite takes this bound for the index, not the cursor.
    let from = window.from.as_microsecond().max(*at);
    let mut clause = Clause::default()
        .between(Some(from), Some(window.to.as_microsecond()))
        .named(session.clone().map(Named::session))
        .named(projects.clone().map(Named::projects))
        .named(run.clone().map(Named::Run));
    clause.add("completeness <> 'open'");
    if let Some(dir) = cwd {
        let below = format!("{}/", dir.trim_end_matches('/'));
        let values = [below.clone(), below].map(Value::from);
        clause.add_with("substr(cwd || '/', 1, length(?)) = ?", values);
    }
    clause.add_opt("branch = ?", branch.clone());
    clause.add_opt("client = ?", client.clone());
    match change {
        Retag::To(project) => clause.add_opt("project IS NOT ?", Some(project.clone())),
        Retag::Back => clause.add_opt("project_source = ?", Some(RETAG.to_owned())),
    }
    clause.add_with("(started_at, id) > (?, ?)", [Value::from(*at), Value::from(id.clone())]);
    let select = "SELECT id, started_at, project, billable, cost_nanousd, billing = 'subscription', \
                  usage <> 'absent'";
    let (mut sql, mut values) = clause.ordered(select, false);
    sql.push_str(" LIMIT ?");
    values.push(Value::from(BATCH));
    (sql, values)
}

/// The first such change keeps what the row said by itself.
fn apply(conn: &Connection, id: &[u8], change: &Retag) -> rusqlite::Result<usize> {
    match change {
        Retag::To(project) => conn
            .prepare_cached(
                "UPDATE requests SET \
                 project_was = iif(project_source IS ?3, project_was, project), \
                 project_source_was = iif(project_source IS ?3, project_source_was, project_source), \
                 project = ?1, project_source = ?3 WHERE id = ?2",
            )?
            .execute(params![project, id, RETAG]),
        Retag::Back => conn
            .prepare_cached(
                "UPDATE requests SET project = project_was, project_source = project_source_was, \
                 project_was = NULL, project_source_was = NULL WHERE id = ? AND project_source = ?",
            )?
            .execute(params![id, RETAG]),
    }
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            window: Window { from: Timestamp::MIN, to: Timestamp::MAX },
            projects: None,
            cwd: None,
            branch: None,
            client: None,
            session: None,
            run: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ledger::fixture::{self, row, store};
    use crate::meter::ledger::{GroupBy, Ledger, ReportQuery, RequestFilter, roll_up};
    use crate::meter::row::{Completeness, Row};

    fn rows(home: &Home) -> Vec<Row> {
        let filter = RequestFilter { all: true, ..RequestFilter::default() };
        Ledger::open(home).unwrap().requests(&filter).unwrap().rows
    }

    fn report(home: &Home) -> String {
        let query = ReportQuery {
            window: Selection::default().window,
            by: vec![GroupBy::Project],
            project: None,
            zone: jiff::tz::TimeZone::UTC,
            vs_previous: false,
        };
        serde_json::to_string(&Ledger::open(home).unwrap().report(&query).unwrap()).unwrap()
    }

    fn to(project: &str) -> Retag {
        Retag::To(project.to_owned())
    }

    #[test]
    fn a_span_of_one_directory_goes_elsewhere_and_back() {
        let (_dir, home) = fixture::home();
        let stored: Vec<Row> = (1..=1203)
            .map(|n| Row {
                cwd: Some(if n % 2 == 0 { "/w/a%b/x" } else { "/w/a%bc" }.to_owned()),
                project_source: Some("git".to_owned()),
                billable: n != 4,
                completeness: if n == 6 { Completeness::Open } else { Completeness::Complete },
                ..row(n, if n > 1000 { "2026-11-23T00:00:00Z" } else { "2026-11-24T00:00:00Z" })
            })
            .collect();
        store(&home, &stored);
        let now = "2026-11-25T12:00:00Z".parse().unwrap();
        roll_up(&home.ledger_file(), now).unwrap();
        let before = (rows(&home), report(&home));
        let window = Window { from: "2026-11-24T00:00:00Z".parse().unwrap(), to: Timestamp::MAX };
        let selection = Selection {
            window,
            cwd: Some("/w/a%b/".to_owned()),
            projects: Some(vec!["my-app".to_owned()]),
            ..Selection::default()
        };
        let told = retag(&home, &selection, &to("other"), true).unwrap();
        assert_eq!(told.changed, 499, "of 500 one is still running");
        assert_eq!(told.projects["my-app"].requests, 498);
        assert_eq!(told.projects["my-app"].cost_nanousd, Some(499 * 12_300_000));
        assert_eq!((rows(&home), report(&home)), before, "a dry run changes nothing");
        assert_eq!(retag(&home, &selection, &to("other"), false).unwrap(), told);
        assert_eq!(retag(&home, &selection, &to("other"), false).unwrap().changed, 0);
        let moved = rows(&home).into_iter().filter(|row| row.project.as_deref() == Some("other"));
        assert!(moved.clone().all(|row| row.project_source.as_deref() == Some(RETAG)));
        assert_eq!(moved.count(), 499);
        let changed = report(&home);
        assert!(changed.contains(r#""key":"other","requests":498"#), "{changed}");
        roll_up(&home.ledger_file(), now).unwrap();
        assert_eq!(report(&home), changed, "the roll-ups say the same");

        // Once more, and then back to the first state.
        let all = Selection { projects: None, ..selection };
        assert_eq!(retag(&home, &all, &to("third"), false).unwrap().changed, 499);
        assert_eq!(retag(&home, &Selection::default(), &Retag::Back, false).unwrap().changed, 499);
        assert_eq!((rows(&home), report(&home)), before);
        assert_eq!(retag(&home, &Selection::default(), &Retag::Back, false).unwrap().changed, 0);
    }

    #[test]
    fn the_last_batch_costs_no_more_than_the_first() {
        let (_dir, home) = fixture::home();
        store(&home, &fixture::minutes(2000));
        let conn = Connection::open(home.ledger_file()).unwrap();
        let all = rows(&home);
        let late = &all[usize::try_from(BATCH).unwrap()];
        let late = (late.started_at.as_microsecond(), late.id.as_bytes().to_vec());
        let names = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        for projects in [None, names(&["odd"]), names(&["odd", "even"])] {
            let selection = Selection { projects, ..Selection::default() };
            let steps = |after: &(i64, Vec<u8>)| {
                let (sql, values) = page(&selection, &to("other"), after);
                fixture::steps(&conn, &sql, values)
            };
            let (first, last) = (steps(&(i64::MIN, Vec::new())), steps(&late));
            assert!(last <= first + 100, "{:?}: {first}, {last}", selection.projects);
            assert!(first < 20_000, "{:?}: {first}", selection.projects);
        }
    }

    #[test]
    fn rows_without_a_project_and_no_ledger() {
        let (_dir, home) = fixture::home();
        assert_eq!(retag(&home, &Selection::default(), &to("x"), false).unwrap().changed, 0);
        store(&home, &[Row { project: None, ..row(1, "2026-11-24T00:00:00Z") }]);
        assert_eq!(retag(&home, &Selection::default(), &to("x"), false).unwrap().changed, 1);
        assert_eq!(rows(&home)[0].project.as_deref(), Some("x"));
        retag(&home, &Selection::default(), &Retag::Back, false).unwrap();
        assert_eq!(rows(&home)[0].project, None);
    }
}
