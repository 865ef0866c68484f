//! How much of the traffic the ledger tells: what was metered, what went through unmetered, what
//! was cut, what was lost.
//!
//! A connection to a metered host was metered (it left rows), passed, or lost: each exactly once,
//! whichever of our processes was killed meanwhile, and as often as that happened.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use rusqlite::{OptionalExtension, params, params_from_iter};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::LedgerError;
use super::clause::{Clause, Named};
use super::passed::{self, Passed};
use super::query::Ledger;
use super::record::{Columns, Id, Micros};
use super::report::Window;
use super::rollup::{self, HOUR};
use super::unfinished::{self, Fate, Unfinished, judge};
use crate::meter::surface;

/// How much of the traffic in a time range the ledger tells; of all projects.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, ToSchema)]
pub struct Coverage {
    /// Requests to models that have a row.
    pub metered_requests: u64,
    /// Connections with at least one row, of whatever request.
    pub metered_connections: u64,
    /// Connections to metered hosts that went through unmetered (of all projects: nothing was
    /// read, so whose they were is not known).
    pub passed_connections: u64,
    pub passed_bytes: u64,
    pub passed_by_reason: BTreeMap<String, u64>,
    /// Lines of the edge's spool that found no room. Each told of the beginning or the end of a
    /// passed connection, which may be missing from the above.
    pub passed_lines_lost: u64,
    /// Of the metered connections, those that ended because the daemon died.
    pub cut_connections: u64,
    /// Of the metered connections, those of which not all was followed: what was asked there later, or
    /// once over HTTP/1.1, is not counted.
    pub unfollowed_connections: u64,
    /// Connections that were to be metered and left no row.
    pub lost_connections: u64,
    /// Requests that were seen and could not be kept.
    pub lost_rows: u64,
    /// The passed, cut, unfollowed and lost connections by host and reason.
    pub gaps: Vec<Gap>,
    /// Names of corrupt ledgers that were set aside in this time; their rows are not counted.
    pub set_aside: Vec<String>,
    /// How often in this time the ledger was found removed, moved away or replaced; the rows of those
    /// that were there before are not counted.
    pub ledgers_gone: u64,
}

/// Connections to one host that are not, or not wholly, in the ledger.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, ToSchema)]
pub struct Gap {
    pub kind: GapKind,
    pub provider: String,
    pub host: String,
    pub reason: String,
    pub connections: u64,
    /// Of passed connections, as far as their end was seen.
    pub bytes: u64,
    /// When the first and the last of them began, or were lost sight of.
    #[schema(value_type = String, format = DateTime)]
    pub first_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub last_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GapKind {
    /// Went through unmetered.
    Passed,
    /// Metered, and ended with the daemon.
    Cut,
    /// Metered in part.
    Unfollowed,
    /// Left no row.
    Lost,
}

impl GapKind {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Cut => "cut",
            Self::Unfollowed => "unfollowed",
            Self::Lost => "lost",
        }
    }
}

impl Ledger {
    /// What of a time range was metered, and what was not. Counts what no daemon has taken in yet.
    pub fn coverage(&self, window: Window) -> Result<Coverage, LedgerError> {
        // The files before the database: what a daemon takes in meanwhile is seen in both, and known
        // by its id; nothing is seen in neither.
        let spooled = passed::pending(&self.spool);
        let mut unfinished = self.spool.parent().map(unfinished::pending).unwrap_or_default();
        let snapshot = self.conn.unchecked_transaction()?;
        unfinished.extend(self.stored_unfinished(window)?);
        let mut sum = Sum { coverage: self.stored(window)?, gaps: BTreeMap::new() };
        sum.coverage.passed_lines_lost = self.lines_lost(window, spooled.dropped)?;
        let spooled = spooled.passed;
        self.add_stored_passed(window, &mut sum)?;
        for passed in spooled.values().filter(|p| window.contains(p.at)) {
            self.add_spooled(passed, &mut sum)?;
        }
        for (id, connection) in &unfinished {
            if window.contains(connection.at) {
                let passed = spooled.contains_key(id) || self.stored_passed(*id)?.is_some();
                sum.unfinished(connection, self.rows_of(*id)?, passed);
            }
        }
        drop(snapshot);
        Ok(sum.finish())
    }

