//! The watchdog process: the second line. It asks the daemon every 1.5 s; five misses in a row take
//! the system proxy off where it leads to us, so that programs go to the internet directly. It never
//! turns it on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use slog::Logger;
use tokio::time::Instant;

use crate::actors::{ask, system_proxy};
use crate::beat;
use crate::config::Loaded;
use crate::exit::Exit;
use crate::home::Home;
use crate::platform::{self, SystemProxyError};
use crate::signals;
use crate::supervisor::{self, Birth, Child, ChildSpec, Journal, Lanes, Slot, TreeSpec};

const PERIOD: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_millis(1000);
/// Misses in a row until the proxy goes off, and between further attempts if that failed.
const MISSES: u32 = 5;
/// What the system's tool may take; then the attempt has failed.
const TOOL_PATIENCE: Duration = Duration::from_secs(5);
/// A probe during which more time went by than this was slept through, and says nothing.
const SLEPT: Duration = Duration::from_secs(4);

/// What the process is started with.
#[derive(Debug)]
pub struct WatchdogOptions {
    pub home: Home,
    pub config: Loaded,
    pub log: Logger,
    /// A service manager keeps us.
    pub service: bool,
}

/// Takes the system proxy off, for `reset-proxy`: needs nothing of ours.
pub fn reset_proxy() -> Result<Option<Vec<String>>, SystemProxyError> {
    platform::system_proxy().off()
}

/// How one probe ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    /// The daemon answered, well or degraded: it lives, and passes what it can't meter.
    Answered,
    Missed,
    /// The machine slept, or we were stopped, or the clock was set meanwhile.
    SleptThrough,
}

/// What a probe says that took so long by the monotonic clock, which stands still in sleep on some
/// platforms, and by the wall clock, which does not (`None`: it was set back).
#[must_use]
pub fn judge(answered: bool, steady: Duration, wall: Option<Duration>) -> Probe {
    let slept = steady > SLEPT || wall.is_none_or(|wall| wall > SLEPT);
    match (answered, slept) {
        (true, _) => Probe::Answered,
        (false, true) => Probe::SleptThrough,
        (false, false) => Probe::Missed,
    }
}

/// The counter, pure.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counter {
    pub misses: u32,
    /// The proxy was taken off since the last answer.
    pub off: bool,
}

impl Counter {
    /// True: take the proxy off now.
    pub fn step(&mut self, probe: Probe) -> bool {
        match probe {
            Probe::Answered => *self = Self::default(),
            Probe::SleptThrough => {}
            Probe::Missed => self.misses = self.misses.saturating_add(1),
        }
        probe == Probe::Missed && !self.off && self.misses.is_multiple_of(MISSES)
    }
}

/// Asks once, and then waits until it is time to ask again.
async fn round(asked: impl Future<Output = bool>) -> Probe {
    let (steady, wall) = (Instant::now(), SystemTime::now());
    let answered = asked.await;
    let steady = steady.elapsed();
    let probe = judge(answered, steady, wall.elapsed().ok());
    tokio::time::sleep(PERIOD.saturating_sub(steady)).await;
    probe
}

/// Runs the watchdog until it is told to end.
#[must_use]
pub fn main(opts: WatchdogOptions) -> Exit {
    let lock = match opts.home.take_turn("watchdog", opts.service) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            slog::info!(opts.log, "already running, or not wanted");
            return Exit::OK;
        }
        Err(e) => {
            slog::crit!(opts.log, "cannot take the lock"; "error" => %e);
            return Exit::CANT_CREATE;
        }
    };
    let lock = Arc::new(lock);
    actix::System::new().block_on(async {
        actix_rt::spawn(beat::show(Arc::clone(&lock), opts.log.clone()));
        run(opts).await
    })
}

async fn run(opts: WatchdogOptions) -> Exit {
    let config = &opts.config.config;
    let (home, addr, edge) = (opts.home.clone(), config.daemon.api_addr(), config.edge.addr());
    let journal = Journal::open(&opts.home.journal_file(), "watchdog");
    let (notes, written) = (journal.clone(), journal.clone());
    let tree = TreeSpec::new("watchdog", opts.log.clone(), journal).lanes(Lanes::current()).child(
        ChildSpec::actor("watchdog", Slot::default(), move |birth| Watchdog {
            birth,
            home: home.clone(),
            addr,
            edge,
            journal: notes.clone(),
            counter: Counter::default(),
        }),
    );
    let tree = supervisor::start(tree);
    let (told, mut ended) = tokio::sync::mpsc::unbounded_channel();
    let order = |signal| (signal != SIGHUP).then_some(());
    if let Err(e) = signals::forward(&[SIGTERM, SIGINT, SIGHUP], told, order) {
        slog::error!(opts.log, "signals will end the process at once"; "error" => %e);
    }
    let code = tokio::select! {
        _ = ended.recv() => {
            tree.shutdown().await;
            Exit::OK
        }
        cause = tree.escalated() => {
            slog::crit!(opts.log, "the watchdog gave up"; "cause" => ?cause);
            Exit::ESCALATED
        }
    };
    written.flush(Duration::from_secs(1));
    code
}

