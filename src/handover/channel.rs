//! The channel itself: a Unix stream socket on which descriptors ride (`SCM_RIGHTS`).
//!
//! Both ends refuse a peer of another user. Sending and receiving are cancel-safe: what was
//! started is kept inside and goes on with the next call.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, socket_recv_buffer_size,
    socket_send_buffer_size,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::wire::{Decoder, Frame, WireError, encode};
use super::{ToDaemon, ToEdge};
use crate::dial;

/// The edge's end.
pub type EdgeChannel = Channel<ToDaemon, ToEdge>;
/// The daemon's end.
pub type DaemonChannel = Channel<ToEdge, ToDaemon>;

/// Descriptors that may arrive in one message. The senders here put one on each frame.
const MAX_DESCRIPTORS: usize = 16;
/// Descriptors that may wait for their frame.
const MAX_WAITING: usize = 64;
/// Bytes that may wait for room in the socket; only small answers are ever queued.
const MAX_OUTBOX: usize = 256 * 1024;
const READ_SIZE: usize = 4 * 1024;
/// What each direction of the socket is to hold: macOS gives it 8 KiB, some 38 offers, and an offer that
/// finds no room is not made.
const SOCKET_BUFFER: usize = 256 * 1024;

/// Why the channel is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("control channel: {0}")]
    Io(#[from] io::Error),
    #[error("control channel: {0}")]
    Wire(#[from] WireError),
    #[error("control channel: the peer runs as another user (uid {0})")]
    ForeignPeer(u32),
    #[error("control channel: descriptors are missing or came unasked")]
    Descriptors,
    #[error("control channel: too much is waiting to be sent")]
    Clogged,
}

impl ChannelError {
    /// Out of descriptors: those in use will be given back.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Io(e) => dial::is_shortage(e),
            Self::Wire(_) | Self::ForeignPeer(_) | Self::Descriptors | Self::Clogged => false,
        }
    }
}

/// Why [`Sender::try_send`] did not send.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    /// Nothing of the message went out.
    #[error("control channel is full")]
    Full,
    #[error(transparent)]
    Broken(#[from] ChannelError),
}

/// Both directions of one connection.
#[derive(Debug)]
pub struct Channel<Out, In> {
    sender: Sender<Out>,
    receiver: Receiver<In>,
}

/// The sending half. Owned by one task, or shared under a lock.
#[derive(Debug)]
pub struct Sender<Out> {
    stream: Arc<UnixStream>,
    outbox: VecDeque<u8>,
    message: PhantomData<fn(Out)>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<In> {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    /// `None`: one that found no room in this process.
    descriptors: VecDeque<Option<OwnedFd>>,
    message: PhantomData<fn() -> In>,
}

impl<Out: Frame, In: Frame> Channel<Out, In> {
    pub async fn connect(path: &Path) -> Result<Self, ChannelError> {
        Self::from_stream(UnixStream::connect(path).await?)
    }

    /// Takes an accepted or connected stream; refuses a peer of another user.
    pub fn from_stream(stream: UnixStream) -> Result<Self, ChannelError> {
        let peer = stream.peer_cred()?.uid();
        if peer != rustix::process::geteuid().as_raw() {
            return Err(ChannelError::ForeignPeer(peer));
        }
        widen(&stream);
        let stream = Arc::new(stream);
        Ok(Self {
            sender: Sender {
                stream: Arc::clone(&stream),
                outbox: VecDeque::new(),
                message: PhantomData,
            },
            receiver: Receiver {
                stream,
                decoder: Decoder::default(),
                descriptors: VecDeque::new(),
                message: PhantomData,
            },
        })
    }

    #[must_use]
    pub fn split(self) -> (Sender<Out>, Receiver<In>) {
        (self.sender, self.receiver)
    }

    /// See [`Sender::send`].
    pub async fn send(
        &mut self,
        message: &Out,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        self.sender.send(message, descriptor).await
    }

    /// See [`Receiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<(In, Option<OwnedFd>)>, ChannelError> {
        self.receiver.recv().await
    }
}

