//! The pure core against everything that can happen: all short histories of a small tree, and
//! long random ones. `step` checks the invariants itself in a debug build.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::event::{Effect, Event, Exit, Timer};
use super::spec::{Backoff, Intensity, Strategy as Kind};
use super::step::{ChildPlan, Mode, Phase, Plan, State, step};
use super::{Restart, invariants};

/// A tree and the world around it: which timers run, which children the world keeps.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct World {
    state: State,
    timers: BTreeSet<(usize, u64, u8)>,
    /// Generations that were spawned and have not exited.
    alive: BTreeSet<(usize, u64)>,
}

const TIMERS: [Timer; 4] =
    [Timer::StartDeadline, Timer::RestartDue, Timer::ShutdownDeadline, Timer::AbortDeadline];

fn plan(kind: Kind, intensity: u32, restarts: &[Restart]) -> Plan {
    let child = |(i, restart): (usize, &Restart)| ChildPlan {
        id: format!("c{i}"),
        restart: *restart,
        start_deadline: Duration::from_secs(5),
        shutdown: Duration::from_secs(3),
        backoff: Backoff::default(),
    };
    Plan {
        strategy: kind,
        intensity: Some(Intensity { restarts: intensity, period: Duration::from_secs(60) }),
        children: restarts.iter().enumerate().map(child).collect(),
    }
}

impl World {
    fn new(plan: &Plan) -> Self {
        let state = State::new(plan);
        Self { state, timers: BTreeSet::new(), alive: BTreeSet::new() }
    }

    /// All that can happen next.
    fn possible(&self) -> Vec<Event> {
        if self.state.mode == Mode::New {
            return vec![Event::TreeStarted, Event::ShutdownRequested];
        }
        let mut events = vec![Event::ShutdownRequested];
        for &(child, generation) in &self.alive {
            events.push(Event::ChildReady { child, generation });
            events.push(Event::HeartbeatMissed { child, generation });
            let stuck = Exit::Unkillable("x".into());
            for exit in [Exit::Normal, Exit::Failed("x".into()), stuck] {
                events.push(Event::ChildExited { child, generation, exit });
            }
        }
        for child in 0..self.state.children.len() {
            events.push(Event::RestartRequested { child });
        }
        for &(child, generation, timer) in &self.timers {
            let timer = TIMERS[timer as usize];
            events.push(Event::TimerFired { timer, child, generation });
        }
        events
    }

    fn take(&mut self, plan: &Plan, event: &Event, now: Duration) {
        match event {
            Event::ChildExited { child, generation, .. } => {
                self.alive.remove(&(*child, *generation));
            }
            Event::TimerFired { timer, child, generation } => {
                self.timers.remove(&(*child, *generation, *timer as u8));
            }
            Event::TreeStarted
            | Event::ChildStarting { .. }
            | Event::ChildReady { .. }
            | Event::HeartbeatMissed { .. }
            | Event::RestartRequested { .. }
            | Event::ShutdownRequested => {}
        }
        let before = self.state.clone();
        let effects = step(plan, &mut self.state, event, now);
        invariants::check(plan, &before, event, &effects, &self.state, now).unwrap();
        for effect in effects {
            match effect {
                Effect::Spawn { child, generation } => {
                    assert!(
                        !self.alive.iter().any(|(c, _)| *c == child),
                        "two generations of {child} at once"
                    );
                    self.alive.insert((child, generation));
                    self.take(plan, &Event::ChildStarting { child, generation }, now);
                }
                Effect::ArmTimer { timer, child, generation, .. } => {
                    self.timers.insert((child, generation, timer as u8));
                }
                Effect::RequestStop { child, generation } | Effect::Abort { child, generation } => {
                    assert!(self.alive.contains(&(child, generation)), "stops a dead one");
                }
                Effect::Escalate(_) => {}
                Effect::Finished => {
                    let lost = |c: &usize| self.state.children[*c].phase == Phase::Lost;
                    assert!(self.alive.iter().all(|(c, _)| lost(c)), "left: {:?}", self.alive);
                }
            }
        }
    }

    /// When asked to end, and children and timers do their part, it ends.
    fn assert_can_end(mut self, plan: &Plan) {
        self.take(plan, &Event::ShutdownRequested, Duration::ZERO);
        for _ in 0..self.state.children.len() * 2 {
            let stopping = self.alive.iter().copied().find(|(child, _)| {
                matches!(self.state.children[*child].phase, Phase::Stopping | Phase::Killing)
            });
            if let Some((child, generation)) = stopping {
                let exit = Exit::Normal;
                let event = Event::ChildExited { child, generation, exit };
                self.take(plan, &event, Duration::ZERO);
            }
        }
        assert_eq!(self.state.mode, Mode::Finished, "{self:?}");
    }

