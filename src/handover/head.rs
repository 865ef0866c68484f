//! A request's head on the channel: bytes, of which the credentials must not be shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest that is offered: well below a frame's limit, however its bytes are written.
pub const MAX_HEAD: usize = 16 * 1024;

/// The head of a plain HTTP request, as it goes to the origin. Travels as text of one character per
/// byte: a head may hold bytes that are no UTF-8.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestHead(Vec<u8>);

impl RequestHead {
    /// `None`: too long to be offered.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MAX_HEAD).then(|| Self(bytes.to_vec()))
    }

    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestHead({} bytes)", self.0.len())
    }
}

impl From<RequestHead> for String {
    fn from(head: RequestHead) -> Self {
        head.0.into_iter().map(char::from).collect()
    }
}

impl TryFrom<String> for RequestHead {
    type Error = std::char::TryFromCharError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.chars().map(u8::try_from).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::wire::MAX_FRAME;

    #[test]
    fn any_bytes_survive_and_none_is_shown() {
        let all: Vec<u8> = (0..=255).collect();
        let head = RequestHead::new(&all).unwrap();
        let json = serde_json::to_string(&head).unwrap();
        assert_eq!(serde_json::from_str::<RequestHead>(&json).unwrap(), head);
        assert!(serde_json::from_str::<RequestHead>("\"\u{20ac}\"").is_err());
        assert_eq!(format!("{head:?}"), "RequestHead(256 bytes)");
    }

    #[test]
    fn what_a_head_may_hold_fits_into_a_frame() {
        // The worst that a parser lets through: high bytes are two, a tab or a quote is escaped.
        for byte in [b'\t', b'"', b'\\', 0xff] {
            let head = RequestHead::new(&vec![byte; MAX_HEAD]).unwrap();
            assert!(serde_json::to_vec(&head).unwrap().len() + 1024 < MAX_FRAME);
        }
        assert_eq!(RequestHead::new(&vec![b'x'; MAX_HEAD + 1]), None);
    }
}
