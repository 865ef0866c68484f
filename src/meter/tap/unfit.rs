//! Providers that showed us something that only the client itself can deal with: a certificate that our
//! roots don't vouch for, the wish for a client's certificate. Their next connections stay raw without
//! another try, so that who lives with one does not pay for two handshakes each time. And those that said
//! nothing to us in time: something on the way may not like our hello, which is not the client's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::handover::Decline;
use crate::meter::hello::Hello;
use crate::meter::trust::Trust;

/// Short: what is put right at the provider, or a network that lies to all until one has logged in,
/// needs no restart of ours.
const STAY: Duration = Duration::from_secs(10);
/// Silence costs seconds each time: one that goes on is met with longer stays. One slow moment is not.
const LONGER: u32 = 6;
const LONGEST_STAY: Duration = Duration::from_secs(600);
const MAX_ENTRIES: usize = 256;

/// What a provider's answer depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    /// What the client offers to speak.
    pub(super) hello: &'a Hello,
}

type Key = (String, u16, Vec<Vec<u8>>, bool);

#[derive(Debug)]
struct Entry {
    reason: Decline,
    /// Others may vouch for what these did not.
    trust: Weak<Trust>,
    until: Instant,
    /// How long it stays, if it is for silence.
    silent: Option<Duration>,
}

impl Entry {
    fn holds(&self, trust: &Arc<Trust>, now: Instant) -> bool {
        now < self.until && std::ptr::eq(self.trust.as_ptr(), Arc::as_ptr(trust))
    }
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
        let entry = entries.get(&key(at)).filter(|entry| entry.holds(trust, now))?;
        Some(entry.reason)
    }

    pub(super) fn note(&self, at: Place<'_>, reason: Decline, trust: &Arc<Trust>, now: Instant) {
        self.put(at, reason, trust, now, None);
    }

    /// Its handshake was not over in time.
    pub(super) fn note_silence(
        &self,
        at: Place<'_>,
        reason: Decline,
        trust: &Arc<Trust>,
        now: Instant,
    ) {
        let stay = match self.lock().get(&key(at)) {
            // Others waited at the same time.
            Some(entry) if entry.holds(trust, now) => return,
            Some(Entry { silent: Some(stay), .. }) => LONGEST_STAY.min(*stay * LONGER),
            Some(Entry { silent: None, .. }) | None => STAY,
        };
        self.put(at, reason, trust, now, Some(stay));
    }

    /// It could be met.
    pub(super) fn forget(&self, at: Place<'_>) {
        let mut entries = self.lock();
        if !entries.is_empty() {
            entries.remove(&key(at));
        }
    }

    fn put(
        &self,
        at: Place<'_>,
        reason: Decline,
        trust: &Arc<Trust>,
        now: Instant,
        silent: Option<Duration>,
    ) {
        let mut entries = self.lock();
        if entries.len() >= MAX_ENTRIES {
            entries.retain(|_, entry| now < entry.until);
        }
        let until = now.checked_add(silent.unwrap_or(STAY));
        if let Some(until) = until.filter(|_| entries.len() < MAX_ENTRIES) {
            entries.insert(key(at), Entry { reason, trust: Arc::downgrade(trust), until, silent });
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(Place { name, port, hello }: Place<'_>) -> Key {
    (name.to_owned(), port, hello.alpn.clone(), hello.tls13_only)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;

    #[test]
    fn it_is_remembered_for_a_moment_for_these_roots_and_is_bounded() {
        let (unfit, now) = (Unfit::default(), Instant::now());
        let [trust, other] = [(); 2].map(|()| Arc::new(Trust::only(CertificateDer::from(vec![]))));
        let hello = Hello::ours("h");
        let place = |name| Place { name, port: 443, hello: &hello };
        let reason = Decline::UpstreamTls;
        unfit.note(place("h"), reason, &trust, now);
        assert_eq!(unfit.reason(place("h"), &trust, now), Some(reason));
        assert_eq!(unfit.reason(place("h"), &other, now), None);
        assert_eq!(unfit.reason(place("i"), &trust, now), None);
        let speaks = Hello { alpn: vec![b"h2".to_vec()], ..hello.clone() };
        let newest = Hello { tls13_only: true, ..hello.clone() };
        for other in [speaks, newest] {
            let place = Place { hello: &other, ..place("h") };
            assert_eq!(unfit.reason(place, &trust, now), None);
        }
        assert_eq!(unfit.reason(place("h"), &trust, now + STAY), None);

        unfit.note(place("h"), reason, &trust, now);
        unfit.forget(place("h"));
        assert_eq!(unfit.reason(place("h"), &trust, now), None);

        for n in 0..2 * MAX_ENTRIES {
            let name = n.to_string();
            unfit.note(Place { name: &name, ..place("") }, reason, &trust, now);
        }
        assert_eq!(unfit.lock().len(), MAX_ENTRIES);
        unfit.note(place("later"), reason, &trust, now + STAY);
        assert_eq!(unfit.reason(place("later"), &trust, now + STAY), Some(reason));
    }

    #[test]
    fn silence_that_goes_on_is_remembered_longer_and_longer() {
        let (unfit, mut now) = (Unfit::default(), Instant::now());
        let trust = Arc::new(Trust::only(CertificateDer::from(vec![])));
        let hello = Hello::ours("h");
        let place = Place { name: "h", port: 443, hello: &hello };
        let silent = |now| unfit.note_silence(place, Decline::UpstreamSlow, &trust, now);
        for stay in [10, 60, 360, 600, 600] {
            silent(now);
            // Who waited at the same time adds nothing to it.
            silent(now + Duration::from_secs(1));
            let end = now + Duration::from_secs(stay);
            let reason = |at| unfit.reason(place, &trust, at);
            assert_eq!(reason(end - Duration::from_millis(1)), Some(Decline::UpstreamSlow));
            assert_eq!(reason(end), None, "{stay}");
            now = end + Duration::from_secs(3);
        }
        // One that has spoken in between begins anew.
        unfit.forget(place);
        silent(now);
        assert_eq!(unfit.reason(place, &trust, now + STAY), None);
    }
}
