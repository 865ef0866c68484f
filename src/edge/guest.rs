//! Other people of this machine: whoever can connect to loopback can ask the edge for a tunnel. What they are
//! not lent is the user's log-in at an upstream proxy.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::connect::Target;
use super::route::Asked;
use crate::config::Upstream;
use crate::platform::owner;
use crate::threads;

/// Uids that people get. Those below are the system's, some of which work for whoever calls them (`apt`);
/// those above are most containers' and services'.
const PEOPLE: RangeInclusive<u32> = 1_000..=59_999;

/// Whether this would have us log in for another person. The kernel is asked only if we log in at all. Where
/// it does not tell whose the connection is, nobody is turned away, nor is whom the user let in (`sudo -u`), or
/// who has no login of its own here (a container).
pub async fn would_borrow(
    upstream: &Upstream,
    target: &Target,
    how: Asked,
    ends: impl FnOnce() -> Option<(SocketAddr, SocketAddr)>,
) -> bool {
    if !logs_in(upstream, target, how) {
        return false;
    }
    let own = rustix::process::geteuid().as_raw();
    let client = ends().and_then(|(client, local)| owner::uid(client, local));
    let Some(guest) = client.filter(|uid| is_another_person(*uid, own)) else { return false };
    threads::blocking(move || !owner::was_let_in(guest, own)).await.unwrap_or(false)
}

fn logs_in(upstream: &Upstream, target: &Target, how: Asked) -> bool {
    let (host, port) = (&*target.host, target.port);
    let proxy = match how {
        Asked::Forward => upstream.forwards_to(host, port),
        Asked::Tunnel | Asked::Secure if upstream.connect_override(host, port).is_some() => None,
        Asked::Tunnel | Asked::Secure => upstream.proxy_for(host, port),
    };
    proxy.is_some_and(|proxy| proxy.authorization.is_some())
}

/// A person's edge serves no other person so; one that the system runs serves whoever it was set up for.
fn is_another_person(client: u32, own: u32) -> bool {
    client != own && PEOPLE.contains(&client) && PEOPLE.contains(&own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_from;

    #[test]
    fn another_person_is_one_of_whom_it_is_known() {
        for (client, own, other) in [
            (1001, 1000, true),
            (1000, 1000, false),
            (0, 1000, false),
            (42, 1000, false),
            (65_534, 1000, false),
            (100_033, 1000, false),
            (1001, 0, false),
            (1001, 998, false),
        ] {
            assert_eq!(is_another_person(client, own), other, "{client} {own}");
        }
    }

    #[test]
    fn only_a_way_on_which_we_log_in_is_asked_about() {
        let text = "[upstream]\nproxy = \"http://u:p@proxy.test:3128\"\nno_proxy = [\"near.test\"]\n\
            http_proxy = \"http://proxy.test:3128\"\nconnect = { \"set.test:443\" = \"127.0.0.1:1\" }\n";
        let loaded = load_from(Some(("c.toml".as_ref(), text)), |_| None, &[]);
        assert_eq!(loaded.problems, []);
        let upstream = &loaded.config.upstream;
        for (host, port, how, logs) in [
            ("far.test", 443, Asked::Tunnel, true),
            ("far.test", 443, Asked::Secure, true),
            ("near.test", 443, Asked::Tunnel, false),
            ("set.test", 443, Asked::Tunnel, false),
            ("far.test", 80, Asked::Forward, false),
            ("far.test", 80, Asked::Tunnel, false),
        ] {
            let target = Target { host: host.into(), port };
            assert_eq!(logs_in(upstream, &target, how), logs, "{host}:{port} {how:?}");
        }
    }
}
