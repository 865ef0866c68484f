//! The thread that makes roll-ups: beside the writer, never in its way.
//!
//! It looks for hours without one soon after the daemon's start, whenever an hour ends, and when there
//! are fewer than there were (a row of an old hour was changed): newest first. It rests as long as it
//! works, and gives up at any error until the next look. A row written while its hour is being added up
//! takes the ticket away, and the result is dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};
use slog::Logger;
use uuid::Uuid;

use super::{HOUR, VERSION, add_up};
use crate::beat;
use crate::meter::ledger::schema::{self, FileId};
use crate::meter::ledger::{LedgerError, damage};

/// Nothing is rolled up while a daemon starts.
const QUIET: Duration = Duration::from_secs(10);
/// Requests of an hour still end some time after it.
const SETTLE: i64 = HOUR / 12;
/// A lock is waited for so long; whoever else wants to write has waited less.
const BUSY: Duration = Duration::from_millis(100);
/// A connection is used so long: the file may have been moved meanwhile.
const STRETCH: Duration = Duration::from_secs(1);
/// How often it is looked whether some are gone.
const LOOKS: Duration = Duration::from_secs(60);

/// The thread's handle; it ends when this is dropped, and is not waited for.
#[derive(Debug)]
pub(in super::super) struct Roller(Arc<Stop>);

#[derive(Debug, Default)]
struct Stop {
    ordered: Mutex<bool>,
    changed: Condvar,
}

