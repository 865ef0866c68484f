//! One edge's control channel: hello, offers in, answers out.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::counters::add;
use super::{Tap, offer};
use crate::handover::channel::{ChannelError, DaemonChannel, Receiver, Sender};
use crate::handover::{Decline, Offer, OfferId, ToDaemon, ToEdge, VERSION};
use crate::meter::pump::Stage;

const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// What an offer's task says to the edge, and hears from it.
#[derive(Debug)]
pub(super) struct Link {
    id: OfferId,
    answers: Arc<Answers>,
    verdict: oneshot::Receiver<bool>,
}

/// What goes to the edge: each offer's task writes for itself, on its own thread.
#[derive(Debug)]
struct Answers {
    state: Mutex<State>,
    /// The channel's task must look: something found no room, or the channel is broken.
    wake: Notify,
}

#[derive(Debug)]
struct State {
    /// `None` once the channel has ended: the edge must see that, whoever still has a link.
    sender: Option<Sender<ToEdge>>,
    /// Offers whose tasks wait for a verdict.
    waiting: HashMap<OfferId, oneshot::Sender<bool>>,
    broken: Option<ChannelError>,
}

impl Link {
    /// False: the channel is gone, and with it the offer.
    pub(super) fn progress(&self) -> bool {
        self.answers.say(&ToEdge::Progress { id: self.id })
    }

    pub(super) fn decline(&self, reason: Decline) {
        self.answers.say(&ToEdge::Decline { id: self.id, reason });
    }

    /// Asks whether the connection is ours. A broken channel is a no: the edge goes on by itself.
    pub(super) async fn commit(&mut self) -> bool {
        self.answers.say(&ToEdge::Commit { id: self.id })
            && (&mut self.verdict).await.unwrap_or(false)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.answers.lock().waiting.remove(&self.id);
    }
}

impl Answers {
    fn new(sender: Sender<ToEdge>) -> Arc<Self> {
        let state = State { sender: Some(sender), waiting: HashMap::new(), broken: None };
        Arc::new(Self { state: Mutex::new(state), wake: Notify::new() })
    }

    /// False: the channel is gone.
    fn say(&self, message: &ToEdge) -> bool {
        let mut state = self.lock();
        let Some(sender) = &mut state.sender else { return false };
        let pushed = sender.push(message);
        let rest = sender.has_unsent();
        let sound = pushed.is_ok();
        if let Err(e) = pushed {
            state.sender = None;
            state.broken = Some(e);
        }
        drop(state);
        if rest || !sound {
            self.wake.notify_one();
        }
        sound
    }

    /// Sends of the unsent what finds room; where there is more, the stream to wait for.
    fn flush(&self) -> Result<Option<Arc<UnixStream>>, ChannelError> {
        let mut state = self.lock();
        if let Some(broken) = state.broken.take() {
            return Err(broken);
        }
        let Some(sender) = &mut state.sender else { return Ok(None) };
        sender.try_flush()?;
        Ok(sender.has_unsent().then(|| sender.stream()))
    }

