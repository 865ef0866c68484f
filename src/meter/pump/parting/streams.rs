//! Which streams of a connection of HTTP/2 are open, by the heads of the frames alone.

use super::{DATA, END_STREAM, HEADERS, Head, PUSH_PROMISE, RST_STREAM};
use crate::meter::http::Side;

/// More at once are not counted.
const MOST: usize = 1024;

#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    open: Vec<Open>,
    /// The client's last.
    last: u32,
    /// Not all are known: too many, or the server opens some itself.
    lost: bool,
}

/// Neither side has broken it off, and one at least has not ended.
#[derive(Clone, Copy, Debug)]
struct Open {
    stream: u32,
    ended: Option<Side>,
}

impl Streams {
    pub(super) fn last(&self) -> u32 {
        self.last
    }

    /// There were some, and all have ended.
    pub(super) fn are_over(&self) -> bool {
        self.last != 0 && self.open.is_empty() && !self.lost
    }

    pub(super) fn note(&mut self, side: Side, head: Head) {
        let Head { kind, flags, stream } = head;
        match (kind, side) {
            (HEADERS, Side::Client) if stream > self.last => {
                self.last = stream;
                self.lost |= self.open.len() >= MOST;
                if !self.lost {
                    self.open.push(Open { stream, ended: None });
                }
            }
            (PUSH_PROMISE, _) => self.lost = true,
            (RST_STREAM, _) => self.open.retain(|open| open.stream != stream),
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.end(side, stream);
        }
    }

    fn end(&mut self, side: Side, stream: u32) {
        let Some(at) = self.open.iter().position(|open| open.stream == stream) else { return };
        match self.open.get_mut(at) {
            Some(Open { ended: Some(other), .. }) if *other != side => {
                self.open.swap_remove(at);
            }
            Some(open) => open.ended = Some(side),
            None => {}
        }
    }
}
