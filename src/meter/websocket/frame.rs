//! WebSocket frames of one direction (RFC 6455 section 5), read piecewise and unmasked.

use super::BadFrames;

/// Unmasked at a time; a payload may be gigabytes.
const PIECE: usize = 16 * 1024;
/// First bytes, extended length, masking key.
const MAX_HEAD: usize = 2 + 8 + 4;
const MAX_CONTROL: u64 = 125;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Opcode {
    pub(super) const fn is_control(self) -> bool {
        match self {
            Self::Close | Self::Ping | Self::Pong => true,
            Self::Continuation | Self::Text | Self::Binary => false,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) opcode: Opcode,
    /// The last frame of its message.
    pub(super) last: bool,
    pub(super) compressed: bool,
}

/// What the reader saw, in this order for each frame; as many payloads as it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Part<'a> {
    Start(Head),
    Payload(&'a [u8]),
    End,
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; MAX_HEAD],
    filled: usize,
    /// Payload bytes still to come of the frame that is being read.
    left: Option<u64>,
    mask: Option<[u8; 4]>,
    /// Where in the mask the next byte is.
    turn: usize,
    plain: Vec<u8>,
}

impl Frames {
    pub(super) const fn new() -> Self {
        Self { head: [0; MAX_HEAD], filled: 0, left: None, mask: None, turn: 0, plain: Vec::new() }
    }

    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        each: &mut dyn FnMut(Part<'_>) -> Result<(), BadFrames>,
    ) -> Result<(), BadFrames> {
        while !bytes.is_empty() {
            bytes = match self.left {
                None => self.take_head(bytes, each)?,
                Some(left) => self.take_payload(left, bytes, each)?,
            };
        }
        Ok(())
    }

    fn take_head<'b>(
        &mut self,
        bytes: &'b [u8],
        each: &mut dyn FnMut(Part<'_>) -> Result<(), BadFrames>,
    ) -> Result<&'b [u8], BadFrames> {
        let need = self.need();
        let room = self.head.get_mut(self.filled..need).unwrap_or_default();
        let n = room.len().min(bytes.len());
        let (now, rest) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
        room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        self.filled += n;
        // Two bytes tell how many more there are.
        if self.filled < self.need() {
            return Ok(rest);
        }
        self.filled = 0;
        let (head, length) = self.parse()?;
        each(Part::Start(head))?;
        self.go_on(length, each)?;
        Ok(rest)
    }

    fn need(&self) -> usize {
        if self.filled < 2 {
            return 2;
        }
        let [_, second, ..] = self.head;
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + length + if second & 0x80 == 0 { 0 } else { 4 }
    }

    fn parse(&mut self) -> Result<(Head, u64), BadFrames> {
        let [first, second, a, b, c, d, e, f, g, h, i, j, k, l] = self.head;
        let (length, mask) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes([a, b])), [c, d, e, f]),
            127 => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), [i, j, k, l]),
            short => (u64::from(short), [a, b, c, d]),
        };
        // Who masks and who does not is for the peers to judge.
        self.mask = (second & 0x80 != 0).then_some(mask);
        self.turn = 0;
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(BadFrames),
        };
        let head = Head { opcode, last: first & 0x80 != 0, compressed: first & 0x40 != 0 };
        let control_is_odd =
            opcode.is_control() && (!head.last || head.compressed || length > MAX_CONTROL);
        if first & 0x30 != 0 || control_is_odd || length > i64::MAX as u64 {
            return Err(BadFrames);
        }
        Ok((head, length))
    }

    fn take_payload<'b>(
        &mut self,
        left: u64,
        bytes: &'b [u8],
        each: &mut dyn FnMut(Part<'_>) -> Result<(), BadFrames>,
    ) -> Result<&'b [u8], BadFrames> {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
        let (now, rest) = bytes.split_at_checked(want).unwrap_or((bytes, &[]));
        match self.mask {
            None => each(Part::Payload(now))?,
            Some(mut key) => {
                key.rotate_left(self.turn);
                self.plain.clear();
                self.plain.extend_from_slice(now);
                unmask(&mut self.plain, key);
                self.turn = (self.turn + now.len()) % 4;
                each(Part::Payload(&self.plain))?;
            }
        }
        self.go_on(left - now.len() as u64, each)?;
        Ok(rest)
    }

    fn go_on(
        &mut self,
        left: u64,
        each: &mut dyn FnMut(Part<'_>) -> Result<(), BadFrames>,
    ) -> Result<(), BadFrames> {
        self.left = (left > 0).then_some(left);
        if left == 0 { each(Part::End) } else { Ok(()) }
    }
}

/// Four bytes at once, of which the compiler makes many: a request may be megabytes.
fn unmask(bytes: &mut [u8], key: [u8; 4]) {
    let whole = u32::from_ne_bytes(key);
    let (fours, rest) = bytes.as_chunks_mut::<4>();
    for four in fours {
        *four = (u32::from_ne_bytes(*four) ^ whole).to_ne_bytes();
    }
    rest.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
}
