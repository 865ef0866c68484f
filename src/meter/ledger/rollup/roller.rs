//! The thread that makes roll-ups: beside the writer, never in its way.
//!
//! It looks for hours without one soon after the daemon's start and whenever an hour ends, newest
//! first, rests as long as it works, and gives up at any error until the next time. A row written
//! while its hour is being added up takes the ticket away, and the result is dropped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use slog::Logger;
use uuid::Uuid;

use super::{HOUR, VERSION, add_up};
use crate::meter::ledger::{LedgerError, schema};

/// Nothing is rolled up while a daemon starts.
const QUIET: Duration = Duration::from_secs(10);
/// Requests of an hour still end some time after it.
const SETTLE: i64 = HOUR / 12;
/// A lock is waited for so long; whoever else wants to write has waited less.
const BUSY: Duration = Duration::from_millis(100);
/// A connection is used so long: the file may have been moved meanwhile.
const STRETCH: Duration = Duration::from_secs(1);

/// The thread's handle; it ends when this is dropped, and is not waited for.
#[derive(Debug)]
pub(in super::super) struct Roller(Arc<Stop>);

#[derive(Debug, Default)]
struct Stop {
    ordered: Mutex<bool>,
    changed: Condvar,
}

impl Roller {
    pub(in super::super) fn start(path: PathBuf, log: Logger) -> Result<Self, LedgerError> {
        let stop = Arc::new(Stop::default());
        let seen = Arc::clone(&stop);
        thread::Builder::new()
            .name("rollups".to_owned())
            .spawn(move || live(&path, &log, &seen))
            .map_err(LedgerError::Thread)?;
        Ok(Self(stop))
    }
}

impl Drop for Roller {
    fn drop(&mut self) {
        *self.0.ordered.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.changed.notify_all();
    }
}

