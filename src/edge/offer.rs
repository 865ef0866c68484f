//! One offer's life: pure. `step(state, event, now)` says what to answer and how it ended.

use std::time::Duration;

use tokio::time::Instant;

use super::route::Reason;
use crate::handover::Decline;

/// Silence for this long about an offer ends it: with what comes after, its bytes flow within 250 ms.
pub const SILENCE: Duration = Duration::from_millis(235);
/// Progress or not, after this the edge goes on by itself.
pub const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// The daemon has it; it may still come back.
    Open { deadline: Instant, limit: Instant },
    /// The daemon consumes; our copy is gone.
    Granted,
    /// The edge goes on raw; nothing can be granted any more.
    Raw,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    Progress,
    Commit,
    Decline(Decline),
    /// The channel ended, or the daemon froze on another offer.
    Lost(Reason),
    /// A deadline may have passed.
    Tick,
}

/// How an offer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Granted,
    Raw(Reason),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Effect {
    /// Tell the daemon, in answer to its `Commit`.
    pub verdict: Option<bool>,
    /// Tell the connection; at most once in an offer's life.
    pub outcome: Option<Outcome>,
}

impl State {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self::Open { deadline: now + SILENCE, limit: now + LIMIT }
    }

    /// When to send the next `Tick`.
    #[must_use]
    pub fn deadline(self) -> Option<Instant> {
        match self {
            Self::Open { deadline, limit } => Some(deadline.min(limit)),
            Self::Granted | Self::Raw => None,
        }
    }
}

#[must_use]
pub fn step(state: State, event: Event, now: Instant) -> (State, Effect) {
    let State::Open { deadline, limit } = state else {
        // Over. A daemon that woke up late is told so, and consumes nothing.
        let verdict = (event == Event::Commit).then_some(false);
        return (state, Effect { verdict, outcome: None });
    };
    let late = now >= deadline.min(limit);
    let raw =
        |reason, verdict| (State::Raw, Effect { verdict, outcome: Some(Outcome::Raw(reason)) });
    match event {
        Event::Decline(reason) => raw(Reason::Declined(reason), None),
        Event::Lost(reason) => raw(reason, None),
        Event::Commit if late => raw(Reason::NoAnswer, Some(false)),
        Event::Commit => {
            (State::Granted, Effect { verdict: Some(true), outcome: Some(Outcome::Granted) })
        }
        // Late, but the edge has not moved yet: the daemon lives, and that is what counts.
        Event::Progress if now < limit => {
            (State::Open { deadline: now + SILENCE, limit }, Effect::default())
        }
        Event::Progress => raw(Reason::NoAnswer, None),
        Event::Tick if late => raw(Reason::NoAnswer, None),
        Event::Tick => (state, Effect::default()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::edge::health::Cause;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_table() {
        let t0 = Instant::now();
        let open = State::new(t0);
        let at = |ms: u32| t0 + MS * ms;
        let effect = |verdict, outcome| Effect { verdict, outcome };
        let raw = |reason| Some(Outcome::Raw(reason));
        let declined = Reason::Declined(Decline::NotTls);
        let lost = Reason::Daemon(Cause::ChannelLost);

        assert_eq!(
            step(open, Event::Commit, at(234)),
            (State::Granted, effect(Some(true), Some(Outcome::Granted)))
        );
        assert_eq!(
            step(open, Event::Commit, at(235)),
            (State::Raw, effect(Some(false), raw(Reason::NoAnswer)))
        );
        assert_eq!(
            step(open, Event::Decline(Decline::NotTls), at(1)),
            (State::Raw, effect(None, raw(declined)))
        );
        assert_eq!(step(open, Event::Lost(lost), at(1)), (State::Raw, effect(None, raw(lost))));
        assert_eq!(step(open, Event::Tick, at(234)), (open, effect(None, None)));
        assert_eq!(
            step(open, Event::Tick, at(235)),
            (State::Raw, effect(None, raw(Reason::NoAnswer)))
        );
        let (extended, _) = step(open, Event::Progress, at(200));
        assert_eq!(extended.deadline(), Some(at(435)));
        assert_eq!(step(extended, Event::Commit, at(434)).0, State::Granted);
        for over in [State::Granted, State::Raw] {
            assert_eq!(step(over, Event::Commit, at(1)), (over, effect(Some(false), None)));
            assert_eq!(step(over, Event::Tick, at(9999)), (over, effect(None, None)));
        }
    }

    #[test]
    fn progress_does_not_hold_a_client_for_ever() {
        let t0 = Instant::now();
        let mut state = State::new(t0);
        let mut now = t0;
        while let State::Open { .. } = state {
            assert!(now <= t0 + LIMIT);
            now += MS * 100;
            state = step(state, Event::Progress, now).0;
        }
        assert_eq!(state, State::Raw);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Progress),
            Just(Event::Commit),
            Just(Event::Decline(Decline::Internal)),
            Just(Event::Lost(Reason::Daemon(Cause::Frozen))),
            Just(Event::Tick),
        ]
    }

    proptest! {
        #[test]
        fn granted_at_most_once_and_never_after_raw(
            events in proptest::collection::vec((event(), 0u32..300), 0..40),
        ) {
            let mut now = Instant::now();
            let mut state = State::new(now);
            let mut outcomes = Vec::new();
            for (event, wait) in events {
                now += MS * wait;
                let (next, effect) = step(state, event, now);
                if effect.verdict == Some(true) {
                    prop_assert_eq!(effect.outcome, Some(Outcome::Granted));
                }
                if event == Event::Commit {
                    prop_assert!(effect.verdict.is_some(), "a commit is always answered");
                }
                outcomes.extend(effect.outcome);
                state = next;
            }
            prop_assert!(outcomes.len() <= 1);
            prop_assert_eq!(outcomes.is_empty(), state.deadline().is_some());
        }
    }
}
