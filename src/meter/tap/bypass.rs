//! Clients that won't have our certificate: their next tries stay raw, for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// First stay on the list; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(10 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// A handshake that merely ended counts once, one that was refused counts fully.
const ENOUGH: u32 = 2;
const MAX_ENTRIES: usize = 512;

/// How a client broke off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Strike {
    /// It said so in a TLS alert.
    Refused,
    /// It only closed the connection, in the middle of the handshake.
    Vanished,
}

/// Host and program; the program is empty when it can't be told.
type Key = (String, String);

#[derive(Debug, Default)]
struct Entry {
    strikes: u32,
    stays: u32,
    until: Option<Instant>,
}

/// By host and client program, in memory only: a restart is the user's way to try again.
#[derive(Debug, Default)]
pub(super) struct Bypass {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Bypass {
    /// Whether anybody has had trouble with this host; if not, nobody needs to be identified.
    pub(super) fn knows(&self, host: &str) -> bool {
        self.lock().keys().any(|(known, _)| known == host)
    }

    /// An unknown client may be any that has had trouble, and trouble of an unknown one may be
    /// anybody's: in doubt the connection stays raw.
    pub(super) fn covers(&self, host: &str, program: Option<&str>, now: Instant) -> bool {
        self.lock().iter().any(|((known, whose), entry)| {
            known == host
                && (whose.is_empty() || program.is_none_or(|p| p == whose))
                && entry.until.is_some_and(|until| now < until)
        })
    }

    pub(super) fn strike(&self, host: &str, program: Option<&str>, how: Strike, now: Instant) {
        let mut entries = self.lock();
        let key = (host.to_owned(), program.unwrap_or_default().to_owned());
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            entries.retain(|_, entry| entry.until.is_some_and(|until| now < until));
            if entries.len() >= MAX_ENTRIES {
                return;
            }
        }
        let entry = entries.entry(key).or_default();
        entry.strikes += match how {
            Strike::Refused => ENOUGH,
            Strike::Vanished => 1,
        };
        if entry.strikes >= ENOUGH {
            let stay = FIRST.saturating_mul(1 << entry.stays.min(16)).min(LONGEST);
            entry.until = now.checked_add(stay);
            entry.stays += 1;
            entry.strikes = 0;
        }
    }

    /// A handshake that worked.
    pub(super) fn forgive(&self, host: &str, program: Option<&str>) {
        self.lock().remove(&(host.to_owned(), program.unwrap_or_default().to_owned()));
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_at_once_and_expires_later_each_time() {
        let bypass = Bypass::default();
        let start = Instant::now();
        assert!(!bypass.knows("h"));
        bypass.strike("h", Some("pinned"), Strike::Refused, start);
        assert!(bypass.knows("h") && bypass.covers("h", Some("pinned"), start));
        assert!(!bypass.covers("h", Some("other"), start) && !bypass.covers("i", None, start));
        assert!(bypass.covers("h", None, start), "it may be the pinned one");
        let later = start + FIRST;
        assert!(!bypass.covers("h", Some("pinned"), later));
        bypass.strike("h", Some("pinned"), Strike::Refused, later);
        assert!(bypass.covers("h", Some("pinned"), later + FIRST));
        assert!(!bypass.covers("h", Some("pinned"), later + FIRST * 2));
    }

    #[test]
    fn a_vanished_client_needs_to_do_it_twice_and_success_forgives() {
        let bypass = Bypass::default();
        let now = Instant::now();
        bypass.strike("h", None, Strike::Vanished, now);
        assert!(!bypass.covers("h", None, now));
        bypass.forgive("h", None);
        bypass.strike("h", None, Strike::Vanished, now);
        assert!(!bypass.covers("h", None, now));
        bypass.strike("h", None, Strike::Vanished, now);
        assert!(bypass.covers("h", None, now) && bypass.covers("h", Some("any"), now));
    }

    #[test]
    fn the_list_is_bounded() {
        let bypass = Bypass::default();
        let now = Instant::now();
        for i in 0..2 * MAX_ENTRIES {
            bypass.strike(&format!("h{i}"), None, Strike::Vanished, now);
        }
        assert!(bypass.len() <= MAX_ENTRIES);
    }
}
