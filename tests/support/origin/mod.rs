//! A provider for tests: a TLS server (HTTP/1.1 and HTTP/2) that answers like Anthropic, OpenAI and
//! Gemini, misbehaves on request, and remembers what it was sent and which tokens it reported.
//!
//! It runs on threads of its own, so tests are ordinary blocking functions. A request chooses the
//! answer's shape by directives in double brackets in its body or in the header `x-origin`, so that
//! any real client can select it: `"hi [[coding=gzip slice=7]]"`. See [`answer::Directives`].

mod answer;
mod anthropic;
mod bedrock;
mod coding;
mod cohere;
mod cursor;
mod gemini;
mod h1;
mod http2;
mod openai;
mod pki;
mod route;
mod sides;
pub mod websocket;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

pub use answer::{Served, Surface};
pub use bedrock::base64;
pub use openai::copilot_nano_aiu;
pub use pki::{Leaf, Root};
pub use sides::ACCOUNT;

/// Protocol of a recorded request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proto {
    H1,
    H2,
}

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which connection it came on, in order of acceptance.
    pub connection: u64,
    pub proto: Proto,
    pub method: String,
    /// Request target: path and query (or the absolute form, as sent).
    pub target: String,
    /// Names as they were spelt, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// HTTP/1: head and body exactly as they came in. Empty for HTTP/2.
    pub raw: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The host it is meant for, without a port.
    pub fn host(&self) -> &str {
        let named = self.header(":authority").or_else(|| self.header("host")).unwrap_or_default();
        named.split(':').next().unwrap_or_default()
    }

    /// Target without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// How the server presents itself.
#[derive(Clone, Debug)]
pub struct Setup {
    /// ALPN protocols it accepts, by preference.
    pub alpn: Vec<&'static str>,
    pub leaf: Leaf,
    /// Refuses clients without a certificate.
    pub client_auth: bool,
    pub transport: Transport,
    /// Keeps each request for the test to look at; off for those who send gigabytes.
    pub record: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            alpn: vec!["h2", "http/1.1"],
            leaf: Leaf::Good,
            client_auth: false,
            transport: Transport::Tls,
            record: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    Tls,
    Plain,
    /// Accepts and then says nothing.
    Stall,
    /// Resets each connection before it says a word.
    Reset,
    /// Waits at the gate before the handshake.
    Held,
}

/// The running server; ends with the value.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tls: Arc<Mutex<Arc<rustls::ServerConfig>>>,
    root: Root,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    log: Mutex<Log>,
    changed: Condvar,
    /// Answers that wait for [`Origin::open_gate`].
    gate: Semaphore,
    connections: AtomicU64,
    sequence: AtomicU64,
    record: bool,
}

#[derive(Debug, Default)]
struct Log {
    requests: Vec<Request>,
    served: Vec<Served>,
    scripted: Vec<(String, String)>,
    /// Answers that stand for a path, word for word.
    recorded: Vec<(String, answer::Reply)>,
    at_gate: usize,
    aborted: usize,
}

impl Origin {
    /// A well-behaved origin with a root of its own.
    pub fn start() -> Self {
        Self::with(&Setup::default(), &Root::new("Test Origin Root"))
    }

