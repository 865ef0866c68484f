//! The gzip wrapper (RFC 1952) around deflate: header, checksum, several members in a row.

use flate2::{Crc, Decompress};

use super::{Error, Progress, inflate_step};

const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;

/// Reads members until something follows that is not one.
#[derive(Debug)]
pub(super) struct Gzip {
    state: State,
    /// The header's fixed fields, or the trailer.
    scratch: [u8; 10],
    filled: usize,
    flags: u8,
    inflate: Decompress,
    crc: Crc,
    members: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Fixed,
    ExtraLength,
    Extra {
        left: u16,
    },
    Name,
    Comment,
    HeaderCrc,
    Body,
    Trailer,
    /// Behind the last member: padding or garbage, as gzip itself ignores it.
    Over,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self {
            state: State::Fixed,
            scratch: [0; 10],
            filled: 0,
            flags: 0,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            members: 0,
        }
    }

    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        if self.state == State::Body {
            let (progress, over) = inflate_step(&mut self.inflate, input, output)?;
            self.crc.update(output.get(..progress.written).unwrap_or_default());
            if over {
                self.state = State::Trailer;
            }
            return Ok(progress);
        }
        // Everything around the bodies: byte by byte, it is short.
        let mut consumed = 0;
        for &byte in input {
            if self.state == State::Body {
                break;
            }
            consumed += 1;
            self.byte(byte)?;
        }
        Ok(Progress { consumed, written: 0 })
    }

    fn byte(&mut self, byte: u8) -> Result<(), Error> {
        match self.state {
            State::Fixed => self.fixed(byte),
            State::ExtraLength => {
                if let Some([low, high, ..]) = self.collect(byte, 2) {
                    match u16::from_le_bytes([low, high]) {
                        0 => self.skip_to(FNAME),
                        left => self.state = State::Extra { left },
                    }
                }
                Ok(())
            }
            State::Extra { left } => {
                match left {
                    0 | 1 => self.skip_to(FNAME),
                    left => self.state = State::Extra { left: left - 1 },
                }
                Ok(())
            }
            State::Name => {
                if byte == 0 {
                    self.skip_to(FCOMMENT);
                }
                Ok(())
            }
            State::Comment => {
                if byte == 0 {
                    self.skip_to(FHCRC);
                }
                Ok(())
            }
            State::HeaderCrc => {
                if self.collect(byte, 2).is_some() {
                    self.state = State::Body;
                }
                Ok(())
            }
            State::Trailer => self.trailer(byte),
            State::Body | State::Over => Ok(()),
        }
    }

    fn fixed(&mut self, byte: u8) -> Result<(), Error> {
        let expected = match self.filled {
            0 => Some(0x1f),
            1 => Some(0x8b),
            2 => Some(8),
            _ => None,
        };
        if expected.is_some_and(|expected| expected != byte) {
            if self.members == 0 {
                return Err(Error::Corrupt);
            }
            self.state = State::Over;
            return Ok(());
        }
        if let Some([_, _, _, flags, ..]) = self.collect(byte, 10) {
            self.flags = flags;
            self.inflate.reset(false);
            self.crc.reset();
            self.skip_to(FEXTRA);
        }
        Ok(())
    }

    /// On to the first optional header field, from `field` on, that is there; else to the body.
    fn skip_to(&mut self, field: u8) {
        const ORDER: [(u8, State); 4] = [
            (FEXTRA, State::ExtraLength),
            (FNAME, State::Name),
            (FCOMMENT, State::Comment),
            (FHCRC, State::HeaderCrc),
        ];
        self.state = ORDER
            .into_iter()
            .skip_while(|&(flag, _)| flag != field)
            .find(|&(flag, _)| self.flags & flag != 0)
            .map_or(State::Body, |(_, state)| state);
    }

    fn trailer(&mut self, byte: u8) -> Result<(), Error> {
        if let Some([a, b, c, d, e, f, g, h, ..]) = self.collect(byte, 8) {
            let (sum, length) = (u32::from_le_bytes([a, b, c, d]), [e, f, g, h]);
            if sum != self.crc.sum() || u32::from_le_bytes(length) != self.crc.amount() {
                return Err(Error::Corrupt);
            }
            self.members += 1;
            self.state = State::Fixed;
        }
        Ok(())
    }

    /// Collects bytes into `scratch`; gives them when there are `need`.
    fn collect(&mut self, byte: u8, need: usize) -> Option<[u8; 10]> {
        if let Some(slot) = self.scratch.get_mut(self.filled) {
            *slot = byte;
        }
        self.filled += 1;
        if self.filled < need {
            return None;
        }
        self.filled = 0;
        Some(self.scratch)
    }
}
