//! One connection, from its first byte to its end.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use slog::Logger;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::cache::Health;
use super::connect::{Reader, Refusal, Request, Step, Target};
use super::offer::Outcome;
use super::route::{self, OwnPorts, Reason, Route};
use super::spool::{Line, Spool};
use super::status::{self, Counters};
use super::tunnel::Tunnel;
use crate::config::Config;
use crate::dial::{self, DialError};

/// A client that has not said what it wants by then is told so.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Longer than clients care to wait, shorter than the kernel's own limit.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection waits for the descriptor that it needs, and between two tries.
const SHORTAGE: Duration = Duration::from_secs(10);
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
/// How long a refused client may go on talking before the answer could be lost by closing.
const LINGER: Duration = Duration::from_secs(1);
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const PEEK: usize = 4 * 1024;

/// What every connection of an edge shares.
#[derive(Debug)]
pub struct Shared {
    pub config: Arc<ArcSwap<Config>>,
    pub edge_port: u16,
    pub health: Arc<Health>,
    pub spool: Spool,
    pub counters: Rc<Counters>,
    pub instance: Uuid,
    pub log: Logger,
}

/// What the first part of a connection's life leads to. Boxed: it is moved between futures, and
/// each of them would have room for it.
enum Next {
    Over,
    Tunnel(Box<Raw>),
    /// `200` was answered; the client has not spoken yet.
    Metered(Box<Metered>),
}

struct Raw {
    tunnel: Tunnel,
    /// Set for a metered host.
    passed: Option<Passed>,
}

struct Metered {
    client: TcpStream,
    target: Target,
    started: Started,
}

#[derive(Clone, Copy)]
struct Started {
    at: Timestamp,
    clock: Instant,
}

/// For the spool, at the end.
struct Passed {
    target: Target,
    started: Started,
    reason: Reason,
}

impl Shared {
    fn own_ports(&self) -> OwnPorts {
        OwnPorts { edge: self.edge_port, api: self.config.load().daemon.api_port }
    }
}

/// Serves one client. The big futures are boxed, so that a tunnel at rest costs little.
pub async fn serve(shared: Rc<Shared>, client: TcpStream) {
    let _open = shared.counters.open();
    let mut next = Box::pin(begin(&shared, client)).await;
    if let Next::Metered(metered) = next {
        // No timer and no buffer: the client may take its time.
        let spoke = poll_fn(|cx| metered.client.poll_peek(cx, &mut ReadBuf::new(&mut [0]))).await;
        next = match spoke {
            Ok(1..) => Box::pin(chain(&shared, *metered)).await,
            Ok(0) | Err(_) => Next::Over,
        };
    }
    if let Next::Tunnel(mut raw) = next {
        shared.counters.raw();
        let summary = raw.tunnel.run().await;
        if let Some(passed) = raw.passed {
            shared.counters.passed(passed.reason);
            shared.spool.record(Line {
                at: passed.started.at,
                host: passed.target.host,
                port: passed.target.port,
                duration_ms: millis(passed.started.clock.elapsed()),
                bytes_up: summary.up,
                bytes_down: summary.down,
                reason: passed.reason,
            });
        }
    }
}

impl Next {
    fn tunnel(tunnel: Tunnel, passed: Option<Passed>) -> Self {
        Self::Tunnel(Box::new(Raw { tunnel, passed }))
    }
}

/// Reads the request and answers it, or connects.
async fn begin(shared: &Shared, mut client: TcpStream) -> Next {
    let _ = client.set_nodelay(true);
    let request = match timeout(HEAD_DEADLINE, read_request(&client)).await {
        Ok(Some(Ok(request))) => request,
        Ok(Some(Err(refusal))) => return refuse(client, refusal.status, refusal.why).await,
        Ok(None) => return Next::Over,
        Err(_) => return refuse(client, 408, "no request came").await,
    };
    match request {
        Request::Health => {
            // Who asks wants to know how it is now.
            let _ = shared.health.decide().await;
            let body =
                status::document(&shared.counters, &shared.health, &shared.spool, shared.instance);
            respond(client, 200, "application/json", &body).await
        }
        Request::Forward { target, head } => forward(shared, client, target, head).await,
        Request::Connect(target) => {
            let own = shared.own_ports();
            match route::route(&shared.config.load(), own, &target) {
                Route::Own => refuse(client, 508, "this would lead back to the proxy itself").await,
                Route::Metered => {
                    // The probe runs while the client gets its answer and makes up its hello.
                    shared.health.refresh();
                    let started = Started { at: Timestamp::now(), clock: Instant::now() };
                    match client.write_all(ESTABLISHED).await {
                        Ok(()) => Next::Metered(Box::new(Metered { client, target, started })),
                        Err(_) => Next::Over,
                    }
                }
                Route::Raw => match connect(shared, &target).await {
                    Ok(server) => match client.write_all(ESTABLISHED).await {
                        Ok(()) => Next::tunnel(Tunnel::new(client, server), None),
                        Err(_) => Next::Over,
                    },
                    Err(e) => unreachable_target(client, &e).await,
                },
            }
        }
    }
}

