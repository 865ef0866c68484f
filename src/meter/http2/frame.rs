//! HTTP/2 frames of one direction, read piecewise: nothing but header blocks is collected.

use crate::meter::http::GaveUp;

use super::hpack::MAX_BLOCK;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;

/// What the reader saw.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Seen<'b> {
    /// A piece of a DATA frame's content; may be empty when it is the `end` of the stream.
    Data {
        stream: u32,
        data: &'b [u8],
        end: bool,
    },
    /// A header block is whole; it is [`Reader::block`].
    Block {
        stream: u32,
        end_stream: bool,
        promise: bool,
    },
    TableSize(u32),
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        last: u32,
        code: u32,
    },
}

/// Reads the frames of one direction.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    /// Frame header, or the fixed fields at the start of a payload.
    scratch: [u8; 9],
    filled: usize,
    block: Vec<u8>,
    /// The header block being collected, until END_HEADERS.
    open_block: Option<OpenBlock>,
    /// A side's first frame is SETTINGS, or this is not HTTP/2.
    started: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Preface {
        seen: usize,
    },
    Header,
    /// Fixed fields of `frame` are being collected.
    Fixed {
        frame: Frame,
        need: usize,
    },
    Payload {
        frame: Frame,
    },
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    flags: u8,
    stream: u32,
    /// Payload bytes still to come, padding included.
    left: u32,
    padding: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    PushPromise,
    GoAway,
    Continuation,
    /// PRIORITY, PING, WINDOW_UPDATE and unknown ones: nothing to learn.
    Skipped,
}

#[derive(Clone, Copy, Debug)]
struct OpenBlock {
    stream: u32,
    end_stream: bool,
    promise: bool,
}

impl Reader {
    pub(super) const fn new(with_preface: bool) -> Self {
        Self {
            state: if with_preface { State::Preface { seen: 0 } } else { State::Header },
            scratch: [0; 9],
            filled: 0,
            block: Vec::new(),
            open_block: None,
            started: false,
        }
    }

    /// In the middle of a frame, of the preface or of a header block.
    pub(super) const fn is_within(&self) -> bool {
        match self.state {
            State::Preface { seen } => seen > 0,
            State::Header => self.filled > 0 || self.open_block.is_some(),
            State::Fixed { .. } | State::Payload { .. } => true,
        }
    }

