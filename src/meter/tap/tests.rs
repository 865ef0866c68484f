//! The tap between a scripted edge and a TLS origin in this process.

mod drain;
mod kit;
mod loss;
mod rejection;
mod versions;

use std::io::ErrorKind;
use std::sync::{Condvar, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::handover::Decline;
use crate::meter::hello::{Look, look};
use crate::meter::http::{Follower, HttpEvent, Side};
use crate::meter::row::{Completeness, Protocol, Row};
use kit::{Answer, Origin, World, noise, pieces};

const ALPNS: [(&[&str], &[&str], Option<&str>); 4] = [
    (&["h2", "http/1.1"], &["h2"], Some("h2")),
    (&["h2", "http/1.1"], &["http/1.1"], Some("http/1.1")),
    (&["http/1.1"], &[], None),
    (&[], &["h2", "http/1.1"], None),
];

#[tokio::test]
async fn the_provider_chooses_the_protocol_and_bytes_pass_verbatim() {
    for (round, (client_alpn, origin_alpn, chosen)) in ALPNS.into_iter().enumerate() {
        let seed = round as u64 + 1;
        let origin = Origin::new().alpn(origin_alpn).start(move |mut tls| async move {
            let (mut rd, mut wr) = tokio::io::split(&mut tls);
            let down = noise(seed + 100, 700_000);
            let (got, ()) = tokio::join!(
                async {
                    let mut got = Vec::new();
                    rd.read_to_end(&mut got).await.unwrap();
                    got
                },
                async {
                    for piece in pieces(seed, &down) {
                        wr.write_all(piece).await.unwrap();
                        wr.flush().await.unwrap();
                    }
                }
            );
            // The client has said goodbye; we still have something to say.
            tls.write_all(b"last words").await.unwrap();
            tls.shutdown().await.unwrap();
            got
        });
        let mut world = World::new(&origin).await;
        let mut client = world.connect("api.example.com", client_alpn).await.unwrap();
        assert_eq!(client.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
        let up = noise(seed, 500_000);
        let (mut rd, mut wr) = tokio::io::split(&mut client);
        let (got, ()) = tokio::join!(
            async {
                let mut got = Vec::new();
                rd.read_to_end(&mut got).await.unwrap();
                got
            },
            async {
                for piece in pieces(seed + 7, &up) {
                    wr.write_all(piece).await.unwrap();
                    wr.flush().await.unwrap();
                }
                wr.shutdown().await.unwrap();
            }
        );
        let mut want = noise(seed + 100, 700_000);
        want.extend_from_slice(b"last words");
        assert!(got == want, "down, round {round}");
        assert!(origin.result().await == up, "up, round {round}");
        world.idle().await;
        let snapshot = world.tap.snapshot();
        assert_eq!((snapshot.commits, snapshot.bytes_up), (1, up.len() as u64));
        assert_eq!(snapshot.bytes_down, want.len() as u64);
    }
}

#[tokio::test]
async fn each_way_to_end_is_mirrored() {
    for end in ["clean", "bare", "reset"] {
        let origin = Origin::new().start(move |mut tls| async move {
            tls.read_u8().await.unwrap();
            tls.write_all(b"half an answ").await.unwrap();
            tls.flush().await.unwrap();
            match end {
                "clean" => tls.shutdown().await.unwrap(),
                "bare" => tls.get_mut().0.shutdown().await.unwrap(),
                _ => {
                    tls.read_u8().await.unwrap();
                    tls.get_ref().0.set_zero_linger().unwrap();
                }
            }
            Vec::new()
        });
        let mut world = World::new(&origin).await;
        let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let mut got = [0; 12];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"half an answ");
        if end == "reset" {
            client.write_all(b"y").await.unwrap();
        }
        let read = client.read(&mut got).await;
        match end {
            "clean" => assert_eq!(read.unwrap(), 0),
            "bare" => assert_eq!(read.unwrap_err().kind(), ErrorKind::UnexpectedEof),
            _ => assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset),
        }
    }
}

#[tokio::test]
async fn a_client_that_aborts_is_an_abort_for_the_provider() {
    let origin = Origin::new().start(|mut tls| async move {
        tls.read_u8().await.unwrap();
        tls.write_all(b"!").await.unwrap();
        tls.flush().await.unwrap();
        let end = tls.read_u8().await.unwrap_err();
        format!("{:?}", end.kind()).into_bytes()
    });
    let mut world = World::new(&origin).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    // Not before the origin has it: a reset may overtake what is in flight.
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    client.get_ref().0.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(origin.result().await, b"ConnectionReset");
}

