//! Connections in every stage go from one edge to the next, in one process: descriptors are left
//! and taken as `execve` would do it.

use std::os::fd::{AsFd, IntoRawFd};
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::*;
use crate::edge::extent::Answer;
use crate::edge::status::Counters;
use crate::edge::tunnel::Summary;
use crate::edge::tunnels::Tunnels;
use crate::testing::pair;

fn target() -> Target {
    Target { host: "api.anthropic.com".into(), port: 443 }
}

/// A table of tunnels, and how the last one ended.
fn table() -> (Tunnels, watch::Receiver<Option<Summary>>) {
    let (tell, ended) = watch::channel(None);
    let tell = move |summary, _| {
        let _ = tell.send_replace(Some(summary));
    };
    let tunnels = Tunnels::new(Box::new(tell)).unwrap();
    (tunnels, ended)
}

/// Packs `stages` and `tunnels`, gives their descriptors up as `execve` would, and unpacks them.
fn through(stages: Vec<Stage>, tunnels: &Rest<'_>) -> Vec<Stage> {
    let live = Rc::new(Live::default());
    let places: Vec<_> = stages.into_iter().map(|stage| live.enter(stage)).collect();
    let content = State::pack(3, None, 7, Totals::default(), &live, tunnels).unwrap();
    let both = |tunnel: Tunnel| {
        let (client, server) = tunnel.into_sockets();
        give_up(client);
        give_up(server);
    };
    for place in places {
        match place.take() {
            Stage::Head(head) => give_up(plain(head.client)),
            Stage::Asked(asked) => give_up(plain(asked.client)),
            Stage::Metered(metered) => give_up(plain(metered.client)),
            Stage::Tunnel(raw) => both(raw.tunnel),
            Stage::Secure | Stage::Over => {}
        }
    }
    tunnels.take_all().into_iter().for_each(both);
    let (state, stages, left_out) = State::unpack(&content).unwrap();
    assert_eq!((state.listener, state.lock, state.image, left_out), (3, None, 7, 0));
    stages
}

/// The number stays open, nobody owns it, as after `execve`.
fn give_up(socket: std::net::TcpStream) {
    let _ = socket.into_raw_fd();
}

fn plain(socket: TcpStream) -> std::net::TcpStream {
    socket.into_std().unwrap()
}

#[tokio::test]
async fn every_stage_goes_on_where_it_stood() {
    let (mut c1, head) = pair().await;
    let (_c2, asked) = pair().await;
    let (_c3, plain) = pair().await;
    let (mut c4, metered) = pair().await;
    let (_c5, offered) = pair().await;
    let mut reader = Reader::default();
    assert_eq!(reader.feed(b"CONNECT api.anth"), crate::edge::connect::Step::More);
    let started = Started { at: "2026-01-02T03:04:05Z".parse().unwrap(), ..Started::now() };
    let line = b"GET / HTTP/1.1\r\n\r\n".to_vec();
    let forward = Request::Forward { target: target(), head: line.clone(), secure: false };
    let stages = vec![
        Stage::Head(Box::new(Head { client: head, reader })),
        Stage::Asked(Box::new(Asked { client: asked, request: Request::Connect(target()) })),
        Stage::Asked(Box::new(Asked { client: plain, request: forward.clone() })),
        Stage::Over,
        Stage::Metered(Box::new(Metered {
            client: metered,
            target: target(),
            started,
            head: None,
            how: route::Asked::Tunnel,
        })),
        Stage::Metered(Box::new(Metered {
            client: offered,
            target: target(),
            started,
            head: Some(line),
            how: route::Asked::Forward,
        })),
    ];
    let stages = through(stages, &table().0.rest());
    c1.write_all(b"ropic.com:443 HTTP/1.1\r\n\r\nrest").await.unwrap();
    c4.write_all(b"hello").await.unwrap();
    let mut stages = stages.into_iter();
    let live = Rc::new(Live::default());
    let place = live.enter(stages.next().unwrap());
    let (mut client, request) = std::future::poll_fn(|cx| place.poll_request(cx)).await.unwrap();
    assert_eq!(request.unwrap(), Request::Connect(target()));
    let mut rest = [0; 4];
    client.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"rest", "nothing behind the head was taken");
    assert!(
        matches!(stages.next(), Some(Stage::Asked(a)) if a.request == Request::Connect(target()))
    );
    assert!(matches!(stages.next(), Some(Stage::Asked(a)) if a.request == forward));
    let Some(Stage::Metered(metered)) = stages.next() else { panic!("no metered connection") };
    let kept = (metered.started.id, metered.started.at, &metered.target);
    assert_eq!(kept, (started.id, started.at, &target()));
    let place = live.enter(Stage::Metered(metered));
    assert!(std::future::poll_fn(|cx| place.poll_spoke(cx)).await);
    assert!(
        matches!(stages.next(), Some(Stage::Asked(a)) if a.request == forward),
        "nobody had answered it"
    );
    assert!(stages.next().is_none());
}

