//! The database is opened: what an earlier daemon left is taken in, and the file is told of the past.

use jiff::Timestamp;
use rusqlite::params;

use super::{Db, Worker, left_open};
use crate::meter::ledger::seen::Noted;
use crate::meter::ledger::{LedgerError, schema, spill, unfinished};

impl Worker {
    pub(super) fn open(&mut self) -> Result<Db, LedgerError> {
        self.keep_orphan();
        let gone = self.last_is_gone();
        let opened = schema::open_writer_telling(&self.config.path, |found| {
            self.shared.lock().updating = Some((found, schema::VERSION));
        });
        self.shared.lock().updating = None;
        let (mut conn, files) = opened?;
        self.files = Some(files.clone());
        if !self.swept {
            if let Some(dir) = self.config.spool.parent() {
                let rows = spill::take_in(&mut conn, dir)?;
                if rows > 0 {
                    slog::info!(self.config.log, "took in rows of an earlier run"; "rows" => rows);
                }
                let cut = unfinished::take_in(&mut conn, dir)?;
                if cut > 0 {
                    slog::warn!(self.config.log, "an earlier daemon died with connections in hand";
                        "connections" => cut);
                }
            }
            // Also proves that the file can be written, before anyone depends on it.
            let interrupted = left_open::close(&mut conn, &self.config.prices)?;
            if interrupted > 0 {
                slog::info!(self.config.log, "closed rows that an earlier daemon left open";
                    "rows" => interrupted);
            }
            self.swept = true;
        }
        if let Some(name) = self.unnoted_set_aside.as_ref().and_then(|p| p.file_name()) {
            conn.execute(
                "INSERT INTO losses (at, rows, reason) VALUES (?, 0, ?)",
                params![Timestamp::now().as_microsecond(), name.to_string_lossy()],
            )?;
            self.unnoted_set_aside = None;
        }
        if gone {
            self.note_gone(&conn)?;
        }
        self.last = Some(files.main);
        self.shared.lock().ready = true;
        Ok(Db { conn, files, noted: Noted::default() })
    }
}
