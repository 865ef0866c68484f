//! A ledger that is renamed away, or has another one put in its place, while it is open.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::Connection;

use super::{Db, Worker, free_name};
use crate::meter::ledger::schema::{self, FileId};

/// So long readers of what was before may hold it up: rows wait meanwhile.
const READERS: Duration = Duration::from_secs(1);

impl Worker {
    /// Closes the database. Returns which file that was.
    ///
    /// Its WAL may still lie at the path when the file no longer does. SQLite would take it for that of
    /// the next file there: it deletes it beside a new one, and plays it over a restored one.
    pub(super) fn let_go(&mut self) -> Option<FileId> {
        let Db { conn, files } = self.db.take()?;
        if files.left_wal_at(&self.config.path) {
            self.bring_home(&conn);
        }
        Some(files.main)
    }

    /// Writes what is in the WAL to the file that it belongs to, whatever that is called by now; or
    /// keeps it aside.
    fn bring_home(&self, conn: &Connection) {
        let (path, log) = (&self.config.path, &self.config.log);
        let [_, wal, shm] = schema::siblings(path);
        let why = match checkpoint(conn) {
            Ok(true) => None,
            Ok(false) => Some("another program reads it".to_owned()),
            Err(e) => Some(e.to_string()),
        };
        if let Some(why) = why {
            let [_, kept, _] = schema::siblings(&free_name(path, "moved", Timestamp::now()));
            match fs::rename(&wal, &kept) {
                Ok(()) => {
                    slog::error!(log, "the ledger was moved in use; rename this to the name it has \
                        now and -wal, or its last rows are lost";
                        "kept" => kept.display().to_string(), "why" => why);
                }
                Err(e) => {
                    slog::error!(log, "the ledger was moved in use, its last rows may be lost";
                        "why" => why, "error" => e.to_string());
                }
            }
        } else {
            slog::warn!(log, "the ledger was moved in use; all rows until now went along");
            let _ = fs::remove_file(&wal);
        }
        // Who still reads the old file has it open, and must not share it with those of the next.
        let _ = fs::remove_file(&shm);
    }
}

/// Whether all that is in the WAL is in the main file now.
fn checkpoint(conn: &Connection) -> rusqlite::Result<bool> {
    conn.busy_timeout(READERS)?;
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        let (in_wal, written): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(in_wal == written)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Instant;

    use super::*;
    use crate::meter::ledger::fixture::{config, home, row, store, stored};
    use crate::meter::ledger::writer::tests::{T, late, soon};
    use crate::meter::ledger::{Intake, fixture, start_writer};

    /// Records a row now and then until the writer has made a new file. Returns how many.
    fn until_anew(intake: &Intake, path: &Path) -> u64 {
        let end = late();
        let mut n = 0;
        while !path.exists() {
            assert!(Instant::now() < end);
            intake.record(row(10_000 + u128::from(n), T));
            let _ = intake.flush(soon());
            n += 1;
        }
        n
    }

    fn is_whole(path: &Path) -> bool {
        let conn = Connection::open(path).unwrap();
        let found: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        found == "ok"
    }

    #[test]
    fn a_file_that_is_renamed_takes_all_its_rows_along() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let old = path.with_file_name("old.sqlite");
        let (intake, writer) = start_writer(config(&home)).unwrap();
        (0..300).for_each(|n| intake.record(row(n, T)));
        assert!(intake.flush(late()));
        fs::rename(&path, &old).unwrap();
        let since = until_anew(&intake, &path);
        intake.record(row(1000, T));
        assert!(intake.flush(late()));
        assert!(writer.stop(late()));
        let (before, after) = (stored(&old), stored(&path));
        assert!(before >= 300 && after >= 1, "{before}, {after}");
        assert_eq!(before + after, 301 + since);
        assert!(is_whole(&old) && is_whole(&path));
    }

    #[test]
    fn a_file_that_is_renamed_just_before_the_end_too() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let old = path.with_file_name("old.sqlite");
        let (intake, writer) = start_writer(config(&home)).unwrap();
        intake.record(row(1, T));
        assert!(intake.flush(late()));
        fs::rename(&path, &old).unwrap();
        assert!(writer.stop(late()));
        assert_eq!(stored(&old), 1);
    }

    #[test]
    fn a_backup_that_is_renamed_over_it_is_left_whole() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let (_elsewhere, other) = fixture::home();
        store(&other, &[row(5001, T), row(5002, T)]);
        let (intake, writer) = start_writer(config(&home)).unwrap();
        (0..2000).for_each(|n| intake.record(row(n, T)));
        assert!(intake.flush(late()));
        let [_, wal, _] = schema::siblings(&path);
        let length = || fs::metadata(&wal).map_or(0, |meta| meta.len());
        let before = length();
        assert!(before > 100_000);
        fs::rename(other.ledger_file(), &path).unwrap();
        let end = late();
        // To open it here would play the WAL over it as well.
        while length() == before {
            assert!(Instant::now() < end);
            let _ = intake.flush(soon());
        }
        (6001..6006).for_each(|n| intake.record(row(n, T)));
        assert!(intake.flush(late()));
        assert!(writer.stop(late()));
        assert_eq!(intake.stats().set_aside, None);
        assert!(is_whole(&path));
        assert_eq!(stored(&path), 7);
    }

    #[test]
    fn what_a_reader_holds_up_is_kept_aside() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let old = path.with_file_name("old.sqlite");
        let (intake, writer) = start_writer(config(&home)).unwrap();
        intake.record(row(1, T));
        assert!(intake.flush(late()));
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN").unwrap();
        reader.query_row("SELECT count(*) FROM requests", [], |_| Ok(())).unwrap();
        (2..=300).for_each(|n| intake.record(row(n, T)));
        assert!(intake.flush(late()));
        fs::rename(&path, &old).unwrap();
        let since = until_anew(&intake, &path);
        assert!(intake.flush(late()));
        assert!(writer.stop(late()));
        drop(reader);
        let names =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let mut kept = names.filter(|name| name.to_string_lossy().contains(".moved-"));
        let [_, wal, _] = schema::siblings(&old);
        fs::rename(kept.next().expect("the WAL"), wal).unwrap();
        assert_eq!(stored(&old) + stored(&path), 300 + since);
        assert!(is_whole(&old) && is_whole(&path));
    }
}
