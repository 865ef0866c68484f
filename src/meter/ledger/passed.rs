//! What went through unmetered: the edge's spool of raw tunnels, and its way into the database.
//!
//! The edge appends a JSON line when a raw tunnel to a metered host begins and one when it ends
//! (opened, written with one `write`, closed). The writer renames the spool, leaves it alone for one
//! round so that an append that had it open is in it, then takes in its lines and deletes it. Lines
//! of one tunnel have one id, so neither their order nor a repeat after a crash matters.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior, params};
use serde::Deserialize;
use uuid::Uuid;

use super::{LedgerError, lines};

/// A line of the spool.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Passed(Passed),
    /// The spool was full, or could not be written: so many lines are missing. The moment names it.
    Dropped {
        dropped: u64,
        at: Timestamp,
    },
}

/// A raw tunnel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct Passed {
    pub(super) id: Uuid,
    /// When the tunnel was opened.
    pub(super) at: Timestamp,
    pub(super) host: String,
    port: u16,
    /// `daemon_down`, `unhealthy`, `declined:<why>`, `deadline` …
    pub(super) reason: String,
    /// `None`: it has begun.
    pub(super) end: Option<End>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(super) struct End {
    duration_ms: u64,
    bytes_up: u64,
    bytes_down: u64,
    aborted: bool,
}

impl End {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes_up.saturating_add(self.bytes_down)
    }
}

/// Longest line that is read; a longer one is no line of ours.
const LINE_CAP: u64 = 8 * 1024;
/// Why lines of the spool were lost, in `losses`.
pub(super) const SPOOL_FULL: &str = "spool_full";
const PREFIX: &str = "passthrough.";
const SUFFIX: &str = ".ingest";

/// One round: takes in what the previous round renamed, then renames what has come since.
/// Returns how many lines went in.
pub(super) fn ingest(conn: &mut Connection, spool: &Path) -> Result<u64, LedgerError> {
    let mut lines = 0;
    for path in renamed(spool) {
        lines += ingest_file(conn, &path)?;
    }
    if fs::metadata(spool).is_ok_and(|m| m.len() > 0) {
        let target = spool.with_file_name(format!("{PREFIX}{}{SUFFIX}", Uuid::now_v7()));
        // A spool that can't be renamed stays the edge's; the next round tries again.
        let _ = fs::rename(spool, target);
    }
    Ok(lines)
}

/// What the files hold.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) passed: BTreeMap<Uuid, Passed>,
    /// How many lines were dropped, and when that was told.
    pub(super) dropped: BTreeMap<Timestamp, u64>,
}

/// What is not in the database yet, or in both for a moment.
pub(super) fn pending(spool: &Path) -> Pending {
    let mut found = Pending::default();
    // The spool is opened before the directory is listed: a rename in between shows it twice, never
    // not at all.
    let current = File::open(spool).ok();
    let renamed = renamed(spool).into_iter().filter_map(|path| File::open(path).ok());
    for file in renamed.chain(current) {
        let _ = lines::read(file, LINE_CAP, |line: Line| {
            match line {
                Line::Passed(line) => {
                    let end = line.end;
                    let passed = found.passed.entry(line.id).or_insert(line);
                    passed.end = passed.end.or(end);
                }
                Line::Dropped { dropped, at } => {
                    let micros = Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at);
                    found.dropped.insert(micros, dropped);
                }
            }
            Ok::<(), io::Error>(())
        });
    }
    found
}

#[cfg(any(test, fuzzing))]
pub(super) fn said_in(bytes: &[u8]) -> Vec<String> {
    lines::said_in(bytes, LINE_CAP, |line: Line| format!("{line:?}"))
}

/// Renamed spool files.
fn renamed(spool: &Path) -> Vec<PathBuf> {
    spool.parent().map(|dir| lines::files(dir, PREFIX, SUFFIX)).unwrap_or_default()
}

fn ingest_file(conn: &mut Connection, path: &Path) -> Result<u64, LedgerError> {
    let Ok(file) = File::open(path) else { return Ok(0) };
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut lines = 0;
    let mut upsert = tx.prepare_cached(
        "INSERT INTO passed (id, at, host, port, reason, duration_ms, bytes_up, bytes_down, aborted) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET \
         duration_ms = excluded.duration_ms, bytes_up = excluded.bytes_up, \
         bytes_down = excluded.bytes_down, aborted = excluded.aborted \
         WHERE excluded.duration_ms IS NOT NULL",
    )?;
    let mut note = tx.prepare_cached(
        "INSERT INTO losses (at, rows, reason) SELECT ?1, ?2, ?3 \
         WHERE NOT EXISTS (SELECT 1 FROM losses WHERE at = ?1 AND reason = ?3)",
    )?;
    let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    lines::read(file, LINE_CAP, |line: Line| {
        let p = match line {
            Line::Passed(passed) => passed,
            Line::Dropped { dropped, at } => {
                let at = at.as_microsecond();
                note.execute(params![at, int(dropped), SPOOL_FULL])?;
                return Ok(());
            }
        };
        upsert.execute(params![
            p.id.as_bytes().as_slice(),
            p.at.as_microsecond(),
            p.host,
            p.port,
            p.reason,
            p.end.map(|end| int(end.duration_ms)),
            p.end.map(|end| int(end.bytes_up)),
            p.end.map(|end| int(end.bytes_down)),
            p.end.map(|end| end.aborted),
        ])?;
        lines += 1;
        Ok::<(), LedgerError>(())
    })?;
    drop((upsert, note));
    tx.commit()?;
    // If this fails the next round takes it in again, which changes nothing.
    let _ = fs::remove_file(path);
    Ok(lines)
}

#[cfg(test)]
#[path = "passed_tests.rs"]
mod tests;
