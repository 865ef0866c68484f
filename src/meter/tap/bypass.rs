//! Clients that won't have our certificate: their next tries stay raw, for a while.

mod file;
mod text;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use tokio::sync::watch;

pub use file::BypassFile;

use super::spoken::{Excuse, Process, Spoken};
use crate::meter::attribution::Attribution;
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
    /// It only broke the connection off, in the handshake or right after it.
    Vanished,
    /// It ended the connection in order, right after a handshake that it has finished.
    Closed,
    /// It only broke off, too often for one whose process has spoken through our certificate otherwise.
    Divided,
}

/// A connection that was broken off, from its offer to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub began: Instant,
    pub ended: Instant,
}

impl Tried {
    /// Side by side: the client could not know of the one's end when it began the other.
    pub(super) fn beside(self, other: Self) -> bool {
        self.began < other.ended && other.began < self.ended
    }
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
    /// It has said that it does not accept our certificate; who has not, has only broken off.
    pub refused: bool,
}

/// Host and program; the program is empty when it can't be told.
type Key = (String, String);

#[derive(Debug, Default)]
struct Entry {
    strikes: u32,
    /// The last of them.
    struck: Option<Tried>,
    stays: u32,
    /// When the last stay was set.
    since: Option<Instant>,
    until: Option<Instant>,
    /// It said so at least once.
    refused: bool,
    /// That others of its process have spoken says nothing of it.
    divided: bool,
}

impl Entry {
    /// One that only stands for somebody who was taken for another since.
    fn is_idle(&self) -> bool {
        self.stays == 0 && self.strikes == 0
    }

    /// Where nobody can be told apart this would be everybody, for ever.
    fn lasts(&self, whose: &str) -> bool {
        AVAILABLE && whose.is_empty() && self.stays > 0
    }

    /// Connections of one burst tell the same thing once, and those that were there before the stay
    /// could not keep to it.
    fn counts(&self, how: Strike, tried: Tried) -> bool {
        if self.since.is_some_and(|since| tried.began < since) {
            return false;
        }
        match how {
            Strike::Refused | Strike::Divided => true,
            Strike::Vanished | Strike::Closed => {
                !self.struck.is_some_and(|last| tried.beside(last))
            }
        }
    }
}

/// How long the stay lasts that is the `stays`th of this client.
fn stay(program: &str, stays: u32) -> Duration {
    // Where nobody can be told apart, everybody is one client.
    let (first, longest) = if AVAILABLE && program.is_empty() {
        (FIRST_UNKNOWN, LONGEST_UNKNOWN)
    } else {
        (FIRST, LONGEST)
    };
    first.saturating_mul(1 << stays.saturating_sub(1).min(16)).min(longest)
}

/// By host and client program. What ends the daemon does not end it ([`BypassFile`]), but for the user.
#[derive(Debug, Default)]
pub struct Bypass {
    entries: Mutex<HashMap<Key, Entry>>,
    spoken: Mutex<Spoken>,
    /// Counts what the next daemon is to know. Who writes that down is not waited for.
    changes: watch::Sender<u64>,
}

/// Stands for a connection that its client has spoken on, through our certificate.
#[derive(Debug)]
pub(super) struct Voucher {
    bypass: Arc<Bypass>,
    process: Process,
    number: u64,
}

impl Voucher {
    /// The client has aborted an answer, and its connection went with that.
    pub(super) fn aborted(&self, at: Instant) {
        self.bypass.spoken().abort(&self.process, self.number, at);
    }
}

impl Drop for Voucher {
    fn drop(&mut self) {
        self.bypass.spoken().end(&self.process, self.number, Instant::now());
    }
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

    pub(super) fn strike(
        &self,
        host: &str,
        program: Option<&str>,
        how: Strike,
        tried: Tried,
        now: Instant,
    ) {
        self.note(host, program, how, tried, now);
        self.changed();
    }

