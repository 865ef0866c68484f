//! What a child gets at birth, and how others find it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use actix::{Actor, Addr};
use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;

use super::launch::{Control, Report};
use super::liveness::Pulse;

/// Given to the factory of a child; belongs to one generation.
#[derive(Clone)]
pub struct Birth(Arc<Inner>);

struct Inner {
    id: &'static str,
    generation: u64,
    log: slog::Logger,
    pulse: Pulse,
    report: Report,
    control: mpsc::UnboundedSender<Control>,
    ready: AtomicBool,
    fault: Mutex<Option<String>>,
    publish: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Birth {
    pub(super) fn new(
        id: &'static str,
        generation: u64,
        log: slog::Logger,
        pulse: Pulse,
        report: Report,
        control: mpsc::UnboundedSender<Control>,
    ) -> Self {
        Self(Arc::new(Inner {
            id,
            generation,
            log,
            pulse,
            report,
            control,
            ready: AtomicBool::new(false),
            fault: Mutex::new(None),
            publish: OnceLock::new(),
        }))
    }

    /// The child can serve: its slot is filled, its siblings may start.
    pub fn ready(&self) {
        if !self.0.ready.swap(true, Ordering::AcqRel) {
            if let Some(publish) = self.0.publish.get() {
                publish();
            }
            self.0.report.ready();
        }
    }

    /// Ends the child as failed. The first reason is the one that counts.
    pub fn fail(&self, reason: impl Into<String>) {
        {
            let mut fault = self.0.fault.lock().unwrap_or_else(PoisonError::into_inner);
            fault.get_or_insert_with(|| reason.into());
        }
        let _ = self.0.control.send(Control::Fail);
    }

    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.0.pulse.clone()
    }

    #[must_use]
    pub fn id(&self) -> &'static str {
        self.0.id
    }

    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation
    }

    pub fn log(&self) -> &slog::Logger {
        &self.0.log
    }

    pub(super) fn on_ready(&self, publish: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.publish.set(Box::new(publish));
    }

    pub(super) fn take_fault(&self) -> Option<String> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Birth")
            .field("id", &self.0.id)
            .field("generation", &self.0.generation)
            .finish_non_exhaustive()
    }
}

/// Where to find a child. Keep the slot, never an address: an address dies with its generation.
pub struct Slot<A: Actor>(Arc<ArcSwapOption<(u64, Addr<A>)>>);

/// The child is not up: starting, waiting for its restart, or stopped.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the component is not up")]
pub struct ChildDown;

impl<A: Actor> Slot<A> {
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(ArcSwapOption::const_empty()))
    }

    /// Generation and address of the child that serves now.
    pub fn get(&self) -> Result<(u64, Addr<A>), ChildDown> {
        self.0.load().as_deref().map(|(g, addr)| (*g, addr.clone())).ok_or(ChildDown)
    }

    pub(super) fn put(&self, generation: u64, addr: Addr<A>) {
        self.0.store(Some(Arc::new((generation, addr))));
    }

    /// Empties the slot unless a later generation is in it.
    pub(super) fn clear(&self, generation: u64) {
        self.0.rcu(|now| now.as_ref().filter(|now| now.0 > generation).cloned());
    }
}

impl<A: Actor> Default for Slot<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: Actor> Clone for Slot<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> fmt::Debug for Slot<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Slot").field(&self.0.load().as_deref().map(|(g, _)| *g)).finish()
    }
}