#[tokio::test]
async fn what_goes_on_over_tls_keeps_the_image() {
    let request = |secure| Request::Forward { target: target(), head: Vec::new(), secure };
    for (request, stays) in [(request(false), false), (request(true), true)] {
        let (_client, edge) = pair().await;
        let live = Rc::new(Live::default());
        let place = live.enter(Stage::Asked(Box::new(Asked { client: edge, request })));
        assert_eq!(live.any_stays(), stays);
        let tunnels = table().0;
        let pack = || State::pack(3, None, 1, Totals::default(), &live, &tunnels.rest());
        assert_eq!(pack().is_err(), stays);
        keep(&live, &tunnels.rest());
        place.set(Stage::Secure);
        assert!(live.any_stays() && pack().unwrap_err().to_string().contains("absolute form"));
    }
}

/// All of it, telling of every piece.
async fn read_all(from: &mut (impl AsyncRead + Unpin), arrive: &watch::Sender<()>) -> Vec<u8> {
    let mut all = Vec::new();
    while from.read_buf(&mut all).await.unwrap() > 0 {
        arrive.send_replace(());
    }
    arrive.send_replace(());
    all
}

/// A transfer through a tunnel that is packed and unpacked again and again under way.
async fn transfer(size: usize, every: usize, linger: bool) {
    let ((client, near), (far, server)) = (pair().await, pair().await);
    let bytes: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 9) as u8).collect();
    let sent = bytes.clone();
    let passed = Passed { target: target(), started: Started::now(), reason: Reason::NoAnswer };
    let mut raw = Raw { tunnel: Tunnel::new(plain(near), plain(far)), passed: Some(passed) };
    let (arrive, mut arrived) = watch::channel(());
    let exchange = async move {
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        let up = async {
            client_write.write_all(&sent).await.unwrap();
            client_write.shutdown().await.unwrap();
        };
        let down = async {
            server_write.write_all(&sent).await.unwrap();
            server_write.shutdown().await.unwrap();
        };
        let read_up = read_all(&mut server_read, &arrive);
        let read_down = async {
            if linger {
                // Bytes pile up within the tunnel.
                tokio::task::yield_now().await;
            }
            read_all(&mut client_read, &arrive).await
        };
        let ((), (), got_up, got_down) = tokio::join!(up, down, read_up, read_down);
        (got_up, got_down)
    };
    let exchange = tokio::spawn(exchange);
    let counters = Arc::<Counters>::default();
    let mut images = 0;
    let summary = loop {
        let (tunnels, mut ended) = table();
        tunnels.add(raw, counters.open());
        for _ in 0..every {
            tokio::select! {
                _ = ended.changed() => break,
                Ok(()) = arrived.changed() => {}
            }
        }
        let rest = tunnels.rest();
        let over = *ended.borrow_and_update();
        if let Some(summary) = over {
            break summary;
        }
        images += 1;
        let Some(Stage::Tunnel(next)) = through(Vec::new(), &rest).pop() else {
            panic!("no tunnel")
        };
        raw = *next;
    };
    let (up, down) = exchange.await.unwrap();
    assert!(up == bytes && down == bytes, "bytes differ after {images} images");
    assert_eq!((summary.up, summary.down, summary.aborted), (size as u64, size as u64, false));
}

