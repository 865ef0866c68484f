//! The edge's own door: whoever of this user connects to `run/edge.sock` gets a copy of the
//! listening socket.
//!
//! A root that adopted an edge takes its copy here, so that the port outlives that edge too; and an
//! edge that hands it out is alive.

use std::fs::{self, Permissions};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;

use super::accept::Reserve;
use crate::dial::is_shortage;

const PAUSE: Duration = Duration::from_millis(50);

/// Binds the door anew. The caller holds the edge's lock: a socket file that lies there is nobody's.
///
/// # Errors
/// When the run directory can't be written.
pub fn open(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        Ok(()) | Err(_) => {}
    }
    let door = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(door)
}

/// Hands out copies of `listener` until the future is dropped. Out of descriptors who asks is hung up
/// on: that is no silence, by which he would take us for frozen.
pub async fn serve(door: UnixListener, listener: impl AsFd) {
    let mut reserve = Reserve::new();
    loop {
        match door.accept().await {
            Ok((peer, _)) => {
                // One that does not take it has left.
                let _ = hand_out(&peer, listener.as_fd());
            }
            Err(e) => {
                if is_shortage(&e) {
                    // Who waits is closed at once.
                    poll_fn(|cx| {
                        reserve.lend(|| drop(door.poll_accept(cx)));
                        Poll::Ready(())
                    })
                    .await;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn hand_out(peer: &UnixStream, listener: BorrowedFd<'_>) -> io::Result<()> {
    if peer.peer_cred()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let rights = [listener];
    control.push(SendAncillaryMessage::ScmRights(&rights));
    sendmsg(peer, &[IoSlice::new(b"L")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// The listening socket of the edge that lives behind `path`. Blocks for `patience` at most.
///
/// # Errors
/// When no edge answers.
pub fn ask(path: &Path, patience: Duration) -> io::Result<StdListener> {
    // To a socket whose queue is full, as a frozen edge's is in the end, connecting would block.
    let stream = connect(path, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::empty())?;
    let mut received = control.drain().filter_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut rights) = message { rights.next() } else { None }
    });
    let listener: OwnedFd = received.next().ok_or(io::ErrorKind::UnexpectedEof)?;
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
    Ok(listener.into())
}

/// Like `UnixStream::connect`, but not for longer than `patience`.
///
/// # Errors
/// When nobody takes the connection.
pub fn connect(path: &Path, patience: Duration) -> io::Result<StdStream> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        None,
    )?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Send,
        Some(patience),
    )?;
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn the_socket_that_is_handed_out_is_the_same_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edge.sock");
        assert!(ask(&path, Duration::from_secs(1)).is_err());
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let door = open(&path).unwrap();
        let serving = tokio::spawn(serve(door, listener));
        let copy = tokio::task::spawn_blocking({
            let path = path.clone();
            move || ask(&path, Duration::from_secs(20)).unwrap()
        });
        let copy = copy.await.unwrap();
        assert_eq!(copy.local_addr().unwrap(), addr);
        serving.abort();
        assert!(serving.await.is_err());
        // The first holder is gone, the port is not.
        let waiting = std::net::TcpStream::connect(addr).unwrap();
        assert_eq!(copy.accept().unwrap().1, waiting.local_addr().unwrap());
        // A stale file is replaced.
        drop(open(&path).unwrap());
    }
}
