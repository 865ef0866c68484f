//! The live connections that are not tunnels yet: where each one stands.
//!
//! All that a connection is lies in its [`Stage`] whenever its task waits, so that an upgrade can
//! write every one of them down between two polls, without asking the tasks.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use jiff::Timestamp;
use slab::Slab;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use uuid::Uuid;

use super::connect::{Reader, Refusal, Request, Step, Target};
use super::route::{self, Reason};
use super::spool::{End, Line};
use super::tunnel::{Summary, Tunnel};
use crate::dial;

/// One look into a client's socket.
const PEEK: usize = 4 * 1024;

/// Where a connection stands.
#[derive(Debug)]
pub enum Stage {
    /// The request is being read.
    Head(Box<Head>),
    /// It is known, and nothing is answered yet.
    Asked(Box<Asked>),
    /// A metered host: of what the client says from here on nothing is taken. To a CONNECT the `200`
    /// is out.
    Metered(Box<Metered>),
    /// Set up; it goes to the table of tunnels as soon as it is accounted for.
    Tunnel(Box<Raw>),
    /// Its task sends it on over TLS ([`super::secure`]).
    Secure,
    /// It is over, or gets an answer of ours that ends it.
    Over,
}

/// Nothing is answered; what came of the head is in the reader.
#[derive(Debug)]
pub struct Head {
    pub client: TcpStream,
    pub reader: Reader,
}

/// The head is taken from the socket, and nothing behind it.
#[derive(Debug)]
pub struct Asked {
    pub client: TcpStream,
    pub request: Request,
}

/// Waits for the client's first byte, or for the daemon's word.
#[derive(Debug)]
pub struct Metered {
    pub client: TcpStream,
    pub target: Target,
    pub started: Started,
    /// The request's head, of one that is forwarded: ours until the daemon is granted it.
    pub head: Option<Vec<u8>>,
    pub how: route::Asked,
}

/// Both ends are there. Bytes move only once it is in the table of tunnels.
#[derive(Debug)]
pub struct Raw {
    pub tunnel: Tunnel,
    /// Set for a metered host.
    pub passed: Option<Passed>,
}

/// When, by two clocks: one is written down, the other measures.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// The connection's name in the ledger, metered or passed.
    pub id: Uuid,
    pub at: Timestamp,
    pub clock: Instant,
}

/// What the spool is told of a raw tunnel to a metered host.
#[derive(Clone, Debug)]
pub struct Passed {
    pub target: Target,
    pub started: Started,
    pub reason: Reason,
}

/// The connections of one edge.
#[derive(Debug, Default)]
pub struct Live {
    all: RefCell<Slab<Rc<RefCell<Stage>>>>,
    /// Connections between two stages: an offer is out, or an answer of ours is on its way.
    moving: Cell<usize>,
}

/// One connection's place among them; given up on drop.
#[derive(Debug)]
pub struct Place {
    live: Rc<Live>,
    key: usize,
    stage: Rc<RefCell<Stage>>,
}

/// While it lives, the connection is in nobody's stage.
#[derive(Debug)]
pub struct Moving(Rc<Live>);

impl Stage {
    /// It can't go on in another image: the keys of a TLS session can't be written down.
    #[must_use]
    pub fn stays(&self) -> bool {
        match self {
            Self::Asked(asked) => asked.request.how() == route::Asked::Secure,
            Self::Metered(metered) => metered.how == route::Asked::Secure,
            Self::Secure => true,
            Self::Head(_) | Self::Tunnel(_) | Self::Over => false,
        }
    }
}

impl Started {
    #[must_use]
    pub fn now() -> Self {
        Self { id: Uuid::now_v7(), at: Timestamp::now(), clock: Instant::now() }
    }
}

impl Passed {
    /// Its line at the beginning, or at its end.
    #[must_use]
    pub fn line(&self, end: Option<End>) -> Line<Reason> {
        Line {
            id: self.started.id,
            at: self.started.at,
            host: self.target.host.clone(),
            port: self.target.port,
            reason: self.reason,
            end,
        }
    }

