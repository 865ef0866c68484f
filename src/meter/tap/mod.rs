//! The daemon's side of the hand-over: takes client sockets that the edge offers, and meters them.
//!
//! Connections live on threads of their own ([`lanes`]), so that neither an actor nor the admin API
//! can slow a byte, and observers on another one: a thread that is busy with a long parse polls no
//! sockets. A connection keeps its tap alive, so whatever holds the tap may come and go.

mod bypass;
mod channel;
mod counters;
mod judge;
mod lanes;
mod look_ups;
mod means;
mod offer;
mod silent;
mod spoken;
mod unfit;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use slog::Logger;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

pub use bypass::{Bypass, BypassFile, Bypassed};
pub use counters::TapSnapshot;

use super::attribution::Attributor;
use super::ca::Ca;
use super::feed::Budget;
use super::ledger::Register;
use super::observer::{MakeFollower, RowSink, follower};
use super::price::Book;
use super::pulse::Pulse;
use super::pump::Stage;
use super::trust::Trust;
use crate::config::{Config, is_selftest};
use crate::dial::is_shortage;
use crate::exit::Exit;
use crate::handover::channel::{ChannelError, EdgeChannel};
use crate::handover::{ToDaemon, ToEdge, VERSION};
use crate::home::Home;
use counters::{Counters, add};
use lanes::Lanes;
use look_ups::LookUps;
use means::Trial;
use unfit::Unfit;

/// Observers work in batches ([`Pulse`]): one thread keeps up with whatever the others move.
const OBSERVER_WORKERS: usize = 1;
/// What is left to do when connections have been cut off: write their rows.
const CUT_GRACE: Duration = Duration::from_secs(3);
/// So many connections in a row that ended in a panic, none taken in between.
const PANICS_IN_A_ROW: u32 = 8;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bounds and patience.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Offers and connections at once.
    pub connections: usize,
    /// Bytes that may wait for one connection's observer, and for all of them.
    pub observer_bytes: usize,
    pub observers_bytes: usize,
    /// For a whole ClientHello.
    pub hello: Duration,
    /// With what comes before and after it within what the edge waits (`edge::offer::LIMIT`): it then dials
    /// itself, and waits as long as its client does.
    pub dial: Duration,
    /// For the provider's handshake. Within what clients wait for a connection: one that hangs for us may
    /// not hang for them.
    pub provider: Duration,
    /// For the client's.
    pub handshake: Duration,
    /// Between two signs of life for the edge.
    pub progress: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            observer_bytes: 16 << 20,
            observers_bytes: 64 << 20,
            hello: Duration::from_secs(10),
            dial: Duration::from_secs(15),
            provider: Duration::from_secs(3),
            handshake: Duration::from_secs(20),
            progress: Duration::from_millis(80),
        }
    }
}

/// What the tap works with. What may be reloaded is behind an `ArcSwap`.
#[derive(Clone)]
pub struct TapDeps {
    pub home: Home,
    /// The same that `/health` answers with.
    pub instance: Uuid,
    /// For the edges: reads as ready once this process dies.
    pub canary: Option<Arc<OwnedFd>>,
    pub config: Arc<ArcSwap<Config>>,
    pub ca: Arc<ArcSwap<Ca>>,
    pub trust: Arc<ArcSwap<Trust>>,
    pub sink: Arc<dyn RowSink>,
    pub book: Arc<ArcSwap<Book>>,
    pub register: Register,
    /// Outlives the tap.
    pub bypass: Arc<Bypass>,
    pub limits: Limits,
    pub log: Logger,
}

impl std::fmt::Debug for TapDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TapDeps").field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// Why the tap's accept path is not in order.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("no answer in time")]
    Timeout,
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("closed without an answer")]
    Closed,
    #[error("another daemon answered")]
    Foreign,
    #[error("the probe did not finish")]
    Lost,
    /// It says nothing about the accept path.
    #[error("no descriptor was left to ask with")]
    Shortage,
}

