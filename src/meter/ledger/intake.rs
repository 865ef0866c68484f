//! The queue between the observers and the writer thread.
//!
//! `record` takes one short lock; only the first row after a pause wakes the writer, which then
//! gathers what comes within [`GATHER`], or [`CROWD`] while there is much. So a row is on disk
//! milliseconds after it was recorded, and little is lost with a killed process. The row is boxed before
//! the lock, so a growing queue moves pointers only.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::schema::FileId;
use super::unfinished::{self, Unfinished};
use crate::meter::quota::Window;
use crate::meter::row::{Completeness, Row};
use crate::meter::usage::UsagePart;

/// How often the writer looks at the queue while the database can't be written.
pub(super) const POLL: Duration = Duration::from_millis(50);
/// From the first row to the transaction that holds it.
const GATHER: Duration = Duration::from_millis(5);
/// The same while rows come at some hundred per second: a row in a large transaction costs a third
/// of one in a small.
const CROWD: Duration = Duration::from_millis(40);
/// So many rows within [`GATHER`] are a crowd.
const CROWDED: usize = 4;

/// Connections of which something is missing that are kept in mind until the database knows of them.
const NOTED: usize = 10_000;

/// How much may wait while the database can't be written.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 50_000, bytes: 64 << 20 }
    }
}

/// Where rows are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Intake(pub(super) Arc<Shared>);

/// What health, status and metrics show of the writer.
#[derive(Clone, Debug, Default)]
pub struct IntakeStats {
    /// Rows that wait.
    pub queued: u64,
    /// Rows committed by this process (an opened and later completed row counts twice).
    pub written: u64,
    /// Rows that could not be kept.
    pub lost: u64,
    pub last_commit_age: Option<Duration>,
    /// Since the writer thread last went round its loop; a frozen writer lets it grow.
    pub heartbeat_age: Duration,
    /// The database has been opened.
    pub ready: bool,
    /// From and to which schema it is being brought up to date at the moment.
    pub updating: Option<(usize, usize)>,
    /// Why rows are not being written at the moment.
    pub degraded: Option<String>,
    /// Where a corrupt database was put, if that happened in this process.
    pub set_aside: Option<PathBuf>,
}

impl Intake {
    /// Hands a row to the writer: never blocks on the disk. The same id again replaces the row.
    /// Over the limits the row is counted as lost.
    pub fn record(&self, row: Row) {
        let queued = Box::new(Queued { size: size_of_row(&row), row });
        let mut state = self.0.lock();
        let fits = state.open
            && state.held_rows < self.0.limits.rows
            && state.held_bytes.saturating_add(queued.size) <= self.0.limits.bytes;
        if fits {
            state.held_rows += 1;
            state.held_bytes += queued.size;
            state.recorded += 1;
            state.rows.push(queued);
            if mem::take(&mut state.idle) {
                self.0.to_writer.notify_one();
            }
        } else {
            drop(state);
            self.0.count_lost(&queued.row);
        }
    }

    /// A connection is not followed any more, since `at`; the rows that say so may come after this.
    pub fn lost_sight(&self, connection: Uuid, at: Timestamp, host: &str) {
        let mut state = self.0.lock();
        if state.noted.len() < NOTED {
            let noted = Unfinished::new(at, host.to_owned(), unfinished::LOST_SIGHT);
            state.noted.insert(connection, noted);
        }
    }

    /// Calls `then` when everything recorded so far is committed, on the writer's thread; never if
    /// it can't be.
    pub fn when_kept(&self, then: Box<dyn FnOnce() + Send>) {
        let mut state = self.0.lock();
        if state.settled < state.recorded {
            let ticket = state.recorded;
            state.kept.push_back((ticket, then));
        } else {
            drop(state);
            then();
        }
    }

