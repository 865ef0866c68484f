//! One offered connection: look, dial, ask, and only then take a byte.

mod judgement;
mod secure;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant as Moment, interval_at, timeout};
use tokio_rustls::{TlsAcceptor, client, server};

use super::bypass::{Strike, Tried, Voucher};
use super::channel::Link;
use super::counters::{Counters, add, name};
use super::judge::{Word, has_left, judged, strike};
use super::look_ups::Owner;
use super::means::Means;
use super::unfit::Place;
use super::{Slot, Tap};
use crate::dial;
use crate::handover::{Decline, Offer, RequestHead};
use crate::meter::attribution::Attribution;
use crate::meter::feed::feed;
use crate::meter::hello::{Hello, HelloError, peek};
use crate::meter::ledger::Entry;
use crate::meter::observer::{Attributed, Observed, RowSink, Subject, observe};
use crate::meter::plain::Plain;
use crate::meter::pump::{self, Peer};
use crate::meter::upstream::{Target, Upstream, UpstreamError, connect};
use judgement::{knows_signer, rejected, vouch};

/// How long a look at the bypass list waits to learn who the client is.
const WHO_DEADLINE: Duration = Duration::from_millis(200);
/// … and how long plain HTTP does; the look takes a few milliseconds.
const WHO_PLAIN: Duration = Duration::from_millis(50);

/// The first sign of life comes after this part of the time between two.
const FIRST_PROGRESS_PART: u32 = 8;

/// How a ClientHello begins.
const TLS_HANDSHAKE: u8 = 0x16;

/// Everything that can fail without the client noticing has succeeded.
struct Ready {
    /// SNI, else the host that was asked for.
    name: String,
    way: Way,
}

enum Way {
    Tls {
        upstream: Upstream,
        config: Arc<ServerConfig>,
    },
    /// Without TLS, on both sides.
    Plain(TcpStream),
    /// Without TLS on the client's side, which has left that to its proxy.
    Secure(Upstream),
}

/// A connection that is ours, and nothing left to do but to move its bytes.
struct Begun {
    peers: Peers,
    subject: Subject,
    sink: Arc<dyn RowSink>,
    /// For as long as the connection lasts; empty while it can't be told who its client is.
    voucher: Arc<OnceLock<Voucher>>,
}

/// Who has dialled, and when.
struct Caller {
    owner: Owner,
    since: Instant,
}

type TlsClient = server::TlsStream<TcpStream>;

/// Boxed, all of them, so that what holds them stays small.
enum Peers {
    Tls(Box<TlsClient>, Box<client::TlsStream<TcpStream>>),
    Plain(Box<Plain>, Box<Plain>),
    Secure(Box<Plain>, Box<Plain<Box<client::TlsStream<TcpStream>>>>),
}

pub(super) async fn serve(tap: Arc<Tap>, slot: Slot, offer: Offer, fd: OwnedFd, link: Link) {
    // A task is as large as its largest step, for as long as the connection stays: what comes
    // before the bytes has a box of its own, which is gone by then.
    let Some((entry, begun)) = Box::pin(begin(&tap, offer, fd, link)).await else { return };
    if let Some(Begun { peers, subject, sink, voucher }) = begun {
        let aborted = match peers {
            Peers::Tls(client, server) => pump_between(&tap, sink, client, server, subject).await,
            Peers::Plain(client, server) => pump_between(&tap, sink, client, server, subject).await,
            Peers::Secure(client, server) => {
                pump_between(&tap, sink, client, server, subject).await
            }
        };
        if let (Some(at), Some(voucher)) = (aborted, voucher.get()) {
            voucher.aborted(at);
        }
        drop(voucher);
    }
    tap.deps.sink.when_kept(Box::new(move || entry.leave()));
    drop(slot);
}

