//! Look-ups that are under way: shared, and a few for each name at most.
//!
//! The resolver holds a thread until it has an answer or gives up, half a minute where a server says
//! nothing. However many connections wait for such a name, threads are left for the others.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::threads;

/// One that takes longer may hang for good: whoever comes then asks again, as the network may be
/// another one by now.
const SLOW: Duration = Duration::from_secs(1);
/// Look-ups of one name at once.
const AT_ONCE: usize = 3;

type Resolve = fn(&str) -> io::Result<Vec<SocketAddr>>;
type Found = Result<Vec<SocketAddr>, Arc<io::Error>>;

pub(super) struct Searches {
    resolve: Resolve,
    names: Mutex<Vec<Search>>,
}

/// One name.
struct Search {
    host: Box<str>,
    /// The look-ups under way, the latest last.
    asked: Vec<(u64, Instant)>,
    /// Names the next one.
    next: u64,
    told: watch::Sender<Option<Found>>,
}

impl Searches {
    pub(super) const fn new(resolve: Resolve) -> Self {
        Self { resolve, names: Mutex::new(Vec::new()) }
    }

    /// The addresses of a name, by the first look-up that finds any.
    pub(super) async fn find(&'static self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let (mut told, mine) = self.join(host, Instant::now());
        if let Some(no) = mine {
            let found = Err(Arc::new(threads::none()));
            let asking = Asking { searches: self, host: host.into(), no, found };
            // Refused, it is dropped, which tells everybody who waits.
            let _ = threads::start(move || asking.run()).await;
        }
        match told.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(found))) => Ok(found.clone()),
            Ok(Some(Err(e))) => Err(alike(e)),
            Ok(None) | Err(_) => Err(given_up()),
        }
    }

    /// Where the answer will be told, and the number of the look-up that the caller has to make.
    fn join(&self, host: &str, now: Instant) -> (watch::Receiver<Option<Found>>, Option<u64>) {
        let mut names = self.lock();
        let at = names.iter().position(|search| search.is_of(host)).unwrap_or_else(|| {
            names.push(Search::new(host));
            names.len() - 1
        });
        match names.get_mut(at) {
            Some(search) => (search.told.subscribe(), search.ask(now)),
            // It was found, or made.
            None => (watch::channel(None).1, None),
        }
    }

    fn ended(&self, host: &str, no: u64, found: Found) {
        let mut names = self.lock();
        if let Some(search) = names.iter_mut().find(|search| search.is_of(host)) {
            search.ended(no, found);
        }
        names.retain(|search| !search.asked.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Search>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Search {
    fn new(host: &str) -> Self {
        Self { host: host.into(), asked: Vec::new(), next: 0, told: watch::Sender::new(None) }
    }

    fn is_of(&self, host: &str) -> bool {
        self.host.eq_ignore_ascii_case(host)
    }

    /// The number of one more look-up; `None`: those under way will do.
    fn ask(&mut self, now: Instant) -> Option<u64> {
        let fresh = |(_, at): &(u64, Instant)| now.saturating_duration_since(*at) < SLOW;
        if self.asked.len() >= AT_ONCE || self.asked.last().is_some_and(fresh) {
            return None;
        }
        self.next += 1;
        self.asked.push((self.next, now));
        Some(self.next)
    }

    /// Addresses are good whoever found them; that there are none counts only from the latest look-up.
    fn ended(&mut self, no: u64, found: Found) {
        let is_latest = self.asked.last().is_some_and(|(latest, _)| *latest == no);
        self.asked.retain(|(other, _)| *other != no);
        if found.is_ok() || is_latest {
            // Who comes later waits for a later answer.
            mem::replace(&mut self.told, watch::Sender::new(None)).send_replace(Some(found));
        }
    }
}

/// A look-up on its thread, or on its way there. Dropped, it has ended in any case.
struct Asking {
    searches: &'static Searches,
    host: Box<str>,
    no: u64,
    found: Found,
}

impl Asking {
    fn run(mut self) {
        // Should it panic.
        self.found = Err(Arc::new(given_up()));
        self.found = (self.searches.resolve)(&self.host).map_err(Arc::new);
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let found = mem::replace(&mut self.found, Ok(Vec::new()));
        self.searches.ended(&self.host, self.no, found);
    }
}

fn given_up() -> io::Error {
    io::Error::other("the look-up was given up")
}

fn alike(error: &io::Error) -> io::Error {
    if threads::is_none(error) {
        return threads::none();
    }
    error.raw_os_error().map_or_else(
        || io::Error::new(error.kind(), error.to_string()),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::descriptors::testing::alone;

    const SOON: Duration = Duration::from_secs(20);

    static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    static SEARCHES: Searches = Searches::new(hanging);

    /// Knows every name, and one of them only when the gate opens.
    fn hanging(host: &str) -> io::Result<Vec<SocketAddr>> {
        if host.eq_ignore_ascii_case("slow.example") {
            ASKED.fetch_add(1, Ordering::SeqCst);
            drop(GATE.1.wait_while(GATE.0.lock().unwrap(), |open| !*open));
        }
        Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
    }

    #[test]
    fn a_name_that_hangs_leaves_room_for_the_others() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let slow: Vec<_> =
                (0..32).map(|_| tokio::spawn(SEARCHES.find("Slow.example"))).collect();
            tokio::task::yield_now().await;
            let quick = tokio::time::timeout(SOON, SEARCHES.find("quick.example"));
            assert_eq!(quick.await.expect("beside them").unwrap().len(), 1);
            *GATE.0.lock().unwrap() = true;
            GATE.1.notify_all();
            for found in slow {
                assert_eq!(found.await.unwrap().unwrap().len(), 1);
            }
        });
        assert!(ASKED.load(Ordering::SeqCst) <= AT_ONCE, "all of them wait for one answer");
        assert!(SEARCHES.lock().is_empty());
    }

    #[test]
    fn behind_a_slow_one_a_few_ask_again() {
        let (mut search, t0) = (Search::new("a.example"), Instant::now());
        let mut told = search.told.subscribe();
        assert_eq!(search.ask(t0), Some(1));
        assert_eq!(search.ask(t0 + SLOW / 2), None);
        assert_eq!(search.ask(t0 + SLOW), Some(2));
        assert_eq!(search.ask(t0 + SLOW * 2), Some(3));
        assert_eq!(search.ask(t0 + SLOW * 9), None, "no more than a few");
        search.ended(1, Err(Arc::new(given_up())));
        assert!(told.borrow_and_update().is_none(), "a later one may find it");
        search.ended(2, Ok(Vec::new()));
        assert!(matches!(&*told.borrow(), Some(Ok(_))));
        let told = search.told.subscribe();
        assert!(told.borrow().is_none());
        search.ended(3, Err(Arc::new(given_up())));
        assert!(matches!(&*told.borrow(), Some(Err(_))));
        assert!(search.asked.is_empty());
    }

    #[tokio::test]
    async fn what_the_resolver_says_is_told_as_it_is() {
        static REFUSING: Searches = Searches::new(|_| Err(io::Error::from_raw_os_error(24)));
        static NONE: Searches = Searches::new(|_| Err(io::Error::other("no such name")));
        static PANICS: Searches = Searches::new(|_| panic!("as the test wants"));
        assert_eq!(REFUSING.find("a.example").await.unwrap_err().raw_os_error(), Some(24));
        assert_eq!(NONE.find("a.example").await.unwrap_err().to_string(), "no such name");
        assert!(PANICS.find("a.example").await.is_err());
        assert!(PANICS.lock().is_empty());
    }

    #[tokio::test]
    async fn a_name_is_asked_for_again_once_threads_are_to_be_had() {
        static NAMES: Searches = Searches::new(hanging);
        if !alone(
            "dial::names::searches::tests::a_name_is_asked_for_again_once_threads_are_to_be_had",
        ) {
            return;
        }
        let none_left = threads::testing::none_left();
        for _ in 0..AT_ONCE + 2 {
            let asked = (NAMES.find("a.example"), NAMES.find("a.example"));
            let (one, other) = tokio::time::timeout(SOON, async { tokio::join!(asked.0, asked.1) })
                .await
                .expect("at once");
            for error in [one.unwrap_err(), other.unwrap_err()] {
                assert!(crate::dial::is_shortage(&error), "{error:?}");
            }
        }
        assert!(NAMES.lock().is_empty(), "nothing is remembered");
        drop(none_left);
        let found = tokio::time::timeout(SOON, NAMES.find("a.example")).await;
        assert_eq!(found.expect("at once").unwrap().len(), 1);
    }
}
