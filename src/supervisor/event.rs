//! The vocabulary between the pure core and the runner.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a child ended.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(tag = "kind", content = "why", rename_all = "snake_case")]
pub enum Exit {
    /// By itself, or because it was asked to.
    Normal,
    /// By [`super::Birth::fail`], or not ready in time.
    Failed(String),
    /// Where, and what when the text is a literal of ours.
    Panicked(String),
    /// No heartbeat.
    Stalled,
    /// Aborted at its shutdown deadline.
    Killed,
    /// A supervisor whose child of this name blocks its thread: starting anew would not cure it.
    Unkillable(String),
}

impl Exit {
    /// Whether a transient child is started again after it.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Normal => false,
            Self::Failed(_)
            | Self::Panicked(_)
            | Self::Stalled
            | Self::Killed
            | Self::Unkillable(_) => true,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::Panicked(at) => write!(f, "panicked: {at}"),
            Self::Stalled => f.write_str("stalled"),
            Self::Killed => f.write_str("killed"),
            Self::Unkillable(child) => write!(f, "failed: {child} blocks its thread"),
        }
    }
}

/// Why a supervisor gave up.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Cause {
    /// More restarts than its intensity allows; `exit` is the last of them.
    Intensity { child: String, exit: Exit },
    /// An abort had no effect: the child blocks its thread, which only the end of the process
    /// can cure.
    Unkillable { child: String },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intensity { child, exit } => {
                write!(f, "too many restarts, the last of {child}: {exit}")
            }
            Self::Unkillable { child } => write!(f, "{child} blocks its thread"),
        }
    }
}

/// What happened. `child` is the index in the plan.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The supervisor was started: the first event of each tree.
    TreeStarted,
    /// The runner launched it.
    ChildStarting {
        child: usize,
        generation: u64,
    },
    ChildReady {
        child: usize,
        generation: u64,
    },
    ChildExited {
        child: usize,
        generation: u64,
        exit: Exit,
    },
    HeartbeatMissed {
        child: usize,
        generation: u64,
    },
    TimerFired {
        timer: Timer,
        child: usize,
        generation: u64,
    },
    /// Somebody wants a fresh generation of a child that runs.
    RestartRequested {
        child: usize,
    },
    ShutdownRequested,
}

impl Event {
    /// Its name in the journal, and the child (with its generation) that it is about.
    #[must_use]
    pub fn describe(&self) -> (&'static str, Option<(usize, Option<u64>)>) {
        let subject = |child: &usize, generation: &u64| Some((*child, Some(*generation)));
        match self {
            Self::TreeStarted => ("tree_started", None),
            Self::ChildStarting { child, generation } => ("starting", subject(child, generation)),
            Self::ChildReady { child, generation } => ("ready", subject(child, generation)),
            Self::ChildExited { child, generation, .. } => ("exited", subject(child, generation)),
            Self::HeartbeatMissed { child, generation } => {
                ("heartbeat_missed", subject(child, generation))
            }
            Self::TimerFired { timer, child, generation } => {
                let name = match timer {
                    Timer::StartDeadline => "start_deadline",
                    Timer::RestartDue => "restart_due",
                    Timer::ShutdownDeadline => "shutdown_deadline",
                    Timer::AbortDeadline => "abort_deadline",
                };
                (name, subject(child, generation))
            }
            Self::RestartRequested { child } => ("restart_requested", Some((*child, None))),
            Self::ShutdownRequested => ("shutdown_requested", None),
        }
    }
}

/// What a [`Effect::ArmTimer`] is for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Timer {
    /// It should be ready by now.
    StartDeadline,
    /// Its delay is over.
    RestartDue,
    /// It should have stopped by now.
    ShutdownDeadline,
    /// Even the abort should have worked by now.
    AbortDeadline,
}

/// What the runner has to do, in this order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Effect {
    Spawn {
        child: usize,
        generation: u64,
    },
    RequestStop {
        child: usize,
        generation: u64,
    },
    Abort {
        child: usize,
        generation: u64,
    },
    ArmTimer {
        timer: Timer,
        child: usize,
        generation: u64,
        after: Duration,
    },
    /// Tell the parent now; the children are stopped first, [`Effect::Finished`] comes later.
    Escalate(Cause),
    /// No child is left.
    Finished,
}

impl Effect {
    /// Which child is to be started, as which generation.
    pub(super) fn spawn(&self) -> Option<(usize, u64)> {
        match self {
            Self::Spawn { child, generation } => Some((*child, *generation)),
            Self::RequestStop { .. }
            | Self::Abort { .. }
            | Self::ArmTimer { .. }
            | Self::Escalate(_)
            | Self::Finished => None,
        }
    }
}
