//! Header blocks (HPACK, RFC 7541), decoded within a budget.
//!
//! A peer decides neither what one block expands to nor how large a table it fills. Only the decoding
//! half: nothing is ever sent.

use std::collections::VecDeque;
use std::fmt;

use super::huffman;
use crate::meter::http::{GaveUp, Headers};

/// Longest encoded header block.
pub(super) const MAX_BLOCK: usize = 128 * 1024;
/// Most bytes of names and values that are kept of one block.
const MAX_LIST: usize = 256 * 1024;
/// … and that it may expand to at all.
const MAX_EXPANDED: usize = 4 * 1024 * 1024;
/// As many fields as an HTTP/1 head, and some for pseudo headers and split cookies.
const MAX_FIELDS: usize = 512;
/// Largest dynamic table that is kept, whatever SETTINGS allow.
const MAX_TABLE: u32 = 128 * 1024;
/// The size that every connection starts with (RFC 9113 6.5.2).
const DEFAULT_TABLE: u32 = 4096;
/// What an entry of the table counts besides its bytes.
const ENTRY: usize = 32;

/// The decoding context of one direction.
pub(super) struct Hpack {
    table: Table,
    allowed: u32,
}

impl Hpack {
    pub(super) fn new() -> Self {
        Self { table: Table::new(DEFAULT_TABLE as usize), allowed: DEFAULT_TABLE }
    }

    /// The receiver of these header blocks allows tables of `size`. Never lowered: blocks that were
    /// under way still count on the old size, and later ones carry the encoder's own update.
    pub(super) fn allow(&mut self, size: u32) {
        self.allowed = self.allowed.max(size.min(MAX_TABLE));
    }

    /// Decodes one whole header block; false: the fields are not all that it says. It is decoded to its
    /// end even so, since the table depends on it.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<(Headers, bool), GaveUp> {
        let mut list = List { fields: Headers::default(), expanded: 0, whole: true };
        match self.take(block, &mut list) {
            Some(()) => Ok((list.fields, list.whole)),
            None if list.expanded <= MAX_EXPANDED => Err(GaveUp::BadHeaderBlock),
            None => Err(GaveUp::HeadTooLarge),
        }
    }

    fn take(&mut self, mut rest: &[u8], list: &mut List) -> Option<()> {
        let mut resized = false;
        while let Some(kind) = rest.first().copied() {
            resized = false;
            if kind & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                let (name, value) = self.table.get(index)?;
                list.push(name, value)?;
            } else if kind & 0x40 != 0 {
                let (name, value) = self.literal(&mut rest, 6)?;
                list.push(&name, &value)?;
                self.table.insert(name, value);
            } else if kind & 0x20 != 0 {
                let size = integer(&mut rest, 5)?;
                if size > self.allowed as usize {
                    return None;
                }
                self.table.resize(size);
                resized = true;
            } else {
                let (name, value) = self.literal(&mut rest, 4)?;
                list.push(&name, &value)?;
            }
        }
        // A new size is for the fields that follow it.
        (!resized).then_some(())
    }

    /// A field whose name is in a table, or spelled out like the value.
    fn literal(&self, rest: &mut &[u8], prefix: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = match integer(rest, prefix)? {
            0 => string(rest)?,
            index => self.table.get(index)?.0.to_vec(),
        };
        Some((name, string(rest)?))
    }
}

impl fmt::Debug for Hpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tables hold keys and cookies.
        f.debug_struct("Hpack").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// What a block says, as long as it is not too much.
struct List {
    fields: Headers,
    /// Bytes of all names and values, kept or not.
    expanded: usize,
    whole: bool,
}

impl List {
    fn push(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.expanded += name.len() + value.len();
        self.whole &= self.expanded <= MAX_LIST && self.fields.len() < MAX_FIELDS;
        if self.whole {
            self.fields.push(name, value);
        }
        (self.expanded <= MAX_EXPANDED).then_some(())
    }
}

/// The static table and, behind it, the fields that the encoder had put in the dynamic one.
struct Table {
    /// The newest first.
    entries: VecDeque<(Vec<u8>, Vec<u8>)>,
    size: usize,
    limit: usize,
}

impl Table {
    const fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), size: 0, limit }
    }

    fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let at = index.checked_sub(1)?;
        match STATIC.get(at) {
            Some((name, value)) => Some((name.as_bytes(), value.as_bytes())),
            None => {
                self.entries.get(at - STATIC.len()).map(|(name, value)| (&name[..], &value[..]))
            }
        }
    }

    /// One that is larger than the whole table empties it.
    fn insert(&mut self, name: Vec<u8>, value: Vec<u8>) {
        self.size += cost(&name, &value);
        self.entries.push_front((name, value));
        self.evict();
    }

    fn resize(&mut self, limit: usize) {
        self.limit = limit;
        self.evict();
    }

    fn evict(&mut self) {
        while self.size > self.limit
            && let Some((name, value)) = self.entries.pop_back()
        {
            self.size -= cost(&name, &value);
        }
    }
}

const fn cost(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + ENTRY
}

/// A number whose first bits are the lowest `prefix` ones of the first byte.
fn integer(rest: &mut &[u8], prefix: u32) -> Option<usize> {
    let (first, more) = rest.split_first()?;
    *rest = more;
    let full = (1 << prefix) - 1;
    let mut value = usize::from(*first & full);
    if value < usize::from(full) {
        return Some(value);
    }
    // Four bytes of seven bits: nothing that is meant is larger.
    for shift in [0, 7, 14, 21] {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn string(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let coded = *rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, more) = rest.split_at_checked(length)?;
    *rest = more;
    if !coded {
        return Some(bytes.to_vec());
    }
    // Its codes are of five bits or more.
    let mut out = Vec::with_capacity(length * 8 / 5);
    huffman::decode(bytes, &mut out)?;
    Some(out)
}

/// RFC 7541, appendix A.
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""),
    ("via", ""), ("www-authenticate", ""),
];