#[tokio::test]
async fn what_the_provider_shows_first_can_still_become_raw() {
    type Make = fn() -> Origin;
    let cases: [(Make, Decline); 5] = [
        (|| Origin::new().untrusted(), Decline::UpstreamTls),
        (|| Origin::new().expired(), Decline::UpstreamTls),
        (|| Origin::new().named("other.example.com"), Decline::UpstreamTls),
        (|| Origin::new().alpn(&["spdy"]), Decline::UpstreamTls),
        (|| Origin::new().asks_for_certificate(), Decline::ClientCertificate),
    ];
    for (make, reason) in cases {
        let origin = make().start(|_| async { Vec::new() });
        let mut world = World::new(&origin).await;
        let mut offered = world.offer("api.example.com", &["http/1.1"]).await;
        assert_eq!(offered.answer(&mut world).await, Answer::Decline(reason));
        let unread = offered.unread().await;
        assert!(matches!(look(&unread), Look::Whole(_)), "{reason:?}: {} bytes", unread.len());
        world.idle().await;
        assert!(world.rows.all().is_empty());
        // The next connection does not ask it again.
        origin.stop().await;
        let mut offered = world.offer("api.example.com", &["http/1.1"]).await;
        assert_eq!(offered.answer(&mut world).await, Answer::Decline(reason));
        let mut other = world.offer("api.example.com", &["h2"]).await;
        assert_eq!(other.answer(&mut world).await, Answer::Decline(Decline::DialFailed));
    }
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_is_declined() {
    let origin = Origin::new().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    origin.stop().await;
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::DialFailed));
    assert!(matches!(look(&offered.unread().await), Look::Whole(_)));
}

#[tokio::test]
async fn too_late_a_commit_takes_nothing() {
    let origin = Origin::new().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    let mut offered = world.offer("api.example.com", &["h2"]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Commit);
    world.verdict(&offered, false).await;
    world.idle().await;
    assert!(matches!(look(&offered.unread().await), Look::Whole(_)));
    assert_eq!((world.tap.snapshot().refused, world.tap.snapshot().commits), (1, 0));

    // The channel breaks while the answer is awaited: the same.
    let mut offered = world.offer("api.example.com", &["h2"]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Commit);
    world.hang_up().await;
    world.idle().await;
    assert!(matches!(look(&offered.unread().await), Look::Whole(_)));
}

#[tokio::test]
async fn foreign_names_and_foreign_protocols_are_declined() {
    let origin = Origin::new().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    let mut offered = world.offer("www.example.org", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::NotMetered));
    let mut offered = world.offer_bytes(b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::NotTls));
    assert_eq!(offered.unread().await, b"GET / HTTP/1.1\r\n\r\n");
}

#[tokio::test]
async fn a_slow_provider_is_not_a_frozen_daemon() {
    let origin = Origin::new().mute().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    let mut offered = world.offer("api.example.com", &[]).await;
    for _ in 0..3 {
        assert_eq!(offered.next(&mut world).await, Answer::Progress);
    }
}

/// As from a box on the way that drops a hello which it does not know, ours, and lets the client's pass.
#[tokio::test]
async fn a_provider_that_says_nothing_to_us_is_left_to_the_client_and_remembered() {
    let origin = Origin::new().mute().start(|_| async { Vec::new() });
    let soon = Duration::from_millis(50);
    let mut world = World::with(&origin, |deps| deps.limits.provider = soon, follower).await;
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::UpstreamSlow));
    assert!(matches!(look(&offered.unread().await), Look::Whole(_)));
    // The next one does not ask it again.
    origin.stop().await;
    let mut offered = world.offer("api.example.com", &[]).await;
    assert_eq!(offered.answer(&mut world).await, Answer::Decline(Decline::UpstreamSlow));
    // Clients give up a connection after five seconds, some of them.
    assert!(Limits::default().provider < Duration::from_secs(4));
}

#[tokio::test]
async fn limits_and_a_full_ledger_leave_connections_to_the_edge() {
    let origin = Origin::new().start(|_| async { Vec::new() });
    let mut world = World::with(&origin, |deps| deps.limits.connections = 1, follower).await;
    let first = world.offer("api.example.com", &[]).await;
    let mut second = world.offer("api.example.com", &[]).await;
    assert_eq!(second.answer(&mut world).await, Answer::Decline(Decline::Overloaded));
    world.verdict(&first, false).await;
    world.idle().await;
    world.rows.refuse();
    let mut third = world.offer("api.example.com", &[]).await;
    assert_eq!(third.answer(&mut world).await, Answer::Decline(Decline::Degraded));
}

