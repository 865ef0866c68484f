//! Runs a journal through [`step`](super::step) again: what the processes did must be what the
//! pure core decides, with every invariant holding.

use std::collections::{BTreeMap, BTreeSet};
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

/// Plan, state, and the spawns (child, generation) that were decided but not done yet.
type Tree = (Plan, State, Vec<(usize, u64)>);

/// What was judged, for whoever has to know that something was.
#[derive(Debug)]
pub struct Replayed {
    /// What each supervisor reached.
    pub states: BTreeMap<Key, State>,
    pub steps: usize,
    /// Process instances that miss lines (lost on a full disk, or rotated away): nothing of theirs is
    /// judged behind the gap. An end that is missing is no gap: any process may be killed.
    pub gaps: BTreeSet<String>,
}

/// Checks all entries.
pub fn replay(entries: &[JournalEntry]) -> Result<Replayed, ReplayError> {
    let (mut steps, mut gaps) = (0, BTreeSet::new());
    let mut trees: BTreeMap<Key, Tree> = BTreeMap::new();
    let mut last: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for entry in entries {
        let last = last.entry(&entry.instance).or_insert(Some(0));
        *last = last.filter(|seq| seq + 1 == entry.seq).map(|seq| seq + 1);
        if last.is_none() {
            gaps.insert(entry.instance.clone());
            continue;
        }
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
        asked.extend(effects.iter().filter_map(Effect::spawn));
        steps += 1;
    }
    let states = trees.into_iter().map(|(key, (_, state, _))| (key, state)).collect();
    Ok(Replayed { states, steps, gaps })
}

#[cfg(test)]
mod tests {
    use super::super::event::Exit;
    use super::super::journal::Step;
    use super::super::spec::{Backoff, Strategy};
    use super::super::step::ChildPlan;
    use super::*;
    use crate::supervisor::Restart;

    fn entry(seq: u64, event: Event) -> JournalEntry {
        let child = ChildPlan {
            id: "a".into(),
            restart: Restart::Permanent,
            start_deadline: Duration::from_secs(1),
            shutdown: Duration::from_secs(1),
            backoff: Backoff::default(),
        };
        let plan = Plan { strategy: Strategy::OneForOne, intensity: None, children: vec![child] };
        let plan = (event == Event::TreeStarted).then_some(plan);
        JournalEntry {
            seq,
            at: jiff::Timestamp::UNIX_EPOCH,
            process: "daemon".into(),
            instance: "i".into(),
            child: None,
            generation: None,
            event: "x".into(),
            cause: None,
            delay_ms: None,
            step: Some(Step { tree: String::new(), run: 0, micros: seq, event, plan }),
        }
    }

    fn starting(generation: u64) -> Event {
        Event::ChildStarting { child: 0, generation }
    }

    #[test]
    fn a_start_that_the_core_did_not_ask_for_is_found() {
        let exit = Event::ChildExited { child: 0, generation: 1, exit: Exit::Stalled };
        let mut entries = vec![
            entry(1, Event::TreeStarted),
            entry(2, starting(1)),
            entry(3, Event::ChildReady { child: 0, generation: 1 }),
            entry(4, exit),
        ];
        let fine = replay(&entries).unwrap();
        assert_eq!((fine.steps, fine.gaps.len()), (4, 0));
        // Before its delay was over.
        entries.push(entry(5, starting(2)));
        assert!(matches!(replay(&entries), Err(ReplayError::Unasked { generation: 2, .. })));
    }

    #[test]
    fn entries_survive_the_file_and_nothing_is_judged_behind_a_gap() {
        let entries = [entry(1, Event::TreeStarted), entry(2, starting(1)), entry(4, starting(9))];
        let text = serde_json::to_string(&entries).unwrap();
        let read: Vec<JournalEntry> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, entries);
        let replayed = replay(&read).unwrap();
        assert_eq!((replayed.steps, replayed.gaps), (2, BTreeSet::from(["i".to_owned()])));
        // Its beginning may be what is missing.
        let replayed = replay(&read[1..]).unwrap();
        assert_eq!((replayed.steps, replayed.gaps.len()), (0, 1));
    }
}
