//! The register: the connections that the daemon has in hand, in a file that outlives it.
//!
//! A connection has a slot of the file from before its first byte is taken until its rows are
//! committed, with a count of the requests that were seen on it. The page cache keeps what was
//! written when the process is killed; a slot that is still taken then is a connection that was
//! broken off, and requests beyond its rows are lost ([`unfinished`](super::unfinished)).
//!
//! Changes go to a table in memory, and one thread writes what has changed: one `pwrite` a slot, some
//! milliseconds later where nobody waits. A connection waits for its slot to be written, but only for a moment, and not at all while the file
//! is slow. A file that can't be written costs the account and nothing else.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use slog::Logger;
use tokio::sync::oneshot;
use tokio::time::timeout;
use uuid::Uuid;

use super::lines;
use crate::home::{Home, lock_exclusively};

pub(super) const PREFIX: &str = "connections.";
pub(super) const SUFFIX: &str = ".jsonl";

/// A slot is a line of this length, padded with blanks; free ones are all blank.
const SLOT: usize = 512;
/// Twice what a tap takes at once: connections of one that was given up may still live.
const SLOTS: usize = 8192;
/// How long a connection waits for its slot.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long changes that nobody waits for are gathered.
const GATHER: Duration = Duration::from_millis(5);

/// What a slot says.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct InHand {
    id: Uuid,
    pub(super) at: Timestamp,
    pub(super) host: String,
    pub(super) requests: u64,
}

/// The register of this process. Clones share; [`Register::none`] keeps nothing.
#[derive(Clone, Debug)]
pub struct Register(Option<Arc<Shared>>);

/// One connection's place in the register.
#[derive(Clone, Debug)]
pub struct Entry {
    id: Uuid,
    slot: Option<(Arc<Shared>, usize)>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    log: Logger,
    table: Mutex<Table>,
    to_thread: Condvar,
    from_thread: Condvar,
    /// Somebody waited in vain, and no write has come to its end since.
    slow: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
    changed: VecDeque<usize>,
    waiting: Vec<oneshot::Sender<()>>,
    /// The thread waits for a first change.
    idle: bool,
    closing: bool,
    ended: bool,
}

#[derive(Debug, Default)]
struct Slot {
    in_hand: Option<InHand>,
    /// In `changed`.
    changed: bool,
}

impl Register {
    /// A new file in the spool directory, locked as long as this process lives.
    ///
    /// # Errors
    /// When there can be no file or no thread.
    pub fn create(home: &Home, log: Logger) -> io::Result<Self> {
        let path = home.spool_dir().join(format!("{PREFIX}{}{SUFFIX}", Uuid::now_v7()));
        // Under its name only with its lock: else it could be taken for a dead daemon's.
        let unlocked = path.with_extension("new");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unlocked)?;
        if !lock_exclusively(&file)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        fs::rename(&unlocked, &path)?;
        let shared = Arc::new(Shared {
            path,
            log,
            table: Mutex::default(),
            to_thread: Condvar::new(),
            from_thread: Condvar::new(),
            slow: AtomicBool::new(false),
        });
        let worker = Arc::clone(&shared);
        thread::Builder::new().name("register".to_owned()).spawn(move || worker.write(&file))?;
        Ok(Self(Some(shared)))
    }

    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Enters a connection, and waits a moment until that is in the file.
    pub async fn enter(&self, id: Uuid, at: Timestamp, host: &str) -> Entry {
        let Some(shared) = &self.0 else { return Entry::unrecorded(id) };
        let (told, written) = oneshot::channel();
        let in_hand = InHand { id, at, host: host.to_owned(), requests: 0 };
        let Some(slot) = shared.lock().take(in_hand, told) else { return Entry::unrecorded(id) };
        shared.to_thread.notify_one();
        if !shared.slow.load(Ordering::Relaxed)
            && timeout(PATIENCE, written).await.is_err()
            && !shared.slow.swap(true, Ordering::Relaxed)
        {
            slog::warn!(shared.log, "the register is slow: if we are killed now, not all is known");
        }
        Entry { id, slot: Some((Arc::clone(shared), slot)) }
    }

    /// Writes what is to be written, until `deadline` at most. A file without connections is
    /// removed; what is still in hand is the next start's to find.
    pub fn close(&self, deadline: Instant) {
        let Some(shared) = &self.0 else { return };
        let mut table = shared.lock();
        table.closing = true;
        shared.to_thread.notify_one();
        while !table.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = shared.from_thread.wait_timeout(table, left);
            table = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        if table.slots.iter().all(|slot| slot.in_hand.is_none()) {
            let _ = fs::remove_file(&shared.path);
        }
    }
}

