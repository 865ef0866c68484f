//! Runs a journal through [`step`](super::step) again: what the processes did must be what the
//! pure core decides, with every invariant holding.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{Effect, Event};
use super::invariants::{self, Violation};
use super::journal::JournalEntry;
use super::step::{Plan, State, step};

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("{id}: {violation}")]
    Violation { id: String, violation: Violation },
    #[error("{id}: {child} generation {generation} was started, but the core did not ask for it")]
    Unasked { id: String, child: usize, generation: u64 },
    #[error("{id}: the first event of its tree is missing")]
    Headless { id: String },
}

/// A supervisor's life in the journal: process instance, tree, run.
type Key = (String, String, u64);

/// Checks all entries; returns the state that each supervisor reached.
pub fn replay(entries: &[JournalEntry]) -> Result<BTreeMap<Key, State>, ReplayError> {
    let mut trees: BTreeMap<Key, (Plan, State, Vec<(usize, u64)>)> = BTreeMap::new();
    for entry in entries {
        let Some(done) = &entry.step else { continue };
        let key = (entry.instance.clone(), done.tree.clone(), done.run);
        let id = || entry.id();
        if let Some(plan) = &done.plan {
            trees.insert(key.clone(), (plan.clone(), State::new(plan), Vec::new()));
        }
        let Some((plan, state, asked)) = trees.get_mut(&key) else {
            return Err(ReplayError::Headless { id: id() });
        };
        if let Event::ChildStarting { child, generation } = done.event {
            let Some(at) = asked.iter().position(|a| *a == (child, generation)) else {
                return Err(ReplayError::Unasked { id: id(), child, generation });
            };
            asked.swap_remove(at);
        }
        let before = state.clone();
        let now = Duration::from_micros(done.micros);
        let effects = step(plan, state, &done.event, now);
        invariants::check(plan, &before, &done.event, &effects, state, now)
            .map_err(|violation| ReplayError::Violation { id: id(), violation })?;
        asked.extend(effects.iter().filter_map(|e| match e {
            Effect::Spawn { child, generation } => Some((*child, *generation)),
            Effect::RequestStop { .. }
            | Effect::Abort { .. }
            | Effect::ArmTimer { .. }
            | Effect::Escalate(_)
            | Effect::Finished => None,
        }));
    }
    Ok(trees.into_iter().map(|(key, (_, state, _))| (key, state)).collect())
}
