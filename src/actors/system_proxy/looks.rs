//! When the network services are looked at: soon after the network has changed, and now and then.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::platform::NetworkNews;

/// After a change, such as a wake, services are rebuilt for some seconds, and a look may fail.
const AFTER: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];
/// However often it changes.
const APART: Duration = Duration::from_secs(5);
/// News may be missed.
const RARELY: Duration = Duration::from_secs(600);
/// Where nobody brings any.
const BLIND: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Looks {
    news: Option<mpsc::Receiver<()>>,
    schedule: Schedule,
}

impl Looks {
    /// The thread that waits for news ends with the process.
    pub(super) fn start() -> Self {
        let (tell, told) = mpsc::channel(1);
        let listens = NetworkNews::open().and_then(|news| {
            let name = "network-news".to_owned();
            std::thread::Builder::new().name(name).stack_size(64 * 1024).spawn(move || {
                while news.wait().is_ok() && !tell.is_closed() {
                    // One that waits to be heard stands for all.
                    let _ = tell.try_send(());
                }
            })
        });
        Self { news: listens.is_ok().then_some(told), schedule: Schedule::new(Instant::now()) }
    }

    /// As after a change: one look has failed.
    pub(super) fn soon(&mut self) {
        self.schedule.change(Instant::now());
    }

    /// Returns when it is time.
    pub(super) async fn next(&mut self) {
        loop {
            let steady = if self.news.is_some() { RARELY } else { BLIND };
            tokio::select! {
                () = sleep_until(self.schedule.due(steady)) => break,
                () = told(&mut self.news) => self.schedule.change(Instant::now()),
            }
        }
        self.schedule.look(Instant::now());
    }
}

async fn told(news: &mut Option<mpsc::Receiver<()>>) {
    match news {
        Some(from) => {
            if from.recv().await.is_none() {
                *news = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// Pure.
#[derive(Debug)]
struct Schedule {
    last: Instant,
    /// When it changed, and how many looks that has had.
    change: Option<(Instant, usize)>,
}

impl Schedule {
    fn new(now: Instant) -> Self {
        Self { last: now, change: None }
    }

    fn due(&self, steady: Duration) -> Instant {
        let steady = self.last + steady;
        let after = |(at, looks): (Instant, usize)| AFTER.get(looks).map(|after| at + *after);
        let soon = self.change.and_then(after).map(|due| due.max(self.last + APART));
        soon.map_or(steady, |soon| soon.min(steady))
    }

    fn change(&mut self, now: Instant) {
        // One that is still to be looked at for the first time is not put off by the next.
        if !matches!(self.change, Some((_, 0))) {
            self.change = Some((now, 0));
        }
    }

    fn look(&mut self, now: Instant) {
        self.last = now;
        if let Some((at, _)) = self.change {
            let looks = AFTER.iter().filter(|after| at + **after <= now).count();
            self.change = (looks < AFTER.len()).then_some((at, looks));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks within `length`, in seconds, with changes at these seconds.
    fn looks(changes: &[u64], length: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let (mut changes, mut looks) = (changes.iter().peekable(), Vec::new());
        loop {
            let due = schedule.due(RARELY);
            if let Some(at) = changes.next_if(|at| start + SECOND * (**at as u32) < due) {
                schedule.change(start + SECOND * (*at as u32));
            } else if due > start + SECOND * (length as u32) {
                return looks;
            } else {
                schedule.look(due);
                looks.push((due - start).as_secs());
            }
        }
    }

    #[test]
    fn a_change_is_looked_at_three_times_and_then_rarely() {
        assert_eq!(looks(&[], 1300), [600, 1200]);
        assert_eq!(looks(&[100], 800), [101, 106, 120, 720]);
        assert_eq!(looks(&[100, 101, 102, 300], 400), [101, 106, 121, 301, 306, 320]);
    }

    #[test]
    fn a_network_that_never_rests_is_looked_at_every_five_seconds() {
        let restless: Vec<u64> = (10..110).collect();
        let looks = looks(&restless, 110);
        assert_eq!(looks.first(), Some(&11));
        assert!(looks.windows(2).all(|pair| pair[1] - pair[0] >= APART.as_secs()), "{looks:?}");
        assert!((15..=20).contains(&looks.len()), "{looks:?}");
    }
}
