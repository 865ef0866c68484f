//! The root of the process tree: holds the edge's listening socket, restarts what dies.
//!
//! Small on purpose: no TLS, no parsing. When it dies itself, edge, daemon and watchdog go on; the
//! next command starts a new root, which adopts them.

mod alive;
mod launcher;
mod port;
mod starts;
mod upgrade;
mod ward;

use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use slog::Logger;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

pub use starts::HOPELESS;
pub use upgrade::FORMAT;

use launcher::Launcher;
use port::Port;

use crate::actors::process::{Answer, Asker, Drain, ProcessActor, ProcessSpec, Question};
use crate::config::Loaded;
use crate::exit::Exit;
use crate::home::{Home, Kept, PidLock};
use crate::inherit;
use crate::near;
use crate::platform;
use crate::signals;
use crate::supervisor::journal::Note;
use crate::supervisor::{
    self, Backoff, ChildSpec, Journal, JournalEntry, Lanes, Slot, Supervisor, TreeSpec,
};

/// What the process is started with.
#[derive(Debug)]
pub struct RootOptions {
    pub home: Home,
    pub config: Loaded,
    pub log: Logger,
    /// Stay in the caller's session; children write to the caller's stderr.
    pub foreground: bool,
    /// A service manager keeps us, and daemon and watchdog by themselves: only the edge is below us.
    pub edge_only: bool,
}

/// A drain takes up to 30 s; then the process is ended.
const DRAINED: Duration = Duration::from_secs(35);

/// How long the edge serves when daemon and edge are to end. Together with its drain less than the patience
/// of `edge stop`.
const LED_HERE: Duration = Duration::from_secs(3);

/// Between the first looks at a port that is another program's.
const PORT_LOOK: Duration = Duration::from_secs(1);

/// So many looks at a port that nobody listens on: a minute, and some more.
const LEFT_BEHIND: u32 = 75;

/// What the root is told, by signals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    End,
    /// Look again whether the user wants metering.
    Reconcile,
    /// Daemon and watchdog anew.
    Restart,
    /// Change to a new program in place.
    Upgrade,
}

/// What is left of the program that this one took the place of.
#[derive(Clone, Copy, Debug)]
struct LastImage {
    /// Pid.
    edge: Option<u32>,
}

/// Runs the root until it is told to end.
#[must_use]
pub fn main(opts: RootOptions) -> Exit {
    if !opts.foreground {
        // A session of our own: no terminal's hang-up or Ctrl-C ends us. Fails only if we lead one.
        let _ = rustix::process::setsid();
    }
    // Before the lock shows our pid: a SIGHUP in between would end us.
    let (told, mut orders) = unbounded_channel();
    let obeyed = obey_signals(told);
    inherit::hear_signals();
    if let Err(e) = obeyed {
        slog::crit!(opts.log, "no signals"; "error" => %e);
        return Exit::CANT_CREATE;
    }
    let port = Arc::new(Port::new(opts.config.config.edge.addr()));
    let inherited = match upgrade::received(&opts.home, &port) {
        Ok(inherited) => inherited,
        Err(e) => {
            slog::error!(opts.log, "cannot take over, starting anew"; "error" => %e);
            None
        }
    };
    let (inherited, last) = inherited.unzip();
    let edge_only = opts.edge_only;
    let lock = match inherited {
        Some(lock) => Ok(Some(lock)),
        // A tree without services may still be there: the service's turn comes when it ends.
        None => PidLock::acquire_waiting(&opts.home.pid_file("root"), || {
            edge_only && orders.try_recv() != Ok(Order::End)
        }),
    };
    let lock = match lock {
        Ok(Some(lock)) => Some(Arc::new(lock)),
        Ok(None) => {
            slog::info!(opts.log, "already running");
            return Exit::OK;
        }
        // An unusable home costs the metering, not the traffic: the service manager's socket is for one
        // root at a time all the same.
        Err(e) if edge_only => {
            slog::error!(opts.log, "no lock, serving without it"; "error" => %e);
            None
        }
        Err(e) => {
            slog::crit!(opts.log, "cannot take the lock"; "error" => %e);
            return Exit::CANT_CREATE;
        }
    };
    let held = if edge_only {
        hold(&port, &opts.home, &opts.log)
    } else {
        hold_once_free(&port, &opts.home, &opts.log, || orders.try_recv() == Ok(Order::End))
    };
    if let Err(e) = held {
        let by = platform::listener_on(port.addr).unwrap_or_else(|| "unknown".to_owned());
        slog::crit!(opts.log, "the edge's port cannot be had";
            "port" => port.addr.port(), "held_by" => by, "error" => %e);
        drop(lock);
        if edge_only && is_in_use(&e) {
            // Whoever starts us again then tries his own socket too, and does so once.
            let is_taken = || platform::bind(port.addr).is_err_and(|e| is_in_use(&e));
            let to_end = || orders.try_recv() == Ok(Order::End);
            // macOS may have to run a program for a look.
            let longest = if platform::is_macos() { 10 } else { 1 };
            wait_until_free(longest, is_taken, to_end, std::thread::sleep);
        }
        return Exit::BUSY;
    }
    let code = actix::System::new().block_on(run(opts, port, orders, lock.clone(), last));
    drop(lock);
    code
}

