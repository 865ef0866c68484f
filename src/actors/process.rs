//! An operating-system process as a supervised child: its exits, kills and adoptions are the same
//! events as an actor's.
//!
//! Whether it lives is asked of its lock (`run/NAME.pid`), so a process that outlived its last
//! supervisor is adopted, not started twice.

mod alive;

use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child as OsChild, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid,
};
use serde_json::{Value, json};

use crate::home::PidLock;
use crate::supervisor::{Birth, Child};

pub use alive::{Answer, Asker, Question};

/// How often a process that was started is looked at until it holds its lock.
const LOOK: Duration = Duration::from_millis(3);

/// How to start one process.
#[derive(Clone)]
pub struct ProcessSpec {
    /// Where it keeps its lock.
    pub pid_file: PathBuf,
    /// Starts it; called for each life that is not an adoption.
    pub start: Arc<dyn Fn() -> io::Result<OsChild> + Send + Sync>,
    /// Whether it still does anything.
    pub alive: Question,
    pub asker: Asker,
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
}

impl ProcessActor {
    #[must_use]
    pub fn new(birth: Birth, spec: ProcessSpec) -> Self {
        Self { birth, spec, pid: Alive::default(), adopted: false, ready: false, stopping: false }
    }

    fn adopt(&mut self, pid: u32, ctx: &mut Context<Self>) {
        self.pid.set(Some(pid));
        self.adopted = true;
        self.ready = true;
        slog::info!(self.birth.log(), "adopted"; "pid" => pid);
        self.birth.ready();
        let path = self.spec.pid_file.clone();
        self.when_gone(ctx, move || {
            // Only its lock tells of the end of a process that is not our child.
            while PidLock::wait_released(&path).is_err() {
                std::thread::sleep(Duration::from_secs(1));
            }
            reap(pid)
        });
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
        self.pid.set(Some(process.id()));
        let alive = self.pid.clone();
        self.when_gone(ctx, move || {
            if let Some(pid) = raw(process.id()) {
                // Until it has ended, without taking its pid from it yet.
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while matches!(waitid(WaitId::Pid(pid), look), Err(rustix::io::Errno::INTR)) {}
            }
            alive.set(None);
            process.wait().map_or(Ended::Unseen, Ended::Status)
        });
        self.look(ctx);
    }

    /// Ready once it holds its lock.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let held = PidLock::holder(&self.spec.pid_file).ok().flatten();
        if held.is_some() && held == self.pid.get() {
            self.ready = true;
            self.birth.ready();
            self.watch(ctx);
        } else {
            ctx.run_later(LOOK, |actor, ctx| actor.look(ctx));
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

    /// Waits for the end on a thread of its own: no polling, and nothing else is held up.
    fn when_gone(&self, ctx: &mut Context<Self>, wait: impl FnOnce() -> Ended + Send + 'static) {
        let (send, gone) = tokio::sync::oneshot::channel();
        let name = format!("wait-{}", self.birth.id());
        let thread =
            std::thread::Builder::new().name(name).stack_size(64 * 1024).spawn(move || {
                let _ = send.send(wait());
            });
        if let Err(e) = thread {
            self.birth.fail(format!("cannot be watched: {e}"));
            ctx.stop();
            return;
        }
        ctx.spawn(gone.into_actor(self).map(|ended, actor, ctx| {
            actor.pid.set(None);
            if !actor.stopping {
                actor.birth.fail(ended.unwrap_or(Ended::Unseen).to_string());
            }
            ctx.stop();
        }));
    }

    fn signal(&self, signal: Signal) {
        let (adopted, pid_file) = (self.adopted, &self.spec.pid_file);
        // No child of ours, so its pid may be another's by now: only its lock tells.
        let is_it = |pid| !adopted || PidLock::holder(pid_file).ok().flatten() == Some(pid);
        self.pid.signal(signal, is_it);
    }
}

impl Actor for ProcessActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match PidLock::holder(&self.spec.pid_file) {
            Ok(Some(pid)) => self.adopt(pid, ctx),
            Ok(None) | Err(_) => self.start(ctx),
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
        if self.stopping || !self.ready {
            self.signal(Signal::KILL);
        }
    }
}

/// What is known of an end.
enum Ended {
    Status(ExitStatus),
    Unseen,
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
