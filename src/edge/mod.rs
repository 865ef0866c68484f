//! The edge process: takes every connection, never decrypts, always serves.
//!
//! No TLS but in [`secure`], no database, no HTTP client. One thread accepts and decides, one moves the bytes of raw
//! tunnels. A metered host's connection is offered to the
//! daemon as a socket when the daemon is well; whatever is wrong, the bytes flow raw.
//!
//! - A connection: [`accept`], and [`serve`] from its first byte on; what it asks for, [`connect`] and [`head`];
//!   where it goes, [`route`].
//! - To the daemon: whether it is well, [`health`] and [`cache`]; the socket, [`offer`] over [`link`].
//! - Without it: [`tunnel`] in the table of [`tunnels`], each noted in the [`spool`]; plain HTTP, [`forward`]; TLS
//!   for those who left it to their proxy, [`secure`].
//! - The edge itself: [`settings`], [`status`], [`door`]; one image to the next, [`upgrade`] and [`live`].

pub mod accept;
mod answer;
pub mod cache;
mod client;
pub mod connect;
pub mod door;
pub mod extent;
pub mod forward;
mod guest;
pub mod head;
pub mod health;
pub mod link;
pub mod live;
pub mod offer;
pub(crate) mod probe;
pub mod route;
pub mod secure;
pub mod serve;
pub mod settings;
mod signals;
mod socket;
pub mod spool;
pub mod status;
pub(crate) mod takeover;
pub mod tunnel;
pub mod tunnels;
pub mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use slog::Logger;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use cache::{Health, HealthCache};
use live::{Passed, Stage};
use serve::Shared;
use settings::Standing;
use signals::{Signal, Signals};
use spool::Spool;
use status::{Counters, Totals};
use takeover::State;
use tunnel::Summary;
use tunnels::Tunnels;

use crate::config::Loaded;
use crate::descriptors;
use crate::exit::Exit;
use crate::home::{Home, PidLock};
use crate::inherit;
use crate::platform;
use crate::supervisor::journal::Note;
use crate::supervisor::{self, ChildSpec, Journal, Lane, Lanes, Slot, TreeSpec};
use crate::threads;

/// Live tunnels get this long when the edge is asked to end.
pub const DRAIN: Duration = Duration::from_secs(30);
/// For the last words of the tree and the journal.
const LAST: Duration = Duration::from_millis(500);

/// What the edge needs to know.
#[derive(Debug)]
pub struct EdgeOptions {
    pub home: Home,
    pub config: Loaded,
    pub log: Logger,
}

/// Runs the edge until it is asked to end; the process's exit code.
#[must_use]
pub fn main(opts: EdgeOptions) -> Exit {
    // Not actix's own, whose set of local tasks wakes itself through the kernel at each event.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(run(opts)),
        Err(e) => {
            slog::error!(opts.log, "no runtime"; "error" => %e);
            Exit::FAILED
        }
    }
}

async fn run(opts: EdgeOptions) -> Exit {
    let EdgeOptions { home, config: loaded, log } = opts;
    // First of all: what was signalled while the images changed waits for it.
    let signals = Signals::new();
    inherit::hear_signals();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(e) => {
            slog::error!(log, "no signals"; "error" => %e);
            return Exit::FAILED;
        }
    };
    // An unusable home costs the metering, not the traffic.
    if let Err(e) = home.create() {
        slog::warn!(log, "home directory is unusable, serving without it"; "error" => %e);
    }
    // Two of them per tunnel.
    descriptors::raise();
    threads::keep_one();
    let birth = match Inheritance::received(&home, &log) {
        Some(inheritance) => Ok(inheritance),
        None => Inheritance::fresh(&home, loaded.config.edge.addr(), &log),
    };
    let Inheritance { listener, lock, totals, image, stages } = match birth {
        Ok(inheritance) => inheritance,
        Err(code) => return code,
    };
    let journal = Journal::open(&home.journal_file(), "edge");
    let started = Start { totals, image };
    let edge = match Edge::start(&home, loaded, &listener, journal, started, log.clone()) {
        Ok(edge) => edge,
        Err(e) => {
            slog::error!(log, "cannot serve"; "error" => %e);
            return Exit::FAILED;
        }
    };
    edge.go_on(stages);
    let listener = Rc::new(listener);
    let mut serving = edge.accept(&listener);
    let lock = Arc::new(lock);
    let door = edge.open_door(&home, &listener, Arc::clone(&lock));
    platform::release_when_quiet();
    slog::info!(log, "edge serves"; "port" => edge.shared.edge_port, "image" => image);
    loop {
        match signals.next().await {
            Signal::End => break,
            Signal::Reload => settings::reload(&edge.shared),
            Signal::Upgrade => {
                serving = edge.upgrade(&home, &listener, &lock, &signals, serving).await;
            }
        }
    }
    // Closing our copies of the listener is enough: the root holds the port for the next edge,
    // which needs the lock.
    for task in [serving, door] {
        task.abort();
        let _ = task.await;
    }
    drop(listener);
    drop(lock);
    edge.drain().await;
    slog::info!(log, "edge ended");
    Exit::OK
}

