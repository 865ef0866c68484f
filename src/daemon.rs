//! The daemon process: ledger, prices, tap, health and the admin API under one supervision tree.
//!
//! It starts with what is there: a port that somebody else holds, a certificate authority or a
//! database that can't be used make it *degraded*, which sends connections through raw. Only a tree
//! that keeps falling over ends the process, and then the root starts a new one.

mod belongings;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use slog::Logger;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::Instant;
use uuid::Uuid;

use crate::actors::admin::auth::Token;
use crate::actors::admin::{Api, Port};
use crate::actors::meter::Meter;
use crate::actors::tap::Door;
use crate::actors::{edge_monitor, health, system_proxy, tree};
use crate::beat;
use crate::config::{self, Config, Loaded, Problem, SETTLED, Stamp};
use crate::descriptors;
use crate::exit::Exit;
use crate::home::{Home, write_atomic};
use crate::meter::account;
use crate::meter::bodies::Keeper;
use crate::meter::ledger::{Register, Writer, WriterConfig, start_writer};
use crate::meter::trust;
use crate::platform;
use crate::signals;
use crate::supervisor::journal::Note;
use crate::supervisor::{Journal, Supervisor};
use crate::threads;

/// What the process is started with.
#[derive(Debug)]
pub struct DaemonOptions {
    pub home: Home,
    pub config: Loaded,
    pub log: Logger,
    /// A service manager keeps us.
    pub service: bool,
}

/// How long exchanges in flight may take to finish when we are told to end. With what comes after it
/// (cutting what is left, the last rows) that is within the 30 s that launchd gives.
const DRAIN: Duration = Duration::from_secs(25);
/// Orders to end that come together are one wish: a process group's Ctrl-C and the root's, a session's
/// end and the service manager's. A later one means "now".
const SAME_WISH: Duration = Duration::from_secs(1);
/// What the system's tool may take to take the system proxy off.
const PROXY_OFF: Duration = Duration::from_secs(15);
/// What the last rows may take to reach the disk before they are spilled.
const LAST_ROWS: Duration = Duration::from_secs(2);

/// For the last bodies.
const LAST_BODIES: Duration = Duration::from_secs(1);

/// For the last change of who stays raw.
const LAST_BYPASS: Duration = Duration::from_secs(1);

/// By then all that only starting needs has run.
const STARTED: Duration = Duration::from_secs(4);
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// What the process is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    Stop,
    Reload,
}

/// Runs the daemon until it is told to end; gives the exit code.
#[must_use]
pub fn main(opts: DaemonOptions) -> Exit {
    leave_misleading_roots(&opts.home, &opts.log);
    descriptors::raise_to_many();
    // The earlier a thread was made, the earlier it dies with its process.
    let canary = platform::canary();
    threads::keep_one();
    let lock = match opts.home.take_turn("daemon", opts.service) {
        Ok(Some(lock)) => Arc::new(lock),
        Ok(None) => {
            slog::info!(opts.log, "already running, or not wanted");
            return Exit::OK;
        }
        Err(e) => {
            slog::crit!(opts.log, "cannot take the lock"; "error" => %e,
                "path" => %opts.home.pid_file("daemon").display());
            return Exit::CANT_CREATE;
        }
    };
    if let Err(e) = account::prepare(&opts.home) {
        slog::warn!(opts.log, "accounts can't be told apart"; "error" => %e,
            "path" => %opts.home.account_salt().display());
    }
    let (send, orders) = unbounded_channel();
    obey_signals(send.clone(), &opts.log);
    let code = actix::System::new().block_on(async {
        actix_rt::spawn(beat::show(Arc::clone(&lock), opts.log.clone()));
        actix_rt::spawn(release_once_started());
        run(opts, canary, send, orders).await
    });
    drop(lock);
    code
}

async fn release_once_started() {
    tokio::time::sleep(STARTED).await;
    platform::release_when_quiet();
}

/// Our bundle holds our own authority: were it in our environment, we would trust certificates that
/// we signed ourselves when they come from a provider. On macOS any file there hides the keychain, and
/// the bundle that every program shares would lose it. The process starts over without.
fn leave_misleading_roots(home: &Home, log: &Logger) {
    use std::os::unix::process::CommandExt;
    if !trust::environment_misleads(home) {
        return;
    }
    let again = std::env::current_exe().map(|exe| {
        let mut command = std::process::Command::new(exe);
        command.args(std::env::args_os().skip(1));
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").exec()
    });
    let error = again.unwrap_or_else(|e| e);
    slog::error!(log, "cannot leave the roots that the environment names"; "error" => %error);
}

fn obey_signals(orders: UnboundedSender<Order>, log: &Logger) {
    let order = |signal| Some(if signal == SIGHUP { Order::Reload } else { Order::Stop });
    if let Err(e) = signals::forward(&[SIGTERM, SIGINT, SIGHUP], orders, order) {
        slog::error!(log, "signals will end the process at once"; "error" => %e);
    }
}