impl ProbeError {
    fn is_shortage(&self) -> bool {
        match self {
            Self::Shortage => true,
            Self::Channel(e) => e.is_shortage(),
            Self::Timeout | Self::Closed | Self::Foreign | Self::Lost => false,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tap {
    deps: TapDeps,
    make_follower: MakeFollower,
    stage: watch::Sender<Stage>,
    open: watch::Sender<usize>,
    budget: Arc<Budget>,
    pulse: Arc<Pulse>,
    /// Connections taken at the last panic, and panics since then.
    panics_at: Mutex<(u64, u32)>,
    counters: Counters,
    /// Of self-tests: nobody's figures.
    trial_counters: Counters,
    unfit: Unfit,
    trial: Mutex<Option<Trial>>,
    look_ups: Arc<LookUps>,
    lanes: Lanes,
    observers: Handle,
    /// Taken on drop: a runtime must not be dropped within another one.
    observing: Option<Runtime>,
}

impl Tap {
    /// # Errors
    /// When its threads can't be started.
    pub fn new(deps: TapDeps) -> io::Result<Arc<Self>> {
        Self::with_follower(deps, follower)
    }

    fn with_follower(deps: TapDeps, make_follower: MakeFollower) -> io::Result<Arc<Self>> {
        let observers = Builder::new_multi_thread()
            .worker_threads(OBSERVER_WORKERS)
            .max_blocking_threads(1)
            .thread_name("observer")
            .enable_time()
            .build()?;
        Ok(Arc::new(Self {
            make_follower,
            stage: watch::Sender::new(Stage::Serving),
            open: watch::Sender::new(0),
            budget: Budget::new(deps.limits.observers_bytes),
            pulse: Pulse::start(observers.handle()),
            panics_at: Mutex::default(),
            counters: Counters::default(),
            trial_counters: Counters::default(),
            unfit: Unfit::default(),
            trial: Mutex::default(),
            look_ups: LookUps::new(Attributor::new(deps.log.clone())),
            lanes: Lanes::start()?,
            observers: observers.handle().clone(),
            observing: Some(observers),
            deps,
        }))
    }

    /// Accepts edges on `listener` until the future is dropped; connections that were taken by
    /// then go on.
    ///
    /// # Errors
    /// When the listener is not usable.
    pub async fn serve(self: Arc<Self>, listener: StdListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let handle = self.lanes.first().clone();
        let mut task = AbortOnDrop(handle.spawn(async move {
            let listener = UnixListener::from_std(listener)?;
            // One line for as long as it lasts.
            let mut failing = false;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        failing = false;
                        tokio::spawn(channel::serve(Arc::clone(&self), stream));
                    }
                    Err(e) => {
                        // Out of descriptors, most likely: those in use will be given back.
                        if is_shortage(&e) {
                            add(&self.counters.shortages, 1);
                        }
                        if !std::mem::replace(&mut failing, true) {
                            slog::warn!(self.deps.log, "cannot accept an edge"; "error" => %e);
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }));
        (&mut task.0).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Takes no more connections, lets exchanges finish until `deadline`, then cuts what is left.
    /// True when nothing had to be cut.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.stage.send_if_modified(|stage| match stage {
            Stage::Serving => {
                *stage = Stage::Draining;
                true
            }
            Stage::Draining | Stage::Cut => false,
        });
        // Who wants to close a connection waits for what was seen of it.
        self.pulse.stay_awake();
        let mut open = self.open.subscribe();
        if timeout(deadline, open.wait_for(|n| *n == 0)).await.is_ok() {
            return true;
        }
        self.stage.send_replace(Stage::Cut);
        let _ = timeout(CUT_GRACE, open.wait_for(|n| *n == 0)).await;
        false
    }

    /// A real round trip through the accept path: connects to our own socket and says hello.
    ///
    /// # Errors
    /// When an edge could not use this tap right now.
    pub async fn probe(&self, deadline: Duration) -> Result<Duration, ProbeError> {
        let shortages = || self.counters.shortages.load(Ordering::Relaxed);
        let before = shortages();
        let answer = self.round_trip(deadline).await;
        // What can't be accepted has no answer in time.
        let short = |e: &ProbeError| e.is_shortage() || shortages() != before;
        answer.map_err(|e| if short(&e) { ProbeError::Shortage } else { e })
    }

    async fn round_trip(&self, deadline: Duration) -> Result<Duration, ProbeError> {
        let path = self.deps.home.control_socket();
        let instance = self.deps.instance;
        let started = Instant::now();
        let trip = AbortOnDrop(self.lanes.first().spawn(async move {
            let mut channel = EdgeChannel::connect(&path).await?;
            let hello = ToDaemon::Hello { version: VERSION, pid: std::process::id() };
            channel.send(&hello, None).await?;
            match channel.recv().await? {
                Some((ToEdge::Hello { instance: answer, .. }, _)) if answer == instance => Ok(()),
                Some(_) => Err(ProbeError::Foreign),
                None => Err(ProbeError::Closed),
            }
        }));
        let mut trip = trip;
        match timeout(deadline, &mut trip.0).await {
            Err(_) => Err(ProbeError::Timeout),
            Ok(Err(_)) => Err(ProbeError::Lost),
            Ok(Ok(result)) => result.map(|()| started.elapsed()),
        }
    }

    /// Where a connection to this host counts.
    fn counters_of(&self, host: &str) -> &Counters {
        if is_selftest(host) { &self.trial_counters } else { &self.counters }
    }

    /// Observers look at what waits for them now: somebody waits for their rows.
    pub fn hurry(&self) {
        self.pulse.hurry();
    }

    #[must_use]
    pub fn snapshot(&self) -> TapSnapshot {
        let mut snapshot = self.counters.snapshot();
        snapshot.open = *self.open.borrow();
        snapshot.draining = *self.stage.borrow() != Stage::Serving;
        snapshot.observer_bytes = self.budget.used();
        snapshot.bypass = self.bypassed();
        let (given_up, silent) = self.look_ups.silent();
        snapshot.directories_given_up = given_up;
        snapshot.silent_directories =
            silent.iter().map(|dir| dir.to_string_lossy().into_owned()).collect();
        snapshot
    }

    /// The clients whose connections stay raw because they broke off handshakes with us.
    #[must_use]
    pub fn bypassed(&self) -> Vec<Bypassed> {
        self.deps.bypass.entries((Instant::now(), Timestamp::now()))
    }

    /// The certificate of the CA that signs for hosts right now.
    #[must_use]
    pub fn authority(&self) -> CertificateDer<'static> {
        self.deps.ca.load().certificate().clone()
    }

    /// They may all try again; how many there were.
    pub fn clear_bypass(&self) -> usize {
        self.deps.bypass.clear()
    }

    /// A connection's task panicked. Nobody restarts those; when it is one after the other (out of
    /// memory: no thread can be had), only a new process will do.
    fn panicked(&self) {
        let panics = self.counters.panics.fetch_add(1, Ordering::Relaxed) + 1;
        let commits = self.counters.commits.load(Ordering::Relaxed);
        let mut at_last = self.panics_at.lock().unwrap_or_else(PoisonError::into_inner);
        let (commits_then, in_a_row) = &mut *at_last;
        if *commits_then != commits {
            (*commits_then, *in_a_row) = (commits, 0);
        }
        *in_a_row += 1;
        if *in_a_row >= PANICS_IN_A_ROW {
            slog::crit!(self.deps.log, "no connection can be served; the process ends";
                "panics" => panics);
            std::process::exit(i32::from(Exit::ESCALATED.0));
        }
    }

    /// A place for one more connection; given back on drop.
    fn admit(self: &Arc<Self>) -> Option<Slot> {
        let limit = self.deps.limits.connections;
        let admitted = self.open.send_if_modified(|open| {
            let room = *open < limit;
            *open += usize::from(room);
            room
        });
        admitted.then(|| Slot { tap: Arc::clone(self), lane: self.lanes.enter() })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.observing.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

struct Slot {
    tap: Arc<Tap>,
    lane: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tap.panicked();
        }
        self.tap.lanes.leave(self.lane);
        self.tap.open.send_modify(|open| *open = open.saturating_sub(1));
    }
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
