//! Framing of the control channel: u32 little-endian length, then JSON. Sans-IO.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ToDaemon, ToEdge};

/// Longest frame body; a peer that announces more is not ours.
pub const MAX_FRAME: usize = 64 * 1024;

const PREFIX: usize = 4;

/// A message that travels on the channel.
pub trait Frame: Serialize + DeserializeOwned {
    /// Whether a descriptor rides on this frame.
    fn carries_descriptor(&self) -> bool;
}

impl Frame for ToDaemon {
    fn carries_descriptor(&self) -> bool {
        match self {
            Self::Offer(_) => true,
            Self::Hello { .. } | Self::Verdict { .. } => false,
        }
    }
}

impl Frame for ToEdge {
    fn carries_descriptor(&self) -> bool {
        match self {
            Self::Canary => true,
            Self::Hello { .. }
            | Self::Progress { .. }
            | Self::Commit { .. }
            | Self::Decline { .. }
            | Self::Draining => false,
        }
    }
}

/// Why a frame could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("frame of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("frame is not a known message")]
    NotAMessage(#[source] serde_json::Error),
}

/// One message as it goes on the wire.
pub fn encode<M: Frame>(message: &M) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; PREFIX];
    serde_json::to_writer(&mut frame, message).map_err(WireError::NotAMessage)?;
    let body = frame.len() - PREFIX;
    let length =
        u32::try_from(body).ok().filter(|_| body <= MAX_FRAME).ok_or(WireError::TooLong(body))?;
    if let Some(prefix) = frame.first_chunk_mut::<PREFIX>() {
        *prefix = length.to_le_bytes();
    }
    Ok(frame)
}

/// Collects bytes and gives whole frames back.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    read: usize,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.buffer.drain(..self.read);
            self.read = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more bytes come. What is no message is passed over.
    pub fn take_frame<M: Frame>(&mut self) -> Result<Option<M>, WireError> {
        let rest = self.buffer.get(self.read..).unwrap_or_default();
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        self.read += PREFIX + length;
        serde_json::from_slice(body).map(Some).map_err(WireError::NotAMessage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::Decline;

    fn messages() -> Vec<ToEdge> {
        vec![
            ToEdge::Hello { version: 1, pid: 7, instance: uuid::Uuid::nil() },
            ToEdge::Canary,
            ToEdge::Progress { id: 1 },
            ToEdge::Commit { id: u64::MAX },
            ToEdge::Decline { id: 3, reason: Decline::UpstreamTls },
            ToEdge::Draining,
        ]
    }

    #[test]
    fn frames_survive_every_slicing() {
        let bytes: Vec<u8> = messages().iter().flat_map(|m| encode(m).unwrap()).collect();
        for size in 1..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(size) {
                decoder.feed(chunk);
                while let Some(message) = decoder.take_frame::<ToEdge>().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages(), "chunks of {size}");
        }
    }

    #[test]
    fn nonsense_is_an_error_not_a_wait() {
        let mut decoder = Decoder::default();
        decoder.feed(b"GET / HTTP/1.1\r\n");
        assert!(matches!(decoder.take_frame::<ToEdge>(), Err(WireError::TooLong(_))));
        let mut decoder = Decoder::default();
        decoder.feed(b"\x02\x00\x00\x00{}");
        assert!(matches!(decoder.take_frame::<ToEdge>(), Err(WireError::NotAMessage(_))));
        assert!(matches!(decoder.take_frame::<ToEdge>(), Ok(None)));
        decoder.feed(&encode(&ToEdge::Draining).unwrap());
        assert!(matches!(decoder.take_frame(), Ok(Some(ToEdge::Draining))));
    }

    #[test]
    fn a_reason_of_a_later_build_is_a_refusal_all_the_same() {
        let body = br#"{"decline":{"id":3,"reason":"moon_in_the_wrong_house"}}"#;
        let mut decoder = Decoder::default();
        decoder.feed(&[&u32::try_from(body.len()).unwrap().to_le_bytes()[..], body].concat());
        let expected = ToEdge::Decline { id: 3, reason: Decline::Unknown };
        assert_eq!(decoder.take_frame().unwrap(), Some(expected));
        for reason in Decline::ALL {
            let mut decoder = Decoder::default();
            decoder.feed(&encode(&ToEdge::Decline { id: 3, reason }).unwrap());
            assert_eq!(decoder.take_frame().unwrap(), Some(ToEdge::Decline { id: 3, reason }));
        }
    }
}