    /// What the database alone tells in sums.
    fn stored(&self, window: Window) -> Result<Coverage, LedgerError> {
        let range = [window.from.as_microsecond(), window.to.as_microsecond()];
        let one = |sql: &str| self.conn.query_row(sql, range, |row| row.get(0).map(count));
        let (metered_requests, metered_connections) = self.metered(window)?;
        Ok(Coverage {
            metered_requests,
            metered_connections,
            lost_rows: one("SELECT coalesce(sum(rows), 0) FROM losses \
                 WHERE at >= ? AND at < ? AND reason <> 'spool_full'")?,
            set_aside: self
                .conn
                .prepare(
                    "SELECT reason FROM losses WHERE rows = 0 AND at >= ? AND at < ? \
                     AND reason <> 'ledger_gone' ORDER BY at",
                )?
                .query_map(range, |row| row.get(0))?
                .collect::<Result<_, _>>()?,
            ledgers_gone: one("SELECT count(*) FROM losses \
                 WHERE at >= ? AND at < ? AND reason = 'ledger_gone'")?,
            ..Coverage::default()
        })
    }

    /// Requests to models, and connections with a row of whatever request.
    ///
    /// A connection is counted where its first row is, if that is in an hour that is rolled up;
    /// the others by name.
    fn metered(&self, window: Window) -> Result<(u64, u64), LedgerError> {
        let (mut requests, mut counted) = (0_u64, 0_u64);
        let mut hours = HashSet::new();
        let mut carried = Vec::new();
        let rest = rollup::read(&self.conn, window, |hour, cells| {
            let Some(head) = rollup::decode_head(cells) else { return false };
            requests = requests.saturating_add(head.requests);
            counted = counted.saturating_add(head.first);
            carried.extend(head.carried);
            hours.insert(hour)
        })?;
        let elsewhere = |first: i64| !hours.contains(&first);
        let mut by_name: HashSet<Uuid> =
            carried.into_iter().filter(|(_, first)| elsewhere(*first)).map(|(id, _)| id).collect();
        let mut stmt = self.conn.prepare_cached(
            "SELECT billable, connection, started_at FROM requests \
             WHERE started_at >= ? AND started_at < ? ORDER BY started_at",
        )?;
        let mut in_rows = HashMap::new();
        for range in rest {
            let mut rows = stmt.query([range.start, range.end])?;
            while let Some(row) = rows.next()? {
                requests = requests.saturating_add(u64::from(row.get::<_, bool>(0)?));
                if let Some(Id(connection)) = row.get(1)? {
                    in_rows.entry(connection).or_insert(row.get::<_, i64>(2)?.div_euclid(HOUR));
                }
            }
        }
        for (connection, hour) in in_rows {
            if hours.is_empty() || elsewhere(rollup::first_hour(&self.conn, connection, hour)?) {
                by_name.insert(connection);
            }
        }
        Ok((requests, counted.saturating_add(by_name.len() as u64)))
    }

    fn lines_lost(
        &self,
        window: Window,
        mut told: BTreeMap<Timestamp, u64>,
    ) -> Result<u64, LedgerError> {
        let mut stmt = self.conn.prepare(
            "SELECT at, rows FROM losses WHERE at >= ? AND at < ? AND reason = 'spool_full'",
        )?;
        let mut rows = stmt.query([window.from.as_microsecond(), window.to.as_microsecond()])?;
        while let Some(row) = rows.next()? {
            told.insert(row.get::<_, Micros>(0)?.0, count(row.get(1)?));
        }
        let within = told.iter().filter(|(at, _)| window.contains(**at));
        Ok(within.fold(0, |sum, (_, lines)| sum.saturating_add(*lines)))
    }

    fn add_stored_passed(&self, window: Window, sum: &mut Sum) -> Result<(), LedgerError> {
        let mut stmt = self.conn.prepare(
            "SELECT host, reason, count(*), coalesce(sum(bytes_up + bytes_down), 0), min(at), max(at) \
             FROM passed WHERE at >= ? AND at < ? GROUP BY host, reason",
        )?;
        let mut rows = stmt.query([window.from.as_microsecond(), window.to.as_microsecond()])?;
        while let Some(row) = rows.next()? {
            let mut c = Columns::new(row);
            let (host, reason): (String, String) = (c.next()?, c.next()?);
            let (connections, bytes) = (count(c.next()?), count(c.next()?));
            let (first, last) = (c.next::<Micros>()?.0, c.next::<Micros>()?.0);
            sum.add(GapKind::Passed, &host, &reason, connections, bytes, (first, last));
        }
        Ok(())
    }

