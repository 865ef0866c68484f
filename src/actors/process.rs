//! An operating-system process as a supervised child: its exits, kills and adoptions are the same
//! events as an actor's.
//!
//! Whether it lives is asked of its lock (`run/NAME.pid`), so a process that outlived its last
//! supervisor is adopted, not started twice.

mod alive;

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child as OsChild, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::home::PidLock;
use crate::supervisor::{Birth, Child};

pub use alive::{Answer, Asker, Question};

/// How often a process that was started is looked at until it holds its lock.
const LOOK: Duration = Duration::from_millis(3);
/// One that can't serve has ended by then.
const SETTLED: Duration = Duration::from_secs(1);
/// Between the lock of a process that crashes and its exit status.
const STATUS: Duration = Duration::from_millis(100);

/// How to start one process.
#[derive(Clone)]
pub struct ProcessSpec {
    /// Where it keeps its lock.
    pub pid_file: PathBuf,
    /// A child of this process's last image, for the first life: it may live without its lock.
    pub inherited: Arc<Mutex<Option<u32>>>,
    /// Starts it; called for each life that is not an adoption.
    pub start: Arc<dyn Fn() -> io::Result<OsChild> + Send + Sync>,
    /// Whether it still does anything.
    pub alive: Question,
    pub asker: Asker,
    pub drain: Drain,
}

/// What becomes of a process's connections when it is asked to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drain {
    /// Its lock goes with it.
    None,
    /// It lets go of its lock at once, for the next one, and lives on for them. Who asked waits.
    Awaited,
    /// The same, and who asked does not wait.
    Alone,
}

impl fmt::Debug for ProcessSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessSpec").field("pid_file", &self.pid_file).finish_non_exhaustive()
    }
}

/// The pid as long as it is the process's own. Whoever reaps the process empties it first, under
/// the lock, so that a signal never goes to a stranger that got the number since.
#[derive(Clone, Debug, Default)]
struct Alive(Arc<Mutex<Option<u32>>>);

impl Alive {
    fn get(&self) -> Option<u32> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, pid: Option<u32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    }

    fn signal(&self, signal: Signal, is_it: impl FnOnce(u32) -> bool) {
        let pid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(to) = pid.filter(|pid| is_it(*pid)).and_then(raw) {
            // It may have ended this instant: its waiter tells.
            let _ = kill_process(to, signal);
        }
    }
}

/// After a change of the root's program in place an adopted process is its child all the same.
fn reap(pid: u32) -> Ended {
    let status = raw(pid).and_then(|pid| waitpid(Some(pid), WaitOptions::empty()).ok().flatten());
    status.map_or(Ended::Unseen, |(_, status)| Ended::Status(ExitStatus::from_raw(status.as_raw())))
}

/// It lives, and nobody but us can have its end.
fn is_child(pid: u32) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    raw(pid).is_some_and(|pid| matches!(waitid(WaitId::Pid(pid), look), Ok(None)))
}

