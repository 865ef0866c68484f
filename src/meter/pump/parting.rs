//! The one thing that is ever said to a client that its server did not say: an HTTP/2 GOAWAY, so that
//! the next requests go to another connection. It goes between two of the server's frames or not at all.
//! Best where no stream is open: it then names the last one, and nothing of a later one reaches the server.

mod streams;

use crate::meter::http::Side;
use streams::Streams;

/// Every stream that the client has opened, or has not heard this in time to leave, is still answered
/// (RFC 9113, 6.8).
const ALL: u32 = 0x7fff_ffff;
/// The length of a GOAWAY without a text.
const LENGTH: u8 = 17;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const HEAD: usize = 9;
/// What a client says before its first frame.
const PREFACE: u32 = 24;

/// Where the bytes of both are, and how much of the GOAWAY is said.
#[derive(Clone, Debug, Default)]
pub(super) struct Parting {
    down: Frames,
    up: Frames,
    streams: Streams,
    /// The client may go where no stream is open.
    leaving: bool,
    wish: Wish,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Wish {
    #[default]
    None,
    Wanted,
    Said(Word),
}

/// A GOAWAY without an error: so many of its bytes are out, the rest follows before anything else.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Word {
    last: u32,
    said: u8,
}

impl Word {
    fn new(last: u32) -> Self {
        Self { last, said: 0 }
    }

    pub(super) fn has_begun(self) -> bool {
        self.said > 0
    }

    pub(super) fn frame(self) -> [u8; LENGTH as usize] {
        let [a, b, c, d] = self.last.to_be_bytes();
        [0, 0, 8, GO_AWAY, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0]
    }

    /// What is still to be said of it.
    pub(super) fn rest(self, frame: &[u8; LENGTH as usize]) -> &[u8] {
        frame.get(usize::from(self.said)..).unwrap_or_default()
    }
}

impl Parting {
    /// HTTP/2 is what both sides have agreed on, and nothing was passed yet.
    pub(super) fn new() -> Self {
        Self {
            down: Frames { place: Frames::START, ..Frames::default() },
            up: Frames { place: Place::Payload { left: PREFACE }, ..Frames::default() },
            ..Self::default()
        }
    }

    /// Bytes of this side went to the other.
    pub(super) fn passed(&mut self, side: Side, mut bytes: &[u8]) {
        let frames = match side {
            Side::Client => &mut self.up,
            Side::Server => &mut self.down,
        };
        while !bytes.is_empty() && frames.place != Place::Unknown {
            let (taken, head) = frames.step(bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if let Some(head) = head {
                self.streams.note(side, head);
            }
        }
    }

    /// From now on it is said where no stream is open.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    /// To be said once, where there is room, whatever is open.
    pub(super) fn want(&mut self) {
        if self.wish == Wish::None {
            self.wish = Wish::Wanted;
        }
    }

    /// Of no use any more, unless it has begun.
    pub(super) fn forget(&mut self) {
        self.leaving = false;
        if self.wish == Wish::Wanted {
            self.wish = Wish::None;
        }
    }

    /// What must be said to the client now, before any more of the server's bytes.
    pub(super) fn due(&self) -> Option<Word> {
        match self.wish {
            Wish::Said(word) => Some(word).filter(|word| word.said < LENGTH),
            Wish::None | Wish::Wanted if !self.down.has_room() => None,
            Wish::None | Wish::Wanted if self.is_in_a_gap() => Some(Word::new(self.streams.last())),
            Wish::None => None,
            Wish::Wanted => Some(Word::new(ALL)),
        }
    }

    /// So many bytes of what was due are written.
    pub(super) fn said(&mut self, bytes: usize) {
        if let Some(word) = self.due() {
            let bytes = u8::try_from(bytes).unwrap_or(u8::MAX);
            self.wish = Wish::Said(Word { said: word.said.saturating_add(bytes), ..word });
        }
    }

    /// The client was told, or is being told, that later streams than those it had are not heard.
    pub(super) fn has_closed(&self) -> bool {
        matches!(self.wish, Wish::Said(word) if word.last != ALL)
    }

    /// A frame of the client's that has begun may be the head of a stream.
    fn is_in_a_gap(&self) -> bool {
        self.leaving && self.streams.are_over() && self.up.has_room()
    }

    /// How many of the server's next bytes may go before something is due; never none of some.
    pub(super) fn reach(&self, bytes: &[u8]) -> usize {
        if self.wish != Wish::Wanted {
            return bytes.len();
        }
        let mut frames = self.down;
        let mut reach = 0;
        while let Some(rest @ [_, ..]) = bytes.get(reach..)
            && frames.place != Place::Unknown
        {
            reach += frames.step(rest).0;
            if frames.has_room() {
                return reach;
            }
        }
        bytes.len()
    }
}

/// What a frame is, and whose.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Counts the frames of one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Frames {
    place: Place,
    /// Its SETTINGS, which come first, have begun.
    greeted: bool,
    /// The stream of a header block that goes on in the next frame.
    block: Option<u32>,
    /// It has said goodbye itself: a later word must not take that back.
    leaves: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Place {
    /// Not HTTP/2, or nothing that makes sense as such. For good.
    #[default]
    Unknown,
    Head {
        seen: [u8; HEAD],
        filled: u8,
    },
    Payload {
        left: u32,
    },
}

impl Frames {
    const START: Place = Place::Head { seen: [0; HEAD], filled: 0 };

    fn has_room(&self) -> bool {
        self.place == Self::START && self.greeted && self.block.is_none() && !self.leaves
    }

    /// Takes some of non-empty `bytes`, up to the end of a head or of a frame at most; how many, and the
    /// head that has ended.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Head>) {
        match &mut self.place {
            Place::Unknown => (bytes.len(), None),
            Place::Head { seen, filled } => {
                let room = seen.get_mut(usize::from(*filled)..).unwrap_or_default();
                let taken = room.len().min(bytes.len());
                for (to, from) in room.iter_mut().zip(bytes) {
                    *to = *from;
                }
                *filled = filled.saturating_add(u8::try_from(taken).unwrap_or(u8::MAX));
                if usize::from(*filled) < HEAD {
                    return (taken, None);
                }
                let head = *seen;
                let behind = self.behind(head);
                self.place = behind.map_or(Place::Unknown, |(_, place)| place);
                (taken, behind.map(|(head, _)| head))
            }
            Place::Payload { left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                if *left == 0 {
                    self.place = Self::START;
                }
                (taken, None)
            }
        }
    }

    /// What comes behind this head. `None`: it is none.
    fn behind(&mut self, head: [u8; HEAD]) -> Option<(Head, Place)> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = head;
        let length = u32::from_be_bytes([0, l2, l1, l0]);
        let stream = u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]);
        if !self.greeted
            && (kind != SETTINGS || flags & ACK != 0 || stream != 0 || !length.is_multiple_of(6))
        {
            return None;
        }
        self.greeted = true;
        self.block = match (self.block, kind) {
            (None, HEADERS | PUSH_PROMISE) => (flags & END_HEADERS == 0).then_some(stream),
            (None, CONTINUATION) => return None,
            (None, _) => None,
            (Some(block), CONTINUATION) if block == stream => {
                (flags & END_HEADERS == 0).then_some(stream)
            }
            (Some(_), _) => return None,
        };
        self.leaves |= kind == GO_AWAY;
        let place = match length {
            0 => Self::START,
            left => Place::Payload { left },
        };
        Some((Head { kind, flags, stream }, place))
    }
}

#[cfg(test)]
mod tests;