/// [`hold`], also where nobody listens and the port can't be had for a while: a client's connection that has
/// ended keeps one so.
fn hold_once_free(
    port: &Port,
    home: &Home,
    log: &Logger,
    mut to_end: impl FnMut() -> bool,
) -> io::Result<()> {
    let mut held = hold(port, home, log);
    for look in 0..LEFT_BEHIND {
        let passes = held.as_ref().is_err_and(is_in_use) && near::is_silent(&port.addr);
        if !passes || to_end() {
            break;
        }
        if look == 0 {
            slog::warn!(log, "nobody listens on the edge's port, and it can't be had: trying again";
                "port" => port.addr.port());
        }
        std::thread::sleep(PORT_LOOK);
        held = hold(port, home, log);
    }
    held
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Waits until nobody has the port any more, or it is to end: between two looks at last for `longest` times
/// as long as at first.
fn wait_until_free(
    longest: u32,
    mut is_taken: impl FnMut() -> bool,
    mut to_end: impl FnMut() -> bool,
    mut pause: impl FnMut(Duration),
) {
    let mut pauses = 1;
    while !to_end() && is_taken() {
        for _ in 1..pauses {
            pause(PORT_LOOK);
            if to_end() {
                return;
            }
        }
        pause(PORT_LOOK);
        pauses = (pauses * 2).min(longest);
    }
}

/// Sees to it that the port is held: by us, and by an edge that lives already.
fn hold(port: &Port, home: &Home, log: &Logger) -> io::Result<()> {
    match port.inherit() {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        // Bound by ourselves it is not held while we are dead, and still better than refused.
        Err(e) => slog::error!(log, "no socket from the service manager"; "error" => %e),
    }
    let edge_lives = PidLock::holder(&home.pid_file("edge")).ok().flatten().is_some();
    if edge_lives && let Err(e) = port.adopt(&home.edge_socket()) {
        // Its end unbinds the port for a moment; then it is ours.
        slog::warn!(log, "no copy of the edge's socket"; "error" => %e);
        return Ok(());
    }
    port.listener().map(drop)
}

async fn run(
    opts: RootOptions,
    port: Arc<Port>,
    mut orders: UnboundedReceiver<Order>,
    lock: Option<Arc<PidLock>>,
    last: Option<LastImage>,
) -> Exit {
    let RootOptions { home, log, foreground, edge_only, .. } = opts;
    let launcher = Arc::new(Launcher::new(&home, foreground, &log));
    let journal = Journal::open(&home.journal_file(), "root");
    if last.is_some() {
        journal.append(Note::new("upgraded"));
    }
    let asker = Asker::default();
    let _kept = lock.clone().map(|lock| keep_lock(lock, &home, &log, &asker));
    let inherited = Arc::new(Mutex::new(last.and_then(|last| last.edge)));
    // A service manager starts the next root only when this one has ended, and clients wait for it. Where it
    // holds the port, nothing else ends with us: the edge drains by itself.
    let drain = if edge_only && port.is_shared() { Drain::Alone } else { Drain::Awaited };
    let process = |name: &'static str, listener: Option<Arc<Port>>, alive: Question| {
        let spec = ProcessSpec {
            pid_file: home.pid_file(name),
            drain: if listener.is_some() { drain } else { Drain::None },
            inherited: if listener.is_some() { Arc::clone(&inherited) } else { Arc::default() },
            start: {
                let launcher = Arc::clone(&launcher);
                Arc::new(move || launcher.start(name, listener.as_deref()))
            },
            alive,
            asker: asker.clone(),
        };
        ChildSpec::actor(name, Slot::default(), move |birth| ProcessActor::new(birth, spec.clone()))
            .start_deadline(Duration::from_secs(20))
            .shutdown(DRAINED)
    };
    let attended = (Arc::clone(&launcher), Arc::clone(&port), home.edge_socket(), log.clone());
    actix_rt::spawn(attend(journal.listen(), attended));
    let edge = process("edge", Some(Arc::clone(&port)), alive::edge(&home));
    let edge = supervisor::start(tree(&log, &journal).child(edge.backoff(at_once(20, 2_000))));
    keep_program(&home, &log);
    let start_metering = || {
        let daemon = process("daemon", None, alive::by_file(&home, "daemon"));
        let watchdog = process("watchdog", None, alive::by_file(&home, "watchdog"));
        supervisor::start(
            tree(&log, &journal)
                .child(daemon.backoff(after_others(20, 30_000)))
                .child(watchdog.backoff(at_once(100, 30_000))),
        )
    };
    if edge_only {
        ward::watch(&home, &log, &journal, &asker);
    }
    let stopped = home.user_stopped();
    let mut metering: Option<Supervisor> = None;
    let mut code = Exit::OK;
    platform::release_when_quiet();
    loop {
        match &metering {
            None if !edge_only && !stopped.exists() => metering = Some(start_metering()),
            Some(tree) if stopped.exists() => tree.request_shutdown(),
            Some(_) | None => {}
        }
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Reconcile) => {}
                Some(Order::Restart) => {
                    slog::info!(log, "daemon and watchdog restart");
                    if let Some(tree) = &metering {
                        tree.restart("watchdog");
                        tree.restart("daemon");
                    }
                }
                Some(Order::Upgrade) => {
                    let edge = pid(&edge).await;
                    let lock = lock.as_deref();
                    let why = upgrade::run(&home, &port, lock, edge, &journal, &orders).await;
                    slog::error!(log, "no upgrade, going on as before"; "why" => &why);
                    journal.append(Note::new("upgrade_refused").cause(&why));
                }
                Some(Order::End) | None => break,
            },
            () = finished(metering.as_ref()) => metering = None,
            // It never gives up, so this is a fault of ours: whoever starts us again does better.
            _ = edge.finished() => {
                slog::crit!(log, "the edge is no longer supervised");
                code = Exit::ESCALATED;
                break;
            }
        }
    }
    slog::info!(log, "ending"; "code" => code.0);
    // From here on nobody is to be led to the port: it goes with us.
    if let Some(Err(e)) = lock.map(|lock| lock.announce_end()) {
        slog::warn!(log, "commands can't see that we end"; "error" => %e);
    }
    let metering = async {
        if let Some(tree) = metering {
            tree.shutdown().await;
        }
    };
    let mut metering = pin!(metering);
    // The daemon takes the system proxy off: until then people are led here.
    let ended = timeout(LED_HERE, metering.as_mut()).await.is_ok();
    edge.request_shutdown();
    // Who comes now is refused at once, and does not wait in a queue that nobody will take. A service
    // manager's is the next root's.
    if drain != Drain::Alone
        && let Err(e) = port.turn_away()
    {
        slog::warn!(log, "who comes now waits until we have ended"; "error" => %e);
    }
    let rest = async {
        if !ended {
            metering.await;
        }
    };
    tokio::join!(rest, edge.shutdown());
    // The next root makes its own.
    let _ = std::fs::remove_file(home.program_copy());
    journal.flush(Duration::from_secs(1));
    code
}

