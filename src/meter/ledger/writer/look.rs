//! What the writer does between rows: it looks whether the file can be read by others, and has all of it in
//! one file when it has been quiet for a while.

use std::time::{Duration, Instant};

use super::Worker;
use crate::beat;
use crate::meter::ledger::backoff::Fault;
use crate::meter::ledger::{LedgerError, damage, schema};

/// How often it shows that it lives while there is nothing to write.
const IDLE: Duration = Duration::from_secs(2);

/// How often the file is looked at while rows are written, and at most one part of so many of the
/// time.
const LOOKS: Duration = Duration::from_secs(2);
const LOOK_SHARE: u32 = 1000;
/// On a machine that is too busy for that, too.
const LOOKS_AT_LEAST: Duration = Duration::from_secs(20);

/// After so long without rows what is in the WAL goes to the main file, for who copies that alone. SQLite
/// does it after 16 MiB only.
const QUIET: Duration = Duration::from_secs(60);

impl Worker {
    /// How long without rows until it goes round: what was written last is still to be looked at.
    pub(super) fn rest(&self) -> Duration {
        if self.shared.written() == self.looked_at { beat::until(IDLE) } else { LOOKS }
    }

    /// Whether others can read what was written since the last look. Only damage counts: a lock or
    /// a full disk shows by itself.
    pub(super) fn look(&mut self, now: Instant) -> Result<(), LedgerError> {
        let damaged = self.shared.lock().damaged.take();
        if damaged.is_some() && damaged == self.db.as_ref().map(|db| db.files.main) {
            return Err(damage::damaged("a reader found it damaged".to_owned()).into());
        }
        let written = self.shared.written();
        if std::mem::replace(&mut self.looked_at, written) == written {
            return Ok(());
        }
        let seen = schema::look(&self.config.path);
        self.next_look = now + (now.elapsed() * LOOK_SHARE).clamp(LOOKS, LOOKS_AT_LEAST);
        match seen {
            Err(e) if Fault::of(&e) == Fault::Corrupt => Err(e),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Once after each crowd of rows. It waits for nobody, and what it can't write stays in the WAL.
    pub(super) fn write_home(&mut self) {
        let (Some(db), written) = (&self.db, self.shared.written()) else { return };
        let quiet = self.shared.lock().last_commit.is_some_and(|at| at.elapsed() >= QUIET);
        if quiet && self.pending.is_empty() && self.home_at != written {
            self.home_at = written;
            let _ = db.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::home::Home;
    use crate::meter::ledger::fixture::{config, home, row, stored};
    use crate::meter::ledger::intake::Shared;
    use crate::meter::ledger::schema::FileId;
    use crate::meter::ledger::writer::tests::T;
    use crate::meter::ledger::{Ledger, record};

    fn worker(home: &Home) -> Worker {
        let config = config(home);
        let shared = Arc::new(Shared::new(config.limits));
        let mut worker = Worker::new(config, shared);
        worker.db = Some(worker.open().unwrap());
        worker
    }

    #[test]
    fn what_a_reader_found_damaged_is_set_aside_and_another_file_is_not() {
        let (_dir, home) = home();
        let mut worker = worker(&home);
        let other = home.path().join("other");
        fs::write(&other, "").unwrap();
        worker.shared.lock().damaged = FileId::of(&other);
        worker.look(Instant::now()).unwrap();
        let damaged = FileId::of(&home.ledger_file());
        worker.shared.lock().damaged = damaged;
        let found = worker.look(Instant::now()).unwrap_err();
        worker.failed(&found);
        let kept = worker.shared.lock().set_aside.clone().unwrap();
        assert_eq!(FileId::of(&kept), damaged);
        assert!(!home.ledger_file().exists() && worker.db.is_none());
    }

    #[test]
    fn after_a_quiet_while_the_main_file_has_all() {
        let (dir, home) = home();
        let mut worker = worker(&home);
        let copied = |name: &str| {
            let to = dir.path().join(name);
            fs::copy(home.ledger_file(), &to).unwrap();
            let readable = Ledger::open_files(&to, dir.path().join("none")).is_ok();
            if readable { stored(&to) } else { 0 }
        };
        let db = worker.db.as_ref().unwrap();
        db.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        (1..=50).for_each(|n| record::write(&db.conn, &row(n, T)).unwrap());
        worker.shared.committed(50, 0);
        worker.write_home();
        assert_eq!(copied("before"), 0);
        worker.shared.lock().last_commit = Instant::now().checked_sub(QUIET);
        worker.write_home();
        assert_eq!(copied("after"), 50);
    }
}
