//! The edge process: takes every connection, never decrypts, always serves.
//!
//! One thread, no TLS, no database, no HTTP client. A metered host's connection is offered to the
//! daemon as a socket when the daemon is well; whatever is wrong, the bytes flow raw.

pub mod accept;
pub mod cache;
pub mod connect;
pub mod forward;
pub mod health;
pub mod link;
pub mod offer;
mod probe;
pub mod route;
pub mod serve;
pub mod spool;
pub mod status;
pub mod tunnel;

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use slog::Logger;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::timeout;
use uuid::Uuid;

use cache::{Health, HealthCache};
use serve::Shared;
use spool::Spool;
use status::Counters;

use crate::config::{self, Config, Loaded, Upstream};
use crate::home::{Home, PidLock};
use crate::supervisor::{self, ChildSpec, Journal, Lane, Lanes, Slot, TreeSpec};

/// Live tunnels get this long when the edge is asked to end.
pub const DRAIN: Duration = Duration::from_secs(30);
/// For the last words of the tree and the journal.
const LAST: Duration = Duration::from_millis(500);

const OK: u8 = 0;
const FAILED: u8 = 1;
/// Another edge serves this home, or another program has the port: trying later may help.
const BUSY: u8 = 75;

/// What the edge needs to know.
#[derive(Debug)]
pub struct EdgeOptions {
    pub home: Home,
    pub config: Loaded,
    pub log: Logger,
}

/// Runs the edge until it is asked to end; the process's exit code.
#[must_use]
pub fn main(opts: EdgeOptions) -> u8 {
    actix::System::new().block_on(run(opts))
}

async fn run(opts: EdgeOptions) -> u8 {
    let EdgeOptions { home, config: loaded, log } = opts;
    // An unusable home costs the metering, not the traffic.
    if let Err(e) = home.create() {
        slog::warn!(log, "home directory is unusable, serving without it"; "error" => %e);
    }
    let lock = match PidLock::acquire(&home.pid_file("edge")) {
        Ok(Some(lock)) => Some(lock),
        Ok(None) => {
            slog::error!(log, "another edge serves this home already");
            return BUSY;
        }
        Err(e) => {
            slog::warn!(log, "no pid file"; "error" => %e);
            None
        }
    };
    accept::raise_descriptor_limit();
    let listener = match accept::listen(loaded.config.edge.addr()) {
        Ok(listener) => listener,
        Err(e) => {
            slog::error!(log, "cannot serve"; "error" => %e);
            return BUSY;
        }
    };
    let journal = Journal::open(&home.journal_file(), "edge");
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(e) => {
            slog::error!(log, "no signals"; "error" => %e);
            return FAILED;
        }
    };
    let edge = match Edge::start(&home, loaded.config, &listener, journal, log.clone()) {
        Ok(edge) => edge,
        Err(e) => {
            slog::error!(log, "cannot serve"; "error" => %e);
            return FAILED;
        }
    };
    let serving = tokio::task::spawn_local(accept::accept_all(listener, Rc::clone(&edge.shared)));
    slog::info!(log, "edge serves"; "port" => edge.shared.edge_port);
    while let Signal::Reload = signals.next().await {
        edge.reload(&home);
    }
    // Closing our copy of the listener is enough: the root holds the port for the next edge, which
    // needs the lock.
    serving.abort();
    let _ = serving.await;
    drop(lock);
    edge.drain().await;
    slog::info!(log, "edge ended");
    OK
}

/// The parts of a running edge but the accept loop.
#[derive(Debug)]
pub struct Edge {
    pub shared: Rc<Shared>,
    spooler: tokio::task::JoinHandle<()>,
    tree: supervisor::Supervisor,
    journal: Journal,
}