/// What an order may concern.
struct Running {
    home: Home,
    /// Where tools connect, as long as this process lives.
    edge: SocketAddr,
    config: Arc<ArcSwap<Config>>,
    problems: Arc<ArcSwap<Vec<String>>>,
    /// State of the file that was read last.
    read: LastRead,
    meter: Meter,
    journal: Journal,
    log: Logger,
}

#[derive(Clone, Debug)]
struct LastRead(Arc<Mutex<Option<Stamp>>>);

impl LastRead {
    fn get(&self) -> Option<Stamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, stamp: Option<Stamp>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = stamp;
    }
}

async fn run(
    opts: DaemonOptions,
    canary: Option<OwnedFd>,
    told: UnboundedSender<Order>,
    mut orders: UnboundedReceiver<Order>,
) -> Exit {
    let DaemonOptions { home, config: loaded, log, .. } = opts;
    let born = Instant::now();
    let instance = new_instance(&home, &log);
    let (intake, writer) = match start_writer(WriterConfig::new(&home, log.clone())) {
        Ok(both) => both,
        Err(e) => {
            slog::crit!(log, "no thread for the ledger"; "error" => %e);
            return Exit::ESCALATED;
        }
    };
    let register = Register::create(&home, log.clone()).unwrap_or_else(|e| {
        slog::error!(log, "no register: what is lost if we are killed will not be known";
            "error" => %e);
        Register::none()
    });
    let bodies = Keeper::start(&home, loaded.config.bodies, &log);
    let meter = Meter::new(intake, register, bodies);
    let token = Token::load_or_create(&home).or_else(|e| {
        slog::error!(log, "no token: only /health can be asked"; "error" => %e);
        Token::random()
    });
    let Ok(token) = token else {
        slog::crit!(log, "the system gives no random bytes");
        return Exit::ESCALATED;
    };
    let read = LastRead(Arc::new(Mutex::new(loaded.file)));
    let follower = actix_rt::spawn(follow(home.config_file(), read.clone(), told));
    let config = Arc::new(ArcSwap::from_pointee(loaded.config));
    let problems = Arc::new(ArcSwap::from_pointee(texts(&loaded.problems)));
    let in_force = config.load_full();
    let api_addr = in_force.daemon.api_addr();
    let door = Door::new(&home, instance, canary);
    let view = tree::View::default();
    let journal = Journal::open(&home.journal_file(), "daemon");
    let health = health::Board::default();
    let api = Arc::new(Api {
        instance,
        home: home.clone(),
        token: token.clone(),
        sessions: Default::default(),
        peaks: Default::default(),
        journal: journal.clone(),
        health: health.clone(),
        edge: edge_monitor::Board::default(),
        meter: meter.clone(),
        tree: view.clone(),
        started_at: Timestamp::now(),
        born,
        config_problems: Arc::clone(&problems),
        port: AtomicU16::new(api_addr.port()),
        streams: Arc::new(AtomicUsize::new(0)),
        readers: Default::default(),
        answered: AtomicU64::new(0),
    });
    let edge = in_force.edge.addr();
    let direct = in_force.without_us(platform::reached_without_us());
    let proxy_keeper =
        actix_rt::spawn(system_proxy::keep(home.clone(), edge, direct, api.edge.clone(), {
            let journal = journal.clone();
            move |note| journal.append(note)
        }));
    let belongings = belongings::Belongings {
        home: home.clone(),
        instance,
        token,
        meter: meter.clone(),
        config: Arc::clone(&config),
        log: log.clone(),
    };
    let belongings = actix_rt::spawn(belongings::keep(belongings));
    let supervisor = tree::start(
        tree::Parts {
            home: home.clone(),
            config: Arc::clone(&config),
            meter: meter.clone(),
            health: health.clone(),
            door: door.clone(),
            port: Port::new(api_addr),
            api,
            journal: journal.clone(),
            log: log.clone(),
        },
        &view,
    );
    let running = Running { home, edge, config, problems, read, meter, journal, log };
    let keepers = [&proxy_keeper, &belongings, &follower].map(JoinHandle::abort_handle);
    let code = obey(&running, &supervisor, &health, &keepers, &mut orders).await;
    supervisor.shutdown().await;
    door.close();
    running.meter.save_bypass(LAST_BYPASS).await;
    close(&running, writer, code);
    code
}

/// What tells this daemon from those before it.
fn new_instance(home: &Home, log: &Logger) -> Uuid {
    let instance = Uuid::new_v4();
    if let Err(e) = write_atomic(&home.instance_file(), instance.to_string().as_bytes()) {
        slog::warn!(log, "we will be known by our pid only"; "error" => %e);
        // An earlier one's would make a stranger of us.
        let _ = std::fs::remove_file(home.instance_file());
    }
    slog::info!(log, "starting"; "version" => env!("CARGO_PKG_VERSION"),
        "pid" => std::process::id(), "instance" => %instance);
    instance
}

