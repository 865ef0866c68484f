//! Whose connection it is, found out beside it: the process first, what its directory says second. The
//! second opens files, which may take for ever, so it has permits and a patience of its own.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::silent::{Board, Overdue};
use crate::meter::attribution::{Attribution, Attributor, Found, Silent, Unplaced, silent_with};
use crate::meter::observer::Attributed;
use crate::threads;

/// Look-ups of owners at once: the rest of the blocking threads is left to names.
const OWNERS: usize = 2;
/// … and looks into their directories.
const PLACES: usize = 2;
/// For a look into a directory: less than what the rows of a connection that is over wait for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of one connection.
pub(super) struct Owner {
    /// As soon as the process is known. Its project may be another one in the end.
    pub who: Attributed,
    /// With all that its directory says, if that answers.
    pub whole: Attributed,
}

#[derive(Debug)]
pub(super) struct LookUps {
    attributor: Attributor,
    owners: Arc<Semaphore>,
    places: Arc<Semaphore>,
    board: Mutex<Board<OwnedSemaphorePermit>>,
    patience: Duration,
    /// What is silent with a directory.
    around: fn(&Path) -> Silent,
}

enum Looked {
    Whole(Arc<Attribution>),
    /// There was no permit for its directory.
    Later(Box<Unplaced>),
}

impl LookUps {
    pub(super) fn new(attributor: Attributor) -> Arc<Self> {
        Arc::new(Self::with(attributor, PATIENCE, silent_with))
    }

    fn with(attributor: Attributor, patience: Duration, around: fn(&Path) -> Silent) -> Self {
        Self {
            attributor,
            owners: Arc::new(Semaphore::new(OWNERS)),
            places: Arc::new(Semaphore::new(PLACES)),
            board: Mutex::default(),
            patience,
            around,
        }
    }

    /// Starts to find out; off the byte path.
    pub(super) fn start(self: &Arc<Self>, client: SocketAddr, local: SocketAddr) -> Owner {
        let (told, who) = watch::channel(None);
        let (found, whole) = watch::channel(None);
        let this = Arc::clone(self);
        let early = who.clone();
        tokio::spawn(async move {
            let Ok(permit) = Arc::clone(&this.owners).acquire_owned().await else { return };
            // Many short connections: what nobody waits for any more must not keep others waiting.
            if found.is_closed() {
                return;
            }
            let ticket = this.board().ticket();
            let looks = Arc::clone(&this);
            // On one thread, where nothing is in the way: that costs no more than one look.
            let look = threads::blocking(move || {
                let identified = looks.attributor.identify(client, local);
                drop(permit);
                looks.after(identified, ticket, &told)
            });
            let whole = match this.patiently(look, ticket).await {
                Some(Looked::Whole(whole)) => Some(whole),
                Some(Looked::Later(unplaced)) => Some(this.later(unplaced, ticket).await),
                // Given up: what is known without.
                None => early.borrow().clone(),
            };
            if whole.is_some() {
                found.send_replace(whole);
            }
        });
        Owner { who, whole }
    }

    /// How many looks into directories were given up, and which directories are silent now.
    pub(super) fn silent(&self) -> (u64, Vec<PathBuf>) {
        self.board().snapshot()
    }

    /// Blocking.
    fn after(
        &self,
        found: Found,
        ticket: u64,
        told: &watch::Sender<Option<Arc<Attribution>>>,
    ) -> Looked {
        match found {
            Found::Whole(whole) => {
                let whole = Arc::new(whole);
                told.send_replace(Some(Arc::clone(&whole)));
                Looked::Whole(whole)
            }
            Found::Unplaced(unplaced) => {
                told.send_replace(Some(Arc::clone(unplaced.who())));
                if self.board().is_silent(unplaced.dir()) {
                    return Looked::Whole(Arc::clone(unplaced.who()));
                }
                match Arc::clone(&self.places).try_acquire_owned() {
                    Ok(permit) => Looked::Whole(self.locate(*unplaced, ticket, permit)),
                    Err(_) => Looked::Later(unplaced),
                }
            }
        }
    }

    /// Blocking, maybe for ever.
    fn locate(
        &self,
        unplaced: Unplaced,
        ticket: u64,
        permit: OwnedSemaphorePermit,
    ) -> Arc<Attribution> {
        {
            let mut board = self.board();
            if board.is_silent(unplaced.dir()) {
                return Arc::clone(unplaced.who());
            }
            board.begin(ticket, unplaced.dir(), permit, Instant::now());
        }
        let _begun = Begun { looks: self, ticket };
        Arc::new(self.attributor.locate(unplaced))
    }

    /// As soon as one of those that look into directories is done, or is given up.
    async fn later(self: &Arc<Self>, unplaced: Box<Unplaced>, ticket: u64) -> Arc<Attribution> {
        let who = Arc::clone(unplaced.who());
        // With the look itself still less than what rows wait for.
        let permit = timeout(self.patience / 2, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return who };
        let looks = Arc::clone(self);
        let look = threads::blocking(move || looks.locate(*unplaced, ticket, permit));
        self.patiently(look, ticket).await.unwrap_or(who)
    }

