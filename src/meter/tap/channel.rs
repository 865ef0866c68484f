//! One edge's control channel: hello, offers in, answers out.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
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
    out: mpsc::UnboundedSender<Out>,
    verdict: oneshot::Receiver<bool>,
}

#[derive(Debug)]
enum Out {
    Say(ToEdge),
    /// The offer's task has ended; its verdict is no longer waited for.
    Forget(OfferId),
}

impl Link {
    /// False: the channel is gone, and with it the offer.
    pub(super) fn progress(&self) -> bool {
        self.out.send(Out::Say(ToEdge::Progress { id: self.id })).is_ok()
    }

    pub(super) fn decline(&self, reason: Decline) {
        let _ = self.out.send(Out::Say(ToEdge::Decline { id: self.id, reason }));
    }

    /// Asks whether the connection is ours. A broken channel is a no: the edge goes on by itself.
    pub(super) async fn commit(&mut self) -> bool {
        self.out.send(Out::Say(ToEdge::Commit { id: self.id })).is_ok()
            && (&mut self.verdict).await.unwrap_or(false)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.out.send(Out::Forget(self.id));
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
    let mut stage = tap.stage.subscribe();
    let mut told = false;
    let (out, mut outgoing) = mpsc::unbounded_channel();
    let mut waiting: HashMap<OfferId, oneshot::Sender<bool>> = HashMap::new();
    loop {
        tokio::select! {
            message = receiver.recv() => match message? {
                Some((ToDaemon::Offer(offer), Some(fd))) => {
                    let (grant, verdict) = oneshot::channel();
                    let link = Link { id: offer.id, out: out.clone(), verdict };
                    waiting.insert(offer.id, grant);
                    take(tap, offer, fd, link);
                }
                Some((ToDaemon::Verdict { id, granted }, _)) => {
                    if let Some(grant) = waiting.remove(&id) {
                        let _ = grant.send(granted);
                    }
                }
                // An offer without its descriptor does not come through the channel.
                Some((ToDaemon::Hello { .. } | ToDaemon::Offer(_), _)) => {}
                None => return Ok(()),
            },
            Some(message) = outgoing.recv() => match message {
                Out::Say(message) => sender.push(&message)?,
                Out::Forget(id) => {
                    waiting.remove(&id);
                }
            },
            flushed = sender.flush(), if sender.has_unsent() => flushed?,
            _ = stage.wait_for(|stage| *stage != Stage::Serving), if !told => {
                told = true;
                sender.push(&ToEdge::Draining)?;
            }
        }
    }
}

fn take(tap: &Arc<Tap>, offer: Offer, fd: OwnedFd, link: Link) {
    add(&tap.counters.offers, 1);
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
            tap.counters.declined(reason);
            link.decline(reason);
        }
    }
}
