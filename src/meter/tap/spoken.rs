//! Which processes have spoken through our certificate. One of those that then closes a connection
//! without a word did not need it: Go and undici dial more often than they have requests, and a process
//! that ends takes its spare connections along. Who refuses us often says nothing either (Node, Java).
//!
//! By process, not by program: of two scripts of one interpreter one may know our CA and the other not,
//! and that one must not fail for ever because the first one works. Part of a process may have roots of its
//! own, too, so not every end is excused. Who has finished the handshake and ends in order has accepted us:
//! Go, Ruby and Java close their spare connections so. Who breaks off may have refused us, or has given up
//! while it dialled, which it does beside other dials; or in the place of a connection that went with an
//! answer that it aborted: undici dials anew at once, and finds that nobody waits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::bypass::{Strike, Tried};

/// How long it is remembered after the last of a process's connections.
const KEPT: Duration = Duration::from_secs(10 * 60);
const MAX_PROCESSES: usize = 512;
/// So many ends in order, and no connection in between that was spoken on, are not spare ones any more.
const MOST_CLOSED: u32 = 16;
/// So many others in an hour: of all, and of those that had no other dial beside them. Longer than a first
/// stay on the list, so that who comes back from it does not begin anew.
const MOST_BROKEN: usize = 16;
const MOST_ALONE: usize = 2;
const REMEMBERED: Duration = Duration::from_secs(3600);
/// So soon after an abort the next dial takes the place of the connection that it has cost.
const REPLACED: Duration = Duration::from_secs(2);
const MAX_ABORTS: usize = 64;

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Process {
    pub host: String,
    pub pid: u32,
    /// A number may be given to another program later.
    pub program: String,
}

/// What an end without a word says of our certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Excuse {
    /// Nothing: the process has accepted it.
    Spare,
    /// What it would say of anybody.
    Stranger,
    /// Part of the process has accepted it, and part has not.
    Divided,
}

#[derive(Debug, Default)]
pub(super) struct Spoken {
    /// What they have accepted, and how many others came before it.
    authority: Option<CertificateDer<'static>>,
    changes: u64,
    processes: HashMap<Process, Proof>,
}

#[derive(Debug)]
struct Proof {
    /// Connections that were spoken on and have not ended.
    open: usize,
    last: Instant,
    /// The last of them until it was spoken on.
    dialled: Tried,
    closed: u32,
    /// The first of each burst.
    broken: Vec<Broken>,
    /// When answers were aborted that cost their connections, which no dial has replaced yet.
    aborts: Vec<Instant>,
}

/// A connection that was broken off.
#[derive(Debug)]
struct Broken {
    tried: Tried,
    alone: bool,
}

impl Proof {
    fn holds(&self, now: Instant) -> bool {
        self.open > 0 || now.saturating_duration_since(self.last) < KEPT
    }

    fn speaks(&mut self, dialled: Tried, now: Instant) {
        self.open += 1;
        (self.last, self.dialled, self.closed) = (now, dialled, 0);
        // It may have been spoken on later than the other was broken off.
        for broken in &mut self.broken {
            broken.alone &= !broken.tried.beside(dialled);
        }
        self.replaces(dialled);
    }

    /// One dial for each: a second one has reasons of its own.
    fn replaces(&mut self, dial: Tried) -> bool {
        self.aborts.retain(|at| dial.began.saturating_duration_since(*at) < REPLACED);
        // The client may dial before we hear of the end.
        let found = self.aborts.iter().position(|at| *at < dial.ended);
        found.map(|at| self.aborts.remove(at)).is_some()
    }

    fn aborts(&mut self, at: Instant) {
        let replaced = |broken: &Broken| {
            at < broken.tried.ended && broken.tried.began.saturating_duration_since(at) < REPLACED
        };
        // What came of it may have been heard of before.
        if let Some(dial) = self.broken.iter().position(replaced) {
            self.broken.remove(dial);
        } else if self.aborts.len() < MAX_ABORTS {
            self.aborts.push(at);
        }
    }

    fn closes(&mut self) -> Excuse {
        if self.closed >= MOST_CLOSED {
            return Excuse::Stranger;
        }
        self.closed += 1;
        Excuse::Spare
    }

    fn breaks_off(&mut self, tried: Tried, now: Instant) -> Excuse {
        self.broken.retain(|broken| now.saturating_duration_since(broken.tried.ended) < REMEMBERED);
        if self.broken.iter().any(|broken| broken.tried.beside(tried)) {
            return Excuse::Spare;
        }
        let alone = !self.dialled.beside(tried);
        let most_alone = self.broken.iter().filter(|broken| broken.alone).count() >= MOST_ALONE;
        if self.broken.len() >= MOST_BROKEN || (alone && most_alone) {
            return Excuse::Divided;
        }
        self.broken.push(Broken { tried, alone });
        Excuse::Spare
    }
}

impl Spoken {
    /// A connection was spoken on; its end is to be told with the number. `None`: there is no room.
    pub(super) fn begin(
        &mut self,
        process: Process,
        authority: &CertificateDer<'_>,
        dialled: Tried,
        now: Instant,
    ) -> Option<u64> {
        if self.authority.as_ref() != Some(authority) {
            self.authority = Some(authority.clone().into_owned());
            self.changes += 1;
            self.processes.clear();
        }
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&process) {
            self.processes.retain(|_, proof| proof.holds(now));
            if self.processes.len() >= MAX_PROCESSES {
                let closed = self.processes.iter().filter(|(_, proof)| proof.open == 0);
                let oldest = closed.min_by_key(|(_, proof)| proof.last)?.0.clone();
                self.processes.remove(&oldest);
            }
        }
        let new = Proof {
            open: 0,
            last: now,
            dialled,
            closed: 0,
            broken: Vec::new(),
            aborts: Vec::new(),
        };
        self.processes.entry(process).or_insert(new).speaks(dialled, now);
        Some(self.changes)
    }

    pub(super) fn end(&mut self, process: &Process, number: u64, now: Instant) {
        if number != self.changes {
            return;
        }
        if let Some(proof) = self.processes.get_mut(process) {
            proof.open = proof.open.saturating_sub(1);
            proof.last = now;
        }
    }

    /// A connection that was spoken on went with an answer that its client aborted.
    pub(super) fn abort(&mut self, process: &Process, number: u64, at: Instant) {
        if number != self.changes {
            return;
        }
        if let Some(proof) = self.processes.get_mut(process) {
            proof.aborts(at);
        }
    }

    /// What the end of a connection says that was not spoken on.
    pub(super) fn excuses(
        &mut self,
        process: &Process,
        authority: &CertificateDer<'_>,
        how: Strike,
        tried: Tried,
        now: Instant,
    ) -> Excuse {
        if self.authority.as_ref() != Some(authority) {
            return Excuse::Stranger;
        }
        let Some(proof) = self.processes.get_mut(process).filter(|proof| proof.holds(now)) else {
            return Excuse::Stranger;
        };
        match how {
            Strike::Refused | Strike::Divided => Excuse::Stranger,
            Strike::Closed | Strike::Vanished if proof.replaces(tried) => Excuse::Spare,
            Strike::Closed => proof.closes(),
            Strike::Vanished => proof.breaks_off(tried, now),
        }
    }
}

#[cfg(test)]
mod tests;