#[tokio::test]
async fn a_request_ends_in_the_next_image_where_it_would_have_ended() {
    let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
    let head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let tunnel = Tunnel::new(plain(near), plain(far)).with_request_head(head.to_vec());
    let counters = Arc::<Counters>::default();
    let (tunnels, _ended) = table();
    tunnels.add(Raw { tunnel, passed: None }, counters.open());
    client.write_all(b"5\r\nhel").await.unwrap();
    let mut got = vec![0; head.len() + 6];
    server.read_exact(&mut got).await.unwrap();
    let Some(Stage::Tunnel(next)) = through(Vec::new(), &tunnels.rest()).pop() else {
        panic!("no tunnel")
    };
    let (tunnels, _ended) = table();
    tunnels.add(*next, counters.open());
    client.write_all(b"lo\r\n0\r\n\r\nGET http://elsewhere.example/").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"lo\r\n0\r\n\r\n");
}

#[tokio::test]
async fn so_does_its_answer() {
    for cut in 1.."HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell".len() {
        let ((mut client, near), (far, mut server)) = (pair().await, pair().await);
        let head = b"GET / HTTP/1.1\r\n\r\n";
        let tunnel = Tunnel::new(plain(near), plain(far)).with_request_head(head.to_vec());
        let tunnel = tunnel.with_response_gate(Answer::to(head));
        let counters = Arc::<Counters>::default();
        let (tunnels, _ended) = table();
        tunnels.add(Raw { tunnel, passed: None }, counters.open());
        server.read_exact(&mut vec![0; head.len()]).await.unwrap();
        let (first, last) = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".split_at(cut);
        server.write_all(first).await.unwrap();
        let Some(Stage::Tunnel(next)) = through(Vec::new(), &tunnels.rest()).pop() else {
            panic!("no tunnel")
        };
        let (tunnels, _ended) = table();
        tunnels.add(*next, counters.open());
        // The server keeps its side open.
        server.write_all(last).await.unwrap();
        let mut got = String::new();
        client.read_to_string(&mut got).await.unwrap();
        let close = "Connection: close\r\n\r\nhello";
        assert_eq!(got, format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{close}"), "{cut}");
    }
}

#[tokio::test]
async fn bulk_survives_many_images() {
    transfer(24 << 20, 3, true).await;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_transfer_survives(size in 0usize..2_000_000, every in 1usize..9, linger: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(transfer(size, every, linger));
    }

    #[test]
    fn garbage_is_no_state(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(State::unpack(&bytes).is_err());
    }
}

#[tokio::test]
async fn another_format_is_refused_and_a_lost_descriptor_left_out() {
    let (_client, metered) = pair().await;
    let live = Rc::new(Live::default());
    let started = Started::now();
    let place = live.enter(Stage::Metered(Box::new(Metered {
        client: metered,
        target: target(),
        started,
        head: None,
        how: route::Asked::Tunnel,
    })));
    let tunnels = table().0;
    let content = State::pack(3, None, 1, Totals::default(), &live, &tunnels.rest()).unwrap();
    let text = String::from_utf8_lossy(&content[8..]).replace("\"format\":1", "\"format\":2");
    let mut other = (text.len() as u64).to_le_bytes().to_vec();
    other.extend_from_slice(text.as_bytes());
    assert!(State::unpack(&other).unwrap_err().to_string().contains("format 2"));
    keep(&live, &tunnels.rest());
    let Stage::Metered(kept) = place.take() else { panic!("gone") };
    let flags = rustix::io::fcntl_getfd(kept.client.as_fd()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "taken back");
    let (_, stages, left_out) = State::unpack(&content).unwrap();
    assert_eq!((stages.len(), left_out), (0, 1), "it has an owner");
}
