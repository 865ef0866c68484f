//! What a failed write means and when to try again: pure, the writer obeys.

use std::io;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use super::LedgerError;

/// Kinds of failure by what helps against them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// Another connection holds a lock: wait.
    Busy,
    /// The file's content is no database any more: set it aside, start anew.
    Corrupt,
    /// The disk is full, the directory read-only, the file gone …: reopen and wait.
    Storage,
}

impl Fault {
    pub(super) fn of(error: &LedgerError) -> Self {
        match error {
            LedgerError::Sqlite(e) | LedgerError::Damaged { source: e, .. } => Self::of_sqlite(e),
            LedgerError::Migration(rusqlite_migration::Error::RusqliteError { err, .. }) => {
                Self::of_sqlite(err)
            }
            LedgerError::Migration(_)
            | LedgerError::Io { .. }
            | LedgerError::Newer { .. }
            | LedgerError::Older { .. }
            | LedgerError::Dangling { .. }
            | LedgerError::Moved { .. }
            | LedgerError::Unmerged { .. }
            | LedgerError::Thread(_)
            | LedgerError::BadCursor => Self::Storage,
        }
    }

    fn of_sqlite(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Corrupt,
            Some(_) | None => Self::Storage,
        }
    }
}

pub const DISK_FULL: &str = "the disk is full";

/// A short text for people: what is wrong, in their words rather than SQLite's.
pub(super) fn explain(error: &LedgerError) -> String {
    let sqlite = match error {
        LedgerError::Sqlite(e) | LedgerError::Damaged { source: e, .. } => e.sqlite_error_code(),
        LedgerError::Migration(rusqlite_migration::Error::RusqliteError { err, .. }) => {
            err.sqlite_error_code()
        }
        LedgerError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            Some(ErrorCode::DiskFull)
        }
        LedgerError::Migration(_)
        | LedgerError::Io { .. }
        | LedgerError::Newer { .. }
        | LedgerError::Older { .. }
        | LedgerError::Dangling { .. }
        | LedgerError::Moved { .. }
        | LedgerError::Unmerged { .. }
        | LedgerError::Thread(_)
        | LedgerError::BadCursor => None,
    };
    match sqlite {
        Some(ErrorCode::DiskFull) => DISK_FULL.to_owned(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "the ledger is locked by another program".to_owned()
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "the ledger cannot be written (read-only)".to_owned()
        }
        Some(ErrorCode::CannotOpen) => "the ledger cannot be opened".to_owned(),
        Some(_) | None => error.to_string(),
    }
}

/// How long a lock may last before it is worth telling anyone.
const PATIENCE: Duration = Duration::from_secs(2);

/// When the writer tries again, and whether it is degraded meanwhile.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    attempts: u32,
    next: Instant,
}

impl Backoff {
    pub(super) fn due(&self, now: Instant) -> bool {
        self.failing.as_ref().is_none_or(|f| now >= f.next)
    }

    /// Notes a failed attempt. `true`: this counts as degraded.
    pub(super) fn failed(&mut self, fault: Fault, now: Instant) -> bool {
        let failing = self.failing.get_or_insert(Failing { since: now, attempts: 0, next: now });
        let cap = match fault {
            Fault::Busy => Duration::from_millis(500),
            Fault::Corrupt | Fault::Storage => Duration::from_secs(5),
        };
        let delay = Duration::from_millis(50) * 2u32.pow(failing.attempts.min(8));
        failing.attempts = failing.attempts.saturating_add(1);
        failing.next = now + delay.min(cap);
        match fault {
            Fault::Busy => now.duration_since(failing.since) >= PATIENCE,
            Fault::Corrupt | Fault::Storage => true,
        }
    }

    /// Notes a success. `true`: it had been failing.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failing.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_its_cap_and_a_success_resets_it() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let mut now = start;
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            backoff.failed(Fault::Storage, now);
            let next = backoff.failing.as_ref().unwrap().next;
            let delay = next - now;
            assert!(delay >= last && delay <= Duration::from_secs(5));
            assert!(!backoff.due(now) && backoff.due(next));
            (last, now) = (delay, next);
        }
        assert_eq!(last, Duration::from_secs(5));
        assert!(backoff.succeeded() && backoff.due(now) && !backoff.succeeded());
    }

    #[test]
    fn a_short_lock_is_not_degraded_and_a_full_disk_is() {
        let now = Instant::now();
        assert!(!Backoff::default().failed(Fault::Busy, now));
        assert!(Backoff::default().failed(Fault::Storage, now));
        let mut backoff = Backoff::default();
        backoff.failed(Fault::Busy, now);
        assert!(backoff.failed(Fault::Busy, now + PATIENCE));
    }
}
