//! What waits for an observer: chunks copied one behind the other into blocks, so that a small one
//! costs neither an allocation nor a wait, and a connection without any holds no memory.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Closing, Seen};
use crate::meter::http::Side;

/// A block that holds so much is not added to: what was dealt with is freed block by block.
const FULL: usize = 32 << 10;

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Bytes(Side),
    Gap,
    End(Side, bool),
    Closed(Closing),
}

#[derive(Debug)]
struct Mark {
    what: What,
    length: u32,
    at: Instant,
}

/// Some of what was seen, in order.
#[derive(Debug, Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    /// So many marks, with so many bytes, were dealt with.
    done: (usize, usize),
}

impl Block {
    pub(super) fn is_empty(&self) -> bool {
        self.done.0 >= self.marks.len()
    }

    /// The next thing and the number of its bytes.
    pub(super) fn next(&mut self) -> Option<(Seen<'_>, usize)> {
        let &Mark { what, length, at } = self.marks.get(self.done.0)?;
        let (from, length) = (self.done.1, length as usize);
        self.done = (self.done.0 + 1, from + length);
        let seen = match what {
            What::Bytes(side) => {
                Seen::Bytes { side, at, bytes: self.bytes.get(from..from + length)? }
            }
            What::Gap => Seen::Gap { at },
            What::End(side, clean) => Seen::End { side, clean, at },
            What::Closed(how) => Seen::Closed { how, at },
        };
        Some((seen, length))
    }
}

/// What a look into the queue found.
pub(super) enum Taken {
    Block(Block),
    Nothing,
    /// Nothing, and nothing more will come.
    Over,
}

/// The queue. Its lock is held for as long as one chunk is copied.
#[derive(Debug, Default)]
pub(super) struct Blocks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    blocks: VecDeque<Block>,
    /// No more will be put in.
    finished: bool,
    /// Nobody takes anything out.
    refused: bool,
}

impl Blocks {
    /// False: nobody takes it.
    pub(super) fn push(&self, what: What, at: Instant, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let Ok(length) = u32::try_from(bytes.len()) else { return false };
        if state.refused {
            return false;
        }
        if state.blocks.back().is_none_or(|block| block.bytes.len() >= FULL) {
            state.blocks.push_back(Block::default());
        }
        let Some(block) = state.blocks.back_mut() else { return false };
        block.bytes.extend_from_slice(bytes);
        block.marks.push(Mark { what, length, at });
        true
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
    }

    pub(super) fn take(&self) -> Taken {
        let mut state = self.lock();
        match state.blocks.pop_front() {
            Some(block) => {
                if state.blocks.is_empty() {
                    state.blocks = VecDeque::new();
                }
                Taken::Block(block)
            }
            None if state.finished => Taken::Over,
            None => Taken::Nothing,
        }
    }

    /// Takes out what waits and lets nothing more in.
    pub(super) fn refuse(&self) -> VecDeque<Block> {
        let mut state = self.lock();
        state.refused = true;
        mem::take(&mut state.blocks)
    }

    pub(super) fn nobody_takes(&self) -> bool {
        self.lock().refused
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
