//! Roll-ups: what the rows of an hour add up to, so that a report need not read them.
//!
//! A roll-up is only a copy. Triggers (`009_seen.sql`) take it away in the transaction that
//! changes a row of its hour; a thread of its own ([`roller`]) makes those that are missing some time
//! after the hour ended; what has none is read row by row. So no path that writes rows needs to
//! know of them (docs/adr/0012-rollups.md).

mod codec;
mod roller;

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use uuid::Uuid;

#[cfg(any(test, fuzzing))]
pub(super) use codec::again;
pub(super) use codec::{decode, decode_head};
pub(super) use roller::Roller;
pub use roller::roll_up;

use super::clause::{Clause, Named};
use super::query::{SAMPLE, sample};
use super::record::{Columns, Id};
use super::report::Window;
use super::seen::{Entry, Kind, MINUTE, minute, superfluous};
use super::tally::Sums;

/// Microseconds of an hour.
pub(super) const HOUR: i64 = 3_600_000_000;
/// Of the encoding and of what is in it; roll-ups of another version are made anew.
const VERSION: i64 = 4;

/// What of an hour is not by group.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Head {
    /// Requests to models.
    pub(super) requests: u64,
    /// Connections whose first row of all is in this hour.
    pub(super) first: u64,
    /// The other connections with a row in this hour, and the hour of their first one.
    pub(super) carried: Vec<(Uuid, i64)>,
}

/// Requests that have everything in common that a report groups by.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Key<'a> {
    pub(super) project: Option<&'a str>,
    pub(super) model: Option<&'a str>,
    pub(super) provider: Option<&'a str>,
    pub(super) client: Option<&'a str>,
    pub(super) session: Option<&'a str>,
    pub(super) agent: Option<&'a str>,
}

/// Calls `take` with every roll-up in the window that is whole, in their order. Returns the ranges
/// whose rows must be read: the rest, and what `take` refused.
pub(super) fn read(
    conn: &Connection,
    window: Window,
    mut take: impl FnMut(i64, &[u8]) -> bool,
) -> rusqlite::Result<Vec<Range<i64>>> {
    let (from, to) = (window.from.as_microsecond(), window.to.as_microsecond());
    let first = from.div_euclid(HOUR) + i64::from(from.rem_euclid(HOUR) > 0);
    let mut stmt = conn.prepare_cached(
        "SELECT hour, cells FROM rollups WHERE hour >= ? AND hour < ? AND version = ? \
         AND cells IS NOT NULL ORDER BY hour",
    )?;
    let mut rows = stmt.query(params![first, to.div_euclid(HOUR), VERSION])?;
    let mut rest = Vec::new();
    let mut seen = from;
    while let Some(row) = rows.next()? {
        let hour: i64 = row.get(0)?;
        if take(hour, row.get_ref(1)?.as_blob()?) {
            if seen < hour * HOUR {
                rest.push(seen..hour * HOUR);
            }
            seen = (hour + 1) * HOUR;
        }
    }
    if seen < to {
        rest.push(seen..to);
    }
    Ok(rest)
}

/// The hour of the first row of a connection that has one in `hour`.
pub(super) fn first_hour(conn: &Connection, connection: Uuid, hour: i64) -> rusqlite::Result<i64> {
    const MINUTES: i64 = HOUR / MINUTE;
    let first: Option<i64> = conn
        .prepare_cached("SELECT min(minute) FROM seen WHERE kind = ? AND name = ?")?
        .query_row(params![Kind::Connection as i64, connection.as_bytes().as_slice()], |row| {
            row.get(0)
        })?;
    // Few last as long as into another hour.
    if first.is_none_or(|first| first >= hour * MINUTES) {
        return Ok(hour);
    }
    let (sql, values) = Clause::default()
        .between(None, Some(hour * HOUR))
        .named(Some(Named::connection(connection)))
        .ordered("SELECT started_at", false);
    let earlier: Option<i64> = conn
        .prepare_cached(&format!("{sql} LIMIT 1"))?
        .query_row(params_from_iter(values), |row| row.get(0))
        .optional()?;
    Ok(earlier.map_or(hour, |at| at.div_euclid(HOUR)))
}

/// Adds up an hour, and finds what of it is superfluous in `seen`. `None`: `stop` said so.
fn add_up(
    conn: &Connection,
    hour: i64,
    stop: &dyn Fn() -> bool,
) -> rusqlite::Result<Option<(Vec<u8>, Vec<Entry>)>> {
    const BETWEEN_LOOKS: u32 = 256;
    let snapshot = conn.unchecked_transaction()?;
    let mut head = Head::default();
    let mut cells: HashMap<Owned, Sums> = HashMap::new();
    let mut connections = HashSet::new();
    let mut asked = HashSet::new();
    let sql = format!(
        "SELECT started_at, iif(model <> model_requested, model_requested, NULL), \
         billable, connection, project, provider, client, session, agent, {SAMPLE} \
         FROM requests WHERE started_at >= ? AND started_at < ?"
    );
    let mut stmt = snapshot.prepare_cached(&sql)?;
    let mut rows = stmt.query([hour * HOUR, (hour + 1) * HOUR])?;
    let mut until_look = BETWEEN_LOOKS;
    while let Some(row) = rows.next()? {
        until_look -= 1;
        if until_look == 0 {
            until_look = BETWEEN_LOOKS;
            if stop() {
                return Ok(None);
            }
        }
        let mut c = Columns::new(row);
        let (at, elsewhere): (i64, Option<String>) = (c.next()?, c.next()?);
        asked.extend(elsewhere.map(|model| (model, minute(at))));
        let billable: bool = c.next()?;
        connections.extend(c.next::<Option<Id>>()?.map(|id| id.0));
        if !billable {
            continue;
        }
        head.requests += 1;
        let (project, provider, client) = (c.next()?, c.next()?, c.next()?);
        let (session, agent) = (c.next()?, c.next()?);
        let sample = sample(&mut c)?;
        let model = sample.model.clone();
        cells.entry([project, model, provider, client, session, agent]).or_default().add(&sample);
    }
    drop(rows);
    for connection in connections {
        if stop() {
            return Ok(None);
        }
        match first_hour(&snapshot, connection, hour)? {
            first if first == hour => head.first += 1,
            earlier => head.carried.push((connection, earlier)),
        }
    }
    head.carried.sort_unstable();
    let mut cells: Vec<_> = cells.iter().map(|(owned, sums)| (key(owned), sums)).collect();
    cells.sort_by_key(|(key, _)| (key.project, key.model, key.session, key.agent));
    let superfluous = superfluous(&snapshot, hour, asked)?;
    Ok(Some((codec::encode(&head, &cells), superfluous)))
}

/// [`Key`]'s fields in their order.
type Owned = [Option<String>; 6];

fn key(owned: &Owned) -> Key<'_> {
    let [project, model, provider, client, session, agent] = owned.each_ref().map(Option::as_deref);
    Key { project, model, provider, client, session, agent }
}

#[cfg(test)]
mod tests;
