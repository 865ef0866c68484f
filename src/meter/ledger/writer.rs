//! The writer's thread: batches, retries, sets a corrupt file aside, and never gives up.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use slog::Logger;
use uuid::Uuid;

use super::backoff::{Backoff, Fault};
use super::intake::{Intake, Limits, Queued, Shared};
use super::rollup::Roller;
use super::schema::{FileId, Files};
use super::seen::Noted;
use super::{LedgerError, passed, spill};
use crate::home::Home;

mod batch;
mod faults;
mod left_open;
mod look;
mod moved;
mod open;

/// What the writer needs.
#[derive(Debug)]
pub struct WriterConfig {
    pub path: PathBuf,
    /// [`Home::passthrough_spool`]; rows that can't be written at the end go beside it.
    pub spool: PathBuf,
    /// The user's own prices, for what an earlier daemon could not price.
    pub prices: PathBuf,
    pub limits: Limits,
    pub log: Logger,
}

impl WriterConfig {
    #[must_use]
    pub fn new(home: &Home, log: Logger) -> Self {
        Self {
            path: home.ledger_file(),
            spool: home.passthrough_spool(),
            prices: home.prices_file(),
            limits: Limits::default(),
            log,
        }
    }
}

/// Starts the writer. A database that can't be opened is no error: rows wait, and
/// [`IntakeStats::degraded`](super::IntakeStats) says why.
pub fn start_writer(config: WriterConfig) -> Result<(Intake, Writer), LedgerError> {
    let shared = Arc::new(Shared::new(config.limits));
    // Without it reports are slow, and right.
    let told = Arc::clone(&shared);
    let damaged = move |file| told.lock().damaged = Some(file);
    let roller = Roller::start(config.path.clone(), config.log.clone(), damaged);
    if let Err(e) = &roller {
        slog::warn!(config.log, "nothing will be rolled up"; "error" => e.to_string());
    }
    let worker = Worker::new(config, Arc::clone(&shared));
    thread::Builder::new()
        .name("ledger".to_owned())
        .spawn(move || worker.live())
        .map_err(LedgerError::Thread)?;
    Ok((Intake(Arc::clone(&shared)), Writer { shared, _roller: roller.ok() }))
}

/// The handle of the writer's thread. Dropped without [`stop`](Self::stop), it asks the thread to
/// end and does not wait.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    _roller: Option<Roller>,
}

impl Writer {
    /// Writes what waits and ends. What can't be written by `deadline` is spilled to a file that
    /// the next start takes in. `false`: the thread had not ended by then.
    #[must_use]
    pub fn stop(self, deadline: Instant) -> bool {
        self.shared.order_stop(deadline);
        // The thread may be in a statement that waits for a lock, then it spills: let it.
        let patience = deadline + Duration::from_secs(1);
        let mut state = self.shared.lock();
        while !state.ended {
            let left = patience.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .shared
                .from_writer
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.shared.lock().ended {
            return;
        }
        self.shared.order_stop(Instant::now());
    }
}

/// How often the edge's spool is looked at, and the file's identity checked.
const ROUNDS: Duration = Duration::from_secs(1);

struct Worker {
    config: WriterConfig,
    shared: Arc<Shared>,
    pending: VecDeque<Box<Queued>>,
    /// Rows that are in the database already, as far as that is remembered: to write one of those
    /// again is another statement than to write one for the first time.
    written: HashSet<Uuid>,
    db: Option<Db>,
    /// What lay at the path when it was last opened.
    opened: Option<FileId>,
    /// Those of the last connection, as long as it is open or has left its WAL.
    files: Option<Files>,
    /// The file that rows were written to last, unless it was set aside.
    last: Option<FileId>,
    /// Rows left open by an earlier process have been closed.
    swept: bool,
    backoff: Backoff,
    /// How many of the lost rows the database knows of.
    losses_noted: u64,
    /// How many rows had been written when the file was last looked at.
    looked_at: u64,
    next_look: Instant,
    /// How many rows had been written when the WAL was last written home.
    home_at: u64,
    next_round: Instant,
    /// A corrupt file that its successor does not tell of yet.
    unnoted_set_aside: Option<PathBuf>,
    ending: bool,
}

struct Db {
    conn: Connection,
    files: Files,
    /// Of what this connection committed.
    noted: Noted,
}

impl Worker {
    fn new(config: WriterConfig, shared: Arc<Shared>) -> Self {
        Self {
            config,
            shared,
            pending: VecDeque::new(),
            written: HashSet::new(),
            db: None,
            opened: None,
            files: None,
            last: None,
            swept: false,
            backoff: Backoff::default(),
            losses_noted: 0,
            looked_at: 0,
            next_look: Instant::now(),
            home_at: 0,
            next_round: Instant::now(),
            unnoted_set_aside: None,
            ending: false,
        }
    }

