//! What the edge says about itself (`GET /health` on its port).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::cache::{cause_name, verdict_name};
use super::route::Reason;
use super::serve::Shared;
use super::settings::Read;
use super::upgrade::Refusal;

/// Counters of one edge process.
#[derive(Debug)]
pub struct Counters {
    open: AtomicU64,
    /// When somebody last wanted to get somewhere, or when this began: microseconds since 1970.
    asked_at: AtomicI64,
    local_network_failures: AtomicU64,
    totals: Mutex<Totals>,
    none_open: Notify,
}

/// What an edge has done since it started, over all its images.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Totals {
    raw: u64,
    handed: u64,
    declined: u64,
    passed_metered: u64,
}

/// A connection that is being served; counted while it lives.
#[derive(Debug)]
pub struct Open(Arc<Counters>);

#[derive(Debug, Serialize)]
struct Status<'a> {
    process: &'a str,
    version: &'a str,
    pid: u32,
    instance: Uuid,
    home: String,
    verdict: &'a str,
    verdict_cause: Option<&'a str>,
    verdict_age_ms: u64,
    tunnels: Tunnels,
    passed_metered_total: u64,
    spool_dropped: u64,
    local_network_failures: u64,
    /// Nothing has come by since.
    last_asked_at: Option<Timestamp>,
    /// `host:port` of the proxy that we go through ourselves.
    upstream_proxy: Option<String>,
    /// The same for plain HTTP.
    upstream_http_proxy: Option<String>,
    /// It can't be reached, and was the system's: we go past it.
    upstream_past: bool,
    /// State of `config.toml` that is in force, and a later one that has a mistake; each null if there is none.
    config: Option<String>,
    config_refused: Option<String>,
    /// 1, and one more for each upgrade in place.
    image: u64,
    /// Why the last upgrade was not done.
    upgrade_refused: Option<Refusal>,
}

#[derive(Debug, Serialize)]
struct Tunnels {
    open: u64,
    raw_total: u64,
    handed_total: u64,
    declined_total: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            open: AtomicU64::default(),
            asked_at: AtomicI64::new(Timestamp::now().as_microsecond()),
            local_network_failures: AtomicU64::default(),
            totals: Mutex::default(),
            none_open: Notify::default(),
        }
    }
}

impl Counters {
    /// Somebody wants to get somewhere.
    pub fn asked(&self) {
        self.asked_at.store(Timestamp::now().as_microsecond(), Relaxed);
    }

    #[must_use]
    pub fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Relaxed);
        Open(Arc::clone(self))
    }

    /// Goes on from what another image counted.
    #[must_use]
    pub fn resume(totals: Totals) -> Self {
        Self { totals: Mutex::new(totals), ..Self::default() }
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn raw(&self) {
        self.count(|t| t.raw += 1);
    }

    pub fn handed(&self) {
        self.count(|t| t.handed += 1);
    }

    /// A metered host's connection went raw.
    pub fn passed(&self, reason: Reason) {
        let declined = match reason {
            Reason::Declined(_) => 1,
            Reason::Daemon(_) | Reason::ChannelFull | Reason::NoAnswer | Reason::PlainHttp => 0,
        };
        self.count(|t| {
            t.passed_metered += 1;
            t.declined += declined;
        });
    }

    /// There was no way to an address of the local network.
    pub fn no_way_nearby(&self) {
        self.local_network_failures.fetch_add(1, Relaxed);
    }

    /// There is one: nobody keeps us from it.
    pub fn reached_nearby(&self) {
        self.local_network_failures.store(0, Relaxed);
    }

    /// Since one was reached.
    #[must_use]
    pub fn local_network_failures(&self) -> u64 {
        self.local_network_failures.load(Relaxed)
    }

    fn count(&self, add: impl FnOnce(&mut Totals)) {
        add(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Connections that are open now.
    #[must_use]
    pub fn now_open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Returns when no connection is open.
    pub async fn drained(&self) {
        while self.now_open() > 0 {
            self.none_open.notified().await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.none_open.notify_one();
        }
    }
}

/// The status document.
#[must_use]
pub fn document(shared: &Shared) -> Vec<u8> {
    let Shared { counters, health, spool, upgrades, instance, .. } = shared;
    let (verdict, age) = health.look();
    let totals = counters.totals();
    let Read { taken, refused } = shared.settings.look();
    let status = Status {
        process: "edge",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        instance: *instance,
        home: shared.home.tag(),
        verdict: verdict_name(verdict),
        verdict_cause: cause_name(verdict),
        verdict_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        tunnels: Tunnels {
            // Not counting the connection that asks.
            open: counters.now_open().saturating_sub(1),
            raw_total: totals.raw,
            handed_total: totals.handed,
            declined_total: totals.declined,
        },
        passed_metered_total: totals.passed_metered,
        spool_dropped: spool.dropped(),
        local_network_failures: counters.local_network_failures(),
        last_asked_at: Timestamp::from_microsecond(counters.asked_at.load(Relaxed)).ok(),
        upstream_proxy: health.upstream_proxy(),
        upstream_http_proxy: health.upstream_http_proxy(),
        upstream_past: health.upstream_past(),
        config: taken.map(|stamp| stamp.to_string()),
        config_refused: refused.map(|stamp| stamp.to_string()),
        image: upgrades.image(),
        upgrade_refused: upgrades.refusal(),
    };
    serde_json::to_vec(&status).unwrap_or_else(|_| b"{}".to_vec())
}
