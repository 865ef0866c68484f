//! What comes of a database that can't be written: rows wait, and a corrupt file is set aside.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;

use super::Worker;
use crate::home::beside;
use crate::meter::ledger::LedgerError;
use crate::meter::ledger::backoff::{Fault, explain};
use crate::meter::ledger::schema;

impl Worker {
    pub(super) fn failed(&mut self, error: &LedgerError) {
        let fault = Fault::of(error);
        let reason = explain(error);
        let degraded = self.backoff.failed(fault, Instant::now());
        match fault {
            Fault::Busy => {}
            Fault::Storage => {
                self.let_go();
            }
            Fault::Corrupt => {
                if self.is_at_the_path_when_let_go() {
                    self.set_aside(&reason);
                }
            }
        }
        if degraded {
            let mut state = self.shared.lock();
            let news = state.degraded.as_deref() != Some(reason.as_str());
            if news {
                state.degraded = Some(reason.clone());
            }
            drop(state);
            if news {
                slog::warn!(self.config.log, "the ledger cannot be written; rows wait";
                    "why" => reason, "rows" => self.pending.len());
            }
        }
    }

    pub(super) fn recovered(&mut self) {
        if !self.backoff.succeeded() {
            return;
        }
        if self.shared.lock().degraded.take().is_some() {
            slog::info!(self.config.log, "the ledger is being written again");
        }
    }

    fn set_aside(&mut self, reason: &str) {
        match set_aside(&self.config.path, Timestamp::now()) {
            Ok(to) => {
                slog::error!(self.config.log, "the ledger was corrupt; kept it, started a new one";
                    "kept" => to.display().to_string(), "why" => reason);
                self.shared.lock().set_aside = Some(to.clone());
                self.last = None;
                self.unnoted_set_aside = Some(to);
            }
            Err(e) => {
                slog::error!(self.config.log, "the ledger is corrupt and cannot be set aside";
                    "why" => reason, "error" => e.to_string());
            }
        }
    }
}

/// Renames the database and its companions to `<name>.corrupt-<UTC time>`; never deletes. A link stays.
pub(super) fn set_aside(path: &Path, now: Timestamp) -> std::io::Result<PathBuf> {
    let path = schema::behind_links(path);
    let target = free_name(&path, "corrupt", now);
    for (from, to) in schema::siblings(&path).iter().zip(schema::siblings(&target)) {
        match fs::rename(from, to) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(target)
}

/// `<name>.<what>-<UTC time>`, which nothing has yet.
pub(super) fn free_name(path: &Path, what: &str, now: Timestamp) -> PathBuf {
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let mut attempt = 0;
    loop {
        let again = if attempt > 0 { format!("-{attempt}") } else { String::new() };
        let name = beside(path, format!(".{what}-{stamp}{again}"));
        if attempt == 100 || schema::siblings(&name).iter().all(|file| !file.exists()) {
            return name;
        }
        attempt += 1;
    }
}
