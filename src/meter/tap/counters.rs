//! What the tap counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use serde::Serialize;

use super::bypass::Bypassed;
use crate::handover::Decline;

/// The tap's state for `/v1/actors`, `/health` and tests.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct TapSnapshot {
    pub open: usize,
    pub draining: bool,
    pub offers: u64,
    pub commits: u64,
    /// Commits that came too late: the edge had gone on raw.
    pub refused: u64,
    pub declined: BTreeMap<&'static str, u64>,
    /// Handshakes that a client broke off: it does not trust our CA, or pins the provider's.
    pub rejected_by_client: u64,
    /// Who stays raw because of that.
    pub bypass: Vec<Bypassed>,
    pub exchanges: u64,
    pub lossy: u64,
    pub observer_bytes: usize,
    /// Connections that are over and whose last rows are being made.
    pub closing: usize,
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Looks into clients' directories that had no answer in time, and where there is none now.
    pub directories_given_up: u64,
    pub silent_directories: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub offers: AtomicU64,
    pub commits: AtomicU64,
    pub refused: AtomicU64,
    declined: [AtomicU64; Decline::ALL.len()],
    pub rejected: AtomicU64,
    pub exchanges: AtomicU64,
    pub lossy: AtomicU64,
    pub closing: AtomicUsize,
    pub panics: AtomicU64,
    /// Edges that could not be accepted for want of descriptors.
    pub shortages: AtomicU64,
    pub bytes_up: AtomicU64,
    pub bytes_down: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn declined(&self, reason: Decline) {
        let slot =
            Decline::ALL.iter().position(|d| *d == reason).and_then(|i| self.declined.get(i));
        if let Some(counter) = slot {
            add(counter, 1);
        }
    }

    pub(super) fn snapshot(&self) -> TapSnapshot {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let declined = Decline::ALL.iter().zip(&self.declined);
        TapSnapshot {
            offers: get(&self.offers),
            commits: get(&self.commits),
            refused: get(&self.refused),
            declined: declined
                .map(|(reason, n)| (name(*reason), get(n)))
                .filter(|(_, n)| *n > 0)
                .collect(),
            rejected_by_client: get(&self.rejected),
            exchanges: get(&self.exchanges),
            lossy: get(&self.lossy),
            closing: self.closing.load(Ordering::Relaxed),
            bytes_up: get(&self.bytes_up),
            bytes_down: get(&self.bytes_down),
            ..TapSnapshot::default()
        }
    }
}

/// As it stands in JSON.
pub(super) fn name(reason: Decline) -> &'static str {
    match reason {
        Decline::NotTls => "not_tls",
        Decline::NotMetered => "not_metered",
        Decline::Bypassed => "bypassed",
        Decline::UnknownAuthority => "unknown_authority",
        Decline::DialFailed => "dial_failed",
        Decline::UpstreamTls => "upstream_tls",
        Decline::UpstreamSlow => "upstream_slow",
        Decline::ClientCertificate => "client_certificate",
        Decline::Overloaded => "overloaded",
        Decline::Degraded => "degraded",
        Decline::Draining => "draining",
        Decline::Internal => "internal",
        Decline::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_under_its_json_name() {
        let counters = Counters::default();
        for reason in Decline::ALL {
            counters.declined(reason);
            assert_eq!(serde_json::to_value(reason).unwrap(), name(reason));
        }
        let declined = counters.snapshot().declined;
        assert_eq!(declined.len(), Decline::ALL.len());
        assert!(declined.values().all(|n| *n == 1));
    }
}
