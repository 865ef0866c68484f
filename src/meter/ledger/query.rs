//! Reading the ledger: opened per command, read-only, with or without a daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};
use serde::Serialize;
use uuid::Uuid;

use super::clause::{Clause, Named};
use super::record::{self, COLUMNS, Columns, Name};
use super::report::Window;
use super::schema::MIGRATIONS;
use super::tally::{Sample, Tally, Totals};
use super::{LedgerError, existing};
use crate::home::Home;
use crate::meter::bodies::Shelf;
use crate::meter::projects::{self, Names};
use crate::meter::row::{PublicRow, Row};

/// Of SQLite's machine, between two looks whether anybody still waits: well under a millisecond.
const STEPS: i32 = 10_000;

/// The ledger as a reader sees it.
#[derive(Debug)]
pub struct Ledger {
    pub(super) conn: Connection,
    pub(super) spool: PathBuf,
    /// What projects are shown as.
    pub(super) names: Names,
}

/// Which rows [`Ledger::requests`] gives.
#[derive(Clone, Debug, Default)]
pub struct RequestFilter {
    pub since: Option<Timestamp>,
    /// Exclusive.
    pub until: Option<Timestamp>,
    pub project: Option<String>,
    /// The model that answered, or that was asked for when none did.
    pub model: Option<String>,
    pub provider: Option<String>,
    pub run: Option<String>,
    /// Side calls too, not only requests to a model.
    pub all: bool,
    /// `None`: no limit.
    pub limit: Option<usize>,
    /// Continue behind this row.
    pub before: Option<Cursor>,
}

/// Rows, newest first, and where to go on.
#[derive(Debug)]
pub struct Page {
    pub rows: Vec<Row>,
    /// `None`: there are no more.
    pub next: Option<Cursor>,
}

/// A page as `requests --json` and `/v1/requests` show it.
#[derive(Clone, Debug, Serialize)]
pub struct PublicPage {
    pub requests: Vec<PublicRow>,
    /// Cursor of what follows; `null` when nothing does.
    pub next: Option<String>,
}

impl PublicPage {
    /// With a look at whose bodies are kept.
    #[must_use]
    pub fn new(page: Page, shelf: &Shelf) -> Self {
        let public = |row: Row| {
            let bodies = shelf.has(row.id);
            PublicRow::new(row, bodies)
        };
        Self {
            requests: page.rows.into_iter().map(public).collect(),
            next: page.next.map(|c| c.to_string()),
        }
    }
}

/// A place in the list of rows that stays the same while rows are added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    pub(super) started_at: i64,
    pub(super) id: Uuid,
}

/// What one `halton-meter run` came to.
#[derive(Clone, Debug, Default)]
pub struct RunTotals {
    pub totals: Totals,
    /// The projects of its rows, the most used first.
    pub projects: Vec<String>,
}

impl Ledger {
    /// Opens the ledger of a home directory. One that does not exist yet reads as empty. Names that
    /// can't be read are as if there were none: [`own_file::problems`] tells of them.
    ///
    /// [`own_file::problems`]: crate::meter::own_file::problems
    pub fn open(home: &Home) -> Result<Self, LedgerError> {
        let names = projects::read(&home.projects_file()).unwrap_or_default();
        let ledger = Self::open_files(&home.ledger_file(), home.passthrough_spool())?;
        Ok(Self { names, ..ledger })
    }

    pub(super) fn open_files(path: &Path, spool: PathBuf) -> Result<Self, LedgerError> {
        let conn = existing::to_read(path).map_err(|e| e.of(path))?.map_or_else(empty, Ok)?;
        Ok(Self { conn, spool, names: Names::default() })
    }

    /// From now on its queries fail as soon as this is so; it is asked often.
    pub fn stop_when(&self, so: impl Fn() -> bool + Send + 'static) -> Result<(), LedgerError> {
        Ok(self.conn.progress_handler(STEPS, Some(so))?)
    }

    /// A query that does not end by itself.
    #[cfg(test)]
    pub(crate) fn endless(&self) -> Result<i64, LedgerError> {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        Ok(self.conn.query_row(sql, [], |row| row.get(0))?)
    }

