//! Names to addresses: the system's resolver, asked once for a burst of connections.
//!
//! A tool opens several connections to its provider at a time, and the resolver of the C library
//! keeps nothing: each would read files and may ask the network again. An answer is good for
//! seconds, and only as long as it leads somewhere.

mod searches;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use searches::Searches;

/// How long an answer is used again.
const FRESH: Duration = Duration::from_secs(5);
const MAX_ANSWERS: usize = 64;

static RECENT: Mutex<Vec<Answer>> = Mutex::new(Vec::new());
static SEARCHES: Searches = Searches::new(ask);

struct Answer {
    host: Box<str>,
    at: Instant,
    /// Without a port. Whole, as a link-local one leads nowhere without its scope.
    addresses: Box<[SocketAddr]>,
}

/// The addresses of a name in the resolver's order, each once.
///
/// # Errors
/// When the resolver knows none.
pub async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = if is_localhost(host) {
        // RFC 6761: nobody need be asked.
        vec![(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()]
    } else if let Some(known) = recall(&lock(), host, Instant::now()) {
        known
    } else {
        let found = SEARCHES.find(host).await?;
        remember(&mut lock(), host, &found, Instant::now());
        found
    };
    addresses.iter_mut().for_each(|addr| addr.set_port(port));
    Ok(addresses)
}

/// The C library's resolver; it blocks.
fn ask(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(each_once((host, 0).to_socket_addrs()?))
}

fn each_once(answer: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for addr in answer {
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    found
}

/// Its addresses led nowhere: the next one asks again.
pub fn forget(host: &str) {
    lock().retain(|answer| !answer.host.eq_ignore_ascii_case(host));
}

fn is_localhost(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or(name);
    last.eq_ignore_ascii_case("localhost")
}

fn recall(answers: &[Answer], host: &str, now: Instant) -> Option<Vec<SocketAddr>> {
    let answer = answers.iter().find(|answer| answer.host.eq_ignore_ascii_case(host))?;
    (now.saturating_duration_since(answer.at) < FRESH).then(|| answer.addresses.to_vec())
}

fn remember(answers: &mut Vec<Answer>, host: &str, addresses: &[SocketAddr], now: Instant) {
    answers.retain(|answer| {
        now.saturating_duration_since(answer.at) < FRESH && !answer.host.eq_ignore_ascii_case(host)
    });
    if !addresses.is_empty() && answers.len() < MAX_ANSWERS {
        answers.push(Answer { host: host.into(), at: now, addresses: addresses.into() });
    }
}

fn lock() -> MutexGuard<'static, Vec<Answer>> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_for_seconds() {
        let (mut answers, t0) = (Vec::new(), Instant::now());
        let ip = [SocketAddr::from(([192, 0, 2, 1], 0))];
        remember(&mut answers, "Api.Example", &ip, t0);
        assert_eq!(recall(&answers, "api.example", t0).as_deref(), Some(&ip[..]));
        assert_eq!(recall(&answers, "other.example", t0), None);
        assert_eq!(recall(&answers, "api.example", t0 + FRESH), None);
        remember(&mut answers, "other.example", &ip, t0 + FRESH);
        assert_eq!(answers.len(), 1, "what is old is not kept");
        remember(&mut answers, "none.example", &[], t0 + FRESH);
        assert_eq!(answers.len(), 1, "no address is no answer");
    }

    /// Two interfaces may each have a neighbour of the same link-local address.
    #[test]
    fn an_address_keeps_its_scope() {
        let ip = "fe80::1".parse().unwrap();
        let [en0, en1] = [4, 5].map(|scope| std::net::SocketAddrV6::new(ip, 0, 0, scope).into());
        let found = each_once([en0, en1, en0].into_iter());
        assert_eq!(found, [en0, en1]);
        let (mut answers, t0) = (Vec::new(), Instant::now());
        remember(&mut answers, "gpu.local", &found, t0);
        assert_eq!(recall(&answers, "gpu.local", t0), Some(found));
    }

    #[test]
    fn the_answers_are_bounded() {
        let (mut answers, t0) = (Vec::new(), Instant::now());
        for i in 0..200 {
            let ip = [SocketAddr::from(([192, 0, 2, 1], 0))];
            remember(&mut answers, &format!("h{i}.example"), &ip, t0);
        }
        assert_eq!(answers.len(), MAX_ANSWERS);
    }

    #[tokio::test]
    async fn localhost_is_known() {
        for name in ["localhost", "LocalHost.", "api.localhost"] {
            let found = look_up(name, 7).await.unwrap();
            assert_eq!(found, ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        }
        assert!(!is_localhost("localhost.example") && !is_localhost("notlocalhost"));
    }
}
