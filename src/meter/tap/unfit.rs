//! Providers that showed us something that only the client itself can deal with: a certificate that our
//! roots don't vouch for, the wish for a client's certificate. Their next connections stay raw without
//! another try, so that who lives with one does not pay for two handshakes each time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::handover::Decline;
use crate::meter::trust::Trust;

/// Short: what is put right at the provider, or a network that lies to all until one has logged in,
/// needs no restart of ours.
const STAY: Duration = Duration::from_secs(10);
const MAX_ENTRIES: usize = 256;

/// What a provider's answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    /// What the client offers to speak.
    pub(super) alpn: &'a [Vec<u8>],
}

type Key = (String, u16, Vec<Vec<u8>>);

#[derive(Debug)]
struct Entry {
    reason: Decline,
    /// Others may vouch for what these did not.
    trust: Weak<Trust>,
    until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Unfit {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Unfit {
    /// Why a connection to there would be left to the edge.
    pub(super) fn reason(
        &self,
        at: Place<'_>,
        trust: &Arc<Trust>,
        now: Instant,
    ) -> Option<Decline> {
        let entries = self.lock();
        if entries.is_empty() {
            return None;
        }
        let entry = entries.get(&key(at)).filter(|entry| now < entry.until)?;
        std::ptr::eq(entry.trust.as_ptr(), Arc::as_ptr(trust)).then_some(entry.reason)
    }

    pub(super) fn note(&self, at: Place<'_>, reason: Decline, trust: &Arc<Trust>, now: Instant) {
        let mut entries = self.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, entry| now < entry.until);
        }
        if let Some(until) = now.checked_add(STAY).filter(|_| entries.len() < MAX_ENTRIES) {
            entries.insert(key(at), Entry { reason, trust: Arc::downgrade(trust), until });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(Place { name, port, alpn }: Place<'_>) -> Key {
    (name.to_owned(), port, alpn.to_vec())
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;

    #[test]
    fn it_is_remembered_for_a_moment_for_these_roots_and_is_bounded() {
        let (unfit, now) = (Unfit::default(), Instant::now());
        let [trust, other] = [(); 2].map(|()| Arc::new(Trust::only(CertificateDer::from(vec![]))));
        let place = |name| Place { name, port: 443, alpn: &[] };
        let reason = Decline::UpstreamTls;
        unfit.note(place("h"), reason, &trust, now);
        assert_eq!(unfit.reason(place("h"), &trust, now), Some(reason));
        assert_eq!(unfit.reason(place("h"), &other, now), None);
        assert_eq!(unfit.reason(place("i"), &trust, now), None);
        let speaks = Place { alpn: &[b"h2".to_vec()], ..place("h") };
        assert_eq!(unfit.reason(speaks, &trust, now), None);
        assert_eq!(unfit.reason(place("h"), &trust, now + STAY), None);

        for n in 0..2 * MAX_ENTRIES {
            let name = n.to_string();
            unfit.note(Place { name: &name, ..place("") }, reason, &trust, now);
        }
        assert_eq!(unfit.lock().len(), MAX_ENTRIES);
        unfit.note(place("later"), reason, &trust, now + STAY);
        assert_eq!(unfit.reason(place("later"), &trust, now + STAY), Some(reason));
    }
}
