//! The list on the disk: whoever refused our certificate does not fail again because a daemon was killed,
//! changed to a new program, or ended with the machine.
//!
//! Read once, when the first tap is made, and written by a thread of its own: no connection waits for that.
//! A file that can't be used is a list without entries, never a reason not to meter.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use slog::Logger;
use tokio::time::sleep;

use super::{Bypass, text};
use crate::home::{Home, write_atomic};
use crate::meter::attribution::file::{Links, read};
use crate::threads;

/// What changes meanwhile is written together.
const REST: Duration = Duration::from_millis(250);
/// Where it can't be written (a full disk) there may be room later.
const RETRY: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct BypassFile {
    home: Home,
    log: Logger,
    list: Arc<Bypass>,
    saved: Mutex<Saved>,
}

#[derive(Debug, Default)]
struct Saved {
    /// The count of changes that the file has.
    changes: u64,
    /// One line in the log for as long as it lasts.
    failing: bool,
}

impl BypassFile {
    /// The list as the last daemon left it, unless the user wants everybody to try again.
    #[must_use]
    pub fn open(home: &Home, log: &Logger) -> Arc<Self> {
        let list = Arc::new(Bypass::default());
        match restore(home, &list) {
            Ok(()) => {}
            Err(e) => slog::warn!(log, "who refused our certificate before is not known";
                "why" => %e, "path" => %home.bypass_file().display()),
        }
        let (home, log) = (home.clone(), log.clone());
        Arc::new(Self { home, log, list, saved: Mutex::default() })
    }

    #[must_use]
    pub fn list(&self) -> &Arc<Bypass> {
        &self.list
    }

    /// Writes down what has changed. Waits for the disk.
    ///
    /// # Errors
    /// When the file can't be written; then it is as before.
    pub fn save(&self) -> io::Result<()> {
        // Held meanwhile: no older list may come after a newer one.
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list is looked at: a change in between is written twice, not never.
        let changes = *self.list.changes.borrow();
        if changes == saved.changes {
            return Ok(());
        }
        let text = text::write(&self.list.lock(), (Instant::now(), Timestamp::now()));
        let path = self.home.bypass_file();
        let written = match text {
            Some(text) => write_atomic(&path, text.as_bytes()),
            None => removed(fs::remove_file(&path)),
        };
        let failing = std::mem::replace(&mut saved.failing, written.is_err());
        match &written {
            Ok(()) => saved.changes = changes,
            Err(e) if !failing => slog::warn!(self.log, "who refused our certificate is not \
                written down, and would fail once more after a crash";
                "error" => %e, "path" => %path.display()),
            Err(_) => {}
        }
        written
    }

    /// Writes each change down until the future is dropped.
    pub async fn keep(self: Arc<Self>) {
        let mut changes = self.list.changes.subscribe();
        loop {
            let file = Arc::clone(&self);
            let saved = threads::blocking(move || file.save()).await;
            let done = matches!(saved, Ok(Ok(())));
            sleep(if done { REST } else { RETRY }).await;
            if done {
                let last = self.saved.lock().unwrap_or_else(PoisonError::into_inner).changes;
                // The list is as old as we are.
                let _ = changes.wait_for(|changes| *changes != last).await;
            }
        }
    }
}

/// Fills a list that nobody uses so far.
fn restore(home: &Home, list: &Bypass) -> io::Result<()> {
    let (path, wish) = (home.bypass_file(), home.try_again());
    if wish.exists() {
        // In this order: of a wish that is half fulfilled the rest is still to be seen.
        removed(fs::remove_file(path))?;
        return removed(fs::remove_file(wish));
    }
    let told = match read(&path, text::MOST, Links::Followed) {
        Ok((told, _)) => told,
        Err(e) => return removed(Err(e)),
    };
    let now = (Instant::now(), Timestamp::now());
    let (entries, cut) = text::read(&told, now).map_err(io::Error::other)?;
    *list.lock() = entries;
    if cut {
        // Once is enough: with each start it would begin anew.
        list.changed();
    }
    Ok(())
}

/// What was not there is removed as well.
fn removed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