/// `None`: it is the edge's, as before. With an entry but nothing begun it was ours, and has ended.
async fn begin(
    tap: &Arc<Tap>,
    offer: Offer,
    fd: OwnedFd,
    mut link: Link,
) -> Option<(Entry, Option<Begun>)> {
    let since = Instant::now();
    let owner = tap.look_ups.start(offer.client, offer.local);
    let counters = tap.counters_of(&offer.host);
    let means = Means::of(tap, &offer.host).await;
    let prepared = match (socket(fd), &means) {
        (Ok(socket), Some(means)) => {
            // If the channel broke, the edge has gone on by itself, and so has its copy.
            prepare_visibly(tap, means, &offer, socket, &owner.who, &link)
                .await?
                .map(|(socket, ready)| (socket, ready, means))
        }
        (Ok(_), None) => Err(Decline::NotMetered),
        (Err(_), _) => Err(Decline::Internal),
    };
    let (socket, ready, means) = match prepared {
        Err(reason) => {
            counters.declined(reason);
            slog::debug!(tap.deps.log, "left a connection to the edge";
                "host" => &offer.host, "reason" => name(reason));
            link.decline(reason);
            return None;
        }
        Ok(all) => all,
    };
    // Before we ask: from the edge's yes on, nobody else knows of this connection.
    let entry = tap.deps.register.enter(offer.connection, Timestamp::now(), &ready.name).await;
    if !link.commit().await {
        entry.leave();
        add(&counters.refused, 1);
        return None;
    }
    drop(link);
    add(&counters.commits, 1);
    let caller = Caller { owner, since };
    let begun = open(tap, means, offer, socket, ready, caller, &entry).await;
    Some((entry, begun))
}

fn socket(fd: OwnedFd) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(fd);
    socket.set_nonblocking(true)?;
    let socket = TcpStream::from_std(socket)?;
    // A failure here costs latency only.
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

/// Prepares and meanwhile tells the edge that we are alive. `None`: the edge is gone.
async fn prepare_visibly(
    tap: &Tap,
    means: &Means,
    offer: &Offer,
    socket: TcpStream,
    attribution: &Attributed,
    link: &Link,
) -> Option<Result<(TcpStream, Ready), Decline>> {
    let mut work = Box::pin(async {
        let ready = prepare(tap, means, offer, &socket, attribution).await;
        (socket, ready)
    });
    // Soon for the first time: from there on the edge's patience begins anew. Where all is near, it is
    // done before that, and there is nothing to tell.
    let every = tap.deps.limits.progress;
    let mut alive = interval_at(Moment::now() + every / FIRST_PROGRESS_PART, every);
    loop {
        tokio::select! {
            biased;
            (socket, ready) = &mut work => return Some(match ready {
                Ok(ready) => Ok((socket, ready)),
                Err(reason) => {
                    // Our copy first: after the answer the socket is the edge's alone.
                    drop(socket);
                    Err(reason)
                }
            }),
            _ = alive.tick() => if !link.progress() {
                return None;
            }
        }
    }
}

async fn prepare(
    tap: &Tap,
    means: &Means,
    offer: &Offer,
    socket: &TcpStream,
    attribution: &Attributed,
) -> Result<Ready, Decline> {
    if offer.secure {
        return secure::prepare(tap, means, offer, attribution).await;
    }
    let plain = offer.head.is_some()
        || (means.config.meter.is_plain(&offer.host, offer.port)
            && speaks(socket).await.map_err(|_| Decline::Internal)? != TLS_HANDSHAKE);
    if plain {
        prepare_plain(tap, means, offer, attribution).await
    } else {
        prepare_tls(tap, means, offer, socket, attribution).await
    }
}

/// The first byte; the edge offers nothing before there is one.
async fn speaks(socket: &TcpStream) -> io::Result<u8> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(first[0])
}

async fn prepare_plain(
    tap: &Tap,
    means: &Means,
    offer: &Offer,
    attribution: &Attributed,
) -> Result<Ready, Decline> {
    // The edge may have read a newer configuration than we, or an older one.
    if !means.cover(&offer.host) || !means.config.meter.is_plain(&offer.host, offer.port) {
        return Err(Decline::NotMetered);
    }
    let (upstream, host, port) = (&means.config.upstream, &*offer.host, offer.port);
    let by = upstream.http_proxy_for(host, port);
    let dialled = dial::dial_by(upstream, by, host, port, tap.deps.limits.dial);
    // Without a handshake it may be over, and its program gone, before anybody has looked whose it is.
    let (server, _) = tokio::join!(dialled, who(attribution, WHO_PLAIN));
    let server = server.map_err(|e| {
        slog::debug!(tap.deps.log, "cannot connect to a server";
            "host" => &offer.host, "error" => %e);
        Decline::DialFailed
    })?;
    let _ = server.set_nodelay(true);
    Ok(Ready { name: offer.host.clone(), way: Way::Plain(server) })
}

