//! Connections to ports of this machine where nobody may listen: our own, mostly.
//!
//! Such a connection can come to be one with itself, where the system chooses for its near end the very
//! port that is asked for: it is one of those that it gives to clients, and nobody has it. Nobody answers
//! there, and for a minute after its end whoever wants to listen would not get the port.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpSocket;

use crate::platform;

/// Between two attempts to bind a port, and how many there are before the last.
const PAUSE: Duration = Duration::from_millis(20);
const TRIES: u32 = 5;

/// As [`TcpStream::connect_timeout`]; refused when only the system itself answers.
pub fn connect_timeout(addr: &SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = platform::connect_timeout(addr, patience)?;
    let ends = (stream.local_addr(), stream.peer_addr());
    another(stream, &ends)
}

/// The same in a runtime, for as long as its caller waits.
pub async fn connect(addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if platform::REUSES_PORTS {
        socket.set_reuseaddr(true)?;
    }
    let stream = socket.connect(addr).await?;
    let ends = (stream.local_addr(), stream.peer_addr());
    another(stream, &ends)
}

/// The same to wherever it is. A connection that leaves this machine can't be one with itself, and keeps
/// no port of ours.
pub async fn to(addr: SocketAddr) -> io::Result<tokio::net::TcpStream> {
    if addr.ip().is_loopback() {
        return connect(addr).await;
    }
    tokio::net::TcpStream::connect(addr).await
}

type Ends = (io::Result<SocketAddr>, io::Result<SocketAddr>);

/// The connection, unless it is one with itself.
fn another<S: AsFd>(stream: S, ends: &Ends) -> io::Result<S> {
    if let (Ok(near), Ok(far)) = ends
        && near == far
    {
        // It ends at once, and nothing of it stays.
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

/// Has `bind` bind this address. If that is in use and nobody listens there, a client's connection holds
/// it, maybe for this moment only: it is tried again.
pub fn bound<T>(addr: SocketAddr, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..TRIES {
        match bind() {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_silent(&addr) => {
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
    bind()
}

/// Whether nobody listens there.
#[must_use]
pub fn is_silent(addr: &SocketAddr) -> bool {
    let refused = io::ErrorKind::ConnectionRefused;
    connect_timeout(addr, PAUSE).is_err_and(|e| e.kind() == refused)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use rustix::net::{self, AddressFamily, SocketType};

    use super::*;

    fn to_itself() -> TcpStream {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr: SocketAddr = net::getsockname(&socket).unwrap().try_into().unwrap();
        net::connect(&socket, &addr).unwrap();
        socket.into()
    }

    #[test]
    fn a_connection_with_itself_is_none_and_leaves_the_port_to_who_wants_it() {
        let stream = to_itself();
        let addr = stream.local_addr().unwrap();
        let ends = (stream.local_addr(), stream.peer_addr());
        let refused = another(stream, &ends).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        TcpListener::bind(addr).unwrap();
    }

    #[tokio::test]
    async fn who_listens_is_reached_and_nobody_else_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let reached = connect_timeout(&addr, Duration::from_secs(5)).unwrap();
        let accepted = listener.accept().unwrap();
        assert_eq!(accepted.1, reached.local_addr().unwrap());
        assert_eq!(connect(addr).await.unwrap().peer_addr().unwrap(), addr);
        drop(listener);
        let refused = io::ErrorKind::ConnectionRefused;
        assert_eq!(connect_timeout(&addr, Duration::from_secs(5)).unwrap_err().kind(), refused);
        assert_eq!(connect(addr).await.unwrap_err().kind(), refused);
    }

    #[test]
    fn a_port_that_is_held_for_a_moment_is_had_and_one_with_a_listener_is_not_waited_for() {
        let held = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr: SocketAddr = net::getsockname(&held).unwrap().try_into().unwrap();
        let (mut held, mut tries) = (Some(held), 0);
        let listener = bound(addr, || {
            tries += 1;
            let bound = TcpListener::bind(addr);
            held = held.take().filter(|_| tries < 2);
            bound
        });
        assert_eq!((listener.as_ref().unwrap().local_addr().unwrap(), tries), (addr, 3));
        let taken = bound(addr, || {
            tries += 1;
            TcpListener::bind(addr)
        });
        assert_eq!((taken.unwrap_err().kind(), tries), (io::ErrorKind::AddrInUse, 4));
    }
}
