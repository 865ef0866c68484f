//! Bytes both ways between two sockets, as they are. Sans-runtime: who holds a tunnel says when a
//! socket is ready ([`Tunnel::ready`]) and gives it a turn ([`Tunnel::run`]).
//!
//! An idle tunnel holds no buffer: reads go through one buffer per thread, and only what the other
//! side did not take at once is kept. Bulk data goes through a borrowed pipe where there is splice.
//! A half-close is passed on as a half-close, a reset as a reset. No timers but the kernel's, which asks
//! a client that has said all whether it is still there.

mod packed;

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::extent::{Answer, Extent};
use super::forward::ResponseGate;
use super::socket::Socket;
use crate::dial::watch_half_closed;
use crate::platform::splice::Pipe;
pub use packed::Packed;

/// What one read takes; a read that fills it makes the direction "bulk".
const SCRATCH: usize = 64 * 1024;
/// Reads below this are small; so many in a row end the bulk mode.
const SMALL: usize = 16 * 1024;
const SMALL_RUN: u8 = 4;
/// Moves per turn, so that a bulk transfer does not keep the others waiting.
const MOVES: usize = 16;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A tunnel that was set up. `client` and `server` are named by who opened the connection.
#[derive(Debug)]
pub struct Tunnel {
    client: Socket,
    server: Socket,
    up: Direction,
    down: Direction,
    /// Another process may hold a copy of the client's descriptor, so closing ours ends nothing.
    shared_client: bool,
}

/// One of the two ends, by who opened the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    Client,
    Server,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Nothing more can be moved until a socket is ready.
    Waits,
    /// There is more to move at once, after the others had their turn.
    Again,
    Over(Summary),
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    pub up: u64,
    pub down: u64,
    /// One side broke off instead of closing.
    pub aborted: bool,
}

#[derive(Debug, Default)]
struct Direction {
    bytes: u64,
    /// Read, but not taken by the other side yet.
    left: Option<Box<Left>>,
    pipe: Option<Box<Pipe>>,
    filter: Option<Box<Filter>>,
    flow: Flow,
    mode: Mode,
    /// Small reads in a row.
    small: u8,
}

/// Where not every byte passes as it is.
#[derive(Debug)]
enum Filter {
    /// A response's head is rewritten.
    Gate(ResponseGate),
    /// What is behind a request is not for this server.
    Extent(Extent),
    /// The direction ends with the answer, of which so much is to come.
    Rest(Extent),
}

#[derive(Debug)]
struct Left {
    bytes: Vec<u8>,
    sent: usize,
}

impl Left {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
enum Flow {
    #[default]
    Open,
    /// The source has closed; what is left still goes out, then the half-close.
    Ending,
    Done,
    /// The destination takes nothing any more. What the source says is read and dropped, so that
    /// a client that is still uploading gets to read the answer that came early.
    Broken,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Mode {
    #[default]
    Copy,
    Splice,
    /// Splicing was tried and can't be had.
    CopyOnly,
}

/// Whether a direction can go on.
enum Moved {
    Waits,
    Again,
}

impl Tunnel {
    #[must_use]
    pub fn new(client: TcpStream, server: TcpStream) -> Self {
        Self {
            client: Socket::new(client),
            server: Socket::new(server),
            up: Direction::default(),
            down: Direction::default(),
            shared_client: false,
        }
    }

    /// The client's descriptor was offered to the daemon, which may be frozen with its copy.
    #[must_use]
    pub fn shared_client(mut self) -> Self {
        self.shared_client = true;
        self
    }

    #[must_use]
    pub fn is_client_shared(&self) -> bool {
        self.shared_client
    }

    /// Bytes for the server before the client's own, of which those that belong to this request pass.
    #[must_use]
    pub fn with_request_head(mut self, head: Vec<u8>) -> Self {
        let extent = Extent::of(&head);
        self.up.filter = (!extent.is_open()).then(|| Box::new(Filter::Extent(extent)));
        self.up.leave(head);
        self
    }

    /// The server's response head is rewritten on its way, and its answer is the last that passes.
    #[must_use]
    pub fn with_response_gate(mut self, answer: Answer) -> Self {
        self.down.filter = Some(Box::new(Filter::Gate(ResponseGate::new(answer))));
        self
    }