/// Never narrower than it is. What the system refuses costs room in a burst only.
fn widen(stream: &UnixStream) {
    if socket_send_buffer_size(stream).is_ok_and(|size| size < SOCKET_BUFFER) {
        let _ = set_socket_send_buffer_size(stream, SOCKET_BUFFER);
    }
    if socket_recv_buffer_size(stream).is_ok_and(|size| size < SOCKET_BUFFER) {
        let _ = set_socket_recv_buffer_size(stream, SOCKET_BUFFER);
    }
}

impl<Out: Frame> Sender<Out> {
    /// Waits until the message is in the socket. The peer gets its own copy of the descriptor.
    /// Cancelled before its first byte went out, the message is not sent at all.
    pub async fn send(
        &mut self,
        message: &Out,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), ChannelError> {
        let frame = encode(message)?;
        loop {
            self.flush().await?;
            match self.start(&frame, descriptor) {
                Ok(()) => return self.flush().await,
                Err(TrySendError::Full) => self.stream.writable().await?,
                Err(TrySendError::Broken(e)) => return Err(e),
            }
        }
    }

    /// Sends at once or not at all; never waits.
    pub fn try_send(
        &mut self,
        message: &Out,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), TrySendError> {
        let frame = encode(message).map_err(ChannelError::from)?;
        self.try_flush()?;
        if self.has_unsent() { Err(TrySendError::Full) } else { self.start(&frame, descriptor) }
    }

    /// For a small message without a descriptor that must not be lost: what finds no room now
    /// waits for [`Sender::flush`].
    pub fn push(&mut self, message: &Out) -> Result<(), ChannelError> {
        match self.try_send(message, None) {
            Ok(()) => Ok(()),
            Err(TrySendError::Broken(e)) => Err(e),
            Err(TrySendError::Full) => {
                let frame = encode(message)?;
                if self.outbox.len() + frame.len() > MAX_OUTBOX {
                    return Err(ChannelError::Clogged);
                }
                self.outbox.extend(frame);
                Ok(())
            }
        }
    }

