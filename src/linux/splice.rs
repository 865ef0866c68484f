//! Bulk bytes from socket to socket within the kernel, by way of a pipe.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Bytes that one pipe takes at once.
const PIPE_SIZE: usize = 256 * 1024;
/// Empty pipes that are kept for the next bulk transfer of this thread.
const KEPT: usize = 16;

thread_local! {
    static POOL: RefCell<Vec<Ends>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A pipe on loan while bytes are in flight; an empty one goes back to the pool.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    held: usize,
}

impl Pipe {
    /// `None` when there is none to be had (descriptors): plain copying does it then.
    #[must_use]
    pub fn borrow() -> Option<Self> {
        let kept = POOL.with_borrow_mut(Vec::pop);
        let ends = match kept {
            Some(ends) => ends,
            None => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
                // The default size works too, if the user's quota is used up.
                let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
                Ends { read, write }
            }
        };
        Some(Self { ends: Some(ends), held: 0 })
    }

    /// Bytes in the pipe.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Fills the (empty) pipe from a socket; 0 = end of stream.
    pub fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let ends = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let n = splice(from, None, &ends.write, None, PIPE_SIZE, flags())?;
        self.held += n;
        Ok(n)
    }

    /// Moves what it can to a socket.
    pub fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let ends = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let n = splice(&ends.read, None, to, None, self.held, flags())?;
        self.held = self.held.saturating_sub(n);
        Ok(n)
    }

    /// Reads what is in it.
    pub fn empty_into(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let ends = self.ends.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut buffer = [0; 16 * 1024];
        while self.held > 0 {
            match rustix::io::read(&ends.read, &mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
                    self.held = self.held.saturating_sub(n);
                }
            }
        }
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // One with bytes left in it would put them into another tunnel.
        if self.held > 0 {
            return;
        }
        if let Some(ends) = self.ends.take() {
            // At thread exit the pool may be gone already.
            let _ = POOL.try_with(|pool| {
                if let Ok(mut pool) = pool.try_borrow_mut()
                    && pool.len() < KEPT
                {
                    pool.push(ends);
                }
            });
        }
    }
}

fn flags() -> SpliceFlags {
    SpliceFlags::NONBLOCK | SpliceFlags::MOVE
}
