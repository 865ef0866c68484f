//! What there is to know, without any judgement.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::super::client::Settings;
use crate::selftest::Report;

/// One of our processes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// Of who holds its lock.
    pub pid: Option<u32>,
    /// Stopped by a signal: it holds its lock and does nothing.
    pub suspended: bool,
}

/// How the daemon answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Says {
    Ok,
    Degraded(Vec<String>),
    Foreign,
    Silent,
    Down,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ca {
    /// Why it can't be used.
    pub problem: Option<String>,
    pub days_left: i64,
    /// Ours, and the next one if one waits.
    pub bundle_holds: bool,
    /// A next one was published and does not sign yet.
    pub next_waits: bool,
    /// The running daemon signs with another one.
    pub other_in_daemon: bool,
}

/// What keeps the processes, once `init` has said so.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Keeper {
    pub name: &'static str,
    /// `init` was here and nobody took it back.
    pub installed: bool,
    /// Why it can't be asked.
    pub unreachable: Option<String>,
    pub services: Vec<Kept>,
    /// Ourselves, by path.
    pub own: PathBuf,
}

/// One service.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Kept {
    pub name: &'static str,
    /// What its definition starts; `None`: it has none.
    pub program: Option<PathBuf>,
    pub program_there: bool,
    /// What starts it until the next login, if that is another one; and whether it is there.
    pub known_by: Option<(PathBuf, bool)>,
    pub enabled: bool,
    pub pid: Option<u32>,
    pub last_exit: Option<String>,
    /// Its manager does not start it any more.
    pub refused: bool,
}

/// The way from us to the providers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Upstream {
    /// Of the configuration, and how it answered, if it was asked.
    pub proxy: Option<(String, Result<(), String>)>,
    /// The same for plain HTTP, where that has another one.
    pub http: Option<(String, Result<(), String>)>,
    /// It was the system's and can't be reached: we go past it.
    pub past: bool,
    /// What leads out here, by this shell's variables or the system's setting, and is not our upstream.
    pub ignored: Option<String>,
    /// `upstream.extra_ca_file`: what is wrong with it.
    pub extra_roots: Option<String>,
    /// Who the system trusts to read along.
    pub inspectors: Vec<&'static str>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ledger {
    /// What is wrong, and what to do.
    pub problem: Option<(String, String)>,
    /// There was no time to look at all of it.
    pub unchecked: bool,
    pub bytes: u64,
    /// Of the disk that the home is on.
    pub free: Option<u64>,
}

/// A proxy variable of this shell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ProxyVariable {
    pub name: &'static str,
    /// `host:port`, without any password.
    pub shown: String,
    /// The port on this machine that it names; `None`: it leads elsewhere.
    pub local_port: Option<u16>,
    /// Somebody listens there.
    pub alive: bool,
}

#[derive(Clone, Debug)]
pub struct Facts {
    pub home: PathBuf,
    pub home_problem: Option<String>,
    /// Files and directories that others may read or write.
    pub wide: Vec<PathBuf>,
    /// What processes that are gone have left.
    pub stale: Vec<PathBuf>,
    pub config_problems: Vec<String>,
    /// What the edge has made of the file, after it was told.
    pub settings: Settings,
    /// Variables of ours that nobody reads, in words.
    pub strays: Vec<String>,
    /// The same of prices, names of projects, and budgets.
    pub own_problems: Vec<String>,
    /// Bodies are kept, or are there: in words.
    pub bodies: Option<String>,
    /// Nothing of ours has run here, or it has left nothing.
    pub untouched: bool,
    /// `halton-meter stop` was the last word.
    pub stopped: bool,
    pub root: Process,
    pub edge: Process,
    pub daemon: Process,
    pub watchdog: Process,
    pub edge_addr: SocketAddr,
    pub api_addr: SocketAddr,
    /// The edge itself answers on its port.
    pub edge_answers: bool,
    /// Where it serves instead of there.
    pub edge_elsewhere: Option<SocketAddr>,
    /// Who listens there, if it is not our edge.
    pub edge_port_holder: Option<String>,
    /// Nobody listens there, and a socket has it all the same.
    pub edge_port_unheard: bool,
    /// How the root's latest edge ended, if none served since.
    pub edge_last_exit: Option<String>,
    /// The same for the admin API's, if it is not our daemon.
    pub api_port_holder: Option<String>,
    pub api_port_unheard: bool,
    pub keeper: Option<Keeper>,
    pub upstream: Upstream,
    /// So often there was no way for the edge to an address of the local network, where the system may keep
    /// it from that.
    pub local_network_failures: Option<u64>,
    pub verdict: Option<String>,
    pub says: Says,
    /// How a hello on the control socket went.
    pub control: Result<(), String>,
    pub ca: Ca,
    pub ledger: Ledger,
    /// Why the admin API can't be used with our token.
    pub token: Option<String>,
    /// Who stays raw, in words.
    pub bypass: Vec<String>,
    /// Who stays raw for as long as its connections last, in words.
    pub passing: Vec<String>,
    /// Directories of programs that do not answer, in words.
    pub silent: Vec<String>,
    pub proxies: Vec<ProxyVariable>,
    /// Programs that point at a port of ours where nobody answers: who, and which.
    pub stranded: Vec<(String, SocketAddr)>,
    /// CA variables of this shell that lead to no file.
    pub dangling: Vec<(String, PathBuf)>,
    /// `host:port` of the system-wide proxies that are on.
    pub system_proxies: Vec<String>,
    /// What is in force before them, or instead of them, in words.
    pub other_way: Option<&'static str>,
    /// `init --full` has set it.
    pub proxy_managed: bool,
    /// Seconds since 1970.
    pub clock: i64,
    /// The same, of the latest thing that we have written down.
    pub latest: i64,
    pub selftest: Result<Report, String>,
}
