//! The thin shell around [`step`]: feeds it what happens, does as its effects say, appends each
//! event to the journal after it happened.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use slog::o;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::birth::Birth;
use super::event::{Cause, Effect, Event, Exit, Timer};
use super::journal::{Note, Step};
use super::launch::{Control, Launch, Report};
use super::liveness::{self, Pulse};
use super::spec::TreeSpec;
use super::step::{Phase, Plan, State, step};
use crate::beat;

/// How long `observe` waits for a child's own state.
const OBSERVE_DEADLINE: Duration = Duration::from_millis(250);

/// Starts the tree on the current thread, which must run an actix `System`.
#[must_use]
pub fn start(tree: TreeSpec) -> Supervisor {
    #[cfg(debug_assertions)]
    let (process, children) =
        (tree.process, tree.children.iter().map(|c| c.id.to_owned()).collect());
    let (supervisor, _) = start_at(tree, String::new(), || {});
    #[cfg(debug_assertions)]
    super::faults::listen(process, children, supervisor.commands.downgrade());
    supervisor
}

/// Also gives the runner's task: when it is aborted, its children are.
pub(super) fn start_at(
    tree: TreeSpec,
    path: String,
    up: impl FnOnce() + 'static,
) -> (Supervisor, JoinHandle<()>) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    liveness::install_panic_hook();
    let (commands, inbox) = mpsc::unbounded_channel();
    let (finished, outcome) = watch::channel(None);
    let (escalated, escalation) = watch::channel(None);
    let (events, reports) = mpsc::unbounded_channel();
    let plan = tree.plan();
    let runner = Runner {
        state: State::new(&plan),
        plan,
        tree,
        path,
        run: RUN.fetch_add(1, Ordering::Relaxed),
        began: Instant::now(),
        events,
        live: HashMap::new(),
        alarms: Vec::new(),
        escalated,
        up: Some(Box::new(up)),
        _commands: commands.clone(),
    };
    let task = actix_rt::spawn(runner.run(inbox, reports, finished));
    (Supervisor { commands, outcome, escalation }, task)
}

/// A handle on a running tree. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Supervisor {
    commands: mpsc::UnboundedSender<Command>,
    outcome: watch::Receiver<Option<Outcome>>,
    escalation: watch::Receiver<Option<Cause>>,
}

/// How a tree ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    Stopped,
    Escalated(Cause),
}

/// What [`Supervisor::observe`] says of a child.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChildStatus {
    pub id: String,
    pub state: Phase,
    pub generation: u64,
    pub restarts: u64,
    pub last_exit: Option<String>,
    /// The child's own state; null when it does not answer in time.
    pub observed: Value,
}

#[derive(Debug)]
pub(super) enum Command {
    Shutdown,
    Restart(String),
    Suspect(String),
    Observe(oneshot::Sender<Vec<ChildStatus>>),
    /// Of the child with this path.
    #[cfg(debug_assertions)]
    Fault(String, super::faults::Fault),
}

impl Supervisor {
    /// The children in the order of their start. A child that doesn't answer costs a quarter of
    /// a second, whatever their number.
    pub async fn observe(&self) -> Vec<ChildStatus> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(Command::Observe(reply));
        answer.await.unwrap_or_default()
    }

    /// Stops the children, last first, and returns when all are gone.
    pub async fn shutdown(&self) {
        self.request_shutdown();
        self.finished().await;
    }

    /// As [`Self::shutdown`], without waiting.
    pub fn request_shutdown(&self) {
        let _ = self.commands.send(Command::Shutdown);
    }

    /// Ends this child, by its own shutdown, and starts a new generation without delay.
    pub fn restart(&self, id: &str) {
        let _ = self.commands.send(Command::Restart(id.to_owned()));
    }

    /// Somebody waits in vain for what this child owes: it counts as stalled, like one that misses
    /// its heartbeat. For children that have none.
    pub fn suspect(&self, id: &str) {
        let _ = self.commands.send(Command::Suspect(id.to_owned()));
    }

    #[cfg(debug_assertions)]
    pub(super) fn fault(&self, path: String, fault: super::faults::Fault) {
        let _ = self.commands.send(Command::Fault(path, fault));
    }

    /// Waits until the tree gives up; for ever if it is stopped without that. The children are
    /// being stopped then, [`Self::finished`] says when they are.
    pub async fn escalated(&self) -> Cause {
        let mut escalation = self.escalation.clone();
        if let Ok(cause) = escalation.wait_for(Option::is_some).await
            && let Some(cause) = cause.clone()
        {
            return cause;
        }
        std::future::pending().await
    }

    /// Waits for the end.
    pub async fn finished(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Outcome::Stopped),
            // The runner is gone with its System.
            Err(_) => Outcome::Stopped,
        }
    }
}

