//! When observers look at what the byte path left for them: at once while all was quiet, else all
//! together, four times a second.
//!
//! Waking a parked thread costs the byte path microseconds, and an observer that is woken for each
//! of its bytes costs more than what it does then. So the first news after a quiet while wakes its
//! observer; what comes in the rest after that waits for the end of the rest, when every observer
//! with news is told in one go: a longer rest makes an event of a stream and a request cheaper, as more
//! of them are dealt with at a time, and the ledger's writer gets their rows at a time too. Who can't
//! wait for it says [`Pulse::hurry`].

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::sleep;

const REST: Duration = Duration::from_millis(250);

/// One for all observers.
#[derive(Debug, Default)]
pub struct Pulse {
    /// `None`: nobody ever rests.
    beat: Option<Beat>,
}

#[derive(Debug, Default)]
struct Beat {
    state: Mutex<State>,
    begun: Notify,
}

#[derive(Debug, Default)]
struct State {
    resting: bool,
    /// No rests any more.
    awake: bool,
    /// To be told at the end of the rest.
    due: Vec<Arc<Notify>>,
}

impl Pulse {
    /// With a task on `observers` that ends the rests.
    #[must_use]
    pub fn start(observers: &Handle) -> Arc<Self> {
        let pulse = Arc::new(Self { beat: Some(Beat::default()) });
        let beating = Arc::clone(&pulse);
        observers.spawn(async move {
            if let Some(beat) = &beating.beat {
                beat.run().await;
            }
        });
        pulse
    }

    /// This observer has news and was not told of any since it looked.
    pub fn news(&self, observer: &Arc<Notify>) {
        let Some(beat) = &self.beat else { return observer.notify_one() };
        {
            let mut state = beat.lock();
            if state.awake {
                return observer.notify_one();
            }
            if state.resting {
                return state.due.push(Arc::clone(observer));
            }
            state.resting = true;
        }
        observer.notify_one();
        beat.begun.notify_one();
    }

    /// All that have news look now; the rest goes on.
    pub fn hurry(&self) {
        if let Some(beat) = &self.beat {
            Beat::tell(&beat.due());
        }
    }

    /// From now on everybody looks at once.
    pub fn stay_awake(&self) {
        if let Some(beat) = &self.beat {
            beat.lock().awake = true;
            self.hurry();
        }
    }
}

impl Beat {
    async fn run(&self) {
        loop {
            self.begun.notified().await;
            loop {
                sleep(REST).await;
                let due = self.end_of_rest();
                if due.is_empty() {
                    break;
                }
                Self::tell(&due);
            }
        }
    }

    /// Those that have news; without any the rest is over.
    fn end_of_rest(&self) -> Vec<Arc<Notify>> {
        let mut state = self.lock();
        state.resting = !state.due.is_empty();
        mem::take(&mut state.due)
    }

    fn due(&self) -> Vec<Arc<Notify>> {
        mem::take(&mut self.lock().due)
    }

    fn tell(due: &[Arc<Notify>]) {
        due.iter().for_each(|observer| observer.notify_one());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_at_once_and_the_others_together() {
        let pulse = Pulse::start(&Handle::current());
        let observers: Vec<Arc<Notify>> = (0..3).map(|_| Arc::default()).collect();
        let start = Instant::now();
        observers.iter().for_each(|o| pulse.news(o));
        observers[0].notified().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        observers[1].notified().await;
        observers[2].notified().await;
        assert_eq!(start.elapsed(), REST);
        // News while the others were told: they wait for the next end.
        pulse.news(&observers[1]);
        observers[1].notified().await;
        assert_eq!(start.elapsed(), REST * 2);
        // Nothing in a whole rest: quiet again.
        assert!(timeout(REST * 2, observers[1].notified()).await.is_err());
        let quiet = Instant::now();
        pulse.news(&observers[1]);
        observers[1].notified().await;
        assert_eq!(quiet.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_hurries_wakes_those_with_news_within_the_rest() {
        let pulse = Pulse::start(&Handle::current());
        let observers: Vec<Arc<Notify>> = (0..2).map(|_| Arc::default()).collect();
        let start = Instant::now();
        observers.iter().for_each(|o| pulse.news(o));
        observers[0].notified().await;
        pulse.hurry();
        observers[1].notified().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        // The rest goes on.
        pulse.news(&observers[1]);
        observers[1].notified().await;
        assert_eq!(start.elapsed(), REST);
        // Until there are none any more.
        pulse.news(&observers[0]);
        pulse.stay_awake();
        observers[0].notified().await;
        pulse.news(&observers[1]);
        observers[1].notified().await;
        assert_eq!(start.elapsed(), REST);
    }
}
