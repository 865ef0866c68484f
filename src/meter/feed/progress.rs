//! How far an observer is with a connection.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// What both ends may look at.
#[derive(Debug, Default)]
pub struct Progress {
    lossy: AtomicBool,
    /// The client was told to leave.
    parting: AtomicBool,
    /// Bytes that the observer has dealt with.
    pub(super) observed: AtomicU64,
    /// Exchanges that are under way; one more, if another has begun.
    pub(super) open: AtomicUsize,
    /// Exchanges that were seen to begin.
    pub(super) begun: AtomicU64,
}

impl Progress {
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.lossy.load(Ordering::Acquire)
    }

    /// Whether the observer can't tell where exchanges begin and end.
    pub fn set_lossy(&self, lossy: bool) {
        self.lossy.store(lossy, Ordering::Release);
    }

    #[must_use]
    pub fn is_parting(&self) -> bool {
        self.parting.load(Ordering::Acquire)
    }

    pub fn set_parting(&self) {
        self.parting.store(true, Ordering::Release);
    }

    pub fn set_open(&self, exchanges: usize) {
        self.open.store(exchanges, Ordering::Release);
    }

    pub fn note_begun(&self) {
        self.begun.fetch_add(1, Ordering::Release);
    }
}
