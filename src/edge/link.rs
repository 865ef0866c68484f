//! The control channel to the daemon, and the offers under way on it.
//!
//! A connection offers its socket ([`Link::offer`]) without ever waiting for the channel; one task
//! per link ([`Link::run`]) reads the answers, keeps the deadlines and, when the channel ends,
//! sends every offer under way back to its connection at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::unix::pipe;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::connect::Target;
use super::health::Cause;
use super::offer::{self, Event, Outcome, SILENCE, State};
use super::route::Reason;
use crate::handover::channel::{Channel, ChannelError, Receiver, Sender, TrySendError};
use crate::handover::{Offer, OfferId, RequestHead, ToDaemon, ToEdge, VERSION};

/// Told when the daemon turns out to be down; the health board's side of the link.
pub trait Alarm: Send + Sync {
    fn down(&self, cause: Cause);
}

/// One connection to one daemon process.
#[derive(Debug)]
pub struct Link {
    instance: Uuid,
    inner: Mutex<Inner>,
    /// The task must look at deadlines and unsent answers again.
    wake: Notify,
}

#[derive(Debug)]
struct Inner {
    /// `None` once the channel ended.
    sender: Option<Sender<ToDaemon>>,
    draining: bool,
    next_id: OfferId,
    offers: HashMap<OfferId, Pending>,
    last_word: Instant,
}

#[derive(Debug)]
struct Pending {
    state: State,
    tell: oneshot::Sender<Outcome>,
}

/// Why no link could be made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the daemon closed the channel")]
    Closed,
    #[error("the daemon speaks version {0}")]
    Version(u16),
    #[error("the daemon did not introduce itself")]
    NoHello,
}

impl Link {
    /// Connects and exchanges the greetings. The caller puts a deadline on it and spawns
    /// [`Link::run`].
    pub async fn connect(path: &Path) -> Result<(Arc<Self>, Receiver<ToEdge>), LinkError> {
        let mut channel: Channel<ToDaemon, ToEdge> = Channel::connect(path).await?;
        let hello = ToDaemon::Hello { version: VERSION, pid: std::process::id() };
        channel.send(&hello, None).await?;
        let instance = match channel.recv().await?.ok_or(LinkError::Closed)?.0 {
            ToEdge::Hello { version: VERSION, instance, .. } => instance,
            ToEdge::Hello { version, .. } => return Err(LinkError::Version(version)),
            ToEdge::Canary
            | ToEdge::Progress { .. }
            | ToEdge::Commit { .. }
            | ToEdge::Decline { .. }
            | ToEdge::Draining => return Err(LinkError::NoHello),
        };
        let (sender, receiver) = channel.split();
        let link = Arc::new(Self {
            instance,
            inner: Mutex::new(Inner {
                sender: Some(sender),
                draining: false,
                next_id: 1,
                offers: HashMap::new(),
                last_word: Instant::now(),
            }),
            wake: Notify::new(),
        });
        Ok((link, receiver))
    }

    #[must_use]
    pub fn instance(&self) -> Uuid {
        self.instance
    }

