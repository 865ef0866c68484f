//! Clients that won't have our certificate: their next tries stay raw, for a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use crate::platform::owner::AVAILABLE;

/// First stay on the list; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(10 * 60);
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The same for a client that could not be told: gone before it was looked up, or another user's. That
/// makes the host raw for everybody, so it is short: long enough for the client's next try. From then on
/// who comes to this host is known before the handshake, so the one that refuses again is put on the list
/// by name; and who can't be told even then may be the one that refused, so it stays raw.
const FIRST_UNKNOWN: Duration = Duration::from_secs(30);
const LONGEST_UNKNOWN: Duration = FIRST;
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

/// One line of the list, as the API and `status` show it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Bypassed {
    pub host: String,
    /// `None`: it could not be told who the client is.
    pub program: Option<String>,
    /// Its connections stay raw until then; `None`: not yet, it has broken off once.
    pub until: Option<Timestamp>,
    /// Handshakes that it broke off since the last stay.
    pub strikes: u32,
    /// How often it was put on the list.
    pub stays: u32,
    /// Clients that can't be told stay raw at this host until the list is cleared, whatever `until` says.
    pub lasting: bool,
}

/// Host and program; the program is empty when it can't be told.
type Key = (String, String);

#[derive(Debug, Default)]
struct Entry {
    strikes: u32,
    /// The last of them.
    struck: Option<Instant>,
    stays: u32,
    until: Option<Instant>,
}

impl Entry {
    /// Where nobody can be told apart this would be everybody, for ever.
    fn lasts(&self, whose: &str) -> bool {
        AVAILABLE && whose.is_empty() && self.stays > 0
    }
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
    /// anybody's: in doubt the connection stays raw. One that never can be told (another user's) would
    /// fail again whenever a stay is over.
    pub(super) fn covers(&self, host: &str, program: Option<&str>, now: Instant) -> bool {
        self.lock().iter().any(|((known, whose), entry)| {
            known == host
                && (whose.is_empty() || program.is_none_or(|p| p == whose))
                && (entry.until.is_some_and(|until| now < until)
                    || (program.is_none() && entry.lasts(whose)))
        })
    }

