//! Folds what is known of the meter into one answer: could a connection be metered right now?
//!
//! The actor asks the tap through its real accept path and reads the heartbeats of the others.
//! `/health` reads what it published last; what is older than half a second is renewed first, which
//! takes a round trip. So nothing is asked while nobody wants to know, but for a look now and then. If
//! the actor itself falls silent, its last word is not believed for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::meter::Meter;
use super::wish::Wish;
use crate::beat;
use crate::supervisor::{Birth, Child};

/// How often the tap is asked when nobody wants to know: a lost control socket is noticed by it. More
/// often while something is wrong, to notice its end early.
const INTERVAL: Duration = Duration::from_secs(2);
const INTERVAL_WHEN_WRONG: Duration = Duration::from_millis(100);
/// What is older is renewed before it is told.
const FRESH: Duration = Duration::from_millis(500);
/// How long who wants to know waits for that: less than the edge waits for its answer.
const RENEWAL: Duration = Duration::from_millis(200);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long a published answer is believed.
const STALE: Duration = Duration::from_millis(1500);
/// How long the ledger's writer may give no sign of life.
const WRITER_SILENCE: Duration = Duration::from_secs(5);
/// 2020-01-01: a clock before it was never set; rows would be nonsense in time and price.
const PLAUSIBLE_CLOCK: i64 = 1_577_836_800;

/// How the last question to the tap went.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum TapSeen {
    #[default]
    NotAsked,
    Answered,
    Failed(String),
}

/// What is known, at one moment.
#[derive(Clone, Debug)]
pub struct Observed {
    pub tap: TapSeen,
    pub writer_silence: Duration,
    pub ledger_degraded: Option<String>,
    /// The database has been opened.
    pub ledger_ready: bool,
    /// From and to which schema it is being brought up to date.
    pub ledger_updating: Option<(usize, usize)>,
    pub prices_loaded: bool,
    pub clock: Timestamp,
    /// By this clock the CA is not valid: no handshake could be answered.
    pub ca_outdated: bool,
    pub draining: bool,
}

/// One thing that must be right for a connection to be metered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    pub name: &'static str,
    /// What is wrong; `None`: nothing.
    pub fault: Option<String>,
}

/// The check that fails while the daemon ends.
const DRAINING: &str = "draining";

impl Check {
    /// It fails because the daemon ends.
    #[must_use]
    pub fn is_end(&self) -> bool {
        self.name == DRAINING && self.fault.is_some()
    }
}

/// The checks, in the order of the tree.
#[must_use]
pub fn fold(seen: &Observed) -> Vec<Check> {
    let opening = || (!seen.ledger_ready).then(|| "the database is being opened".to_owned());
    let updating = seen.ledger_updating.map(|(from, to)| {
        format!("the database is being brought up to date (schema {from} -> {to})")
    });
    let ledger = updating.or_else(|| seen.ledger_degraded.clone()).or_else(opening).or_else(|| {
        (seen.writer_silence > WRITER_SILENCE)
            .then(|| format!("the writer is silent for {} s", seen.writer_silence.as_secs()))
    });
    let tap = match &seen.tap {
        TapSeen::NotAsked => Some("not asked yet".to_owned()),
        TapSeen::Answered => None,
        TapSeen::Failed(why) => Some(why.clone()),
    };
    let clock = (seen.clock.as_second() < PLAUSIBLE_CLOCK)
        .then(|| format!("the system clock says {}", seen.clock));
    let ca = seen.ca_outdated.then(|| "by this clock it is not valid now".to_owned());
    vec![
        Check { name: "ledger", fault: ledger },
        Check {
            name: "prices",
            fault: (!seen.prices_loaded).then(|| "no price book is loaded".to_owned()),
        },
        Check { name: "tap", fault: tap },
        Check { name: "clock", fault: clock },
        Check { name: "ca", fault: ca },
        Check { name: DRAINING, fault: seen.draining.then(|| "shutting down".to_owned()) },
    ]
}

/// Where the actor publishes and `/health` reads. Clones share.
#[derive(Clone, Debug)]
pub struct Board {
    latest: Arc<ArcSwap<Published>>,
    draining: Arc<AtomicBool>,
    wish: Arc<Wish>,
}

#[derive(Debug)]
struct Published {
    at: Option<Instant>,
    checks: Vec<Check>,
}

impl Default for Board {
    fn default() -> Self {
        let nothing = Published { at: None, checks: Vec::new() };
        let latest = Arc::new(ArcSwap::from_pointee(nothing));
        Self { latest, draining: Arc::default(), wish: Arc::default() }
    }
}