impl Roller {
    /// `damaged` hears of a file that turns out to be damaged.
    pub(in super::super) fn start(
        path: PathBuf,
        log: Logger,
        damaged: impl Fn(FileId) + Send + 'static,
    ) -> Result<Self, LedgerError> {
        let stop = Arc::new(Stop::default());
        let seen = Arc::clone(&stop);
        thread::Builder::new()
            .name("rollups".to_owned())
            .spawn(move || live(&path, &log, &seen, &damaged))
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
    let mut sweep = Sweep::default();
    sweep.all(path, due(now), &|| false, &|_| false)?;
    Ok(sweep.made)
}

fn live(path: &Path, log: &Logger, stop: &Stop, damaged: &dyn Fn(FileId)) {
    let mut wait = QUIET;
    let mut last = Last::default();
    while !stop.rest(wait) {
        let (ordered, rest) = (|| stop.ordered(), |time| stop.rest(time));
        match last.again(path, due(Timestamp::now()), &ordered, &rest) {
            Ok(0) => {}
            Ok(made) => slog::debug!(log, "rolled up"; "hours" => made),
            Err(e) => {
                slog::debug!(log, "could not roll up"; "error" => e.to_string());
                // The writer looks at all of a small ledger only.
                if e.is_damage()
                    && let Some(file) = FileId::of(path)
                    && damage::is_damaged(path)
                {
                    damaged(file);
                }
            }
        }
        wait = until_due(Timestamp::now()).min(beat::until(LOOKS));
    }
}

/// What the last sweep came to.
#[derive(Default)]
struct Last {
    below: i64,
    hours: i64,
    files: [Option<(SystemTime, u64)>; 2],
}

impl Last {
    /// Sweeps, if there may be something to do. Returns how many were made.
    fn again(
        &mut self,
        path: &Path,
        below: i64,
        stop: &dyn Fn() -> bool,
        rest: &dyn Fn(Duration) -> bool,
    ) -> Result<u64, LedgerError> {
        let files = files(path);
        let untouched = std::mem::replace(&mut self.files, files) == files;
        if self.below == below && (untouched || count(path)? >= self.hours) {
            return Ok(0);
        }
        // More than there can be, until it succeeds.
        (self.below, self.hours) = (below, i64::MAX);
        let mut sweep = Sweep::default();
        sweep.all(path, below, stop, rest)?;
        self.hours = sweep.hours;
        Ok(sweep.made)
    }
}

/// What tells, without opening it, that nobody wrote to a ledger.
fn files(path: &Path) -> [Option<(SystemTime, u64)>; 2] {
    let [main, wal, _] = schema::siblings(&schema::behind_links(path)).map(|file| {
        let meta = fs::metadata(file).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    });
    [main, wal]
}

/// How many roll-ups there are.
fn count(path: &Path) -> Result<i64, LedgerError> {
    // Not to write: who closes it last would write the WAL to a file that was just put there.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    Ok(conn.query_row("SELECT count(*) FROM rollups", [], |row| row.get(0))?)
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

#[derive(Default)]
struct Sweep {
    made: u64,
    /// That have rows, whether theirs could be made or not.
    hours: i64,
}

impl Sweep {
    /// Rolls up hours before `below`.
    fn all(
        &mut self,
        path: &Path,
        below: i64,
        stop: &dyn Fn() -> bool,
        rest: &dyn Fn(Duration) -> bool,
    ) -> Result<(), LedgerError> {
        let mut below = below;
        while let Some(hour) = self.stretch(path, below, stop, rest)? {
            below = hour;
        }
        Ok(())
    }

    /// For a while. Returns where to go on; `None`: nowhere.
    fn stretch(
        &mut self,
        path: &Path,
        below: i64,
        stop: &dyn Fn() -> bool,
        rest: &dyn Fn(Duration) -> bool,
    ) -> Result<Option<i64>, LedgerError> {
        let Some(conn) = open(path)? else { return Ok(None) };
        let opened = Instant::now();
        let mut below = below;
        while let Some(hour) = newest(&conn, below)? {
            self.hours += 1;
            if !rolled(&conn, hour)? {
                let begun = Instant::now();
                self.made += u64::from(build(&conn, hour, stop)?);
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
}

/// A ledger that is there and of this version.
fn open(path: &Path) -> Result<Option<Connection>, LedgerError> {
    if !path.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    schema::checkpoint_in_order(&conn)?;
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
    let Some((cells, superfluous)) = add_up(conn, hour, stop)? else { return Ok(false) };
    #[cfg(test)]
    tests::before_store(hour);
    let tx = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let changed = tx
        .prepare_cached("UPDATE rollups SET cells = ? WHERE hour = ? AND ticket = ?")?
        .execute(params![cells, hour, ticket])?;
    // The ticket tells that all rows are as they were.
    if changed == 1 {
        superfluous.iter().try_for_each(|entry| entry.remove(&tx))?;
    }
    tx.commit()?;
    Ok(changed == 1)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::meter::ledger::fixture::{home, row, store};
    use crate::meter::ledger::{Retag, Selection, retag};

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
    fn it_checkpoints_in_order() {
        let (_dir, home) = home();
        store(&home, &[row(1, "2026-11-24T10:59:59Z")]);
        let conn = open(&home.ledger_file()).unwrap().unwrap();
        let full = conn.pragma_query_value(None, "checkpoint_fullfsync", |row| row.get(0));
        assert_eq!(full, Ok(1));
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
    fn what_a_change_took_away_is_made_again_at_the_next_look() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let mut last = Last::default();
        let mut look = |now| last.again(&path, due(now), &|| false, &|_| false).unwrap();
        assert_eq!(look(now()), 0);
        let rows = ["2026-11-20T01:00:00Z", "2026-11-24T10:59:59Z", "2026-11-24T11:00:00Z"];
        store(&home, &(1..).zip(rows).map(|(n, at)| row(n, at)).collect::<Vec<_>>());
        let later = now() + Duration::from_secs(60);
        assert_eq!((look(later), look(later)), (3, 0));
        let to = Retag::To("other".to_owned());
        assert_eq!(retag(&home, &Selection::default(), &to, false).unwrap().changed, 3);
        assert_eq!((look(later), look(later)), (3, 0));
        // One that goes while others are made is missed as well.
        let delete = |path: &Path| {
            Connection::open(path).unwrap().execute("DELETE FROM rollups", []).unwrap();
        };
        // The clock of a file system is coarse.
        thread::sleep(Duration::from_millis(30));
        delete(&path);
        let meanwhile = path.clone();
        MEANWHILE.set(Some(Box::new(move || delete(&meanwhile))));
        assert_eq!((look(later), look(later), look(later)), (2, 1, 0));
    }

    #[test]
    fn no_ledger_no_rollups_and_no_file() {
        let (_dir, home) = home();
        assert_eq!(roll_up(&home.ledger_file(), now()).unwrap(), 0);
        assert!(!home.ledger_file().exists());
    }
}
