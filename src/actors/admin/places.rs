//! Who is connected, and who goes when there are too many: never one of ours for a stranger.
//!
//! Any program of this machine can connect, say half a request and wait. Nobody waits for such a one: the
//! oldest of them makes room.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::sync::Notify;

/// Connections that have not been passed on.
const FRONT: usize = 256;
/// Connections that actix-http has.
const CONNECTIONS: usize = 256;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Stage {
    /// Has said nothing.
    Silent,
    /// Asked what our own processes ask, and is being answered.
    Ours,
    /// Asks for more, and has shown neither token nor session.
    Stranger,
    /// Has shown one.
    User,
}

#[derive(Debug)]
struct Entry {
    stage: Cell<Stage>,
    peer: Option<SocketAddr>,
    go: Notify,
}

#[derive(Debug, Default)]
pub(super) struct Places {
    /// In the order in which they came.
    all: RefCell<BTreeMap<u64, Rc<Entry>>>,
    next: Cell<u64>,
    left: Notify,
}

/// A connection's, for as long as it is there.
#[derive(Debug)]
pub(super) struct Place {
    places: Rc<Places>,
    number: u64,
    entry: Rc<Entry>,
}

/// How a request tells that its connection is the user's.
#[derive(Debug)]
pub(super) struct Shown(Rc<Entry>);

impl Places {
    pub(super) fn enter(self: &Rc<Self>, peer: Option<SocketAddr>) -> Place {
        self.make_room(FRONT, &[Stage::Silent, Stage::Ours]);
        let number = self.next.get();
        self.next.set(number + 1);
        let entry = Entry { stage: Cell::new(Stage::Silent), peer, go: Notify::new() };
        let entry = Rc::new(entry);
        self.all.borrow_mut().insert(number, Rc::clone(&entry));
        Place { places: Rc::clone(self), number, entry }
    }

    /// By the address that it comes from.
    pub(super) fn shown(&self, peer: SocketAddr) -> Option<Shown> {
        let all = self.all.borrow();
        all.values()
            .rev()
            .find(|entry| entry.peer == Some(peer))
            .map(|entry| Shown(Rc::clone(entry)))
    }

    pub(super) async fn empty(&self) {
        while !self.all.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    /// Whether there are fewer than `most` at these stages, or were made so: of those at the first of
    /// them, or else at the second, the oldest goes. The user's never do.
    fn make_room(&self, most: usize, stages: &[Stage]) -> bool {
        let mut all = self.all.borrow_mut();
        if all.values().filter(|entry| stages.contains(&entry.stage.get())).count() < most {
            return true;
        }
        let oldest = all
            .iter()
            .filter(|(_, e)| stages.contains(&e.stage.get()) && e.stage.get() != Stage::User)
            .min_by_key(|(number, entry)| (entry.stage.get(), **number))
            .map(|(number, _)| *number);
        let gone = oldest.and_then(|number| all.remove(&number));
        gone.inspect(|entry| entry.go.notify_one()).is_some()
    }
}

impl Place {
    /// It asked what our own processes ask.
    pub(super) fn is_ours(&self) {
        self.entry.stage.set(Stage::Ours);
    }

    /// It asks for more. `false`: the user has as many connections as there may be.
    pub(super) fn pass_on(&self) -> bool {
        let free = self.places.make_room(CONNECTIONS, &[Stage::Stranger, Stage::User]);
        if free {
            self.entry.stage.set(Stage::Stranger);
        }
        free
    }

    /// Comes when it has to go.
    pub(super) async fn gone(&self) {
        self.entry.go.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.all.borrow_mut().remove(&self.number);
        self.places.left.notify_one();
    }
}

impl Shown {
    pub(super) fn is_user(&self) {
        self.0.stage.set(Stage::User);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_there(place: &Place) -> bool {
        place.places.all.borrow().contains_key(&place.number)
    }

    #[test]
    fn the_oldest_silent_one_goes_first_and_our_question_last() {
        let places = Rc::new(Places::default());
        let ours = places.enter(None);
        ours.is_ours();
        let silent: Vec<_> = (0..FRONT + 44).map(|_| places.enter(None)).collect();
        assert!(is_there(&ours));
        let left = silent.iter().map(is_there).collect::<Vec<_>>();
        assert_eq!(left.iter().filter(|there| **there).count(), FRONT - 1);
        assert!(left.is_sorted(), "the oldest: {left:?}");
    }

    #[test]
    fn a_stranger_makes_room_and_the_user_does_not() {
        let places = Rc::new(Places::default());
        let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let user = places.enter(Some(peer));
        assert!(user.pass_on());
        places.shown(peer).unwrap().is_user();
        let strangers: Vec<_> = (0..CONNECTIONS + 44).map(|_| places.enter(None)).collect();
        assert!(strangers.iter().all(Place::pass_on));
        assert!(is_there(&user));
        assert_eq!(strangers.iter().filter(|place| is_there(place)).count(), CONNECTIONS - 1);
        assert!(!is_there(&strangers[0]) && is_there(&strangers[CONNECTIONS]));
        drop(strangers);
        let users: Vec<_> = (1..CONNECTIONS)
            .map(|n| {
                let peer = SocketAddr::from(([127, 0, 0, 2], u16::try_from(n).unwrap()));
                let place = places.enter(Some(peer));
                assert!(place.pass_on());
                places.shown(peer).unwrap().is_user();
                place
            })
            .collect();
        assert!(users.iter().all(is_there));
        assert!(!places.enter(None).pass_on(), "all are the user's");
    }
}