struct Runner {
    tree: TreeSpec,
    plan: Plan,
    state: State,
    /// Names of the supervisors above and of this one, for nested ones.
    path: String,
    run: u64,
    began: Instant,
    events: mpsc::UnboundedSender<Event>,
    live: HashMap<usize, Live>,
    alarms: Vec<(Instant, Alarm)>,
    escalated: watch::Sender<Option<Cause>>,
    up: Option<Box<dyn FnOnce()>>,
    /// Keeps the inbox open when nobody holds a handle: the tree goes on until its System ends.
    _commands: mpsc::UnboundedSender<Command>,
}

/// A generation that runs.
struct Live {
    generation: u64,
    control: mpsc::UnboundedSender<Control>,
    kill: Option<oneshot::Sender<()>>,
    pulse: Pulse,
    seen: u64,
}

enum Alarm {
    Timer { timer: Timer, child: usize, generation: u64 },
    Heartbeat { child: usize, generation: u64, period: Duration },
}

impl Runner {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Command>,
        mut reports: mpsc::UnboundedReceiver<Event>,
        finished: watch::Sender<Option<Outcome>>,
    ) {
        let mut done = self.handle(Event::TreeStarted);
        while !done {
            let next = self.alarms.iter().map(|(at, _)| *at).min();
            done = tokio::select! {
                biased;
                Some(event) = reports.recv() => self.handle(event),
                command = inbox.recv() => match command {
                    Some(Command::Shutdown) => self.handle(Event::ShutdownRequested),
                    Some(Command::Restart(id)) => self
                        .find(&id)
                        .is_some_and(|child| self.handle(Event::RestartRequested { child })),
                    Some(Command::Suspect(id)) => self.find(&id).is_some_and(|child| {
                        let generation = self.state.children.get(child).map_or(0, |c| c.generation);
                        self.handle(Event::HeartbeatMissed { child, generation })
                    }),
                    Some(Command::Observe(reply)) => {
                        self.observe(reply);
                        false
                    }
                    #[cfg(debug_assertions)]
                    Some(Command::Fault(path, fault)) => {
                        let (id, rest) = path.split_once('.').unwrap_or((&path, ""));
                        let live = self.find(id).and_then(|child| self.live.get(&child));
                        if let Some(live) = live {
                            let _ = live.control.send(Control::Fault(rest.to_owned(), fault));
                        }
                        false
                    }
                    // Can't be: we hold a sender ourselves.
                    None => true,
                },
                () = at(next) => self.ring(),
            };
        }
        let outcome = match self.state.escalation.take() {
            Some(cause) => Outcome::Escalated(cause),
            None => Outcome::Stopped,
        };
        let _ = finished.send(Some(outcome));
    }

    /// One event through the core; true when all is over.
    fn handle(&mut self, event: Event) -> bool {
        let mut todo = vec![event];
        let mut done = false;
        while let Some(event) = todo.pop() {
            let now = self.began.elapsed();
            // The journal's resolution, so that a replay sees the same time.
            let now = Duration::from_micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
            let effects = step(&self.plan, &mut self.state, &event, now);
            let mut delay = None;
            let mut gave_up = None;
            for effect in effects {
                match effect {
                    Effect::Spawn { child, generation } => {
                        todo.extend(self.spawn(child, generation));
                    }
                    Effect::RequestStop { child, generation } => {
                        if let Some(live) = self.live(child, generation) {
                            let _ = live.control.send(Control::Stop);
                        }
                    }
                    Effect::Abort { child, generation } => {
                        if let Some(kill) = self.live(child, generation).and_then(|l| l.kill.take())
                        {
                            let _ = kill.send(());
                        }
                    }
                    Effect::ArmTimer { timer, child, generation, after } => {
                        let after = if timer == Timer::RestartDue {
                            let after = jitter(after);
                            delay = Some(after);
                            after
                        } else {
                            after
                        };
                        let alarm = Alarm::Timer { timer, child, generation };
                        self.alarms.push((Instant::now() + after, alarm));
                    }
                    Effect::Escalate(cause) => {
                        slog::error!(self.tree.log, "supervisor gives up"; "cause" => %cause);
                        gave_up = Some(cause);
                    }
                    Effect::Finished => done = true,
                }
            }
            self.record(event, now, delay);
            if let Some(cause) = gave_up {
                let mut note = Note::new("escalated").cause(&cause);
                note.child = (!self.path.is_empty()).then(|| self.path.clone());
                self.tree.journal.append(note);
                let _ = self.escalated.send(Some(cause));
            }
        }
        if self.state.is_up()
            && let Some(up) = self.up.take()
        {
            up();
        }
        done
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.plan.children.iter().position(|c| c.id == id)
    }

    fn live(&mut self, child: usize, generation: u64) -> Option<&mut Live> {
        self.live.get_mut(&child).filter(|live| live.generation == generation)
    }

    fn spawn(&mut self, child: usize, generation: u64) -> Option<Event> {
        let spec = self.tree.children.get(child)?.clone();
        let (control, orders) = mpsc::unbounded_channel();
        let (kill, killed) = oneshot::channel();
        let pulse = Pulse::default();
        let log = self.tree.log.new(o!("child" => spec.id, "generation" => generation));
        let report = Report { child, generation, events: self.events.clone() };
        let birth =
            Birth::new(spec.id, generation, log, pulse.clone(), report.clone(), control.clone());
        let live = Live { generation, control, kill: Some(kill), pulse, seen: 0 };
        self.live.insert(child, live);
        if let Some(period) = spec.heartbeat {
            self.ask_for_beat(child, generation, period);
        }
        (spec.spawn)(Launch {
            birth,
            report,
            control: orders,
            kill: killed,
            lane: spec.lane,
            process: self.tree.process,
            path: self.name(spec.id),
            journal: self.tree.journal.clone(),
            lanes: self.tree.lanes.clone(),
        });
        Some(Event::ChildStarting { child, generation })
    }

    /// Does what is due; true when all is over.
    fn ring(&mut self) -> bool {
        let now = Instant::now();
        let Some(i) = self
            .alarms
            .iter()
            .enumerate()
            .filter(|(_, (at, _))| *at <= now)
            .min_by_key(|(_, (at, _))| *at)
            .map(|(i, _)| i)
        else {
            return false;
        };
        let (due, alarm) = self.alarms.swap_remove(i);
        match alarm {
            // Nobody waits for it any more: nothing to tell the core or the journal.
            Alarm::Timer { timer, child, generation }
                if !self.state.awaits(timer, child, generation) =>
            {
                false
            }
            Alarm::Timer { timer, child, generation } => {
                self.handle(Event::TimerFired { timer, child, generation })
            }
            Alarm::Heartbeat { child, generation, period } => {
                // We were frozen or starved ourselves, and so were the children: judge later.
                let fair = now - due < period / 2;
                let Some(live) = self.live(child, generation) else { return false };
                let beats = live.pulse.beats();
                let alive = beats != std::mem::replace(&mut live.seen, beats);
                if alive || live.pulse.is_protected() || !fair {
                    self.ask_for_beat(child, generation, period);
                    return false;
                }
                self.handle(Event::HeartbeatMissed { child, generation })
            }
        }
    }

    /// Whether it answered is looked at in a period from now, a tenth more or less, so that all
    /// children are looked at, and asked, in one go.
    fn ask_for_beat(&mut self, child: usize, generation: u64, period: Duration) {
        let Some(live) = self.live(child, generation) else { return };
        let _ = live.control.send(Control::Beat);
        let at = beat::next(Instant::now() + period * 9 / 10, period / 5);
        self.alarms.push((at, Alarm::Heartbeat { child, generation, period }));
    }

    fn observe(&self, reply: oneshot::Sender<Vec<ChildStatus>>) {
        let mut all = Vec::new();
        for (i, (plan, state)) in self.plan.children.iter().zip(&self.state.children).enumerate() {
            let status = ChildStatus {
                id: plan.id.clone(),
                state: state.phase,
                generation: state.generation,
                restarts: state.restarts,
                last_exit: state.last_exit.as_ref().map(Exit::to_string),
                observed: Value::Null,
            };
            let (ask, answer) = oneshot::channel();
            if state.phase.is_live()
                && let Some(live) = self.live.get(&i)
            {
                let _ = live.control.send(Control::Observe(ask));
            }
            all.push((status, answer));
        }
        actix_rt::spawn(async move {
            // The deadline is common: each was asked at the same time.
            let deadline = Instant::now() + OBSERVE_DEADLINE;
            let mut statuses = Vec::new();
            for (mut status, answer) in all {
                let left = deadline.saturating_duration_since(Instant::now());
                if let Ok(Ok(observed)) = timeout(left, answer).await {
                    status.observed = observed;
                }
                statuses.push(status);
            }
            let _ = reply.send(statuses);
        });
    }

    fn name(&self, child: &str) -> String {
        if self.path.is_empty() { child.to_owned() } else { format!("{}.{child}", self.path) }
    }

    fn record(&mut self, event: Event, now: Duration, delay: Option<Duration>) {
        let (name, child) = event.describe();
        // What the core made of it: the first fault, not the kill that it led to.
        let exit = |child: usize| self.state.children.get(child).and_then(|c| c.last_exit.clone());
        let cause = match &event {
            Event::ChildExited { child, exit: raw, .. } => {
                Some(exit(*child).unwrap_or_else(|| raw.clone()))
            }
            Event::TreeStarted
            | Event::ChildStarting { .. }
            | Event::ChildReady { .. }
            | Event::HeartbeatMissed { .. }
            | Event::TimerFired { .. }
            | Event::RestartRequested { .. }
            | Event::ShutdownRequested => None,
        };
        let named = child.and_then(|(i, _)| self.plan.children.get(i)).map(|c| self.name(&c.id));
        let generation = child.and_then(|(_, g)| g);
        let delay_ms = delay.and_then(|d| u64::try_from(d.as_millis()).ok());
        if let Event::ChildExited { child, generation, .. } = &event {
            if let Some(exit) = cause.as_ref().filter(|exit| exit.is_failure()) {
                slog::warn!(self.tree.log, "child ended"; "child" => named.as_deref(),
                    "generation" => generation, "exit" => %exit, "delay_ms" => delay_ms);
            }
            if self.live(*child, *generation).is_some() {
                self.live.remove(child);
            }
        } else {
            slog::debug!(self.tree.log, "supervision"; "event" => name,
                "child" => named.as_deref(), "generation" => generation);
        }
        let plan = (event == Event::TreeStarted).then(|| self.plan.clone());
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let step = Step { tree: self.path.clone(), run: self.run, micros, event, plan };
        self.tree.journal.append(Note {
            child: named.or_else(|| (!self.path.is_empty()).then(|| self.path.clone())),
            generation,
            event: name.to_owned(),
            cause: cause.map(|exit| exit.to_string()),
            delay_ms,
            step: Some(step),
        });
    }
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => sleep_until(when).await,
        None => std::future::pending().await,
    }
}

/// ± 20 %, so that children that died together don't come back together.
fn jitter(delay: Duration) -> Duration {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    delay.saturating_mul(205 + u32::from(byte[0]) * 2 / 5) / 256
}
