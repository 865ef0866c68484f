//! The root of the process tree: holds the edge's listening socket, restarts what dies.
//!
//! Small on purpose: no TLS, no parsing. When it dies itself, edge, daemon and watchdog go on; the
//! next command starts a new root, which adopts them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child as OsChild, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use slog::Logger;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::actors::process::{ProcessActor, ProcessSpec};
use crate::config::Loaded;
use crate::home::{self, HOME_VAR, Home, PidLock, open_append};
use crate::platform;
use crate::supervisor::{self, Backoff, ChildSpec, Journal, Lanes, Slot, Supervisor, TreeSpec};

/// What the process is started with.
#[derive(Debug)]
pub struct RootOptions {
    pub home: Home,
    pub config: Loaded,
    pub log: Logger,
    /// Stay in the caller's session; children write to the caller's stderr.
    pub foreground: bool,
}

/// Connections that may wait for the next edge.
const BACKLOG: i32 = 1024;
/// A drain takes up to 30 s; then the process is ended.
const DRAINED: Duration = Duration::from_secs(35);

const OK: u8 = 0;
const CANNOT_WRITE: u8 = 73;
/// The port is another program's.
const BUSY: u8 = 75;

/// What the root is told, by signals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    End,
    /// Look again whether the user wants metering.
    Reconcile,
    RestartDaemon,
}

/// Runs the root until it is told to end.
#[must_use]
pub fn main(opts: RootOptions) -> u8 {
    if !opts.foreground {
        // A session of our own: no terminal's hang-up or Ctrl-C ends us. Fails only if we lead one.
        let _ = rustix::process::setsid();
    }
    // Before the lock shows our pid: a SIGHUP in between would end us.
    let (told, orders) = unbounded_channel();
    if let Err(e) = obey_signals(told) {
        slog::crit!(opts.log, "no signals"; "error" => %e);
        return CANNOT_WRITE;
    }
    let lock = match PidLock::acquire(&opts.home.pid_file("root")) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            slog::info!(opts.log, "already running");
            return OK;
        }
        Err(e) => {
            slog::crit!(opts.log, "cannot take the lock"; "error" => %e);
            return CANNOT_WRITE;
        }
    };
    let port = Arc::new(Port::new(opts.config.config.edge.addr()));
    let edge_lives = PidLock::holder(&opts.home.pid_file("edge")).ok().flatten().is_some();
    if !edge_lives && let Err(e) = port.listener() {
        let by = platform::listener_on(port.addr).unwrap_or_else(|| "unknown".to_owned());
        slog::crit!(opts.log, "the edge's port cannot be had";
            "port" => port.addr.port(), "held_by" => by, "error" => %e);
        return BUSY;
    }
    let code = actix::System::new().block_on(run(opts, port, orders));
    drop(lock);
    code
}

async fn run(opts: RootOptions, port: Arc<Port>, mut orders: UnboundedReceiver<Order>) -> u8 {
    let RootOptions { home, log, foreground, .. } = opts;
    let launcher = Arc::new(Launcher { exe: home::own_program(), home: home.clone(), foreground });
    let journal = Journal::open(&home.journal_file(), "root");
    let process = |name: &'static str, listener: Option<Arc<Port>>| {
        let spec = ProcessSpec {
            pid_file: home.pid_file(name),
            start: {
                let launcher = Arc::clone(&launcher);
                Arc::new(move || launcher.start(name, listener.as_deref()))
            },
        };
        ChildSpec::actor(name, Slot::default(), move |birth| ProcessActor::new(birth, spec.clone()))
            .start_deadline(Duration::from_secs(20))
            .shutdown(DRAINED)
    };
    let edge = supervisor::start(
        tree(&log, &journal).child(process("edge", Some(port)).backoff(backoff(20, 2_000))),
    );
    let start_metering = || {
        supervisor::start(
            tree(&log, &journal)
                .child(process("daemon", None).backoff(backoff(100, 30_000)))
                .child(process("watchdog", None).backoff(backoff(100, 30_000))),
        )
    };
    let stopped = home.user_stopped();
    let mut metering: Option<Supervisor> = None;
    let mut code = OK;
    loop {
        match &metering {
            None if !stopped.exists() => metering = Some(start_metering()),
            Some(tree) if stopped.exists() => tree.request_shutdown(),
            Some(_) | None => {}
        }
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Reconcile) => {}
                Some(Order::RestartDaemon) => {
                    slog::info!(log, "daemon restarts");
                    if let Some(tree) = &metering {
                        tree.restart("daemon");
                    }
                }
                Some(Order::End) | None => break,
            },
            () = finished(metering.as_ref()) => metering = None,
            // It never gives up, so this is a fault of ours: whoever starts us again does better.
            _ = edge.finished() => {
                slog::crit!(log, "the edge is no longer supervised");
                code = supervisor::ESCALATED;
                break;
            }
        }
    }
    slog::info!(log, "ending"; "code" => code);
    if let Some(tree) = metering {
        tree.shutdown().await;
    }
    edge.shutdown().await;
    journal.flush(Duration::from_secs(1));
    code
}

