//! The raw tunnels of an edge: one table, and a thread that serves them all.
//!
//! A tunnel is for most of its life two sockets at rest. As a task of the runtime it would cost ten
//! times the memory, and a wake-up through the runtime for each message; here it is one entry, and
//! the thread waits for all sockets at once. The runtime's thread only puts tunnels in. While it has
//! them at [`Rest`], the thread does not run, so that an upgrade can write them down.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use serde::Serialize;
use slab::Slab;

use super::live::{Passed, Raw};
use super::status::Open;
use super::tunnel::{Summary, Tunnel, Turn, Which};

/// Events that are taken at once.
const BATCH: usize = 256;
const WAKE: Token = Token(usize::MAX);
/// After a failure of the selector itself: it passes, or nothing helps.
const PAUSE: Duration = Duration::from_millis(10);

/// So many tunnels are told of.
const TOLD: usize = 256;

/// A raw tunnel to a metered host.
#[derive(Clone, Debug, Serialize)]
pub struct Passing {
    host: Box<str>,
    /// Our peer.
    client: SocketAddr,
}

/// Told when a tunnel is over.
pub type Ended = Box<dyn Fn(Summary, Option<Passed>) + Send + Sync>;

/// See the module. Its thread ends with it.
pub struct Tunnels {
    table: Arc<Table>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

/// The thread is held while this lives.
#[derive(Debug)]
pub struct Rest<'a>(&'a Tunnels);

struct Table {
    registry: Registry,
    /// Locked for a look; each entry has a lock of its own for its turns.
    all: Mutex<Slab<Arc<Mutex<Entry>>>>,
    ended: Ended,
    /// What the thread is to do, if it is not simply to go on.
    order: Mutex<Order>,
    ordered: AtomicBool,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Order {
    #[default]
    GoOn,
    Hold,
    /// It does.
    Held,
    End,
}

struct Entry {
    tunnel: Tunnel,
    /// Set for a metered host.
    passed: Option<Box<Passed>>,
    /// Its last turn ended with more to move: it has a place in the queue.
    queued: bool,
    /// Room for writing is waited for too: at the client's end, at the server's.
    awaited: [bool; 2],
    /// `None` once it is over.
    open: Option<Open>,
}

impl Tunnels {
    /// # Errors
    /// When there is no selector or no thread to be had.
    pub fn new(ended: Ended) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let table = Arc::new(Table {
            registry: poll.registry().try_clone()?,
            all: Mutex::default(),
            ended,
            order: Mutex::default(),
            ordered: AtomicBool::new(false),
            changed: Condvar::new(),
        });
        let thread = table.start(poll)?;
        Ok(Self { table, waker, thread: Some(thread) })
    }

    /// Takes a tunnel in. One whose sockets can't be waited for ends at once.
    pub fn add(&self, raw: Raw, open: Open) {
        let Raw { tunnel, passed } = raw;
        let entry = Arc::new(Mutex::new(Entry {
            tunnel,
            passed: passed.map(Box::new),
            queued: false,
            awaited: [false; 2],
            open: Some(open),
        }));
        let table = &*self.table;
        let mut held = lock(&entry);
        let key = lock(&table.all).insert(Arc::clone(&entry));
        // What it already holds has nobody else to send it.
        if let Turn::Over(_) = table.turn(key, &mut held) {
            return;
        }
        held.queued = false;
        match table.register(key, &held.tunnel) {
            Ok(()) => table.await_room(key, &mut held),
            Err(_) => table.end(key, &mut held, Summary { aborted: true, ..Summary::default() }),
        }
    }

    /// Those to metered hosts that would be metered if they began now.
    #[must_use]
    pub fn passing(&self) -> Vec<Passing> {
        // An entry is never waited for with the table in hand: its turn may end it.
        let all: Vec<_> = lock(&self.table.all).iter().map(|(_, e)| Arc::clone(e)).collect();
        let passing = all.iter().filter_map(|entry| {
            let entry = lock(entry);
            let passed = entry.passed.as_ref().filter(|passed| passed.reason.is_passing())?;
            let client = entry.tunnel.sockets().0.peer_addr().ok()?;
            Some(Passing { host: passed.target.host.clone(), client })
        });
        passing.take(TOLD).collect()
    }

    /// Holds the thread between two turns.
    #[must_use]
    pub fn rest(&self) -> Rest<'_> {
        self.order(Order::Hold);
        let mut order = lock(&self.table.order);
        while *order == Order::Hold {
            order = self.table.changed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
        Rest(self)
    }

    fn order(&self, order: Order) {
        *lock(&self.table.order) = order;
        self.table.ordered.store(order != Order::GoOn, Ordering::Release);
        self.table.changed.notify_all();
        let _ = self.waker.wake();
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.order(Order::End);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Rest<'_> {
    pub fn for_each(&self, mut visit: impl FnMut(&mut Tunnel, Option<&Passed>)) {
        for (_, entry) in lock(&self.0.table.all).iter() {
            let entry = &mut *lock(entry);
            visit(&mut entry.tunnel, entry.passed.as_deref());
        }
    }

    /// For tests: takes them out as they are.
    #[cfg(test)]
    pub fn take_all(&self) -> Vec<Tunnel> {
        let all = lock(&self.0.table.all).drain().collect::<Vec<_>>();
        let entry = |entry| Arc::into_inner(entry).and_then(|e: Mutex<Entry>| e.into_inner().ok());
        all.into_iter().filter_map(entry).map(|entry| entry.tunnel).collect()
    }
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.0.order(Order::GoOn);
    }
}

