//! What was not metered: the edge's spool of raw tunnels, and its way into the database.
//!
//! The edge appends one JSON line per raw tunnel to a metered host (opened, written with one
//! `write`, closed). The writer renames the spool, leaves it alone for one round so that an append
//! that had it open is in it, then inserts its lines and its name in one transaction and deletes
//! it. The name in `ingested` makes a repeat after a crash do nothing.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection, TransactionBehavior, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::LedgerError;

/// One raw tunnel to a metered host: a line of the spool.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Passed {
    /// When the tunnel was opened.
    pub at: Timestamp,
    pub host: String,
    pub port: u16,
    pub duration_ms: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// `daemon_down`, `unhealthy`, `declined:<why>`, `deadline` …
    pub reason: String,
}

/// How much of the traffic in a time range the ledger tells.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Coverage {
    /// Requests to models that have a row.
    pub metered_requests: u64,
    /// Connections to metered hosts that went through unmetered (of all projects: nothing was
    /// read, so whose they were is not known).
    pub passed_connections: u64,
    pub passed_bytes: u64,
    pub passed_by_reason: BTreeMap<String, u64>,
    /// Rows that were metered and could not be kept.
    pub lost_rows: u64,
    /// Names of corrupt ledgers that were set aside in this time; their rows are not counted.
    pub set_aside: Vec<String>,
}

impl Coverage {
    pub(super) fn add_passed(&mut self, reason: &str, connections: u64, bytes: u64) {
        self.passed_connections = self.passed_connections.saturating_add(connections);
        self.passed_bytes = self.passed_bytes.saturating_add(bytes);
        if connections > 0 {
            let count = self.passed_by_reason.entry(reason.to_owned()).or_default();
            *count = count.saturating_add(connections);
        }
    }
}

/// Longest line that is read; a longer one is no line of ours.
const LINE_CAP: u64 = 8 * 1024;
/// How long the name of an ingested file is remembered after the file is gone.
const REMEMBER: SignedDuration = SignedDuration::from_hours(24);

/// One round: takes in what the previous round renamed, then renames what has come since.
/// Returns how many lines went in.
pub(super) fn ingest(
    conn: &mut Connection,
    spool: &Path,
    now: Timestamp,
) -> Result<u64, LedgerError> {
    let waiting = renamed(spool).unwrap_or_default();
    let mut lines = 0;
    for path in &waiting {
        lines += ingest_file(conn, path, now)?;
    }
    if !waiting.is_empty() {
        forget(conn, spool, now)?;
    }
    if fs::metadata(spool).is_ok_and(|m| m.len() > 0) {
        let target = spool.with_file_name(format!("{PREFIX}{}{SUFFIX}", Uuid::now_v7()));
        // A spool that can't be renamed stays the edge's; the next round tries again.
        let _ = fs::rename(spool, target);
    }
    Ok(lines)
}

/// Everything that is not in the database yet: the spool, and renamed files whose name is not in
/// `ingested`. Calls `each` per line.
pub(super) fn pending(spool: &Path, ingested: &HashSet<String>, mut each: impl FnMut(Passed)) {
    // The spool is opened before the directory is listed: a rename in between shows it twice
    // (told apart by its inode), never not at all.
    let current = File::open(spool).ok();
    let current_inode = current.as_ref().and_then(|f| f.metadata().ok()).map(|m| m.ino());
    for path in renamed(spool).unwrap_or_default() {
        let name = file_name(&path);
        let Ok(file) = File::open(&path) else { continue };
        let same = file.metadata().is_ok_and(|m| Some(m.ino()) == current_inode);
        if !same && !ingested.contains(&name) {
            let _ = read_lines(file, &mut |line| {
                each(line);
                Ok::<(), io::Error>(())
            });
        }
    }
    if let Some(file) = current {
        let _ = read_lines(file, &mut |line| {
            each(line);
            Ok::<(), io::Error>(())
        });
    }
}

const PREFIX: &str = "passthrough.";
const SUFFIX: &str = ".ingest";

/// Renamed spool files, oldest first (their names hold UUIDv7s).
fn renamed(spool: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(dir) = spool.parent() else { return Ok(Vec::new()) };
    let mut found: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            let name = file_name(path);
            name.starts_with(PREFIX) && name.ends_with(SUFFIX)
        })
        .collect();
    found.sort();
    Ok(found)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn ingest_file(conn: &mut Connection, path: &Path, now: Timestamp) -> Result<u64, LedgerError> {
    let Ok(file) = File::open(path) else { return Ok(0) };
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let first = tx.execute(
        "INSERT OR IGNORE INTO ingested (file, at) VALUES (?, ?)",
        params![file_name(path), now.as_microsecond()],
    )?;
    let mut lines = 0;
    if first == 1 {
        let mut insert = tx.prepare_cached(
            "INSERT INTO passthrough (at, host, port, duration_ms, bytes_up, bytes_down, reason) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let int = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        read_lines(file, &mut |p: Passed| {
            insert.execute(params![
                p.at.as_microsecond(),
                p.host,
                p.port,
                int(p.duration_ms),
                int(p.bytes_up),
                int(p.bytes_down),
                p.reason,
            ])?;
            lines += 1;
            Ok::<(), LedgerError>(())
        })?;
        drop(insert);
        tx.commit()?;
    }
    // If this fails the name in `ingested` keeps the next round from taking it in again.
    let _ = fs::remove_file(path);
    Ok(lines)
}