    /// The thread. A panic costs the connection, not the rows, nor the thread.
    fn live(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.run())) {
                Ok(()) => break,
                Err(_) if self.ending => break,
                Err(_) => {
                    self.let_go();
                    self.backoff.failed(Fault::Storage, Instant::now());
                    self.shared.lock().degraded = Some("the ledger's writer panicked".to_owned());
                    slog::crit!(self.config.log, "ledger writer panicked, going on");
                }
            }
        }
        self.let_go();
        self.shared.lock().ended = true;
        self.shared.from_writer.notify_all();
    }

    fn run(&mut self) {
        let mut failing = false;
        loop {
            let orders = self.shared.take(failing, self.rest(), &mut self.pending);
            self.shared.beat();
            let now = Instant::now();
            if self.backoff.due(now) || orders.flush || orders.stop.is_some() {
                let done = self.turn(now);
                failing = done.is_err();
                match done {
                    Ok(()) => self.recovered(),
                    Err(error) => self.failed(&error),
                }
                self.shared.from_writer.notify_all();
            }
            if let Some(deadline) = orders.stop
                && (self.pending.is_empty() || Instant::now() >= deadline)
            {
                self.end();
                return;
            }
        }
    }

    /// Does whatever is to do; an error leaves the rest for a later turn.
    fn turn(&mut self, now: Instant) -> Result<(), LedgerError> {
        let round = now >= self.next_round;
        // Moved or deleted from under us: SQLite would go on writing into nowhere.
        let look = now >= self.next_look;
        if (round || look) && self.was_taken() {
            self.let_go();
        }
        if look && self.db.is_some() {
            self.look(now)?;
            self.write_home();
        }
        let mut db = match self.db.take() {
            Some(db) => db,
            None => {
                self.opened = FileId::of(&self.config.path);
                self.open()?
            }
        };
        let result = self.work(&mut db, round);
        self.db = Some(db);
        result?;
        if round {
            self.next_round = now + ROUNDS;
        }
        Ok(())
    }

    fn work(&mut self, db: &mut Db, round: bool) -> Result<(), LedgerError> {
        while !self.pending.is_empty()
            || self.shared.lost() > self.losses_noted
            || self.shared.has_to_note()
        {
            self.commit_batch(db)?;
            self.shared.beat();
        }
        if round {
            let lines = passed::ingest(&mut db.conn, &self.config.spool)?;
            if lines > 0 {
                slog::debug!(self.config.log, "took in passthrough records"; "lines" => lines);
            }
        }
        Ok(())
    }

    /// The last act: nothing more is accepted, and what is left goes to a file.
    fn end(&mut self) {
        self.ending = true;
        self.shared.close();
        let _ = self.shared.take(false, Duration::ZERO, &mut self.pending);
        if self.pending.is_empty() || (self.db.is_some() && self.turn(Instant::now()).is_ok()) {
            return;
        }
        let rows = self.pending.len();
        let dir = self.config.spool.parent().unwrap_or(Path::new("."));
        match spill::write(dir, self.pending.iter().map(|q| &q.row)) {
            Ok(()) => {
                let bytes = self.pending.iter().map(|q| q.size()).sum();
                self.shared.settle(rows, bytes);
                slog::warn!(self.config.log, "rows were left for the next start"; "rows" => rows);
            }
            Err(e) => {
                for queued in &self.pending {
                    self.shared.count_lost(&queued.row);
                }
                slog::error!(self.config.log, "rows were lost"; "rows" => rows,
                    "error" => e.to_string());
            }
        }
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests;