    fn verdict(&self, id: OfferId, granted: bool) {
        let waiting = self.lock().waiting.remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send(granted);
        }
    }

    /// Nothing is said or asked any more.
    fn mute(&self) {
        self.lock().sender = None;
    }

    /// Every task that waits learns that nobody answers any more.
    fn end(&self) {
        self.lock().waiting.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one edge to the end of its channel.
pub(super) async fn serve(tap: Arc<Tap>, stream: UnixStream) {
    let log = tap.deps.log.clone();
    let result = async {
        let channel = DaemonChannel::from_stream(stream)?;
        let (sender, receiver) = channel.split();
        run(&tap, sender, receiver).await
    };
    if let Err(e) = result.await {
        slog::warn!(log, "lost an edge"; "error" => %e);
    }
}

async fn run(
    tap: &Arc<Tap>,
    mut sender: Sender<ToEdge>,
    mut receiver: Receiver<ToDaemon>,
) -> Result<(), ChannelError> {
    let first = timeout(HELLO_DEADLINE, receiver.recv()).await;
    let version = match first {
        Ok(Ok(Some((ToDaemon::Hello { version, .. }, _)))) => version,
        Ok(Err(e)) => return Err(e),
        Ok(Ok(_)) | Err(_) => return Ok(()),
    };
    let instance = tap.deps.instance;
    let hello = ToEdge::Hello { version: VERSION, pid: std::process::id(), instance };
    sender.send(&hello, None).await?;
    if version != VERSION {
        slog::warn!(tap.deps.log, "an edge of another version is not served";
            "its" => version, "ours" => VERSION);
        return Ok(());
    }
    if let Some(canary) = &tap.deps.canary {
        // An edge that has gone already shows at the next read.
        let _ = sender.try_send(&ToEdge::Canary, Some(canary.as_fd()));
    }
    let answers = Answers::new(sender);
    let served = answer(tap, &answers, &mut receiver).await;
    hear_out(&answers, &mut receiver).await;
    served
}

/// Whatever ended the talk, the edge may have granted what it was asked before: then it has no copy of
/// that connection any more, and ours is the last. Only when it has closed its end, as it does when
/// we close ours, is what has no verdict sure to be the edge's. An edge that is frozen does so late,
/// and until then may still grant: no deadline is late enough.
async fn hear_out(answers: &Answers, receiver: &mut Receiver<ToDaemon>) {
    answers.mute();
    receiver.hang_up();
    while let Some(message) = receiver.rest().await {
        match message {
            ToDaemon::Verdict { id, granted } => answers.verdict(id, granted),
            // The edge has its own copy, and goes on by itself.
            ToDaemon::Offer(_) | ToDaemon::Hello { .. } => {}
        }
    }
    answers.end();
}

async fn answer(
    tap: &Arc<Tap>,
    answers: &Arc<Answers>,
    receiver: &mut Receiver<ToDaemon>,
) -> Result<(), ChannelError> {
    let mut stage = tap.stage.subscribe();
    let mut told = false;
    loop {
        let unsent = answers.flush()?;
        let room = async {
            match &unsent {
                Some(stream) => stream.writable().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = receiver.recv() => match message? {
                Some((ToDaemon::Offer(offer), Some(fd))) => {
                    let (grant, verdict) = oneshot::channel();
                    answers.lock().waiting.insert(offer.id, grant);
                    let link = Link { id: offer.id, answers: Arc::clone(answers), verdict };
                    take(tap, offer, fd, link);
                }
                // Its descriptor found no room here.
                Some((ToDaemon::Offer(offer), None)) => {
                    let counters = tap.counters_of(&offer.host);
                    add(&counters.offers, 1);
                    counters.declined(Decline::Overloaded);
                    answers.say(&ToEdge::Decline { id: offer.id, reason: Decline::Overloaded });
                }
                Some((ToDaemon::Verdict { id, granted }, _)) => answers.verdict(id, granted),
                Some((ToDaemon::Hello { .. }, _)) => {}
                None => return Ok(()),
            },
            () = answers.wake.notified() => {}
            writable = room => writable?,
            _ = stage.wait_for(|stage| *stage != Stage::Serving), if !told => {
                told = true;
                answers.say(&ToEdge::Draining);
            }
        }
    }
}

fn take(tap: &Arc<Tap>, offer: Offer, fd: OwnedFd, link: Link) {
    let counters = tap.counters_of(&offer.host);
    add(&counters.offers, 1);
    let refusal = if *tap.stage.borrow() != Stage::Serving {
        Some(Decline::Draining)
    } else if !tap.deps.sink.accepts() {
        Some(Decline::Degraded)
    } else {
        None
    };
    match (refusal, tap.admit()) {
        (None, Some(slot)) => {
            let lane = tap.lanes.handle(slot.lane);
            lane.spawn(offer::serve(Arc::clone(tap), slot, offer, fd, link));
        }
        (reason, _) => {
            // Our copy first: after the answer the socket is the edge's alone.
            drop(fd);
            let reason = reason.unwrap_or(Decline::Overloaded);
            counters.declined(reason);
            link.decline(reason);
        }
    }
}