    /// What the line at its end says more.
    #[must_use]
    pub fn end(&self, summary: Summary) -> End {
        let duration = self.started.clock.elapsed().as_millis();
        End {
            duration_ms: u64::try_from(duration).unwrap_or(u64::MAX),
            bytes_up: summary.up,
            bytes_down: summary.down,
            aborted: summary.aborted,
        }
    }
}

impl Live {
    #[must_use]
    pub fn enter(self: &Rc<Self>, stage: Stage) -> Place {
        let stage = Rc::new(RefCell::new(stage));
        let key = self.all.borrow_mut().insert(Rc::clone(&stage));
        Place { live: Rc::clone(self), key, stage }
    }

    /// No connection is between two stages.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.moving.get() == 0
    }

    /// One of them could not go on in another image.
    #[must_use]
    pub fn any_stays(&self) -> bool {
        self.all.borrow().iter().any(|(_, stage)| stage.borrow().stays())
    }

    pub fn for_each(&self, mut visit: impl FnMut(&mut Stage)) {
        for (_, stage) in self.all.borrow().iter() {
            visit(&mut stage.borrow_mut());
        }
    }
}

impl Place {
    #[must_use]
    pub fn moving(&self) -> Moving {
        self.live.moving.set(self.live.moving.get() + 1);
        Moving(Rc::clone(&self.live))
    }

    pub fn set(&self, stage: Stage) {
        *self.stage.borrow_mut() = stage;
    }

    pub fn take(&self) -> Stage {
        self.stage.replace(Stage::Over)
    }

    /// A look at where it stands; not to be kept over an await.
    pub fn look<T>(&self, look: impl FnOnce(&Stage) -> T) -> T {
        look(&self.stage.borrow())
    }

    /// The client's own address and the one that it called, before it is answered.
    #[must_use]
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.look(|stage| match stage {
            Stage::Asked(asked) => {
                asked.client.peer_addr().ok().zip(asked.client.local_addr().ok())
            }
            Stage::Head(_) | Stage::Metered(_) | Stage::Tunnel(_) | Stage::Secure | Stage::Over => {
                None
            }
        })
    }

    /// The request, once it is whole. Its bytes are taken, those behind it are not. `None`: the
    /// client left.
    pub fn poll_request(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(TcpStream, Result<Request, Refusal>)>> {
        let mut stage = self.stage.borrow_mut();
        let Stage::Head(head) = &mut *stage else { return Poll::Ready(None) };
        let read = ready!(head.poll(cx));
        let (Stage::Head(head), Some(read)) = (std::mem::replace(&mut *stage, Stage::Over), read)
        else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some((head.client, read)))
    }

    /// Whether the client of a metered host has spoken; false when it has left. Needs neither
    /// timer nor buffer: it may take its time. A request that we hold is what it had to say.
    pub fn poll_spoke(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let stage = self.stage.borrow();
        let Stage::Metered(metered) = &*stage else { return Poll::Ready(false) };
        if metered.head.is_some() {
            return Poll::Ready(true);
        }
        let seen = ready!(metered.client.poll_peek(cx, &mut ReadBuf::new(&mut [0])));
        Poll::Ready(matches!(seen, Ok(1..)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // At the very end the map itself may be on its way out.
        if let Ok(mut all) = self.live.all.try_borrow_mut() {
            all.try_remove(self.key);
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.moving.set(self.0.moving.get().saturating_sub(1));
    }
}

impl Head {
    #[must_use]
    pub fn new(client: TcpStream) -> Self {
        Self { client, reader: Reader::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Request, Refusal>>> {
        let mut buffer = [0; PEEK];
        loop {
            if ready!(self.client.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            let peeked = self
                .client
                .try_io(Interest::READABLE, || dial::peek_now(&self.client, &mut buffer));
            let seen = match peeked {
                Ok(seen @ 1..) => buffer.get(..seen).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(0) | Err(_) => return Poll::Ready(None),
            };
            let (take, outcome) = match self.reader.feed(seen) {
                Step::More => (seen.len(), None),
                Step::Done { take, request } => (take, Some(Ok(request))),
                Step::Refuse(refusal) => (seen.len(), Some(Err(refusal))),
            };
            if dial::take_now(&self.client, take).is_err() {
                return Poll::Ready(None);
            }
            if outcome.is_some() {
                return Poll::Ready(outcome);
            }
        }
    }
}
