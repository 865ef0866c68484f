//! The ledger: one SQLite file, one writer thread, any number of readers.
//!
//! [`Intake::record`] is what the byte side sees: it queues and returns, whatever the state of the
//! disk. The [`Writer`]'s thread drains the queue in batches, waits out locks and full disks while
//! rows pile up to a limit, and counts what it can't keep. Readers ([`Ledger`]) open the file
//! themselves, so that reports work with the daemon down.

mod backoff;
mod batches;
mod clause;
mod coverage;
mod damage;
mod existing;
#[cfg(test)]
pub(crate) mod fixture;
mod histogram;
mod intake;
mod lines;
mod once;
mod passed;
mod projects;
mod query;
mod quotas;
mod record;
mod register;
mod report;
mod reprice;
mod retag;
mod rollup;
mod schema;
mod seen;
mod silent;
mod spill;
mod tally;
mod unfinished;
mod writer;

use std::io;
use std::path::PathBuf;

pub use backoff::DISK_FULL;
pub use coverage::{Coverage, Gap, GapKind};
pub use damage::{Checked, recovery};
pub use intake::{Intake, IntakeStats, Limits};
pub use projects::{ProjectDetail, ProjectSum, Share};
pub use query::{Cursor, Ledger, Page, PublicPage, RequestFilter, RunTotals};
pub use quotas::Quota;
pub use register::{Entry, Register};
pub use report::{Group, GroupBy, Grouping, Report, ReportQuery, Window};
pub use reprice::{Progress, Repriced, Repricing, reprice};
pub use retag::{Moved, Retag, Retagged, Selection, retag};
pub use rollup::roll_up;
pub use silent::Silent;
pub use tally::{Latency, Totals, UnpricedModel};
pub use writer::{Writer, WriterConfig, start_writer};

/// What spool and register say in a file of these bytes, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn said_in_file(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    (passed::said_in(bytes), register::said_in(bytes))
}

/// What is written of a roll-up that is read, for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(crate) fn rolled_up_again(bytes: &[u8]) -> Option<Vec<u8>> {
    rollup::again(bytes)
}

/// What can go wrong with the ledger's file.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("cannot use {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the ledger: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("{} is no ledger, or a damaged one ({source})", path.display())]
    Damaged { path: PathBuf, source: rusqlite::Error },
    #[error("the ledger's schema: {0}")]
    Migration(#[from] rusqlite_migration::Error),
    #[error(
        "the ledger was written by a newer version (schema {found}, this program knows {known}); \
         upgrade, or use the newer program"
    )]
    Newer { found: usize, known: usize },
    #[error(
        "the ledger is of an older version (schema {found}, this program reads {known}); \
         `halton-meter status` says if that is being done; if not, `halton-meter upgrade` (or `start`, if nothing \
         runs) brings it up to date"
    )]
    Older { found: usize, known: usize },
    #[error(
        "{} has the ledger's latest requests, and cannot be read in a directory that you cannot write; \
         copy it with the ledger to one that you can, and set HALTON_METER_HOME", wal.display()
    )]
    Unmerged { wal: PathBuf },
    #[error(
        "{} is a link to {}, where nothing is; is its disk mounted?", path.display(), to.display()
    )]
    Dangling { path: PathBuf, to: PathBuf },
    #[error("{} was moved while it was in use", path.display())]
    Moved { path: PathBuf },
    #[error("the writer thread could not be started: {0}")]
    Thread(io::Error),
    #[error("the cursor is not one that this program gave out")]
    BadCursor,
}

impl LedgerError {
    /// With the file that SQLite does not know as its own.
    fn of(self, path: &std::path::Path) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let Self::Sqlite(source) = self else { return self };
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => {
                Self::Damaged { path: path.to_path_buf(), source }
            }
            Some(_) | None => Self::Sqlite(source),
        }
    }
}
