//! The workers: each does one kind of traffic until it is told to stop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::client::{self, Connection, PATIENCE, Trust};
use crate::http2;
use crate::oracle::{Fault, Route, Stage};
use crate::origin::websocket::{CLOSE, Frame};
use crate::record::{Failed, Kind, Record, Try};
use crate::schedule::Random;

pub const METERED: &str = "api.anthropic.com";
pub const RAW: &str = "files.example.org";
const BINARY: u8 = 2;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Between two parts of a slow stream.
    pub part: Duration,
    /// Of a big body.
    pub bulk: usize,
}

/// What the workers share.
#[derive(Debug)]
pub struct World {
    pub record: Record,
    pub edge: SocketAddr,
    /// The provider, without us.
    pub provider: SocketAddr,
    pub plain: SocketAddr,
    pub trust: Trust,
    pub load: Load,
    pub stop: AtomicBool,
    pub connections: AtomicU64,
}

impl World {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Starts them all; call within a runtime.
pub fn start(world: &Arc<World>, seed: u64) -> Vec<JoinHandle<()>> {
    use Kind as K;
    let mut workers = Vec::new();
    let mut spawn = |kind: Kind, metered: bool| {
        let random = Random::new(seed.wrapping_mul(1000).wrapping_add(workers.len() as u64));
        workers.push(tokio::spawn(work(Arc::clone(world), kind, metered, random)));
    };
    for kind in [K::New, K::KeepAlive, K::Slow, K::Upload, K::Download, K::WebSocket, K::Http2] {
        spawn(kind, true);
        spawn(kind, false);
    }
    // The most telling ones.
    spawn(K::New, true);
    spawn(K::Slow, true);
    spawn(K::Plain, false);
    spawn(K::Direct, false);
    workers
}

async fn work(world: Arc<World>, kind: Kind, metered: bool, mut random: Random) {
    while !world.stopped() {
        match kind {
            Kind::Plain => plain(&world, &mut random).await,
            Kind::New => requests(&world, kind, metered, 1, &mut random).await,
            Kind::KeepAlive => {
                let count = 5 + random.below(40);
                requests(&world, kind, metered, count, &mut random).await;
            }
            Kind::Slow | Kind::Upload | Kind::Download | Kind::Direct => {
                requests(&world, kind, metered, 1, &mut random).await;
            }
            Kind::WebSocket => websocket(&world, metered, &mut random).await,
            Kind::Http2 => http2::multiplexed(&world, metered, &mut random).await,
        }
        sleep(pause(kind, &mut random)).await;
    }
}

fn pause(kind: Kind, random: &mut Random) -> Duration {
    match kind {
        Kind::New => random.millis(10, 120),
        Kind::Plain => random.millis(50, 200),
        Kind::Direct => random.millis(100, 300),
        Kind::KeepAlive | Kind::Slow | Kind::WebSocket | Kind::Http2 => random.millis(10, 300),
        Kind::Upload | Kind::Download => random.millis(1_000, 4_000),
    }
}

/// A connection's part of the record.
pub struct Session<'a> {
    pub world: &'a World,
    kind: Kind,
    metered_host: bool,
    id: u64,
    opened: Duration,
    route: Route,
    fresh: bool,
}

impl<'a> Session<'a> {
    fn begin(world: &'a World, kind: Kind, metered_host: bool) -> Self {
        let id = world.connections.fetch_add(1, Ordering::Relaxed);
        let opened = world.record.now();
        Self { world, kind, metered_host, id, opened, route: Route::Unknown, fresh: true }
    }

    pub async fn open(
        world: &'a World,
        kind: Kind,
        metered_host: bool,
    ) -> Option<(Self, Connection)> {
        let mut session = Self::begin(world, kind, metered_host);
        let host = if metered_host { METERED } else { RAW };
        let opened = if kind == Kind::Direct {
            client::open_direct(world.provider, host, &world.trust).await
        } else {
            client::open(world.edge, host, &world.trust, kind == Kind::Http2).await
        };
        match opened {
            Ok(connection) => {
                session.route = connection.route;
                Some((session, connection))
            }
            Err(failed) => {
                session.note(session.opened, Err(failed));
                None
            }
        }
    }