/// Does as it is told until it is to end; gives the exit code.
async fn obey(
    running: &Running,
    supervisor: &Supervisor,
    health: &health::Board,
    keepers: &[AbortHandle],
    orders: &mut UnboundedReceiver<Order>,
) -> Exit {
    let Running { meter, journal, log, .. } = running;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Reload) => reload(running).await,
                Some(Order::Stop) | None => {
                    slog::info!(log, "ending: exchanges in flight may finish");
                    journal.append(Note::new("draining"));
                    health.drain();
                    keepers.iter().for_each(AbortHandle::abort);
                    end(running, orders).await;
                    return Exit::OK;
                }
            },
            cause = supervisor.escalated() => {
                slog::crit!(log, "the tree gave up"; "cause" => %cause);
                // That is no fault of the connections that live on the tap's own threads.
                health.drain();
                meter.drain(DRAIN).await;
                return Exit::ESCALATED;
            }
        }
    }
}

/// What is on its way to the disk gets there, within limits.
fn close(running: &Running, writer: Writer, code: Exit) {
    let Running { meter, journal, log, .. } = running;
    let within = |time| std::time::Instant::now() + time;
    if !writer.stop(within(LAST_ROWS)) {
        slog::error!(log, "the ledger's writer did not end in time");
    }
    if !meter.bodies().stop(within(LAST_BODIES)) {
        slog::warn!(log, "the last bodies were not kept");
    }
    meter.register().close(within(LAST_EVENTS));
    slog::info!(log, "ended"; "code" => code.0);
    journal.flush(LAST_EVENTS);
}

/// No new connections; those in flight finish. Meanwhile the system proxy is what it was before us, so
/// that a logout or a reboot leaves a network that works; whoever is started next turns it on again if
/// it is to be on. A second order to stop cuts it short.
async fn end(running: &Running, orders: &mut UnboundedReceiver<Order>) {
    let Running { home, edge, meter, journal, .. } = running;
    let told = Instant::now();
    let again = async {
        loop {
            match orders.recv().await {
                Some(Order::Stop) if told.elapsed() >= SAME_WISH => break,
                Some(Order::Reload | Order::Stop) => {}
                // Nobody can tell us any more.
                None => std::future::pending::<()>().await,
            }
        }
    };
    let proxy_off = async {
        let off = system_proxy::take_back(home.clone(), *edge, PROXY_OFF).await;
        if let Some(note) = system_proxy::note("the daemon ends", &off) {
            journal.append(note);
        }
    };
    tokio::select! {
        _ = async { tokio::join!(meter.drain(DRAIN), proxy_off) } => {}
        () = again => {}
    }
}

/// Whoever edits the file need not tell us: at each beat we look at it ourselves. One that is gone changes
/// nothing, as the edge has it too.
async fn follow(file: PathBuf, read: LastRead, told: UnboundedSender<Order>) {
    loop {
        tokio::time::sleep(beat::until(beat::PERIOD)).await;
        let now = Stamp::of(&file);
        if now.is_none() || now == read.get() {
            continue;
        }
        tokio::time::sleep(SETTLED).await;
        if Stamp::of(&file) == now {
            // What can't be opened is tried again only when it has changed.
            read.set(now);
            let _ = told.send(Order::Reload);
        }
    }
}

/// Reads the configuration again. One that has a fault changes nothing.
async fn reload(running: &Running) {
    let Running { home, config, problems, read: last_read, meter, journal, log, .. } = running;
    let (read_home, keys, thread_log) = (home.clone(), meter.known_keys().cloned(), log.clone());
    let read = threads::blocking(move || {
        let loaded = config::load(&read_home.config_file(), &[]);
        let mut faults = texts(&loaded.problems);
        if faults.is_empty()
            && let Some(keys) = keys
            && let Err(e) = keys.reload(&read_home, &loaded.config, &thread_log)
        {
            faults.push(e.to_string());
        }
        (loaded.config, faults, loaded.file)
    });
    let (new, faults, file) = match read.await {
        Ok(read) => read,
        Err(e) => {
            slog::error!(log, "configuration not taken over"; "problem" => %e);
            return;
        }
    };
    if file.is_some() {
        last_read.set(file);
    }
    problems.store(Arc::new(faults.clone()));
    if !new.bodies.enabled {
        // Whatever else is wrong: who doesn't want bodies kept is obeyed.
        meter.bodies().turn_off();
    }
    if !faults.is_empty() {
        for fault in &faults {
            slog::error!(log, "configuration not taken over"; "problem" => fault);
        }
        journal.append(Note::new("config_refused").cause(faults.join("; ")));
        return;
    }
    let before = config.swap(Arc::new(new));
    let now = config.load();
    crate::log::set_level(now.log.level);
    meter.bodies().want(now.bodies);
    if before.daemon.api_port != now.daemon.api_port || before.edge.port != now.edge.port {
        slog::warn!(log, "another port takes a restart");
    }
    slog::info!(log, "configuration taken over");
    journal.append(Note::new("config_taken"));
}

fn texts(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