    fn note(&self, host: &str, program: Option<&str>, how: Strike, tried: Tried, now: Instant) {
        let mut entries = self.lock();
        let program = program.map(str::to_owned).or_else(|| match how {
            Strike::Vanished | Strike::Closed => suspect(&entries, host),
            Strike::Refused | Strike::Divided => None,
        });
        let unknown = program
            .as_ref()
            .map_or(Unknown::None, |_| take_unknown(&mut entries, host, how, tried));
        let key = (host.to_owned(), program.clone().unwrap_or_default());
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            entries.retain(|_, entry| entry.until.is_some_and(|until| now < until));
            if entries.len() >= MAX_ENTRIES {
                return;
            }
        }
        let entry = entries.entry(key).or_default();
        if !entry.counts(how, tried) {
            return;
        }
        entry.struck = Some(tried);
        entry.refused |= how == Strike::Refused;
        entry.divided |= how == Strike::Divided;
        let counts = match how {
            Strike::Refused | Strike::Divided => ENOUGH,
            Strike::Vanished | Strike::Closed => 1,
        };
        entry.strikes += match unknown {
            Unknown::None => counts,
            Unknown::Before(strikes) => strikes + counts,
            Unknown::Beside(strikes) => strikes.max(counts),
        };
        if entry.strikes >= ENOUGH {
            entry.stays = entry.stays.saturating_add(1);
            entry.since = Some(now);
            entry.until = now.checked_add(stay(&program.unwrap_or_default(), entry.stays));
            entry.strikes = 0;
        }
    }

    /// A handshake that worked. In a stay it is one that had begun before.
    pub(super) fn forgive(&self, host: &str, program: Option<&str>, now: Instant) {
        let key = (host.to_owned(), program.unwrap_or_default().to_owned());
        let mut entries = self.lock();
        let stays = |entry: &Entry| entry.until.is_some_and(|until| now < until);
        if !entries.get(&key).is_some_and(stays) && entries.remove(&key).is_some() {
            self.changed();
        }
    }

    /// A client has spoken through our certificate, so its program has not refused it by leaving. `dialled`:
    /// until then. `None`: it can't be told who it is.
    pub(super) fn vouch(
        self: &Arc<Self>,
        host: &str,
        who: &Attribution,
        authority: &CertificateDer<'_>,
        dialled: Tried,
    ) -> Option<Voucher> {
        let process = process(host, who)?;
        let number = self.spoken().begin(process.clone(), authority, dialled, Instant::now())?;
        let key = (process.host.clone(), process.program.clone());
        let mut entries = self.lock();
        if !key.1.is_empty() && entries.get(&key).is_some_and(|e| !e.refused && !e.divided) {
            entries.remove(&key);
            self.changed();
        }
        drop(entries);
        Some(Voucher { bypass: Arc::clone(self), process, number })
    }

    /// Whether a client that left has only closed a connection that it did not need.
    pub(super) fn excuses(
        &self,
        host: &str,
        who: Option<&Attribution>,
        authority: &CertificateDer<'_>,
        how: Strike,
        tried: Tried,
    ) -> Excuse {
        match who.and_then(|who| process(host, who)) {
            Some(process) => self.spoken().excuses(&process, authority, how, tried, Instant::now()),
            None => Excuse::Stranger,
        }
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
                refused: entry.refused,
            })
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_unstable_by(|a, b| (&a.host, &a.program).cmp(&(&b.host, &b.program)));
        shown
    }

    /// Everybody may try again; how many entries there were.
    pub(super) fn clear(&self) -> usize {
        let cleared = std::mem::take(&mut *self.lock()).len();
        self.changed();
        cleared
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spoken(&self) -> MutexGuard<'_, Spoken> {
        self.spoken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn process(host: &str, who: &Attribution) -> Option<Process> {
    let program = who.program.clone().unwrap_or_default();
    Some(Process { host: host.to_owned(), pid: who.pid?, program })
}

/// One that was gone before it was looked up is taken for the one program that has broken off here
/// before, if there is one: of two tries of a client either may be known and the other not.
fn suspect(entries: &HashMap<Key, Entry>, host: &str) -> Option<String> {
    let known = entries.iter().filter(|((at, whose), _)| at == host && !whose.is_empty());
    let mut struck = known.filter(|(_, entry)| entry.strikes > 0).map(|((_, whose), _)| whose);
    let first = struck.next()?;
    struck.next().is_none().then(|| first.clone())
}

/// Strikes of somebody that nobody was known for.
#[derive(Clone, Copy, Debug)]
enum Unknown {
    None,
    Before(u32),
    /// Of the same burst.
    Beside(u32),
}

/// The other way round: strikes of a while ago that nobody was known for.
fn take_unknown(
    entries: &mut HashMap<Key, Entry>,
    host: &str,
    how: Strike,
    tried: Tried,
) -> Unknown {
    let Some(entry) = entries.get_mut(&(host.to_owned(), String::new())) else {
        return Unknown::None;
    };
    let strikes = std::mem::take(&mut entry.strikes);
    match entry.struck {
        Some(last) if tried.ended.saturating_duration_since(last.ended) < FIRST => {
            if entry.counts(how, tried) {
                Unknown::Before(strikes)
            } else {
                Unknown::Beside(strikes)
            }
        }
        Some(_) | None => Unknown::None,
    }
}

#[cfg(test)]
mod tests;