impl Stop {
    /// Waits; `true`: to end.
    fn rest(&self, time: Duration) -> bool {
        let ordered = self.ordered.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(ordered, time, |ordered| !*ordered);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn ordered(&self) -> bool {
        *self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes every roll-up that is missing now. Returns how many.
pub fn roll_up(path: &Path, now: Timestamp) -> Result<u64, LedgerError> {
    let mut made = 0;
    let mut below = due(now);
    while let Some(hour) = sweep(path, below, &mut made, &|| false, &|_| false)? {
        below = hour;
    }
    Ok(made)
}

fn live(path: &Path, log: &Logger, stop: &Stop) {
    let mut wait = QUIET;
    while !stop.rest(wait) {
        let mut made = 0;
        let mut below = due(Timestamp::now());
        let (ordered, rest) = (|| stop.ordered(), |time| stop.rest(time));
        let result = loop {
            match sweep(path, below, &mut made, &ordered, &rest) {
                Ok(Some(hour)) => below = hour,
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            }
        };
        match result {
            Ok(()) if made > 0 => slog::debug!(log, "rolled up"; "hours" => made),
            Ok(()) => {}
            Err(e) => slog::debug!(log, "could not roll up"; "error" => e.to_string()),
        }
        wait = until_due(Timestamp::now());
    }
}

/// The hours before this one are to be rolled up.
fn due(now: Timestamp) -> i64 {
    (now.as_microsecond() - SETTLE).div_euclid(HOUR)
}

/// How long until [`due`] changes.
fn until_due(now: Timestamp) -> Duration {
    let past = (now.as_microsecond() - SETTLE).rem_euclid(HOUR);
    Duration::from_micros(u64::try_from(HOUR - past).unwrap_or_default()) + Duration::from_secs(1)
}

/// Rolls up hours before `below`, for a while. Returns where to go on; `None`: nowhere.
fn sweep(
    path: &Path,
    below: i64,
    made: &mut u64,
    stop: &dyn Fn() -> bool,
    rest: &dyn Fn(Duration) -> bool,
) -> Result<Option<i64>, LedgerError> {
    let Some(conn) = open(path)? else { return Ok(None) };
    let opened = Instant::now();
    let mut below = below;
    while let Some(hour) = newest(&conn, below)? {
        if !rolled(&conn, hour)? {
            let begun = Instant::now();
            *made += u64::from(build(&conn, hour, stop)?);
            if rest(begun.elapsed()) {
                return Ok(None);
            }
        }
        if opened.elapsed() > STRETCH {
            return Ok((!stop()).then_some(hour));
        }
        below = hour;
    }
    Ok(None)
}

/// A ledger that is there and of this version.
fn open(path: &Path) -> Result<Option<Connection>, LedgerError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "synchronous", "normal")?;
    Ok((schema::version(&conn)? == schema::VERSION).then_some(conn))
}

/// The last hour before `below` that has rows.
fn newest(conn: &Connection, below: i64) -> rusqlite::Result<Option<i64>> {
    let mut stmt =
        conn.prepare_cached("SELECT max(started_at) FROM requests WHERE started_at < ?")?;
    let at: Option<i64> = stmt.query_row([below.saturating_mul(HOUR)], |row| row.get(0))?;
    // The triggers divide as SQL does: what is before 1970 is never rolled up.
    Ok(at.filter(|at| *at >= 0).map(|at| at / HOUR))
}

fn rolled(conn: &Connection, hour: i64) -> rusqlite::Result<bool> {
    let mut stmt = conn.prepare_cached(
        "SELECT 1 FROM rollups WHERE hour = ? AND version = ? AND cells IS NOT NULL",
    )?;
    Ok(stmt.query_row([hour, VERSION], |_| Ok(())).optional()?.is_some())
}

/// `false`: a row was written meanwhile, or `stop` said so.
fn build(conn: &Connection, hour: i64, stop: &dyn Fn() -> bool) -> rusqlite::Result<bool> {
    let ticket = Uuid::new_v4();
    let ticket = ticket.as_bytes().as_slice();
    conn.prepare_cached(
        "INSERT OR REPLACE INTO rollups (hour, version, ticket, cells) VALUES (?, ?, ?, NULL)",
    )?
    .execute(params![hour, VERSION, ticket])?;
    let Some(cells) = add_up(conn, hour, stop)? else { return Ok(false) };
    #[cfg(test)]
    tests::before_store(hour);
    let changed = conn
        .prepare_cached("UPDATE rollups SET cells = ? WHERE hour = ? AND ticket = ?")?
        .execute(params![cells, hour, ticket])?;
    Ok(changed == 1)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::meter::ledger::fixture::{home, row, store};

    thread_local! {
        static MEANWHILE: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    }

    pub(super) fn before_store(_: i64) {
        if let Some(happens) = MEANWHILE.take() {
            happens();
        }
    }

    fn now() -> Timestamp {
        "2026-11-24T12:04:59Z".parse().unwrap()
    }

    #[test]
    fn hours_are_due_a_while_after_they_ended() {
        let hour = "2026-11-24T11:00:00Z".parse::<Timestamp>().unwrap().as_microsecond() / HOUR;
        assert_eq!(due(now()), hour);
        assert_eq!(due(now() + Duration::from_secs(1)), hour + 1);
        assert_eq!(until_due(now()), Duration::from_secs(2));
    }

    #[test]
    fn each_whole_hour_is_made_once() {
        let (_dir, home) = home();
        let rows = ["2026-11-20T01:00:00Z", "2026-11-24T10:59:59Z", "2026-11-24T11:00:00Z"];
        store(&home, &(1..).zip(rows).map(|(n, at)| row(n, at)).collect::<Vec<_>>());
        let path = home.ledger_file();
        assert_eq!(roll_up(&path, now()).unwrap(), 2);
        assert_eq!(roll_up(&path, now()).unwrap(), 0);
        // What another version made is made anew.
        let conn = Connection::open(&path).unwrap();
        conn.execute("UPDATE rollups SET version = 0", []).unwrap();
        assert_eq!(roll_up(&path, now()).unwrap(), 2);
    }

    #[test]
    fn a_row_written_meanwhile_is_not_forgotten() {
        let (_dir, home) = home();
        store(&home, &[row(1, "2026-11-20T01:00:00Z")]);
        let path = home.ledger_file();
        let late = [row(2, "2026-11-20T01:30:00Z")];
        MEANWHILE.set(Some(Box::new(move || store(&home, &late))));
        assert_eq!(roll_up(&path, now()).unwrap(), 0);
        assert_eq!(roll_up(&path, now()).unwrap(), 1);
    }

    #[test]
    fn no_ledger_no_rollups_and_no_file() {
        let (_dir, home) = home();
        assert_eq!(roll_up(&home.ledger_file(), now()).unwrap(), 0);
        assert!(!home.ledger_file().exists());
    }
}
