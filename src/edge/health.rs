//! Is the daemon well? The verdict that every connection reads, and the machine that renews it.
//!
//! [`step`] is pure; the actor around it ([`super::cache`]) probes. The byte path only loads one
//! atomic ([`Board::read`]). Probes happen on demand: an edge without traffic does nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

/// How long a bad verdict stands. Fixed: quick recovery, and a dead daemon is not hammered.
pub const UNHEALTHY_TTL: Duration = Duration::from_millis(200);
/// Longest that a connection waits for a probe.
pub const LONGEST_WAIT: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    Healthy,
    Unhealthy(Cause),
}

/// Why the daemon is not used.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    NeverProbed,
    /// No socket, or nobody behind it: the daemon is not running.
    Refused,
    /// The probe got no answer in time.
    Timeout,
    /// Something answered that is not our daemon, or not this version.
    Foreign,
    /// The daemon says itself that it can't meter.
    Degraded,
    /// The control channel ended: the daemon died or left.
    ChannelLost,
    /// The daemon did not react to an offer.
    Frozen,
    /// The daemon is shutting down.
    Draining,
    /// The probe failed in some other way.
    Failed,
}

/// The verdict as a connection sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reading {
    pub verdict: Verdict,
    pub fresh: bool,
}

/// The cache actor's state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State {
    verdict: Verdict,
    at: Instant,
    probe: Probe,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Probe {
    Idle,
    Running,
    /// Bad news came while it ran: a good result would be about the time before.
    Spoiled,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// A connection found no fresh verdict.
    Wanted,
    Probed(Verdict),
    /// Bad news from an offer or the channel.
    Down(Cause),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Effect {
    pub start_probe: bool,
    pub publish: Option<Verdict>,
}

impl State {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { verdict: Verdict::Unhealthy(Cause::NeverProbed), at: now, probe: Probe::Idle }
    }
}

/// Decides; `healthy_ttl` is the configured one.
#[must_use]
pub fn step(state: State, event: Event, healthy_ttl: Duration, now: Instant) -> (State, Effect) {
    match event {
        Event::Wanted => {
            let fresh = is_fresh(state.verdict, now.duration_since(state.at), healthy_ttl);
            if fresh || state.probe != Probe::Idle {
                return (state, Effect::default());
            }
            (State { probe: Probe::Running, ..state }, Effect { start_probe: true, publish: None })
        }
        Event::Probed(verdict) => {
            let verdict = match (state.probe, verdict) {
                (Probe::Spoiled, Verdict::Healthy) => state.verdict,
                (Probe::Idle | Probe::Running | Probe::Spoiled, verdict) => verdict,
            };
            (
                State { verdict, at: now, probe: Probe::Idle },
                Effect { start_probe: false, publish: Some(verdict) },
            )
        }
        Event::Down(cause) => {
            let verdict = Verdict::Unhealthy(cause);
            let probe = match state.probe {
                Probe::Idle => Probe::Idle,
                Probe::Running | Probe::Spoiled => Probe::Spoiled,
            };
            (
                State { verdict, at: now, probe },
                Effect { start_probe: false, publish: Some(verdict) },
            )
        }
    }
}

/// Where the verdict is published: one word, no lock.
#[derive(Debug)]
pub struct Board {
    /// Milliseconds since `start`, and the verdict's code in the low bits.
    word: AtomicU64,
    start: Instant,
    changed: Notify,
}

const CODE_BITS: u32 = 4;
const CODE_MASK: u64 = (1 << CODE_BITS) - 1;

impl Default for Board {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(code(Verdict::Unhealthy(Cause::NeverProbed))),
            start: Instant::now(),
            changed: Notify::new(),
        }
    }
}

impl Board {
    #[must_use]
    pub fn read(&self, healthy_ttl: Duration) -> Reading {
        let (verdict, age) = self.look();
        Reading { verdict, fresh: is_fresh(verdict, age, healthy_ttl) }
    }

    /// The verdict and its age.
    #[must_use]
    pub fn look(&self) -> (Verdict, Duration) {
        let word = self.word.load(Ordering::Acquire);
        let at = Duration::from_millis(word >> CODE_BITS);
        (verdict(word & CODE_MASK), self.start.elapsed().saturating_sub(at))
    }

    pub fn publish(&self, verdict: Verdict) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.word.store(now << CODE_BITS | code(verdict), Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Asks for a probe and waits for the next verdict, but not for long; not at all when `ask`
    /// says that none is on its way.
    pub async fn renewed(&self, ask: impl FnOnce() -> bool) {
        let changed = self.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if ask() {
            // Late is like bad: the caller reads the board again either way.
            let _ = timeout(LONGEST_WAIT, changed).await;
        }
    }
}

impl Cause {
    pub const ALL: [Self; 9] = [
        Self::NeverProbed,
        Self::Refused,
        Self::Timeout,
        Self::Foreign,
        Self::Degraded,
        Self::ChannelLost,
        Self::Frozen,
        Self::Draining,
        Self::Failed,
    ];

