//! A scripted edge, an origin with a CA of its own, and a ledger that only remembers.

mod origin;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::{TlsConnector, client};
use uuid::Uuid;

pub(super) use origin::Origin;

use super::super::*;
use crate::config::{self, ConnectRule, HostPattern};
use crate::handover::{Decline, Offer, OfferId};
use crate::meter::row::Row;

pub(super) type Client = client::TlsStream<TcpStream>;
pub(super) type Handshake = JoinHandle<io::Result<Client>>;
const PATIENCE: Duration = Duration::from_secs(30);

/// Repeatable noise.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

/// Cuts data at odd places.
pub(super) fn pieces(seed: u64, mut data: &[u8]) -> Vec<&[u8]> {
    let sizes = noise(seed, 4096);
    let mut out = Vec::new();
    for size in sizes.iter().cycle() {
        let scale = [1, 7, 190, 997][usize::from(size & 3)];
        let (head, tail) = data.split_at((usize::from(*size) * scale + 1).min(data.len()));
        out.push(head);
        data = tail;
        if data.is_empty() {
            return out;
        }
    }
    out
}

/// Remembers rows in the order they came.
#[derive(Debug, Default)]
pub(super) struct Rows {
    rows: Mutex<Vec<Row>>,
    news: Notify,
    full: AtomicBool,
}

impl RowSink for Rows {
    fn record(&self, row: Row) {
        self.rows.lock().unwrap().push(row);
        self.news.notify_waiters();
    }
    fn accepts(&self) -> bool {
        !self.full.load(Ordering::SeqCst)
    }
}

impl Rows {
    pub(super) fn refuse(&self) {
        self.full.store(true, Ordering::SeqCst);
    }

    pub(super) fn all(&self) -> Vec<Row> {
        self.rows.lock().unwrap().clone()
    }

    /// As the ledger would hold them: the last writing of each id.
    pub(super) fn final_rows(&self) -> Vec<Row> {
        let mut out: Vec<Row> = Vec::new();
        for row in self.all() {
            match out.iter_mut().find(|r| r.id == row.id) {
                Some(old) => *old = row,
                None => out.push(row),
            }
        }
        out
    }

    pub(super) fn last(&self) -> Row {
        self.final_rows().pop().expect("a row")
    }

    /// Waits until the ledger holds what is wanted.
    pub(super) async fn wait(&self, enough: impl Fn(&[Row]) -> bool) {
        let wait = async {
            loop {
                let news = self.news.notified();
                if enough(&self.final_rows()) {
                    return;
                }
                news.await;
            }
        };
        timeout(PATIENCE, wait).await.expect("rows in time");
    }
}

/// What the edge hears about an offer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    Progress,
    Commit,
    Decline(Decline),
}

/// A client's connection that was offered; both ends of it.
pub(super) struct Offered {
    id: OfferId,
    client: Option<TcpStream>,
    edge: Option<TcpStream>,
}

impl Offered {
    /// The next word about this offer.
    pub(super) async fn next(&mut self, world: &mut World) -> Answer {
        let (id, answer) = world.hear().await;
        assert_eq!(id, self.id);
        answer
    }

    /// The next word that is not "still at it".
    pub(super) async fn answer(&mut self, world: &mut World) -> Answer {
        loop {
            match world.hear().await {
                (id, answer) if id == self.id && answer != Answer::Progress => return answer,
                _ => {}
            }
        }
    }

    /// The client closes its connection, and the edge's copy of the other end is gone too.
    pub(super) fn leave(&mut self) {
        drop((self.client.take(), self.edge.take()));
    }

    /// What still lies in the socket, by the edge's copy.
    pub(super) async fn unread(&mut self) -> Vec<u8> {
        let edge = self.edge.as_ref().unwrap();
        edge.readable().await.unwrap();
        let mut buffer = vec![0; 65536];
        let n = edge.try_read(&mut buffer).unwrap();
        buffer.truncate(n);
        buffer
    }
}

pub(super) struct World {
    pub tap: Arc<Tap>,
    pub rows: Arc<Rows>,
    home: Home,
    _dir: tempfile::TempDir,
    edge: EdgeChannel,
    accepting: JoinHandle<io::Result<()>>,
    next: OfferId,
    client_config: ClientConfig,
    resumption: rustls::client::Resumption,
    draining: bool,
}

