//! TCP connections to targets: connect rules, the upstream proxy, names, several addresses.
//!
//! Used by the edge and by the tap. Nothing is read beyond the upstream proxy's reply head, so
//! what the target says first is still in the socket.

mod names;
mod past;
mod proxy;

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::{RecvFlags, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{OwnPorts, Upstream, UpstreamProxy};
use crate::near;
use crate::platform::is_local;
use crate::threads;
use past::Way;
pub use past::goes_past;
pub use proxy::is_us;
use proxy::{through, to_proxy};

/// Wait before the next address is tried beside the one under way (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);
/// A probe after so much silence: less than what any router on the way forgets a connection after.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Further probes, when that one has no answer. As the clients' libraries do: else theirs would have given
/// up minutes before us.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
const PROBES: u32 = 5;
/// The same on this machine, where none gets lost.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// How often a client that has said all is looked at, whether it is still there.
pub const LOOK: Duration = Duration::from_secs(30);
const MAX_ADDRESSES: usize = 8;

/// Why a target could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("name not found: {0}")]
    Resolve(#[source] io::Error),
    #[error("name has no address")]
    NoAddress,
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The same, as there is no way to an address that looks to be on the local network.
    #[error("cannot connect: {0}")]
    NoWayNearby(#[source] io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("upstream proxy cannot be reached: {0}")]
    Proxy(#[source] io::Error),
    #[error("upstream proxy refused with status {0}")]
    ProxyStatus(u16),
    /// The schemes that it offers.
    #[error("upstream proxy wants a log-in ({0}){next}", next = proxy::login_hint(.0))]
    ProxyLogin(String),
    #[error("upstream proxy gave no proper answer")]
    ProxyAnswer,
    /// Whatever its name is: all would go round in circles.
    #[error("the upstream proxy is this proxy itself")]
    ProxyIsUs,
}

impl DialError {
    /// Out of descriptors or threads: those in use will be given back.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::Connect(e) => is_shortage(e),
            // The C library's resolver opens files and sockets, and does not always say what failed.
            Self::Resolve(e) | Self::Proxy(e) => {
                is_shortage(e)
                    || (e.raw_os_error().is_none()
                        && File::open("/dev/null").is_err_and(|e| is_shortage(&e)))
            }
            Self::NoAddress
            | Self::NoWayNearby(_)
            | Self::Timeout
            | Self::ProxyStatus(_)
            | Self::ProxyLogin(_)
            | Self::ProxyAnswer
            | Self::ProxyIsUs => false,
        }
    }

    /// No way to the local network, as far as can be told: where the upstream proxy is, is not looked at, as
    /// it is near.
    #[must_use]
    pub fn is_no_way_nearby(&self) -> bool {
        match self {
            Self::NoWayNearby(_) => true,
            Self::Proxy(e) => is_no_way(e),
            Self::Resolve(_)
            | Self::NoAddress
            | Self::Connect(_)
            | Self::Timeout
            | Self::ProxyStatus(_)
            | Self::ProxyLogin(_)
            | Self::ProxyAnswer
            | Self::ProxyIsUs => false,
        }
    }

    /// The status that a proxy gives its client for this.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Timeout | Self::ProxyStatus(504) => 504,
            Self::Resolve(_)
            | Self::NoAddress
            | Self::Connect(_)
            | Self::NoWayNearby(_)
            | Self::Proxy(_)
            | Self::ProxyStatus(_)
            | Self::ProxyLogin(_)
            | Self::ProxyAnswer
            | Self::ProxyIsUs => 502,
        }
    }
}

/// Out of descriptors or threads, we or the whole machine.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
        || threads::is_none(error)
}

/// Whether a write's error says that the other side broke the connection off. Not "broken pipe": it
/// may have closed as it should, and not read on.
#[must_use]
pub fn is_break(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, HostUnreachable, TimedOut};
    matches!(error.kind(), ConnectionReset | TimedOut | HostUnreachable)
}