/// What an edge begins with.
struct Inheritance {
    listener: TcpListener,
    lock: PidLock,
    totals: Totals,
    image: u64,
    /// Live connections of the last image.
    stages: Vec<Stage>,
}

impl Inheritance {
    /// From the last image of this process, if there was one and it can be understood.
    fn received(home: &Home, log: &Logger) -> Option<Self> {
        let read = || -> io::Result<Option<Self>> {
            let Some(content) = inherit::received()? else { return Ok(None) };
            let (state, stages, left_out) = State::unpack(&content)?;
            let listener = std::net::TcpListener::from(inherit::take(state.listener)?);
            let lock = state.lock.map(inherit::take).transpose()?;
            let file = home.pid_file("edge");
            let lock = match lock {
                Some(fd) => PidLock::inherited(file, fd),
                None => PidLock::untaken(file),
            };
            slog::info!(log, "took over"; "from" => &state.version, "image" => state.image,
                "connections" => stages.len(), "left_out" => left_out);
            Ok(Some(Self {
                listener: TcpListener::from_std(listener)?,
                lock,
                totals: state.totals,
                image: state.image,
                stages,
            }))
        };
        read().unwrap_or_else(|e| {
            slog::error!(log, "cannot take over, starting anew"; "error" => %e);
            None
        })
    }

    /// The exit code if there is nothing to serve.
    fn fresh(home: &Home, addr: SocketAddr, log: &Logger) -> Result<Self, Exit> {
        let file = home.pid_file("edge");
        let lock = match PidLock::acquire(&file) {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                slog::error!(log, "another edge serves this home already");
                return Err(Exit::BUSY);
            }
            Err(e) => {
                slog::warn!(log, "no pid file"; "error" => %e);
                PidLock::untaken(file)
            }
        };
        let listener = accept::listen(addr).map_err(|e| {
            slog::error!(log, "cannot serve"; "error" => %e);
            Exit::BUSY
        })?;
        Ok(Self { listener, lock, totals: Totals::default(), image: 1, stages: Vec::new() })
    }
}

/// Where an edge's counting starts.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub totals: Totals,
    /// Images of this process so far, this one included.
    pub image: u64,
}

impl Default for Start {
    fn default() -> Self {
        Self { totals: Totals::default(), image: 1 }
    }
}

/// The parts of a running edge but the accept loop.
#[derive(Debug)]
pub struct Edge {
    pub shared: Rc<Shared>,
    spooler: Option<thread::JoinHandle<()>>,
    tree: supervisor::Supervisor,
    journal: Journal,
}

impl Edge {
    /// Starts what the connections need; call where `spawn_local` works.
    pub fn start(
        home: &Home,
        Loaded { config, file, .. }: Loaded,
        listener: &TcpListener,
        journal: Journal,
        start: Start,
        log: Logger,
    ) -> io::Result<Self> {
        let edge_port = listener.local_addr()?.port();
        let config = Arc::new(ArcSwap::from_pointee(settings::usable(config, edge_port, &log)));
        let health = Health::new(Arc::clone(&config));
        let tree = tree(&health, &home.control_socket(), journal.clone(), &log);
        health.supervised_by(tree.clone());
        let (spool, write) = Spool::new(home.passthrough_spool());
        // Without it lines are dropped and counted.
        let spooler = thread::Builder::new().name("spool".to_owned()).spawn(write).ok();
        let counters = Arc::new(Counters::resume(start.totals));
        let tunnels = Tunnels::new(account(&counters, &spool))?;
        let shared = Rc::new(Shared {
            home: home.clone(),
            config,
            settings: Standing::begun_with(file),
            edge_port,
            health,
            spool,
            counters,
            tunnels,
            live: Rc::default(),
            upgrades: upgrade::Record::new(start.image),
            secure: secure::Secure::default(),
            instance: Uuid::new_v4(),
            log,
        });
        Ok(Self { shared, spooler, tree, journal })
    }