impl Entry {
    /// A connection of which no register knows.
    #[must_use]
    pub const fn unrecorded(id: Uuid) -> Self {
        Self { id, slot: None }
    }

    /// The connection's name in the ledger.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        self.id
    }

    /// So many more requests were seen: there will be a row of each.
    pub fn seen(&self, requests: u64) {
        self.change(|slot| {
            if let Some(in_hand) = &mut slot.in_hand {
                in_hand.requests += requests;
            }
        });
    }

    /// Nothing more is expected of this connection; its rows are kept.
    pub fn leave(&self) {
        self.change(|slot| slot.in_hand = None);
    }

    fn change(&self, change: impl FnOnce(&mut Slot)) {
        let Some((shared, at)) = &self.slot else { return };
        let mut table = shared.lock();
        if table.change(self.id, *at, change) && std::mem::take(&mut table.idle) {
            drop(table);
            shared.to_thread.notify_one();
        }
    }
}

/// The connections of a register's file.
pub(super) fn read<E>(
    file: File,
    mut each: impl FnMut(Uuid, InHand) -> Result<(), E>,
) -> Result<(), E> {
    lines::read(file, SLOT as u64, |in_hand: InHand| each(in_hand.id, in_hand))
}

#[cfg(any(test, fuzzing))]
pub(super) fn said_in(bytes: &[u8]) -> Vec<String> {
    lines::said_in(bytes, SLOT as u64, |in_hand: InHand| format!("{in_hand:?}"))
}

impl Table {
    fn take(&mut self, in_hand: InHand, told: oneshot::Sender<()>) -> Option<usize> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.slots.len() < SLOTS => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
            None => return None,
        };
        self.slots.get_mut(at)?.in_hand = Some(in_hand);
        self.waiting.push(told);
        self.mark(at);
        Some(at)
    }

    /// False: the slot is another connection's by now.
    fn change(&mut self, id: Uuid, at: usize, change: impl FnOnce(&mut Slot)) -> bool {
        let Some(slot) = self.slots.get_mut(at) else { return false };
        if slot.in_hand.as_ref().is_none_or(|in_hand| in_hand.id != id) {
            return false;
        }
        change(slot);
        if slot.in_hand.is_none() {
            self.free.push(at);
        }
        self.mark(at);
        true
    }

    fn mark(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at)
            && !std::mem::replace(&mut slot.changed, true)
        {
            self.changed.push_back(at);
        }
    }

    /// What is to be written next, and who waits for all that was changed so far.
    fn work(&mut self) -> Work {
        let Self { slots, changed, waiting, .. } = self;
        let lines = changed.drain(..).filter_map(|at| {
            let slot = slots.get_mut(at)?;
            slot.changed = false;
            Some((at, encode(slot.in_hand.as_ref())))
        });
        Work { lines: lines.collect(), waiting: std::mem::take(waiting) }
    }
}

/// The thread's next piece of work.
struct Work {
    lines: Vec<(usize, Vec<u8>)>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// One line, always of the same length.
fn encode(in_hand: Option<&InHand>) -> Vec<u8> {
    let mut line = in_hand.and_then(|i| serde_json::to_vec(i).ok()).unwrap_or_default();
    if line.len() >= SLOT {
        // No host name is that long.
        line.clear();
    }
    line.resize(SLOT - 1, b' ');
    line.push(b'\n');
    line
}

impl Shared {
    /// The thread.
    fn write(&self, file: &File) {
        loop {
            let mut table = self.lock();
            while table.changed.is_empty() && !table.closing {
                table.idle = true;
                table = self.to_thread.wait(table).unwrap_or_else(PoisonError::into_inner);
            }
            table.idle = false;
            let gather = |table: &mut Table| table.waiting.is_empty() && !table.closing;
            let gathered = self.to_thread.wait_timeout_while(table, GATHER, gather);
            let mut table = gathered.unwrap_or_else(PoisonError::into_inner).0;
            if table.changed.is_empty() {
                table.ended = true;
                drop(table);
                self.from_thread.notify_all();
                return;
            }
            let Work { lines, waiting } = table.work();
            drop(table);
            for (at, line) in lines {
                let _ = file.write_all_at(&line, (at * SLOT) as u64);
            }
            self.slow.store(false, Ordering::Relaxed);
            for told in waiting {
                let _ = told.send(());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