    /// Rows, newest first.
    pub fn requests(&self, filter: &RequestFilter) -> Result<Page, LedgerError> {
        let (sql, values) = page(filter, &self.names);
        let mut stmt = self.conn.prepare(&sql)?;
        let mut rows = stmt
            .query_map(params_from_iter(values), record::read)?
            .collect::<Result<Vec<Row>, _>>()?;
        for row in &mut rows {
            row.project = row.project.take().map(|name| self.names.shown(&name).to_owned());
        }
        let mut next = None;
        if let Some(limit) = filter.limit
            && rows.len() > limit
        {
            rows.truncate(limit);
            next = rows.last().map(Cursor::of);
        }
        Ok(Page { rows, next })
    }

    /// The latest request to a model.
    pub fn last_request(&self) -> Result<Vec<Row>, LedgerError> {
        let last = RequestFilter { limit: Some(1), ..RequestFilter::default() };
        self.requests(&last).map(|page| page.rows)
    }

    /// Up to two rows whose id ends in these digits (lower-case hex).
    pub fn requests_ending(&self, digits: &str) -> Result<Vec<Row>, LedgerError> {
        let sql = format!("SELECT {COLUMNS} FROM requests WHERE id IN ({ENDING})");
        let mut stmt = self.conn.prepare(&sql)?;
        Ok(stmt.query_map([digits], record::read)?.collect::<Result<_, _>>()?)
    }

    /// The sums of one session of a tool.
    pub fn totals_for_session(&self, session: &str) -> Result<Totals, LedgerError> {
        self.totals_where(Clause::default().named(Some(Named::session(session.to_owned()))))
    }

    /// What providers themselves say they charged, against the list: provider, requests, charged and
    /// listed nano-dollars.
    pub fn reported_against_list(
        &self,
        window: Window,
    ) -> Result<Vec<(String, u64, i64, i64)>, LedgerError> {
        let mut stmt = self.conn.prepare(
            "SELECT provider, count(*), sum(provider_cost_nanousd), sum(list_nanousd) FROM requests \
             WHERE started_at >= ? AND started_at < ? AND billable AND list_nanousd IS NOT NULL \
             GROUP BY provider ORDER BY provider",
        )?;
        let span = [window.from.as_microsecond(), window.to.as_microsecond()];
        let rows = stmt.query_map(span, |record| {
            let mut c = Columns::new(record);
            Ok((c.next()?, c.count()?.unwrap_or(0), c.next()?, c.next()?))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// The tiers and speeds that have no price, by the model that was used in them.
    pub fn tiers_without_price(
        &self,
        window: Window,
    ) -> Result<BTreeMap<Option<String>, Vec<String>>, LedgerError> {
        let mut stmt = self.conn.prepare(
            "SELECT DISTINCT coalesce(model, model_requested), cost_reason FROM requests \
             WHERE started_at >= ? AND started_at < ? AND billable AND cost_nanousd IS NULL \
             AND cost_reason LIKE 'no price for tier %' ORDER BY cost_reason",
        )?;
        let span = [window.from.as_microsecond(), window.to.as_microsecond()];
        let mut rows = stmt.query(span)?;
        let mut tiers: BTreeMap<_, Vec<String>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let mut c = Columns::new(row);
            let (model, reason) = (c.next()?, c.next::<String>()?);
            let behind = reason.strip_prefix("no price for tier ");
            let named = behind.and_then(|rest| Some(rest.split_once(" of ")?.0));
            // Of a tier at a speed no price can be set.
            if let Some(tier) = named.filter(|tier| !tier.contains(' ')) {
                let of_model = tiers.entry(model).or_default();
                if of_model.last().is_none_or(|last| last != tier) {
                    of_model.push(tier.to_owned());
                }
            }
        }
        Ok(tiers)
    }

    /// The sums of what began no earlier than that, and ended within this.
    pub fn totals_ended(&self, began: Timestamp, ended: Window) -> Result<Totals, LedgerError> {
        let mut clause = Clause::default().between(Some(began.as_microsecond()), None);
        let bounds = [ended.from, ended.to].map(|at| Value::from(at.as_microsecond()));
        clause.add_with("ended_at >= ? AND ended_at < ?", bounds);
        self.totals_where(clause)
    }

    fn totals_where(&self, mut clause: Clause) -> Result<Totals, LedgerError> {
        let mut tally = Tally::default();
        clause.add("billable");
        let (sql, values) = clause.select(&format!("SELECT {SAMPLE}"));
        let mut stmt = self.conn.prepare(&sql)?;
        let mut rows = stmt.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            tally.add(&sample(&mut Columns::new(row))?);
        }
        Ok(tally.finish())
    }

    /// The sums of one `halton-meter run`, and of those within it.
    pub fn totals_for_run(&self, run: &str) -> Result<RunTotals, LedgerError> {
        let mut clause = Clause::default().named(Some(Named::Run(run.to_owned())));
        let totals = self.totals_where(clause.clone())?;
        clause.add("project IS NOT NULL");
        let (mut sql, values) = clause.select("SELECT project");
        sql.push_str(" GROUP BY project ORDER BY count(*) DESC, project");
        let projects = self
            .conn
            .prepare(&sql)?
            .query_map(params_from_iter(values), |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        let mut shown: Vec<String> = Vec::new();
        for name in &projects {
            let name = self.names.shown(name);
            if shown.iter().all(|known| known != name) {
                shown.push(name.to_owned());
            }
        }
        Ok(RunTotals { totals, projects: shown })
    }
}

/// For the ids alone an index is read, not every row.
const ENDING: &str =
    "SELECT id FROM requests WHERE substr(lower(hex(id)), -length(?1)) = ?1 LIMIT 2";

/// The query of a page.
fn page(filter: &RequestFilter, names: &Names) -> (String, Vec<Value>) {
    // Up to the cursor: SQLite takes this bound for the index, not the cursor.
    let until = filter.until.map(Timestamp::as_microsecond);
    let before = filter.before.map(|before| before.started_at.saturating_add(1));
    let until = [until, before].into_iter().flatten().min();
    let recorded = filter.project.as_deref().map(|name| names.recorded(name));
    let mut clause = Clause::default()
        .between(filter.since.map(Timestamp::as_microsecond), until)
        .named(filter.run.clone().map(Named::Run))
        .named(recorded.map(Named::projects))
        .named(filter.model.clone().map(Named::model));
    clause.add_opt("provider = ?", filter.provider.clone());
    if !filter.all {
        clause.add("billable");
    }
    if let Some(before) = filter.before {
        let place = [before.started_at.into(), before.id.as_bytes().to_vec().into()];
        clause.add_with("(started_at, id) < (?, ?)", place);
    }
    // One more than asked for tells whether there are more.
    let limit = filter.limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX).saturating_add(1));
    let (mut sql, mut values) = clause.ordered(&format!("SELECT {COLUMNS}"), true);
    sql.push_str(" LIMIT ?");
    values.push(limit.into());
    (sql, values)
}

