//! The daemon as a whole, in this process: a temporary home, free ports, orders by channel.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::actors::ask;
use crate::supervisor;

struct Running {
    orders: UnboundedSender<Order>,
    thread: std::thread::JoinHandle<Exit>,
    home: Home,
    api: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn start_at(api_port: u16, prepare: impl FnOnce(&Home)) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::at(dir.path().join("h"));
    home.create().unwrap();
    prepare(&home);
    let file = home.config_file();
    let edge = std::iter::repeat_with(free_port).find(|port| *port != api_port).unwrap();
    let text = format!("[daemon]\napi_port = {api_port}\n[edge]\nport = {edge}\n");
    std::fs::write(&file, text).unwrap();
    let config = config::load(&file, &[]);
    assert!(config.problems.is_empty(), "{:?}", config.problems);
    let api = config.config.daemon.api_addr();
    let (orders, receive) = unbounded_channel();
    let told = orders.clone();
    let log = crate::log::silent();
    let opts = DaemonOptions { home: home.clone(), config, log, service: false };
    let thread =
        std::thread::spawn(move || actix::System::new().block_on(run(opts, None, told, receive)));
    Running { orders, thread, home, api, _dir: dir }
}

fn start() -> Running {
    start_at(free_port(), |_| {})
}

impl Running {
    fn ask(&self, path: &str) -> Option<(u16, Value)> {
        let asked = ask::get(self.api, path, Duration::from_secs(5));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(asked).ok()
    }

    /// Asks `/health` until it answers as wished. The harness's own deadline ends a hopeless wait.
    fn wait_for(&self, wish: impl Fn(u16, &Value) -> bool) -> Value {
        loop {
            assert!(!self.thread.is_finished(), "the daemon ended");
            match self.ask("/health") {
                Some((status, body)) if wish(status, &body) => return body,
                Some(_) | None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    fn stop(self) -> Exit {
        self.orders.send(Order::Stop).unwrap();
        self.thread.join().unwrap()
    }
}

fn is_private(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().mode() & 0o077 == 0
}

#[test]
fn comes_up_healthy_and_ends_in_order() {
    let daemon = start();
    let body = daemon.wait_for(|status, _| status == 200);
    assert_eq!(body["pid"], std::process::id());
    assert!(is_private(&daemon.home.token_file()));
    assert!(is_private(&daemon.home.control_socket()));
    // Not without the token.
    assert_eq!(daemon.ask("/v1/actors").unwrap().0, 401);

    let (home, api) = (daemon.home.clone(), daemon.api);
    let socket = home.control_socket();
    let dir = daemon._dir.path().to_owned();
    assert!(dir.exists());
    assert_eq!(daemon.stop(), Exit::OK);
    assert!(!socket.exists());
    assert!(std::net::TcpStream::connect(api).is_err());
}

#[test]
fn a_foreign_program_on_the_port_costs_only_the_api() {
    let foreign = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let daemon = start_at(foreign.local_addr().unwrap().port(), |_| {});
    // The tap is there although the API can't be.
    let socket = daemon.home.control_socket();
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(!daemon.thread.is_finished());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(foreign);
    daemon.wait_for(|status, _| status == 200);
    assert_eq!(daemon.stop(), Exit::OK);
}

#[test]
fn a_wrong_configuration_changes_nothing_and_is_named() {
    let daemon = start();
    daemon.wait_for(|status, _| status == 200);
    let good = std::fs::read_to_string(daemon.home.config_file()).unwrap();
    // Nobody tells it: it looks itself.
    std::fs::write(daemon.home.config_file(), format!("{good}[meter]\nhost = []\n")).unwrap();
    let token = std::fs::read_to_string(daemon.home.token_file()).unwrap();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().proxy(None).http_status_as_error(false).build().into();
    loop {
        let status: Value = agent
            .get(format!("http://{}/v1/status", daemon.api))
            .header("authorization", format!("Bearer {}", token.trim()))
            .call()
            .unwrap()
            .body_mut()
            .read_json()
            .unwrap();
        assert_eq!(status["health"]["status"], "ok");
        let problems = status["config_problems"].as_array().unwrap();
        if let Some(problem) = problems.first() {
            assert!(problem.as_str().unwrap().contains("config.toml:6"), "{problem}");
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(daemon.stop(), Exit::OK);
}

/// What of the meter is older than its actors survives them: the tap with its connections, the
/// socket, the rows.
#[actix::test]
async fn a_restart_of_the_meter_keeps_its_tap() {
    let (_dir, home) = crate::meter::ledger::fixture::home();
    let log = crate::log::silent();
    let (intake, _writer) = start_writer(WriterConfig::new(&home, log.clone())).unwrap();
    let meter = Meter::new(intake, Register::none(), Keeper::none());
    let health = health::Board::default();
    let view = tree::View::default();
    let api = Arc::new(Api {
        instance: Uuid::new_v4(),
        home: home.clone(),
        token: Token::random().unwrap(),
        sessions: Default::default(),
        peaks: Default::default(),
        journal: Journal::disabled(),
        health: health.clone(),
        edge: edge_monitor::Board::default(),
        meter: meter.clone(),
        tree: view.clone(),
        started_at: Timestamp::now(),
        born: Instant::now(),
        config_problems: Arc::default(),
        port: AtomicU16::new(0),
        streams: Arc::default(),
        readers: Default::default(),
        answered: AtomicU64::new(0),
    });
    let config = config::load_from(None, |_| None, &[]).config;
    let parts = tree::Parts {
        home: home.clone(),
        config: Arc::new(ArcSwap::from_pointee(config)),
        meter: meter.clone(),
        health: health.clone(),
        door: Door::new(&home, api.instance, None),
        port: Port::new(([127, 0, 0, 1], 0).into()),
        api,
        journal: Journal::open(&home.journal_file(), "daemon"),
        log,
    };
    let journal = parts.journal.clone();
    let supervisor = tree::start(parts, &view);
    let generation = async |id: &str| {
        let all = view.observe().await;
        all.iter().find(|a| a.id == id && a.state == "ready").map_or(0, |a| a.generation)
    };
    while generation("admin").await == 0 {
        tokio::task::yield_now().await;
    }
    let tap = meter.tap().unwrap();
    assert!(health::reasons(&health.renewed().await).is_empty());

    supervisor.restart("meter");
    while generation("meter").await != 2 {
        tokio::task::yield_now().await;
    }
    assert!(Arc::ptr_eq(&tap, &meter.tap().unwrap()));
    tap.probe(Duration::from_secs(10)).await.unwrap();

    // One that was given up is not kept by anybody who does not use it.
    let retired = Arc::downgrade(&tap);
    drop(tap);
    meter.retire_tap();
    supervisor.restart("meter");
    while generation("meter").await != 3 || retired.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    meter.tap().unwrap().probe(Duration::from_secs(10)).await.unwrap();

    supervisor.shutdown().await;
    journal.flush(Duration::from_secs(10));
    let entries = supervisor::journal::read_all(&home.journal_file()).unwrap();
    let replayed = supervisor::replay::replay(&entries).unwrap();
    assert!(replayed.steps > 0 && replayed.gaps.is_empty(), "{replayed:?}");
}