    pub(super) fn strike(&self, host: &str, program: Option<&str>, how: Strike, now: Instant) {
        let mut entries = self.lock();
        let program = program.map(str::to_owned).or_else(|| match how {
            Strike::Vanished => suspect(&entries, host),
            Strike::Refused => None,
        });
        let unknown = program.as_ref().map_or(0, |_| take_unknown(&mut entries, host, now));
        let key = (host.to_owned(), program.clone().unwrap_or_default());
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            entries.retain(|_, entry| entry.until.is_some_and(|until| now < until));
            if entries.len() >= MAX_ENTRIES {
                return;
            }
        }
        let entry = entries.entry(key).or_default();
        entry.struck = Some(now);
        entry.strikes += unknown
            + match how {
                Strike::Refused => ENOUGH,
                Strike::Vanished => 1,
            };
        if entry.strikes >= ENOUGH {
            // Where nobody can be told apart, everybody is one client.
            let (first, longest) = match program {
                None if AVAILABLE => (FIRST_UNKNOWN, LONGEST_UNKNOWN),
                Some(_) | None => (FIRST, LONGEST),
            };
            let stay = first.saturating_mul(1 << entry.stays.min(16)).min(longest);
            entry.until = now.checked_add(stay);
            entry.stays += 1;
            entry.strikes = 0;
        }
    }

    /// A handshake that worked.
    pub(super) fn forgive(&self, host: &str, program: Option<&str>) {
        self.lock().remove(&(host.to_owned(), program.unwrap_or_default().to_owned()));
    }

    /// What stays raw, and who is close to it; by host and program. `now` by both clocks.
    pub(super) fn entries(&self, now: (Instant, Timestamp)) -> Vec<Bypassed> {
        let (instant, wall) = now;
        let entries = self.lock();
        let shown = entries.iter().filter_map(|((host, program), entry)| {
            let left = entry.until.map(|until| until.saturating_duration_since(instant));
            let left = left.filter(|left| !left.is_zero());
            let lasting = entry.lasts(program);
            (left.is_some() || entry.strikes > 0 || lasting).then(|| Bypassed {
                host: host.clone(),
                program: Some(program.clone()).filter(|p| !p.is_empty()),
                until: left.map(|left| wall.checked_add(left).unwrap_or(Timestamp::MAX)),
                strikes: entry.strikes,
                stays: entry.stays,
                lasting,
            })
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_unstable_by(|a, b| (&a.host, &a.program).cmp(&(&b.host, &b.program)));
        shown
    }

    /// Everybody may try again; how many entries there were.
    pub(super) fn clear(&self) -> usize {
        std::mem::take(&mut *self.lock()).len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that was gone before it was looked up is taken for the one program that has broken off here
/// before, if there is one: of two tries of a client either may be known and the other not.
fn suspect(entries: &HashMap<Key, Entry>, host: &str) -> Option<String> {
    let known = entries.iter().filter(|((at, whose), _)| at == host && !whose.is_empty());
    let mut struck = known.filter(|(_, entry)| entry.strikes > 0).map(|((_, whose), _)| whose);
    let first = struck.next()?;
    struck.next().is_none().then(|| first.clone())
}

/// The other way round: strikes of a while ago that nobody was known for.
fn take_unknown(entries: &mut HashMap<Key, Entry>, host: &str, now: Instant) -> u32 {
    let Some(entry) = entries.get_mut(&(host.to_owned(), String::new())) else { return 0 };
    let strikes = std::mem::take(&mut entry.strikes);
    let lately = |at: Instant| now.saturating_duration_since(at) < FIRST;
    if entry.struck.is_some_and(lately) { strikes } else { 0 }
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
    fn of_two_tries_one_may_be_known_and_the_other_not() {
        let start = Instant::now();
        for order in [[None, Some("bun")], [Some("bun"), None]] {
            let bypass = Bypass::default();
            for program in order {
                bypass.strike("h", program, Strike::Vanished, start);
            }
            assert!(bypass.covers("h", Some("bun"), start), "{order:?}");
            assert!(!bypass.covers("h", Some("other"), start), "{order:?}");
            assert_eq!(bypass.entries((start, Timestamp::UNIX_EPOCH)).len(), 1, "{order:?}");
        }
        // Long ago it was somebody else, and of two programs either.
        let bypass = Bypass::default();
        bypass.strike("h", None, Strike::Vanished, start);
        bypass.strike("h", Some("bun"), Strike::Vanished, start + FIRST);
        bypass.strike("h", Some("curl"), Strike::Vanished, start + FIRST);
        bypass.strike("h", None, Strike::Vanished, start + FIRST);
        let covered = |program| bypass.covers("h", Some(program), start + FIRST);
        assert!(!covered("bun") && !covered("curl") && !covered("other"));
        // Who refuses in so many words is not taken for another.
        bypass.strike("h", None, Strike::Refused, start + FIRST);
        assert!(covered("other"));
    }

    #[test]
    fn an_unknown_client_makes_the_host_raw_for_a_moment_only() {
        let bypass = Bypass::default();
        let mut now = Instant::now();
        let mut stays = Vec::new();
        for _ in 0..7 {
            bypass.strike("h", None, Strike::Refused, now);
            let stay = (1..).map(|n| FIRST_UNKNOWN * n);
            let stay = stay.take_while(|s| bypass.covers("h", Some("any"), now + *s)).count() + 1;
            stays.push(FIRST_UNKNOWN * u32::try_from(stay).unwrap());
            now += LONGEST;
        }
        if AVAILABLE {
            let seconds: Vec<_> = stays.iter().map(Duration::as_secs).collect();
            assert_eq!(seconds, [30, 60, 120, 240, 480, 600, 600]);
        }
        assert!(bypass.knows("h"), "the next ones are looked up before the handshake");
    }

    /// Else another user's client, which nobody can tell, would fail every few minutes, for ever.
    #[test]
    fn who_never_can_be_told_fails_once() {
        let bypass = Bypass::default();
        let now = Instant::now();
        bypass.strike("h", None, Strike::Vanished, now);
        assert!(!bypass.covers("h", None, now), "once is no pattern");
        bypass.strike("h", None, Strike::Refused, now);
        let later = now + Duration::from_secs(3600);
        assert_eq!(bypass.covers("h", None, later), AVAILABLE);
        assert!(!bypass.covers("h", Some("x"), later) && !bypass.covers("i", None, later));
        let shown = bypass.entries((later, Timestamp::UNIX_EPOCH));
        let shown: Vec<_> = shown.iter().map(|e| (e.until, e.stays, e.lasting)).collect();
        assert_eq!(shown, if AVAILABLE { vec![(None, 1, true)] } else { Vec::new() });
        bypass.clear();
        assert!(!bypass.covers("h", None, now));
        bypass.strike("h", Some("x"), Strike::Refused, now);
        assert!(!bypass.covers("h", None, now + LONGEST), "whoever it was can be told");
    }

    #[test]
    fn the_list_is_bounded() {
        let bypass = Bypass::default();
        let now = Instant::now();
        for i in 0..2 * MAX_ENTRIES {
            bypass.strike(&format!("h{i}"), None, Strike::Vanished, now);
        }
        assert!(bypass.entries((now, Timestamp::UNIX_EPOCH)).len() <= MAX_ENTRIES);
    }

    #[test]
    fn the_list_shows_who_stays_raw_until_when_and_can_be_cleared() {
        let bypass = Bypass::default();
        let now = Instant::now();
        let wall = Timestamp::from_second(1_790_000_000).unwrap();
        bypass.strike("b", Some("pinned"), Strike::Refused, now);
        bypass.strike("a", None, Strike::Vanished, now);
        let line = |host: &str, program: Option<&str>, until, strikes, stays| Bypassed {
            host: host.to_owned(),
            program: program.map(str::to_owned),
            until,
            strikes,
            stays,
            lasting: false,
        };
        let end = wall.checked_add(FIRST).unwrap();
        let once = line("a", None, None, 1, 0);
        let pinned = line("b", Some("pinned"), Some(end), 0, 1);
        assert_eq!(bypass.entries((now, wall)), [once.clone(), pinned]);
        assert_eq!(bypass.entries((now + FIRST, wall)), [once], "it may try again");
        assert_eq!(bypass.clear(), 2);
        assert!(!bypass.covers("b", Some("pinned"), now) && !bypass.knows("b"));
        assert_eq!(bypass.entries((now, wall)), []);
    }
}