    #[must_use]
    pub fn sockets(&self) -> (&TcpStream, &TcpStream) {
        (self.client.stream(), self.server.stream())
    }

    #[cfg(test)]
    pub fn into_sockets(self) -> (TcpStream, TcpStream) {
        (self.client.into_stream(), self.server.into_stream())
    }

    /// A socket became ready: to be read, to be written, or it is closed for reading.
    pub fn ready(&mut self, which: Which, readable: bool, writable: bool, closed: bool) {
        let end = match which {
            Which::Client => &mut self.client,
            Which::Server => &mut self.server,
        };
        end.ready(readable, writable, closed);
    }

    /// The selector has an error for the client's socket.
    pub fn client_failed(&mut self) {
        self.client.fail();
    }

    /// Whether the client, and the server, took less than there was for it.
    #[must_use]
    pub fn full(&self) -> (bool, bool) {
        (self.client.is_full(), self.server.is_full())
    }

    /// Moves what can be moved now; at the end of both directions closes as the two sides did.
    pub fn run(&mut self) -> Turn {
        let outcome = BUFFER.with_borrow_mut(|scratch| {
            let said_all = self.up.flow == Flow::Done;
            let up = self.up.run(&mut self.client, &mut self.server, scratch)?;
            if self.up.flow == Flow::Done {
                if !said_all {
                    watch_half_closed(self.client.stream());
                }
                // Nobody reads any more what would tell us.
                if self.client.has_failed() {
                    self.down.give_up();
                }
            } else if !self.up.is_over() && self.server.is_full() && self.client.has_failed() {
                // Nor does anybody while the server takes nothing: both get the reset now, as without us. No
                // byte is lost by it that would arrive then. What the server's kernel has, it can still
                // read; what waits here would wait in the client's, which drops it at a reset.
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let down = self.down.run(&mut self.server, &mut self.client, scratch)?;
            Ok::<_, io::Error>(matches!((up, down), (Moved::Waits, Moved::Waits)))
        });
        match outcome {
            Ok(_) if self.up.is_over() && self.down.is_over() => {}
            Ok(true) => return Turn::Waits,
            Ok(false) => return Turn::Again,
            Err(_) => {
                // Closing now sends a reset, as the side that broke off did.
                for end in [&self.client, &self.server] {
                    let now = Some(Duration::ZERO);
                    let _ = rustix::net::sockopt::set_socket_linger(end.stream(), now);
                }
            }
        }
        if self.shared_client {
            let _ = self.client.stream().shutdown(Shutdown::Both);
        }
        let broken = self.up.flow == Flow::Broken || self.down.flow == Flow::Broken;
        let aborted = outcome.is_err() || broken;
        Turn::Over(Summary { up: self.up.bytes, down: self.down.bytes, aborted })
    }
}

impl Direction {
    fn is_over(&self) -> bool {
        matches!(self.flow, Flow::Done | Flow::Broken)
    }

