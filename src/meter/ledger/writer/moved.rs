//! A ledger that is removed, renamed away, or has another one put in its place, while it is in use.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::faults::free_name;
use super::{Db, Worker};
use crate::meter::ledger::schema::{self, FileId, Files};

/// So long readers of what was before may hold it up: rows wait meanwhile.
const READERS: Duration = Duration::from_secs(1);

impl Worker {
    /// Closes the database. Returns which file that was.
    ///
    /// Its WAL may still lie at the path when the file no longer does. SQLite would take it for that of
    /// the next file there: it deletes it beside a new one, and plays it over a restored one.
    pub(super) fn let_go(&mut self) -> Option<FileId> {
        let closed = self.db.take().map(|Db { conn, files, .. }| {
            if files.left_wal() {
                self.bring_home(&conn, &files.at);
            }
            files.main
        });
        // On a full disk it stays. One that is gone gives its number to whoever comes next.
        self.files = self.files.take().filter(Files::wal_is_there);
        closed
    }

    /// Whether another file will be opened than last time. By its number alone that does not show: a
    /// file that is made where one was removed may have the same.
    pub(super) fn last_is_gone(&self) -> bool {
        let path = &self.config.path;
        let is_missing = || fs::metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound);
        self.last
            .is_some_and(|last| is_missing() || FileId::of(path).is_some_and(|now| now != last))
    }

    /// Tells its successor of it, and the log.
    pub(super) fn note_gone(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.execute(
            "INSERT INTO losses (at, rows, reason) VALUES (?, 0, 'ledger_gone')",
            params![Timestamp::now().as_microsecond()],
        )?;
        slog::error!(
            self.config.log,
            "the ledger was removed, moved away or replaced; reports count what the one there has"
        );
        Ok(())
    }

    /// Whether the file that is open is another one than whoever opens the path now would get.
    pub(super) fn was_taken(&self) -> bool {
        self.db.as_ref().is_some_and(|db| !db.files.are_at(&self.config.path))
    }

    /// Closes a file that turned out to be corrupt. Whether it is the one at the path: another may have been
    /// put there meanwhile, or its WAL may be elsewhere; the next turn looks at that.
    pub(super) fn is_at_the_path_when_let_go(&mut self) -> bool {
        let taken = self.was_taken();
        let corrupt = self.let_go().or(self.opened);
        !taken && corrupt == FileId::of(&self.config.path)
    }

    /// The same, before a file is opened, for one that was taken away while nobody had it open: the
    /// disk was full, or an earlier daemon was killed.
    pub(super) fn keep_orphan(&self) {
        let link = &self.config.path;
        let path = schema::behind_links(link);
        let left = self.files.as_ref().filter(|files| files.left_wal()).map(|files| &files.at);
        let missing = matches!(path.try_exists(), Ok(false)).then_some(&path);
        // Beside a link it is that of the file that was there before: SQLite looks for none there.
        let linked = (*link != path).then_some(link);
        for path in [left, missing, linked].into_iter().flatten() {
            let [_, wal, _] = schema::siblings(path);
            if fs::metadata(&wal).is_ok_and(|meta| meta.len() > 0) {
                self.keep_wal(path, "it was not open");
            }
        }
    }

    /// Writes what is in the WAL to the file that it belongs to, whatever that is called by now; or
    /// keeps it aside.
    fn bring_home(&self, conn: &Connection, path: &Path) {
        let why = match checkpoint(conn) {
            Ok(true) => {
                slog::warn!(
                    self.config.log,
                    "the ledger was moved in use; all rows until now went along"
                );
                let [_, wal, shm] = schema::siblings(path);
                let _ = fs::remove_file(wal);
                let _ = fs::remove_file(shm);
                return;
            }
            Ok(false) => "another program reads it".to_owned(),
            Err(e) => e.to_string(),
        };
        self.keep_wal(path, &why);
    }

    fn keep_wal(&self, path: &Path, why: &str) {
        let log = &self.config.log;
        let [_, wal, shm] = schema::siblings(path);
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
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::Instant;

    use rusqlite::config::DbConfig;

    use super::*;
    use crate::meter::ledger::fixture::{config, home, row, store, stored};
    use crate::meter::ledger::intake::Shared;
    use crate::meter::ledger::writer::tests::{T, late, soon};
    use crate::meter::ledger::{Intake, Ledger, Window, fixture, record, start_writer};

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

    fn kept_beside(path: &Path) -> Option<PathBuf> {
        let mut names =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        names.find(|name| name.to_string_lossy().contains(".moved-"))
    }

    /// Some rows by a connection that will leave its WAL when it is closed, as on a full disk.
    fn write_to_wal(conn: &Connection) {
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        (0..300).for_each(|n| record::write(conn, &row(n, T)).unwrap());
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
    fn one_that_is_taken_away_is_a_gap_in_the_report() {
        let remove =
            |path: &Path| schema::siblings(path).iter().for_each(|f| drop(fs::remove_file(f)));
        let rename = |path: &Path| fs::rename(path, path.with_file_name("old.sqlite")).unwrap();
        for take_away in [remove, rename] as [fn(&Path); 2] {
            let (_dir, home) = home();
            let gone = || {
                let all = Window { from: Timestamp::MIN, to: Timestamp::MAX };
                let coverage = Ledger::open(&home).unwrap().coverage(all).unwrap();
                assert!(coverage.set_aside.is_empty() && coverage.lost_rows == 0, "{coverage:?}");
                coverage.ledgers_gone
            };
            let path = home.ledger_file();
            let (intake, writer) = start_writer(config(&home)).unwrap();
            intake.record(row(1, T));
            assert!(intake.flush(late()));
            assert_eq!(gone(), 0);
            take_away(&path);
            until_anew(&intake, &path);
            assert!(writer.stop(late()));
            assert_eq!(gone(), 1);
            let (_, writer) = start_writer(config(&home)).unwrap();
            assert!(writer.stop(late()));
            assert_eq!(gone(), 1, "told once");
        }
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

    /// Records a row now and then until a file is as it should be. Returns how many.
    fn until(intake: &Intake, is: impl Fn() -> bool) -> u64 {
        let end = late();
        let mut n = 0;
        while !is() {
            assert!(Instant::now() < end, "{:?}", intake.stats());
            intake.record(row(20_000 + u128::from(n), T));
            let _ = intake.flush(soon());
            n += 1;
        }
        n
    }

    #[test]
    fn one_that_is_moved_and_linked_to_is_the_same_one() {
        for checkpointed in [false, true] {
            let (dir, home) = home();
            let path = home.ledger_file();
            let target = dir.path().join("other.sqlite");
            let (intake, writer) = start_writer(config(&home)).unwrap();
            (0..300).for_each(|n| intake.record(row(n, T)));
            assert!(intake.flush(late()));
            if checkpointed {
                let other = Connection::open(&path).unwrap();
                assert!(checkpoint(&other).unwrap());
            }
            let [_, old_wal, _] = schema::siblings(&path);
            let [_, wal, _] = schema::siblings(&target);
            fs::rename(&path, &target).unwrap();
            symlink(&target, &path).unwrap();
            let since = until(&intake, || !old_wal.exists() && wal.exists());
            intake.record(row(1000, T));
            assert!(intake.flush(late()));
            assert!(path.is_symlink());
            // As if all were killed: what is read now does not wait for the writer's end.
            assert_eq!(stored(&path), 301 + since);
            assert!(writer.stop(late()));
            assert_eq!((intake.stats().set_aside, kept_beside(&path)), (None, None));
            assert!(is_whole(&target));
            let all = Window { from: Timestamp::MIN, to: Timestamp::MAX };
            assert_eq!(Ledger::open(&home).unwrap().coverage(all).unwrap().ledgers_gone, 0);
        }
    }

    #[test]
    fn a_corrupt_one_behind_a_link_is_set_aside_where_it_is() {
        let (dir, home) = home();
        let path = home.ledger_file();
        let target = dir.path().join("other.sqlite");
        fs::write(&target, b"no database".repeat(1000)).unwrap();
        symlink(&target, &path).unwrap();
        let (intake, writer) = start_writer(config(&home)).unwrap();
        intake.record(row(1, T));
        assert!(intake.flush(late()));
        assert!(writer.stop(late()));
        let kept = intake.stats().set_aside.unwrap();
        assert!(kept.starts_with(dir.path()) && kept.parent() == target.parent());
        assert!(path.is_symlink() && !target.is_symlink());
        assert_eq!(stored(&target), 1);
    }

    #[test]
    fn the_wal_that_lies_beside_a_link_is_kept() {
        let (dir, home) = home();
        let path = home.ledger_file();
        let target = dir.path().join("other.sqlite");
        let (conn, _) = schema::open_writer(&path).unwrap();
        write_to_wal(&conn);
        drop(conn);
        fs::rename(&path, &target).unwrap();
        symlink(&target, &path).unwrap();
        let (intake, writer) = start_writer(config(&home)).unwrap();
        intake.record(row(1000, T));
        assert!(intake.flush(late()));
        assert!(writer.stop(late()));
        assert!(kept_beside(&path).is_some());
        assert!(stored(&target) == 1 && is_whole(&target));
    }

    #[test]
    fn a_backup_that_is_renamed_over_it_is_left_whole() {
        for linked in [false, true] {
            let (dir, home) = home();
            let mut path = home.ledger_file();
            if linked {
                path = dir.path().join("other.sqlite");
                symlink(&path, home.ledger_file()).unwrap();
            }
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
        let [_, wal, _] = schema::siblings(&old);
        fs::rename(kept_beside(&path).expect("the WAL"), wal).unwrap();
        assert_eq!(stored(&old) + stored(&path), 300 + since);
        assert!(is_whole(&old) && is_whole(&path));
    }

    #[test]
    fn the_wal_of_a_killed_daemon_is_kept_when_its_file_is_moved_away() {
        let (_dir, home) = home();
        let path = home.ledger_file();
        let old = path.with_file_name("old.sqlite");
        let (conn, _) = schema::open_writer(&path).unwrap();
        write_to_wal(&conn);
        drop(conn);
        fs::rename(&path, &old).unwrap();
        let (intake, writer) = start_writer(config(&home)).unwrap();
        intake.record(row(1000, T));
        assert!(intake.flush(late()));
        assert!(writer.stop(late()));
        let [_, wal, _] = schema::siblings(&old);
        fs::rename(kept_beside(&path).expect("the WAL"), wal).unwrap();
        assert_eq!((stored(&old), stored(&path)), (300, 1));
        assert!(is_whole(&old) && is_whole(&path));
    }

    #[test]
    fn a_wal_that_a_full_disk_left_stays_with_its_file_alone() {
        enum Then {
            Stays,
            IsMoved,
            IsReplaced,
        }
        let cases = [Then::Stays, Then::IsMoved, Then::IsReplaced];
        for (then, panics) in cases.iter().flat_map(|then| [(then, false), (then, true)]) {
            let (_dir, home) = home();
            let path = home.ledger_file();
            let old = path.with_file_name("old.sqlite");
            let (_elsewhere, other) = fixture::home();
            store(&other, &[row(5001, T), row(5002, T)]);
            let config = config(&home);
            let shared = Arc::new(Shared::new(config.limits));
            let mut worker = Worker::new(config, shared);
            let db = worker.open().unwrap();
            write_to_wal(&db.conn);
            if panics {
                drop(db);
            } else {
                worker.db = Some(db);
            }
            worker.let_go();
            match then {
                Then::Stays => {}
                Then::IsMoved => fs::rename(&path, &old).unwrap(),
                Then::IsReplaced => {
                    fs::rename(&path, &old).unwrap();
                    fs::rename(other.ledger_file(), &path).unwrap();
                }
            }
            drop(worker.open().unwrap());
            let rows = match then {
                Then::Stays => {
                    assert_eq!(kept_beside(&path), None);
                    300
                }
                Then::IsMoved => 0,
                Then::IsReplaced => 2,
            };
            assert_eq!(stored(&path), rows);
            assert!(is_whole(&path));
            if old.exists() {
                let [_, wal, _] = schema::siblings(&old);
                fs::rename(kept_beside(&path).expect("the WAL"), wal).unwrap();
                assert_eq!(stored(&old), 300);
                assert!(is_whole(&old));
            }
        }
    }

    #[test]
    fn a_wal_that_was_written_home_is_not_looked_for() {
        let (_dir, home) = home();
        let config = config(&home);
        let shared = Arc::new(Shared::new(config.limits));
        let mut worker = Worker::new(config, shared);
        worker.db = Some(worker.open().unwrap());
        worker.let_go();
        assert!(worker.files.is_none());
    }
}