    /// The header block that [`Seen::Block`] announced.
    pub(super) fn take_block(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.block)
    }

    /// Gives the block's memory back for the next one.
    pub(super) fn reuse(&mut self, mut block: Vec<u8>) {
        if block.capacity() <= 16 * 1024 {
            block.clear();
            self.block = block;
        }
    }

    /// Takes some of non-empty `bytes`; returns what that completed, and the rest.
    pub(super) fn step<'b>(
        &mut self,
        bytes: &'b [u8],
    ) -> Result<(Option<Seen<'b>>, &'b [u8]), GaveUp> {
        match self.state {
            State::Preface { seen } => {
                let want = PREFACE.get(seen..).unwrap_or_default();
                let n = want.len().min(bytes.len());
                if bytes.get(..n) != want.get(..n) {
                    return Err(GaveUp::UnknownProtocol);
                }
                self.state =
                    if n == want.len() { State::Header } else { State::Preface { seen: seen + n } };
                Ok((None, bytes.get(n..).unwrap_or_default()))
            }
            State::Header => {
                let rest = self.fill(bytes, 9);
                if self.filled < 9 {
                    return Ok((None, rest));
                }
                self.filled = 0;
                let frame = self.frame_header()?;
                Ok((self.enter(frame)?, rest))
            }
            State::Fixed { frame, need } => {
                let rest = self.fill(bytes, need);
                if self.filled < need {
                    return Ok((None, rest));
                }
                self.filled = 0;
                Ok((self.fixed(frame, need)?, rest))
            }
            State::Payload { frame } => self.payload(frame, bytes),
        }
    }

    fn fill<'b>(&mut self, bytes: &'b [u8], need: usize) -> &'b [u8] {
        let room = self.scratch.get_mut(self.filled..need).unwrap_or_default();
        let n = room.len().min(bytes.len());
        let (now, rest) = bytes.split_at_checked(n).unwrap_or((bytes, &[]));
        for (to, from) in room.iter_mut().zip(now) {
            *to = *from;
        }
        self.filled += n;
        rest
    }

    fn frame_header(&mut self) -> Result<Frame, GaveUp> {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = self.scratch;
        let left = u32::from_be_bytes([0, l2, l1, l0]);
        let stream = u32::from_be_bytes([s3 & 0x7f, s2, s1, s0]);
        let kind = match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            4 => Kind::Settings,
            5 => Kind::PushPromise,
            7 => Kind::GoAway,
            9 => Kind::Continuation,
            _ => Kind::Skipped,
        };
        if !std::mem::replace(&mut self.started, true) && kind != Kind::Settings {
            return Err(GaveUp::UnknownProtocol);
        }
        match (self.open_block, kind) {
            (None, Kind::Continuation) => return Err(GaveUp::BadFraming),
            (Some(open), Kind::Continuation) if open.stream == stream => {}
            (Some(_), _) => return Err(GaveUp::BadFraming),
            (None, _) => {}
        }
        Ok(Frame { kind, flags, stream, left, padding: 0 })
    }

    /// After a frame header: says which fixed fields come first.
    fn enter<'b>(&mut self, frame: Frame) -> Result<Option<Seen<'b>>, GaveUp> {
        let padded = usize::from(frame.flags & PADDED != 0);
        let need = match frame.kind {
            Kind::Data => padded,
            Kind::Headers => padded + if frame.flags & PRIORITY == 0 { 0 } else { 5 },
            Kind::PushPromise => padded + 4,
            Kind::Reset => 4,
            Kind::GoAway => 8,
            // One entry at a time.
            Kind::Settings if frame.left > 0 => 6,
            Kind::Settings | Kind::Continuation | Kind::Skipped => 0,
        };
        if matches!(frame.kind, Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Reset)
            && frame.stream == 0
        {
            return Err(GaveUp::BadFraming);
        }
        match frame.kind {
            Kind::Headers | Kind::PushPromise => {
                self.block.clear();
                self.open_block = Some(OpenBlock {
                    stream: frame.stream,
                    end_stream: frame.kind == Kind::Headers && frame.flags & END_STREAM != 0,
                    promise: frame.kind == Kind::PushPromise,
                });
            }
            Kind::Data
            | Kind::Reset
            | Kind::Settings
            | Kind::GoAway
            | Kind::Continuation
            | Kind::Skipped => {}
        }
        if need == 0 {
            return self.go_on(frame);
        }
        // `need` is at most 8.
        let Some(left) = frame.left.checked_sub(need as u32) else {
            return Err(GaveUp::BadFraming);
        };
        self.state = State::Fixed { frame: Frame { left, ..frame }, need };
        Ok(None)
    }

    /// The fixed fields are in `scratch`.
    fn fixed<'b>(&mut self, mut frame: Frame, need: usize) -> Result<Option<Seen<'b>>, GaveUp> {
        let [a, b, c, d, e, f, g, h, _] = self.scratch;
        let seen = match frame.kind {
            Kind::Data | Kind::Headers | Kind::PushPromise => {
                frame.padding = if frame.flags & PADDED == 0 { 0 } else { u32::from(a) };
                if frame.padding > frame.left {
                    return Err(GaveUp::BadFraming);
                }
                None
            }
            Kind::Reset => {
                Some(Seen::Reset { stream: frame.stream, code: u32::from_be_bytes([a, b, c, d]) })
            }
            Kind::GoAway => Some(Seen::GoAway {
                last: u32::from_be_bytes([a & 0x7f, b, c, d]),
                code: u32::from_be_bytes([e, f, g, h]),
            }),
            Kind::Settings => {
                let size = u32::from_be_bytes([c, d, e, f]);
                let relevant = frame.flags & ACK == 0
                    && u16::from_be_bytes([a, b]) == SETTINGS_HEADER_TABLE_SIZE;
                let seen = relevant.then_some(Seen::TableSize(size));
                if frame.left > 0 {
                    let Some(left) = frame.left.checked_sub(need as u32) else {
                        return Err(GaveUp::BadFraming);
                    };
                    self.state = State::Fixed { frame: Frame { left, ..frame }, need };
                    return Ok(seen);
                }
                seen
            }
            Kind::Continuation | Kind::Skipped => None,
        };
        // Whoever has something to say here has nothing to say at the end of the frame.
        Ok(seen.or(self.go_on(frame)?))
    }

    /// On to the payload, or to the next frame when there is none left.
    fn go_on<'b>(&mut self, frame: Frame) -> Result<Option<Seen<'b>>, GaveUp> {
        if frame.left > 0 {
            self.state = State::Payload { frame };
            return Ok(None);
        }
        self.state = State::Header;
        match frame.kind {
            Kind::Data if frame.flags & END_STREAM != 0 => {
                Ok(Some(Seen::Data { stream: frame.stream, data: &[], end: true }))
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation
                if frame.flags & END_HEADERS != 0 =>
            {
                let open = self.open_block.take().ok_or(GaveUp::BadFraming)?;
                let OpenBlock { stream, end_stream, promise } = open;
                Ok(Some(Seen::Block { stream, end_stream, promise }))
            }
            Kind::Data
            | Kind::Headers
            | Kind::PushPromise
            | Kind::Continuation
            | Kind::Reset
            | Kind::Settings
            | Kind::GoAway
            | Kind::Skipped => Ok(None),
        }
    }

    fn payload<'b>(
        &mut self,
        mut frame: Frame,
        bytes: &'b [u8],
    ) -> Result<(Option<Seen<'b>>, &'b [u8]), GaveUp> {
        let content = frame.left - frame.padding.min(frame.left);
        // Content first, then padding: never both in one step.
        let want = if content > 0 { content } else { frame.left } as usize;
        let (now, rest) = bytes.split_at_checked(want).unwrap_or((bytes, &[]));
        // `now` is no longer than `want`, which came from a u32.
        frame.left -= now.len() as u32;
        if content == 0 {
            return Ok((self.go_on(frame)?, rest));
        }
        match frame.kind {
            Kind::Data => {
                let end = self.go_on(frame)?.is_some();
                Ok((Some(Seen::Data { stream: frame.stream, data: now, end }), rest))
            }
            Kind::Headers | Kind::PushPromise | Kind::Continuation => {
                if self.block.len() + now.len() > MAX_BLOCK {
                    return Err(GaveUp::HeadTooLarge);
                }
                self.block.extend_from_slice(now);
                Ok((self.go_on(frame)?, rest))
            }
            Kind::Reset | Kind::Settings | Kind::GoAway | Kind::Skipped => {
                Ok((self.go_on(frame)?, rest))
            }
        }
    }
}