    /// Moves what can be moved now; an error when the source broke off.
    fn run(&mut self, from: &mut Socket, to: &mut Socket, scratch: &mut [u8]) -> io::Result<Moved> {
        for _ in 0..MOVES {
            match self.flow {
                Flow::Done => return Ok(Moved::Waits),
                Flow::Broken => match from.read(scratch)? {
                    Some(1..) => continue,
                    Some(0) | None => return Ok(Moved::Waits),
                },
                Flow::Open | Flow::Ending => {}
            }
            match self.send(to) {
                Ok(true) => {}
                Ok(false) => return Ok(Moved::Waits),
                Err(_) => {
                    self.give_up();
                    continue;
                }
            }
            if self.flow == Flow::Ending {
                self.pipe = None;
                // Fails only if the connection is gone already.
                let _ = to.stream().shutdown(Shutdown::Write);
                self.flow = Flow::Done;
                continue;
            }
            match self.take(from, to, scratch) {
                Ok(None) => {
                    // Idle: the pipe serves others meanwhile.
                    self.pipe = None;
                    return Ok(Moved::Waits);
                }
                Ok(Some(0)) => self.source_ended(),
                Ok(Some(n)) => {
                    self.account(n);
                    if self.is_answered() {
                        self.flow = Flow::Ending;
                    }
                }
                Err(e) if self.pipe.is_some() && e.kind() == io::ErrorKind::InvalidInput => {
                    self.pipe = None;
                    self.mode = Mode::CopyOnly;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(Moved::Again)
    }

    /// Gets rid of what was read before; true when nothing is left.
    fn send(&mut self, to: &mut Socket) -> io::Result<bool> {
        while let Some(left) = &mut self.left {
            let rest = left.rest();
            if rest.is_empty() {
                self.left = None;
                break;
            }
            let Some(sent) = to.write(rest)? else { return Ok(false) };
            left.sent += sent;
        }
        while let Some(pipe) = &mut self.pipe
            && pipe.held() > 0
        {
            if to.drain(pipe)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes what the source has; `None`: nothing now.
    fn take(
        &mut self,
        from: &mut Socket,
        to: &mut Socket,
        scratch: &mut [u8],
    ) -> io::Result<Option<usize>> {
        if self.mode != Mode::Splice {
            self.pipe = None;
        } else if self.pipe.is_none() {
            self.pipe = Pipe::borrow().map(Box::new);
            if self.pipe.is_none() {
                self.mode = Mode::CopyOnly;
            }
        }
        let Some(pipe) = &mut self.pipe else { return self.copy(from, to, scratch) };
        let filled = from.fill(pipe)?;
        if let Some(Filter::Rest(rest)) = self.filter.as_deref_mut() {
            rest.skip(filled.unwrap_or(0));
        }
        Ok(filled)
    }

    /// One read, and a write of the same at once.
    fn copy(
        &mut self,
        from: &mut Socket,
        to: &mut Socket,
        scratch: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let Some(count) = from.read(scratch)? else { return Ok(None) };
        let read = scratch.get(..count).unwrap_or_default();
        let read = match self.filter.as_deref_mut() {
            Some(Filter::Gate(gate)) if !read.is_empty() => {
                let passed = gate.feed(read);
                if let Some(rest) = passed.rest {
                    let rest = Some(rest).filter(|rest| !rest.is_open());
                    self.filter = rest.map(|rest| Box::new(Filter::Rest(rest)));
                }
                self.leave(passed.bytes);
                return Ok(Some(count));
            }
            Some(Filter::Extent(extent) | Filter::Rest(extent)) => {
                read.get(..extent.take(read)).unwrap_or_default()
            }
            Some(Filter::Gate(_)) | None => read,
        };
        // A failure shows again in `send`, which knows what to do about it.
        let sent = if read.is_empty() { 0 } else { to.write(read).ok().flatten().unwrap_or(0) };
        self.leave(read.get(sent..).unwrap_or_default().to_vec());
        Ok(Some(count))
    }

    /// The destination is gone.
    fn give_up(&mut self) {
        self.left = None;
        self.pipe = None;
        self.flow = Flow::Broken;
    }

    fn source_ended(&mut self) {
        if let Some(Filter::Gate(gate)) = self.filter.take().map(|filter| *filter) {
            self.leave(gate.finish());
        }
        self.pipe = None;
        self.flow = Flow::Ending;
    }

    fn account(&mut self, moved: usize) {
        self.bytes += moved as u64;
        match self.mode {
            Mode::Copy if moved >= SCRATCH && self.may_splice() => {
                self.mode = Mode::Splice;
                self.small = 0;
            }
            Mode::Splice if moved >= SMALL => self.small = 0,
            Mode::Splice if self.small < SMALL_RUN => self.small += 1,
            Mode::Splice => self.mode = Mode::Copy,
            Mode::Copy | Mode::CopyOnly => {}
        }
    }

    /// Nobody has to see the bytes.
    fn may_splice(&self) -> bool {
        match self.filter.as_deref() {
            None => true,
            Some(Filter::Rest(rest)) => rest.is_counted(),
            Some(Filter::Gate(_) | Filter::Extent(_)) => false,
        }
    }

    fn is_answered(&self) -> bool {
        matches!(self.filter.as_deref(), Some(Filter::Rest(rest)) if rest.is_over())
    }

    fn leave(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.left = Some(Box::new(Left { bytes, sent: 0 }));
        }
    }
}

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
