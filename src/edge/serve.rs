//! One connection, from its first byte to its end.

use std::future::poll_fn;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use slog::Logger;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::answer::{establish, refuse, respond};
use super::cache::Health;
use super::client;
use super::connect::{Request, Target};
use super::extent::Answer;
use super::forward;
use super::guest;
use super::health::Cause;
use super::live::{Asked, Live, Metered, Passed, Place, Raw, Stage, Started};
use super::offer::Outcome;
use super::route::{self, OwnPorts, Reason, Route};
use super::secure::{self, Exchange};
use super::settings::Standing;
use super::spool::Spool;
use super::status::{self, Counters};
use super::tunnel::Tunnel;
use super::tunnels::Tunnels;
use super::upgrade;
use crate::config::{self, Config, UpstreamProxy};
use crate::dial::{self, DialError};
use crate::handover::{Decline, RequestHead};
use crate::home::Home;
use crate::notice;
use crate::platform;

/// A client that has not said what it wants by then is told so.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// Beyond the kernel's own limit, and those of the proxies on the way: what takes long without us does so
/// with us.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(300);
/// … for a client that has not left. One that says no more may still wait for its answer so long.
const UNWANTED: Duration = Duration::from_secs(30);
/// How long a connection waits for the descriptor that it needs (its own, or its provider's) until it is
/// told, and between two tries.
pub const SHORTAGE: Duration = Duration::from_secs(10);
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);

/// What every connection of an edge shares.
#[derive(Debug)]
pub struct Shared {
    pub home: Home,
    pub config: Arc<ArcSwap<Config>>,
    pub settings: Standing,
    pub edge_port: u16,
    pub health: Arc<Health>,
    pub spool: Spool,
    pub counters: Arc<Counters>,
    pub tunnels: Tunnels,
    pub live: Rc<Live>,
    pub upgrades: upgrade::Record,
    pub secure: secure::Secure,
    pub instance: Uuid,
    pub log: Logger,
}

impl Shared {
    fn own_ports(&self) -> OwnPorts {
        OwnPorts { edge: self.edge_port, api: self.config.load().daemon.api_port }
    }
}

/// Serves one client from the stage where it stands until it is a tunnel, or over. The big futures
/// are boxed, so that a client that takes its time costs little.
pub async fn serve(shared: Rc<Shared>, stage: Stage) {
    let open = shared.counters.open();
    let place = shared.live.enter(stage);
    if place.look(|stage| matches!(stage, Stage::Head(_) | Stage::Asked(_))) {
        Box::pin(begin(&shared, &place)).await;
    }
    if place.look(|stage| matches!(stage, Stage::Metered(_)))
        && poll_fn(|cx| place.poll_spoke(cx)).await
    {
        Box::pin(chain(&shared, &place)).await;
    }
    if let Stage::Tunnel(raw) = place.take() {
        shared.tunnels.add(*raw, open);
    }
}

/// Reads the request and answers it, or connects.
async fn begin(shared: &Shared, place: &Place) {
    if place.look(|stage| matches!(stage, Stage::Head(_))) {
        let read = timeout(HEAD_DEADLINE, poll_fn(|cx| place.poll_request(cx))).await;
        match read {
            Ok(Some((client, Ok(request)))) => {
                if request.target().is_none() {
                    let _moving = place.moving();
                    let body = told(shared, &request).await;
                    return respond(client, 200, "application/json", &body).await;
                }
                shared.counters.asked();
                place.set(Stage::Asked(Box::new(Asked { client, request })));
            }
            Ok(Some((client, Err(refusal)))) => {
                return refuse(client, refusal.status, refusal.why).await;
            }
            Ok(None) => return,
            Err(_) => {
                if let Stage::Head(head) = place.take() {
                    refuse(head.client, 408, "no request came").await;
                }
                return;
            }
        }
    }
    let asked = place.look(|stage| match stage {
        Stage::Asked(asked) => {
            asked.request.target().map(|target| (target.clone(), asked.request.how()))
        }
        Stage::Head(_) | Stage::Metered(_) | Stage::Tunnel(_) | Stage::Secure | Stage::Over => None,
    });
    let Some((target, how)) = asked else { return };
    let config = shared.config.load_full();
    if guest::would_borrow(&config.upstream, &target, how, || place.ends()).await {
        return turn_away(place, &target, &ConnectError::Guest).await;
    }
    match route::route(&config, shared.own_ports(), &target, how) {
        Route::Own => turn_away(place, &target, &ConnectError::Loop).await,
        Route::Metered => {
            // The probe runs while the client gets its answer and makes up its hello.
            shared.health.refresh();
            let started = Started::now();
            let Stage::Asked(asked) = place.take() else { return };
            let Ok((client, head)) = answer(*asked) else { return };
            place.set(Stage::Metered(Box::new(Metered { client, target, started, head, how })));
        }
        Route::Raw(reason) => {
            let passed = reason.map(|reason| Passed {
                target: target.clone(),
                started: Started::now(),
                reason,
            });
            match connect(shared, &target, how, &|| client::has_left(place)).await {
                Ok(server) => begin_tunnel(shared, place, server, &target, passed).await,
                Err(e) => turn_away(place, &target, &e).await,
            }
        }
    }
}

