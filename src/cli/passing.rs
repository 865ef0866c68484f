//! Which programs are not metered although everything works: what they began while the daemon was away goes
//! on raw for as long as they keep it open. Looked for only when asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Context, client, output};
use crate::log;
use crate::meter::attribution::{Attributor, Found};

/// What to do about a program that does not accept our certificate. Most look in no system's store.
pub const REFUSES: [&str; 3] = [
    "started by `halton-meter run` it has the variables that name our CA (SSL_CERT_FILE, REQUESTS_CA_BUNDLE,",
    "NODE_EXTRA_CA_CERTS …). What reads none of them: docs/clients.md; what reads the system's store:",
    "`halton-meter ca trust`. After either, `halton-meter restart` lets it try again",
];

/// A raw tunnel, as the edge tells of it.
#[derive(Clone, Debug, Deserialize)]
struct Tunnel {
    host: String,
    client: SocketAddr,
}

/// A program that has some.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Passing {
    program: Option<String>,
    pid: Option<u32>,
    hosts: BTreeSet<String>,
}

impl fmt::Display for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.as_deref().map(output::clean);
        f.write_str(program.as_deref().unwrap_or("an unknown program"))?;
        if let Some(pid) = self.pid {
            write!(f, ", pid {pid},")?;
        }
        let hosts: Vec<String> = self.hosts.iter().map(|host| output::clean(host)).collect();
        write!(f, " is unmetered until it connects anew ({})", hosts.join(", "))
    }
}

/// Those that go through our edge.
pub fn programs(ctx: &Context) -> Vec<Passing> {
    let edge = ctx.loaded.config.edge.addr();
    let tunnels = client::edge_passing(ctx).and_then(|told| serde_json::from_value(told).ok());
    let attributor = Attributor::new(log::silent());
    grouped(tunnels.unwrap_or_default(), &|client| match attributor.identify(client, edge) {
        Found::Whole(who) => (who.program, who.pid),
        Found::Unplaced(unplaced) => (unplaced.who().program.clone(), unplaced.who().pid),
    })
}

fn grouped(
    tunnels: Vec<Tunnel>,
    owner: &dyn Fn(SocketAddr) -> (Option<String>, Option<u32>),
) -> Vec<Passing> {
    let mut programs: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for Tunnel { host, client } in tunnels {
        programs.entry(owner(client)).or_default().insert(host);
    }
    let passing = |((program, pid), hosts)| Passing { program, pid, hosts };
    programs.into_iter().map(passing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_is_named_once() {
        let told = serde_json::json!([
            { "host": "b.test", "client": "127.0.0.1:1" },
            { "host": "a.test", "client": "127.0.0.1:2" },
            { "host": "a.test", "client": "127.0.0.1:2" },
            { "host": "a.test", "client": "127.0.0.1:3" },
        ]);
        let owner = |client: SocketAddr| match client.port() {
            3 => (None, None),
            _ => (Some("claude".to_owned()), Some(7)),
        };
        let programs = grouped(serde_json::from_value(told).unwrap(), &owner);
        let said: Vec<_> = programs.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "an unknown program is unmetered until it connects anew (a.test)",
                "claude, pid 7, is unmetered until it connects anew (a.test, b.test)",
            ]
        );
    }
}
