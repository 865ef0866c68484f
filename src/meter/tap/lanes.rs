//! The threads that move connections' bytes: each has a runtime of its own, and a connection stays
//! with its thread. With one runtime over two threads, each event that one of them took over from
//! the other cost a wake-up: half of all that a stream of events costs.
//!
//! Two, not one: what keeps one thread (handshakes of fifty clients at once) must not look to the
//! edge like a daemon that is frozen.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

const LANES: usize = 2;

#[derive(Debug)]
pub(super) struct Lanes([Lane; LANES]);

#[derive(Debug)]
struct Lane {
    handle: Handle,
    connections: AtomicUsize,
    /// Dropped, it ends the thread, and with it the connections.
    _end: oneshot::Sender<()>,
}

impl Lanes {
    pub(super) fn start() -> io::Result<Self> {
        let lane = || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (end, ended) = oneshot::channel::<()>();
            thread::Builder::new().name("tap".to_owned()).spawn(move || {
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
            Ok::<_, io::Error>(Lane { handle, connections: AtomicUsize::new(0), _end: end })
        };
        Ok(Self([lane()?, lane()?]))
    }

    /// Where edges are accepted and answered.
    pub(super) fn first(&self) -> &Handle {
        let [first, ..] = &self.0;
        &first.handle
    }

    /// The one with the fewest connections, the first of equals; one more from now on, until
    /// [`leave`](Self::leave).
    pub(super) fn enter(&self) -> usize {
        let load = |lane: &Lane| lane.connections.load(Ordering::Relaxed);
        let least = (0..).zip(&self.0).min_by_key(|(_, lane)| load(lane)).map_or(0, |(n, _)| n);
        if let Some(lane) = self.0.get(least) {
            lane.connections.fetch_add(1, Ordering::Relaxed);
        }
        least
    }

    pub(super) fn leave(&self, lane: usize) {
        if let Some(lane) = self.0.get(lane) {
            lane.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn handle(&self, lane: usize) -> &Handle {
        self.0.get(lane).map_or_else(|| self.first(), |lane| &lane.handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_there_are_fewest() {
        let lanes = Lanes::start().unwrap();
        assert_eq!([(); 4].map(|()| lanes.enter()), [0, 1, 0, 1]);
        lanes.leave(1);
        lanes.leave(1);
        assert_eq!([(); 3].map(|()| lanes.enter()), [1, 1, 0]);
    }

    #[test]
    fn a_lane_ends_from_within_itself() {
        let lanes = Lanes::start().unwrap();
        let (held, handle) = (oneshot::channel::<()>(), lanes.handle(1).clone());
        let task = handle.spawn(async move {
            let _held = held.0;
            drop(lanes);
            std::future::pending::<()>().await;
        });
        // The runtime has dropped the task, and what the task held.
        assert!(held.1.blocking_recv().is_err());
        drop(task);
    }
}
