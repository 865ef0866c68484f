//! Reads the envelopes of Connect and gRPC (a flag byte, a length, a message), in which protocol buffers
//! are sent. What can't be read is passed over; whether there was such a message can be asked.

#[cfg(test)]
pub(crate) mod tests;

use super::coding;

/// The flag byte, and the length as 32 bits, big-endian.
const HEAD: usize = 5;
const COMPRESSED: u8 = 1;
/// What is inside is JSON: how the stream ended (Connect, gRPC-Web).
const LAST: [u8; 2] = [0x02, 0x80];

/// One message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Envelope<'a> {
    /// How the stream ended, not one of its messages.
    pub last: bool,
    /// Decompressed.
    pub payload: &'a [u8],
}

/// An incremental reader.
#[derive(Debug)]
pub struct Parser {
    max_message: usize,
    /// What messages are compressed with.
    coding: Option<String>,
    /// The envelope that is being read.
    buffer: Vec<u8>,
    /// Bytes still to come of one that is over the cap.
    skip: usize,
    /// These are no envelopes.
    over: bool,
    /// A message was passed over, or what came is none.
    missed: bool,
}

impl Parser {
    /// `max_message` bounds a message, compressed or not; longer ones are passed over.
    #[must_use]
    pub const fn new(max_message: usize) -> Self {
        Self { max_message, coding: None, buffer: Vec::new(), skip: 0, over: false, missed: false }
    }

    /// Messages are compressed so (`grpc-encoding`), if they are; gzip where nothing says it.
    #[must_use]
    pub fn compressed_by(self, coding: Option<&str>) -> Self {
        Self { coding: coding.map(str::to_owned), ..self }
    }

    /// Something that came was not read.
    #[must_use]
    pub const fn has_missed(&self) -> bool {
        self.missed
    }

    /// Feeds bytes of the body; `sink` receives the messages that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(Envelope<'_>)) {
        while !bytes.is_empty() && !self.over {
            bytes = self.step(bytes, sink);
        }
    }

    /// Takes some of non-empty `bytes`; returns the rest.
    fn step<'b>(&mut self, bytes: &'b [u8], sink: &mut dyn FnMut(Envelope<'_>)) -> &'b [u8] {
        if self.skip > 0 {
            let (over, rest) = bytes.split_at_checked(self.skip).unwrap_or((bytes, &[]));
            self.skip -= over.len();
            return rest;
        }
        let need = head(&self.buffer).map_or(HEAD, |(_, length)| HEAD.saturating_add(length));
        let want = need.saturating_sub(self.buffer.len());
        let (now, rest) = bytes.split_at_checked(want).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(now);
        let Some((flags, length)) = head(&self.buffer) else { return rest };
        let last = LAST.contains(&(flags & !COMPRESSED));
        if !last && flags & !COMPRESSED != 0 {
            self.over = true;
            self.missed = true;
            self.buffer = Vec::new();
        } else if length > self.max_message {
            self.skip = length;
            self.missed = true;
            self.buffer.clear();
        } else if let Some(payload) = self.buffer.get(HEAD..HEAD + length) {
            let coding = self.coding.as_deref().unwrap_or("gzip");
            self.missed |= !open(flags, payload, coding, self.max_message, last, sink);
            self.buffer.clear();
        }
        rest
    }
}

fn head(buffer: &[u8]) -> Option<(u8, usize)> {
    let [flags, length @ ..] = buffer.first_chunk::<HEAD>()?;
    Some((*flags, u32::from_be_bytes(*length) as usize))
}

/// Whether it could be opened.
fn open(
    flags: u8,
    payload: &[u8],
    coding: &str,
    max: usize,
    last: bool,
    sink: &mut dyn FnMut(Envelope<'_>),
) -> bool {
    if flags & COMPRESSED == 0 || payload.is_empty() {
        sink(Envelope { last, payload });
        return true;
    }
    let mut plain = Vec::new();
    let Ok(mut decoder) = coding::Decoder::new(coding, max as u64) else { return false };
    let opened = decoder.feed(payload, &mut |bytes| plain.extend_from_slice(bytes)).is_ok();
    if opened {
        sink(Envelope { last, payload: &plain });
    }
    opened
}