impl World {
    pub(super) async fn new(origin: &Origin) -> Self {
        Self::with(origin, |_| {}, follower).await
    }

    pub(super) async fn with(
        origin: &Origin,
        adjust: impl FnOnce(&mut TapDeps),
        make: MakeFollower,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("h"));
        home.create().unwrap();
        let extra = dir.path().join("origin.pem");
        std::fs::write(&extra, &origin.ca_pem).unwrap();
        let hosts = vec![HostPattern::parse("api.example.com").unwrap()];
        let mut config = config::load_from(None, |_| None, &[]).config;
        let log = Logger::root(slog::Discard, slog::o!());
        let ca = Ca::load_or_create(&home, &hosts, &log).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca.certificate().clone()).unwrap();
        config.meter.hosts = hosts;
        config.upstream.connect =
            vec![ConnectRule::parse("*:443", &origin.addr.to_string()).unwrap()];
        let rows = Arc::new(Rows::default());
        let mut deps = TapDeps {
            home: home.clone(),
            instance: Uuid::now_v7(),
            canary: None,
            config: Arc::new(ArcSwap::from_pointee(config)),
            ca: Arc::new(ArcSwap::from_pointee(ca)),
            trust: Arc::new(ArcSwap::from_pointee(Trust::load(&home, Some(&extra)))),
            sink: rows.clone(),
            book: Arc::new(ArcSwap::from(Book::builtin())),
            register: Register::none(),
            bypass: Arc::default(),
            limits: Limits { progress: Duration::from_millis(10), ..Limits::default() },
            log,
        };
        adjust(&mut deps);
        let tap = Tap::with_follower(deps, make).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(home.control_socket()).unwrap();
        let accepting = tokio::spawn(Arc::clone(&tap).serve(listener));
        let edge = Self::dial(&home).await;
        let client_config = client_config(roots);
        let resumption = rustls::client::Resumption::in_memory_sessions(8);
        Self {
            tap,
            rows,
            home,
            _dir: dir,
            edge,
            accepting,
            next: 1,
            client_config,
            resumption,
            draining: false,
        }
    }

    async fn dial(home: &Home) -> EdgeChannel {
        let mut edge = EdgeChannel::connect(&home.control_socket()).await.unwrap();
        edge.send(&ToDaemon::Hello { version: VERSION, pid: 1 }, None).await.unwrap();
        let hello = timeout(PATIENCE, edge.recv()).await.unwrap().unwrap();
        assert!(matches!(hello, Some((ToEdge::Hello { version: VERSION, .. }, _))));
        edge
    }

    async fn hear(&mut self) -> (OfferId, Answer) {
        loop {
            let message = timeout(PATIENCE, self.edge.recv()).await.expect("an answer in time");
            match message.unwrap().expect("the channel is up").0 {
                ToEdge::Progress { id } => return (id, Answer::Progress),
                ToEdge::Commit { id } => return (id, Answer::Commit),
                ToEdge::Decline { id, reason } => return (id, Answer::Decline(reason)),
                ToEdge::Draining => self.draining = true,
                ToEdge::Hello { .. } | ToEdge::Canary => {}
            }
        }
    }

    pub(super) async fn heard_draining(&mut self) -> bool {
        while !self.draining {
            let message = timeout(PATIENCE, self.edge.recv()).await.unwrap().unwrap();
            self.draining = matches!(message, Some((ToEdge::Draining, _)));
        }
        true
    }

    pub(super) async fn verdict(&mut self, offered: &Offered, granted: bool) {
        self.edge.send(&ToDaemon::Verdict { id: offered.id, granted }, None).await.unwrap();
    }

    /// The edge is gone, and another one comes.
    pub(super) async fn hang_up(&mut self) {
        self.edge = Self::dial(&self.home).await;
    }

    pub(super) async fn stop_accepting(&mut self) {
        self.accepting.abort();
        let _ = (&mut self.accepting).await;
        let _ = std::fs::remove_file(self.home.control_socket());
    }

    /// A client that has sent its hello for `name`.
    pub(super) async fn offer(&mut self, name: &str, alpn: &[&str]) -> Offered {
        let hello = hello(self.client_config.clone(), name, alpn);
        self.offer_bytes(&hello).await
    }

    pub(super) async fn offer_bytes(&mut self, bytes: &[u8]) -> Offered {
        let mut offered = self.offer_socket().await;
        offered.client.as_mut().unwrap().write_all(bytes).await.unwrap();
        offered
    }

    async fn offer_socket(&mut self) -> Offered {
        let (client, edge) = self.sockets().await;
        self.offer_these(client, edge).await
    }

    /// A client's connection, both ends.
    pub(super) async fn sockets(&self) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    pub(super) async fn offer_these(&mut self, client: TcpStream, edge: TcpStream) -> Offered {
        let offer = Offer {
            id: self.next,
            connection: Uuid::now_v7(),
            host: "api.example.com".to_owned(),
            port: 443,
            client: edge.peer_addr().unwrap(),
            local: edge.local_addr().unwrap(),
            head: None,
            secure: false,
        };
        self.next += 1;
        let id = offer.id;
        self.edge.send(&ToDaemon::Offer(offer), Some(edge.as_fd())).await.unwrap();
        Offered { id, client: Some(client), edge: Some(edge) }
    }

    /// A metered connection, from hello to handshake.
    pub(super) async fn connect(&mut self, name: &str, alpn: &[&str]) -> io::Result<Client> {
        let mut config = self.client_config.clone();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config.resumption = self.resumption.clone();
        self.connect_with(config, name).await
    }

    pub(super) async fn connect_distrusting(&mut self, name: &str) -> io::Result<Client> {
        let mut roots = RootCertStore::empty();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        roots.add(CertificateDer::from(params.self_signed(&key).unwrap())).unwrap();
        self.connect_with(client_config(roots), name).await
    }

    async fn connect_with(&mut self, config: ClientConfig, name: &str) -> io::Result<Client> {
        let (offered, handshake) = self.ask(config, name).await;
        self.verdict(&offered, true).await;
        timeout(PATIENCE, handshake).await.expect("a handshake in time").unwrap()
    }

    /// As far as the question whether the connection may be taken; the edge's copy is gone.
    pub(super) async fn asked(&mut self, name: &str) -> (Offered, Handshake) {
        self.ask(self.client_config.clone(), name).await
    }

    async fn ask(&mut self, config: ClientConfig, name: &str) -> (Offered, Handshake) {
        let mut offered = self.offer_socket().await;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tcp = offered.client.take().unwrap();
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
        let handshake = tokio::spawn(handshake);
        assert_eq!(offered.answer(self).await, Answer::Commit);
        drop(offered.edge.take());
        (offered, handshake)
    }

    /// What no edge sends: it breaks the channel.
    pub(super) async fn offer_nothing(&mut self) {
        let addr = "127.0.0.1:1".parse().unwrap();
        let offer = Offer {
            id: self.next,
            connection: Uuid::nil(),
            host: "api.example.com".to_owned(),
            port: 443,
            client: addr,
            local: addr,
            head: None,
            secure: false,
        };
        self.edge.send(&ToDaemon::Offer(offer), None).await.unwrap();
    }

    /// Waits until the daemon says nothing more.
    pub(super) async fn hung_up(&mut self) {
        let rest = async { while self.edge.recv().await.unwrap().is_some() {} };
        timeout(PATIENCE, rest).await.expect("an end in time");
    }

    /// Waits for a state of the tap that no event tells of.
    pub(super) async fn wait(&self, enough: impl Fn(&TapSnapshot) -> bool) {
        let wait = async {
            while !enough(&self.tap.snapshot()) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the tap gets there");
    }

    /// Waits until no connection is open and every row is written.
    pub(super) async fn idle(&self) {
        let mut open = self.tap.open.subscribe();
        timeout(PATIENCE, open.wait_for(|n| *n == 0)).await.expect("idle in time").unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn client_config(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

pub(super) fn hello(mut config: ClientConfig, name: &str, alpn: &[&str]) -> Vec<u8> {
    config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}