impl Edge {
    /// Starts what the connections need; call within a `LocalSet`.
    pub fn start(
        home: &Home,
        config: Config,
        listener: &TcpListener,
        journal: Journal,
        log: Logger,
    ) -> io::Result<Self> {
        let edge_port = listener.local_addr()?.port();
        let config = Arc::new(ArcSwap::from_pointee(usable(config, edge_port, &log)));
        let health = Health::new(Arc::clone(&config));
        let tree = tree(&health, &home.control_socket(), journal.clone(), &log);
        let (spool, write) = Spool::new(home.passthrough_spool());
        let spooler = tokio::spawn(write);
        let shared = Rc::new(Shared {
            home: home.clone(),
            config,
            edge_port,
            health,
            spool,
            counters: Rc::new(Counters::default()),
            instance: Uuid::new_v4(),
            log,
        });
        Ok(Self { shared, spooler, tree, journal })
    }

    /// Takes the file's new state, if all of it is right; else the last good one stays.
    pub fn reload(&self, home: &Home) {
        let log = &self.shared.log;
        let loaded = config::load(&home.config_file(), &[]);
        if loaded.problems.is_empty() {
            let config = usable(loaded.config, self.shared.edge_port, log);
            self.shared.config.store(Arc::new(config));
            slog::info!(log, "configuration reloaded");
        } else {
            report_problems(&loaded, log);
            slog::warn!(log, "configuration kept as it was");
        }
    }

    /// Lets live connections end, and the spool be written.
    pub async fn drain(self) {
        let open = self.shared.counters.now_open();
        slog::info!(self.shared.log, "draining"; "open" => open);
        let _ = timeout(DRAIN, self.shared.counters.drained()).await;
        let Self { shared, spooler, tree, journal } = self;
        if let Ok(shared) = Rc::try_unwrap(shared) {
            drop(shared);
            let _ = spooler.await;
        }
        let _ = timeout(LAST, tree.shutdown()).await;
        journal.flush(LAST);
    }
}

/// The edge's own tree, on its one thread. It never gives up: without the health cache connections
/// go on by the last verdict. No heartbeat: a thread that is stuck serves nobody anyway, and an
/// idle edge is to do nothing at all.
fn tree(
    health: &Arc<Health>,
    socket: &Path,
    journal: Journal,
    log: &Logger,
) -> supervisor::Supervisor {
    let (health, socket) = (Arc::clone(health), socket.to_path_buf());
    let cache = ChildSpec::actor("health_cache", Slot::default(), move |birth| {
        HealthCache::new(Arc::clone(&health), socket.clone(), birth)
    });
    supervisor::start(
        TreeSpec::new("edge", log.clone(), journal)
            .lanes(Lanes::current())
            .intensity(None)
            .child(cache.lane(Lane::Control).heartbeat(None)),
    )
}

/// An upstream proxy that is ourselves would send every connection round in circles.
fn usable(mut config: Config, edge_port: u16, log: &Logger) -> Config {
    let own = route::OwnPorts { edge: edge_port, api: config.daemon.api_port };
    let us = |upstream: &Upstream| {
        upstream.proxy.as_ref().is_some_and(|p| {
            (p.port == own.edge || p.port == own.api) && route::is_loopback(&p.host)
        })
    };
    if us(&config.upstream) {
        slog::warn!(log, "upstream.proxy is this proxy itself: connecting directly");
        config.upstream.proxy = None;
    }
    config
}

fn report_problems(loaded: &Loaded, log: &Logger) {
    for problem in &loaded.problems {
        slog::warn!(log, "configuration"; "problem" => %problem);
    }
}

enum Signal {
    End,
    Reload,
}

/// Signals as bytes on sockets: no thread, and nothing happens in the handler but a write.
struct Signals {
    end: UnixStream,
    reload: UnixStream,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let listen = |signals: &[i32]| {
            let (read, write) = StdUnixStream::pair()?;
            for signal in signals {
                signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
            }
            read.set_nonblocking(true)?;
            UnixStream::from_std(read)
        };
        Ok(Self { end: listen(&[SIGTERM, SIGINT])?, reload: listen(&[SIGHUP])? })
    }

    async fn next(&mut self) -> Signal {
        let (mut a, mut b) = ([0; 16], [0; 16]);
        tokio::select! {
            _ = self.end.read(&mut a) => Signal::End,
            _ = self.reload.read(&mut b) => Signal::Reload,
        }
    }
}

#[cfg(test)]
mod tests;