    #[must_use]
    pub fn has_unsent(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The stream, to wait for room without holding a lock on the sender.
    #[must_use]
    pub fn stream(&self) -> Arc<UnixStream> {
        Arc::clone(&self.stream)
    }

    /// Waits until nothing is unsent.
    pub async fn flush(&mut self) -> Result<(), ChannelError> {
        loop {
            self.try_flush()?;
            if !self.has_unsent() {
                return Ok(());
            }
            self.stream.writable().await?;
        }
    }

    /// Sends of the unsent what finds room.
    pub fn try_flush(&mut self) -> Result<(), ChannelError> {
        while !self.outbox.is_empty() {
            let (front, _) = self.outbox.as_slices();
            match self.stream.try_write(front) {
                Ok(n) => {
                    self.outbox.drain(..n);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The first `sendmsg` of a frame, with the descriptor; the rest waits in the outbox.
    fn start(
        &mut self,
        frame: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<(), TrySendError> {
        let stream = &self.stream;
        let sent = stream.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let rights = descriptor.map(|fd| [fd]);
            if let Some(rights) = &rights
                && !control.push(SendAncillaryMessage::ScmRights(rights))
            {
                return Err(io::Error::other("no room for the descriptor"));
            }
            Ok(sendmsg(stream.as_fd(), &[IoSlice::new(frame)], &mut control, SendFlags::empty())?)
        });
        match sent {
            Ok(n) => {
                self.outbox.extend(frame.get(n..).unwrap_or_default());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || is_full(&e) => {
                Err(TrySendError::Full)
            }
            Err(e) => Err(TrySendError::Broken(e.into())),
        }
    }
}

/// The kernel has no room for one more descriptor in flight; the channel itself is sound.
fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|e| e == Errno::TOOMANYREFS || e == Errno::NOBUFS)
}

impl<In: Frame> Receiver<In> {
    /// The next message, with its descriptor if it carries one, and if we had room for it. `None`: the
    /// peer closed (or died).
    pub async fn recv(&mut self) -> Result<Option<(In, Option<OwnedFd>)>, ChannelError> {
        loop {
            if let Some(next) = self.decoded()? {
                return Ok(Some(next));
            }
            let stream = Arc::clone(&self.stream);
            let read = stream
                .async_io(Interest::READABLE, || {
                    read_some(&stream, &mut self.decoder, &mut self.descriptors)
                })
                .await;
            if !self.keep(read)? {
                return Ok(None);
            }
        }
    }

    /// A message that has arrived already, without waiting.
    pub fn try_recv(&mut self) -> Result<Option<(In, Option<OwnedFd>)>, ChannelError> {
        loop {
            if let Some(next) = self.decoded()? {
                return Ok(Some(next));
            }
            let stream = Arc::clone(&self.stream);
            let read = stream.try_io(Interest::READABLE, || {
                read_some(&stream, &mut self.decoder, &mut self.descriptors)
            });
            match read {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // The end is `recv`'s to report.
                Ok(Read { bytes: 0, .. }) => return Ok(None),
                other => {
                    self.keep(other)?;
                }
            }
        }
    }

    /// Tells the peer that nothing more comes from here.
    pub fn hang_up(&self) {
        // The peer may have closed already.
        let _ = shutdown(&self.stream, Shutdown::Write);
    }

    /// What still comes after an error, up to the end. Its descriptors are closed: it is no longer sure
    /// whose they are.
    pub async fn rest(&mut self) -> Option<In> {
        loop {
            match self.decoder.take_frame::<In>() {
                Ok(Some(message)) => return Some(message),
                // The next one is where its length says.
                Err(WireError::NotAMessage(_)) => continue,
                Err(WireError::TooLong(_)) => return None,
                Ok(None) => {}
            }
            let stream = Arc::clone(&self.stream);
            let read = stream
                .async_io(Interest::READABLE, || {
                    read_some(&stream, &mut self.decoder, &mut self.descriptors)
                })
                .await;
            self.descriptors.clear();
            match read {
                Ok(Read { bytes: 1.., .. }) => {}
                Err(e) if is_left_out(&e) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    fn decoded(&mut self) -> Result<Option<(In, Option<OwnedFd>)>, ChannelError> {
        let Some(message) = self.decoder.take_frame::<In>()? else { return Ok(None) };
        if !message.carries_descriptor() {
            return Ok(Some((message, None)));
        }
        let descriptor = self.descriptors.pop_front().ok_or(ChannelError::Descriptors)?;
        Ok(Some((message, descriptor)))
    }

    /// False at the end of the stream.
    fn keep(&mut self, read: io::Result<Read>) -> Result<bool, ChannelError> {
        let (more, left_out) = match read {
            Ok(read) => (read.bytes > 0, read.left_out),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) if is_left_out(&e) => (true, LeftOut::One),
            Err(e) => return Err(e.into()),
        };
        match left_out {
            LeftOut::None => {}
            // It keeps its place: else each later offer would get another client's socket.
            LeftOut::One => self.descriptors.push_back(None),
            LeftOut::Unknown => return Err(ChannelError::Descriptors),
        }
        if self.descriptors.len() > MAX_WAITING {
            return Err(ChannelError::Descriptors);
        }
        Ok(more)
    }
}

struct Read {
    bytes: usize,
    left_out: LeftOut,
}

/// Descriptors of one read that the kernel could not give us, as we have too many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LeftOut {
    None,
    One,
    Unknown,
}

/// A read ends with the first message that carries descriptors, and the senders here put one on each
/// frame: when none came and some are missing, it is this one that is.
fn left_out(truncated: bool, came: usize) -> LeftOut {
    match (truncated, came) {
        (false, _) => LeftOut::None,
        (true, 0) => LeftOut::One,
        (true, _) => LeftOut::Unknown,
    }
}

/// How macOS says it: this read gave neither bytes nor the descriptor, the next one gives the bytes.
fn is_left_out(error: &io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::MSGSIZE)
}

fn read_some(
    stream: &UnixStream,
    decoder: &mut Decoder,
    descriptors: &mut VecDeque<Option<OwnedFd>>,
) -> io::Result<Read> {
    let mut bytes = [0; READ_SIZE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::empty(),
    )?;
    let mut came = 0;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights {
                rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
                descriptors.push_back(Some(fd));
                came += 1;
            }
        }
    }
    decoder.feed(bytes.get(..got.bytes).unwrap_or_default());
    let left_out = left_out(got.flags.contains(ReturnFlags::CTRUNC), came);
    Ok(Read { bytes: got.bytes, left_out })
}

#[cfg(test)]
#[path = "channel_tests.rs"]
mod tests;