    /// When asked to end, and no child does its part, deadlines alone end it.
    fn assert_can_end_without_help(mut self, plan: &Plan) {
        self.take(plan, &Event::ShutdownRequested, Duration::ZERO);
        // Each child costs two deadlines at most: to stop, and to be aborted.
        for _ in 0..self.state.children.len() * 2 {
            let due = self.timers.iter().copied().find(|(child, generation, timer)| {
                self.state.awaits(TIMERS[*timer as usize], *child, *generation)
            });
            if let Some((child, generation, timer)) = due {
                let timer = TIMERS[timer as usize];
                self.take(plan, &Event::TimerFired { timer, child, generation }, Duration::ZERO);
            }
        }
        assert_eq!(self.state.mode, Mode::Finished, "{self:?}");
    }

    /// A child that waits has somebody who will wake it.
    fn assert_not_stuck(&self) {
        if self.state.mode != Mode::Running {
            return;
        }
        for (i, c) in self.state.children.iter().enumerate() {
            let timer = |t: Timer| self.timers.contains(&(i, c.generation, t as u8));
            let woken = match c.phase {
                Phase::Starting => timer(Timer::StartDeadline),
                Phase::Stopping => timer(Timer::ShutdownDeadline),
                Phase::Killing => timer(Timer::AbortDeadline),
                Phase::Backoff => timer(Timer::RestartDue),
                // Somebody before or after it is on the move.
                Phase::Idle => self
                    .state
                    .children
                    .iter()
                    .any(|o| !matches!(o.phase, Phase::Idle | Phase::Ready | Phase::Ended)),
                Phase::Ready | Phase::Ended | Phase::Lost => true,
            };
            assert!(woken, "child {i} is stuck: {self:?}");
        }
    }
}

fn explore(plan: &Plan, depth: usize) -> usize {
    let mut seen = HashSet::new();
    let mut queue = VecDeque::from([(World::new(plan), 0)]);
    while let Some((world, done)) = queue.pop_front() {
        world.assert_not_stuck();
        if world.state.mode != Mode::Finished {
            world.clone().assert_can_end(plan);
            world.clone().assert_can_end_without_help(plan);
        }
        if done == depth {
            continue;
        }
        for event in world.possible() {
            let mut next = world.clone();
            next.take(plan, &event, Duration::ZERO);
            if seen.insert(next.clone()) {
                queue.push_back((next, done + 1));
            }
        }
    }
    seen.len()
}

#[test]
fn all_short_histories_of_two_children_hold_the_invariants() {
    for kind in [Kind::OneForOne, Kind::RestForOne] {
        for (restarts, depth, least) in [
            ([Restart::Permanent, Restart::Permanent], 7, 10_000),
            ([Restart::Transient, Restart::Permanent], 6, 2_000),
            ([Restart::Permanent, Restart::Temporary], 6, 2_000),
        ] {
            let seen = explore(&plan(kind, 1, &restarts), depth);
            assert!(seen > least, "{kind:?} {restarts:?}: {seen}");
        }
    }
}

#[test]
fn all_short_histories_of_three_children_hold_the_invariants() {
    for kind in [Kind::OneForOne, Kind::RestForOne] {
        let seen = explore(&plan(kind, 1, &[Restart::Permanent; 3]), 6);
        assert!(seen > 5_000, "{seen}");
    }
}

proptest! {
    #[test]
    fn long_histories_hold_the_invariants(
        rest in any::<bool>(),
        intensity in 0u32..5,
        kinds in prop::collection::vec(0u8..3, 1..6),
        choices in prop::collection::vec((any::<prop::sample::Index>(), 0u64..20_000), 0..200),
    ) {
        let kind = if rest { Kind::RestForOne } else { Kind::OneForOne };
        let restarts: Vec<_> = kinds
            .iter()
            .map(|k| [Restart::Permanent, Restart::Transient, Restart::Temporary][*k as usize])
            .collect();
        let plan = plan(kind, intensity, &restarts);
        let mut world = World::new(&plan);
        let mut now = Duration::ZERO;
        world.take(&plan, &Event::TreeStarted, now);
        for (choice, wait) in choices {
            now += Duration::from_millis(wait);
            let mut possible = world.possible();
            // Ends come rarely, or nothing long would happen.
            if !now.as_millis().is_multiple_of(50) {
                possible.retain(|e| *e != Event::ShutdownRequested);
            }
            if possible.is_empty() {
                break;
            }
            let event = choice.get(&possible).clone();
            world.take(&plan, &event, now);
            world.assert_not_stuck();
        }
        if world.state.mode != Mode::Finished {
            world.clone().assert_can_end(&plan);
            world.assert_can_end_without_help(&plan);
        }
    }
}
