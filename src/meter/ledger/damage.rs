//! Whether all of a ledger can be read, however large it is, and what to do when it can't.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};

use super::backoff::Fault;
use super::query::Ledger;
use super::{LedgerError, existing};

/// How much was looked at without finding damage.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checked {
    Whole,
    /// There was no time for the rest.
    InPart,
}

impl Ledger {
    /// Reads all of the file, for so long.
    ///
    /// # Errors
    /// When it is damaged, or can't be read at all.
    pub fn check(&self, patience: Duration) -> Result<Checked, LedgerError> {
        let stop = self.conn.get_interrupt_handle();
        let (done, waits) = channel::<()>();
        let timer = thread::Builder::new().name("patience".to_owned()).spawn(move || {
            if waits.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                stop.interrupt();
            }
        });
        // Without it, it would take as long as it takes.
        let timer = timer.map_err(LedgerError::Thread)?;
        let found = quick(&self.conn);
        drop(done);
        // One that panicked has not interrupted anything.
        let _ = timer.join();
        match found {
            Ok(()) => Ok(Checked::Whole),
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                Ok(Checked::InPart)
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl LedgerError {
    /// The file is damaged, or is no database.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        Fault::of(self) == Fault::Corrupt
    }
}

/// What is left to do about one: nothing of it is deleted.
#[must_use]
pub fn recovery(path: &Path) -> String {
    let path = path.display();
    format!(
        "`halton-meter stop`, then `sqlite3 '{path}' .recover | sqlite3 '{path}.new'` saves what can be read (with \
         sqlite.org's sqlite3; Debian's can't); move the file away with its -wal and -shm, and put that, a backup, or \
         nothing in its place; `halton-meter start`"
    )
}

/// Whether a reader that met damage saw right: all of it is read again, which may take long.
pub(super) fn is_damaged(path: &Path) -> bool {
    let found = existing::to_read(path).and_then(|conn| match conn {
        Some(conn) => quick(&conn).map_err(LedgerError::from),
        None => Ok(()),
    });
    found.is_err_and(|e| e.is_damage())
}

/// Reads all of it, to the first thing that is wrong.
pub(super) fn quick(conn: &Connection) -> rusqlite::Result<()> {
    let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(damaged(found)) }
}

pub(super) fn damaged(why: String) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(why))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::meter::ledger::fixture::{home, minutes, store};

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn damage_in_the_middle_is_found() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        store(&home, &minutes(2000));
        assert_eq!(Ledger::open(&home).unwrap().check(LONG).unwrap(), Checked::Whole);
        assert!(!is_damaged(&path));
        let file = File::options().write(true).open(&path).unwrap();
        let middle = fs::metadata(&path).unwrap().len() / 2 / 4096 * 4096;
        file.write_all_at(&[0x5a; 3 * 4096], middle).unwrap();
        let found = Ledger::open(&home).unwrap().check(LONG).unwrap_err();
        assert!(found.is_damage(), "{found}");
        assert!(is_damaged(&path));
    }

    #[test]
    fn none_yet_is_whole_and_without_time_little_is_said() {
        let (_dir, home) = home();
        assert_eq!(Ledger::open(&home).unwrap().check(LONG).unwrap(), Checked::Whole);
        store(&home, &minutes(2000));
        // Either may be first.
        Ledger::open(&home).unwrap().check(Duration::ZERO).unwrap();
    }
}
