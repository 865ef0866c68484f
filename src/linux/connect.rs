//! A connection with an option that `std` has no way to set.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

/// As [`TcpStream::connect_timeout`]; a listener may have its port while it is open, and after it.
pub fn connect_timeout(addr: &SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    match connect(&socket, addr) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            let end = Instant::now() + patience;
            loop {
                let left = end.saturating_duration_since(Instant::now());
                let left = Timespec::try_from(left).map_err(io::Error::other)?;
                match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&left)) {
                    Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(_) => break,
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            sockopt::socket_error(&socket)??;
        }
        Err(e) => return Err(e.into()),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A look from the port that another process is about to listen at.
    #[test]
    fn a_look_keeps_nobody_from_its_own_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let looked = connect_timeout(&listener.local_addr().unwrap(), Duration::from_secs(5));
        let from = looked.as_ref().unwrap().local_addr().unwrap();
        TcpListener::bind(from).unwrap();
        drop(looked);
        TcpListener::bind(from).unwrap();
    }
}
