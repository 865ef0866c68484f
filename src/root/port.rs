//! The edge's port: bound once, kept for as long as the root lives and has an edge to give it to.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use listenfd::ListenFd;
use tokio::task::AbortHandle;

use crate::edge::door;
use crate::inherit::{self, Number};
use crate::near;
use crate::platform;

/// Connections that may wait for the next edge.
const BACKLOG: i32 = 1024;
/// For an edge to hand out its socket.
const PATIENCE: Duration = Duration::from_secs(2);
/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Port {
    pub(super) addr: SocketAddr,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    listener: Option<TcpListener>,
    /// Not bound by us: somebody else may hold it too, so closing it refuses nobody.
    shared: bool,
    turning_away: Option<AbortHandle>,
}

impl Port {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self { addr, held: Mutex::default() }
    }

    /// Takes a copy from an edge that outlived its last root: it may end before us.
    pub(super) fn adopt(&self, edge_socket: &Path) -> io::Result<()> {
        let listener = door::ask(edge_socket, PATIENCE)?;
        let mut held = self.lock();
        (held.listener, held.shared) = (Some(listener), true);
        Ok(())
    }

    /// An edge serves: nobody is turned away, and the port outlives it.
    pub(super) fn keep(&self, edge_socket: &Path) -> io::Result<()> {
        let mut held = self.lock();
        held.turn_nobody_away();
        let lost = held.listener.is_none();
        drop(held);
        if lost { self.adopt(edge_socket) } else { Ok(()) }
    }

    /// No edge is in sight: whoever connects gets an error at once instead of waiting, until the next
    /// start. Our own socket is closed; one that others hold too would let them wait there, so there
    /// each is accepted and hung up on. Runs in a runtime.
    pub(super) fn turn_away(&self) -> io::Result<()> {
        let mut held = self.lock();
        if !held.shared {
            held.listener = None;
        } else if let Some(listener) = &held.listener
            && held.turning_away.is_none()
        {
            let copy = listener.try_clone()?;
            // As each edge does.
            copy.set_nonblocking(true)?;
            let copy = tokio::net::TcpListener::from_std(copy)?;
            held.turning_away = Some(tokio::spawn(hang_up(copy)).abort_handle());
        }
        Ok(())
    }

    /// Goes on with the socket that the last image of this process held.
    pub(super) fn resume(&self, listener: TcpListener, shared: bool) {
        let mut held = self.lock();
        (held.listener, held.shared) = (Some(listener), shared);
    }

    pub(super) fn is_shared(&self) -> bool {
        self.lock().shared
    }

    /// Lets the socket live on in the next image, or not.
    pub(super) fn leave(&self, inheritable: bool) -> io::Result<Option<Number>> {
        self.lock().listener.as_ref().map(|held| inherit::leave(held, inheritable)).transpose()
    }

    /// Takes the service manager's socket, if there is one: systemd's, else launchd's. True: the port
    /// is held.
    pub(super) fn inherit(&self) -> io::Result<bool> {
        let mut held = self.lock();
        if held.listener.is_none() {
            held.listener = match ListenFd::from_env().take_tcp_listener(0)? {
                Some(listener) => Some(listener),
                None => platform::activated_socket()?,
            };
            held.shared = held.listener.is_some();
        }
        Ok(held.listener.is_some())
    }

    /// A copy of the listening socket, for an edge; bound by ourselves if there is none.
    pub(super) fn listener(&self) -> io::Result<OwnedFd> {
        let mut held = self.lock();
        held.turn_nobody_away();
        let listener = match held.listener.take() {
            Some(listener) => listener,
            None => {
                let own = near::bound(self.addr, || platform::bind(self.addr))?;
                // std's backlog is short; a second listen() on a socket of one's own is allowed.
                rustix::net::listen(&own, BACKLOG)?;
                held.shared = false;
                own
            }
        };
        let copy = held.listener.insert(listener).try_clone()?;
        Ok(copy.into())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn turn_nobody_away(&mut self) {
        if let Some(task) = self.turning_away.take() {
            task.abort();
        }
    }
}

async fn hang_up(listener: tokio::net::TcpListener) {
    loop {
        // What was accepted is closed by that.
        if listener.accept().await.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    fn local(fd: &OwnedFd) -> SocketAddr {
        let copy = TcpListener::from(fd.as_fd().try_clone_to_owned().unwrap());
        copy.local_addr().unwrap()
    }

    #[test]
    fn the_port_stays_bound_over_the_lives_of_the_edge() {
        let port = Port::new(([127, 0, 0, 1], 0).into());
        let first = port.listener().unwrap();
        let addr = local(&first);
        drop(first);
        // Nobody accepts, and still nobody is refused.
        let waiting = std::net::TcpStream::connect(addr).unwrap();
        let second = port.listener().unwrap();
        assert_eq!(local(&second), addr);
        let (_, peer) = TcpListener::from(second).accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
        assert!(port.inherit().unwrap(), "held is held, whoever bound it");
    }

    #[test]
    fn without_an_edge_a_port_of_our_own_refuses_until_the_next_start() {
        let port = Port::new(([127, 0, 0, 1], 0).into());
        let addr = local(&port.listener().unwrap());
        let port = Port { addr, ..port };
        let mut waiting = std::net::TcpStream::connect(addr).unwrap();
        port.turn_away().unwrap();
        assert!(waiting.read(&mut [0]).is_err(), "whoever waited waits no more");
        let refused = std::net::TcpStream::connect(addr).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let next = port.listener().unwrap();
        assert_eq!(local(&next), addr);
        std::net::TcpStream::connect(addr).unwrap();
    }

    #[tokio::test]
    async fn on_a_manager_s_socket_each_is_hung_up_on_until_the_next_start() {
        use tokio::io::AsyncReadExt;
        use tokio::net::TcpStream;
        let managers = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = managers.local_addr().unwrap();
        let port = Port::new(addr);
        port.resume(managers.try_clone().unwrap(), true);
        let mut waiting = TcpStream::connect(addr).await.unwrap();
        port.turn_away().unwrap();
        port.turn_away().unwrap();
        assert_eq!(waiting.read(&mut [0]).await.unwrap(), 0);
        let mut later = TcpStream::connect(addr).await.unwrap();
        assert_eq!(later.read(&mut [0]).await.unwrap(), 0);
        let next = TcpListener::from(port.listener().unwrap());
        let served = TcpStream::connect(addr).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(next.accept().unwrap().1, served.local_addr().unwrap(), "it is the edge's");
        port.keep(Path::new("/nowhere")).unwrap();
    }

    #[test]
    fn a_port_that_is_taken_is_tried_again_at_the_next_life() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Port::new(other.local_addr().unwrap());
        assert_eq!(port.listener().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        port.listener().unwrap();
    }
}
