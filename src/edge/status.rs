//! What the edge says about itself (`GET /health` on its port).

use std::cell::Cell;
use std::rc::Rc;

use serde::Serialize;
use tokio::sync::Notify;
use uuid::Uuid;

use super::cache::{Health, cause_name, verdict_name};
use super::route::Reason;
use super::spool::Spool;

/// Counters of one edge process; everything on its thread shares them.
#[derive(Debug, Default)]
pub struct Counters {
    open: Cell<u64>,
    raw: Cell<u64>,
    handed: Cell<u64>,
    declined: Cell<u64>,
    passed_metered: Cell<u64>,
    none_open: Notify,
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

    pub fn raw(&self) {
        self.raw.set(self.raw.get() + 1);
    }

    pub fn handed(&self) {
        self.handed.set(self.handed.get() + 1);
    }

    /// A metered host's connection went raw.
    pub fn passed(&self, reason: Reason) {
        self.passed_metered.set(self.passed_metered.get() + 1);
        match reason {
            Reason::Declined(_) => self.declined.set(self.declined.get() + 1),
            Reason::Daemon(_) | Reason::ChannelFull | Reason::NoAnswer | Reason::PlainHttp => {}
        }
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
pub fn document(counters: &Counters, health: &Health, spool: &Spool, instance: Uuid) -> Vec<u8> {
    let (verdict, age) = health.look();
    let status = Status {
        process: "edge",
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        instance,
        verdict: verdict_name(verdict),
        verdict_cause: cause_name(verdict),
        verdict_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        tunnels: Tunnels {
            // Not counting the connection that asks.
            open: counters.open.get().saturating_sub(1),
            raw_total: counters.raw.get(),
            handed_total: counters.handed.get(),
            declined_total: counters.declined.get(),
        },
        passed_metered_total: counters.passed_metered.get(),
        spool_dropped: spool.dropped(),
        upstream_proxy: health.upstream_proxy(),
    };
    serde_json::to_vec(&status).unwrap_or_else(|_| b"{}".to_vec())
}