/// A tree that never gives up: there is nobody above us who would do better by starting anew.
fn tree(log: &Logger, journal: &Journal) -> TreeSpec {
    TreeSpec::new("root", log.clone(), journal.clone()).intensity(None).lanes(Lanes::current())
}

fn backoff(first: u64, max: u64) -> Backoff {
    let backoff = Backoff::new(Duration::from_millis(first), Duration::from_millis(max));
    Backoff { immediate: true, ..backoff }
}

async fn finished(tree: Option<&Supervisor>) {
    match tree {
        Some(tree) => {
            tree.finished().await;
        }
        None => std::future::pending().await,
    }
}

fn obey_signals(orders: UnboundedSender<Order>) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            let order = match signal {
                SIGHUP => Order::Reconcile,
                SIGUSR1 => Order::RestartDaemon,
                _ => Order::End,
            };
            if orders.send(order).is_err() {
                break;
            }
        }
    })?;
    Ok(())
}

/// The edge's port: bound once, kept for as long as the root lives.
#[derive(Debug)]
struct Port {
    addr: SocketAddr,
    held: Mutex<Option<TcpListener>>,
}

impl Port {
    fn new(addr: SocketAddr) -> Self {
        Self { addr, held: Mutex::new(None) }
    }

    /// A copy of the listening socket: from the service manager, or bound by ourselves.
    fn listener(&self) -> io::Result<OwnedFd> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = match held.take() {
            Some(listener) => listener,
            None => match ListenFd::from_env().take_tcp_listener(0)? {
                Some(inherited) => inherited,
                None => {
                    let own = TcpListener::bind(self.addr)?;
                    // std's backlog is short; a second listen() on a socket of one's own is allowed.
                    rustix::net::listen(&own, BACKLOG)?;
                    own
                }
            },
        };
        let copy = held.insert(listener).try_clone()?;
        Ok(copy.into())
    }
}

/// Starts our processes.
#[derive(Debug)]
struct Launcher {
    exe: io::Result<PathBuf>,
    home: Home,
    foreground: bool,
}

/// Proxy variables are for the user's tools: our processes never go through a proxy by them.
const NOT_FOR_US: [&str; 9] = [
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];
/// Trust of our processes: these must not lead back to our own CA.
const TRUST: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Launcher {
    fn start(&self, process: &str, port: Option<&Port>) -> io::Result<OsChild> {
        let exe = self.exe.as_ref().map_err(|e| io::Error::new(e.kind(), e.to_string()))?;
        let mut command = Command::new(exe);
        command.arg(process).stdin(Stdio::null()).stdout(Stdio::null());
        if !self.foreground
            && let Ok(log) = open_append(&self.home.log_file(process))
        {
            command.stderr(log);
        }
        for name in NOT_FOR_US {
            command.env_remove(name);
        }
        for name in TRUST {
            if std::env::var_os(name)
                .is_some_and(|v| std::path::Path::new(&v).starts_with(self.home.path()))
            {
                command.env_remove(name);
            }
        }
        command.env(HOME_VAR, self.home.path());
        if let Some(port) = port {
            let parent_fd = port.listener()?;
            command
                .env("LISTEN_FDS", "1")
                .fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }])
                .map_err(|e| io::Error::other(e.to_string()))?;
        }
        command.spawn()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn local(fd: &OwnedFd) -> SocketAddr {
        let copy = TcpListener::from(fd.as_fd().try_clone_to_owned().unwrap());
        copy.local_addr().unwrap()
    }

    #[test]
    fn the_port_stays_bound_over_the_lives_of_the_edge() {
        let port = Port::new(([127, 0, 0, 1], 0).into());
        let first = port.listener().unwrap();
        let addr = local(&first);
        drop(first);
        // Nobody accepts, and still nobody is refused.
        let waiting = std::net::TcpStream::connect(addr).unwrap();
        let second = port.listener().unwrap();
        assert_eq!(local(&second), addr);
        let (_, peer) = TcpListener::from(second).accept().unwrap();
        assert_eq!(peer, waiting.local_addr().unwrap());
    }

    #[test]
    fn a_port_that_is_taken_is_tried_again_at_the_next_life() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = Port::new(other.local_addr().unwrap());
        assert_eq!(port.listener().unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        port.listener().unwrap();
    }
}
