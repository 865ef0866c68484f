//! How who reads a board has it renewed: an actor at rest looks rarely by itself, and at once when
//! somebody wants to know.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// Between one actor and its readers.
#[derive(Debug, Default)]
pub struct Wish {
    wanted: Notify,
    renewed: Notify,
}

impl Wish {
    /// Has the actor look, and waits for what it publishes, but not for long.
    pub async fn renew(&self, patience: Duration) {
        let renewed = self.renewed.notified();
        tokio::pin!(renewed);
        // Before it is wanted: the news must not come in between.
        renewed.as_mut().enable();
        self.wanted.notify_one();
        let _ = timeout(patience, renewed).await;
    }

    /// The actor has published. Who wanted that until now is served.
    pub fn fulfil(&self) {
        let wanted = self.wanted.notified();
        tokio::pin!(wanted);
        wanted.as_mut().enable();
        self.renewed.notify_waiters();
    }

    /// The actor's rest: until somebody wants it to look, or `latest`.
    pub async fn rest(&self, latest: Instant) {
        let _ = timeout_at(latest, self.wanted.notified()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn readers_are_served_together_and_nobody_waits_for_long() {
        let (wish, start) = (Arc::new(Wish::default()), Instant::now());
        wish.renew(SECOND).await;
        assert_eq!(start.elapsed(), SECOND, "nobody looks");
        wish.rest(start + SECOND * 60).await;
        assert_eq!(start.elapsed(), SECOND, "it is wanted already");
        let reader = |wish: &Arc<Wish>| {
            let wish = Arc::clone(wish);
            tokio::spawn(async move { wish.renew(SECOND * 60).await })
        };
        let first = reader(&wish);
        wish.rest(start + SECOND * 60).await;
        // One that comes during the look has what the look finds.
        let second = reader(&wish);
        tokio::time::sleep(SECOND).await;
        wish.fulfil();
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(start.elapsed(), SECOND * 2);
        wish.rest(start + SECOND * 60).await;
        assert_eq!(start.elapsed(), SECOND * 60, "nobody wants more");
    }
}