/// "No route to host": also what macOS says of a local network that is not ours to use.
fn is_no_way(error: &io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error) == Some(Errno::HOSTUNREACH)
}

fn failed(error: io::Error, addresses: &[SocketAddr]) -> DialError {
    if is_no_way(&error) && addresses.iter().any(|addr| is_local(addr.ip())) {
        DialError::NoWayNearby(error)
    } else {
        DialError::Connect(error)
    }
}

/// Connects to `host:port` as the configuration says; `TCP_NODELAY` is set.
pub async fn dial(
    upstream: &Upstream,
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<TcpStream, DialError> {
    dial_by(upstream, upstream.proxy_for(host, port), host, port, deadline).await
}

/// The same by this proxy, or by none: plain HTTP may have another one.
pub async fn dial_by(
    upstream: &Upstream,
    proxy: Option<&UpstreamProxy>,
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<TcpStream, DialError> {
    let end = Instant::now() + deadline;
    let attempt = async {
        if let Some(addr) = upstream.connect_override(host, port) {
            return near::to(addr).await.map_err(|e| failed(e, &[addr]));
        }
        match proxy {
            Some(proxy) => match reach(upstream.own, proxy, host, port, end).await? {
                Way::Proxy(stream) => through(stream, proxy, host, port).await,
                Way::Past(stream) => Ok(stream),
            },
            None => direct(host, port).await,
        }
    };
    within(end, host, attempt).await
}

/// Connects to the upstream proxy itself, for a request that is meant for it; `false`: past it, to the
/// target.
pub async fn dial_proxy(
    own: OwnPorts,
    proxy: &UpstreamProxy,
    host: &str,
    port: u16,
    deadline: Duration,
) -> Result<(TcpStream, bool), DialError> {
    let end = Instant::now() + deadline;
    let mut to_proxy = true;
    let attempt = async {
        match reach(own, proxy, host, port, end).await? {
            Way::Proxy(stream) => Ok(stream),
            Way::Past(stream) => {
                to_proxy = false;
                Ok(stream)
            }
        }
    };
    let stream = within(end, &proxy.host, attempt).await?;
    Ok((stream, to_proxy))
}

async fn reach(
    own: OwnPorts,
    proxy: &UpstreamProxy,
    host: &str,
    port: u16,
    end: Instant,
) -> Result<Way, DialError> {
    if proxy.from_system {
        return past::reach(own, proxy, host, port, end).await;
    }
    match to_proxy(own, proxy).await {
        // As if there were none, which the edge does with one that it knows for us by sight.
        Err(DialError::ProxyIsUs) => direct(host, port).await.map(Way::Past),
        reached @ (Ok(_) | Err(_)) => reached.map(Way::Proxy),
    }
}

/// Where the end of a message head is: after the first empty line. Sans-IO.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadEnd {
    newline: bool,
}

impl HeadEnd {
    /// How many of these bytes belong to the head, once its end is among them.
    pub fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        for (i, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if self.newline => return Some(i + 1),
                b'\n' => self.newline = true,
                b'\r' => {}
                _ => self.newline = false,
            }
        }
        None
    }
}

/// Looks at what has arrived without taking it; waits for the first byte. 0 = end of stream.
pub async fn peek(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    stream.async_io(Interest::READABLE, || peek_now(stream, buffer)).await
}

/// The same, at once: for use inside `try_io` and the like.
pub fn peek_now(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(rustix::net::recv(stream.as_fd(), &mut *buffer, RecvFlags::PEEK)?.0)
}

/// Takes bytes that were seen with [`peek_now`]: they are there.
pub fn take_now(stream: &TcpStream, mut count: usize) -> io::Result<()> {
    let mut sink = [0; 1024];
    while count > 0 {
        let want = count.min(sink.len());
        match rustix::net::recv(
            stream,
            sink.get_mut(..want).unwrap_or_default(),
            RecvFlags::empty(),
        )?
        .0
        {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => count = count.saturating_sub(n),
        }
    }
    Ok(())
}

