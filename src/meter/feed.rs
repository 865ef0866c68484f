//! The way from the byte path to the observer: copies of the bytes, within a budget, never waited
//! for.
//!
//! What does not fit is not queued: the connection becomes lossy, and its observer gets no more until
//! a request of HTTP/1.1 begins and there is room again. Header compression, chunks and content codings
//! can't be followed across a gap.

mod progress;
mod queue;

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::Notify;

use super::http::Side;
use super::http1::asks_again;
use super::pulse::Pulse;
pub use progress::Progress;
use queue::{Block, Blocks, What};

/// What something that waits costs besides its bytes.
const OVERHEAD: usize = 64;
/// The part of a budget, the own or the shared one, at which the observer is told at once.
const URGENT_PART: usize = 8;

/// A bound on bytes that wait; one for the process, one for each connection.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self::of(limit))
    }

    fn of(limit: usize) -> Self {
        Self { used: AtomicUsize::new(0), limit }
    }

    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn is_urgent(&self) -> bool {
        self.used() > self.limit / URGENT_PART
    }

    /// All of it or nothing.
    fn take(&self, amount: usize) -> bool {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        let fits = before.saturating_add(amount) <= self.limit;
        if !fits {
            self.give_back(amount);
        }
        fits
    }

    fn give_back(&self, amount: usize) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }
}

/// One thing that happened on the byte path.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    Bytes {
        side: Side,
        at: Instant,
        bytes: &'a [u8],
    },
    /// What comes next does not follow on what came before; it begins with a request, if it does.
    Gap {
        at: Instant,
    },
    /// `side` sends no more; `clean`: and said so.
    End {
        side: Side,
        clean: bool,
        at: Instant,
    },
    /// The connection is over.
    Closed {
        how: Closing,
        at: Instant,
    },
}

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closing {
    /// Both sides said all they had to say.
    Orderly,
    /// This side broke it off.
    By(Side),
    /// We closed it, to stop.
    Ours,
}

/// Whether a connection could be closed without breaking an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Boundary {
    /// Nothing has been sent yet.
    Fresh,
    Between,
    Within,
    /// Not followed any more.
    Unknown,
}

/// What lies between the two ends.
#[derive(Debug)]
struct Way {
    waiting: Blocks,
    progress: Arc<Progress>,
    news: Arc<Notify>,
    /// The observer was told since it looked last, or will be.
    told: AtomicBool,
    own: Budget,
    shared: Arc<Budget>,
}

impl Way {
    fn take(&self, amount: usize) -> bool {
        self.own.take(amount) && {
            let taken = self.shared.take(amount);
            if !taken {
                self.own.give_back(amount);
            }
            taken
        }
    }

    fn give_back(&self, amount: usize) {
        self.own.give_back(amount);
        self.shared.give_back(amount);
    }
}

/// The byte path's end.
#[derive(Debug)]
pub struct Feed {
    way: Arc<Way>,
    pulse: Arc<Pulse>,
    offered: u64,
    /// Something did not fit, and what follows is left out; who spoke last.
    gap: Option<Side>,
    /// Nothing more will be said.
    over: bool,
}

/// The observer's end.
#[derive(Debug)]
pub struct Watch {
    way: Arc<Way>,
    /// What was taken out of the queue, to be dealt with one by one.
    block: Block,
    /// The queue is not looked into before there was news: who polls, for whatever reason, does not
    /// look before the pulse.
    waits: bool,
}

/// A feed whose bytes count against `shared` and a limit of its own, and whose observer looks when
/// `pulse` says so.
#[must_use]
pub fn feed(shared: &Arc<Budget>, limit: usize, pulse: &Arc<Pulse>) -> (Feed, Watch) {
    let way = Arc::new(Way {
        waiting: Blocks::default(),
        progress: Arc::default(),
        news: Arc::default(),
        told: AtomicBool::new(false),
        own: Budget::of(limit),
        shared: Arc::clone(shared),
    });
    let feed = Feed {
        way: Arc::clone(&way),
        pulse: Arc::clone(pulse),
        offered: 0,
        gap: None,
        over: false,
    };
    (feed, Watch { way, block: Block::default(), waits: true })
}

