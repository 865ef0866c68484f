//! Connections of which rows may be missing, and what became of them.
//!
//! A daemon that was killed leaves its [register]; the next start takes it in, and
//! until then readers look into it themselves. Nothing is decided at that moment: a connection's
//! rows may come in later (the writer of an earlier process spilled them), and the edge may have had
//! it all along.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use super::register::{self, InHand};
use super::{LedgerError, lines};

/// The daemon died with the connection in its hands.
pub(super) const DAEMON_DIED: &str = "daemon_died";
/// Rows found no room in the queue.
pub(super) const OVERFLOW: &str = "overflow";
/// The observer lost sight of it for good.
pub(super) const LOST_SIGHT: &str = "lost_sight";

/// One connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Unfinished {
    pub(super) at: Timestamp,
    pub(super) host: String,
    /// Requests that were seen on it.
    pub(super) requests: u64,
    pub(super) reason: String,
}

impl Unfinished {
    /// Of which nothing more was counted than its rows tell.
    pub(super) fn new(at: Timestamp, host: String, reason: &str) -> Self {
        Self { at, host, requests: 0, reason: reason.to_owned() }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    /// The edge never gave it away: it counts as passed.
    Passed,
    /// It left rows, and nobody broke it off.
    Metered,
    /// It left rows, and ended with the daemon.
    Cut,
    /// It left rows, and went on without being followed.
    Unfollowed,
    /// No row tells of it.
    Lost,
}

/// Decides by what there is: `rows` of this connection, and whether the edge passed it.
pub(super) fn judge(connection: &Unfinished, rows: u64, passed: bool) -> Fate {
    if passed {
        Fate::Passed
    } else if rows == 0 {
        Fate::Lost
    } else if connection.reason == OVERFLOW {
        Fate::Metered
    } else if connection.reason == LOST_SIGHT {
        Fate::Unfollowed
    } else {
        Fate::Cut
    }
}

/// Takes in what dead daemons left. Returns how many connections.
pub(super) fn take_in(conn: &mut Connection, dir: &Path) -> Result<u64, LedgerError> {
    let mut count = 0;
    for (path, file) in abandoned(dir) {
        let tx = conn.transaction()?;
        register::read(file, |id, in_hand| {
            count += 1;
            insert(&tx, id, &in_hand.into())
        })?;
        tx.commit()?;
        let _ = fs::remove_file(path);
    }
    Ok(count)
}

/// The same without changing anything.
pub(super) fn pending(dir: &Path) -> BTreeMap<Uuid, Unfinished> {
    let mut found = BTreeMap::new();
    for (_, file) in abandoned(dir) {
        let _ = register::read(file, |id, in_hand| {
            found.insert(id, in_hand.into());
            Ok::<(), io::Error>(())
        });
    }
    found
}

/// What is known already stays.
pub(super) fn insert(conn: &Connection, id: Uuid, u: &Unfinished) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT OR IGNORE INTO unfinished (id, at, host, requests, reason) VALUES (?, ?, ?, ?, ?)",
    )?
    .execute(params![
        id.as_bytes().as_slice(),
        u.at.as_microsecond(),
        u.host,
        i64::try_from(u.requests).unwrap_or(i64::MAX),
        u.reason,
    ])?;
    Ok(())
}

impl From<InHand> for Unfinished {
    fn from(in_hand: InHand) -> Self {
        Self {
            at: in_hand.at,
            host: in_hand.host,
            requests: in_hand.requests,
            reason: DAEMON_DIED.to_owned(),
        }
    }
}

/// Registers whose daemon is gone: it held a lock as long as it lived.
fn abandoned(dir: &Path) -> Vec<(PathBuf, File)> {
    lines::files(dir, register::PREFIX, register::SUFFIX)
        .into_iter()
        .filter_map(|path| {
            let file = File::open(&path).ok()?;
            flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
            Some((path, file))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_are_there_decide() {
        let with = |reason: &str| Unfinished {
            at: Timestamp::UNIX_EPOCH,
            host: "h".to_owned(),
            requests: 3,
            reason: reason.to_owned(),
        };
        for (reason, rows, passed, fate) in [
            (DAEMON_DIED, 0, false, Fate::Lost),
            (DAEMON_DIED, 1, false, Fate::Cut),
            (DAEMON_DIED, 0, true, Fate::Passed),
            (OVERFLOW, 0, false, Fate::Lost),
            (OVERFLOW, 1, false, Fate::Metered),
            (LOST_SIGHT, 0, false, Fate::Lost),
            (LOST_SIGHT, 1, false, Fate::Unfollowed),
        ] {
            assert_eq!(judge(&with(reason), rows, passed), fate, "{reason} {rows} {passed}");
        }
    }
}
