//! HPACK within a budget: a thin wrapper over `loona-hpack`.
//!
//! loona bounds neither what one header block expands to nor how large a table a peer may ask for,
//! so both are bounded here. Its `set_max_table_size` asserts and is never called: the encoder's own
//! size updates inside the header blocks do the resizing.

use std::fmt;

use crate::meter::http::{GaveUp, Headers};

/// Longest encoded header block.
pub(super) const MAX_BLOCK: usize = 128 * 1024;
/// Most bytes of names and values that one block may expand to.
const MAX_LIST: usize = 256 * 1024;
/// As many fields as an HTTP/1 head, and some for pseudo headers and split cookies.
const MAX_FIELDS: usize = 512;
/// Largest dynamic table that is kept, whatever SETTINGS allow.
const MAX_TABLE: u32 = 128 * 1024;
/// The size that every connection starts with (RFC 9113 6.5.2).
const DEFAULT_TABLE: u32 = 4096;

/// The decoding context of one direction.
pub(super) struct Hpack {
    decoder: loona_hpack::Decoder<'static>,
    allowed: u32,
}

impl Hpack {
    pub(super) fn new() -> Self {
        let mut decoder = loona_hpack::Decoder::new();
        decoder.set_max_allowed_table_size(DEFAULT_TABLE as usize);
        Self { decoder, allowed: DEFAULT_TABLE }
    }

    /// The receiver of these header blocks allows tables of `size`. Never lowered: blocks that were
    /// under way still count on the old size, and later ones carry the encoder's own update.
    pub(super) fn allow(&mut self, size: u32) {
        let size = size.min(MAX_TABLE);
        if size > self.allowed {
            self.allowed = size;
            self.decoder.set_max_allowed_table_size(size as usize);
        }
    }

    /// Decodes one whole header block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Headers, GaveUp> {
        let mut fields = Vec::new();
        let mut left = MAX_LIST;
        let mut fits = true;
        self.decoder
            .decode_with_cb(block, |name, value| {
                // The block is followed to its end even when it is over: no copy, no growth.
                match left.checked_sub(name.len() + value.len()) {
                    Some(rest) if fits && fields.len() < MAX_FIELDS => {
                        left = rest;
                        let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
                        fields.push((name, value.into_owned()));
                    }
                    Some(_) | None => fits = false,
                }
            })
            .map_err(|_| GaveUp::BadHeaderBlock)?;
        if fits { Ok(Headers(fields)) } else { Err(GaveUp::HeadTooLarge) }
    }
}

impl fmt::Debug for Hpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tables hold keys and cookies.
        f.debug_struct("Hpack").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}