fn wait_released(lock: &Path) {
    while PidLock::wait_released(lock).is_err() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn raw(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The process.
#[derive(Debug)]
pub struct ProcessActor {
    birth: Birth,
    spec: ProcessSpec,
    pid: Alive,
    adopted: bool,
    ready: bool,
    stopping: bool,
    /// It ends by itself.
    left_alone: bool,
}

impl ProcessActor {
    #[must_use]
    pub fn new(birth: Birth, spec: ProcessSpec) -> Self {
        Self {
            birth,
            spec,
            pid: Alive::default(),
            adopted: false,
            ready: false,
            stopping: false,
            left_alone: false,
        }
    }

    fn adopt(&mut self, pid: u32, ctx: &mut Context<Self>) {
        self.pid.set(Some(pid));
        self.adopted = true;
        self.ready = true;
        slog::info!(self.birth.log(), "adopted"; "pid" => pid);
        self.birth.ready();
        let path = self.spec.pid_file.clone();
        let (let_go, released) = oneshot::channel();
        self.when_gone(ctx, move || {
            // Only its lock tells of the end of a process that is not our child.
            wait_released(&path);
            let _ = let_go.send(());
            reap(pid)
        });
        self.when_released(released, ctx);
        self.watch(ctx);
    }

    fn start(&mut self, ctx: &mut Context<Self>) {
        let mut process = match (self.spec.start)() {
            Ok(process) => process,
            Err(e) => {
                self.birth.fail(format!("could not be started: {e}"));
                ctx.stop();
                return;
            }
        };
        let pid = process.id();
        self.when_child_gone(pid, ctx, move || process.wait().map_or(Ended::Unseen, Ended::Status));
        self.look(Instant::now(), ctx);
    }

    /// Goes on with a child that has no lock to be adopted by.
    fn inherit(&mut self, pid: u32, ctx: &mut Context<Self>) {
        slog::info!(self.birth.log(), "inherited"; "pid" => pid);
        self.when_child_gone(pid, ctx, move || reap(pid));
        self.ready = true;
        self.birth.ready();
        self.watch(ctx);
    }

    fn when_child_gone(
        &mut self,
        pid: u32,
        ctx: &mut Context<Self>,
        reap: impl FnOnce() -> Ended + Send + 'static,
    ) {
        self.pid.set(Some(pid));
        let alive = self.pid.clone();
        self.when_gone(ctx, move || {
            if let Some(pid) = raw(pid) {
                // Until it has ended, without taking its pid from it yet.
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while matches!(waitid(WaitId::Pid(pid), look), Err(rustix::io::Errno::INTR)) {}
            }
            alive.set(None);
            reap()
        });
    }

    /// Ready once it holds its lock, or, where there can be none, once it has lived for a while: an
    /// edge serves without.
    fn look(&mut self, born: Instant, ctx: &mut Context<Self>) {
        let (pid, path) = (self.pid.get(), &self.spec.pid_file);
        let held = PidLock::holder(path).ok().flatten();
        let serves = match held {
            Some(_) => held == pid,
            None => pid.is_some() && born.elapsed() >= SETTLED && !PidLock::can_be_held(path),
        };
        if serves {
            self.ready = true;
            self.birth.ready();
            self.watch(ctx);
            if held.is_some() && self.spec.drain != Drain::None {
                self.await_release(ctx);
            }
        } else {
            ctx.run_later(LOOK, move |actor, ctx| actor.look(born, ctx));
        }
    }

    /// One that says nothing for long is ended, and so restarted.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        match self.spec.asker.watch(Arc::clone(&self.spec.alive)) {
            Ok(frozen) => {
                ctx.spawn(frozen.into_actor(self).map(|frozen, actor, _| {
                    // How long its end may take is another deadline's business.
                    if frozen.is_ok() && !actor.stopping {
                        actor.birth.fail("it does not answer any more");
                        actor.signal(Signal::KILL);
                    }
                }));
            }
            Err(e) => {
                slog::error!(self.birth.log(), "nobody asks whether it is frozen"; "error" => %e);
            }
        }
    }

    fn await_release(&self, ctx: &mut Context<Self>) {
        let path = self.spec.pid_file.clone();
        let (let_go, released) = oneshot::channel();
        let waiting = self.wait("lock", move || {
            wait_released(&path);
            let _ = let_go.send(());
        });
        match waiting {
            Ok(()) => self.when_released(released, ctx),
            Err(e) => {
                slog::error!(self.birth.log(), "replaced only after its end"; "error" => %e);
            }
        }
    }

    /// What drains is replaced before it ends; whoever waits for its end reaps it. One that crashed has
    /// let go of its lock too, and its status comes first.
    fn when_released(&self, released: oneshot::Receiver<()>, ctx: &mut Context<Self>) {
        if self.spec.drain == Drain::None {
            return;
        }
        ctx.spawn(released.into_actor(self).map(|released, _, ctx| {
            if released.is_ok() {
                ctx.run_later(STATUS, |actor, ctx| match (actor.stopping, actor.spec.drain) {
                    (false, Drain::None | Drain::Awaited | Drain::Alone) => {
                        actor.birth.fail("it let go of its lock, to end after its connections");
                        ctx.stop();
                    }
                    (true, Drain::Alone) => {
                        actor.left_alone = true;
                        ctx.stop();
                    }
                    (true, Drain::Awaited | Drain::None) => {}
                });
            }
        }));
    }

    /// On a thread of its own: no polling, and nothing else is held up.
    fn wait(&self, what: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let name = format!("{what}-{}", self.birth.id());
        let thread = std::thread::Builder::new().name(name).stack_size(64 * 1024);
        thread.spawn(work).map(drop)
    }

    fn when_gone(&self, ctx: &mut Context<Self>, wait: impl FnOnce() -> Ended + Send + 'static) {
        let (send, gone) = oneshot::channel();
        let waiting = self.wait("wait", move || {
            let _ = send.send(wait());
        });
        if let Err(e) = waiting {
            self.birth.fail(format!("cannot be watched: {e}"));
            ctx.stop();
            return;
        }
        ctx.spawn(gone.into_actor(self).map(|ended, actor, ctx| {
            actor.pid.set(None);
            let ended = ended.unwrap_or(Ended::Unseen);
            // In order, somebody has asked it to: no failure, and it comes back all the same.
            let in_order = actor.ready && ended.is_orderly();
            if !(actor.stopping || in_order) {
                actor.birth.fail(ended.to_string());
            }
            ctx.stop();
        }));
    }

    fn signal(&self, signal: Signal) {
        let (adopted, pid_file) = (self.adopted, &self.spec.pid_file);
        // No child of ours, so its pid may be another's by now: only its lock tells.
        let is_it = |pid| !adopted || PidLock::holder_here(pid_file) == Some(pid);
        self.pid.signal(signal, is_it);
    }
}

impl Actor for ProcessActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let inherited = self.spec.inherited.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (PidLock::holder(&self.spec.pid_file), inherited.filter(|pid| is_child(*pid))) {
            (Ok(Some(pid)), _) => self.adopt(pid, ctx),
            (Ok(None) | Err(_), Some(pid)) => self.inherit(pid, ctx),
            (Ok(None) | Err(_), None) => self.start(ctx),
        }
    }
}

impl Child for ProcessActor {
    fn observe(&self) -> Value {
        json!({ "pid": self.pid.get(), "adopted": self.adopted })
    }

    fn stop(&mut self, ctx: &mut Context<Self>) {
        self.stopping = true;
        if self.pid.get().is_none() {
            ctx.stop();
        }
        self.signal(Signal::TERM);
    }
}

impl Drop for ProcessActor {
    /// Aborted at a deadline: what did not end by SIGTERM, or never got ready, ends now. One that
    /// serves goes on, for the next life to adopt.
    fn drop(&mut self) {
        if (self.stopping && !self.left_alone) || !self.ready {
            self.signal(Signal::KILL);
        }
    }
}

/// What is known of an end.
enum Ended {
    Status(ExitStatus),
    Unseen,
}

impl Ended {
    fn is_orderly(&self) -> bool {
        match self {
            Self::Status(status) => status.success(),
            Self::Unseen => false,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "process ended: {status}"),
            Self::Unseen => f.write_str("process ended"),
        }
    }
}

#[cfg(test)]
mod tests;