/// Sees to it that nobody waits for an edge that doesn't come.
async fn attend(
    mut journal: broadcast::Receiver<JournalEntry>,
    (launcher, port, edge_socket, log): (Arc<Launcher>, Arc<Port>, PathBuf, Logger),
) {
    loop {
        let event = match journal.recv().await {
            Ok(entry) if entry.child.as_deref() == Some("edge") => entry.event,
            Ok(_) | Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        let hopeless = {
            let mut starts = launcher.starts();
            starts.heard(&event);
            starts.hopeless()
        };
        let done = match event.as_str() {
            "ready" => port.keep(&edge_socket),
            "exited" if hopeless => {
                slog::error!(log, "no edge can be started: connections are refused meanwhile");
                port.turn_away()
            }
            _ => Ok(()),
        };
        if let Err(e) = done {
            slog::error!(log, "the port is not as it should be"; "after" => event, "error" => %e);
        }
    }
}

/// Our own lock, looked at with the others' signs of life: nothing else wakes us. As long as what is
/// returned lives.
fn keep_lock(lock: Arc<PidLock>, home: &Home, log: &Logger, asker: &Asker) -> impl Sized {
    let (home, look_log) = (home.clone(), log.clone());
    let look: Question = Arc::new(move || {
        match lock.keep() {
            Kept::Anew => {
                slog::warn!(look_log, "the home was removed under us, going on in a new one");
                if let Err(e) = home.create() {
                    slog::warn!(look_log, "not all of it can be made"; "error" => %e);
                }
                keep_program(&home, &look_log);
            }
            Kept::AsBefore | Kept::Lost => {}
        }
        Answer::Alive
    });
    asker.watch(look).inspect_err(|e| {
        slog::error!(log, "nobody looks whether our pid file is there"; "error" => %e);
    })
}

/// On a thread of its own: it may take a slow disk's time.
fn keep_program(home: &Home, log: &Logger) {
    let (copy, thread_log) = (home.program_copy(), log.clone());
    let thread = std::thread::Builder::new().name("copy".to_owned());
    let started = thread.spawn(move || {
        if let Err(e) = platform::keep_program(&copy) {
            slog::warn!(thread_log, "no copy of our program, should its file go away";
                "error" => %e);
        }
    });
    if let Err(e) = started {
        slog::warn!(log, "no copy of our program, should its file go away"; "error" => %e);
    }
}

/// A tree that never gives up: there is nobody above us who would do better by starting anew.
fn tree(log: &Logger, journal: &Journal) -> TreeSpec {
    TreeSpec::new("root", log.clone(), journal.clone()).intensity(None).lanes(Lanes::current())
}

fn at_once(first: u64, max: u64) -> Backoff {
    Backoff { immediate: true, ..after_others(first, max) }
}

/// Not at once: whoever had the process that died in its way comes first, and a start takes both
/// cores of a small machine for a moment.
fn after_others(first: u64, max: u64) -> Backoff {
    Backoff::new(Duration::from_millis(first), Duration::from_millis(max))
}

/// Of the edge, if there is one.
async fn pid(edge: &Supervisor) -> Option<u32> {
    let observed = edge.observe().await;
    let pid = observed.first()?.observed.get("pid")?.as_u64()?;
    pid.try_into().ok()
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
    let order = |signal| match signal {
        SIGHUP => Some(Order::Reconcile),
        SIGUSR1 => Some(Order::Restart),
        SIGUSR2 => Some(Order::Upgrade),
        _ => Some(Order::End),
    };
    signals::forward(&[SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2], orders, order)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_taken_port_is_looked_at_less_and_less_often_and_an_order_to_end_counts_at_once() {
        let at_looks = |longest| {
            let (now, mut looks) = (Cell::new(0), Vec::new());
            let is_taken = || {
                looks.push(now.get());
                true
            };
            wait_until_free(longest, is_taken, || now.get() >= 40, |_| now.set(now.get() + 1));
            assert_eq!(now.get(), 40);
            looks
        };
        assert_eq!(at_looks(10), [0, 1, 3, 7, 15, 25, 35]);
        assert_eq!(at_looks(1), (0..40).collect::<Vec<_>>());
        wait_until_free(10, || false, || false, |_| panic!("it is free"));
    }
}