impl Feed {
    /// Copies `bytes` for the observer, or leaves a gap.
    pub fn bytes(&mut self, side: Side, bytes: &[u8]) {
        if self.over || !self.goes_on(side, bytes) {
            return;
        }
        let way = &self.way;
        let cost = bytes.len().saturating_add(OVERHEAD);
        if !way.take(cost) {
            return self.leave_gap(side);
        }
        if !way.waiting.push(What::Bytes(side), Instant::now(), bytes) {
            way.give_back(cost);
            return self.give_up();
        }
        self.offered = self.offered.saturating_add(bytes.len() as u64);
        if way.own.is_urgent() || way.shared.is_urgent() {
            way.news.notify_one();
        } else {
            self.tell();
        }
    }

    pub fn end(&mut self, side: Side, clean: bool) {
        self.note(What::End(side, clean));
    }

    pub fn closed(&mut self, how: Closing) {
        self.note(What::Closed(how));
        self.finish();
    }

    /// Whether exchanges can't be told apart at the moment.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.gap.is_some() || self.way.progress.is_lossy()
    }

    #[must_use]
    pub fn boundary(&self) -> Boundary {
        let progress = &self.way.progress;
        if self.is_lossy() || self.over || self.way.waiting.nobody_takes() {
            Boundary::Unknown
        } else if self.offered == 0 {
            Boundary::Fresh
        } else if progress.observed.load(Ordering::Acquire) == self.offered
            && progress.open.load(Ordering::Acquire) == 0
        {
            Boundary::Between
        } else {
            Boundary::Within
        }
    }

    /// How many exchanges have begun, as far as they were followed.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.way.progress.begun.load(Ordering::Acquire)
    }

    /// What the client breaks off from now on it breaks off because of us.
    pub fn parts(&self) {
        self.way.progress.set_parting();
    }

    fn note(&mut self, what: What) {
        if self.over {
            return;
        }
        if !self.way.waiting.push(what, Instant::now(), &[]) {
            return self.give_up();
        }
        self.tell();
    }

    /// The observer looks when the pulse says so.
    fn tell(&self) {
        if !self.way.told.swap(true, Ordering::AcqRel) {
            self.pulse.news(&self.way.news);
        }
    }

    /// Whether there is no gap, or it ends with these bytes: who has read an answer asks again.
    fn goes_on(&mut self, side: Side, bytes: &[u8]) -> bool {
        let Some(last) = self.gap else { return true };
        let room = self.way.own.used() <= self.way.own.limit / 2;
        let again = room && asks_again(Some(last), side, bytes);
        self.gap = (!again).then_some(side);
        again
    }

    fn leave_gap(&mut self, side: Side) {
        self.way.progress.set_lossy(true);
        self.note(What::Gap);
        self.gap = Some(side);
    }

    /// Nobody takes anything any more.
    fn give_up(&mut self) {
        self.way.progress.set_lossy(true);
        self.finish();
    }

    fn finish(&mut self) {
        self.over = true;
        self.way.waiting.finish();
        self.tell();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Watch {
    /// The next thing; `None` when the connection is over. `handle` has run when its bytes count as observed. Cancel-safe.
    pub async fn next<T>(&mut self, handle: impl FnOnce(Seen<'_>) -> T) -> Option<T> {
        tokio::task::consume_budget().await;
        while self.block.is_empty() {
            if self.waits {
                self.way.news.notified().await;
                self.waits = false;
                // Before the look: what comes after it is told again.
                self.way.told.store(false, Ordering::Release);
            }
            match self.way.waiting.take() {
                queue::Taken::Block(block) => self.block = block,
                queue::Taken::Over => return None,
                queue::Taken::Nothing => {
                    self.block = Block::default();
                    self.waits = true;
                }
            }
        }
        let (seen, length) = self.block.next()?;
        let paid = matches!(seen, Seen::Bytes { .. });
        let result = handle(seen);
        self.way.progress.observed.fetch_add(length as u64, Ordering::AcqRel);
        if paid {
            self.way.give_back(length.saturating_add(OVERHEAD));
        }
        Some(result)
    }

    /// Whether all that was found at the last look into the queue has been dealt with.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.block.is_empty()
    }

    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.way.progress)
    }
}

