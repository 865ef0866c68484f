//! Directories that do not answer: what is opened there may never come back (a server that is gone, a
//! question of macOS that nobody has answered).
//!
//! A thread that waits there can't be called back. It is given up, and while it waits no other goes
//! where it went. Pure: whose permit it is and what time it is are the caller's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::meter::attribution::Silent;

/// Threads that may wait in vain without holding a permit. Who is given up beyond that keeps his.
const MOST: usize = 4;

/// Who looks where. `P`: what allows a look.
#[derive(Debug)]
pub(super) struct Board<P> {
    looks: Vec<Look<P>>,
    tickets: u64,
    given_up: u64,
}

#[derive(Debug)]
struct Look<P> {
    ticket: u64,
    dir: PathBuf,
    since: Instant,
    /// It was given up, and what is not looked into while it waits.
    silent: Option<Silent>,
    permit: Option<P>,
}

/// What has become of a look that nobody has heard of for a while.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Overdue {
    /// Not yet: it has begun late, or not at all.
    In(Duration),
    GivenUp,
}

impl<P> Default for Board<P> {
    fn default() -> Self {
        Self { looks: Vec::new(), tickets: 0, given_up: 0 }
    }
}

impl<P> Board<P> {
    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Whether somebody waits there in vain.
    pub(super) fn is_silent(&self, dir: &Path) -> bool {
        self.silent().any(|silent| silent.covers(dir))
    }

    pub(super) fn begin(&mut self, ticket: u64, dir: &Path, permit: P, now: Instant) {
        let dir = dir.to_path_buf();
        self.looks.push(Look { ticket, dir, since: now, silent: None, permit: Some(permit) });
    }

    /// It has come back, however late: it is answered there.
    pub(super) fn end(&mut self, ticket: u64) {
        self.looks.retain(|look| look.ticket != ticket);
    }

    /// Gives a look up that has taken for longer than `patience`, and everything `around` with it.
    pub(super) fn give_up(
        &mut self,
        ticket: u64,
        patience: Duration,
        now: Instant,
        around: impl FnOnce(&Path) -> Silent,
    ) -> Overdue {
        let silent = self.silent().count();
        let Some(look) = self.looks.iter_mut().find(|look| look.ticket == ticket) else {
            return Overdue::In(patience);
        };
        let left = patience.saturating_sub(now.saturating_duration_since(look.since));
        if !left.is_zero() {
            return Overdue::In(left);
        }
        look.silent = Some(around(&look.dir));
        if silent < MOST {
            look.permit = None;
        }
        self.given_up += 1;
        Overdue::GivenUp
    }

    /// How many were given up, and what is silent now, each once.
    pub(super) fn snapshot(&self) -> (u64, Vec<PathBuf>) {
        let mut places: Vec<_> = self.silent().map(|silent| silent.place.clone()).collect();
        places.sort();
        places.dedup();
        (self.given_up, places)
    }

    fn silent(&self) -> impl Iterator<Item = &Silent> {
        self.looks.iter().filter_map(|look| look.silent.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[test]
    fn a_silent_place_is_left_alone_until_it_answers() {
        let (mut board, t0) = (Board::default(), Instant::now());
        let dir = Path::new("/mnt/nas/job");
        let mount = |_: &Path| Silent { place: PathBuf::from("/mnt/nas"), below: true };
        let ticket = board.ticket();
        assert_eq!(board.give_up(ticket, PATIENCE, t0, mount), Overdue::In(PATIENCE), "not begun");
        board.begin(ticket, dir, (), t0);
        let half = board.give_up(ticket, PATIENCE, t0 + PATIENCE / 2, mount);
        assert_eq!(half, Overdue::In(PATIENCE / 2));
        assert!(!board.is_silent(dir));
        assert_eq!(board.give_up(ticket, PATIENCE, t0 + PATIENCE, mount), Overdue::GivenUp);
        assert!(
            board.is_silent(Path::new("/mnt/nas/other")) && !board.is_silent(Path::new("/mnt"))
        );
        assert_eq!(board.snapshot(), (1, vec![PathBuf::from("/mnt/nas")]));
        board.end(ticket);
        assert!(!board.is_silent(dir));
        assert_eq!(board.snapshot(), (1, Vec::new()));
    }

    #[test]
    fn only_so_many_threads_may_wait() {
        let (mut board, t0, permits) = (Board::default(), Instant::now(), Rc::new(()));
        let mut free = Vec::new();
        for n in 0..MOST + 2 {
            let ticket = board.ticket();
            let dir = PathBuf::from(format!("/mnt/{n}"));
            board.begin(ticket, &dir, Rc::clone(&permits), t0);
            let alone = |dir: &Path| Silent { place: dir.to_path_buf(), below: false };
            board.give_up(ticket, PATIENCE, t0 + PATIENCE, alone);
            free.push(Rc::strong_count(&permits) == 1);
        }
        assert_eq!(free, [true, true, true, true, false, false]);
        board.end(MOST as u64 + 1);
        assert_eq!(Rc::strong_count(&permits), 2, "given back by the one that came back");
    }
}
