//! Rows that were still waiting for the database when the daemon had to end: kept as JSON lines in
//! the spool directory, taken in by the next start. Replacing by id makes a repeat harmless.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use uuid::Uuid;

use super::{LedgerError, lines, record};
use crate::meter::row::Row;

const PREFIX: &str = "rows.";
const SUFFIX: &str = ".jsonl";
const LINE_CAP: u64 = 256 * 1024;

/// Writes the rows to a new file of their own.
pub(super) fn write<'a>(dir: &Path, rows: impl Iterator<Item = &'a Row>) -> io::Result<()> {
    let path = dir.join(format!("{PREFIX}{}{SUFFIX}", Uuid::now_v7()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mut out = BufWriter::new(file);
    for row in rows {
        serde_json::to_writer(&mut out, row)?;
        out.write_all(b"\n")?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()
}

/// Takes in what earlier processes left. Returns how many rows.
pub(super) fn take_in(conn: &mut Connection, dir: &Path) -> Result<u64, LedgerError> {
    let mut rows = 0;
    for path in lines::files(dir, PREFIX, SUFFIX) {
        let Ok(file) = fs::File::open(&path) else { continue };
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut statements = record::Statements::new(&tx)?;
        lines::read(file, LINE_CAP, |row: Row| {
            rows += 1;
            statements.write(&row, false)
        })?;
        drop(statements);
        tx.commit()?;
        let _ = fs::remove_file(&path);
    }
    Ok(rows)
}
