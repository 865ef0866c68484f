//! The health cache: the actor that owns the verdict, and the handle that connections use.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::health::{self, Board, Cause, Event, Reading, State, Verdict};
use super::link::{Alarm, Link};
use super::probe::Prober;
use super::route::{self, Chain, Reason};
use crate::config::{Config, UpstreamProxy};
use crate::dial;
use crate::supervisor::{Birth, Child, Supervisor};

pub const ID: &str = "health_cache";
/// The actor takes up a wish in microseconds. Nothing beats in an idle edge, so this is what shows
/// that it hangs.
const OVERDUE: Duration = Duration::from_secs(2);

/// What connections hold: reads are a load, wishes and bad news go to the actor.
#[derive(Debug)]
pub struct Health {
    config: Arc<ArcSwap<Config>>,
    board: Board,
    link: Arc<ArcSwapOption<Link>>,
    /// The actor of the current generation; a restarted one replaces it.
    actor: ArcSwapOption<actix::Addr<HealthCache>>,
    /// No offers now, whatever the verdict.
    withdrawn: AtomicBool,
    /// Since when a wish is on its way to the actor, in milliseconds after `born`; 0: none is.
    wanted: AtomicU64,
    born: Instant,
    supervisor: OnceLock<Supervisor>,
}

impl Health {
    #[must_use]
    pub fn new(config: Arc<ArcSwap<Config>>) -> Arc<Self> {
        Arc::new(Self {
            config,
            board: Board::default(),
            link: Arc::default(),
            actor: ArcSwapOption::empty(),
            withdrawn: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
            born: Instant::now(),
            supervisor: OnceLock::new(),
        })
    }

    /// Who is told when the actor takes up no wishes.
    pub fn supervised_by(&self, supervisor: Supervisor) {
        let _ = self.supervisor.set(supervisor);
    }

    /// `host:port` of the proxy in force, without its credentials.
    #[must_use]
    pub fn upstream_proxy(&self) -> Option<String> {
        self.config.load().upstream.proxy.as_ref().map(UpstreamProxy::place)
    }

    /// The same of plain HTTP's.
    #[must_use]
    pub fn upstream_http_proxy(&self) -> Option<String> {
        self.config.load().upstream.http_proxy.as_ref().map(UpstreamProxy::place)
    }

    /// Whether connections go past that proxy, as it can't be reached.
    #[must_use]
    pub fn upstream_past(&self) -> bool {
        self.config.load().upstream.proxy.as_ref().is_some_and(dial::goes_past)
    }

    #[must_use]
    pub fn read(&self) -> Reading {
        self.board.read(self.config.load().daemon.edge_health_ttl)
    }

    /// The verdict and its age, for the status document.
    #[must_use]
    pub fn look(&self) -> (Verdict, std::time::Duration) {
        self.board.look()
    }

    /// `None` also while offers are withdrawn.
    #[must_use]
    pub fn link(&self) -> Option<Arc<Link>> {
        if self.withdrawn.load(Ordering::Acquire) { None } else { self.link.load_full() }
    }

    /// No more offers until [`Health::resume`]; those under way come back, but for what the daemon
    /// was granted already.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Release);
        if let Some(link) = self.link.load_full() {
            link.withdraw();
        }
    }

    pub fn resume(&self) {
        self.withdrawn.store(false, Ordering::Release);
    }

    /// Causes a probe if the verdict is not fresh; never waits. Whether one is on its way.
    pub fn refresh(&self) -> bool {
        if self.read().fresh {
            return false;
        }
        let age = self.born.elapsed();
        let now = u64::try_from(age.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        match self.wanted.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) if self.tell(Event::Wanted) => true,
            Ok(_) => {
                self.wanted.store(0, Ordering::Release);
                false
            }
            Err(since) => {
                if Duration::from_millis(now.saturating_sub(since)) >= OVERDUE
                    && let Some(supervisor) = self.supervisor.get()
                {
                    supervisor.suspect(ID);
                    self.wanted.store(now, Ordering::Release);
                }
                true
            }
        }
    }

    /// `None` = offer to the daemon; else why not. Waits at most [`health::LONGEST_WAIT`].
    pub async fn decide(&self) -> Option<Reason> {
        self.refresh();
        let chain = match route::chain(self.read()) {
            Chain::Wait => {
                self.board.renewed(|| self.refresh()).await;
                route::chain(self.read())
            }
            decided @ (Chain::Offer | Chain::Raw(_)) => decided,
        };
        match (chain, self.look().0) {
            (Chain::Offer, _) | (Chain::Wait, Verdict::Healthy) => None,
            (Chain::Raw(reason), _) => Some(reason),
            (Chain::Wait, Verdict::Unhealthy(cause)) => Some(Reason::Daemon(cause)),
        }
    }

    fn tell(&self, event: Event) -> bool {
        self.actor.load().as_ref().is_some_and(|actor| actor.try_send(Tell(event)).is_ok())
    }
}

