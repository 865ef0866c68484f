//! Follows one WebSocket (RFC 6455, with RFC 7692's permessage-deflate): frames to messages.
//!
//! Nothing but control frames is collected: what a message says is handed out as it comes. A message
//! that can't be read, or is over the size cap, is said to be lost; the ones behind it are followed
//! as long as the compression's window allows. Broken framing ends the following.

mod deflate;
mod frame;
#[cfg(test)]
pub(crate) mod tests;

pub use deflate::Extensions;
use deflate::{Inflate, is_too_large};
use frame::{Frames, Head, Opcode, Part};

use super::http::Side;

/// The frames of a direction make no sense: nothing more can be read from it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a WebSocket frame was malformed")]
pub struct BadFrames;

/// Why a message was not handed out, or not all of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Lost {
    #[error("a WebSocket message was over the size cap")]
    TooLarge,
    #[error("a compressed WebSocket message could not be read")]
    Corrupt,
}

/// What the follower saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WsEvent<'a> {
    /// A piece of the message that `side` is sending.
    Data { side: Side, data: &'a [u8] },
    /// The message is over.
    End { side: Side, text: bool, lost: Option<Lost> },
    /// `side` closes the WebSocket; what it sends behind is not looked at.
    Close { side: Side, code: Option<u16> },
    /// Terminal.
    GaveUp(BadFrames),
}

type Sink<'s> = dyn FnMut(WsEvent<'_>) + 's;

/// A follower of one WebSocket, both directions. The two do not depend on each other.
#[derive(Debug)]
pub struct WebSocket {
    client: Half,
    server: Half,
    gave_up: bool,
}

/// One direction.
#[derive(Debug)]
struct Half {
    frames: Frames,
    messages: Messages,
}

#[derive(Debug)]
struct Messages {
    side: Side,
    /// The frame that is being read.
    head: Option<Head>,
    /// The message that is being read.
    open: Option<Open>,
    inflate: Inflate,
    /// Payload of a control frame, which may stand between two frames of a message.
    control: Vec<u8>,
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    text: bool,
    compressed: bool,
    /// Handed out so far, when it is not compressed.
    size: u64,
}

impl WebSocket {
    #[must_use]
    pub fn new(extensions: Extensions) -> Self {
        let half = |side, inflate| Half {
            frames: Frames::new(),
            messages: Messages {
                side,
                head: None,
                open: None,
                inflate,
                control: Vec::new(),
                closed: false,
            },
        };
        Self {
            client: half(Side::Client, extensions.client()),
            server: half(Side::Server, extensions.server()),
            gave_up: false,
        }
    }

    /// Feeds bytes that `side` sent behind the handshake.
    pub fn feed(&mut self, side: Side, bytes: &[u8], sink: &mut dyn FnMut(WsEvent<'_>)) {
        let Half { frames, messages } = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        if self.gave_up || messages.closed {
            return;
        }
        let fed = frames.feed(bytes, &mut |part| messages.part(part, sink));
        if let Err(bad) = fed
            && !messages.closed
        {
            self.gave_up = true;
            sink(WsEvent::GaveUp(bad));
        }
    }
}

impl Messages {
    fn part(&mut self, part: Part<'_>, sink: &mut Sink<'_>) -> Result<(), BadFrames> {
        if self.closed {
            return Ok(());
        }
        match part {
            Part::Start(head) => self.start(head),
            Part::Payload(data) => {
                self.payload(data, sink);
                Ok(())
            }
            Part::End => {
                if let Some(head) = self.head.take() {
                    self.end(head, sink);
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, head: Head) -> Result<(), BadFrames> {
        self.head = Some(head);
        if head.opcode.is_control() {
            self.control.clear();
            return Ok(());
        }
        let begins = head.opcode != Opcode::Continuation;
        if begins == self.open.is_some() {
            return Err(BadFrames);
        }
        // Only a message as a whole is compressed, and only when that was agreed.
        if head.compressed && !(begins && self.inflate.is_agreed()) {
            return Err(BadFrames);
        }
        if begins {
            let text = head.opcode == Opcode::Text;
            self.open = Some(Open { text, compressed: head.compressed, size: 0 });
        }
        Ok(())
    }

    fn payload(&mut self, data: &[u8], sink: &mut Sink<'_>) {
        let side = self.side;
        if self.head.is_some_and(|head| head.opcode.is_control()) {
            // At most 125 bytes.
            self.control.extend_from_slice(data);
        } else if let Some(open) = &mut self.open {
            if open.compressed {
                self.inflate.feed(data, &mut |data| sink(WsEvent::Data { side, data }));
                return;
            }
            open.size = open.size.saturating_add(data.len() as u64);
            if !is_too_large(open.size) {
                sink(WsEvent::Data { side, data });
            }
        }
    }

    /// The frame is over.
    fn end(&mut self, head: Head, sink: &mut Sink<'_>) {
        let side = self.side;
        match head.opcode {
            Opcode::Ping | Opcode::Pong => {}
            Opcode::Close => {
                let code = self.control.first_chunk().map(|code| u16::from_be_bytes(*code));
                self.closed = true;
                sink(WsEvent::Close { side, code });
            }
            Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                if !head.last {
                    return;
                }
                let Some(open) = self.open.take() else { return };
                let lost = if open.compressed {
                    self.inflate.end(&mut |data| sink(WsEvent::Data { side, data }))
                } else {
                    is_too_large(open.size).then_some(Lost::TooLarge)
                };
                sink(WsEvent::End { side, text: open.text, lost });
            }
        }
    }
}
