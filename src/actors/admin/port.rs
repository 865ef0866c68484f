//! The listening socket of the admin API. Bound once per process, whatever happens to the actor.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};

/// Set to `1` to allow an address that other machines can reach.
pub const ALLOW_NON_LOOPBACK: &str = "HALTON_METER_ALLOW_NON_LOOPBACK";

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
        let allowed = std::env::var(ALLOW_NON_LOOPBACK).is_ok_and(|v| v == "1");
        if !may_bind(state.addr, allowed) {
            let message = format!("{} is not a loopback address", state.addr.ip());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        let socket = TcpListener::bind(state.addr)?;
        socket.set_nonblocking(true)?;
        state.addr = socket.local_addr()?;
        let copy = socket.try_clone()?;
        state.socket = Some(socket);
        Ok(copy)
    }
}

fn may_bind(addr: SocketAddr, allowed: bool) -> bool {
    addr.ip().is_loopback() || allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_unless_the_user_insists() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let open = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(may_bind(local, false));
        assert!(!may_bind(open, false));
        assert!(may_bind(open, true));
    }

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