/// What who asks about ourselves is told.
async fn told(shared: &Shared, question: &Request) -> Vec<u8> {
    if *question == Request::Passing {
        return serde_json::to_vec(&shared.tunnels.passing()).unwrap_or_default();
    }
    // Who asks wants to know how it is now.
    let _ = shared.health.decide().await;
    status::document(shared)
}

/// The server is there: the client is told, or its request sent on.
async fn begin_tunnel(
    shared: &Shared,
    place: &Place,
    server: Server,
    target: &Target,
    passed: Option<Passed>,
) {
    let Stage::Asked(asked) = place.take() else { return };
    let how = asked.request.how();
    let Ok((client, head)) = answer(*asked) else { return };
    if let (route::Asked::Secure, Some(head)) = (how, head.as_ref()) {
        let exchange = Exchange { client, server: server.stream, target, head, offered: false };
        return over_tls(shared, place, exchange, passed).await;
    }
    let Ok(tunnel) = tunnel(client, server, head) else { return };
    tunnelled(shared, place, tunnel, passed).await;
}

/// Tells the client of a tunnel that it is there; of a request that is sent on there is the head.
fn answer(asked: Asked) -> io::Result<(TcpStream, Option<Vec<u8>>)> {
    let Asked { client, request } = asked;
    match request {
        Request::Forward { head, .. } => Ok((client, Some(head))),
        Request::Connect(_) | Request::Health | Request::Passing => {
            establish(&client).map(|()| (client, None))
        }
    }
}

/// Two sockets for a tunnel: the runtime has nothing to do with them any more. With the head of a
/// request that is forwarded.
fn tunnel(client: TcpStream, server: Server, head: Option<Vec<u8>>) -> io::Result<Tunnel> {
    let tunnel = Tunnel::new(client.into_std()?, server.stream.into_std()?);
    let head = head.map(|head| match server.proxy {
        Some(proxy) => forward::for_proxy(&head, proxy.authorization.as_deref()),
        None => head,
    });
    Ok(match head {
        Some(head) => {
            let answer = Answer::to(&head);
            tunnel.with_request_head(head).with_response_gate(answer)
        }
        None => tunnel,
    })
}

/// From here on it is a tunnel. One to a metered host is in the spool before its first byte: if we
/// are killed, it is accounted for.
async fn tunnelled(shared: &Shared, place: &Place, tunnel: Tunnel, passed: Option<Passed>) {
    let passed = passed.filter(is_traffic);
    let line = passed.as_ref().map(|passed| passed.line(None));
    shared.counters.raw();
    place.set(Stage::Tunnel(Box::new(Raw { tunnel, passed })));
    if let Some(line) = line {
        shared.spool.begin(line).await;
    }
}

/// A self-test is nobody's traffic.
fn is_traffic(passed: &Passed) -> bool {
    !config::is_selftest(&passed.target.host)
}

/// The same of a request whose server speaks TLS: this task moves its bytes, to their end.
async fn over_tls(shared: &Shared, place: &Place, exchange: Exchange<'_>, passed: Option<Passed>) {
    place.set(Stage::Secure);
    let target = exchange.target;
    // The client is not in its place any more, so its patience is the old one.
    let again =
        async { Some(connect(shared, target, route::Asked::Secure, &|| true).await.ok()?.stream) };
    Box::pin(secure::serve(shared, exchange, again, passed.filter(is_traffic))).await;
}