/// A metered connection with its first bytes unread: to the daemon if it is well, else raw.
async fn chain(shared: &Shared, metered: Metered) -> Next {
    let Metered { client, target, started } = metered;
    let (reason, offered) = match shared.health.decide().await {
        Some(reason) => (reason, false),
        None => match offer(shared, &client, &target).await {
            Ok(Outcome::Granted) => {
                // The daemon has it now; our copy closes here.
                shared.counters.handed();
                return Next::Over;
            }
            Ok(Outcome::Raw(reason)) => (reason, true),
            Err(reason) => (reason, false),
        },
    };
    slog::debug!(shared.log, "raw"; "host" => &*target.host, "reason" => reason.as_str());
    match connect(shared, &target).await {
        Ok(server) => {
            let tunnel = Tunnel::new(client, server);
            let tunnel = if offered { tunnel.shared_client() } else { tunnel };
            Next::tunnel(tunnel, Some(Passed { target, started, reason }))
        }
        Err(e) => {
            // `200` is out: breaking off is all that can be said.
            slog::debug!(shared.log, "cannot connect"; "host" => &*target.host, "error" => %e);
            let _ = client.set_zero_linger();
            if offered {
                let _ = rustix::net::shutdown(&client, rustix::net::Shutdown::Both);
            }
            Next::Over
        }
    }
}

async fn offer(shared: &Shared, client: &TcpStream, target: &Target) -> Result<Outcome, Reason> {
    let lost = Reason::Daemon(super::health::Cause::ChannelLost);
    let link = shared.health.link().ok_or(lost)?;
    let (Ok(peer), Ok(local)) = (client.peer_addr(), client.local_addr()) else {
        return Err(lost);
    };
    let outcome = link.offer(target, peer, local, client.as_fd())?;
    Ok(outcome.await.unwrap_or(Outcome::Raw(lost)))
}

async fn forward(shared: &Shared, client: TcpStream, target: Target, head: Vec<u8>) -> Next {
    let own = shared.own_ports();
    let passed = match route::route(&shared.config.load(), own, &target) {
        Route::Own => {
            return refuse(client, 508, "this would lead back to the proxy itself").await;
        }
        Route::Raw => None,
        Route::Metered => Some(Passed {
            target: target.clone(),
            started: Started { at: Timestamp::now(), clock: Instant::now() },
            reason: Reason::PlainHttp,
        }),
    };
    match connect(shared, &target).await {
        Ok(server) => {
            let tunnel = Tunnel::new(client, server).with_request_head(head).with_response_gate();
            Next::tunnel(tunnel, passed)
        }
        Err(e) => unreachable_target(client, &e).await,
    }
}

/// Why a target was not connected to.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("this leads back to the proxy itself")]
    Loop,
}

async fn connect(shared: &Shared, target: &Target) -> Result<TcpStream, ConnectError> {
    let config = shared.config.load_full();
    let own = shared.own_ports();
    let end = Instant::now() + SHORTAGE;
    let server = loop {
        match dial::dial(&config.upstream, &target.host, target.port, DIAL_DEADLINE).await {
            // The client has its `200`, or waits for it: better late than not at all.
            Err(e) if e.is_shortage() && Instant::now() < end => sleep(SHORTAGE_PAUSE).await,
            dialled => break dialled?,
        }
    };
    // However the name was spelled or resolved.
    match server.peer_addr() {
        Ok(peer) if route::leads_back(own, peer) => Err(ConnectError::Loop),
        Ok(_) | Err(_) => Ok(server),
    }
}

/// `None`: the client left without a word.
async fn read_request(client: &TcpStream) -> Option<Result<Request, Refusal>> {
    let mut reader = Reader::default();
    let mut buffer = [0; PEEK];
    loop {
        let seen = dial::peek(client, &mut buffer).await.ok().filter(|n| *n > 0)?;
        let chunk = buffer.get(..seen).unwrap_or_default();
        let (take, outcome) = match reader.feed(chunk) {
            Step::More => (seen, None),
            Step::Done { take, request } => (take, Some(Ok(request))),
            Step::Refuse(refusal) => (seen, Some(Err(refusal))),
        };
        dial::take(client, take).await.ok()?;
        if outcome.is_some() {
            return outcome;
        }
    }
}

async fn unreachable_target(client: TcpStream, error: &ConnectError) -> Next {
    let status = match error {
        ConnectError::Dial(e) => e.status(),
        ConnectError::Loop => 508,
    };
    refuse(client, status, &error.to_string()).await
}

async fn refuse(client: TcpStream, status: u16, why: &str) -> Next {
    let line = format!("halton-meter: {why}\n");
    respond(client, status, "text/plain; charset=utf-8", line.as_bytes()).await
}

async fn respond(mut client: TcpStream, status: u16, kind: &str, body: &[u8]) -> Next {
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        reason_phrase(status),
        body.len(),
    )
    .into_bytes();
    answer.extend_from_slice(body);
    if client.write_all(&answer).await.is_ok() && client.shutdown().await.is_ok() {
        // To close with unread bytes would reset the connection under the answer.
        let mut sink = [0; 1024];
        let drain = async { while let Ok(1..) = client.read(&mut sink).await {} };
        let _ = timeout(LINGER, drain).await;
    }
    Next::Over
}

fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => "Error",
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
