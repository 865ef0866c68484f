//! Another program on the daemon's port: waiting does not bring the port back, and each look is a
//! request to that program.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketType, sockopt};

use super::Context;
use super::client::{self, Health, Tree};
use crate::near;

/// For this long the daemon goes without its port before that is taken for lasting.
const STAYS: Duration = Duration::from_secs(2);
/// Who has a port where [nobody listens](is_unheard).
pub const UNHEARD: &str = "a socket that does not listen, mostly what is left of a client's connection: then it \
    passes by itself within a minute";
/// Between two looks at such a program.
const PACE: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_millis(500);

/// What a command that waits has seen of it.
#[derive(Debug, Default)]
pub struct Intruder {
    since: Option<Instant>,
}

impl Intruder {
    /// Whether there is one that will not go away by itself. What the edge answers is waited for first.
    pub fn stays(&mut self, ctx: &Context, tree: &Tree) -> bool {
        let there = is_there(ctx, tree);
        self.lasts(there, Instant::now(), tried(ctx, tree)) && tree.edge_answer.is_some()
    }

    /// How long to leave it alone.
    pub fn pace(&self) -> Option<Duration> {
        self.since.map(|_| PACE)
    }

    /// `tried`: for how long the daemon has wanted the port. It would have had it before.
    fn lasts(&mut self, there: bool, now: Instant, tried: Duration) -> bool {
        if !there {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since).max(tried) >= STAYS
    }
}

pub fn is_there(ctx: &Context, tree: &Tree) -> bool {
    let api = ctx.loaded.config.daemon.api_addr();
    match tree.health {
        Health::Foreign => true,
        // It may take connections and say nothing. Who it is takes the system a while to tell.
        Health::Silent => match near::connect_timeout(&api, CONNECT) {
            Ok(_) => client::other_listener(api, tree.daemon).is_some(),
            Err(_) => is_unheard(api),
        },
        Health::Ok(_) | Health::Degraded(_) | Health::Down => false,
    }
}

/// Whether a socket has the port that does not listen: nobody can tell whose it is, and we can't have it.
pub fn is_unheard(addr: SocketAddr) -> bool {
    near::is_silent(&addr) && is_held(addr)
}

/// Ours never listens, so that it is in nobody's way.
fn is_held(addr: SocketAddr) -> bool {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let bound = net::socket(family, SocketType::STREAM, None).and_then(|socket| {
        // As the daemon's: connections that have ended don't hold a port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        net::bind(&socket, &addr)
    });
    bound == Err(Errno::ADDRINUSE)
}

fn tried(ctx: &Context, tree: &Tree) -> Duration {
    let began = || fs::metadata(ctx.home.instance_file()).ok()?.modified().ok()?.elapsed().ok();
    tree.daemon.and_then(|_| began()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn a_port_is_held_by_a_socket_that_does_not_listen() {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let addr = net::getsockname(&socket).unwrap().try_into().unwrap();
        assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(is_held(addr) && is_unheard(addr));
        drop(socket);
        assert!(!is_held(addr));
        // What looks at it is in nobody's way.
        let _listens = std::net::TcpListener::bind(addr).unwrap();
        assert!(!is_unheard(addr), "who listens is another matter");
    }

    #[test]
    fn it_stays_once_the_daemon_has_been_without_its_port_for_long() {
        let (begun, young) = (Instant::now(), Duration::from_millis(1));
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut seen = Intruder::default();
        assert!(!seen.lasts(true, at(0), young));
        assert_eq!(seen.pace(), Some(PACE));
        assert!(!seen.lasts(true, at(1), young));
        assert!(seen.lasts(true, at(2), young));
        // It went away: the daemon has the port with its next try.
        assert!(!seen.lasts(false, at(3), STAYS));
        assert_eq!(seen.pace(), None);
        assert!(!seen.lasts(true, at(4), young), "another one");
        assert!(Intruder::default().lasts(true, at(0), STAYS), "there before the command was");
    }
}
