//! The listening socket and the accept loop, which nothing but the end of the process ends.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_nodelay;
use slog::Logger;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

use super::live::{Head, Stage};
use super::serve::{SHORTAGE, Shared, serve};
use crate::config::NON_LOOPBACK_VAR;
use crate::dial::is_shortage;

const BACKLOG: u32 = 1024;
const BACKOFF: Duration = Duration::from_millis(20);

/// Why there is no socket to serve.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("the inherited socket is of no use: {0}")]
    Inherited(#[source] io::Error),
    #[error("{0} is not a loopback address")]
    NotLoopback(SocketAddr),
}

/// The socket that the root, systemd or launchd holds for us, else one of our own.
///
/// An inherited socket is shared: it is never listened on again and never shut down.
pub fn listen(addr: SocketAddr) -> Result<TcpListener, ListenError> {
    let mut given = listenfd::ListenFd::from_env();
    let listener = match given.take_tcp_listener(0).map_err(ListenError::Inherited)? {
        Some(inherited) => {
            adopt(&inherited).map_err(ListenError::Inherited)?;
            TcpListener::from_std(inherited).map_err(ListenError::Inherited)?
        }
        None => bind(addr).map_err(|source| ListenError::Bind { addr, source })?,
    };
    let actual = listener.local_addr().map_err(ListenError::Inherited)?;
    let allowed = std::env::var_os(NON_LOOPBACK_VAR).is_some_and(|v| v == "1");
    if actual.ip().is_loopback() || allowed {
        Ok(listener)
    } else {
        Err(ListenError::NotLoopback(actual))
    }
}

/// Has what is accepted from here on send at once.
pub fn send_at_once(listener: &TcpListener) {
    // A failure costs latency only.
    let _ = set_tcp_nodelay(listener, true);
}

/// Accepts for ever. Drop the future to stop.
pub async fn accept_all(listener: Rc<TcpListener>, shared: Rc<Shared>) {
    let mut reserve = Reserve::new();
    let mut short_since = None;
    let mut told = false;
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                (short_since, told) = (None, false);
                let stage = Stage::Head(Box::new(Head::new(client)));
                tokio::task::spawn_local(serve(Rc::clone(&shared), stage));
            }
            Err(e) => match trouble(&e, short_since, Instant::now()) {
                Trouble::ThisClient => {}
                Trouble::Wait => {
                    if !std::mem::replace(&mut told, true) {
                        warn(&shared.log, &e);
                    }
                    if is_shortage(&e) {
                        short_since.get_or_insert_with(Instant::now);
                    }
                    sleep(BACKOFF).await;
                }
                Trouble::Shed => {
                    // Not a wait: the queue may be empty (the kernel looks for a descriptor first),
                    // and who comes later may find room again.
                    poll_fn(|cx| {
                        reserve.lend(|| {
                            if let Poll::Ready(Ok((client, _))) = listener.poll_accept(cx) {
                                shed(&client);
                            }
                        });
                        Poll::Ready(())
                    })
                    .await;
                    sleep(BACKOFF).await;
                }
            },
        }
    }
}

/// A descriptor kept for when there is no other.
pub(super) struct Reserve(Option<File>);

impl Reserve {
    pub(super) fn new() -> Self {
        Self(File::open("/dev/null").ok())
    }

    /// There is one to be had during `work`, which must give it back.
    pub(super) fn lend(&mut self, work: impl FnOnce()) {
        drop(self.0.take());
        work();
        *self = Self::new();
    }
}

/// What a failed accept calls for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trouble {
    /// That client left again; the next one counts.
    ThisClient,
    /// Clients wait in the kernel's queue meanwhile.
    Wait,
    /// It lasts: use the descriptor in reserve to say so.
    Shed,
}

fn trouble(error: &io::Error, short_since: Option<Instant>, now: Instant) -> Trouble {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    let left = [Errno::CONNABORTED, Errno::INTR, Errno::PROTO, Errno::PERM, Errno::CONNRESET];
    // On macOS accept succeeds for a client that has reset, with no address: mio's word, without an errno.
    let nobody = errno.is_none() && error.kind() == io::ErrorKind::InvalidInput;
    if nobody || errno.is_some_and(|e| left.contains(&e)) {
        return Trouble::ThisClient;
    }
    let lasts = short_since.is_some_and(|since| now.duration_since(since) >= SHORTAGE);
    if lasts && is_shortage(error) { Trouble::Shed } else { Trouble::Wait }
}

fn shed(client: &TcpStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 39\r\n\
        Connection: close\r\n\r\nhalton-meter: too many open connections";
    // The client just connected: there is room for these bytes.
    let _ = rustix::net::send(client.as_fd(), answer, rustix::net::SendFlags::empty());
}

fn warn(log: &Logger, error: &io::Error) {
    slog::warn!(log, "cannot accept, trying again"; "error" => %error);
}

fn adopt(socket: &std::net::TcpListener) -> io::Result<()> {
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
    socket.set_nonblocking(true)
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use command_fds::{CommandFdExt, FdMapping};
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn only_loopback_is_listened_on_unless_the_user_says_so() {
        const TEST: &str =
            "edge::accept::tests::only_loopback_is_listened_on_unless_the_user_says_so";
        if std::env::var_os("LISTEN_FDS").is_some() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let _entered = runtime.as_ref().unwrap().enter();
            match listen(([127, 0, 0, 1], 0).into()) {
                Ok(listener) => println!("listens on {}", listener.local_addr().unwrap()),
                Err(e) => println!("refused: {e}"),
            }
            return;
        }
        for (address, allowed, said) in [
            ("0.0.0.0:0", None, "refused: ADDR is not a loopback address"),
            ("0.0.0.0:0", Some("0"), "refused: ADDR is not a loopback address"),
            ("0.0.0.0:0", Some("1"), "listens on ADDR"),
            ("127.0.0.1:0", None, "listens on ADDR"),
        ] {
            let socket = std::net::TcpListener::bind(address).unwrap();
            let said = said.replace("ADDR", &socket.local_addr().unwrap().to_string());
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args([TEST, "--exact", "--nocapture"]).env("LISTEN_FDS", "1");
            command.env_remove("LISTEN_PID").env_remove(NON_LOOPBACK_VAR);
            command.envs(allowed.map(|value| (NON_LOOPBACK_VAR, value)));
            let mapping = FdMapping { parent_fd: socket.into(), child_fd: 3 };
            let output = command.fd_mappings(vec![mapping]).unwrap().output().unwrap();
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && shown.contains(&said), "{said}: {output:?}");
        }
    }

    #[test]
    fn no_error_ends_the_loop() {
        let now = Instant::now();
        let of = |errno: Errno, since| trouble(&errno.into(), since, now + SHORTAGE);
        assert_eq!(of(Errno::CONNABORTED, None), Trouble::ThisClient);
        assert_eq!(of(Errno::MFILE, None), Trouble::Wait);
        assert_eq!(of(Errno::MFILE, Some(now)), Trouble::Shed);
        // Who waits for a descriptor waits as long in the queue as behind it.
        let still = Some(now + Duration::from_millis(1));
        assert_eq!(of(Errno::NFILE, still), Trouble::Wait);
        assert_eq!(SHORTAGE, Duration::from_secs(10), "as the documents say");
        assert_eq!(of(Errno::INVAL, Some(now)), Trouble::Wait);
        assert_eq!(of(Errno::NOBUFS, Some(now)), Trouble::Wait);
        let no_address = io::ErrorKind::InvalidInput.into();
        assert_eq!(trouble(&no_address, Some(now), now + SHORTAGE), Trouble::ThisClient);
    }
}