/// A metered connection of which nothing is gone yet: to the daemon if it is well, else raw.
async fn chain(shared: &Shared, place: &Place) {
    let Some((target, how)) = metered(place, |m| (m.target.clone(), m.how)) else { return };
    let left = || client::has_left(place);
    let mut dial = Box::pin(connect(shared, &target, how, &left));
    let mut dialled = None;
    let (reason, offered) = match shared.health.decide().await {
        Some(reason) => (reason, false),
        None => {
            let _moving = place.moving();
            let (outcome, ahead) = client::beside(offer(shared, place), dial.as_mut()).await;
            dialled = ahead;
            match outcome {
                Some(Ok(Outcome::Granted)) => {
                    // The daemon has it now; our copy closes here.
                    drop(place.take());
                    shared.counters.handed();
                    return;
                }
                Some(Ok(Outcome::Raw(reason))) => (reason, true),
                Some(Err(reason)) => (reason, false),
                None => (Reason::NoAnswer, true),
            }
        }
    };
    slog::debug!(shared.log, "raw"; "host" => &*target.host, "reason" => reason.as_str());
    let server = match dialled {
        Some(server) => server,
        None => dial.await,
    };
    let unsaid = reason == Reason::Declined(Decline::NotTls) && client::broke_off(place);
    let Stage::Metered(metered) = place.take() else { return };
    let Metered { client, target, started, head, how } = *metered;
    match server {
        Ok(Server { stream: server, .. }) if how == route::Asked::Secure => {
            let head = head.as_deref().unwrap_or_default();
            let passed = Some(Passed { target: target.clone(), started, reason });
            let exchange = Exchange { client, server, target: &target, head, offered };
            over_tls(shared, place, exchange, passed).await;
        }
        Ok(server) => {
            let Ok(tunnel) = tunnel(client, server, head) else { return };
            let tunnel = if offered { tunnel.shared_client() } else { tunnel };
            let passed = Some(Passed { target, started, reason }).filter(|_| !unsaid);
            tunnelled(shared, place, tunnel, passed).await;
        }
        // It ends the connection for whoever else holds a copy.
        Err(e) if head.is_some() => refuse_as(client, &target, how, &e).await,
        Err(e) => {
            // `200` is out: breaking off is all that can be said.
            slog::debug!(shared.log, "cannot connect"; "host" => &*target.host, "error" => %e);
            let _ = client.set_zero_linger();
            if offered {
                let _ = rustix::net::shutdown(&client, rustix::net::Shutdown::Both);
            }
        }
    }
}

async fn offer(shared: &Shared, place: &Place) -> Result<Outcome, Reason> {
    let lost = Reason::Daemon(Cause::ChannelLost);
    let link = shared.health.link().ok_or(lost)?;
    let outcome = metered(place, |m| {
        let (Ok(peer), Ok(local)) = (m.client.peer_addr(), m.client.local_addr()) else {
            return Err(lost);
        };
        let head = match &m.head {
            Some(head) => Some(RequestHead::new(head).ok_or(Reason::PlainHttp)?),
            None => None,
        };
        let secure = m.how == route::Asked::Secure;
        link.offer(m.started.id, &m.target, (peer, local), head, secure, m.client.as_fd())
    });
    Ok(outcome.ok_or(lost)??.await.unwrap_or(Outcome::Raw(lost)))
}

fn metered<T>(place: &Place, look: impl FnOnce(&Metered) -> T) -> Option<T> {
    place.look(|stage| match stage {
        Stage::Metered(metered) => Some(look(metered)),
        Stage::Head(_) | Stage::Asked(_) | Stage::Tunnel(_) | Stage::Secure | Stage::Over => None,
    })
}

/// Why a target was not connected to.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("this would lead back to the proxy itself")]
    Loop,
    #[error(
        "the log-in at the upstream proxy is another user's: take a proxy of your own, or that one \
         directly"
    )]
    Guest,
}

impl ConnectError {
    fn status(&self) -> u16 {
        match self {
            Self::Dial(e) => e.status(),
            Self::Loop => 508,
            Self::Guest => 403,
        }
    }

    /// The machine is there, and nobody listens.
    fn is_refusal(&self) -> bool {
        match self {
            Self::Dial(DialError::Connect(e)) => e.kind() == io::ErrorKind::ConnectionRefused,
            Self::Dial(_) | Self::Loop | Self::Guest => false,
        }
    }

