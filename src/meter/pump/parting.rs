//! The one thing that is ever said to a client that its server did not say: an HTTP/2 GOAWAY, so that
//! the next requests go to another connection while those that are under way end on this one. It goes
//! between two of the server's frames or not at all.

/// No error, and every stream that the client has opened, or has not heard this in time to leave, is
/// still answered (RFC 9113, 6.8).
pub(super) const GOAWAY: [u8; 17] =
    [0, 0, 8, GO_AWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const HEAD: usize = 9;

/// Kept small, as each connection has it: where the server's bytes are, and how much of the GOAWAY is said.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parting {
    frames: Frames,
    wish: Wish,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Wish {
    #[default]
    None,
    Wanted,
    /// So many bytes are out; the rest follows before anything else.
    Said(u8),
}

impl Parting {
    /// `h2`: what both sides have agreed on, and nothing was passed yet.
    pub(super) fn new(h2: bool) -> Self {
        let place = if h2 { Place::Head { seen: [0; HEAD], filled: 0 } } else { Place::Unknown };
        Self { frames: Frames { place, ..Frames::default() }, wish: Wish::None }
    }

    /// The server's next bytes went to the client.
    pub(super) fn passed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.frames.place != Place::Unknown {
            bytes = bytes.get(self.frames.step(bytes)..).unwrap_or_default();
        }
    }

    /// To be said once, where there is room.
    pub(super) fn want(&mut self) {
        if self.wish == Wish::None {
            self.wish = Wish::Wanted;
        }
    }

    /// Of no use any more, unless it has begun.
    pub(super) fn forget(&mut self) {
        if self.wish == Wish::Wanted {
            self.wish = Wish::None;
        }
    }

    /// What must be written to the client now, before any more of the server's bytes.
    pub(super) fn due(&self) -> &'static [u8] {
        let said = match self.wish {
            Wish::None => return &[],
            Wish::Wanted if self.frames.has_room() => 0,
            Wish::Wanted => return &[],
            Wish::Said(said) => said,
        };
        GOAWAY.get(usize::from(said)..).unwrap_or_default()
    }

    /// So many bytes of what was due are written.
    pub(super) fn said(&mut self, bytes: usize) {
        let bytes = u8::try_from(bytes).unwrap_or(u8::MAX);
        self.wish = match self.wish {
            Wish::None | Wish::Wanted => Wish::Said(bytes),
            Wish::Said(said) => Wish::Said(said.saturating_add(bytes)),
        };
    }

    /// How many of the server's next bytes may go before something is due; never none of some.
    pub(super) fn reach(&self, bytes: &[u8]) -> usize {
        if self.wish != Wish::Wanted {
            return bytes.len();
        }
        let mut frames = self.frames;
        let mut reach = 0;
        while let Some(rest @ [_, ..]) = bytes.get(reach..)
            && frames.place != Place::Unknown
        {
            reach += frames.step(rest);
            if frames.has_room() {
                return reach;
            }
        }
        bytes.len()
    }
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

    /// Takes some of non-empty `bytes`, up to the end of a head or of a frame at most; how many.
    fn step(&mut self, bytes: &[u8]) -> usize {
        match &mut self.place {
            Place::Unknown => bytes.len(),
            Place::Head { seen, filled } => {
                let room = seen.get_mut(usize::from(*filled)..).unwrap_or_default();
                let taken = room.len().min(bytes.len());
                for (to, from) in room.iter_mut().zip(bytes) {
                    *to = *from;
                }
                *filled = filled.saturating_add(u8::try_from(taken).unwrap_or(u8::MAX));
                if usize::from(*filled) >= HEAD {
                    let head = *seen;
                    self.place = self.behind(head).unwrap_or(Place::Unknown);
                }
                taken
            }
            Place::Payload { left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left = left.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
                if *left == 0 {
                    self.place = Self::START;
                }
                taken
            }
        }
    }

    /// What comes behind this head. `None`: it is none.
    fn behind(&mut self, head: [u8; HEAD]) -> Option<Place> {
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
        Some(match length {
            0 => Self::START,
            left => Place::Payload { left },
        })
    }
}

#[cfg(test)]
mod tests;
