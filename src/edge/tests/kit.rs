//! The world that the tests of the edge run in, and the fake daemon.

use std::cell::Cell;

use super::*;

pub(super) const HOST: &str = "api.anthropic.com:443";
pub(super) const HELLO: &[u8] = b"\x16\x03\x01\x00\x05hello";
pub(super) const MS: Duration = Duration::from_millis(1);

/// An edge, an origin that metered and plain targets lead to, and what a daemon would need.
pub(super) struct World {
    pub(super) home: Home,
    pub(super) edge: Rc<Edge>,
    pub(super) addr: std::net::SocketAddr,
    pub(super) origin: TcpListener,
    pub(super) api: Option<TcpListener>,
}

/// Runs a test within a fresh world.
pub(super) async fn in_world<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    in_world_of("", test).await;
}

/// The same with more lines in the daemon's settings.
pub(super) async fn in_world_of<F: Future<Output = ()>>(
    daemon: &str,
    test: impl FnOnce(World) -> F,
) {
    LocalSet::new()
        .run_until(async {
            let dir = tempfile::tempdir().unwrap();
            let home = Home::at(dir.path().join("h"));
            home.create().unwrap();
            let origin = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = origin.local_addr().unwrap();
            let text = format!(
                "[daemon]\napi_port = {}\n{daemon}\n[upstream]\n\
                 connect = {{ \"{HOST}\" = \"{target}\", \"plain.example:80\" = \"{target}\", \
                 \"gpu-box:11434\" = \"{target}\" }}\n",
                api.local_addr().unwrap().port(),
            );
            let loaded = config::load_from(Some((&home.config_file(), &text)), |_| None, &[]);
            assert_eq!(loaded.problems, []);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let log = Logger::root(slog::Discard, slog::o!());
            let start = Start::default();
            let edge = Edge::start(&home, loaded, &listener, Journal::disabled(), start, log);
            let edge = edge.unwrap();
            edge.accept(&Rc::new(listener));
            let edge = Rc::new(edge);
            test(World { home, edge, addr, origin, api: Some(api) }).await;
        })
        .await;
}

impl World {
    /// A daemon that is well: `/health` says so, and the control socket is there.
    pub(super) fn daemon(&mut self) -> Daemon {
        let instance = Uuid::new_v4();
        let api = self.api.take().unwrap();
        let probes = Rc::new(Cell::new(0));
        let counted = answer_health(api, instance, "ok", Rc::clone(&probes));
        let health = tokio::task::spawn_local(counted);
        let socket = UnixListener::bind(self.home.control_socket()).unwrap();
        Daemon { instance, health, socket, probes }
    }

    /// Sends `CONNECT` and reads the `200`.
    pub(super) async fn connect(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.addr).await.unwrap();
        client.write_all(format!("CONNECT {HOST} HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; ESTABLISHED.len()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, ESTABLISHED);
        client
    }

    pub(super) async fn hello(&self) -> TcpStream {
        let mut client = self.connect().await;
        client.write_all(HELLO).await.unwrap();
        client
    }

    /// Everything works end to end between this client and the origin, from the hello on.
    pub(super) async fn assert_raw(&self, client: &mut TcpStream) {
        let (mut server, _) = self.origin.accept().await.unwrap();
        still(async {
            let mut got = vec![0; HELLO.len()];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(got, HELLO);
            server.write_all(b"from the origin").await.unwrap();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"from the origin");
        })
        .await;
        client.shutdown().await.unwrap();
    }

    pub(super) async fn exchange(&self, request: &[u8]) -> String {
        let mut client = TcpStream::connect(self.addr).await.unwrap();
        client.write_all(request).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(super) async fn status(&self) -> serde_json::Value {
        let answer = self.exchange(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    pub(super) fn verdict(&self) -> health::Verdict {
        self.edge.shared.health.look().0
    }

    /// The lines of tunnels that ended, once there are `count`.
    pub(super) async fn spooled(&self, count: usize) -> Vec<spool::Line<String>> {
        loop {
            let text = std::fs::read_to_string(self.home.passthrough_spool()).unwrap_or_default();
            let lines = text.lines().map(|l| serde_json::from_str::<spool::Line<_>>(l).unwrap());
            let ended: Vec<_> = lines.filter(|l| l.end.is_some()).collect();
            if ended.len() >= count {
                return ended;
            }
            sleep(MS).await;
        }
    }
}

/// Time stands still meanwhile: the thread that serves the tunnels is no task, so the paused clock
/// would run ahead of it.
#[expect(
    clippy::disallowed_methods,
    reason = "the clock stands still as long as one of these runs"
)]
pub(super) async fn still<T>(work: impl Future<Output = T>) -> T {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let hold = tokio::task::spawn_blocking(move || held.recv());
    let result = work.await;
    drop(release);
    let _ = hold.await;
    result
}

pub(super) const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

pub(super) struct Daemon {
    pub(super) instance: Uuid,
    pub(super) health: JoinHandle<()>,
    pub(super) socket: UnixListener,
    /// How often its health was asked for.
    pub(super) probes: Rc<Cell<u32>>,
}

impl Daemon {
    pub(super) async fn accept(&self) -> DaemonChannel {
        self.accept_as(self.instance).await
    }

    pub(super) async fn accept_as(&self, instance: Uuid) -> DaemonChannel {
        let (stream, _) = self.socket.accept().await.unwrap();
        let mut channel: DaemonChannel = Channel::from_stream(stream).unwrap();
        let hello = channel.recv().await.unwrap().unwrap().0;
        assert_eq!(hello, ToDaemon::Hello { version: VERSION, pid: std::process::id() });
        let hello = ToEdge::Hello { version: VERSION, pid: 1, instance };
        channel.send(&hello, None).await.unwrap();
        channel
    }
}

pub(super) async fn answer_health(
    api: TcpListener,
    instance: Uuid,
    status: &'static str,
    probes: Rc<Cell<u32>>,
) {
    loop {
        let (mut stream, _) = api.accept().await.unwrap();
        probes.set(probes.get() + 1);
        let _ = stream.read(&mut [0; 1024]).await;
        let body = format!(r#"{{"status":"{status}","instance":"{instance}"}}"#);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

pub(super) async fn next_offer(channel: &mut DaemonChannel) -> (Offer, OwnedFd) {
    match channel.recv().await.unwrap().unwrap() {
        (ToDaemon::Offer(offer), Some(fd)) => (offer, fd),
        other => panic!("{other:?}"),
    }
}

pub(super) async fn verdict(channel: &mut DaemonChannel) -> (OfferId, bool) {
    match channel.recv().await.unwrap().unwrap().0 {
        ToDaemon::Verdict { id, granted } => (id, granted),
        other @ (ToDaemon::Hello { .. } | ToDaemon::Offer(_)) => panic!("{other:?}"),
    }
}

pub(super) fn socket(fd: OwnedFd) -> TcpStream {
    TcpStream::from_std(fd.into()).unwrap()
}