/// Nobody looks any more: what waits is given back, and nothing is queued from now on.
impl Drop for Watch {
    fn drop(&mut self) {
        let rest = self.way.waiting.refuse();
        for mut block in std::iter::once(mem::take(&mut self.block)).chain(rest) {
            while let Some((seen, length)) = block.next() {
                if matches!(seen, Seen::Bytes { .. }) {
                    self.way.give_back(length.saturating_add(OVERHEAD));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn over_budget_is_lossy_and_gives_everything_back() {
        let shared = Budget::new(10_000);
        let (mut feed, mut watch) = super::feed(&shared, 1_000, &Arc::default());
        feed.bytes(Side::Client, &[1; 500]);
        assert!(!feed.is_lossy());
        feed.bytes(Side::Client, &[1; 500]);
        assert!(feed.is_lossy());
        feed.bytes(Side::Client, &[1; 1]);
        assert_eq!(shared.used(), 500 + OVERHEAD, "only what is queued is taken");
        drop(feed);
        assert!(watch.next(|_| ()).await.is_some());
        assert_eq!(watch.next(|seen| matches!(seen, Seen::Gap { .. })).await, Some(true));
        assert!(watch.next(|_| ()).await.is_none());
        assert!(watch.progress().is_lossy());
        assert_eq!(shared.used(), 0);
    }

    #[tokio::test]
    async fn a_gap_ends_where_a_client_that_has_its_answer_asks_again() {
        const ASK: &[u8] = b"POST /v1/x HTTP/1.1\r\n\r\n";
        let (mut feed, mut watch) = super::feed(&Budget::new(10_000), 1_000, &Arc::default());
        let progress = watch.progress();
        let mut take = async || {
            let seen = watch.next(|seen| match seen {
                Seen::Bytes { bytes, .. } => bytes.to_vec(),
                Seen::Gap { .. } => b"gap".to_vec(),
                Seen::End { .. } | Seen::Closed { .. } => Vec::new(),
            });
            seen.await.expect("is not over")
        };
        feed.bytes(Side::Client, &[b'a'; 800]);
        feed.bytes(Side::Server, &[b'b'; 800]);
        feed.bytes(Side::Client, ASK);
        assert_eq!(feed.boundary(), Boundary::Unknown);
        assert_eq!(take().await, vec![b'a'; 800]);
        feed.bytes(Side::Client, ASK);
        feed.bytes(Side::Server, ASK);
        feed.bytes(Side::Client, b"more of a body");
        feed.bytes(Side::Client, ASK);
        assert_eq!(take().await, b"gap", "no room, or not after an answer");
        feed.bytes(Side::Server, b"HTTP/1.1 200 OK\r\n\r\n");
        feed.bytes(Side::Client, ASK);
        assert_eq!(take().await, ASK);
        feed.bytes(Side::Client, b"body");
        assert_eq!(take().await, b"body");
        progress.set_lossy(false);
        assert_eq!(feed.boundary(), Boundary::Between);
    }

    #[tokio::test]
    async fn the_shared_budget_bounds_all_and_a_lost_observer_gives_back() {
        let shared = Budget::new(1_000);
        let (mut one, watch) = super::feed(&shared, 10_000, &Arc::default());
        let (mut two, _keep) = super::feed(&shared, 10_000, &Arc::default());
        one.bytes(Side::Server, &[0; 600]);
        two.bytes(Side::Server, &[0; 600]);
        assert!(!one.is_lossy() && two.is_lossy());
        drop(watch);
        assert_eq!(shared.used(), 0);
        one.bytes(Side::Server, &[0; 1]);
        assert!(one.is_lossy());
    }

    #[tokio::test(start_paused = true)]
    async fn much_that_waits_does_not_wait_for_the_pulse() {
        let pulse = Pulse::start(&tokio::runtime::Handle::current());
        let shared = Budget::new(8_000);
        let (mut one, first) = super::feed(&shared, 8_000, &pulse);
        let (mut two, second) = super::feed(&shared, 8_000, &pulse);
        let start = Instant::now();
        one.bytes(Side::Client, b"the pulse rests from now on");
        first.way.news.notified().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        two.bytes(Side::Client, &[0; 100]);
        second.way.news.notified().await;
        let rested = Instant::now();
        assert!(rested > start, "a little waits");
        two.bytes(Side::Client, &[0; 900]);
        second.way.news.notified().await;
        assert_eq!(rested.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn boundaries_follow_the_observer() {
        let (mut feed, mut watch) =
            super::feed(&Budget::new(1_000_000), 1_000_000, &Arc::default());
        assert_eq!(feed.boundary(), Boundary::Fresh);
        feed.bytes(Side::Client, b"GET");
        assert_eq!(feed.boundary(), Boundary::Within);
        let progress = watch.progress();
        watch.next(|_| progress.set_open(1)).await;
        assert_eq!(feed.boundary(), Boundary::Within);
        feed.bytes(Side::Server, b"200");
        watch.next(|_| progress.set_open(0)).await;
        assert_eq!(feed.boundary(), Boundary::Between);
        drop(watch);
        assert_eq!(feed.boundary(), Boundary::Unknown);
    }
}
