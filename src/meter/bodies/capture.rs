//! What is held of one exchange's bodies until it is over: bounded, and forgotten when there is no
//! room for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Held behind the cap, so that a secret on the border is known as one.
pub const MARGIN: usize = 16 * 1024;
/// Room is taken in pieces of this size.
const PIECE: usize = 16 * 1024;

/// Memory for all bodies that are in hand or wait for the disk.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    limit: usize,
    /// Exchanges whose bodies found none.
    refused: AtomicU64,
}

impl Room {
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit, refused: AtomicU64::new(0) })
    }

    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, amount: usize) -> bool {
        let before = self.used.fetch_add(amount, Ordering::AcqRel);
        let fits = before.saturating_add(amount) <= self.limit;
        if !fits {
            self.used.fetch_sub(amount, Ordering::AcqRel);
        }
        fits
    }
}

/// One body as it came, decoded.
#[derive(Debug, Default)]
pub struct Body {
    /// At most the cap and [`MARGIN`].
    pub held: Vec<u8>,
    /// Decoded bytes that came.
    pub bytes: u64,
    /// Why not all of it could be read.
    pub unread: Option<String>,
    /// Its end came.
    pub whole: bool,
}

/// The bodies of one exchange.
#[derive(Debug)]
pub struct Capture {
    pub request: Body,
    pub response: Body,
    cap: usize,
    room: Arc<Room>,
    taken: usize,
    given_up: bool,
}

impl Capture {
    /// `cap`: how much of each body is wanted.
    #[must_use]
    pub fn new(cap: usize, room: Arc<Room>) -> Self {
        Self {
            request: Body::default(),
            response: Body::default(),
            cap,
            room,
            taken: 0,
            given_up: false,
        }
    }

    /// An empty one on the same terms.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(self.cap, Arc::clone(&self.room))
    }

    /// Nothing came.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.request.bytes == 0 && self.response.bytes == 0
    }

    #[must_use]
    pub const fn cap(&self) -> usize {
        self.cap
    }

    /// There was no room: nothing of it is kept.
    #[must_use]
    pub const fn is_given_up(&self) -> bool {
        self.given_up
    }

    pub fn request(&mut self, plain: &[u8]) {
        self.push(|capture| &mut capture.request, plain);
    }

    pub fn response(&mut self, plain: &[u8]) {
        self.push(|capture| &mut capture.response, plain);
    }

    fn push(&mut self, body: fn(&mut Self) -> &mut Body, plain: &[u8]) {
        let most = self.cap.saturating_add(MARGIN);
        let of = body(self);
        of.bytes = of.bytes.saturating_add(plain.len() as u64);
        let fits = plain.len().min(most.saturating_sub(of.held.len()));
        if fits == 0 || self.given_up || !self.reserve(fits) {
            return;
        }
        body(self).held.extend_from_slice(plain.get(..fits).unwrap_or_default());
    }

    fn reserve(&mut self, more: usize) -> bool {
        let needed = self.request.held.len() + self.response.held.len() + more;
        while self.taken < needed {
            if !self.room.take(PIECE) {
                self.room.refused.fetch_add(1, Ordering::Relaxed);
                self.given_up = true;
                (self.request.held, self.response.held) = (Vec::new(), Vec::new());
                self.give_back();
                return false;
            }
            self.taken += PIECE;
        }
        true
    }

    fn give_back(&mut self) {
        self.room.used.fetch_sub(std::mem::take(&mut self.taken), Ordering::AcqRel);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_bounds_what_is_held_and_the_rest_is_counted() {
        let room = Room::new(1 << 20);
        let mut capture = Capture::new(10, Arc::clone(&room));
        capture.request(&vec![b'a'; 10 + MARGIN + 5]);
        capture.request(b"more");
        capture.response(b"short");
        assert_eq!(capture.request.held.len(), 10 + MARGIN);
        assert_eq!(capture.request.bytes, (10 + MARGIN + 9) as u64);
        assert_eq!(capture.response.held, b"short");
        assert!(room.used.load(Ordering::Relaxed) >= 10 + MARGIN + 5);
        drop(capture);
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn without_room_it_is_given_up_whole_and_counted_once() {
        let room = Room::new(PIECE * 2);
        let mut first = Capture::new(1 << 20, Arc::clone(&room));
        first.request(&[0; PIECE]);
        let mut second = Capture::new(1 << 20, Arc::clone(&room));
        second.request(b"x");
        first.response(b"y");
        first.response(b"z");
        assert!(first.is_given_up() && first.request.held.is_empty());
        assert_eq!(room.refused(), 1);
        second.response(b"there is room again");
        assert!(!second.is_given_up());
        drop((first, second));
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
    }
}
