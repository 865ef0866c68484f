//! The edge's own door: whoever of this user connects to `run/edge.sock` gets a copy of the
//! listening socket.
//!
//! A root that adopted an edge takes its copy here, so that the port outlives that edge too; and an
//! edge that hands it out is alive. It asks every 2 s, and as we are awake then we look at what is ours in
//! the home. One that is not heard of for longer may not find the door, as when the home was removed: then
//! we look by ourselves.

use std::fs::{self, Permissions};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener as StdListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use slog::Logger;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::accept::Reserve;
use crate::config::Stamp;
use crate::dial::is_shortage;
use crate::home::{Home, Kept, PidLock};
use crate::threads;

/// Longer than the root takes to ask once more, whatever the others that it asks do.
const SILENCE: Duration = Duration::from_secs(5);

/// So often the root asks between two looks: each costs a thread's wake-up, at rest too.
const QUESTIONS: usize = 3;
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

/// What the door belongs to.
#[derive(Clone, Debug)]
pub struct Own {
    pub home: Home,
    pub lock: Arc<PidLock>,
}

/// What a look at the home finds.
#[derive(Debug)]
struct Look {
    /// The door is to be bound anew.
    lost: bool,
    settings: Option<Stamp>,
}

/// A door and where its file is: device and inode.
#[derive(Debug)]
pub struct Bound {
    socket: UnixListener,
    file: Option<Identity>,
}

type Identity = (u64, u64);

/// The door, if it can be bound.
pub fn bind(own: &Own, log: &Logger) -> Option<Bound> {
    let path = own.home.edge_socket();
    let bound = open(&path).map(|socket| Bound { socket, file: identity(&path) });
    bound.inspect_err(|e| slog::warn!(log, "no door for the root"; "error" => %e)).ok()
}

/// Serves the door until the future is dropped, and binds it anew when its file is gone. At each look
/// `follow` is told which settings lie in the home.
pub async fn keep(
    mut door: Option<Bound>,
    own: Own,
    listener: impl AsFd,
    follow: impl AsyncFn(Option<Stamp>),
    log: Logger,
) {
    loop {
        let asked = Notify::new();
        let file = door.as_ref().and_then(|door| door.file);
        let serving = async {
            match &door {
                Some(door) => serve(&door.socket, &listener, &asked).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = serving => {}
            () = lost(&own, file, &asked, &follow) => {}
        }
        let had = door.take().is_some();
        if had {
            slog::warn!(log, "the door's file is gone, binding anew");
        }
        // Said once.
        let quiet = Logger::root(slog::Discard, slog::o!());
        door = bind(&own, if had { &log } else { &quiet });
    }
}

/// Returns when the door is to be bound anew. A look takes a file system's time: on a thread of its own.
async fn lost(
    own: &Own,
    file: Option<Identity>,
    asked: &Notify,
    follow: &impl AsyncFn(Option<Stamp>),
) {
    loop {
        for _ in 0..QUESTIONS {
            // Nobody came: time for a look, as the file may be gone.
            if timeout(SILENCE, asked.notified()).await.is_err() {
                break;
            }
        }
        let own = own.clone();
        let Ok(look) = threads::blocking(move || own.look(file)).await else { continue };
        follow(look.settings).await;
        if look.lost {
            return;
        }
    }
}

impl Own {
    fn look(&self, file: Option<Identity>) -> Look {
        let kept = self.lock.keep();
        if kept == Kept::Anew {
            // The rest of it is for the spool; without, lines are dropped and counted.
            let _ = self.home.create();
        }
        Look {
            lost: is_to_be_bound(kept, file, identity(&self.home.edge_socket())),
            settings: Stamp::of(&self.home.config_file()),
        }
    }
}

/// `file`: the door's; `now`: what is there. Another edge's door is left alone.
fn is_to_be_bound(lock: Kept, file: Option<Identity>, now: Option<Identity>) -> bool {
    match lock {
        Kept::AsBefore | Kept::Anew => now.is_none() || now != file,
        // No lock can be had where a file system knows none.
        Kept::Lost => now.is_none(),
    }
}

fn identity(path: &Path) -> Option<Identity> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino())).ok()
}

/// Hands out copies of `listener` until the future is dropped. Out of descriptors who asks is hung up
/// on: that is no silence, by which he would take us for frozen.
async fn serve(door: &UnixListener, listener: &impl AsFd, asked: &Notify) {
    let mut reserve = Reserve::new();
    loop {
        match door.accept().await {
            Ok((peer, _)) => {
                asked.notify_one();
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
        let serving = tokio::spawn(async move { serve(&door, &listener, &Notify::new()).await });
        let copy = threads::blocking({
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

    #[test]
    fn a_door_is_bound_anew_only_where_it_is_ours() {
        let (old, new) = (Some((1, 1)), Some((1, 2)));
        for ours in [Kept::AsBefore, Kept::Anew] {
            assert!(!is_to_be_bound(ours, old, old));
            assert!(is_to_be_bound(ours, old, None), "removed");
            assert!(is_to_be_bound(ours, old, new), "another one's that is gone");
            assert!(is_to_be_bound(ours, None, None), "it never could be");
        }
        assert!(!is_to_be_bound(Kept::Lost, old, new), "maybe another edge's");
        assert!(is_to_be_bound(Kept::Lost, old, None));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_asked_looks_for_lock_and_door_and_makes_them_anew() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let lock = PidLock::acquire(&home.pid_file("edge")).unwrap().unwrap();
        let own = Own { home: home.clone(), lock: Arc::new(lock) };
        let log = Logger::root(slog::Discard, slog::o!());
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let door = bind(&own, &log);
        let serving = tokio::spawn(keep(door, own.clone(), listener, async |_| {}, log));
        sleep(SILENCE * 2).await;
        // In one step: a look may be under way.
        fs::rename(home.path(), dir.path().join("gone")).unwrap();
        while !home.edge_socket().exists() {
            sleep(SILENCE).await;
        }
        assert_eq!(PidLock::holder(&home.pid_file("edge")).unwrap(), Some(std::process::id()));
        assert!(home.spool_dir().is_dir());
        StdStream::connect(home.edge_socket()).unwrap();
        serving.abort();
    }
}