/// Says that every chunk is a request, then does its worst.
struct Panics;

impl Follower for Panics {
    fn feed(&mut self, side: Side, _: &[u8], sink: &mut dyn FnMut(HttpEvent<'_>)) {
        sink(HttpEvent::Request { stream: 1, head: Default::default() });
        assert!(side == Side::Client, "as told");
    }
    fn finish(&mut self, _: Side, _: &mut dyn FnMut(HttpEvent<'_>)) {}
    fn is_asking(&self) -> bool {
        false
    }
}

static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// Does not come back until the gate opens.
struct Stalls;

impl Follower for Stalls {
    fn feed(&mut self, _: Side, _: &[u8], _: &mut dyn FnMut(HttpEvent<'_>)) {
        drop(GATE.1.wait_while(GATE.0.lock().unwrap(), |open| !*open));
    }
    fn finish(&mut self, _: Side, _: &mut dyn FnMut(HttpEvent<'_>)) {}
    fn is_asking(&self) -> bool {
        false
    }
}

fn echo() -> Origin {
    Origin::new().start(|mut tls| async move {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match tls.read(&mut buffer).await.unwrap() {
                0 => break,
                n => tls.write_all(&buffer[..n]).await.unwrap(),
            }
            tls.flush().await.unwrap();
        }
        tls.shutdown().await.unwrap();
        Vec::new()
    })
}

async fn echoes(client: &mut kit::Client, seed: u64, length: usize) {
    let data = noise(seed, length);
    let (mut rd, mut wr) = tokio::io::split(client);
    let mut got = vec![0; length];
    let (sent, read) = tokio::join!(
        async {
            wr.write_all(&data).await?;
            wr.flush().await
        },
        rd.read_exact(&mut got)
    );
    sent.unwrap();
    read.unwrap();
    assert!(got == data);
}

#[tokio::test]
async fn an_observer_that_panics_loses_sight_and_nothing_else() {
    let origin = echo();
    let make: MakeFollower = |_, _| Some(Box::new(Panics));
    let mut world = World::with(&origin, |_| {}, make).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    for seed in 1..5 {
        echoes(&mut client, seed, 100_000).await;
    }
    client.shutdown().await.unwrap();
    world.idle().await;
    let row = world.rows.last();
    assert_eq!(row.completeness, Completeness::Lossy);
    assert_eq!(world.tap.snapshot().lossy, 1);
}

#[tokio::test]
async fn an_observer_that_stalls_delays_no_byte() {
    let origin = echo();
    let make: MakeFollower = |_, _| Some(Box::new(Stalls));
    let limit = 256 * 1024;
    let mut world = World::with(&origin, |d| d.limits.observer_bytes = limit, make).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    for seed in 1..9 {
        echoes(&mut client, seed, 200_000).await;
    }
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert!(world.tap.snapshot().observer_bytes <= limit);
    *GATE.0.lock().unwrap() = true;
    GATE.1.notify_all();
    world.idle().await;
    assert_eq!(world.rows.last().completeness, Completeness::Lossy);
    assert_eq!((world.tap.snapshot().lossy, world.tap.snapshot().observer_bytes), (1, 0));
}

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

fn http_origin() -> Origin {
    Origin::new().start(answers)
}

async fn answers(mut tls: tokio_rustls::server::TlsStream<tokio::net::TcpStream>) -> Vec<u8> {
    let mut request = Vec::new();
    let mut byte = [0];
    while let Ok(1) = tls.read(&mut byte).await {
        request.push(byte[0]);
        if request.starts_with(b"GET") && request.ends_with(b"\r\n\r\n") {
            request.clear();
            tls.write_all(ANSWER).await.unwrap();
            tls.flush().await.unwrap();
        }
    }
    Vec::new()
}

async fn ask(client: &mut kit::Client) {
    client.write_all(b"GET /v1/models?key=secret HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    client.flush().await.unwrap();
    let mut got = vec![0; ANSWER.len()];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, ANSWER);
}

#[tokio::test]
async fn exchanges_become_rows_of_their_program() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut client).await;
    ask(&mut client).await;
    client.write_all(b"GET /cut HTTP/1.1\r\n\r\n").await.unwrap();
    let mut got = vec![0; ANSWER.len()];
    client.read_exact(&mut got).await.unwrap();
    client.write_all(b"POST /cut HTTP/1.1\r\nContent-Length: 5\r\n\r\n12").await.unwrap();
    client.flush().await.unwrap();
    // The search for the owner needs the connection to be open.
    let found = |row: &Row| row.client_pid.is_some() || !crate::platform::owner::AVAILABLE;
    world.rows.wait(|rows| rows.len() == 4 && rows.iter().all(found)).await;
    drop(client);
    world.idle().await;
    let rows = world.rows.final_rows();
    let states: Vec<_> = rows.iter().map(|r| (r.path.as_str(), r.completeness)).collect();
    assert_eq!(
        states[..3],
        [
            ("/v1/models", Completeness::Complete),
            ("/v1/models", Completeness::Complete),
            ("/cut", Completeness::Complete),
        ]
    );
    assert_eq!((states[3].0, states[3].1), ("/cut", Completeness::Interrupted));
    for row in &rows {
        assert_eq!((row.host.as_str(), row.protocol), ("api.example.com", Protocol::H1));
        if crate::platform::owner::AVAILABLE {
            assert_eq!(row.client_pid, Some(std::process::id()));
            assert!(row.cwd.is_some() && row.project.is_some());
        }
        assert!(!format!("{row:?}").contains("secret"));
    }
    // What is under way has a row that says so.
    let all = world.rows.all();
    let first = all.iter().find(|row| row.id == rows[3].id).unwrap();
    assert_eq!(first.completeness, Completeness::Open);
}

#[tokio::test]
async fn draining_waits_for_the_exchange_and_closes_what_is_idle() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    let mut idle = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    ask(&mut idle).await;
    let tap = Arc::clone(&world.tap);
    let drain = tokio::spawn(async move { tap.drain(Duration::from_secs(60)).await });
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "a clean goodbye");
    drop(idle);
    assert!(drain.await.unwrap());
    assert!(world.heard_draining().await);
    let mut late = world.offer("api.example.com", &[]).await;
    assert_eq!(late.answer(&mut world).await, Answer::Decline(Decline::Draining));
}

#[tokio::test]
async fn an_exchange_that_does_not_end_is_cut_at_the_deadline() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    client.write_all(b"A: b\r\n\r\n").await.unwrap();
    client.read_exact(&mut vec![0; ANSWER.len()]).await.unwrap();
    client.write_all(b"POST /slow HTTP/1.1\r\nContent-Length: 9\r\n\r\n1").await.unwrap();
    client.flush().await.unwrap();
    world.rows.wait(|rows| rows.iter().any(|r| r.path == "/slow")).await;
    assert!(!world.tap.drain(Duration::from_millis(200)).await);
    assert!(client.read(&mut [0; 200]).await.is_err());
    let row = world.rows.last();
    assert_eq!((row.path.as_str(), row.completeness), ("/slow", Completeness::Interrupted));
    assert_eq!(row.completeness_reason.as_deref(), Some("daemon stopped"));
}

