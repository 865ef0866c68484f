//! One socket of a tunnel, with what is known of its readiness.
//!
//! Readiness is told once, when it begins (edge-triggered), so it is remembered here until a call
//! shows that it is over. A read or write that did less than it was asked to has shown that too,
//! which saves the call that would only say "would block".

use std::io::{self, Read, Write};
use std::net::TcpStream;

use crate::dial::is_break;
use crate::platform::splice::Pipe;

/// A non-blocking socket.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    readable: bool,
    writable: bool,
    /// The other side has closed, or the connection broke: a read will say how, whatever a short
    /// one before it seemed to show.
    closed: bool,
    /// A write found the connection broken. The kernel says so once: a read after it, behind what the
    /// other side had said, would only say that this was all.
    broken: Option<io::ErrorKind>,
    /// The selector said so: there is nobody at the other end. Not where a write was told first.
    failed: bool,
}

impl Socket {
    /// Whether there is something to read will be told; that it can be written, is assumed.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, readable: false, writable: true, closed: false, broken: None, failed: false }
    }

    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[cfg(test)]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Nothing can be written until there is room again.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.writable
    }

    pub fn fail(&mut self) {
        self.failed = true;
    }

    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed || self.broken.is_some()
    }

    pub fn ready(&mut self, readable: bool, writable: bool, closed: bool) {
        self.closed |= closed;
        self.readable |= readable || closed;
        self.writable |= writable;
    }

    /// `None`: nothing now; 0: the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if !self.readable {
            return Ok(None);
        }
        let read = self.unless_broken(retry(|| (&self.stream).read(buffer))?)?;
        self.readable = match read {
            None => false,
            Some(n) => n == 0 || n == buffer.len() || self.closed,
        };
        Ok(read)
    }

    /// `None`: nothing can be written now.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        if !self.writable {
            return Ok(None);
        }
        let written = retry(|| (&self.stream).write(bytes)).inspect_err(|e| self.note(e))?;
        self.writable = written == Some(bytes.len());
        Ok(written)
    }

    /// Fills an empty pipe from the socket, as [`Socket::read`].
    pub fn fill(&mut self, pipe: &mut Pipe) -> io::Result<Option<usize>> {
        if !self.readable {
            return Ok(None);
        }
        // How much a pipe takes depends on how the bytes lie: only the call itself tells.
        let filled = self.unless_broken(retry(|| pipe.fill(&self.stream))?)?;
        self.readable = filled.is_some();
        Ok(filled)
    }

    /// Empties a pipe into the socket, as [`Socket::write`].
    pub fn drain(&mut self, pipe: &mut Pipe) -> io::Result<Option<usize>> {
        if !self.writable {
            return Ok(None);
        }
        let drained = retry(|| pipe.drain(&self.stream)).inspect_err(|e| self.note(e))?;
        self.writable = drained.is_some();
        Ok(drained)
    }

    fn note(&mut self, error: &io::Error) {
        self.broken = self.broken.or(Some(error.kind()).filter(|_| is_break(error)));
    }

    fn unless_broken(&self, read: Option<usize>) -> io::Result<Option<usize>> {
        match self.broken.filter(|_| read == Some(0)) {
            Some(kind) => Err(kind.into()),
            None => Ok(read),
        }
    }
}

/// `None`: it would block.
fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        return match call() {
            Ok(n) => Ok(Some(n)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        };
    }
}