    /// Whether offers may go out on it.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        let inner = self.lock();
        inner.sender.is_some() && !inner.draining
    }

    /// Sends a copy of the client's descriptor. The outcome comes later; dropping the receiver
    /// gives the offer up (a commit is then refused).
    pub fn offer(
        &self,
        connection: Uuid,
        target: &Target,
        (client, local): (SocketAddr, SocketAddr),
        head: Option<RequestHead>,
        secure: bool,
        descriptor: BorrowedFd<'_>,
    ) -> Result<oneshot::Receiver<Outcome>, Reason> {
        let mut inner = self.lock();
        if inner.draining {
            return Err(Reason::Daemon(Cause::Draining));
        }
        let id = inner.next_id;
        let Some(sender) = &mut inner.sender else {
            return Err(Reason::Daemon(Cause::ChannelLost));
        };
        let offer = ToDaemon::Offer(Offer {
            id,
            connection,
            host: target.host.to_string(),
            port: target.port,
            client,
            local,
            head,
            secure,
        });
        match sender.try_send(&offer, Some(descriptor)) {
            Ok(()) => {}
            Err(TrySendError::Full) => return Err(Reason::ChannelFull),
            Err(TrySendError::Broken(_)) => return Err(Reason::Daemon(Cause::ChannelLost)),
        }
        inner.next_id += 1;
        let (tell, told) = oneshot::channel();
        inner.offers.insert(id, Pending { state: State::new(Instant::now()), tell });
        drop(inner);
        self.wake.notify_one();
        Ok(told)
    }

    /// Takes back every offer under way. Connections that the daemon was granted stay its own.
    pub fn withdraw(&self) {
        self.end_all(Reason::NoAnswer, Instant::now());
    }

    /// Serves the channel until it ends.
    pub async fn run(&self, mut receiver: Receiver<ToEdge>, alarm: &dyn Alarm) {
        let mut canary = None;
        loop {
            let (deadline, unsent) = self.waits_for();
            let tick = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let room = async {
                match &unsent {
                    Some(stream) => stream.writable().await,
                    None => std::future::pending().await,
                }
            };
            // What the daemon said comes before any deadline: after a pause of the whole machine
            // both are due, and the daemon is not to blame.
            tokio::select! {
                biased;
                // Some milliseconds before the channel says so: what was asked is granted to nobody.
                () = death(canary.as_ref()) => break,
                got = receiver.recv() => match got {
                    Ok(Some((ToEdge::Canary, sent))) => canary = sent.and_then(watch),
                    Ok(Some((message, _))) => self.heard(&message, alarm),
                    Ok(None) | Err(_) => break,
                },
                _ = room => {}
                () = self.wake.notified() => {}
                () = tick => self.tick(alarm),
            }
            if self.flush().is_err() {
                break;
            }
        }
        let draining = self.close();
        if !draining {
            // Before the connections go on: those that come next must see it.
            alarm.down(Cause::ChannelLost);
        }
        let cause = if draining { Cause::Draining } else { Cause::ChannelLost };
        self.end_all(Reason::Daemon(cause), Instant::now());
    }

    fn heard(&self, message: &ToEdge, alarm: &dyn Alarm) {
        let now = Instant::now();
        self.lock().last_word = now;
        match message {
            ToEdge::Progress { id } => self.step(*id, Event::Progress, now),
            ToEdge::Commit { id } => self.step(*id, Event::Commit, now),
            ToEdge::Decline { id, reason } => self.step(*id, Event::Decline(*reason), now),
            ToEdge::Draining => {
                self.lock().draining = true;
                alarm.down(Cause::Draining);
            }
            ToEdge::Hello { .. } | ToEdge::Canary => {}
        }
    }

    fn step(&self, id: OfferId, event: Event, now: Instant) {
        let mut inner = self.lock();
        let pending = inner.offers.remove(&id);
        let state = pending.as_ref().map_or(State::Raw, |p| p.state);
        let (next, effect) = offer::step(state, event, now);
        let abandoned = pending.as_ref().is_none_or(|p| p.tell.is_closed());
        let outcome = match (effect.verdict, &mut inner.sender) {
            (Some(true), Some(sender)) if !abandoned => grant(sender, id),
            (Some(true), None) => Some(Outcome::Raw(Reason::Daemon(Cause::ChannelLost))),
            (Some(_), Some(sender)) => {
                // A broken channel shows at the next read.
                let _ = sender.push(&ToDaemon::Verdict { id, granted: false });
                effect.outcome
            }
            (Some(false), None) | (None, _) => effect.outcome,
        };
        match (pending, outcome) {
            (Some(pending), Some(outcome)) => {
                // The connection may be gone.
                let _ = pending.tell.send(outcome);
            }
            (Some(pending), None) => {
                inner.offers.insert(id, Pending { state: next, ..pending });
            }
            (None, _) => {}
        }
    }

    /// A deadline passed. If the daemon was silent all the while it is frozen, and nobody else
    /// need wait for that to show; if it talked about others, only the late offers end.
    fn tick(&self, alarm: &dyn Alarm) {
        let now = Instant::now();
        let (frozen, ids) = {
            let inner = self.lock();
            let late = |p: &Pending| p.state.deadline().is_some_and(|at| at <= now);
            let ids: Vec<_> =
                inner.offers.iter().filter(|(_, p)| late(p)).map(|(id, _)| *id).collect();
            (!ids.is_empty() && now.duration_since(inner.last_word) >= SILENCE, ids)
        };
        if frozen {
            // Before the connections go on: those that come next must see it.
            alarm.down(Cause::Frozen);
            self.end_all(Reason::Daemon(Cause::Frozen), now);
        } else {
            for id in ids {
                self.step(id, Event::Tick, now);
            }
        }
    }

    fn end_all(&self, reason: Reason, now: Instant) {
        let ids: Vec<_> = self.lock().offers.keys().copied().collect();
        for id in ids {
            self.step(id, Event::Lost(reason), now);
        }
    }

    /// No more offers; says whether the daemon had announced it.
    fn close(&self) -> bool {
        let mut inner = self.lock();
        inner.sender = None;
        inner.draining
    }

    fn waits_for(&self) -> (Option<Instant>, Option<Arc<tokio::net::UnixStream>>) {
        let inner = self.lock();
        let deadline = inner.offers.values().filter_map(|p| p.state.deadline()).min();
        let unsent = inner.sender.as_ref().filter(|s| s.has_unsent()).map(Sender::stream);
        (deadline, unsent)
    }

    fn flush(&self) -> Result<(), ChannelError> {
        self.lock().sender.as_mut().map_or(Ok(()), Sender::try_flush)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere must not take the link's users with it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It is no pipe; all that is asked of it is whether it is ready.
fn watch(canary: OwnedFd) -> Option<pipe::Receiver> {
    pipe::Receiver::from_owned_fd_unchecked(canary).ok()
}

async fn death(canary: Option<&pipe::Receiver>) {
    match canary {
        // One that can't be waited for says nothing.
        Some(canary) if canary.readable().await.is_ok() => {}
        Some(_) | None => std::future::pending().await,
    }
}

/// Gives the connection away, but only if the daemon is sure to be told: else it stays ours.
fn grant(sender: &mut Sender<ToDaemon>, id: OfferId) -> Option<Outcome> {
    Some(match sender.try_send(&ToDaemon::Verdict { id, granted: true }, None) {
        Ok(()) => Outcome::Granted,
        Err(TrySendError::Full) => {
            let _ = sender.push(&ToDaemon::Verdict { id, granted: false });
            Outcome::Raw(Reason::ChannelFull)
        }
        Err(TrySendError::Broken(_)) => Outcome::Raw(Reason::Daemon(Cause::ChannelLost)),
    })
}