async fn within(
    end: Instant,
    host: &str,
    attempt: impl Future<Output = Result<TcpStream, DialError>>,
) -> Result<TcpStream, DialError> {
    let stream = timeout_at(end, attempt).await.map_err(|_| {
        names::forget(host);
        DialError::Timeout
    })??;
    // A failure here costs latency only.
    let _ = stream.set_nodelay(true);
    keep_alive(&stream, PROBE_AGAIN);
    Ok(stream)
}

/// For a client that says no more. It may wait for its answer; or it has closed, and its kernel, which
/// forgets such a connection in a minute, then says so when it is asked. The server can't tell: its own
/// keepalive is answered by us.
pub fn watch_half_closed(client: &impl AsFd) {
    keep_alive(client, ASK_AGAIN);
}

/// Whether the kernel has found that nobody is there. It is told once; for a client of which nothing is
/// read any more.
#[must_use]
pub fn is_gone(client: &TcpStream) -> bool {
    matches!(client.take_error(), Ok(Some(_)) | Err(_))
}

/// A client's own keepalive ends at its connection to us. Without one of ours a router on the way
/// forgets a provider that thinks for minutes, and nobody ever notices a peer that is gone.
fn keep_alive(stream: &impl AsFd, again: Duration) {
    // A failure here costs what a client without keepalive never had.
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, again);
    let _ = sockopt::set_tcp_keepcnt(stream, PROBES);
}

async fn direct(host: &str, port: u16) -> Result<TcpStream, DialError> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        let addr = SocketAddr::new(ip, port);
        return near::to(addr).await.map_err(|e| failed(e, &[addr]));
    }
    let addresses = alternate(&names::look_up(host, port).await.map_err(DialError::Resolve)?);
    let outcome = match addresses.as_slice() {
        [] => Err(DialError::NoAddress),
        [only] => near::to(*only).await.map_err(DialError::Connect),
        [first, rest @ ..] => race(*first, rest).await,
    };
    let outcome = match outcome {
        Err(DialError::Connect(e)) => Err(failed(e, &addresses)),
        other @ (Ok(_) | Err(_)) => other,
    };
    if outcome.is_err() {
        names::forget(host);
    }
    outcome
}

/// The resolver's order, but with the address families taking turns.
fn alternate(found: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.iter().partition(|a| a.is_ipv6() == first_is_v6);
    let longest = first.len().max(second.len());
    (0..longest)
        .flat_map(|i| [first.get(i), second.get(i)])
        .flatten()
        .copied()
        .take(MAX_ADDRESSES)
        .collect()
}

/// Starts one attempt after the other, the next one early if one fails; the first to connect wins
/// and the others are dropped. Nearly always the first does, so it gets no task of its own.
async fn race(first: SocketAddr, rest: &[SocketAddr]) -> Result<TcpStream, DialError> {
    let mut attempt = Box::pin(near::to(first));
    let mut attempts = JoinSet::new();
    let mut last_error = None;
    match timeout(STAGGER, &mut attempt).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(e)) => last_error = Some(e),
        Err(_) => {
            attempts.spawn(attempt);
        }
    }
    let mut rest = rest.iter().copied();
    let mut more = true;
    loop {
        if more {
            match rest.next() {
                Some(addr) => {
                    attempts.spawn(Box::pin(near::to(addr)));
                }
                None => more = false,
            }
        }
        let finished = if more {
            match timeout(STAGGER, attempts.join_next()).await {
                Ok(finished) => finished,
                Err(_) => continue,
            }
        } else {
            attempts.join_next().await
        };
        match finished {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(e))) => last_error = Some(e),
            Some(Err(e)) => last_error = Some(io::Error::other(e)),
            None if more => {}
            None => return Err(last_error.map_or(DialError::NoAddress, DialError::Connect)),
        }
    }
}

#[cfg(test)]
#[path = "dial_tests.rs"]
mod tests;