#[tokio::test]
async fn sessions_resume_on_both_sides() {
    let origin = http_origin();
    let mut world = World::new(&origin).await;
    for round in 0..2 {
        let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
        ask(&mut client).await;
        let kind = client.get_ref().1.handshake_kind().unwrap();
        assert_eq!(kind == rustls::HandshakeKind::Resumed, round == 1, "{kind:?}");
        drop(client);
        world.idle().await;
    }
    assert_eq!(origin.resumed(), 1);
}

#[tokio::test]
async fn the_probe_takes_the_accept_path() {
    let origin = Origin::new().start(|_| async { Vec::new() });
    let mut world = World::new(&origin).await;
    world.tap.probe(Duration::from_secs(10)).await.unwrap();
    world.stop_accepting().await;
    assert!(world.tap.probe(Duration::from_secs(10)).await.is_err());
}

#[tokio::test]
async fn a_connection_outlives_whoever_made_the_tap() {
    let origin = echo();
    let mut world = World::new(&origin).await;
    let mut client = world.connect("api.example.com", &["http/1.1"]).await.unwrap();
    let rows = Arc::clone(&world.rows);
    let tap = Arc::downgrade(&world.tap);
    // The actor has crashed, the edge has left: nobody holds the tap but the connection.
    drop(world);
    echoes(&mut client, 1, 50_000).await;
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    rows.wait(|rows| rows.iter().any(|r| r.completeness != Completeness::Open)).await;
    let gone = async {
        while tap.strong_count() > 0 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.expect("the tap ends with its last connection");
}