impl Table {
    fn start(self: &Arc<Self>, mut poll: Poll) -> io::Result<JoinHandle<()>> {
        let table = Arc::clone(self);
        thread::Builder::new().name("tunnels".to_owned()).spawn(move || {
            // A tunnel's own panic is caught below; whatever else it is, the others go on.
            while catch_unwind(AssertUnwindSafe(|| table.serve(&mut poll))).is_err() {}
        })
    }

    /// Serves until it is to end.
    fn serve(&self, poll: &mut Poll) {
        let mut events = Events::with_capacity(BATCH);
        // After a panic nobody else remembers who had more to move.
        let mut again: Vec<usize> = lock(&self.all).iter().map(|(key, _)| key).collect();
        while self.goes_on() {
            let wait = (!again.is_empty()).then_some(Duration::ZERO);
            match poll.poll(&mut events, wait) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => thread::sleep(PAUSE),
            }
            // Small messages first: bulk has had its turn just now.
            let mut next = Vec::new();
            for event in &events {
                next.extend(self.heard(event));
            }
            next.extend(again.drain(..).filter_map(|key| self.queued(key)));
            again = next;
        }
    }

    /// Stays here while it is held; false when it is to end.
    fn goes_on(&self) -> bool {
        if !self.ordered.load(Ordering::Acquire) {
            return true;
        }
        let mut order = lock(&self.order);
        while matches!(*order, Order::Hold | Order::Held) {
            *order = Order::Held;
            self.changed.notify_all();
            order = self.changed.wait(order).unwrap_or_else(PoisonError::into_inner);
        }
        *order == Order::GoOn
    }

    /// The key, if the tunnel has more to move.
    fn heard(&self, event: &Event) -> Option<usize> {
        if event.token() == WAKE {
            return None;
        }
        let (key, which) = key_of(event.token());
        let entry = self.get(key)?;
        let mut entry = lock(&entry);
        let failed = event.is_error();
        if failed && which == Which::Client {
            entry.tunnel.client_failed();
        }
        entry.tunnel.ready(
            which,
            event.is_readable(),
            event.is_writable() || failed || event.is_write_closed(),
            event.is_read_closed() || failed,
        );
        (!entry.queued && self.turn(key, &mut entry) == Turn::Again).then_some(key)
    }

    fn queued(&self, key: usize) -> Option<usize> {
        let entry = self.get(key)?;
        let mut entry = lock(&entry);
        (self.turn(key, &mut entry) == Turn::Again).then_some(key)
    }

    fn get(&self, key: usize) -> Option<Arc<Mutex<Entry>>> {
        lock(&self.all).get(key).cloned()
    }

    fn turn(&self, key: usize, entry: &mut Entry) -> Turn {
        if entry.open.is_none() {
            return Turn::Waits;
        }
        let turn = catch_unwind(AssertUnwindSafe(|| entry.tunnel.run()));
        let turn = turn.unwrap_or(Turn::Over(Summary { aborted: true, ..Summary::default() }));
        entry.queued = turn == Turn::Again;
        match turn {
            Turn::Waits => self.await_room(key, entry),
            Turn::Again => {}
            Turn::Over(summary) => self.end(key, entry, summary),
        }
        turn
    }

    /// Most sockets are never full: only where one was is there any interest in its having room.
    fn await_room(&self, key: usize, entry: &mut Entry) {
        let Entry { tunnel, awaited, .. } = entry;
        let (client, server) = tunnel.sockets();
        let full = tunnel.full();
        let ends = [(client, Which::Client, full.0), (server, Which::Server, full.1)];
        for ((socket, which, full), awaited) in ends.into_iter().zip(awaited) {
            if full && !*awaited {
                let both = Interest::READABLE | Interest::WRITABLE;
                let source = &mut SourceFd(&socket.as_raw_fd());
                // If it fails the next turn tries again.
                *awaited = self.registry.reregister(source, token(key, which), both).is_ok();
            }
        }
    }

    fn register(&self, key: usize, tunnel: &Tunnel) -> io::Result<()> {
        let (client, server) = tunnel.sockets();
        // The client's last: it may have spoken already, and the thread then asks for the entry.
        for (socket, which) in [(server, Which::Server), (client, Which::Client)] {
            let source = &mut SourceFd(&socket.as_raw_fd());
            self.registry.register(source, token(key, which), Interest::READABLE)?;
        }
        Ok(())
    }

    fn end(&self, key: usize, entry: &mut Entry, summary: Summary) {
        if entry.tunnel.is_client_shared() {
            // Closing is not enough when another process holds a copy of the descriptor.
            let (client, _) = entry.tunnel.sockets();
            let _ = self.registry.deregister(&mut SourceFd(&client.as_raw_fd()));
        }
        (self.ended)(summary, entry.passed.take().map(|passed| *passed));
        let mut all = lock(&self.all);
        all.try_remove(key);
        if all.is_empty() {
            all.shrink_to_fit();
        }
        drop(all);
        entry.open = None;
    }
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels").field("count", &lock(&self.table.all).len()).finish()
    }
}

fn token(key: usize, which: Which) -> Token {
    Token(key * 2 + usize::from(which == Which::Server))
}

fn key_of(token: Token) -> (usize, Which) {
    (token.0 / 2, if token.0.is_multiple_of(2) { Which::Client } else { Which::Server })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere must not take the others with it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
