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

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::wire::{Decoder, Frame, WireError, encode};
use super::{ToDaemon, ToEdge};

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

/// Why the channel is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("control channel: {0}")]
    Io(#[from] io::Error),
    #[error("control channel: {0}")]
    Wire(#[from] WireError),
    #[error("control channel: the peer runs as another user (uid {0})")]
    ForeignPeer(u32),
    #[error("control channel: descriptors got lost or came unasked")]
    Descriptors,
    #[error("control channel: too much is waiting to be sent")]
    Clogged,
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
    descriptors: VecDeque<OwnedFd>,
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
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || is_shortage(&e) => {
                Err(TrySendError::Full)
            }
            Err(e) => Err(TrySendError::Broken(e.into())),
        }
    }
}

/// The kernel has no room for one more descriptor in flight; the channel itself is sound.
fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|e| e == Errno::TOOMANYREFS || e == Errno::NOBUFS)
}

impl<In: Frame> Receiver<In> {
    /// The next message, with its descriptor if it carries one. `None`: the peer closed (or died).
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

    fn decoded(&mut self) -> Result<Option<(In, Option<OwnedFd>)>, ChannelError> {
        let Some(message) = self.decoder.take_frame::<In>()? else { return Ok(None) };
        if !message.carries_descriptor() {
            return Ok(Some((message, None)));
        }
        let descriptor = self.descriptors.pop_front().ok_or(ChannelError::Descriptors)?;
        Ok(Some((message, Some(descriptor))))
    }

    /// False at the end of the stream.
    fn keep(&self, read: io::Result<Read>) -> Result<bool, ChannelError> {
        let read = match read {
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(false),
            Err(e) => return Err(e.into()),
        };
        // One descriptor lost would give each later offer another client's socket.
        if read.truncated || self.descriptors.len() > MAX_WAITING {
            return Err(ChannelError::Descriptors);
        }
        Ok(read.bytes > 0)
    }
}

struct Read {
    bytes: usize,
    truncated: bool,
}

fn read_some(
    stream: &UnixStream,
    decoder: &mut Decoder,
    descriptors: &mut VecDeque<OwnedFd>,
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
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights {
                rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
                descriptors.push_back(fd);
            }
        }
    }
    decoder.feed(bytes.get(..got.bytes).unwrap_or_default());
    Ok(Read { bytes: got.bytes, truncated: got.flags.contains(ReturnFlags::CTRUNC) })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream as StdStream;

    use uuid::Uuid;

    use super::*;
    use crate::handover::Offer;

    fn pair() -> (EdgeChannel, DaemonChannel) {
        let (a, b) = UnixStream::pair().unwrap();
        (Channel::from_stream(a).unwrap(), Channel::from_stream(b).unwrap())
    }

    fn offer(id: u64) -> ToDaemon {
        let addr = "127.0.0.1:1".parse().unwrap();
        ToDaemon::Offer(Offer {
            id,
            connection: Uuid::nil(),
            host: "h".into(),
            port: 443,
            client: addr,
            local: addr,
            head: None,
        })
    }

    #[tokio::test]
    async fn each_offer_gets_its_own_descriptor() {
        let (edge, mut daemon) = pair();
        let (mut tx, _rx) = edge.split();
        let mut far = Vec::new();
        for id in 0..20 {
            let (near, other) = StdStream::pair().unwrap();
            far.push(other);
            tx.send(&offer(id), Some(near.as_fd())).await.unwrap();
            tx.send(&ToDaemon::Verdict { id, granted: true }, None).await.unwrap();
        }
        for id in 0..20 {
            let (message, fd) = daemon.recv().await.unwrap().unwrap();
            assert_eq!(message, offer(id));
            let fd = fd.unwrap();
            assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            StdStream::from(fd).write_all(&[id as u8]).unwrap();
            let mut got = [0];
            far[id as usize].read_exact(&mut got).unwrap();
            assert_eq!(u64::from(got[0]), id);
            let (message, fd) = daemon.recv().await.unwrap().unwrap();
            assert_eq!(message, ToDaemon::Verdict { id, granted: true });
            assert!(fd.is_none());
        }
    }

    #[tokio::test]
    async fn a_full_channel_says_so_and_loses_nothing() {
        let (edge, mut daemon) = pair();
        let (mut tx, _rx) = edge.split();
        let (near, _far) = StdStream::pair().unwrap();
        let mut sent = 0;
        let full = loop {
            match tx.try_send(&offer(sent), Some(near.as_fd())) {
                Ok(()) => sent += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(full, TrySendError::Full), "{full:?}");
        tx.push(&ToDaemon::Verdict { id: 0, granted: false }).unwrap();
        for id in 0..sent {
            let (message, fd) = daemon.recv().await.unwrap().unwrap();
            assert_eq!(message, offer(id));
            assert!(fd.is_some());
            tx.try_flush().unwrap();
        }
        tx.flush().await.unwrap();
        let (message, _) = daemon.recv().await.unwrap().unwrap();
        assert_eq!(message, ToDaemon::Verdict { id: 0, granted: false });
    }

    #[tokio::test]
    async fn the_end_is_none_and_a_missing_descriptor_an_error() {
        let (edge, mut daemon) = pair();
        let (mut tx, rx) = edge.split();
        tx.send(&offer(1), None).await.unwrap();
        assert!(matches!(daemon.recv().await, Err(ChannelError::Descriptors)));
        drop((tx, rx));
        assert!(daemon.recv().await.unwrap().is_none());
    }
}
