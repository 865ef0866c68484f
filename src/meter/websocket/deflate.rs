//! permessage-deflate (RFC 7692): what was agreed, and the inflating of one direction.

use flate2::{Decompress, FlushDecompress, Status};

use super::Lost;
use crate::meter::http::Headers;

/// What a message may inflate to and be handed out …
const MAX_MESSAGE: u64 = 64 * 1024 * 1024;
/// … and what it may inflate to for the sake of the messages behind it.
const MAX_INFLATED: u64 = 4 * MAX_MESSAGE;
const BUFFER: usize = 16 * 1024;
/// What the sender's flush ends with, and leaves out.
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];

/// What the server's answer to the handshake says of extensions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Extensions {
    deflate: Option<Takeover>,
}

/// Whether a side goes on with the window of its last message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Takeover {
    client: bool,
    server: bool,
}

impl Extensions {
    /// `None`: something was agreed that is not known here.
    #[must_use]
    pub fn agreed(response: &Headers) -> Option<Self> {
        let mut agreed = Self::default();
        for value in response.all("sec-websocket-extensions") {
            let value = std::str::from_utf8(value).ok()?;
            for extension in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
                let deflate = Takeover::parse(extension)?;
                if agreed.deflate.replace(deflate).is_some() {
                    return None;
                }
            }
        }
        Some(agreed)
    }

    pub(super) fn client(self) -> Inflate {
        Inflate::new(self.deflate.map(|takeover| takeover.client))
    }

    pub(super) fn server(self) -> Inflate {
        Inflate::new(self.deflate.map(|takeover| takeover.server))
    }
}

impl Takeover {
    fn parse(extension: &str) -> Option<Self> {
        let mut parts = extension.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
            return None;
        }
        let mut takeover = Self { client: true, server: true };
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("client_no_context_takeover", None) => takeover.client = false,
                ("server_no_context_takeover", None) => takeover.server = false,
                // A window of 32 KiB reads what was written with a smaller one.
                ("client_max_window_bits" | "server_max_window_bits", Some(bits))
                    if bits.parse().is_ok_and(|bits: u8| (8..=15).contains(&bits)) => {}
                _ => return None,
            }
        }
        Some(takeover)
    }
}

/// Inflates the messages of one direction.
#[derive(Debug)]
pub(super) struct Inflate {
    /// `None`: nothing was agreed, compressed messages are errors.
    takeover: Option<bool>,
    /// Made with the first compressed message: 40 KiB.
    state: Option<Box<State>>,
    /// The window is lost, and with it every compressed message that would go on from it.
    dead: Option<Lost>,
}

#[derive(Debug)]
struct State {
    inflate: Decompress,
    buffer: Vec<u8>,
    /// What the message has come to.
    size: u64,
    lost: Option<Lost>,
    /// A last block was seen: what follows does not know the window before it.
    restarted: bool,
}

impl Inflate {
    const fn new(takeover: Option<bool>) -> Self {
        Self { takeover, state: None, dead: None }
    }

    pub(super) const fn is_agreed(&self) -> bool {
        self.takeover.is_some()
    }

    /// A piece of a compressed message; `sink` receives what it inflates to.
    pub(super) fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        if self.dead.is_some() {
            return;
        }
        let state = self.state.get_or_insert_with(|| Box::new(State::new()));
        state.feed(bytes, sink);
    }

    /// The message is over. Says why some of it was not handed out, if so.
    pub(super) fn end(&mut self, sink: &mut dyn FnMut(&[u8])) -> Option<Lost> {
        self.feed(TAIL, sink);
        let Some(state) = &mut self.state else { return self.dead };
        let lost = state.lost.take();
        let broken = lost == Some(Lost::Corrupt) || state.size > MAX_INFLATED || state.restarted;
        if self.takeover == Some(false) {
            state.inflate.reset(false);
            state.restarted = false;
        } else if broken {
            self.dead = Some(lost.unwrap_or(Lost::Corrupt));
            self.state = None;
            return lost;
        }
        state.size = 0;
        lost
    }
}

impl State {
    fn new() -> Self {
        Self {
            inflate: Decompress::new(false),
            buffer: vec![0; BUFFER],
            size: 0,
            lost: None,
            restarted: false,
        }
    }

    fn feed(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(&[u8])) {
        loop {
            if self.lost == Some(Lost::Corrupt) || self.size > MAX_INFLATED {
                return;
            }
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(bytes, &mut self.buffer, FlushDecompress::None);
            // The differences are lengths of the two slices at most.
            let consumed = (self.inflate.total_in() - before_in) as usize;
            let written = (self.inflate.total_out() - before_out) as usize;
            bytes = bytes.get(consumed..).unwrap_or_default();
            self.size = self.size.saturating_add(written as u64);
            if self.size > MAX_MESSAGE {
                self.lost = self.lost.or(Some(Lost::TooLarge));
            } else if written > 0 {
                sink(self.buffer.get(..written).unwrap_or_default());
            }
            match status {
                Err(_) => self.lost = Some(Lost::Corrupt),
                // Section 7.2.3.4: a sender may end with a last block; another stream follows.
                Ok(Status::StreamEnd) => {
                    self.restarted = true;
                    self.inflate.reset(false);
                    if bytes.is_empty() {
                        return;
                    }
                }
                Ok(Status::Ok | Status::BufError) => {
                    if bytes.is_empty() && written < self.buffer.len() {
                        return;
                    }
                    if consumed == 0 && written == 0 {
                        self.lost = Some(Lost::Corrupt);
                    }
                }
            }
        }
    }
}

/// Bounds the messages that come as they are, by the same measure.
pub(super) const fn is_too_large(size: u64) -> bool {
    size > MAX_MESSAGE
}
