//! What the actors of the meter share, and what outlives each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};

use crate::meter::ledger::Intake;
use crate::meter::price::Book;
use crate::meter::tap::Tap;

/// Clones share.
#[derive(Clone)]
pub struct Meter(Arc<Shared>);

struct Shared {
    intake: Intake,
    book: Arc<ArcSwap<Book>>,
    prices_loaded: AtomicBool,
    tap: ArcSwapOption<Tap>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("prices_loaded", &self.prices_loaded()).finish_non_exhaustive()
    }
}

impl Meter {
    #[must_use]
    pub fn new(intake: Intake) -> Self {
        Self(Arc::new(Shared {
            intake,
            book: Arc::new(ArcSwap::from_pointee(Book::default())),
            prices_loaded: AtomicBool::new(false),
            tap: ArcSwapOption::empty(),
        }))
    }

    /// Where rows go. Rows that wait in it survive every actor.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// The price book in force.
    #[must_use]
    pub fn book(&self) -> Arc<ArcSwap<Book>> {
        Arc::clone(&self.0.book)
    }

    pub fn publish_book(&self, book: Arc<Book>) {
        self.0.book.store(book);
        self.0.prices_loaded.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn prices_loaded(&self) -> bool {
        self.0.prices_loaded.load(Ordering::Acquire)
    }

    /// The tap that accepts connections, if one does.
    #[must_use]
    pub fn tap(&self) -> Option<Arc<Tap>> {
        self.0.tap.load_full()
    }

    pub fn publish_tap(&self, tap: Option<Arc<Tap>>) {
        self.0.tap.store(tap);
    }
}
