//! The listening socket of the admin API. Bound once per process, whatever happens to the actor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

use crate::near;

/// Clones share the socket.
#[derive(Clone, Debug)]
pub struct Port(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    addr: SocketAddr,
    socket: Option<TcpListener>,
}

impl Port {
    /// Nothing is bound yet. Port 0: the first binding decides, and is kept.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(State { addr, socket: None })))
    }

    /// Where we listen, or try to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).addr
    }

    /// A descriptor of the socket; binds it if that has not happened.
    pub fn take(&self) -> io::Result<TcpListener> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = &state.socket {
            return socket.try_clone();
        }
        let socket = near::bound(state.addr, || TcpListener::bind(state.addr))?;
        socket.set_nonblocking(true)?;
        state.addr = socket.local_addr()?;
        let copy = socket.try_clone()?;
        state.socket = Some(socket);
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_bound_once_and_a_taken_port_is_an_error() {
        let port = Port::new(([127, 0, 0, 1], 0).into());
        let first = port.take().unwrap();
        assert_eq!(first.local_addr().unwrap(), port.addr());
        drop(first);
        assert_eq!(port.take().unwrap().local_addr().unwrap(), port.addr());
        let taken = Port::new(port.addr()).take().unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
