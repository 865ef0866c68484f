//! Reading the ledger for somebody who may leave: so many at once, and no longer than they wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix_web::web;
use tokio::sync::Semaphore;

use super::problem::Problem;
use super::routes::Api;
use crate::meter::ledger::{Ledger, LedgerError};

/// Queries at once. The others wait: more of them would only slow each other down.
pub(super) const READERS: usize = 4;

/// Room for queries.
#[derive(Debug)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

#[cfg(test)]
impl Readers {
    /// All the room there is.
    pub(super) async fn all(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.0.acquire_many(u32::try_from(READERS).unwrap()).await.unwrap()
    }
}

/// Dropped with what waits for the answer.
#[derive(Default)]
struct Waiting(Arc<AtomicBool>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a query on a thread that may block; it ends early if nobody waits any more.
pub(super) async fn read<T: Send + 'static>(
    api: &Api,
    query: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, Problem> {
    let lost = || Problem::unavailable("the query did not finish");
    let room = Arc::clone(&api.readers.0).acquire_owned().await.map_err(|_| lost())?;
    let waiting = Waiting::default();
    let gone = Arc::clone(&waiting.0);
    let home = api.home.clone();
    let answer = web::block(move || {
        let _room = room;
        let ledger = Ledger::open(&home)?;
        ledger.stop_when(move || gone.load(Ordering::Relaxed))?;
        query(&ledger)
    })
    .await;
    match answer {
        Ok(answer) => answer.map_err(|e| Problem::unavailable(e.to_string())),
        Err(_) => Err(lost()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::bench;
    use super::*;

    #[actix::test]
    async fn a_query_that_nobody_waits_for_ends_and_makes_room() {
        let bench = bench();
        let mut left = Vec::new();
        for _ in 0..READERS {
            let (begun, begins) = tokio::sync::oneshot::channel();
            let api = Arc::clone(&bench.api);
            let asking = actix_web::rt::spawn(async move {
                let endless = |ledger: &Ledger| {
                    let _ = begun.send(());
                    ledger.endless()
                };
                read(&api, endless).await
            });
            begins.await.unwrap();
            left.push(asking);
        }
        let room = &bench.api.readers.0;
        assert_eq!(room.available_permits(), 0);
        left.iter().for_each(|asking| asking.abort());
        let answer = read(&bench.api, |_| Ok(7));
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), answer).await.unwrap(), Ok(7));
    }
}