/// Drops old names from `ingested`, except of files that are still there.
fn forget(conn: &Connection, spool: &Path, now: Timestamp) -> Result<(), LedgerError> {
    if !renamed(spool).unwrap_or_default().is_empty() {
        return Ok(());
    }
    let before = now.checked_sub(REMEMBER).map_or(i64::MIN, Timestamp::as_microsecond);
    conn.execute("DELETE FROM ingested WHERE at < ?", params![before])?;
    Ok(())
}

/// Calls `each` for every readable line. Torn, foreign and overlong ones are skipped; a read error
/// ends the file where it is.
fn read_lines<E>(file: File, each: &mut dyn FnMut(Passed) -> Result<(), E>) -> Result<(), E> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LINE_CAP).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {
                if let Ok(passed) = serde_json::from_slice::<Passed>(&line) {
                    each(passed)?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::home::open_append;
    use crate::meter::ledger::Ledger;
    use crate::meter::ledger::Window;
    use crate::meter::ledger::fixture::{at, home};
    use crate::meter::ledger::schema::open_writer;

    const NOW: &str = "2026-11-24T12:00:00Z";

    fn append(spool: &Path, text: &str) {
        open_append(spool).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn line(reason: &str) -> String {
        let passed = Passed {
            at: at("2026-11-24T11:00:00Z"),
            host: "api.openai.com".to_owned(),
            port: 443,
            duration_ms: 1500,
            bytes_up: 10,
            bytes_down: 20,
            reason: reason.to_owned(),
        };
        serde_json::to_string(&passed).unwrap() + "\n"
    }

    fn seen(home: &crate::home::Home) -> Coverage {
        let window = Window { from: at("2026-11-24T00:00:00Z"), to: at("2026-11-25T00:00:00Z") };
        Ledger::open(home).unwrap().coverage(window).unwrap()
    }

    #[test]
    fn lines_are_counted_once_wherever_they_are() {
        let (_dir, home) = home();
        let spool = home.passthrough_spool();
        append(&spool, &(line("daemon_down") + &line("deadline")));
        assert_eq!(seen(&home).passed_connections, 2, "no database yet");
        let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
        assert_eq!(seen(&home).passed_connections, 2, "in the spool");
        assert_eq!(ingest(&mut conn, &spool, at(NOW)).unwrap(), 0);
        assert!(!spool.exists());
        assert_eq!(seen(&home).passed_connections, 2, "renamed");
        append(&spool, &line("deadline"));
        assert_eq!(ingest(&mut conn, &spool, at(NOW)).unwrap(), 2);
        assert_eq!(seen(&home).passed_connections, 3, "stored, and a new spool");
        assert_eq!(ingest(&mut conn, &spool, at(NOW)).unwrap(), 1);
        let all = seen(&home);
        assert_eq!((all.passed_connections, all.passed_bytes), (3, 90));
        assert_eq!(all.passed_by_reason["deadline"], 2);
        assert_eq!(fs::read_dir(home.spool_dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_crash_between_commit_and_delete_does_not_count_twice() {
        let (_dir, home) = home();
        let spool = home.passthrough_spool();
        append(&spool, &line("daemon_down"));
        let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
        ingest(&mut conn, &spool, at(NOW)).unwrap();
        let waiting = renamed(&spool).unwrap().pop().unwrap();
        let content = fs::read(&waiting).unwrap();
        ingest(&mut conn, &spool, at(NOW)).unwrap();
        // As if the process had died before the delete.
        fs::write(&waiting, content).unwrap();
        assert_eq!(seen(&home).passed_connections, 1);
        assert_eq!(ingest(&mut conn, &spool, at(NOW)).unwrap(), 0);
        assert!(!waiting.exists());
        assert_eq!(seen(&home).passed_connections, 1);
    }

    #[test]
    fn a_failed_transaction_leaves_the_file_for_the_next_round() {
        let (_dir, home) = home();
        let spool = home.passthrough_spool();
        append(&spool, &line("daemon_down"));
        let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
        ingest(&mut conn, &spool, at(NOW)).unwrap();
        let other = Connection::open(home.ledger_file()).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        assert!(ingest(&mut conn, &spool, at(NOW)).is_err());
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(ingest(&mut conn, &spool, at(NOW)).unwrap(), 1);
        assert_eq!(seen(&home).passed_connections, 1);
    }

    #[test]
    fn torn_foreign_and_endless_lines_are_skipped() {
        let (_dir, home) = home();
        let spool = home.passthrough_spool();
        let torn = line("deadline");
        append(&spool, &line("daemon_down"));
        append(&spool, "not json\n\n{}\n");
        append(&spool, &("x".repeat(100_000) + "\n"));
        append(&spool, &line("daemon_down"));
        append(&spool, &torn[..torn.len() / 2]);
        let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
        assert_eq!(seen(&home).passed_connections, 2);
        ingest(&mut conn, &spool, at(NOW)).unwrap();
        assert_eq!(ingest(&mut conn, &spool, at(NOW)).unwrap(), 2);
    }

    #[test]
    fn old_names_are_forgotten_but_not_of_files_that_stay() {
        let (_dir, home) = home();
        let spool = home.passthrough_spool();
        let (mut conn, _) = open_writer(&home.ledger_file()).unwrap();
        let names = |conn: &Connection| -> i64 {
            conn.query_row("SELECT count(*) FROM ingested", [], |r| r.get(0)).unwrap()
        };
        for day in ["2026-11-20T00:00:00Z", "2026-11-22T00:00:00Z", "2026-11-24T00:00:00Z"] {
            append(&spool, &line("deadline"));
            ingest(&mut conn, &spool, at(day)).unwrap();
            ingest(&mut conn, &spool, at(day)).unwrap();
        }
        assert_eq!(names(&conn), 1);
    }
}
