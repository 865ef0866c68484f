//! HPACK (RFC 7541), decoding only, within a budget: what one header block costs is bounded by its own
//! length, whatever it refers to.

mod huffman;
mod table;

use std::borrow::Cow;
use std::fmt;

use crate::meter::http::{GaveUp, Headers};
use table::{Field, Table};

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
/// Of an integer that continues behind its prefix: no length in a block is longer.
const MAX_OCTETS: u32 = 4;

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

    /// Decodes one whole header block.
    pub(super) fn decode(&mut self, block: &[u8]) -> Result<Headers, GaveUp> {
        let mut list = List::default();
        let mut rest = Input(block);
        while !rest.0.is_empty() {
            self.instruction(&mut rest, &mut list).ok_or(GaveUp::BadHeaderBlock)?;
        }
        // The block was followed to its end even when it was over: the table goes on.
        if list.over { Err(GaveUp::HeadTooLarge) } else { Ok(Headers(list.fields)) }
    }

    fn instruction(&mut self, rest: &mut Input<'_>, list: &mut List) -> Option<()> {
        let first = *rest.0.first()?;
        if first & 0x80 != 0 {
            let field = self.table.get(rest.integer(7)?)?;
            list.push(&field.name, &field.value);
        } else if first & 0x40 != 0 {
            let (name, value) = self.literal(rest, 6)?;
            list.push(&name, &value);
            self.table.insert(Field { name, value: value.into() });
        } else if first & 0x20 != 0 {
            let size = rest.integer(5)?;
            if size > self.allowed as usize {
                return None;
            }
            self.table.resize(size);
        } else {
            // Not indexed, or never to be.
            let (name, value) = self.literal(rest, 4)?;
            list.push(&name, &value);
        }
        Some(())
    }

    /// The name, maybe one from the table, and the value.
    fn literal<'b>(
        &self,
        rest: &mut Input<'b>,
        prefix: u32,
    ) -> Option<(table::Text, Cow<'b, [u8]>)> {
        let name = match rest.integer(prefix)? {
            0 => rest.string()?.into(),
            index => self.table.get(index)?.name.clone(),
        };
        Some((name, rest.string()?))
    }
}

impl fmt::Debug for Hpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The tables hold keys and cookies.
        f.debug_struct("Hpack").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// The fields of a block, as long as they fit.
#[derive(Default)]
struct List {
    fields: Vec<(String, Vec<u8>)>,
    bytes: usize,
    over: bool,
}

impl List {
    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes = self.bytes.saturating_add(name.len() + value.len());
        self.over |= self.bytes > MAX_LIST || self.fields.len() >= MAX_FIELDS;
        if !self.over {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            self.fields.push((name, value.to_vec()));
        }
    }
}

/// What is left of a block.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    /// The number in the low `prefix` bits of the next byte and those that it goes on in.
    fn integer(&mut self, prefix: u32) -> Option<usize> {
        let mask = 0xff >> (8 - prefix);
        let mut value = usize::from(self.byte()? & mask);
        if value < usize::from(mask) {
            return Some(value);
        }
        for octet in 0..MAX_OCTETS {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << (7 * octet);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Cow<'b, [u8]>> {
        let huffman = self.0.first()? & 0x80 != 0;
        let length = self.integer(7)?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        if huffman { huffman::decode(text).map(Cow::Owned) } else { Some(Cow::Borrowed(text)) }
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}
