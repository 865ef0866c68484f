//! What is done once for a connection, a chunk or a request.

use std::sync::Arc;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use halton_meter::edge::connect::{Reader, Step};
use halton_meter::meter::attribution::Attributor;
use halton_meter::meter::exchange::{Exchange, ExchangeStart};
use halton_meter::meter::feed::{Budget, feed};
use halton_meter::meter::http::{RequestHead, Side};
use halton_meter::meter::price::{Book, Query};
use halton_meter::meter::row::Protocol;
use halton_meter::meter::usage::{Tokens, Usage, UsageState};
use jiff::Timestamp;
use slog::Logger;
use uuid::Uuid;

use crate::Case;

pub(crate) fn connect_head() -> Case {
    let head = b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nHost: api.anthropic.com:443\r\n\
        User-Agent: claude-cli/2.1\r\nProxy-Connection: Keep-Alive\r\n\r\n";
    Case::new("connect", "head", 1, move || {
        let step = Reader::default().feed(head);
        assert!(matches!(step, Step::Done { .. }));
        step
    })
}

/// What the byte path does for the observer: a copy, queued.
pub(crate) fn feed_chunk() -> Case {
    const CHUNKS: u64 = 100;
    let shared = Budget::new(64 << 20);
    let chunk = [7; 300];
    Case::new("feed", "chunk", CHUNKS, move || {
        let (mut feed, watch) = feed(&shared, 16 << 20, &Arc::default());
        (0..CHUNKS).for_each(|_| feed.bytes(Side::Server, &chunk));
        drop((feed, watch));
    })
}

pub(crate) fn price() -> Case {
    let book = Book::builtin();
    let tokens = Tokens {
        input: Some(1200),
        cache_read: Some(80_000),
        cache_write_5m: Some(900),
        output: Some(700),
        ..Tokens::default()
    };
    let usage = Usage { state: UsageState::Reported, tokens, ..Usage::default() };
    Case::new("price", "quote", 1, move || {
        let at = Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(1_795_000_000);
        let query =
            Query { provider: "anthropic", model: "claude-sonnet-5", at, ended: at, usage: &usage };
        book.quote(&query)
    })
}

/// From what was followed to the row that is handed to the ledger.
pub(crate) fn row() -> Case {
    let book = Book::builtin();
    let exchange = Exchange::new(start(), &head());
    Case::new("row", "row", 1, move || exchange.row(&book))
}

/// Whose connection is it? Of a process that is remembered.
pub(crate) fn owner_known() -> Case {
    let (listener, client) = connection();
    let attributor = Attributor::new(Logger::root(slog::Discard, slog::o!()));
    Case::new("owner-known", "connection", 1, move || {
        attributor.attribute(client.local_addr().unwrap(), listener.local_addr().unwrap())
    })
}

/// Of one that is not, among 100 others with 200 descriptors each that are younger.
pub(crate) fn owner_unknown() -> Case {
    let (listener, client) = connection();
    let crowd = if std::env::args().any(|word| word == "--bench") { 100 } else { 2 };
    let mut others = None;
    Case::new("owner-unknown", "connection", 1, move || {
        others.get_or_insert_with(|| (0..crowd).map(|_| Other::start()).collect::<Vec<_>>());
        let local = listener.local_addr().unwrap();
        Attributor::new(Logger::root(slog::Discard, slog::o!()))
            .attribute(client.local_addr().unwrap(), local)
    })
}

fn connection() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener, client)
}

/// A process with many descriptors; it ends when its input does.
struct Other(Child);

impl Other {
    fn start() -> Self {
        let script = "for n in {10..209}; do eval \"exec $n</dev/null\"; done; echo; read _";
        let mut bash = Command::new("bash");
        let bash = bash.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bash.spawn().unwrap();
        let mut ready = [0];
        child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        Self(child)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

pub(crate) fn start() -> ExchangeStart {
    ExchangeStart {
        id: Uuid::now_v7(),
        at: Timestamp::now(),
        host: "api.anthropic.com".to_owned(),
        port: 443,
        local: false,
        protocol: Protocol::H1,
    }
}

pub(crate) fn head() -> RequestHead {
    RequestHead {
        method: "POST".to_owned(),
        target: "/v1/messages?beta=true".to_owned(),
        authority: Some("api.anthropic.com".to_owned()),
        protocol: None,
        headers: [("user-agent", "claude-cli/2.1"), ("content-type", "application/json")]
            .into_iter()
            .collect(),
    }
}