impl Cursor {
    pub(super) fn of(row: &Row) -> Self {
        Self { started_at: row.started_at.as_microsecond(), id: row.id }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.started_at, self.id.simple())
    }
}

impl FromStr for Cursor {
    type Err = LedgerError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (at, id) = s.split_once('.').ok_or(LedgerError::BadCursor)?;
        Ok(Self {
            started_at: at.parse().map_err(|_| LedgerError::BadCursor)?,
            id: Uuid::try_parse(id).map_err(|_| LedgerError::BadCursor)?,
        })
    }
}

/// Columns of a [`Sample`], in the order of [`sample`].
pub(super) const SAMPLE: &str = "coalesce(model, model_requested), status, error_class, usage, \
    input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, \
    cache_write_other_tokens, output_tokens, reasoning_tokens, audio_input_tokens, \
    audio_output_tokens, image_input_tokens, image_output_tokens, web_searches, cost_nanousd, \
    cost_estimated, billing, completeness, ttfb_ms, duration_ms";

pub(super) fn sample(c: &mut Columns<'_>) -> rusqlite::Result<Sample> {
    Ok(Sample {
        model: c.next()?,
        status: c.next()?,
        error_class: c.next()?,
        usage: c.next::<Name<_>>()?.0,
        tokens: record::tokens(c)?,
        web_searches: c.count()?,
        cost_nanousd: c.next()?,
        cost_estimated: c.next()?,
        billing: c.next::<Name<_>>()?.0,
        completeness: c.next::<Name<_>>()?.0,
        ttfb_ms: c.count()?,
        duration_ms: c.count()?,
    })
}

fn empty() -> Result<Connection, LedgerError> {
    let mut conn = Connection::open_in_memory()?;
    MIGRATIONS.to_latest(&mut conn)?;
    Ok(conn)
}

#[cfg(test)]
mod tests;
