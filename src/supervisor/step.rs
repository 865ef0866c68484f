//! The pure machine: an event and the time in, effects out. Nothing here waits, spawns or reads
//! a clock; the runner does as the effects say.
//!
//! After each event [`drive`] compares the state with what the strategy wants and moves on: it
//! starts the next child, stops the next one, or says that all is over.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Restart;
use super::event::{Cause, Effect, Event, Exit, Timer};
use super::spec::{Backoff, Intensity, Strategy};

/// How long an abort may take until the child counts as unkillable.
pub const ABORT_DEADLINE: Duration = Duration::from_secs(2);

/// A tree as the core sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Plan {
    pub strategy: Strategy,
    pub intensity: Option<Intensity>,
    pub children: Vec<ChildPlan>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ChildPlan {
    pub id: String,
    pub restart: Restart,
    pub start_deadline: Duration,
    pub shutdown: Duration,
    pub backoff: Backoff,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct State {
    pub mode: Mode,
    pub children: Vec<ChildState>,
    /// When the unplanned restarts within the period were.
    pub restarts: VecDeque<Duration>,
    pub escalation: Option<Cause>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Mode {
    /// Before `TreeStarted`.
    New,
    Running,
    /// Ending, asked or escalated.
    Stopping,
    Finished,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ChildState {
    pub phase: Phase,
    /// 0: never started.
    pub generation: u64,
    /// Unplanned ones.
    pub restarts: u64,
    pub last_exit: Option<Exit>,
    /// Restarts in a row, for the delay.
    pub streak: u32,
    pub ready_at: Option<Duration>,
    /// The first fault of this generation, which is why it is being ended.
    pub fault: Option<Exit>,
    /// Being stopped for another's sake: it waits for its turn again and counts as no failure.
    pub planned: bool,
    /// Has been ready or has failed once: siblings that don't depend on it wait no longer.
    pub released: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for its turn to start.
    Idle,
    Starting,
    Ready,
    /// Was asked to stop.
    Stopping,
    /// Was aborted.
    Killing,
    /// Waits for the delay before its restart.
    Backoff,
    /// Over, not to be started again.
    Ended,
    /// Could not be ended.
    Lost,
}

impl Phase {
    /// A generation exists.
    #[must_use]
    pub fn is_live(self) -> bool {
        match self {
            Self::Starting | Self::Ready | Self::Stopping | Self::Killing => true,
            Self::Idle | Self::Backoff | Self::Ended | Self::Lost => false,
        }
    }

    /// A later sibling that depends on it may run.
    #[must_use]
    pub fn supports(self) -> bool {
        match self {
            Self::Ready | Self::Ended => true,
            Self::Idle
            | Self::Starting
            | Self::Stopping
            | Self::Killing
            | Self::Backoff
            | Self::Lost => false,
        }
    }

    fn can_stop(self) -> bool {
        match self {
            Self::Starting | Self::Ready => true,
            Self::Idle
            | Self::Stopping
            | Self::Killing
            | Self::Backoff
            | Self::Ended
            | Self::Lost => false,
        }
    }
}

impl State {
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let child = ChildState {
            phase: Phase::Idle,
            generation: 0,
            restarts: 0,
            last_exit: None,
            streak: 0,
            ready_at: None,
            fault: None,
            planned: false,
            released: false,
        };
        Self {
            mode: Mode::New,
            children: vec![child; plan.children.len()],
            restarts: VecDeque::new(),
            escalation: None,
        }
    }

    /// Every child has been ready, or is over.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.mode == Mode::Running && self.children.iter().all(|c| c.phase.supports())
    }

    /// The highest child that has a generation, above `floor` if given.
    #[must_use]
    pub fn last_live(&self, above: Option<usize>) -> Option<usize> {
        let from = above.map_or(0, |i| i.saturating_add(1));
        (from..self.children.len())
            .rev()
            .find(|i| self.children.get(*i).is_some_and(|c| c.phase.is_live()))
    }

    /// Whether this timer still has somebody who waits for it.
    #[must_use]
    pub fn awaits(&self, timer: Timer, child: usize, generation: u64) -> bool {
        let phase = match timer {
            // In a shutdown its turn to stop comes anyway.
            Timer::StartDeadline if self.mode != Mode::Running => return false,
            Timer::StartDeadline => Phase::Starting,
            Timer::RestartDue => Phase::Backoff,
            Timer::ShutdownDeadline => Phase::Stopping,
            Timer::AbortDeadline => Phase::Killing,
        };
        self.children.get(child).is_some_and(|c| c.phase == phase && c.generation == generation)
    }

    fn live(&mut self, child: usize, generation: u64) -> Option<&mut ChildState> {
        self.children.get_mut(child).filter(|c| c.generation == generation && c.phase.is_live())
    }
}

/// Decides. Events of an earlier generation, and timers that nobody waits for any more, change
/// nothing.
#[must_use]
pub fn step(plan: &Plan, state: &mut State, event: &Event, now: Duration) -> Vec<Effect> {
    #[cfg(debug_assertions)]
    let before = state.clone();
    let mut effects = Vec::new();
    apply(plan, state, event, now, &mut effects);
    drive(plan, state, &mut effects);
    #[cfg(debug_assertions)]
    if let Err(violation) = super::invariants::check(plan, &before, event, &effects, state, now) {
        // Only reached by a mistake in this file; the release build goes on.
        panic!("supervision invariant: {violation}");
    }
    effects
}

fn apply(plan: &Plan, state: &mut State, event: &Event, now: Duration, effects: &mut Vec<Effect>) {
    match event {
        Event::TreeStarted => {
            if state.mode == Mode::New {
                state.mode = Mode::Running;
            }
        }
        Event::ChildStarting { child, generation } => {
            let (child, generation) = (*child, *generation);
            let starting =
                state.live(child, generation).is_some_and(|c| c.phase == Phase::Starting);
            if let (true, Some(p)) = (starting, plan.children.get(child)) {
                let (timer, after) = (Timer::StartDeadline, p.start_deadline);
                effects.push(Effect::ArmTimer { timer, child, generation, after });
            }
        }
        Event::ChildReady { child, generation } => {
            if let Some(c) = state.live(*child, *generation)
                && c.phase == Phase::Starting
            {
                c.phase = Phase::Ready;
                c.ready_at = Some(now);
                c.released = true;
            }
        }
        Event::ChildExited { child, generation, exit } => {
            exited(plan, state, *child, *generation, exit, now, effects);
        }
        Event::HeartbeatMissed { child, generation } => {
            if let Some(c) = state.live(*child, *generation)
                && c.phase.can_stop()
            {
                c.fault.get_or_insert(Exit::Stalled);
                // A context that is not polled could not carry out a stop.
                abort(c, *child, effects);
            }
        }
        Event::TimerFired { timer, child, generation } => {
            fired(plan, state, *timer, *child, *generation, effects);
        }
        Event::RestartRequested { child } => {
            if state.mode == Mode::Running
                && let (Some(c), Some(p)) =
                    (state.children.get_mut(*child), plan.children.get(*child))
            {
                if c.phase.can_stop() {
                    c.planned = true;
                    request_stop(c, *child, p, effects);
                } else if c.phase == Phase::Backoff {
                    c.phase = Phase::Idle;
                }
            }
        }
        Event::ShutdownRequested => {
            if state.mode != Mode::Finished {
                state.mode = Mode::Stopping;
            }
        }
    }
}

fn exited(
    plan: &Plan,
    state: &mut State,
    child: usize,
    generation: u64,
    exit: &Exit,
    now: Duration,
    effects: &mut Vec<Effect>,
) {
    let running = state.mode == Mode::Running;
    let (Some(c), Some(p)) = (state.live(child, generation), plan.children.get(child)) else {
        return;
    };
    // The first fault is the cause; the kill that followed is not.
    let exit = c.fault.take().unwrap_or_else(|| exit.clone());
    c.last_exit = Some(exit.clone());
    c.released = true;
    if c.ready_at.take().is_some_and(|at| now.saturating_sub(at) >= p.backoff.max) {
        c.streak = 0;
    }
    let planned = std::mem::take(&mut c.planned);
    let again = match p.restart {
        Restart::Permanent => true,
        Restart::Transient => planned || exit.is_failure(),
        Restart::Temporary => false,
    };
    if !running || !again {
        c.phase = Phase::Ended;
        return;
    }
    if let Exit::Unkillable(grandchild) = &exit {
        // Its thread is ours too: only the end of the process frees it.
        c.phase = Phase::Ended;
        let child = format!("{}.{grandchild}", p.id);
        escalate(state, Cause::Unkillable { child }, effects);
        return;
    }
    if planned {
        c.phase = Phase::Idle;
        return;
    }
    c.phase = Phase::Backoff;
    c.restarts += 1;
    let after = p.backoff.delay(c.streak);
    c.streak = c.streak.saturating_add(1);
    if let Some(limit) = plan.intensity {
        state.restarts.push_back(now);
        state.restarts.retain(|at| now.saturating_sub(*at) < limit.period);
        if state.restarts.len() > limit.restarts as usize {
            escalate(state, Cause::Intensity { child: p.id.clone(), exit }, effects);
            return;
        }
    }
    effects.push(Effect::ArmTimer { timer: Timer::RestartDue, child, generation, after });
}

fn fired(
    plan: &Plan,
    state: &mut State,
    timer: Timer,
    child: usize,
    generation: u64,
    effects: &mut Vec<Effect>,
) {
    if !state.awaits(timer, child, generation) {
        // It went another way in the meantime.
        return;
    }
    let (Some(c), Some(p)) = (state.children.get_mut(child), plan.children.get(child)) else {
        return;
    };
    match timer {
        Timer::StartDeadline => {
            c.fault.get_or_insert(Exit::Failed(format!("not ready within {:?}", p.start_deadline)));
            c.released = true;
            request_stop(c, child, p, effects);
        }
        Timer::RestartDue => c.phase = Phase::Idle,
        Timer::ShutdownDeadline => abort(c, child, effects),
        Timer::AbortDeadline => {
            c.phase = Phase::Lost;
            escalate(state, Cause::Unkillable { child: p.id.clone() }, effects);
        }
    }
}

fn escalate(state: &mut State, cause: Cause, effects: &mut Vec<Effect>) {
    if state.escalation.is_none() {
        state.escalation = Some(cause.clone());
        effects.push(Effect::Escalate(cause));
    }
    state.mode = Mode::Stopping;
}

fn request_stop(c: &mut ChildState, child: usize, p: &ChildPlan, effects: &mut Vec<Effect>) {
    let generation = c.generation;
    c.phase = Phase::Stopping;
    effects.push(Effect::RequestStop { child, generation });
    let (timer, after) = (Timer::ShutdownDeadline, p.shutdown);
    effects.push(Effect::ArmTimer { timer, child, generation, after });
}

fn abort(c: &mut ChildState, child: usize, effects: &mut Vec<Effect>) {
    let generation = c.generation;
    c.phase = Phase::Killing;
    effects.push(Effect::Abort { child, generation });
    let (timer, after) = (Timer::AbortDeadline, ABORT_DEADLINE);
    effects.push(Effect::ArmTimer { timer, child, generation, after });
}

/// Moves the tree towards what mode and strategy want.
fn drive(plan: &Plan, state: &mut State, effects: &mut Vec<Effect>) {
    match state.mode {
        Mode::New | Mode::Finished => {}
        Mode::Stopping => stop_all(plan, state, effects),
        Mode::Running => match plan.strategy {
            Strategy::OneForOne => start_each(state, effects),
            Strategy::RestForOne => align(plan, state, effects),
        },
    }
}

fn stop_all(plan: &Plan, state: &mut State, effects: &mut Vec<Effect>) {
    for c in &mut state.children {
        match c.phase {
            Phase::Idle | Phase::Backoff => c.phase = Phase::Ended,
            Phase::Starting
            | Phase::Ready
            | Phase::Stopping
            | Phase::Killing
            | Phase::Ended
            | Phase::Lost => {}
        }
    }
    match state.last_live(None) {
        Some(last) => stop_child(plan, state, last, effects),
        None => {
            state.mode = Mode::Finished;
            effects.push(Effect::Finished);
        }
    }
}

/// Starts whoever waits, as soon as everyone before it is up or has shown that it can't be.
fn start_each(state: &mut State, effects: &mut Vec<Effect>) {
    for child in 0..state.children.len() {
        let Some(c) = state.children.get_mut(child) else { return };
        if c.phase == Phase::Idle {
            spawn(c, child, effects);
        }
        if !c.released {
            return;
        }
    }
}

/// Nothing runs above the first child that is not up.
fn align(plan: &Plan, state: &mut State, effects: &mut Vec<Effect>) {
    let Some(down) = state.children.iter().position(|c| !c.phase.supports()) else { return };
    if let Some(last) = state.last_live(Some(down)) {
        if let Some(c) = state.children.get_mut(last)
            && c.phase.is_live()
        {
            c.planned = true;
        }
        stop_child(plan, state, last, effects);
    } else if let Some(c) = state.children.get_mut(down)
        && c.phase == Phase::Idle
    {
        spawn(c, down, effects);
    }
}

fn stop_child(plan: &Plan, state: &mut State, child: usize, effects: &mut Vec<Effect>) {
    if let (Some(c), Some(p)) = (state.children.get_mut(child), plan.children.get(child))
        && c.phase.can_stop()
    {
        request_stop(c, child, p, effects);
    }
}

fn spawn(c: &mut ChildState, child: usize, effects: &mut Vec<Effect>) {
    c.generation += 1;
    c.phase = Phase::Starting;
    c.fault = None;
    effects.push(Effect::Spawn { child, generation: c.generation });
}

#[cfg(test)]
mod tests;
