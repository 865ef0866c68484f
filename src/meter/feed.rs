//! The way from the byte path to the observer: copies of the bytes, within a budget, never waited
//! for.
//!
//! What does not fit is not queued: the connection becomes lossy and its observer gets no more.
//! Header compression, chunks and content codings can't be followed across a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{Notify, mpsc};

use super::http::Side;
use super::pulse::Pulse;

/// What a queued message costs besides its bytes.
const OVERHEAD: usize = 128;
/// The part of the own budget at which the observer is told at once.
const URGENT_PART: usize = 8;

/// A bound on bytes in flight; one for the process, one for each connection.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    limit: usize,
}

impl Budget {
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn take(self: &Arc<Self>, amount: usize) -> Option<Taken> {
        let before = self.used.fetch_add(amount, Ordering::Relaxed);
        // Made before the check, so that a refusal gives back what it took.
        let taken = Taken { budget: Arc::clone(self), amount };
        (before.saturating_add(amount) <= self.limit).then_some(taken)
    }
}

/// Gives back on drop, wherever a message ends.
#[derive(Debug)]
struct Taken {
    budget: Arc<Budget>,
    amount: usize,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// One thing that happened on the byte path.
#[derive(Debug)]
pub enum Seen {
    Bytes {
        side: Side,
        at: Instant,
        bytes: Bytes,
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

#[derive(Debug)]
struct Message {
    seen: Seen,
    _taken: Option<(Taken, Taken)>,
}

/// What both ends may look at.
#[derive(Debug, Default)]
pub struct Progress {
    lossy: AtomicBool,
    /// Bytes that the observer has dealt with.
    observed: AtomicU64,
    /// Exchanges that are under way.
    open: AtomicUsize,
}

impl Progress {
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.lossy.load(Ordering::Acquire)
    }

    /// From now on the observer can't tell where exchanges begin and end.
    pub fn set_lossy(&self) {
        self.lossy.store(true, Ordering::Release);
    }

    pub fn set_open(&self, exchanges: usize) {
        self.open.store(exchanges, Ordering::Release);
    }
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

/// The byte path's end.
#[derive(Debug)]
pub struct Feed {
    sender: Option<mpsc::UnboundedSender<Message>>,
    progress: Arc<Progress>,
    news: Arc<Notify>,
    told: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
    shared: Arc<Budget>,
    own: Arc<Budget>,
    offered: u64,
}

/// The observer's end.
#[derive(Debug)]
pub struct Watch {
    receiver: mpsc::UnboundedReceiver<Message>,
    progress: Arc<Progress>,
    news: Arc<Notify>,
    /// It was told since it looked last, or will be.
    told: Arc<AtomicBool>,
}

/// A feed whose messages count against `shared` and a limit of its own, and whose observer looks
/// when `pulse` says so.
#[must_use]
pub fn feed(shared: &Arc<Budget>, limit: usize, pulse: &Arc<Pulse>) -> (Feed, Watch) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let progress = Arc::new(Progress::default());
    let (news, told) = (Arc::<Notify>::default(), Arc::<AtomicBool>::default());
    let feed = Feed {
        sender: Some(sender),
        progress: Arc::clone(&progress),
        news: Arc::clone(&news),
        told: Arc::clone(&told),
        pulse: Arc::clone(pulse),
        shared: Arc::clone(shared),
        own: Budget::new(limit),
        offered: 0,
    };
    (feed, Watch { receiver, progress, news, told })
}

impl Feed {
    /// Copies `bytes` for the observer, or gives it up.
    pub fn bytes(&mut self, side: Side, bytes: &[u8]) {
        self.offered = self.offered.saturating_add(bytes.len() as u64);
        let Some(sender) = &self.sender else { return };
        let cost = bytes.len().saturating_add(OVERHEAD);
        let taken = self.own.take(cost).zip(self.shared.take(cost));
        let sent = taken.is_some() && {
            let bytes = Bytes::copy_from_slice(bytes);
            let seen = Seen::Bytes { side, at: Instant::now(), bytes };
            sender.send(Message { seen, _taken: taken }).is_ok()
        };
        if !sent {
            self.give_up();
        } else if self.own.used() > self.own.limit / URGENT_PART {
            self.news.notify_one();
        } else if !self.told.swap(true, Ordering::AcqRel) {
            self.pulse.news(&self.news);
        }
    }

    pub fn end(&mut self, side: Side, clean: bool) {
        self.note(Seen::End { side, clean, at: Instant::now() });
    }

    pub fn closed(&mut self, how: Closing) {
        self.note(Seen::Closed { how, at: Instant::now() });
        self.sender = None;
    }

    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.progress.is_lossy()
    }

    #[must_use]
    pub fn boundary(&self) -> Boundary {
        if self.is_lossy() || self.sender.as_ref().is_none_or(mpsc::UnboundedSender::is_closed) {
            Boundary::Unknown
        } else if self.offered == 0 {
            Boundary::Fresh
        } else if self.progress.observed.load(Ordering::Acquire) == self.offered
            && self.progress.open.load(Ordering::Acquire) == 0
        {
            Boundary::Between
        } else {
            Boundary::Within
        }
    }

    fn note(&mut self, seen: Seen) {
        if let Some(sender) = &self.sender
            && sender.send(Message { seen, _taken: None }).is_err()
        {
            return self.give_up();
        }
        self.news.notify_one();
    }

    fn give_up(&mut self) {
        self.progress.set_lossy();
        self.sender = None;
        self.news.notify_one();
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.sender = None;
        self.news.notify_one();
    }
}

impl Watch {
    /// The next thing; `None` when the connection is over or was given up (see
    /// [`Progress::is_lossy`]). `handle` has run when its bytes count as observed.
    pub async fn next<T>(&mut self, handle: impl FnOnce(Seen) -> T) -> Option<T> {
        let message = self.message().await?;
        let length = match &message.seen {
            Seen::Bytes { bytes, .. } => bytes.len() as u64,
            Seen::End { .. } | Seen::Closed { .. } => 0,
        };
        let result = handle(message.seen);
        self.progress.observed.fetch_add(length, Ordering::AcqRel);
        Some(result)
    }

    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Cancel-safe: what is received is returned at once.
    async fn message(&mut self) -> Option<Message> {
        tokio::task::consume_budget().await;
        loop {
            match self.receiver.try_recv() {
                Ok(message) => return Some(message),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => {}
            }
            self.news.notified().await;
            // Before the next look: what comes after it is told again.
            self.told.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
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
        assert!(watch.next(drop).await.is_some());
        assert!(watch.next(drop).await.is_none());
        assert!(watch.progress().is_lossy());
        assert_eq!(shared.used(), 0);
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
