//! The raw tunnels of an edge: all of them in one table, with a selector of their own.
//!
//! A tunnel is for most of its life two sockets at rest. As a task of the runtime it would cost
//! fifteen times what it needs; here it is one entry. The selector is itself a descriptor that the
//! runtime waits for, so everything stays on one thread, and between two turns of the [`Driver`]
//! every tunnel lies still (an upgrade writes them down then).

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::live::{Passed, Raw};
use super::status::Open;
use super::tunnel::{Summary, Tunnel, Turn, Which};

/// Events that one turn takes.
const BATCH: usize = 256;

/// Told when a tunnel is over.
pub type Ended = Box<dyn Fn(Summary, Option<Passed>)>;

/// The table.
pub struct Tunnels {
    registry: Registry,
    all: RefCell<Slab<Entry>>,
    /// Those that have more to move at once.
    again: RefCell<Vec<usize>>,
    wake: Notify,
    ended: Ended,
}

/// Waits for sockets and gives tunnels their turns.
pub struct Driver {
    tunnels: Rc<Tunnels>,
    poll: AsyncFd<Poll>,
    events: Events,
}

struct Entry {
    tunnel: Tunnel,
    /// Set for a metered host.
    passed: Option<Box<Passed>>,
    /// It waits for its next turn.
    queued: bool,
    _open: Open,
}

impl Tunnels {
    /// Call within a runtime. Nothing moves unless the driver runs.
    ///
    /// # Errors
    /// When there is no selector to be had.
    pub fn new(ended: Ended) -> io::Result<(Rc<Self>, Driver)> {
        let poll = Poll::new()?;
        let tunnels = Rc::new(Self {
            registry: poll.registry().try_clone()?,
            all: RefCell::default(),
            again: RefCell::default(),
            wake: Notify::new(),
            ended,
        });
        let events = Events::with_capacity(BATCH);
        #[expect(
            deprecated,
            reason = "its successor is the same call, but `unsafe`; a `Poll` owns \
            one descriptor for as long as it lives, which is all that is asked for"
        )]
        let poll = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)?;
        Ok((Rc::clone(&tunnels), Driver { tunnels, poll, events }))
    }

    /// Takes a tunnel in. One whose sockets can't be waited for ends at once.
    pub fn add(&self, raw: Raw, open: Open) {
        let Raw { tunnel, passed } = raw;
        let passed = passed.map(Box::new);
        let mut all = self.all.borrow_mut();
        let key = all.insert(Entry { tunnel, passed, queued: false, _open: open });
        let Some(entry) = all.get_mut(key) else { return };
        let registered = self.register(key, &entry.tunnel);
        drop(all);
        match registered {
            // What it already holds has nobody else to send it.
            Ok(()) => self.run(key),
            Err(_) => self.end(key, Summary { aborted: true, ..Summary::default() }),
        }
    }

    pub fn for_each(&self, mut visit: impl FnMut(&mut Tunnel, Option<&Passed>)) {
        for (_, entry) in self.all.borrow_mut().iter_mut() {
            visit(&mut entry.tunnel, entry.passed.as_deref());
        }
    }

    #[cfg(test)]
    pub fn take_all(&self) -> Vec<Tunnel> {
        self.all.borrow_mut().drain().map(|entry| entry.tunnel).collect()
    }

    fn register(&self, key: usize, tunnel: &Tunnel) -> io::Result<()> {
        let (client, server) = tunnel.sockets();
        for (socket, which) in [(client, Which::Client), (server, Which::Server)] {
            self.registry.register(
                &mut SourceFd(&socket.as_raw_fd()),
                token(key, which),
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        Ok(())
    }

    fn heard(&self, event: &Event) {
        let (key, which) = entry(event.token());
        if let Some(entry) = self.all.borrow_mut().get_mut(key) {
            let failed = event.is_error();
            entry.tunnel.ready(
                which,
                event.is_readable(),
                event.is_writable() || failed || event.is_write_closed(),
                event.is_read_closed() || failed,
            );
            if entry.queued {
                return;
            }
        }
        self.run(key);
    }

    /// Gives a tunnel its turn; one that ended by an earlier event of the same batch is gone.
    fn run(&self, key: usize) {
        let turn = match self.all.borrow_mut().get_mut(key) {
            Some(entry) => {
                let turn = entry.tunnel.run();
                entry.queued = turn == Turn::Again;
                turn
            }
            None => return,
        };
        match turn {
            Turn::Waits => {}
            Turn::Again => {
                self.again.borrow_mut().push(key);
                self.wake.notify_one();
            }
            Turn::Over(summary) => self.end(key, summary),
        }
    }

    fn end(&self, key: usize, summary: Summary) {
        let Some(entry) = self.all.borrow_mut().try_remove(key) else { return };
        let (client, server) = entry.tunnel.sockets();
        for socket in [client, server] {
            // Closing is not enough when another process holds a copy of the descriptor.
            let _ = self.registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
        (self.ended)(summary, entry.passed.map(|passed| *passed));
        let mut all = self.all.borrow_mut();
        if all.is_empty() {
            all.shrink_to_fit();
        }
    }
}

impl Driver {
    /// Drop the future to stop.
    pub async fn run(mut self) {
        // The selector's own failure can't be told from a spurious wake-up, and passes as one does.
        loop {
            let _ = self.turn().await;
        }
    }

    /// Waits until there is something to do, and does it.
    ///
    /// # Errors
    /// When the selector can't be asked.
    pub async fn turn(&mut self) -> io::Result<()> {
        let again = std::mem::take(&mut *self.tunnels.again.borrow_mut());
        if again.is_empty() {
            tokio::select! {
                biased;
                ready = self.poll.readable_mut() => {
                    let mut ready = ready?;
                    ready.get_inner_mut().poll(&mut self.events, Some(Duration::ZERO))?;
                    if self.events.iter().count() < BATCH {
                        ready.clear_ready();
                    }
                }
                () = self.tunnels.wake.notified() => return Ok(()),
            }
            for event in &self.events {
                self.tunnels.heard(event);
            }
            self.events.clear();
        } else {
            // The others first: clients that connect, small messages of other tunnels.
            tokio::task::yield_now().await;
            self.poll.get_mut().poll(&mut self.events, Some(Duration::ZERO))?;
            for event in &self.events {
                self.tunnels.heard(event);
            }
            self.events.clear();
            for key in again {
                self.tunnels.run(key);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tunnels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnels").field("count", &self.all.borrow().len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").finish_non_exhaustive()
    }
}

fn token(key: usize, which: Which) -> Token {
    Token(key * 2 + usize::from(which == Which::Server))
}

fn entry(token: Token) -> (usize, Which) {
    (token.0 / 2, if token.0 % 2 == 0 { Which::Client } else { Which::Server })
}