async fn prepare_tls(
    tap: &Tap,
    means: &Means,
    offer: &Offer,
    socket: &TcpStream,
    attribution: &Attributed,
) -> Result<Ready, Decline> {
    let limits = &tap.deps.limits;
    let hello = peek(socket, limits.hello).await.map_err(|e| match e {
        HelloError::NotTls | HelloError::Timeout | HelloError::Closed => Decline::NotTls,
        HelloError::Io(_) => Decline::Internal,
    })?;
    let name = hello.sni.clone().unwrap_or_else(|| offer.host.clone());
    if !means.cover(&name) || !means.config.meter.is_metered(&name, offer.port) {
        return Err(Decline::NotMetered);
    }
    if means.bypass.knows(&name) {
        let who = who(attribution, WHO_DEADLINE).await;
        if means.bypass.covers(&name, program(who.as_deref()), Instant::now()) {
            return Err(Decline::Bypassed);
        }
    }
    let place = Place { name: &name, port: offer.port, hello: &hello };
    if let Some(reason) = tap.unfit.reason(place, &means.trust, Instant::now()) {
        return Err(reason);
    }
    // It knows the roots of its start, so it would refuse what a later CA has signed.
    if !knows_signer(tap, &name, attribution).await {
        return Err(Decline::UnknownAuthority);
    }
    let upstream = provider(tap, means, offer, &hello, place).await?;
    let config = tap.deps.ca.load().server_config(&name, upstream.alpn.as_deref());
    let config = config.map_err(|e| {
        slog::debug!(tap.deps.log, "no certificate for a host"; "host" => &name, "error" => %e);
        Decline::Internal
    })?;
    Ok(Ready { name, way: Way::Tls { upstream, config } })
}

async fn provider(
    tap: &Tap,
    means: &Means,
    offer: &Offer,
    hello: &Hello,
    place: Place<'_>,
) -> Result<Upstream, Decline> {
    let target = Target {
        host: &offer.host,
        port: offer.port,
        dial_deadline: tap.deps.limits.dial,
        tls_deadline: tap.deps.limits.provider,
    };
    let connected = connect(&means.trust, &means.config.upstream, target, hello).await;
    let error = match connected {
        Ok(upstream) => {
            tap.unfit.forget(place);
            return Ok(upstream);
        }
        Err(e) => e,
    };
    slog::debug!(tap.deps.log, "cannot connect to a provider";
        "host" => target.host, "error" => %error);
    let reason = error.decline();
    if let UpstreamError::TlsTimeout = error {
        tap.unfit.note_silence(place, reason, &means.trust, Instant::now());
    } else if error.is_the_providers() {
        tap.unfit.note(place, reason, &means.trust, Instant::now());
    }
    Err(reason)
}

/// From here on the connection is ours. `None`: the client would not have us in between.
async fn open(
    tap: &Arc<Tap>,
    means: &Means,
    offer: Offer,
    socket: TcpStream,
    ready: Ready,
    caller: Caller,
    entry: &Entry,
) -> Option<Begun> {
    let (Ready { name, way }, Caller { owner, since }) = (ready, caller);
    let voucher = Arc::default();
    let (peers, alpn) = match way {
        Way::Plain(server) => {
            let (mut client, mut server) = (Plain::new(socket), Plain::new(server));
            if let Some(head) = offer.head {
                let head = head.into_bytes();
                server = server.with_gate(&head);
                client = client.with_request_head(head);
            }
            (Peers::Plain(Box::new(client), Box::new(server)), None)
        }
        Way::Secure(Upstream { tls, alpn }) => {
            let front = offer.head.map(RequestHead::into_bytes).unwrap_or_default();
            let server = Plain::over(tls).with_gate(&front);
            let client = Plain::new(socket).with_request_head(front);
            (Peers::Secure(Box::new(client), Box::new(server)), alpn)
        }
        Way::Tls { mut upstream, config } => {
            let before = has_left(&socket).await;
            let accept = TlsAcceptor::from(config).accept(socket);
            let client = match timeout(tap.deps.limits.handshake, accept).await {
                Ok(Ok(client)) => {
                    let mut client = Box::new(client);
                    judged(&mut client, &mut upstream.tls).await.map(|word| (client, word))
                }
                Ok(Err(e)) => Err(strike(&e)),
                Err(_) => Err(Strike::Vanished),
            };
            let tried = Tried { began: since, ended: Instant::now() };
            let (client, word) = match client {
                Ok(judged) => judged,
                // Tired of waiting for the provider, it has not seen our certificate.
                Err(Strike::Vanished | Strike::Closed) if before => return None,
                Err(strike) => {
                    rejected(tap, means, &name, strike, tried, &owner.who).await;
                    return None;
                }
            };
            if means.bypass.knows(&name) {
                let who = owner.who.borrow().clone();
                means.bypass.forgive(&name, program(who.as_deref()), tried.ended);
            }
            match word {
                Word::Spoke => vouch(tap, means, &name, tried, &owner.who, &voucher),
                Word::Silent => {}
            }
            (Peers::Tls(client, upstream.tls), upstream.alpn)
        }
    };
    let subject = Subject {
        entry: entry.clone(),
        host: name,
        port: offer.port,
        local: means.config.meter.is_local(&offer.host, offer.port),
        alpn,
        since: both_clocks(),
        clocks: |_| both_clocks(),
        attribution: owner.whole,
    };
    Some(Begun { peers, subject, sink: Arc::clone(&means.sink), voucher })
}

