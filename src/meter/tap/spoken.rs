//! Which processes have spoken through our certificate. One of those that then closes a connection
//! without a word did not need it: Go and undici dial more often than they have requests, and a process
//! that ends takes its spare connections along. Who refuses us never says anything.
//!
//! By process, not by program: of two scripts of one interpreter one may know our CA and the other not,
//! and that one must not fail for ever because the first one works.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

/// How long it is remembered after the last of a process's connections.
const KEPT: Duration = Duration::from_secs(10 * 60);
const MAX_PROCESSES: usize = 512;
/// So many ends without a word, and no connection in between that was spoken on, are not spare ones any
/// more: part of the program may have roots of its own.
const MOST_EXCUSED: u32 = 16;

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Process {
    pub host: String,
    pub pid: u32,
    /// A number may be given to another program later.
    pub program: String,
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
    excused: u32,
}

impl Proof {
    fn holds(&self, now: Instant) -> bool {
        self.open > 0 || now.saturating_duration_since(self.last) < KEPT
    }
}

impl Spoken {
    /// A connection was spoken on; its end is to be told with the number. `None`: there is no room.
    pub(super) fn begin(
        &mut self,
        process: Process,
        authority: &CertificateDer<'_>,
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
        let proof = Proof { open: 0, last: now, excused: 0 };
        let proof = self.processes.entry(process).or_insert(proof);
        proof.open += 1;
        (proof.last, proof.excused) = (now, 0);
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

    /// Whether an end without a word says nothing of our certificate.
    pub(super) fn excuses(
        &mut self,
        process: &Process,
        authority: &CertificateDer<'_>,
        now: Instant,
    ) -> bool {
        if self.authority.as_ref() != Some(authority) {
            return false;
        }
        let proof = self.processes.get_mut(process).filter(|proof| proof.holds(now));
        proof.is_some_and(|proof| {
            let excused = proof.excused < MOST_EXCUSED;
            proof.excused += u32::from(excused);
            excused
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CA: CertificateDer<'_> = der(b"one");
    const NEXT: CertificateDer<'_> = der(b"another");

    const fn der(bytes: &'static [u8]) -> CertificateDer<'static> {
        CertificateDer::from_slice(bytes)
    }

    fn process(pid: u32) -> Process {
        Process { host: "h".to_owned(), pid, program: "node".to_owned() }
    }

    #[test]
    fn who_has_spoken_is_excused_while_it_does_and_for_a_while_after() {
        let mut spoken = Spoken::default();
        let start = Instant::now();
        assert!(!spoken.excuses(&process(1), &CA, start), "it has said nothing yet");
        let number = spoken.begin(process(1), &CA, start).unwrap();
        assert!(spoken.excuses(&process(1), &CA, start + KEPT * 9), "still open");
        spoken.end(&process(1), number, start + KEPT * 9);
        assert!(spoken.excuses(&process(1), &CA, start + KEPT * 10 - Duration::from_millis(1)));
        assert!(!spoken.excuses(&process(1), &CA, start + KEPT * 10));
    }

    #[test]
    fn other_processes_hosts_and_authorities_have_to_speak_for_themselves() {
        let mut spoken = Spoken::default();
        let now = Instant::now();
        let number = spoken.begin(process(1), &CA, now).unwrap();
        assert!(!spoken.excuses(&process(2), &CA, now), "another script of that interpreter");
        assert!(!spoken.excuses(&Process { host: "i".to_owned(), ..process(1) }, &CA, now));
        assert!(!spoken.excuses(&Process { program: "bun".to_owned(), ..process(1) }, &CA, now));
        assert!(!spoken.excuses(&process(1), &NEXT, now), "it has not seen that one");
        spoken.begin(process(2), &NEXT, now).unwrap();
        assert!(!spoken.excuses(&process(1), &NEXT, now));
        // The end of a connection of before is not that of a new one.
        spoken.begin(process(1), &NEXT, now).unwrap();
        spoken.end(&process(1), number, now);
        assert!(spoken.excuses(&process(1), &NEXT, now + KEPT));
    }

    #[test]
    fn part_of_a_program_may_refuse_us_and_is_believed_in_the_end() {
        let mut spoken = Spoken::default();
        let now = Instant::now();
        for _ in 0..2 {
            spoken.begin(process(1), &CA, now).unwrap();
            for spare in 0..=MOST_EXCUSED {
                let excused = spoken.excuses(&process(1), &CA, now);
                assert_eq!(excused, spare < MOST_EXCUSED, "{spare}");
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut spoken = Spoken::default();
        let now = Instant::now();
        let bound = u32::try_from(MAX_PROCESSES).unwrap();
        for pid in 0..3 * bound {
            let number = spoken.begin(process(pid), &CA, now).unwrap();
            spoken.end(&process(pid), number, now + Duration::from_secs(u64::from(pid)));
        }
        assert_eq!(spoken.processes.len(), MAX_PROCESSES);
        assert!(spoken.excuses(&process(3 * bound - 1), &CA, now));
        assert!(!spoken.excuses(&process(0), &CA, now), "the oldest made room");
        let mut spoken = Spoken::default();
        for pid in 0..bound {
            spoken.begin(process(pid), &CA, now).unwrap();
        }
        assert_eq!(spoken.begin(process(bound), &CA, now + KEPT), None, "all are in use");
        assert!(spoken.begin(process(0), &CA, now).is_some());
    }

    proptest! {
        /// Against a list of all that has happened.
        #[test]
        fn excused_is_who_has_one_open_or_has_had_it_lately(
            steps in proptest::collection::vec((0u32..3, 0u8..3, 0u32..400), 0..60),
        ) {
            let mut spoken = Spoken::default();
            let mut now = Instant::now();
            let mut open: Vec<(u32, u64)> = Vec::new();
            let mut last: HashMap<u32, Instant> = HashMap::new();
            for (pid, step, wait) in steps {
                now += Duration::from_secs(u64::from(wait));
                match step {
                    0 => {
                        open.push((pid, spoken.begin(process(pid), &CA, now).unwrap()));
                        last.insert(pid, now);
                    }
                    1 => if let Some(at) = open.iter().position(|(whose, _)| *whose == pid) {
                        spoken.end(&process(pid), open.remove(at).1, now);
                        last.insert(pid, now);
                    },
                    _ => {}
                }
                for pid in 0..3 {
                    // Not what is counted here.
                    spoken.processes.values_mut().for_each(|proof| proof.excused = 0);
                    let lately = last.get(&pid).is_some_and(|at| now.duration_since(*at) < KEPT);
                    let expected = lately || open.iter().any(|(whose, _)| *whose == pid);
                    prop_assert_eq!(spoken.excuses(&process(pid), &CA, now), expected);
                }
            }
        }
    }
}