    /// Waits until everything recorded so far is committed. `false`: not by `deadline`.
    #[must_use]
    pub fn flush(&self, deadline: Instant) -> bool {
        let mut state = self.0.lock();
        let ticket = state.recorded;
        loop {
            if state.ready && state.settled >= ticket {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.ended {
                return false;
            }
            state.flush = true;
            self.0.to_writer.notify_one();
            state = self
                .0
                .from_writer
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    #[must_use]
    pub fn stats(&self) -> IntakeStats {
        let shared = &self.0;
        let state = shared.lock();
        IntakeStats {
            queued: state.held_rows as u64,
            written: shared.written.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            last_commit_age: state.last_commit.map(|at| at.elapsed()),
            heartbeat_age: shared.heartbeat_age(),
            ready: state.ready,
            updating: state.updating,
            degraded: state.degraded.clone(),
            set_aside: state.set_aside.clone(),
        }
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake").field("stats", &self.stats()).finish()
    }
}

/// A row that waits, and what it weighs.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) row: Row,
    size: usize,
}

/// What the intake, the writer's handle and the writer's thread have in common. It outlives a
/// panic of the writer, so no row is lost by one.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) to_writer: Condvar,
    pub(super) from_writer: Condvar,
    limits: Limits,
    born: Instant,
    /// Milliseconds from `born`.
    heartbeat: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
}

pub(super) struct State {
    #[expect(clippy::vec_box, reason = "growing under the lock must not copy whole rows")]
    rows: Vec<Box<Queued>>,
    /// In the queue or in the writer's hands.
    held_rows: usize,
    held_bytes: usize,
    recorded: u64,
    settled: u64,
    /// What is called when so many rows are settled.
    kept: VecDeque<(u64, Box<dyn FnOnce() + Send>)>,
    /// Connections with lost rows, or that are not followed any more.
    noted: BTreeMap<Uuid, Unfinished>,
    flush: bool,
    stop: Option<Instant>,
    /// The writer waits for the first row.
    idle: bool,
    /// Rows are accepted.
    open: bool,
    pub(super) ended: bool,
    pub(super) ready: bool,
    pub(super) last_commit: Option<Instant>,
    pub(super) updating: Option<(usize, usize)>,
    /// A reader found this file damaged.
    pub(super) damaged: Option<FileId>,
    pub(super) degraded: Option<String>,
    pub(super) set_aside: Option<PathBuf>,
}

/// Why the writer goes round.
#[derive(Debug)]
pub(super) struct Orders {
    pub(super) flush: bool,
    pub(super) stop: Option<Instant>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            rows: Vec::with_capacity(1024),
            held_rows: 0,
            held_bytes: 0,
            recorded: 0,
            settled: 0,
            kept: VecDeque::new(),
            noted: BTreeMap::new(),
            flush: false,
            stop: None,
            idle: false,
            open: true,
            ended: false,
            ready: false,
            last_commit: None,
            updating: None,
            damaged: None,
            degraded: None,
            set_aside: None,
        };
        Self {
            state: Mutex::new(state),
            to_writer: Condvar::new(),
            from_writer: Condvar::new(),
            limits,
            born: Instant::now(),
            heartbeat: AtomicU64::new(0),
            written: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's turn: waits for rows (not at all when someone flushes or stops), then takes what
    /// is queued. Without rows it is a `rest`. After a failure (`failing`) the wait is a whole one, whoever calls.
    pub(super) fn take(
        &self,
        failing: bool,
        rest: Duration,
        into: &mut impl Extend<Box<Queued>>,
    ) -> Orders {
        let mut state = self.lock();
        if failing {
            state = self
                .to_writer
                .wait_timeout_while(state, POLL, |_| true)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        } else {
            let called = |state: &State| state.flush || state.stop.is_some();
            // Nothing is waited for before the database was opened once.
            state.idle = state.ready && state.rows.is_empty() && !called(&state);
            if state.idle {
                let awake = |state: &mut State| state.idle && !called(state);
                let waited = self.to_writer.wait_timeout_while(state, rest, awake);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.idle = false;
            }
            if !state.rows.is_empty() {
                // Rows come in crowds: a moment's wait makes one transaction of them.
                for (least, time) in [(0, GATHER), (CROWDED, CROWD)] {
                    if state.rows.len() >= least && !called(&state) {
                        let gather = |state: &mut State| !called(state);
                        let waited = self.to_writer.wait_timeout_while(state, time, gather);
                        state = waited.unwrap_or_else(PoisonError::into_inner).0;
                    }
                }
            }
        }
        into.extend(state.rows.drain(..));
        Orders { flush: mem::take(&mut state.flush), stop: state.stop }
    }

    /// Rows left the writer's hands: committed, or given up.
    pub(super) fn settle(&self, rows: usize, bytes: usize) {
        let mut state = self.lock();
        state.held_rows = state.held_rows.saturating_sub(rows);
        state.held_bytes = state.held_bytes.saturating_sub(bytes);
        state.settled += rows as u64;
        let settled = state.settled;
        let due = state.kept.iter().take_while(|(ticket, _)| *ticket <= settled).count();
        let due: Vec<_> = state.kept.drain(..due).collect();
        drop(state);
        due.into_iter().for_each(|(_, then)| then());
    }

    /// Rows are committed.
    pub(super) fn committed(&self, rows: usize, bytes: usize) {
        self.written.fetch_add(rows as u64, Ordering::Relaxed);
        self.settle(rows, bytes);
        self.lock().last_commit = Some(Instant::now());
    }

    /// Only a row that tells something counts: when just its opening was dropped, the completed
    /// row that follows carries everything.
    pub(super) fn count_lost(&self, row: &Row) {
        if row.completeness != Completeness::Open {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(connection) = row.connection {
            let mut state = self.lock();
            if state.noted.len() < NOTED {
                let of = || Unfinished::new(row.started_at, row.host.clone(), unfinished::OVERFLOW);
                state.noted.entry(connection).or_insert_with(of);
            }
        }
    }

    /// Connections of which something is missing that the database does not know of.
    pub(super) fn to_note(&self) -> Vec<(Uuid, Unfinished)> {
        self.lock().noted.iter().map(|(id, connection)| (*id, connection.clone())).collect()
    }

    /// The database knows of these.
    pub(super) fn noted(&self, connections: &[(Uuid, Unfinished)]) {
        let mut state = self.lock();
        for (id, _) in connections {
            state.noted.remove(id);
        }
    }

    pub(super) fn has_to_note(&self) -> bool {
        !self.lock().noted.is_empty()
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn beat(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heartbeat.store(now, Ordering::Relaxed);
    }

    pub(super) fn order_stop(&self, deadline: Instant) {
        let mut state = self.lock();
        state.stop = Some(deadline);
        self.to_writer.notify_one();
    }

    /// From now on rows are counted as lost; what is queued is the writer's to take.
    pub(super) fn close(&self) {
        self.lock().open = false;
    }

    fn heartbeat_age(&self) -> Duration {
        let at = Duration::from_millis(self.heartbeat.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(at)
    }
}

impl Queued {
    pub(super) const fn size(&self) -> usize {
        self.size
    }
}

/// About what the row takes in memory.
fn size_of_row(row: &Row) -> usize {
    let texts = [&row.host, &row.path, &row.method, &row.provider];
    let options = [
        &row.surface,
        &row.model_requested,
        &row.model,
        &row.provider_request_id,
        &row.response_id,
        &row.error_class,
        &row.tier,
        &row.speed,
        &row.geo,
        &row.price_rule,
        &row.cost_reason,
        &row.completeness_reason,
        &row.project,
        &row.project_source,
        &row.client,
        &row.run,
        &row.session,
        &row.agent,
        &row.agent_parent,
        &row.agent_kind,
        &row.branch,
        &row.cwd,
    ];
    size_of::<Queued>()
        + texts.iter().map(|s| s.capacity()).sum::<usize>()
        + options.iter().filter_map(|s| s.as_ref()).map(String::capacity).sum::<usize>()
        + row.detail.parts.len() * size_of::<UsagePart>()
        + row.quota.len() * size_of::<Window>()
}