    /// `Ok`: bytes of content, and the provider's name for the request.
    pub fn note(&self, started: Duration, result: Result<(u64, Option<String>), Failed>) {
        let (bytes, request_id, failed) = match result {
            Ok((bytes, id)) => (bytes, id, None),
            Err(failed) => (0, None, Some(failed)),
        };
        self.world.record.push(Try {
            kind: self.kind,
            metered_host: self.metered_host,
            route: self.route,
            connection: self.id,
            fresh: self.fresh,
            opened: self.opened,
            started,
            ended: self.world.record.now(),
            bytes,
            request_id,
            failed,
        });
    }

    pub fn used(&mut self) {
        self.fresh = false;
    }

    pub fn host(&self) -> &'static str {
        if self.metered_host { METERED } else { RAW }
    }
}

/// One connection with `count` requests, one after the other.
async fn requests(world: &World, kind: Kind, metered: bool, count: u64, random: &mut Random) {
    let Some((mut session, mut connection)) = Session::open(world, kind, metered).await else {
        return;
    };
    for _ in 0..count {
        let request = request(&session, kind, random);
        let started = world.record.now();
        let result = client::exchange(&mut connection.io, &request).await;
        let over = result.is_err() || world.stopped();
        // Only what is asked of a model becomes a row by which it is found.
        let model = !matches!(kind, Kind::Upload | Kind::Download);
        let result = result
            .map(|a| (a.body.len() as u64 + request.len() as u64, a.request_id.filter(|_| model)));
        session.note(started, result);
        session.used();
        if over {
            break;
        }
        if kind == Kind::KeepAlive {
            sleep(random.millis(5, 120)).await;
        }
    }
    let _ = timeout(PATIENCE, connection.io.get_mut().shutdown()).await;
}

fn request(session: &Session<'_>, kind: Kind, random: &mut Random) -> Vec<u8> {
    let host = session.host();
    let part = session.world.load.part.as_millis();
    match kind {
        Kind::Download => {
            let size =
                session.world.load.bulk as u64 / 2 + random.below(session.world.load.bulk as u64);
            format!("GET /blob?bytes={size} HTTP/1.1\r\nHost: {host}\r\nx-origin: [[sum]]\r\n\r\n")
                .into_bytes()
        }
        Kind::Upload => {
            let size =
                session.world.load.bulk / 4 + random.below(session.world.load.bulk as u64) as usize;
            post(host, "/echo", "[[sum]]", &noise(random, size))
        }
        Kind::Slow if random.below(2) == 0 => {
            let directives = format!("[[sum slow={part} framing=close]]");
            post(host, "/v1/messages", &directives, messages(true, random).as_bytes())
        }
        Kind::Slow => {
            let directives = format!("[[sum slow={part}]]");
            post(host, "/v1/messages", &directives, messages(true, random).as_bytes())
        }
        Kind::New
        | Kind::KeepAlive
        | Kind::WebSocket
        | Kind::Http2
        | Kind::Plain
        | Kind::Direct => post(host, "/v1/messages", "[[sum]]", messages(false, random).as_bytes()),
    }
}

pub fn messages(stream: bool, random: &mut Random) -> String {
    format!(
        r#"{{"model":"claude-sonnet-4-5-20250929","max_tokens":64,"stream":{stream},"messages":[{{"role":"user","content":"storm {:x}"}}]}}"#,
        random.next()
    )
}