    pub fn with(setup: &Setup, root: &Root) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("origin")
            .enable_all()
            .build()
            .expect("runtime");
        let shared = Arc::new(Shared {
            log: Mutex::default(),
            changed: Condvar::new(),
            gate: Semaphore::new(0),
            connections: AtomicU64::new(0),
            sequence: AtomicU64::new(0),
            record: setup.record,
        });
        let tls = Arc::new(Mutex::new(root.server_config(setup)));
        let (current, transport) = (Arc::clone(&tls), setup.transport);
        let listener =
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind origin");
        let addr = listener.local_addr().expect("origin address");
        let state = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let id = state.connections.fetch_add(1, Ordering::SeqCst);
                let tls = Arc::clone(&*current.lock().expect("TLS"));
                tokio::spawn(connection(tcp, id, tls, transport, Arc::clone(&state)));
            }
        });
        Self { addr, shared, tls, root: root.clone(), runtime: Some(runtime) }
    }

    /// From now on it presents itself like this (but for the transport).
    pub fn change(&self, setup: &Setup) {
        *self.tls.lock().expect("TLS") = self.root.server_config(setup);
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The root that signs its certificates, as PEM.
    pub fn root_pem(&self) -> &str {
        self.root.pem()
    }

    /// A blind CONNECT proxy that leads every target here: what clients use for the direct run that
    /// a metered run is compared with.
    pub fn blind_proxy(&self) -> SocketAddr {
        let runtime = self.runtime.as_ref().expect("running");
        let listener =
            runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("bind proxy");
        let addr = listener.local_addr().expect("proxy address");
        let target = self.addr;
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(blind_tunnel(tcp, target));
            }
        });
        addr
    }

    /// The next request whose path is `path` gets these directives, whatever it says itself.
    pub fn script(&self, path: &str, directives: &str) {
        self.shared.lock().scripted.push((path.to_owned(), directives.to_owned()));
    }

    /// From now on requests for `path` (as sent, without the query) get this answer, word for word.
    pub fn record(&self, path: &str, headers: &[(&str, &str)], body: &str) {
        let reply = answer::Reply::recorded(headers, body);
        self.shared.lock().recorded.push((path.to_owned(), reply));
    }

    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Requests whose path is `path`.
    pub fn requests_to(&self, path: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|r| r.path() == path).collect()
    }

    /// What the answers said of models and tokens, in order.
    pub fn served(&self) -> Vec<Served> {
        self.shared.lock().served.clone()
    }

    /// Forgets what was recorded; sequence numbers go on.
    pub fn forget(&self) {
        *self.shared.lock() = Log::default();
    }

    /// Lets one answer that waits at its gate go on.
    pub fn open_gate(&self) {
        self.shared.gate.add_permits(1);
    }

    /// Waits until `n` answers in all have reached their gate.
    pub fn wait_at_gate(&self, n: usize, within: Duration) {
        self.wait("answers at the gate", within, |log| log.at_gate >= n);
    }

    /// Waits until `n` clients in all have gone away before their answer was complete.
    pub fn wait_aborted(&self, n: usize, within: Duration) {
        self.wait("aborted answers", within, |log| log.aborted >= n);
    }

    fn wait(&self, what: &str, within: Duration, done: impl Fn(&Log) -> bool) {
        let end = Instant::now() + within;
        let mut log = self.shared.lock();
        while !done(&log) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "origin: no {what} within {within:?}");
            log = self.shared.changed.wait_timeout(log, left).expect("origin log").0;
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().expect("origin log")
    }

    fn update(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Records the request and makes its answer.
    fn answer(&self, request: Request) -> answer::Reply {
        let scripted = self.scripted(request.path());
        let sequence = self.next();
        let recorded =
            self.lock().recorded.iter().rev().find(|(p, _)| p == request.path()).cloned();
        let reply = match recorded {
            Some((_, reply)) => reply,
            None => answer::reply(&request, scripted.as_deref(), sequence),
        };
        self.update(|log| {
            if self.record {
                log.requests.push(request);
            }
            log.served.extend(reply.served.clone());
        });
        reply
    }

    fn scripted(&self, path: &str) -> Option<String> {
        let mut log = self.lock();
        let at = log.scripted.iter().position(|(for_path, _)| for_path == path);
        at.map(|i| log.scripted.remove(i).1)
    }

    /// Numbers answers.
    fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Waits for the test's leave.
    async fn pass_gate(&self) {
        self.update(|log| log.at_gate += 1);
        if let Ok(permit) = self.gate.acquire().await {
            permit.forget();
        }
    }

    fn aborted(&self) {
        self.update(|log| log.aborted += 1);
    }
}

async fn connection(
    tcp: TcpStream,
    id: u64,
    tls: Arc<rustls::ServerConfig>,
    transport: Transport,
    shared: Arc<Shared>,
) {
    match transport {
        Transport::Plain => {
            let mut tcp = tcp;
            let end = h1::serve(&mut tcp, id, &shared).await;
            finish(&tcp, end);
        }
        Transport::Stall => {
            let mut tcp = tcp;
            let mut sink = [0; 4096];
            while matches!(tcp.read(&mut sink).await, Ok(n) if n > 0) {}
        }
        Transport::Reset => finish(&tcp, h1::End::Reset),
        Transport::Tls | Transport::Held => {
            if transport == Transport::Held {
                shared.pass_gate().await;
            }
            // A failed handshake is the client's business: tests see what it says.
            let accepted = tokio_rustls::TlsAcceptor::from(tls).accept(tcp).await;
            let Ok(mut stream) = accepted else { return };
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2::serve(stream, id, shared).await;
                return;
            }
            let end = h1::serve(&mut stream, id, &shared).await;
            if end == h1::End::Clean {
                let _ = stream.shutdown().await;
            }
            finish(stream.get_ref().0, end);
        }
    }
}

/// A close with linger 0 is a reset.
fn finish(tcp: &TcpStream, end: h1::End) {
    if end == h1::End::Reset {
        let _ = rustix::net::sockopt::set_socket_linger(tcp, Some(Duration::ZERO));
    }
}

async fn blind_tunnel(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