impl Board {
    pub fn publish(&self, checks: Vec<Check>, at: Instant) {
        self.latest.store(Arc::new(Published { at: Some(at), checks }));
        self.wish.fulfil();
    }

    /// From now on the answer is "draining", whatever else is known.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// As [`read`](Self::read), of half a second ago at most: the actor looks again if it has to.
    pub async fn renewed(&self) -> Vec<Check> {
        let age = self.latest.load().at.map(|at| at.elapsed());
        if age.is_none_or(|age| age > FRESH) {
            self.wish.renew(RENEWAL).await;
        }
        self.read(Instant::now(), STALE)
    }

    /// Until the next look.
    async fn rest(&self, fine: bool) {
        let time = if fine { beat::until(INTERVAL) } else { INTERVAL_WHEN_WRONG };
        self.wish.rest(Instant::now() + time).await;
    }

    /// What is known without a look: for who only wants to know whether there is anybody.
    #[must_use]
    pub fn known(&self) -> Vec<Check> {
        self.read(Instant::now(), INTERVAL + STALE)
    }

    /// The published checks, and one of our own: that they are not older than that.
    fn read(&self, now: Instant, stale: Duration) -> Vec<Check> {
        let latest = self.latest.load();
        let mut checks = latest.checks.clone();
        let fault = match latest.at.map(|at| now.saturating_duration_since(at)) {
            None => Some("nothing is known yet".to_owned()),
            Some(age) if age > stale => Some(format!("silent for {} ms", age.as_millis())),
            Some(_) => None,
        };
        checks.push(Check { name: "health", fault });
        if self.is_draining()
            && let Some(check) = checks.iter_mut().find(|c| c.name == DRAINING)
        {
            check.fault = Some("shutting down".to_owned());
        }
        checks
    }
}

/// The faults of these checks as `name: fault`; none = healthy.
#[must_use]
pub fn reasons(checks: &[Check]) -> Vec<String> {
    checks.iter().filter_map(|c| Some(format!("{}: {}", c.name, c.fault.as_ref()?))).collect()
}

/// The actor.
#[derive(Debug)]
pub struct Health {
    birth: Birth,
    board: Board,
    meter: Meter,
    tap: TapSeen,
    /// Until the first answer: not ready.
    announced: bool,
    last: Vec<String>,
}

impl Health {
    #[must_use]
    pub fn new(birth: Birth, board: Board, meter: Meter) -> Self {
        Self { birth, board, meter, tap: TapSeen::NotAsked, announced: false, last: Vec::new() }
    }

    /// Asks the tap, publishes, and arranges the next time.
    fn ask(&mut self, ctx: &mut Context<Self>) {
        let tap = self.meter.tap();
        let question = async move {
            let Some(tap) = tap else { return TapSeen::Failed("not running".to_owned()) };
            match tap.probe(PATIENCE).await {
                Ok(_) => TapSeen::Answered,
                Err(e) => TapSeen::Failed(e.to_string()),
            }
        };
        ctx.spawn(question.into_actor(self).map(|seen, actor, ctx| {
            if matches!(seen, TapSeen::Failed(_)) && actor.meter.tap().is_some() {
                // Whose it is looks at once, and does something about it.
                actor.meter.suspect_tap();
            }
            actor.tap = seen;
            actor.publish();
            actor.rest(ctx);
        }));
    }

    fn rest(&mut self, ctx: &mut Context<Self>) {
        let (board, fine) = (self.board.clone(), self.last.is_empty());
        let rest = async move { board.rest(fine).await };
        ctx.spawn(rest.into_actor(self).map(|(), actor, ctx| actor.ask(ctx)));
    }

    fn publish(&mut self) {
        let ledger = self.meter.intake().stats();
        let checks = fold(&Observed {
            tap: self.tap.clone(),
            writer_silence: ledger.heartbeat_age,
            ledger_degraded: ledger.degraded,
            ledger_ready: ledger.ready,
            ledger_updating: ledger.updating,
            prices_loaded: self.meter.prices_loaded(),
            clock: Timestamp::now(),
            ca_outdated: self.meter.ca_outdated(),
            draining: self.board.is_draining(),
        });
        let faults = reasons(&checks);
        if faults != self.last {
            if faults.is_empty() {
                slog::info!(self.birth.log(), "can meter");
            } else {
                slog::warn!(self.birth.log(), "cannot meter"; "reasons" => faults.join("; "));
            }
            self.last = faults;
        }
        self.board.publish(checks, Instant::now());
        if !self.announced {
            self.announced = true;
            self.birth.ready();
        }
    }
}