#[derive(Debug)]
struct Watchdog {
    birth: Birth,
    home: Home,
    addr: SocketAddr,
    edge: SocketAddr,
    journal: Journal,
    counter: Counter,
}

impl Actor for Watchdog {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.birth.ready();
        platform::release_when_quiet();
        self.probe(ctx);
    }
}

impl Child for Watchdog {
    fn observe(&self) -> Value {
        json!({ "misses": self.counter.misses, "proxy_taken_off": self.counter.off })
    }
}

impl Watchdog {
    fn probe(&mut self, ctx: &mut Context<Self>) {
        let (home, addr) = (self.home.clone(), self.addr);
        let asked = async move { ask::daemon(&home, addr, PATIENCE).await.is_ok() };
        ctx.spawn(round(asked).into_actor(self).map(|probe, actor, ctx| {
            actor.count(probe, ctx);
            actor.probe(ctx);
        }));
    }

    fn count(&mut self, probe: Probe, ctx: &mut Context<Self>) {
        let before = self.counter.misses;
        let act = self.counter.step(probe);
        if self.counter.misses == 0 && before > 0 {
            slog::info!(self.birth.log(), "daemon answers again"; "misses" => before);
        }
        if !act {
            return;
        }
        slog::warn!(self.birth.log(), "daemon does not answer, what leads to us of the system proxy goes off";
            "misses" => self.counter.misses);
        let off = system_proxy::off(self.home.clone(), self.edge, TOOL_PATIENCE);
        ctx.spawn(off.into_actor(self).map(|off, actor, _| {
            // If the daemon has answered meanwhile, what was done does not count for its next end.
            actor.counter.off = off.is_ok() && actor.counter.misses > 0;
            if let Some(note) = system_proxy::note("daemon does not answer", &off) {
                actor.journal.append(note);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(probes: &[Probe]) -> Vec<usize> {
        let mut counter = Counter::default();
        let mut acted = Vec::new();
        for (i, probe) in probes.iter().enumerate() {
            if counter.step(*probe) {
                counter.off = true;
                acted.push(i);
            }
        }
        acted
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_every_second_and_a_half_however_long_an_answer_takes() {
        for (takes, expected) in [(0, 1500), (1, 1500), (1000, 1500), (1500, 1500), (2500, 2500)] {
            let began = Instant::now();
            let asked = async {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                false
            };
            assert_eq!(round(asked).await, Probe::Missed);
            let (took, expected) = (began.elapsed(), Duration::from_millis(expected));
            let late = Duration::from_millis(5);
            assert!(took >= expected && took < expected + late, "{takes}: {took:?}");
        }
    }

    #[test]
    fn five_misses_in_a_row_take_it_off_once() {
        assert_eq!(run(&[Probe::Missed; 4]), [] as [usize; 0]);
        assert_eq!(run(&[Probe::Missed; 20]), [4]);
    }

    #[test]
    fn a_probe_that_was_slept_through_says_nothing() {
        let (quick, slow) = (Duration::from_secs(1), SLEPT + Duration::from_millis(1));
        assert_eq!(judge(false, quick, Some(quick)), Probe::Missed);
        assert_eq!(judge(false, SLEPT, Some(SLEPT)), Probe::Missed);
        assert_eq!(judge(false, slow, Some(slow)), Probe::SleptThrough, "stopped");
        assert_eq!(judge(false, quick, Some(slow)), Probe::SleptThrough, "asleep, or set forward");
        assert_eq!(judge(false, quick, None), Probe::SleptThrough, "set back");
        for wall in [None, Some(quick), Some(slow)] {
            assert_eq!(judge(true, slow, wall), Probe::Answered, "an answer is an answer");
        }
    }

    #[test]
    fn an_answer_starts_the_count_anew() {
        let mut probes = vec![Probe::Missed; 4];
        probes.push(Probe::Answered);
        probes.extend([Probe::Missed; 5]);
        assert_eq!(run(&probes), [9]);
    }

    #[test]
    fn what_was_slept_through_neither_counts_nor_resets() {
        let mut probes = vec![Probe::Missed; 4];
        probes.extend([Probe::SleptThrough; 50]);
        probes.push(Probe::Missed);
        assert_eq!(run(&probes), [54]);
    }

    #[test]
    fn a_failed_attempt_is_repeated_every_five_misses() {
        let mut counter = Counter::default();
        let acted = (1..=15).filter(|_| counter.step(Probe::Missed)).count();
        assert_eq!(acted, 3);
    }
}
