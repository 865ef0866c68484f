//! A tree as data.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_rt::{Arbiter, ArbiterHandle};
use serde::{Deserialize, Serialize};

use super::birth::{Birth, Slot};
use super::launch::{self, Launch};
use super::step::{ChildPlan, Plan};
use super::{Child, Journal, Lane, Restart};

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// A child's end concerns that child only.
    OneForOne,
    /// Later children depend on earlier ones: they are stopped, and started after it again.
    RestForOne,
}

/// More than `restarts` within `period` is an escalation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Intensity {
    pub restarts: u32,
    pub period: Duration,
}

/// Growing delay between restarts; the runner jitters it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Backoff {
    /// The first restart has no delay.
    pub immediate: bool,
    pub first: Duration,
    pub factor: u32,
    pub max: Duration,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { immediate: false, first, factor: 2, max }
    }

    /// The delay before restart number `streak` (from 0) in a row.
    #[must_use]
    pub fn delay(&self, streak: u32) -> Duration {
        let power = match (self.immediate, streak) {
            (true, 0) => return Duration::ZERO,
            (true, n) => n - 1,
            (false, n) => n,
        };
        let factor = self.factor.checked_pow(power).unwrap_or(u32::MAX);
        self.first.checked_mul(factor).unwrap_or(self.max).min(self.max)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(10))
    }
}

pub(super) type SpawnFn = Arc<dyn Fn(Launch) + Send + Sync>;

/// How to make, watch and end one child.
#[derive(Clone)]
pub struct ChildSpec {
    pub id: &'static str,
    pub restart: Restart,
    /// Not ready by then, it is killed and has failed. 10 s (a tree: 60 s).
    pub start_deadline: Duration,
    /// Told to end and there after this, it is killed. 5 s (a tree: 35 s).
    pub shutdown: Duration,
    /// A context that was not polled for this long is frozen; `None`: not watched.
    pub heartbeat: Option<Duration>,
    /// Which thread it runs on.
    pub lane: Lane,
    /// Instead of the tree's.
    pub backoff: Option<Backoff>,
    pub(super) spawn: SpawnFn,
}

impl ChildSpec {
    /// A child actor. The factory is called for each generation, on the child's own thread.
    pub fn actor<A: Child>(
        id: &'static str,
        slot: Slot<A>,
        factory: impl Fn(Birth) -> A + Send + Sync + 'static,
    ) -> Self {
        let factory = Arc::new(factory);
        let spawn = move |launch: Launch| {
            launch::actor(launch, slot.clone(), Arc::clone(&factory));
        };
        Self {
            id,
            restart: Restart::Permanent,
            start_deadline: Duration::from_secs(10),
            shutdown: Duration::from_secs(5),
            heartbeat: Some(Duration::from_secs(5)),
            lane: Lane::Work,
            backoff: None,
            spawn: Arc::new(spawn),
        }
    }

    /// A supervisor as a child. It is ready when all its children have been; its escalation is
    /// this child's failure. The factory is called for each generation, so that nothing of the
    /// last one is left. Journal, process and lanes are the parent's.
    pub fn tree(
        id: &'static str,
        factory: impl Fn(&Birth) -> TreeSpec + Send + Sync + 'static,
    ) -> Self {
        let factory = Arc::new(factory);
        let spawn = move |launch: Launch| launch::tree(launch, Arc::clone(&factory));
        Self {
            id,
            restart: Restart::Permanent,
            start_deadline: Duration::from_secs(60),
            shutdown: Duration::from_secs(35),
            heartbeat: None,
            lane: Lane::Control,
            backoff: None,
            spawn: Arc::new(spawn),
        }
    }

    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    #[must_use]
    pub fn start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = deadline;
        self
    }

    #[must_use]
    pub fn shutdown(mut self, deadline: Duration) -> Self {
        self.shutdown = deadline;
        self
    }

    #[must_use]
    pub fn heartbeat(mut self, heartbeat: Option<Duration>) -> Self {
        self.heartbeat = heartbeat;
        self
    }

    #[must_use]
    pub fn lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec")
            .field("id", &self.id)
            .field("restart", &self.restart)
            .field("lane", &self.lane)
            .finish_non_exhaustive()
    }
}

/// A supervisor and its children, in the order of their start.
#[derive(Clone, Debug)]
pub struct TreeSpec {
    pub process: &'static str,
    pub strategy: Strategy,
    /// `None`: never give up.
    pub intensity: Option<Intensity>,
    pub backoff: Backoff,
    pub children: Vec<ChildSpec>,
    pub journal: Journal,
    pub log: slog::Logger,
    pub lanes: Lanes,
}

impl TreeSpec {
    /// One for one, three restarts in a minute, a thread for each lane.
    #[must_use]
    pub fn new(process: &'static str, log: slog::Logger, journal: Journal) -> Self {
        Self {
            process,
            strategy: Strategy::OneForOne,
            intensity: Some(Intensity { restarts: 3, period: Duration::from_secs(60) }),
            backoff: Backoff::default(),
            children: Vec::new(),
            journal,
            log,
            lanes: Lanes::threads(),
        }
    }

    /// The specification of a nested supervisor, to which the parent gives the rest.
    #[must_use]
    pub fn nested(birth: &Birth) -> Self {
        Self::new("", birth.log().clone(), Journal::disabled())
    }

    #[must_use]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        self.strategy = strategy;
        self
    }

    #[must_use]
    pub fn intensity(mut self, intensity: Option<Intensity>) -> Self {
        self.intensity = intensity;
        self
    }

    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    #[must_use]
    pub fn lanes(mut self, lanes: Lanes) -> Self {
        self.lanes = lanes;
        self
    }

    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// What the pure core needs of it.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let child = |c: &ChildSpec| ChildPlan {
            id: c.id.to_owned(),
            restart: c.restart,
            start_deadline: c.start_deadline,
            shutdown: c.shutdown,
            backoff: c.backoff.unwrap_or(self.backoff),
        };
        Plan {
            strategy: self.strategy,
            intensity: self.intensity,
            children: self.children.iter().map(child).collect(),
        }
    }
}

/// The threads that the children's contexts run on.
#[derive(Clone, Debug)]
pub struct Lanes(Option<Arc<Mutex<HashMap<Lane, ArbiterHandle>>>>);

impl Lanes {
    /// An arbiter for each lane, made when the first child needs it.
    #[must_use]
    pub fn threads() -> Self {
        Self(Some(Arc::default()))
    }

    /// Everything on the supervisor's own thread: for small processes and for tests. A child
    /// that blocks it also blocks its supervisor.
    #[must_use]
    pub fn current() -> Self {
        Self(None)
    }

    pub(super) fn run(&self, lane: Lane, f: impl FnOnce() + Send + 'static) -> bool {
        let Some(lanes) = &self.0 else {
            f();
            return true;
        };
        let mut lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.get(&lane).is_some_and(ArbiterHandle::alive) {
            match Arbiter::try_new() {
                Ok(arbiter) => {
                    lanes.insert(lane, arbiter.handle());
                }
                Err(_) => return false,
            }
        }
        lanes.get(&lane).is_some_and(|arbiter| arbiter.spawn_fn(f))
    }
}