    /// A probe after this one is likely to be answered at once, so a connection may wait for it.
    #[must_use]
    pub fn is_quick(self) -> bool {
        match self {
            Self::NeverProbed | Self::Refused | Self::ChannelLost => true,
            Self::Timeout
            | Self::Foreign
            | Self::Degraded
            | Self::Frozen
            | Self::Draining
            | Self::Failed => false,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NeverProbed => "never_probed",
            Self::Refused => "daemon_not_running",
            Self::Timeout => "daemon_timeout",
            Self::Foreign => "daemon_foreign",
            Self::Degraded => "daemon_degraded",
            Self::ChannelLost => "channel_lost",
            Self::Frozen => "daemon_frozen",
            Self::Draining => "daemon_draining",
            Self::Failed => "probe_failed",
        }
    }
}

fn is_fresh(verdict: Verdict, age: Duration, healthy_ttl: Duration) -> bool {
    match verdict {
        Verdict::Healthy => age < healthy_ttl,
        Verdict::Unhealthy(Cause::NeverProbed) => false,
        Verdict::Unhealthy(
            Cause::Refused
            | Cause::Timeout
            | Cause::Foreign
            | Cause::Degraded
            | Cause::ChannelLost
            | Cause::Frozen
            | Cause::Draining
            | Cause::Failed,
        ) => age < UNHEALTHY_TTL,
    }
}

fn code(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Healthy => 0,
        Verdict::Unhealthy(Cause::NeverProbed) => 1,
        Verdict::Unhealthy(Cause::Refused) => 2,
        Verdict::Unhealthy(Cause::Timeout) => 3,
        Verdict::Unhealthy(Cause::Foreign) => 4,
        Verdict::Unhealthy(Cause::Degraded) => 5,
        Verdict::Unhealthy(Cause::ChannelLost) => 6,
        Verdict::Unhealthy(Cause::Frozen) => 7,
        Verdict::Unhealthy(Cause::Draining) => 8,
        Verdict::Unhealthy(Cause::Failed) => 9,
    }
}

fn verdict(code: u64) -> Verdict {
    Cause::ALL
        .into_iter()
        .map(Verdict::Unhealthy)
        .find(|v| self::code(*v) == code)
        .unwrap_or(Verdict::Healthy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);
    const GOOD: Event = Event::Probed(Verdict::Healthy);

    #[test]
    fn one_probe_at_a_time_and_only_when_stale() {
        let t0 = Instant::now();
        let (s, e) = step(State::new(t0), Event::Wanted, TTL, t0);
        assert!(e.start_probe);
        let (s, e) = step(s, Event::Wanted, TTL, t0);
        assert!(!e.start_probe, "one is running");
        let (s, e) = step(s, GOOD, TTL, t0);
        assert_eq!(e.publish, Some(Verdict::Healthy));
        assert!(!step(s, Event::Wanted, TTL, t0 + MS * 999).1.start_probe, "fresh");
        assert!(step(s, Event::Wanted, TTL, t0 + TTL).1.start_probe, "stale");
        let (s, _) = step(s, Event::Down(Cause::ChannelLost), TTL, t0 + TTL);
        assert!(!step(s, Event::Wanted, TTL, t0 + TTL + MS * 199).1.start_probe);
        assert!(step(s, Event::Wanted, TTL, t0 + TTL + MS * 200).1.start_probe);
    }

    #[test]
    fn bad_news_during_a_probe_outweighs_its_good_result() {
        let t0 = Instant::now();
        let (s, _) = step(State::new(t0), Event::Wanted, TTL, t0);
        let (s, _) = step(s, Event::Down(Cause::Frozen), TTL, t0);
        let (s, e) = step(s, GOOD, TTL, t0);
        assert_eq!(e.publish, Some(Verdict::Unhealthy(Cause::Frozen)));
        let (s, _) = step(s, Event::Wanted, TTL, t0 + UNHEALTHY_TTL);
        let (_, e) = step(s, GOOD, TTL, t0 + UNHEALTHY_TTL);
        assert_eq!(e.publish, Some(Verdict::Healthy));
    }

    #[tokio::test(start_paused = true)]
    async fn the_board_tells_what_was_published_and_how_old_it_is() {
        let board = Board::default();
        assert!(!board.read(TTL).fresh);
        let all = Cause::ALL.map(Verdict::Unhealthy);
        for verdict in all.into_iter().chain([Verdict::Healthy]) {
            board.publish(verdict);
            assert_eq!(board.look(), (verdict, Duration::ZERO));
        }
        tokio::time::advance(MS * 999).await;
        assert!(board.read(TTL).fresh);
        tokio::time::advance(MS).await;
        assert!(!board.read(TTL).fresh);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_news_or_the_limit() {
        let board = Board::default();
        let before = Instant::now();
        let answered = || {
            board.publish(Verdict::Healthy);
            true
        };
        board.renewed(answered).await;
        board.renewed(|| false).await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        board.renewed(|| true).await;
        assert!(before.elapsed() >= LONGEST_WAIT && before.elapsed() < LONGEST_WAIT + MS * 5);
    }

    proptest! {
        #[test]
        fn a_probe_always_ends_and_never_overlaps(
            events in proptest::collection::vec((0u8..4, 0u32..400), 0..60),
        ) {
            let mut now = Instant::now();
            let mut state = State::new(now);
            let mut running = 0;
            for (event, wait) in events {
                now += MS * wait;
                let event = match event {
                    0 => Event::Wanted,
                    1 if running > 0 => GOOD,
                    2 if running > 0 => Event::Probed(Verdict::Unhealthy(Cause::Timeout)),
                    _ => Event::Down(Cause::ChannelLost),
                };
                if matches!(event, Event::Probed(_)) {
                    running -= 1;
                }
                let (next, effect) = step(state, event, TTL, now);
                running += i32::from(effect.start_probe);
                prop_assert!(running <= 1);
                state = next;
            }
        }
    }
}
