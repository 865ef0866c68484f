//! Reads `application/vnd.amazon.eventstream`, in which Bedrock streams: length-prefixed messages
//! with header fields of their own and two checksums.

#[cfg(test)]
pub(crate) mod tests;

use flate2::Crc;

/// Total length, length of the header fields, CRC-32 of both.
const PRELUDE: usize = 12;
/// CRC-32 of everything before it.
const SUM: usize = 4;

/// The bytes are no such stream (any more). Terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the event stream is corrupt")]
pub struct Corrupt;

/// One message of the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// `:event-type`, or for a failure `:exception-type` or `:error-code`; empty when there is none.
    pub name: &'a str,
    /// By `:message-type`: an exception or an error, not an event.
    pub failure: bool,
    pub payload: &'a [u8],
    /// It was over the cap, and nothing of it is known.
    pub truncated: bool,
}

/// An incremental reader.
#[derive(Debug)]
pub struct Parser {
    max_message: usize,
    /// The message that is being read.
    buffer: Vec<u8>,
    /// Bytes still to come of one that is over the cap.
    skip: usize,
    corrupt: bool,
}

impl Parser {
    /// `max_message` bounds the bytes of one message.
    #[must_use]
    pub const fn new(max_message: usize) -> Self {
        Self { max_message, buffer: Vec::new(), skip: 0, corrupt: false }
    }

    /// Feeds bytes of the body; `sink` receives the messages that they complete.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(Message<'_>),
    ) -> Result<(), Corrupt> {
        while !bytes.is_empty() && !self.corrupt {
            bytes = self.step(bytes, sink).unwrap_or_else(|Corrupt| {
                self.corrupt = true;
                self.buffer = Vec::new();
                &[]
            });
        }
        if self.corrupt { Err(Corrupt) } else { Ok(()) }
    }

    /// Takes some of non-empty `bytes`; returns the rest.
    fn step<'b>(
        &mut self,
        bytes: &'b [u8],
        sink: &mut dyn FnMut(Message<'_>),
    ) -> Result<&'b [u8], Corrupt> {
        if self.skip > 0 {
            let (over, rest) = bytes.split_at_checked(self.skip).unwrap_or((bytes, &[]));
            self.skip -= over.len();
            return Ok(rest);
        }
        let need = match prelude(&self.buffer)? {
            None => PRELUDE,
            Some((total, _)) => total,
        };
        let want = need.saturating_sub(self.buffer.len());
        let (now, rest) = bytes.split_at_checked(want).unwrap_or((bytes, &[]));
        self.buffer.extend_from_slice(now);
        let Some((total, headers)) = prelude(&self.buffer)? else { return Ok(rest) };
        if total > self.max_message {
            self.skip = total - self.buffer.len();
            self.buffer.clear();
            sink(Message { name: "", failure: false, payload: &[], truncated: true });
        } else if self.buffer.len() == total {
            sink(message(&self.buffer, headers)?);
            self.buffer.clear();
        }
        Ok(rest)
    }
}

/// Lengths of the message and of its header fields, once they are there and make sense.
fn prelude(buffer: &[u8]) -> Result<Option<(usize, usize)>, Corrupt> {
    let Some([a, b, c, d, e, f, g, h, sum @ ..]) = buffer.first_chunk::<PRELUDE>() else {
        return Ok(None);
    };
    let total = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    let headers = u32::from_be_bytes([*e, *f, *g, *h]) as usize;
    let sound = crc(buffer.get(..8).unwrap_or_default()) == u32::from_be_bytes(*sum)
        && total.checked_sub(PRELUDE + SUM).is_some_and(|room| headers <= room);
    if sound { Ok(Some((total, headers))) } else { Err(Corrupt) }
}

fn message(buffer: &[u8], headers: usize) -> Result<Message<'_>, Corrupt> {
    let (content, sum) = buffer.split_last_chunk::<SUM>().ok_or(Corrupt)?;
    if crc(content) != u32::from_be_bytes(*sum) {
        return Err(Corrupt);
    }
    let rest = content.get(PRELUDE..).ok_or(Corrupt)?;
    let (mut fields, payload) = rest.split_at_checked(headers).ok_or(Corrupt)?;
    let mut message = Message { name: "", failure: false, payload, truncated: false };
    while !fields.is_empty() {
        let (name, value, rest) = field(fields).ok_or(Corrupt)?;
        match name {
            b":message-type" => message.failure = value != "event",
            b":event-type" | b":exception-type" | b":error-code" => message.name = value,
            _ => {}
        }
        fields = rest;
    }
    Ok(message)
}

/// Name and value of a header field, and what comes behind. Values that are not text are empty.
fn field(fields: &[u8]) -> Option<(&[u8], &str, &[u8])> {
    const TEXT: u8 = 7;
    let (&length, rest) = fields.split_first()?;
    let (name, rest) = rest.split_at_checked(length.into())?;
    let (&kind, rest) = rest.split_first()?;
    let (length, rest) = match kind {
        // true, false
        0 | 1 => (0, rest),
        // byte, short, integer, long, time stamp, UUID
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        5 | 8 => (8, rest),
        9 => (16, rest),
        // bytes, text
        6 | TEXT => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    let text = if kind == TEXT { std::str::from_utf8(value).ok()? } else { "" };
    Some((name, text, rest))
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The model's own event inside a `chunk`: `{"bytes":"<base64>"}`.
#[must_use]
pub fn chunk(payload: &[u8]) -> Option<Vec<u8>> {
    #[derive(serde::Deserialize)]
    struct Chunk<'a> {
        #[serde(borrow)]
        bytes: std::borrow::Cow<'a, str>,
    }
    let chunk: Chunk<'_> = serde_json::from_slice(payload).ok()?;
    base64(chunk.bytes.as_bytes())
}

fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            // The low eight bits of what is complete.
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}