impl Alarm for Health {
    /// Published here and now: the next connection must not wait for the actor to get round to it.
    fn down(&self, cause: Cause) {
        self.board.publish(Verdict::Unhealthy(cause));
        self.tell(Event::Down(cause));
    }
}

/// The actor.
#[derive(Debug)]
pub struct HealthCache {
    health: Arc<Health>,
    prober: Arc<Prober>,
    state: State,
    probes: u64,
    birth: Birth,
}

impl HealthCache {
    /// `socket`: the daemon's control socket.
    #[must_use]
    pub fn new(health: Arc<Health>, socket: PathBuf, birth: Birth) -> Self {
        let prober = Prober {
            config: Arc::clone(&health.config),
            socket,
            link: Arc::clone(&health.link),
            alarm: Arc::clone(&health) as Arc<dyn Alarm>,
            log: birth.log().clone(),
        };
        let state = State::new(Instant::now());
        Self { health, prober: Arc::new(prober), state, probes: 0, birth }
    }

    fn on(&mut self, event: Event, ctx: &mut Context<Self>) {
        let ttl = self.health.config.load().daemon.edge_health_ttl;
        let (state, effect) = health::step(self.state, event, ttl, Instant::now());
        self.state = state;
        if let Some(verdict) = effect.publish {
            let before = self.health.board.look().0;
            self.health.board.publish(verdict);
            if before != verdict {
                slog::info!(self.prober.log, "verdict"; "is" => ?verdict, "was" => ?before);
            }
        }
        if effect.start_probe {
            self.probes += 1;
            let prober = Arc::clone(&self.prober);
            let probe = async move { prober.probe().await }.into_actor(self);
            ctx.spawn(probe.map(|verdict, act, ctx| act.on(Event::Probed(verdict), ctx)));
        }
    }
}

impl Actor for HealthCache {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.health.actor.store(Some(Arc::new(ctx.address())));
        self.health.wanted.store(0, Ordering::Release);
        self.birth.ready();
    }
}

impl Child for HealthCache {
    fn observe(&self) -> Value {
        let (verdict, age) = self.health.look();
        json!({
            "verdict": verdict_name(verdict),
            "cause": cause_name(verdict),
            "age_ms": u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            "probes": self.probes,
        })
    }
}

/// An event for the machine.
#[derive(Debug)]
struct Tell(Event);

impl Message for Tell {
    type Result = ();
}

impl Handler<Tell> for HealthCache {
    type Result = ();

    fn handle(&mut self, Tell(event): Tell, ctx: &mut Context<Self>) {
        if event == Event::Wanted {
            self.health.wanted.store(0, Ordering::Release);
        }
        self.on(event, ctx);
    }
}

/// `healthy`, `unhealthy` or `unknown`.
#[must_use]
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Unhealthy(Cause::NeverProbed) => "unknown",
        Verdict::Unhealthy(_) => "unhealthy",
    }
}

#[must_use]
pub fn cause_name(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Healthy => None,
        Verdict::Unhealthy(cause) => Some(cause.as_str()),
    }
}