    /// Serves connections of the last image from where they stood.
    fn go_on(&self, stages: Vec<Stage>) {
        if self.shared.upgrades.image() > 1 {
            let count = stages.len();
            let note = Note::new("upgraded").cause(format!("{count} connections went on"));
            self.journal.append(note);
        }
        for stage in stages {
            tokio::task::spawn_local(serve::serve(Rc::clone(&self.shared), stage));
        }
    }

    fn accept(&self, listener: &Rc<TcpListener>) -> JoinHandle<()> {
        accept::send_at_once(listener);
        let loop_ = accept::accept_all(Rc::clone(listener), Rc::clone(&self.shared));
        tokio::task::spawn_local(loop_)
    }

    /// Without one the root does too; only its own crash and then ours would show it.
    fn open_door(
        &self,
        home: &Home,
        listener: &Rc<TcpListener>,
        lock: Arc<PidLock>,
    ) -> JoinHandle<()> {
        let own = door::Own { home: home.clone(), lock };
        let door = door::bind(&own, &self.shared.log);
        let (log, shared) = (self.shared.log.clone(), Rc::clone(&self.shared));
        let follow = move |now| settings::follow(Rc::clone(&shared), now);
        tokio::task::spawn_local(door::keep(door, own, Rc::clone(listener), follow, log))
    }

    /// Changes to another program in place. Returns only if that was not done: the task that
    /// accepts from now on.
    async fn upgrade(
        &self,
        home: &Home,
        listener: &Rc<TcpListener>,
        lock: &PidLock,
        signals: &Signals,
        serving: JoinHandle<()>,
    ) -> JoinHandle<()> {
        let program = match inherit::requested(home) {
            Ok(program) => upgrade::preflight(&program).await.map(|()| program),
            Err(e) => Err(e.to_string()),
        };
        let (why, serving) = match program {
            Err(why) => (why, serving),
            Ok(program) => {
                slog::info!(self.shared.log, "changing to another program in place";
                    "program" => %program.display());
                self.journal.flush(LAST);
                serving.abort();
                let _ = serving.await;
                let listening = listener.as_fd();
                let why =
                    upgrade::replace(&self.shared, home, &program, listening, lock, signals).await;
                (why, self.accept(listener))
            }
        };
        slog::error!(self.shared.log, "no upgrade, going on as before"; "why" => &why);
        self.journal.append(Note::new("upgrade_refused").cause(&why));
        self.shared.upgrades.refused(&why);
        serving
    }

    /// Lets live connections end, and the spool be written.
    pub async fn drain(self) {
        let open = self.shared.counters.now_open();
        slog::info!(self.shared.log, "draining"; "open" => open);
        let _ = timeout(DRAIN, self.shared.counters.drained()).await;
        let Self { shared, spooler, tree, journal } = self;
        if let Ok(shared) = Rc::try_unwrap(shared) {
            drop(shared);
            let _ = threads::blocking(|| spooler.map(thread::JoinHandle::join)).await;
        }
        let _ = timeout(LAST, tree.shutdown()).await;
        journal.flush(LAST);
    }
}

/// What becomes of a tunnel that has ended.
fn account(counters: &Arc<Counters>, spool: &Spool) -> tunnels::Ended {
    let (counters, spool) = (Arc::clone(counters), spool.clone());
    Box::new(move |summary, passed| {
        if let Some(passed) = passed {
            ended(&counters, &spool, &passed, summary);
        }
    })
}

fn ended(counters: &Counters, spool: &Spool, passed: &Passed, summary: Summary) {
    counters.passed(passed.reason);
    spool.record(passed.line(Some(passed.end(summary))));
}

/// The edge's own tree, on its one thread. It never gives up: without the health cache connections
/// go on by the last verdict. No heartbeat, as an idle edge is to do nothing at all: connections
/// notice when it hangs.
fn tree(
    health: &Arc<Health>,
    socket: &Path,
    journal: Journal,
    log: &Logger,
) -> supervisor::Supervisor {
    let (health, socket) = (Arc::clone(health), socket.to_path_buf());
    let cache = ChildSpec::actor(cache::ID, Slot::default(), move |birth| {
        HealthCache::new(Arc::clone(&health), socket.clone(), birth)
    });
    supervisor::start(
        TreeSpec::new("edge", log.clone(), journal)
            .lanes(Lanes::current())
            .intensity(None)
            .child(cache.lane(Lane::Control).heartbeat(None)),
    )
}

#[cfg(test)]
mod tests;
