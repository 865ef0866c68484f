//! What always holds, by name. Debug builds check it after every step; the property test, the
//! small model and the journal's replay use the same predicates, so they can't drift apart.

use std::time::Duration;

use super::event::{Effect, Event};
use super::spec::Strategy;
use super::step::{Mode, Phase, Plan, State};

/// A named invariant that did not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{invariant}: child {child:?} after {event:?}")]
pub struct Violation {
    pub invariant: &'static str,
    pub child: Option<usize>,
    pub event: Event,
}

/// One step, as the predicates see it.
struct Taken<'a> {
    plan: &'a Plan,
    before: &'a State,
    effects: &'a [Effect],
    after: &'a State,
    now: Duration,
}

/// `Err(Some(child))` or `Err(None)` when it does not hold.
type Check = fn(&Taken<'_>) -> Result<(), Option<usize>>;

const ALL: [(&str, Check); 9] = [
    ("at most one live generation per child", one_generation),
    ("a generation never decreases, and grows by a spawn only", generations_grow),
    ("no spawn after the shutdown began", no_spawn_in_shutdown),
    ("restarts in a period stay within the intensity, or it escalates", intensity_holds),
    ("no later sibling runs while an earlier one is down (rest for one)", rest_follows),
    ("stop order is the reverse of start order", stops_in_reverse),
    ("a supervisor escalates once, and stops then", escalates_once),
    ("finished means that nobody is left", finished_is_empty),
    ("whoever is being ended has a deadline", ends_have_deadlines),
];

pub fn check(
    plan: &Plan,
    before: &State,
    event: &Event,
    effects: &[Effect],
    after: &State,
    now: Duration,
) -> Result<(), Violation> {
    let taken = Taken { plan, before, effects, after, now };
    for (invariant, holds) in ALL {
        holds(&taken).map_err(|child| Violation { invariant, child, event: event.clone() })?;
    }
    Ok(())
}

fn spawns<'a>(t: &'a Taken<'_>) -> impl Iterator<Item = (usize, u64)> + 'a {
    t.effects.iter().filter_map(Effect::spawn)
}

fn one_generation(t: &Taken<'_>) -> Result<(), Option<usize>> {
    let mut seen = Vec::new();
    for (child, _) in spawns(t) {
        let still_there = t.before.children.get(child).is_none_or(|c| {
            // A generation that was live must have ended in this very step.
            c.phase.is_live() && t.after.children.get(child).is_none_or(|a| a.last_exit.is_none())
        });
        if still_there || seen.contains(&child) {
            return Err(Some(child));
        }
        seen.push(child);
    }
    Ok(())
}

fn generations_grow(t: &Taken<'_>) -> Result<(), Option<usize>> {
    for (i, (b, a)) in t.before.children.iter().zip(&t.after.children).enumerate() {
        let spawned = spawns(t).find(|(child, _)| *child == i).map(|(_, g)| g);
        let right = match spawned {
            Some(g) => g == b.generation + 1 && a.generation == g,
            None => a.generation == b.generation,
        };
        if !right {
            return Err(Some(i));
        }
    }
    Ok(())
}

fn no_spawn_in_shutdown(t: &Taken<'_>) -> Result<(), Option<usize>> {
    match t.after.mode {
        Mode::New | Mode::Running => Ok(()),
        Mode::Stopping | Mode::Finished => {
            spawns(t).next().map_or(Ok(()), |(child, _)| Err(Some(child)))
        }
    }
}

fn intensity_holds(t: &Taken<'_>) -> Result<(), Option<usize>> {
    let Some(limit) = t.plan.intensity else { return Ok(()) };
    let recent =
        t.after.restarts.iter().filter(|at| t.now.saturating_sub(**at) < limit.period).count();
    if recent > limit.restarts as usize && t.after.mode == Mode::Running {
        return Err(None);
    }
    Ok(())
}

fn rest_follows(t: &Taken<'_>) -> Result<(), Option<usize>> {
    if t.plan.strategy != Strategy::RestForOne || t.after.mode != Mode::Running {
        return Ok(());
    }
    let Some(down) = t.after.children.iter().position(|c| !c.phase.supports()) else {
        return Ok(());
    };
    // Later ones are stopped one by one from the end: the last that lives is on its way out.
    match t.after.last_live(Some(down)) {
        Some(last) if !is_ending(t.after, last) => Err(Some(last)),
        Some(_) | None => Ok(()),
    }
}

fn is_ending(state: &State, child: usize) -> bool {
    state.children.get(child).is_some_and(|c| matches!(c.phase, Phase::Stopping | Phase::Killing))
}

fn stops_in_reverse(t: &Taken<'_>) -> Result<(), Option<usize>> {
    if t.after.mode != Mode::Stopping {
        return Ok(());
    }
    for effect in t.effects {
        if let Effect::RequestStop { child, .. } = effect
            && t.after.last_live(Some(*child)).is_some()
            // Was asked for its own sake before the escalation in the same step.
            && t.before.mode == Mode::Stopping
        {
            return Err(Some(*child));
        }
    }
    Ok(())
}

fn escalates_once(t: &Taken<'_>) -> Result<(), Option<usize>> {
    let said = t.effects.iter().filter(|e| matches!(e, Effect::Escalate(_))).count();
    let stopping = matches!(t.after.mode, Mode::Stopping | Mode::Finished);
    let right = match (&t.before.escalation, &t.after.escalation) {
        (None, None) => said == 0,
        (None, Some(_)) => said == 1 && stopping,
        (Some(a), Some(b)) => said == 0 && a == b && stopping,
        (Some(_), None) => false,
    };
    if right { Ok(()) } else { Err(None) }
}

fn finished_is_empty(t: &Taken<'_>) -> Result<(), Option<usize>> {
    if t.after.mode != Mode::Finished {
        return Ok(());
    }
    match t.after.children.iter().position(|c| !matches!(c.phase, Phase::Ended | Phase::Lost)) {
        Some(left) => Err(Some(left)),
        None => Ok(()),
    }
}

fn ends_have_deadlines(t: &Taken<'_>) -> Result<(), Option<usize>> {
    for (i, (b, a)) in t.before.children.iter().zip(&t.after.children).enumerate() {
        let entered = b.phase != a.phase && is_ending(t.after, i);
        let armed =
            t.effects.iter().any(|e| matches!(e, Effect::ArmTimer { child, .. } if *child == i));
        if entered && !armed {
            return Err(Some(i));
        }
    }
    Ok(())
}
