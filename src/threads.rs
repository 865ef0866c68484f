//! Work that blocks, each on a thread of its own.
//!
//! Not by the runtime: where the system gives no more threads (a container's limit, `ulimit -u` beside a
//! `make -j`), tokio panics, and keeps the work for a thread that may never come. Here it is refused.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

/// Threads at once. Many, as one that hangs must not keep others waiting.
const MOST: usize = 512;

static ROOM: Semaphore = Semaphore::const_new(MOST);
static KEPT: OnceLock<SyncSender<Work>> = OnceLock::new();

type Work = Box<dyn FnOnce() + Send>;

#[derive(Debug, thiserror::Error)]
#[error("no thread can be had")]
struct NoThread;

/// What work that is refused fails with.
#[must_use]
pub fn none() -> io::Error {
    io::Error::other(NoThread)
}

/// Those in use will end: later there may be one.
#[must_use]
pub fn is_none(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|e| e.is::<NoThread>())
}

/// Makes a thread that stays, for when no other can be had. At rest it takes what comes: that is
/// quicker than a new one.
pub fn keep_one() {
    let (give, take) = sync_channel::<Work>(0);
    let thread = thread::Builder::new().name("kept".to_owned()).spawn(move || {
        for work in take {
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    });
    if thread.is_ok() {
        // A second one ends at once.
        let _ = KEPT.set(give);
    }
}

/// Starts `work`, within the runtime of who asks.
///
/// # Errors
/// When no thread can be had; then `work` was dropped.
pub async fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let (room, runtime) = (ROOM.acquire().await, Handle::current());
    let work: Work = Box::new(move || {
        let _room = room;
        let _inside = runtime.enter();
        work();
    });
    let work = match KEPT.get() {
        Some(kept) => match kept.try_send(work) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => work,
        },
        None => work,
    };
    #[cfg(test)]
    if testing::is_none_left() {
        return Err(none());
    }
    let thread = thread::Builder::new().name("blocking".to_owned());
    thread.spawn(work).map(drop).map_err(|_| none())
}

/// The result of `work`, which goes on to its end whether it is waited for or not.
///
/// # Errors
/// When no thread can be had, or it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (tell, told) = oneshot::channel();
    start(move || drop(tell.send(work()))).await?;
    told.await.map_err(|_| io::Error::other("it panicked"))
}

/// For tests of what happens when there are none.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicBool, Ordering};

    static NONE_LEFT: AtomicBool = AtomicBool::new(false);

    /// No thread is to be had until this is dropped: only where a test is
    /// [alone](crate::descriptors::testing::alone).
    pub(crate) struct NoneLeft(());

    pub(crate) fn none_left() -> NoneLeft {
        NONE_LEFT.store(true, Ordering::SeqCst);
        NoneLeft(())
    }

    pub(super) fn is_none_left() -> bool {
        NONE_LEFT.load(Ordering::SeqCst)
    }

    impl Drop for NoneLeft {
        fn drop(&mut self) {
            NONE_LEFT.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::descriptors::testing::alone;

    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn what_hangs_keeps_nobody_waiting() {
        let (held, hold) = channel::<()>();
        let hold = Arc::new(Mutex::new(hold));
        for _ in 0..100 {
            let hold = Arc::clone(&hold);
            start(move || {
                let _ = hold.lock().unwrap().recv();
            })
            .await
            .unwrap();
        }
        assert_eq!(tokio::time::timeout(SOON, blocking(|| 7)).await.unwrap().unwrap(), 7);
        drop(held);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_refused_work_is_dropped() {
        if !alone("threads::tests::a_panic_is_an_error_and_refused_work_is_dropped") {
            return;
        }
        let panics = || -> u8 { panic!("as the test wants") };
        assert!(!is_none(&blocking(panics).await.unwrap_err()));
        let (sent, got) = channel::<()>();
        let none_left = testing::none_left();
        let refused = blocking(move || drop(sent)).await.unwrap_err();
        assert!(is_none(&refused), "{refused}");
        assert!(got.recv_timeout(SOON).is_err(), "dropped");
        drop(none_left);
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn the_one_that_is_kept_works_whatever_it_has_to_do() {
        if !alone("threads::tests::the_one_that_is_kept_works_whatever_it_has_to_do") {
            return;
        }
        keep_one();
        let name = || thread::current().name().map(str::to_owned);
        let kept = Some("kept".to_owned());
        // It waits for work a moment after it was made, or has told of the last.
        while blocking(name).await.unwrap() != kept {}
        let _ = blocking(|| panic!("as the test wants")).await;
        while blocking(name).await.unwrap() != kept {}
        // Also when there is no other.
        let _none_left = testing::none_left();
        let (held, hold) = channel::<()>();
        let hold = Arc::new(Mutex::new(hold));
        let holding = || {
            let hold = Arc::clone(&hold);
            start(move || {
                let _ = hold.lock().unwrap().recv();
            })
        };
        while holding().await.is_err() {}
        assert!(is_none(&blocking(name).await.unwrap_err()), "it has to do");
        drop(held);
        while blocking(name).await.is_err() {}
    }
}
