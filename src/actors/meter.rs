//! What the actors of the meter share, and what outlives each of them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use actix::Recipient;
use arc_swap::{ArcSwap, ArcSwapOption};
use slog::Logger;
use tokio::sync::Notify;

use super::prices::Look;
use crate::config::Config;
use crate::home::Home;
use crate::meter::bodies::Keeper;
use crate::meter::ca::{Ca, CaError};
use crate::meter::ledger::{Intake, Register};
use crate::meter::observer::{Recorder, RowSink};
use crate::meter::price::Book;
use crate::meter::tap::{BypassFile, Tap};
use crate::meter::trust::{Trust, read_certificates};
use crate::threads;

/// Clones share.
#[derive(Clone)]
pub struct Meter(Arc<Shared>);

struct Shared {
    intake: Intake,
    bodies: Keeper,
    register: Register,
    book: Arc<ArcSwap<Book>>,
    prices_loaded: AtomicBool,
    prices: ArcSwapOption<Recipient<Look>>,
    keys: OnceLock<Keys>,
    bypass: OnceLock<Arc<BypassFile>>,
    tap: ArcSwapOption<Tap>,
    suspected: Notify,
    /// Taps that were given up: each ends with the last of its connections, and of the edges that it
    /// still serves.
    retired: Mutex<Vec<Weak<Tap>>>,
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter")
            .field("prices_loaded", &self.prices_loaded())
            .finish_non_exhaustive()
    }
}

impl Meter {
    #[must_use]
    pub fn new(intake: Intake, register: Register, bodies: Keeper) -> Self {
        Self(Arc::new(Shared {
            intake,
            bodies,
            register,
            book: Arc::new(ArcSwap::from_pointee(Book::default())),
            prices_loaded: AtomicBool::new(false),
            prices: ArcSwapOption::empty(),
            keys: OnceLock::new(),
            bypass: OnceLock::new(),
            tap: ArcSwapOption::empty(),
            suspected: Notify::new(),
            retired: Mutex::default(),
        }))
    }

    /// Where rows go. Rows that wait in it survive every actor.
    #[must_use]
    pub fn intake(&self) -> &Intake {
        &self.0.intake
    }

    /// Who keeps bodies.
    #[must_use]
    pub fn bodies(&self) -> &Keeper {
        &self.0.bodies
    }

    /// Where the connections in hand stand.
    #[must_use]
    pub fn register(&self) -> Register {
        self.0.register.clone()
    }

