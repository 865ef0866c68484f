//! When looks that repeat happen: those of a process all at the same moments.
//!
//! People run this all day on laptops. Ten looks at ten moments wake a thread ten times, at one moment
//! once; and a processor that is awake for one of our threads may as well run the others.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, AsyncContext, Context};
use slog::Logger;
use tokio::time::Instant;

use crate::home::{Kept, PidLock};

/// Between two looks of the root at its processes, and as often as they show it that they live.
pub const PERIOD: Duration = Duration::from_secs(2);

/// The first beat at `earliest` or after it: beats are the multiples of `period` since the process
/// began to count.
#[must_use]
pub fn next(earliest: Instant, period: Duration) -> Instant {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    let epoch = Instant::from_std(*EPOCH.get_or_init(std::time::Instant::now));
    let earliest = earliest.max(epoch);
    earliest + left(earliest - epoch, period)
}

/// How long until the next one. On a thread without a runtime as well.
#[must_use]
pub fn until(period: Duration) -> Duration {
    let now = Instant::now();
    // Timers ring on whole milliseconds: the one of this very moment has just rung.
    next(now + Duration::from_millis(1), period) - now
}

/// `look` at each beat, for as long as the actor lives. One that was missed is not made up for.
pub fn keep<A: Actor<Context = Context<A>>>(
    ctx: &mut Context<A>,
    period: Duration,
    mut look: impl FnMut(&mut A, &mut Context<A>) + 'static,
) {
    ctx.run_later(until(period), move |actor, ctx| {
        look(actor, ctx);
        keep(ctx, period, look);
    });
}

/// The sign of life of a process, which the root watches: one that gives none is frozen. Of its main
/// thread, and of none of its actors: one that hangs is its own supervisor's to restart, which takes
/// longer to notice it than the root waits.
pub async fn show(lock: Arc<PidLock>, log: Logger) {
    loop {
        if lock.beat() == Kept::Anew {
            slog::warn!(log, "the home was removed under us, going on in a new one");
        }
        tokio::time::sleep(until(PERIOD)).await;
    }
}

/// From `age` to the next multiple, nothing at one.
fn left(age: Duration, period: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    let left = (period - age.as_nanos() % period) % period;
    Duration::from_nanos(u64::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn beats_are_multiples_of_their_period() {
        let table = [(0, 0), (1, 1999), (1999, 1), (2000, 0), (2001, 1999), (7500, 500)];
        for (age, want) in table {
            assert_eq!(left(MS * age, MS * 2000), MS * want, "{age}");
        }
        assert_eq!(left(MS * 7, Duration::ZERO), Duration::ZERO);
    }

    /// Looks of a process at rest are one wakeup, whenever they began; and the next one is a whole
    /// period later, not the same beat again.
    #[tokio::test(start_paused = true)]
    async fn looks_that_began_at_different_moments_meet() {
        let second = MS * 1000;
        let first = next(Instant::now(), second);
        for _ in 0..9 {
            tokio::time::sleep(MS * 111).await;
            let at = Instant::now() + until(second);
            let past = at.saturating_duration_since(first).as_nanos() % second.as_nanos();
            assert_eq!(past, 0, "{at:?}");
        }
        tokio::time::sleep(until(second)).await;
        let left = until(second);
        assert!(left > second - MS * 3 && left <= second + MS, "{left:?}");
    }
}