    /// Adds what the database does not say of it yet.
    fn add_spooled(&self, passed: &Passed, sum: &mut Sum) -> Result<(), LedgerError> {
        let bytes = passed.end.map_or(0, |end| end.bytes());
        let (connections, bytes) = match self.stored_passed(passed.id)? {
            None => (1, bytes),
            Some(false) => (0, bytes),
            Some(true) => (0, 0),
        };
        let when = (passed.at, passed.at);
        sum.add(GapKind::Passed, &passed.host, &passed.reason, connections, bytes, when);
        Ok(())
    }

    /// Whether a passed connection's end is stored; `None`: it is not stored at all.
    fn stored_passed(&self, id: Uuid) -> Result<Option<bool>, LedgerError> {
        let mut stmt =
            self.conn.prepare_cached("SELECT duration_ms IS NOT NULL FROM passed WHERE id = ?")?;
        Ok(stmt.query_row([id.as_bytes().as_slice()], |row| row.get(0)).optional()?)
    }

    fn rows_of(&self, connection: Uuid) -> Result<u64, LedgerError> {
        let clause = Clause::default().named(Some(Named::connection(connection)));
        let (sql, values) = clause.select("SELECT count(*)");
        let mut stmt = self.conn.prepare_cached(&sql)?;
        Ok(stmt.query_row(params_from_iter(values), |row| row.get(0).map(count))?)
    }

    fn stored_unfinished(&self, window: Window) -> Result<Vec<(Uuid, Unfinished)>, LedgerError> {
        let mut stmt = self.conn.prepare(
            "SELECT id, at, host, requests, reason FROM unfinished WHERE at >= ? AND at < ?",
        )?;
        let range = params![window.from.as_microsecond(), window.to.as_microsecond()];
        let found = stmt.query_map(range, |row| {
            let mut c = Columns::new(row);
            let id = c.next::<Id>()?.0;
            let at = c.next::<Micros>()?.0;
            let (host, requests) = (c.next()?, count(c.next()?));
            Ok((id, Unfinished { at, host, requests, reason: c.next()? }))
        })?;
        Ok(found.collect::<Result<_, _>>()?)
    }
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// A coverage in the making.
struct Sum {
    coverage: Coverage,
    gaps: BTreeMap<(GapKind, String, String), Gap>,
}

impl Sum {
    fn add(
        &mut self,
        kind: GapKind,
        host: &str,
        reason: &str,
        connections: u64,
        bytes: u64,
        (first, last): (Timestamp, Timestamp),
    ) {
        let gap =
            self.gaps.entry((kind, host.to_owned(), reason.to_owned())).or_insert_with(|| {
                let provider = surface::route(host, false, "", "", false).provider;
                let (host, reason) = (host.to_owned(), reason.to_owned());
                let (first_at, last_at) = (first, last);
                Gap { kind, provider, host, reason, connections: 0, bytes: 0, first_at, last_at }
            });
        gap.connections = gap.connections.saturating_add(connections);
        gap.bytes = gap.bytes.saturating_add(bytes);
        gap.first_at = gap.first_at.min(first);
        gap.last_at = gap.last_at.max(last);
    }

    fn unfinished(&mut self, connection: &Unfinished, rows: u64, passed: bool) {
        let kind = match judge(connection, rows, passed) {
            Fate::Passed => return,
            Fate::Metered => None,
            Fate::Cut => Some(GapKind::Cut),
            Fate::Unfollowed => Some(GapKind::Unfollowed),
            Fate::Lost => Some(GapKind::Lost),
        };
        let lost = connection.requests.saturating_sub(rows);
        self.coverage.lost_rows = self.coverage.lost_rows.saturating_add(lost);
        if let Some(kind) = kind {
            let when = (connection.at, connection.at);
            self.add(kind, &connection.host, &connection.reason, 1, 0, when);
        }
    }

    fn finish(self) -> Coverage {
        let mut found = self.coverage;
        for gap in self.gaps.into_values() {
            let of_kind = match gap.kind {
                GapKind::Passed => {
                    found.passed_bytes = found.passed_bytes.saturating_add(gap.bytes);
                    let reason = found.passed_by_reason.entry(gap.reason.clone()).or_default();
                    *reason = reason.saturating_add(gap.connections);
                    &mut found.passed_connections
                }
                GapKind::Cut => &mut found.cut_connections,
                GapKind::Unfollowed => &mut found.unfollowed_connections,
                GapKind::Lost => &mut found.lost_connections,
            };
            *of_kind = of_kind.saturating_add(gap.connections);
            found.gaps.push(gap);
        }
        found
    }
}

#[cfg(test)]
#[path = "coverage_tests.rs"]
mod tests;