    /// The intake as the tap sees it.
    #[must_use]
    pub fn sink(&self) -> Arc<dyn RowSink> {
        Arc::new(Recorder { rows: self.0.intake.clone(), bodies: self.0.bodies.clone() })
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

    /// Who takes prices over that have changed.
    pub fn publish_prices(&self, prices: Recipient<Look>) {
        self.0.prices.store(Some(Arc::new(prices)));
    }

    /// Who does, once there is anybody.
    #[must_use]
    pub fn prices(&self) -> Option<Arc<Recipient<Look>>> {
        self.0.prices.load_full()
    }

    #[must_use]
    pub fn prices_loaded(&self) -> bool {
        self.0.prices_loaded.load(Ordering::Acquire)
    }

    /// Authority and trust; loaded by the first call, which reads files.
    ///
    /// # Errors
    /// When there is no authority and none can be made.
    pub fn keys(&self, home: &Home, config: &Config, log: &Logger) -> Result<&Keys, CaError> {
        if let Some(keys) = self.0.keys.get() {
            return Ok(keys);
        }
        let keys = Keys::load(home, config, log)?;
        Ok(self.0.keys.get_or_init(|| keys))
    }

    /// The keys, if they are loaded.
    #[must_use]
    pub fn known_keys(&self) -> Option<&Keys> {
        self.0.keys.get()
    }

    /// Who stays raw, as the last daemon knew it; loaded by the first call, which reads files. A tap that
    /// is given up leaves it to the next one.
    pub fn bypass(&self, home: &Home, log: &Logger) -> &Arc<BypassFile> {
        self.0.bypass.get_or_init(|| BypassFile::open(home, log))
    }

    /// The same, if it is loaded.
    #[must_use]
    pub fn known_bypass(&self) -> Option<&Arc<BypassFile>> {
        self.0.bypass.get()
    }

    /// What has changed there is on the disk after it, unless that takes too long.
    pub async fn save_bypass(&self, patience: Duration) {
        if let Some(file) = self.known_bypass().cloned() {
            let saved = threads::blocking(move || file.save());
            let _ = tokio::time::timeout(patience, saved).await;
        }
    }

    /// By this clock the authority can sign nothing.
    #[must_use]
    pub fn ca_outdated(&self) -> bool {
        self.known_keys().is_some_and(|keys| !keys.ca.load().is_valid_at(SystemTime::now()))
    }

    /// The tap that accepts connections, if one does.
    #[must_use]
    pub fn tap(&self) -> Option<Arc<Tap>> {
        self.0.tap.load_full()
    }

    pub fn publish_tap(&self, tap: Arc<Tap>) {
        self.0.tap.store(Some(tap));
    }

    /// It did not answer.
    pub fn suspect_tap(&self) {
        self.0.suspected.notify_one();
    }

    /// Waits until somebody had no answer from the tap.
    pub async fn tap_suspected(&self) {
        self.0.suspected.notified().await;
    }

    /// A tap that does not accept any more: the next one is made afresh, its connections go on.
    pub fn retire_tap(&self) {
        if let Some(tap) = self.0.tap.swap(None) {
            let mut retired = self.0.retired.lock().unwrap_or_else(PoisonError::into_inner);
            retired.retain(|tap| tap.strong_count() > 0);
            retired.push(Arc::downgrade(&tap));
        }
    }

    /// Takes no more connections and lets exchanges finish. True when nothing had to be cut.
    pub async fn drain(&self, deadline: Duration) -> bool {
        let retired = self.0.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // All at once: each has the whole time.
        let drains: Vec<_> = self
            .tap()
            .into_iter()
            .chain(retired.iter().filter_map(Weak::upgrade))
            .map(|tap| tokio::spawn(async move { tap.drain(deadline).await }))
            .collect();
        let mut clean = true;
        for drain in drains {
            clean &= drain.await.unwrap_or(false);
        }
        clean
    }
}

/// The authority that clients see, and what we believe of providers.
#[derive(Clone, Debug)]
pub struct Keys {
    pub ca: Arc<ArcSwap<Ca>>,
    pub trust: Arc<ArcSwap<Trust>>,
}

impl Keys {
    fn load(home: &Home, config: &Config, log: &Logger) -> Result<Self, CaError> {
        let ca = Ca::load_unasked(home, &config.meter.hosts, log)?;
        let trust = publish(&ca, home, config, log);
        Ok(Self {
            ca: Arc::new(ArcSwap::from_pointee(ca)),
            trust: Arc::new(ArcSwap::from_pointee(trust)),
        })
    }

    /// For another configuration. Reads files.
    ///
    /// # Errors
    /// When there is no authority for it and none can be made; then nothing has changed.
    pub fn reload(&self, home: &Home, config: &Config, log: &Logger) -> Result<(), CaError> {
        let ca = Arc::new(Ca::load_unasked(home, &config.meter.hosts, log)?);
        // Before the bundle loses a CA that has been replaced, nothing is signed with it any more.
        self.ca.store(Arc::clone(&ca));
        self.trust.store(Arc::new(publish(&ca, home, config, log)));
        Ok(())
    }
}

/// Writes the bundle for programs; whom we believe ourselves.
fn publish(ca: &Ca, home: &Home, config: &Config, log: &Logger) -> Trust {
    let file = config.upstream.extra_ca_file.as_ref();
    let extra = file.map(|file| read_certificates(file)).unwrap_or_default();
    if let Err(e) = ca.write_bundle(home, &extra) {
        slog::error!(log, "no bundle for tools that take one file"; "error" => %e);
    }
    let trust = Trust::load(home, file);
    if let Some(problem) = trust.problem() {
        slog::error!(log, "providers can't all be verified"; "problem" => problem);
    }
    trust
}