fn post(host: &str, path: &str, directives: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: dummy-key\r\ncontent-type: application/json\r\n\
         x-origin: {directives}\r\ncontent-length: {}\r\n\r\n",
        body.len(),
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A piece of noise; big ones repeat themselves after a mebibyte and a bit.
fn noise(random: &mut Random, size: usize) -> Vec<u8> {
    static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut random = Random::new(1);
        std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(1_048_583).collect()
    });
    let from = random.below(BLOCK.len() as u64) as usize;
    let mut bytes = BLOCK[from..].to_vec();
    while bytes.len() < size {
        bytes.extend_from_slice(&BLOCK);
    }
    bytes.truncate(size);
    bytes
}

/// Absolute form to the plain origin, a connection each.
async fn plain(world: &World, random: &mut Random) {
    let mut session = Session::begin(world, Kind::Plain, false);
    let authority = world.plain.to_string();
    let body = noise(random, 10_000);
    let request = post(&authority, &format!("http://{authority}/echo"), "[[sum]]", &body);
    let connected = timeout(PATIENCE, TcpStream::connect(world.edge)).await;
    let result = match connected {
        Err(_) => Err(Failed::timeout(Stage::Connect)),
        Ok(Err(e)) => Err(Failed::io(Stage::Connect, &e)),
        Ok(Ok(tcp)) => {
            session.route = Route::Raw;
            client::exchange(&mut BufReader::new(tcp), &request).await
        }
    };
    session.note(session.opened, result.map(|a| (a.body.len() as u64, None)));
}

/// One session of echoed messages, as one request of the record.
async fn websocket(world: &World, metered: bool, random: &mut Random) {
    let kind = Kind::WebSocket;
    let Some((session, mut connection)) = Session::open(world, kind, metered).await else {
        return;
    };
    let started = world.record.now();
    let mut silent = true;
    let talk = talk(world, &mut connection, session.host(), &mut silent, random);
    let result = match timeout(PATIENCE * 2, talk).await {
        Ok(result) => result,
        Err(_) => Err(Failed::timeout(Stage::Exchange)),
    };
    session.note(started, result.map(|bytes| (bytes, None)).map_err(|f| Failed { silent, ..f }));
}

async fn talk(
    world: &World,
    connection: &mut Connection,
    host: &str,
    silent: &mut bool,
    random: &mut Random,
) -> Result<u64, Failed> {
    let failed = |e: std::io::Error| Failed::io(Stage::Exchange, &e);
    let io = &mut connection.io;
    let head = format!(
        "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    io.get_mut().write_all(head.as_bytes()).await.map_err(failed)?;
    let answer = client::read_head(io, silent).await.map_err(failed)?;
    if !answer.first().is_some_and(|l| l.contains(" 101 ")) {
        return Err(Failed::new(Stage::Exchange, Fault::Wrong, format!("{answer:?}")));
    }
    let mut bytes = 0;
    for round in 0..=10 + random.below(40) {
        let last = round >= 10 && world.stopped();
        let size = [0, 5, 125, 126, 4_000, 70_000][random.below(6) as usize];
        let frame = Frame { opcode: BINARY, payload: noise(random, size) };
        send(connection, &frame, random).await?;
        bytes += 2 * size as u64;
        if last {
            break;
        }
        sleep(random.millis(20, 200)).await;
    }
    send(connection, &Frame { opcode: CLOSE, payload: vec![3, 232] }, random).await?;
    Ok(bytes)
}

/// Sends one and hears the same.
async fn send(
    connection: &mut Connection,
    frame: &Frame,
    random: &mut Random,
) -> Result<(), Failed> {
    let failed = |e: std::io::Error| Failed::io(Stage::Exchange, &e);
    let mask = (random.next() as u32).to_be_bytes();
    let io = &mut connection.io;
    io.get_mut().write_all(&frame.encode(Some(mask))).await.map_err(failed)?;
    io.get_mut().flush().await.map_err(failed)?;
    let echo = Frame::read(io).await.map_err(failed)?;
    if echo != *frame {
        let text = format!("{} bytes back for {}", echo.payload.len(), frame.payload.len());
        return Err(Failed::new(Stage::Exchange, Fault::Wrong, text));
    }
    Ok(())
}