    /// What the client is told; `nearby`: what more of a local network that there is no way to.
    fn told(&self, nearby: Option<&str>) -> String {
        match (self, nearby) {
            (Self::Dial(e), Some(why)) if e.is_no_way_nearby() => format!("{e}; {why}"),
            (Self::Dial(_) | Self::Loop | Self::Guest, _) => self.to_string(),
        }
    }
}

fn is_here(host: &str) -> bool {
    config::is_loopback(host) || config::is_own_name(host)
}

/// Who gets the client's bytes.
struct Server {
    stream: TcpStream,
    /// It is this one, and the request's head is for it.
    proxy: Option<UpstreamProxy>,
}

async fn connect(
    shared: &Shared,
    target: &Target,
    how: route::Asked,
    left: &dyn Fn() -> bool,
) -> Result<Server, ConnectError> {
    let config = shared.config.load_full();
    let own = shared.own_ports();
    let origin = notice::origin_for(&shared.home, &target.host).await;
    let proxy = match how {
        route::Asked::Forward if origin.is_none() => {
            config.upstream.forwards_to(&target.host, target.port)
        }
        route::Asked::Forward | route::Asked::Tunnel | route::Asked::Secure => None,
    };
    let end = Instant::now() + SHORTAGE;
    let (host, port) = (&*target.host, target.port);
    let dialled = loop {
        let dial = async {
            match (origin, proxy) {
                (Some(origin), _) => {
                    let connected = TcpStream::connect(origin).await;
                    connected.map(|stream| (stream, false)).map_err(DialError::Connect)
                }
                (None, Some(proxy)) => {
                    dial::dial_proxy(own, proxy, host, port, DIAL_DEADLINE).await
                }
                (None, None) => {
                    let by = match how {
                        route::Asked::Tunnel | route::Asked::Secure => {
                            config.upstream.proxy_for(host, port)
                        }
                        route::Asked::Forward => None,
                    };
                    let dialled = dial::dial_by(&config.upstream, by, host, port, DIAL_DEADLINE);
                    dialled.await.map(|stream| (stream, false))
                }
            }
        };
        match client::wanted(dial, UNWANTED, left).await {
            // The client has its `200`, or waits for it: better late than not at all.
            Err(e) if e.is_shortage() && Instant::now() < end => sleep(SHORTAGE_PAUSE).await,
            dialled => break dialled,
        }
    };
    if dialled.as_ref().is_err_and(DialError::is_no_way_nearby) {
        shared.counters.no_way_nearby();
    }
    let (stream, to_proxy) = dialled?;
    if shared.counters.local_network_failures() > 0
        && stream.peer_addr().is_ok_and(|peer| platform::is_local(peer.ip()))
    {
        shared.counters.reached_nearby();
    }
    // However the name was spelled or resolved; but to another port nothing leads back.
    let kept = origin.is_none() && config.upstream.keeps_port(&target.host, target.port);
    let back = |peer| own.leads_back(peer);
    if (own.has(target.port) || !kept) && stream.peer_addr().is_ok_and(back) {
        return Err(ConnectError::Loop);
    }
    Ok(Server { stream, proxy: proxy.filter(|_| to_proxy).cloned() })
}

async fn turn_away(place: &Place, target: &Target, error: &ConnectError) {
    if let Stage::Asked(asked) = place.take() {
        refuse_as(asked.client, target, asked.request.how(), error).await;
    }
}

async fn refuse_as(client: TcpStream, target: &Target, how: route::Asked, error: &ConnectError) {
    // Who waits for a server of this machine to come up would take any answer for that server's.
    if how != route::Asked::Tunnel && error.is_refusal() && is_here(&target.host) {
        let _ = rustix::net::shutdown(&client, rustix::net::Shutdown::Both);
        return;
    }
    refuse(client, error.status(), &error.told(platform::why_no_way_nearby())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_what_may_keep_us_from_its_network() {
        let no_way = || io::Error::from(rustix::io::Errno::HOSTUNREACH);
        let near = ConnectError::Dial(DialError::NoWayNearby(no_way()));
        let plain = near.to_string();
        assert_eq!(near.told(None), plain, "Linux");
        assert_eq!(near.told(Some("allow it")), format!("{plain}; allow it"));
        let far = ConnectError::Dial(DialError::Connect(no_way()));
        assert_eq!(far.told(Some("allow it")), plain);
        assert_eq!(ConnectError::Loop.told(Some("allow it")), ConnectError::Loop.to_string());
    }
}
