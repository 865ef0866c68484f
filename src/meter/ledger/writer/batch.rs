//! Rows that wait, into the database: one transaction for many.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{TransactionBehavior, params};
use uuid::Uuid;

use super::{Db, Worker};
use crate::meter::ledger::{LedgerError, record, unfinished};

/// Most rows of one transaction.
const BATCH: usize = 500;
/// Rows that are remembered as written.
const REMEMBERED: usize = 4096;

impl Worker {
    pub(super) fn commit_batch(&mut self, db: &mut Db) -> Result<(), LedgerError> {
        let Db { conn, noted: seen, .. } = db;
        #[cfg(test)]
        super::tests::before_commit(&self.config.path, conn)?;
        let lost = self.shared.lost();
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        seen.begun(&tx)?;
        let mut rows = 0;
        let mut bytes = 0;
        let last = last_of_each(self.pending.iter().take(BATCH).map(|queued| queued.row.id));
        let mut statements = record::Statements::noting(&tx, seen)?;
        for queued in self.pending.iter().take(BATCH) {
            // Opened and completed within a moment: the completed row says everything.
            if last.get(&queued.row.id) == Some(&rows) {
                if self.written.len() >= REMEMBERED {
                    self.written.clear();
                }
                statements.write(&queued.row, self.written.insert(queued.row.id))?;
            }
            rows += 1;
            bytes += queued.size();
        }
        drop(statements);
        let unnoted = lost.saturating_sub(self.losses_noted);
        if unnoted > 0 {
            tx.execute(
                "INSERT INTO losses (at, rows, reason) VALUES (?, ?, 'overflow')",
                params![
                    Timestamp::now().as_microsecond(),
                    i64::try_from(unnoted).unwrap_or(i64::MAX)
                ],
            )?;
        }
        let noted = self.shared.to_note();
        for (id, connection) in &noted {
            unfinished::insert(&tx, *id, connection)?;
        }
        tx.commit()?;
        seen.committed();
        self.pending.drain(..rows);
        self.losses_noted = lost;
        self.shared.noted(&noted);
        self.shared.committed(rows, bytes);
        Ok(())
    }
}

/// The last place of each id.
fn last_of_each(ids: impl Iterator<Item = Uuid>) -> HashMap<Uuid, usize> {
    (0..).zip(ids).map(|(place, id)| (id, place)).collect()
}