/// Moves the bytes and watches them until both sides have ended; when that was, if the client has aborted
/// an answer.
async fn pump_between<C: Peer, S: Peer>(
    tap: &Arc<Tap>,
    sink: Arc<dyn RowSink>,
    mut client: C,
    mut server: S,
    subject: Subject,
) -> Option<Instant> {
    let counters = tap.counters_of(&subject.host);
    let (mut feed, watch) = feed(&tap.budget, tap.deps.limits.observer_bytes, &tap.pulse);
    // Not aborted with this task: what it has seen becomes rows in any case.
    let observer = observe(watch, subject, sink, Arc::clone(&tap.deps.book), tap.make_follower);
    let observer = tap.observers.spawn(observer);
    let mut stage = tap.stage.subscribe();
    let ended = pump::run(&mut client, &mut server, &mut feed, &mut stage).await;
    let at = Instant::now();
    let closing = LastRows::new(tap);
    // Both sockets close before the observer has its last word.
    drop((client, server));
    add(&counters.bytes_up, ended.bytes_up);
    add(&counters.bytes_down, ended.bytes_down);
    let lossy = feed.is_lossy();
    drop(feed);
    let observed = observer.await.unwrap_or_default();
    drop(closing);
    note(tap, counters, observed, lossy);
    observed.aborted.then_some(at)
}

/// Counts a connection between its end and its last row.
struct LastRows<'a>(&'a Tap);

impl<'a> LastRows<'a> {
    fn new(tap: &'a Tap) -> Self {
        tap.counters.closing.fetch_add(1, Ordering::Relaxed);
        Self(tap)
    }
}

impl Drop for LastRows<'_> {
    fn drop(&mut self) {
        self.0.counters.closing.fetch_sub(1, Ordering::Relaxed);
    }
}

fn note(tap: &Tap, counters: &Counters, observed: Observed, lossy: bool) {
    add(&counters.exchanges, observed.exchanges);
    if lossy || observed.lossy.is_some() {
        add(&counters.lossy, 1);
        let reason = observed.lossy.map(|r| r.to_string()).unwrap_or_default();
        slog::warn!(tap.deps.log, "lost sight of a connection; its bytes went through";
            "reason" => reason);
    }
}

async fn who(attribution: &Attributed, deadline: Duration) -> Option<Arc<Attribution>> {
    let mut attribution = attribution.clone();
    let known = timeout(deadline, attribution.wait_for(Option::is_some)).await;
    known.ok()?.ok()?.clone()
}

fn both_clocks() -> (Timestamp, Instant) {
    (Timestamp::now(), Instant::now())
}

fn program(who: Option<&Attribution>) -> Option<&str> {
    who.and_then(|a| a.program.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, C, D, E, F>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_holds_a_small_task() {
        // Thousands may stay open: what only the handshakes need must not stay with them.
        assert!(size(serve) <= 1536, "{} bytes", size(serve));
    }
}