impl Actor for Health {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.ask(ctx);
    }
}

impl Child for Health {
    fn observe(&self) -> Value {
        json!({ "reasons": self.last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Observed {
        Observed {
            tap: TapSeen::Answered,
            writer_silence: Duration::from_millis(50),
            ledger_degraded: None,
            ledger_ready: true,
            ledger_updating: None,
            prices_loaded: true,
            clock: Timestamp::from_second(1_790_000_000).unwrap(),
            ca_outdated: false,
            draining: false,
        }
    }

    type Spoil = fn(&mut Observed);

    #[test]
    fn every_fault_has_its_reason() {
        let table: &[(Spoil, &[&str])] = &[
            (|_| {}, &[]),
            (|o| o.tap = TapSeen::NotAsked, &["tap: not asked yet"]),
            (|o| o.tap = TapSeen::Failed("refused".into()), &["tap: refused"]),
            (|o| o.writer_silence = Duration::from_secs(5), &[]),
            (
                |o| o.writer_silence = Duration::from_secs(6),
                &["ledger: the writer is silent for 6 s"],
            ),
            (|o| o.ledger_degraded = Some("disk full".into()), &["ledger: disk full"]),
            (|o| o.ledger_ready = false, &["ledger: the database is being opened"]),
            (
                |o| (o.ledger_ready, o.ledger_updating) = (false, Some((3, 8))),
                &["ledger: the database is being brought up to date (schema 3 -> 8)"],
            ),
            (|o| o.prices_loaded = false, &["prices: no price book is loaded"]),
            (
                |o| o.clock = Timestamp::UNIX_EPOCH,
                &["clock: the system clock says 1970-01-01T00:00:00Z"],
            ),
            (|o| o.ca_outdated = true, &["ca: by this clock it is not valid now"]),
            (|o| o.draining = true, &["draining: shutting down"]),
            (
                |o| {
                    o.tap = TapSeen::Failed("refused".into());
                    o.ledger_degraded = Some("disk full".into());
                },
                &["ledger: disk full", "tap: refused"],
            ),
        ];
        for (spoil, want) in table {
            let mut seen = fine();
            spoil(&mut seen);
            assert_eq!(reasons(&fold(&seen)), *want);
        }
    }

    #[test]
    fn a_silent_actor_is_not_believed() {
        let board = Board::default();
        let now = Instant::now();
        assert_eq!(reasons(&board.read(now, STALE)), ["health: nothing is known yet"]);
        board.publish(fold(&fine()), now);
        assert!(reasons(&board.read(now + STALE, STALE)).is_empty());
        let late = now + STALE + Duration::from_millis(1);
        assert_eq!(reasons(&board.read(late, STALE)), ["health: silent for 1501 ms"]);
    }

    #[test]
    fn draining_shows_before_the_actor_says_so() {
        let board = Board::default();
        let now = Instant::now();
        board.publish(fold(&fine()), now);
        board.drain();
        assert_eq!(reasons(&board.read(now, STALE)), ["draining: shutting down"]);
    }

    /// At rest it is asked rarely; who wants to know is told nothing old; and what can't be had in
    /// time is not told as if it were fine.
    #[tokio::test(start_paused = true)]
    async fn what_is_told_was_looked_at_just_now() {
        const MS: Duration = Duration::from_millis(1);
        let board = Board::default();
        let looks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let actor = tokio::spawn({
            let (board, looks) = (board.clone(), Arc::clone(&looks));
            async move {
                loop {
                    looks.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(MS * 10).await;
                    board.publish(fold(&fine()), Instant::now());
                    board.rest(true).await;
                }
            }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!((29..=32).contains(&looks.swap(0, Ordering::Relaxed)), "at rest");
        for _ in 0..600 {
            tokio::time::sleep(MS * 100).await;
            assert_eq!(reasons(&board.renewed().await), [""; 0]);
            let age = board.latest.load().at.unwrap().elapsed();
            assert!(age <= FRESH, "{age:?}");
            assert_eq!(reasons(&board.known()), [""; 0]);
        }
        let many = looks.swap(0, Ordering::Relaxed);
        assert!((90..=150).contains(&many), "one for all within half a second: {many}");
        actor.abort();
        tokio::time::sleep(STALE).await;
        let asked = Instant::now();
        assert_eq!(reasons(&board.renewed().await).len(), 1);
        assert_eq!(asked.elapsed(), RENEWAL);
    }
}
