//! The edge's port: bound once, kept for as long as the root lives.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use listenfd::ListenFd;

use crate::edge::door;
use crate::inherit::{self, Number};
use crate::platform;

/// Connections that may wait for the next edge.
const BACKLOG: i32 = 1024;
/// For an edge to hand out its socket.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Port {
    pub(super) addr: SocketAddr,
    held: Mutex<Option<TcpListener>>,
}

impl Port {
    pub(super) fn new(addr: SocketAddr) -> Self {
        Self { addr, held: Mutex::new(None) }
    }

    /// Takes a copy from an edge that outlived its last root: it may end before us.
    pub(super) fn adopt(&self, edge_socket: &Path) -> io::Result<()> {
        let listener = door::ask(edge_socket, PATIENCE)?;
        *self.lock() = Some(listener);
        Ok(())
    }

    /// Goes on with the socket that the last image of this process held.
    pub(super) fn resume(&self, listener: TcpListener) {
        *self.lock() = Some(listener);
    }

    /// Lets the socket live on in the next image, or not.
    pub(super) fn leave(&self, inheritable: bool) -> io::Result<Option<Number>> {
        self.lock().as_ref().map(|held| inherit::leave(held, inheritable)).transpose()
    }

    /// Takes the service manager's socket, if there is one: systemd's, else launchd's. True: the port
    /// is held.
    pub(super) fn inherit(&self) -> io::Result<bool> {
        let mut held = self.lock();
        if held.is_none() {
            *held = match ListenFd::from_env().take_tcp_listener(0)? {
                Some(listener) => Some(listener),
                None => platform::activated_socket()?,
            };
        }
        Ok(held.is_some())
    }

    /// A copy of the listening socket; bound by ourselves if there is none yet.
    pub(super) fn listener(&self) -> io::Result<OwnedFd> {
        let mut held = self.lock();
        let listener = match held.take() {
            Some(listener) => listener,
            None => {
                let own = platform::bind(self.addr)?;
                // std's backlog is short; a second listen() on a socket of one's own is allowed.
                rustix::net::listen(&own, BACKLOG)?;
                own
            }
        };
        let copy = held.insert(listener).try_clone()?;
        Ok(copy.into())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TcpListener>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
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
    fn a_port_that_is_taken_is_tried_again_at_the_next_life() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Port::new(other.local_addr().unwrap());
        assert_eq!(port.listener().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        port.listener().unwrap();
    }
}
