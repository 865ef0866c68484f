//! The side of the runner that lives on the child's own thread: make the context by hand, drive
//! it as a local task, await the join handle, report the typed exit.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use actix::fut::ActorFuture;
use actix::{ActorContext, AsyncContext, Context};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::birth::{Birth, Slot};
use super::event::{Cause, Event, Exit};
use super::liveness::{self, describe_panic};
use super::runner::{self, Outcome};
use super::{Child, Journal, Lane, Lanes, TreeSpec};

/// What the supervisor tells a child, past its mailbox.
#[derive(Debug)]
pub(super) enum Control {
    Stop,
    /// [`Birth::fail`] was called.
    Fail,
    /// Are you there? A child whose context is polled beats its pulse.
    Beat,
    Observe(oneshot::Sender<Value>),
    /// In the child of this path below, itself if that is empty.
    #[cfg(debug_assertions)]
    Fault(String, super::faults::Fault),
}

/// How a child's thread tells its supervisor.
#[derive(Clone, Debug)]
pub(super) struct Report {
    pub child: usize,
    pub generation: u64,
    pub events: mpsc::UnboundedSender<Event>,
}

impl Report {
    pub fn ready(&self) {
        let (child, generation) = (self.child, self.generation);
        let _ = self.events.send(Event::ChildReady { child, generation });
    }

    fn exited(&self, exit: Exit) {
        let (child, generation) = (self.child, self.generation);
        let _ = self.events.send(Event::ChildExited { child, generation, exit });
    }
}

/// All that one generation needs.
#[derive(Debug)]
pub(super) struct Launch {
    pub birth: Birth,
    pub report: Report,
    pub control: mpsc::UnboundedReceiver<Control>,
    pub kill: oneshot::Receiver<()>,
    pub lane: Lane,
    // for nested supervisors
    pub process: &'static str,
    pub path: String,
    pub journal: Journal,
    pub lanes: Lanes,
}

pub(super) fn actor<A: Child>(
    launch: Launch,
    slot: Slot<A>,
    factory: Arc<impl Fn(Birth) -> A + Send + Sync + 'static>,
) {
    let (lanes, lane, report) = (launch.lanes.clone(), launch.lane, launch.report.clone());
    let started = lanes.run(lane, move || {
        actix_rt::spawn(run_actor(launch, slot, factory));
    });
    if !started {
        report.exited(Exit::Failed("its thread could not be started".to_owned()));
    }
}

async fn run_actor<A: Child>(
    launch: Launch,
    slot: Slot<A>,
    factory: Arc<impl Fn(Birth) -> A + 'static>,
) {
    let Launch { birth, report, control, kill, .. } = launch;
    let generation = birth.generation();
    let inner = {
        let (birth, slot) = (birth.clone(), slot.clone());
        async move {
            let mut ctx = Context::<A>::new();
            let addr = ctx.address();
            birth.on_ready(move || slot.put(generation, addr.clone()));
            ctx.spawn(Link { control, birth: birth.clone() });
            let actor = factory(birth);
            ctx.into_future(actor).await;
        }
    };
    let task = actix_rt::spawn(noting_panics(inner));
    let exit = join(task, kill, || birth.take_fault().map(Exit::Failed)).await;
    slot.clear(generation);
    report.exited(exit);
}

pub(super) fn tree(
    launch: Launch,
    factory: Arc<impl Fn(&Birth) -> TreeSpec + Send + Sync + 'static>,
) {
    let Launch { birth, report, mut control, kill, process, path, journal, lanes, .. } = launch;
    let inner = async move {
        let mut spec = factory(&birth);
        spec.process = process;
        spec.journal = journal;
        spec.lanes = lanes;
        let ready = birth.clone();
        let (tree, task) = runner::start_at(spec, path, move || ready.ready());
        // However this ends: nobody of this generation may live on beside the next one.
        let _task = AbortOnDrop(task);
        let mut done = pin!(tree.finished());
        loop {
            tokio::select! {
                outcome = &mut done => {
                    let fault = birth.take_fault().map(Exit::Failed);
                    break match outcome {
                        Outcome::Stopped => fault,
                        Outcome::Escalated(Cause::Unkillable { child }) => {
                            Some(Exit::Unkillable(child))
                        }
                        Outcome::Escalated(cause @ Cause::Intensity { .. }) => {
                            fault.or_else(|| Some(Exit::Failed(cause.to_string())))
                        }
                    };
                }
                order = control.recv() => match order {
                    Some(Control::Stop | Control::Fail) | None => tree.request_shutdown(),
                    Some(Control::Beat) => birth.pulse().beat(),
                    Some(Control::Observe(reply)) => {
                        let tree = tree.clone();
                        actix_rt::spawn(async move {
                            let children = tree.observe().await;
                            let _ = reply.send(serde_json::to_value(children).unwrap_or_default());
                        });
                    }
                    #[cfg(debug_assertions)]
                    Some(Control::Fault(path, fault)) => if path.is_empty() {
                        super::faults::commit_in_tree(fault, &birth).await;
                    } else {
                        tree.fault(path, fault);
                    },
                },
            }
        }
    };
    actix_rt::spawn(async move {
        let (tell, fault) = oneshot::channel();
        let task = actix_rt::spawn(noting_panics(async move {
            let _ = tell.send(inner.await);
        }));
        let mut fault = fault;
        let exit = join(task, kill, || fault.try_recv().ok().flatten()).await;
        report.exited(exit);
    });
}

/// Waits for the end of the task, or ends it.
async fn join(
    mut task: tokio::task::JoinHandle<()>,
    kill: oneshot::Receiver<()>,
    fault: impl FnOnce() -> Option<Exit>,
) -> Exit {
    let mut kill = pin!(kill);
    let mut killed = false;
    let result = poll_fn(|cx| {
        // An error: the supervisor is gone, and nobody would ever end us.
        if !killed && kill.as_mut().poll(cx).is_ready() {
            killed = true;
            task.abort();
        }
        Pin::new(&mut task).poll(cx)
    })
    .await;
    match result {
        Ok(()) => fault().unwrap_or(Exit::Normal),
        Err(e) if e.is_panic() => Exit::Panicked(describe_panic(e.into_panic().as_ref())),
        Err(_) => Exit::Killed,
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Marks each poll, so that the panic hook knows whose panic it is.
async fn noting_panics(inner: impl Future<Output = ()>) {
    let mut inner = pin!(inner);
    poll_fn(|cx| {
        match liveness::supervised(|| catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx)))) {
            Ok(poll) => poll,
            Err(payload) => resume_unwind(payload),
        }
    })
    .await;
}

/// Lives inside the child's context: beats its pulse and carries out what the supervisor says,
/// with the actor at hand.
struct Link {
    control: mpsc::UnboundedReceiver<Control>,
    birth: Birth,
}

impl<A: Child> ActorFuture<A> for Link {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Context<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let this = &mut *self;
        while let Poll::Ready(order) = this.control.poll_recv(task) {
            match order {
                Some(Control::Stop) => actor.stop(ctx),
                Some(Control::Fail) | None => ctx.stop(),
                Some(Control::Beat) => this.birth.pulse().beat(),
                Some(Control::Observe(reply)) => {
                    let _ = reply.send(actor.observe());
                }
                #[cfg(debug_assertions)]
                Some(Control::Fault(_, fault)) => super::faults::commit(fault, &this.birth, ctx),
            }
            if order_ended(ctx) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

fn order_ended<A: Child>(ctx: &Context<A>) -> bool {
    ctx.state() != actix::ActorState::Running
}