    /// `None`: it was given up.
    async fn patiently<T>(
        &self,
        look: impl Future<Output = io::Result<T>>,
        ticket: u64,
    ) -> Option<T> {
        let (mut look, mut wait) = (pin!(look), self.patience);
        loop {
            match timeout(wait, &mut look).await {
                Ok(done) => return done.ok(),
                Err(_) => {
                    let now = Instant::now();
                    match self.board().give_up(ticket, self.patience, now, self.around) {
                        Overdue::In(left) => wait = left,
                        Overdue::GivenUp => return None,
                    }
                }
            }
        }
    }

    fn board(&self) -> MutexGuard<'_, Board<OwnedSemaphorePermit>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A look that is on the board.
struct Begun<'a> {
    looks: &'a LookUps,
    ticket: u64,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.looks.board().end(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use slog::Logger;

    use super::*;
    use crate::meter::attribution::Method;
    use crate::platform::owner;

    /// A program that holds one end of a connection, and works in a directory.
    struct Client {
        child: Child,
        server: TcpStream,
        peer: SocketAddr,
    }

    impl Client {
        fn new(dir: &Path) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, peer) = listener.accept().unwrap();
            let mut child = Command::new("cat")
                .current_dir(dir)
                .env_remove("HALTON_PROJECT")
                .stdin(Stdio::piped())
                .stdout(Stdio::from(std::os::fd::OwnedFd::from(client)))
                .spawn()
                .unwrap();
            // It runs once it has answered.
            child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
            server.read_exact(&mut [0]).unwrap();
            Self { child, server, peer }
        }

        fn look(&self, looks: &Arc<LookUps>) -> Owner {
            looks.start(self.peer, self.server.local_addr().unwrap())
        }

        /// What is told of every client, whatever its directory does.
        fn is_known(&self, dir: &Path, known: &Attribution) {
            assert_eq!(known.pid, Some(self.child.id()));
            assert_eq!(known.program.as_deref(), Some("cat"));
            assert_eq!(known.cwd.as_deref(), dir.to_str());
        }
    }

    impl Drop for Client {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    async fn known(mut of: Attributed) -> Arc<Attribution> {
        let seen = timeout(Duration::from_secs(20), of.wait_for(Option::is_some)).await;
        seen.unwrap().unwrap().clone().unwrap()
    }

    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        waiting: AtomicUsize,
    }

    impl Gate {
        fn pass(&self) {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let open = self.open.lock().unwrap();
            drop(self.opened.wait_while(open, |open| !*open).unwrap());
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    struct OpensAtTheEnd(Arc<Gate>);

    impl Drop for OpensAtTheEnd {
        fn drop(&mut self) {
            *self.0.open.lock().unwrap() = true;
            self.0.opened.notify_all();
        }
    }

    fn alone(dir: &Path) -> Silent {
        Silent { place: dir.to_path_buf(), below: false }
    }

    /// Needs what only Linux gives so far.
    #[tokio::test]
    async fn a_directory_that_does_not_answer_costs_nobody_else_anything() {
        if !owner::AVAILABLE {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let (gone, fine) = (root.join("gone"), root.join("my-app"));
        fs::create_dir_all(fine.join(".git")).unwrap();
        fs::write(fine.join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
        let dirs: Vec<PathBuf> = (0..6).map(|n| gone.join(n.to_string())).collect();
        dirs.iter().for_each(|dir| fs::create_dir_all(dir).unwrap());

        let gate = Arc::new(Gate::default());
        let (passed, prefix) = (Arc::clone(&gate), gone.clone());
        let log = Logger::root(slog::Discard, slog::o!());
        let attributor = Attributor::looking_with(log, move |unplaced| {
            if unplaced.dir().starts_with(&prefix) {
                passed.pass();
            }
            unplaced.look()
        });
        let patience = Duration::from_millis(500);
        let looks = Arc::new(LookUps::with(attributor, patience, alone));
        let opens = OpensAtTheEnd(Arc::clone(&gate));
        let there = Client::new(&fine);
        let silent: Vec<Client> = dirs.iter().map(|dir| Client::new(dir)).collect();

        // Two hold both permits, and four would hold more than there are.
        for (some, most) in [(0..2, 2), (2..4, 4), (4..6, 6)] {
            for n in some {
                let owner = silent[n].look(&looks);
                silent[n].is_known(&dirs[n], &*known(owner.who).await);
                let whole = known(owner.whole).await;
                silent[n].is_known(&dirs[n], &whole);
                let by = whole.project_source.unwrap();
                assert!(matches!(by, Method::Program | Method::Cwd), "no file was read: {by:?}");
                assert_eq!(whole.branch, None);
                let again = silent[n].look(&looks);
                silent[n].is_known(&dirs[n], &*known(again.whole).await);
            }
            assert_eq!(gate.waiting.load(Ordering::SeqCst), most, "one thread for each");
            let owner = there.look(&looks);
            there.is_known(&fine, &*known(owner.who).await);
            let whole = known(owner.whole).await;
            there.is_known(&fine, &whole);
            // With every thread that may wait waiting there is none left for it.
            let expected = (most < 6).then_some("main");
            assert_eq!(whole.branch.as_deref(), expected);
            assert!(
                whole.project.is_some()
                    && (most == 6 || whole.project.as_deref() == Some("my-app"))
            );
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
        assert_eq!(looks.silent(), (6, dirs.clone()));

        drop(opens);
        while !looks.silent().1.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let whole = known(there.look(&looks).whole).await;
        assert_eq!(whole.branch.as_deref(), Some("main"), "what answers is looked into again");
    }
}
