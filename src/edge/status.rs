//! What the edge says about itself (`GET /health` on its port).

use std::cell::Cell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::cache::{cause_name, verdict_name};
use super::route::Reason;
use super::serve::Shared;
use super::upgrade::Refusal;

/// Counters of one edge process; everything on its thread shares them.
#[derive(Debug, Default)]
pub struct Counters {
    open: Cell<u64>,
    totals: Cell<Totals>,
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
pub struct Open(Rc<Counters>);

#[derive(Debug, Serialize)]
struct Status<'a> {
    process: &'a str,
    version: &'a str,
    pid: u32,
    instance: Uuid,
    verdict: &'a str,
    verdict_cause: Option<&'a str>,
    verdict_age_ms: u64,
    tunnels: Tunnels,
    passed_metered_total: u64,
    spool_dropped: u64,
    /// `host:port` of the proxy that we go through ourselves.
    upstream_proxy: Option<String>,
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

impl Counters {
    #[must_use]
    pub fn open(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        Open(Rc::clone(self))
    }

    /// Goes on from what another image counted.
    #[must_use]
    pub fn resume(totals: Totals) -> Self {
        Self { totals: Cell::new(totals), ..Self::default() }
    }

    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals.get()
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

    fn count(&self, add: impl FnOnce(&mut Totals)) {
        let mut totals = self.totals.get();
        add(&mut totals);
        self.totals.set(totals);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn now_open(&self) -> u64 {
        self.open.get()
    }

    /// Returns when no connection is open.
    pub async fn drained(&self) {
        while self.open.get() > 0 {
            self.none_open.notified().await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.open.get().saturating_sub(1);
        self.0.open.set(left);
        if left == 0 {
            self.0.none_open.notify_one();
        }
    }
}

/// The status document.
#[must_use]
pub fn document(shared: &Shared) -> Vec<u8> {
    let Shared { counters, health, spool, upgrades, instance, .. } = shared;
    let (verdict, age) = health.look();
    let totals = counters.totals.get();
    let status = Status {
        process: "edge",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        instance: *instance,
        verdict: verdict_name(verdict),
        verdict_cause: cause_name(verdict),
        verdict_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        tunnels: Tunnels {
            // Not counting the connection that asks.
            open: counters.open.get().saturating_sub(1),
            raw_total: totals.raw,
            handed_total: totals.handed,
            declined_total: totals.declined,
        },
        passed_metered_total: totals.passed_metered,
        spool_dropped: spool.dropped(),
        upstream_proxy: health.upstream_proxy(),
        image: upgrades.image(),
        upgrade_refused: upgrades.refusal(),
    };
    serde_json::to_vec(&status).unwrap_or_else(|_| b"{}".to_vec())
}
