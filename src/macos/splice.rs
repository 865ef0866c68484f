//! There is no socket-to-socket splice here: the tunnel copies through its shared buffer.

use std::io;
use std::os::fd::AsFd;

/// Never exists.
#[derive(Debug)]
pub enum Pipe {}

impl Pipe {
    #[must_use]
    pub fn borrow() -> Option<Self> {
        None
    }

    #[must_use]
    pub fn held(&self) -> usize {
        match *self {}
    }

    pub fn fill(&mut self, _from: &impl AsFd) -> io::Result<usize> {
        match *self {}
    }

    pub fn drain(&mut self, _to: &impl AsFd) -> io::Result<usize> {
        match *self {}
    }

    pub fn empty_into(&mut self, _bytes: &mut Vec<u8>) -> io::Result<()> {
        match *self {}
    }
}
