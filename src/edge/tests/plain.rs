//! Plain HTTP to a host that is metered so.

use super::*;

const BODY: &[u8] = b"{\"model\":\"m\"}";
/// What the origin gets of it, whoever sends it on.
const HEAD: &str = "POST /api/chat HTTP/1.1\r\nHost: gpu-box:11434\r\nAuthorization: Bearer s\r\n\
    Content-Length: 13\r\nConnection: close\r\n\r\n";

/// Sends a request in absolute form, its body behind it.
async fn ask(world: &World) -> TcpStream {
    let mut client = TcpStream::connect(world.addr).await.unwrap();
    let head = "POST http://gpu-box:11434/api/chat HTTP/1.1\r\nHost: gpu-box:11434\r\n\
        Proxy-Connection: keep-alive\r\nAuthorization: Bearer s\r\nContent-Length: 13\r\n\r\n";
    client.write_all(&[head.as_bytes(), BODY].concat()).await.unwrap();
    client
}

/// The origin gets the whole of it, and the client its answer.
async fn assert_forwarded(world: &World, client: &mut TcpStream) {
    let (mut server, _) = world.origin.accept().await.unwrap();
    still(async {
        let mut got = vec![0; HEAD.len() + BODY.len()];
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [HEAD.as_bytes(), BODY].concat());
        server.write_all(b"HTTP/1.1 200 OK\r\nKeep-Alive: x\r\n\r\n{}").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}");
    })
    .await;
    client.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_daemon_gets_the_head_and_the_rest_unread() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, fd) = next_offer(&mut channel).await;
            assert_eq!((offer.host.as_str(), offer.port), ("gpu-box", 11434));
            let head = offer.head.unwrap().into_bytes();
            assert_eq!(String::from_utf8(head).unwrap(), HEAD);
            channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
            assert_eq!(verdict(&mut channel).await, (offer.id, true));
            (socket(fd), channel)
        };
        let (mut client, (mut taken, _channel)) = tokio::join!(ask(&world), work);
        world.edge.shared.counters.drained().await;
        let mut got = vec![0; BODY.len()];
        taken.read_exact(&mut got).await.unwrap();
        assert_eq!(got, BODY);
        taken.write_all(b"from the daemon").await.unwrap();
        drop(taken);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "from the daemon", "the edge says nothing of its own");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_daemon_it_is_forwarded_as_ever_and_noted() {
    in_world(|mut world| async move {
        world.api = None;
        let mut client = ask(&world).await;
        assert_forwarded(&world, &mut client).await;
        let line = &world.spooled(1).await[0];
        assert_eq!((&*line.host, line.port), ("gpu-box", 11434));
        assert_eq!(line.reason, "daemon_not_running");
    })
    .await;
}

/// The next one names another host, and may hold what is for that host only.
#[tokio::test(start_paused = true)]
async fn of_requests_in_a_row_only_the_first_goes_where_it_names() {
    in_world(|mut world| async move {
        world.api = None;
        let mut client = ask(&world).await;
        let next = b"GET http://elsewhere.example/ HTTP/1.1\r\nAuthorization: Bearer t\r\n\r\n";
        client.write_all(next).await.unwrap();
        let (mut server, _) = world.origin.accept().await.unwrap();
        still(async {
            let mut got = vec![0; HEAD.len() + BODY.len()];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
            client.shutdown().await.unwrap();
            got.clear();
            server.read_to_end(&mut got).await.unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), "");
            drop(server);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("\r\nConnection: close\r\n"), "it asks again: {answer}");
        })
        .await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn declined_frozen_or_killed_it_is_forwarded_all_the_same() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let work = async {
            let mut channel = daemon.accept().await;
            let (offer, fd) = next_offer(&mut channel).await;
            drop(fd);
            let reason = Decline::DialFailed;
            channel.send(&ToEdge::Decline { id: offer.id, reason }, None).await.unwrap();
            channel
        };
        let (mut client, mut channel) = tokio::join!(ask(&world), work);
        assert_forwarded(&world, &mut client).await;

        // Frozen, with a copy of the socket that it wakes up with too late.
        let mut client = ask(&world).await;
        let (offer, fd) = next_offer(&mut channel).await;
        assert_forwarded(&world, &mut client).await;
        channel.send(&ToEdge::Commit { id: offer.id }, None).await.unwrap();
        assert_eq!(verdict(&mut channel).await, (offer.id, false));
        drop((channel, fd));

        let reasons: Vec<_> = world.spooled(2).await.into_iter().map(|l| l.reason).collect();
        assert_eq!(reasons, ["declined_dial_failed", "daemon_frozen"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn killed_in_mid_offer_it_is_forwarded() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let (mut client, mut channel) = tokio::join!(ask(&world), daemon.accept());
        let (_offer, fd) = next_offer(&mut channel).await;
        daemon.health.abort();
        drop((channel, fd, daemon.socket));
        assert_forwarded(&world, &mut client).await;
        assert_eq!(world.spooled(1).await[0].reason, "channel_lost");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_head_too_long_for_the_channel_is_forwarded_by_the_edge() {
    in_world(|mut world| async move {
        let daemon = world.daemon();
        let mut client = TcpStream::connect(world.addr).await.unwrap();
        let cookie = "x".repeat(20_000);
        let request = format!("GET http://gpu-box:11434/ HTTP/1.1\r\nCookie: {cookie}\r\n\r\n");
        let send = async { client.write_all(request.as_bytes()).await.unwrap() };
        let ((), _channel) = tokio::join!(send, daemon.accept());
        let (mut server, _) = world.origin.accept().await.unwrap();
        let expected = format!(
            "GET / HTTP/1.1\r\nHost: gpu-box:11434\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n"
        );
        let mut got = vec![0; expected.len()];
        still(server.read_exact(&mut got)).await.unwrap();
        assert_eq!(String::from_utf8(got).unwrap(), expected);
        drop(server);
        drop(client);
        assert_eq!(world.spooled(1).await[0].reason, "plain_http");
    })
    .await;
}

/// Nobody answers what is dropped behind a request: its client has to hear of the end, whatever it was told
/// of it, and asks again.
#[tokio::test(start_paused = true)]
async fn the_connection_ends_with_the_answer_of_a_server_that_keeps_its_own() {
    let many: String = (0..300).map(|n| format!("X-{n}: {}\r\n", "a".repeat(1000))).collect();
    in_world(|mut world| async move {
        world.api = None;
        for (line, fields, body) in [
            ("HTTP/1.1 200 OK\r\n", "Connection: keep-alive\r\nContent-Length: 2\r\n", "{}"),
            ("HTTP/1.1 200OK\r\n", "Transfer-Encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"),
            ("HTTP/1.1 200 OK\r\n", &format!("{many}Content-Length: 2\r\n"), "{}"),
        ] {
            let mut client = ask(&world).await;
            let (mut server, _) = world.origin.accept().await.unwrap();
            still(async {
                let mut got = vec![0; HEAD.len() + BODY.len()];
                server.read_exact(&mut got).await.unwrap();
                // It does not wait for the answer.
                client.write_all(b"GET http://gpu-box:11434/ HTTP/1.1\r\n\r\n").await.unwrap();
                let said = async {
                    server.write_all(format!("{line}{fields}\r\n").as_bytes()).await.unwrap();
                    tokio::task::yield_now().await;
                    server.write_all(body.as_bytes()).await.unwrap();
                };
                let mut answer = String::new();
                let ((), read) = tokio::join!(said, client.read_to_string(&mut answer));
                read.unwrap();
                let fields = fields.replace("Connection: keep-alive\r\n", "");
                let expected = format!("{line}{fields}Connection: close\r\n\r\n{body}");
                assert!(answer == expected, "{line}{fields}: {answer}");
                drop(client);
                got.clear();
                server.read_to_end(&mut got).await.unwrap();
                assert_eq!(String::from_utf8(got).unwrap(), "");
            })
            .await;
        }
    })
    .await;
}

/// `until curl http://0.0.0.0:8000` waits for a connection, whatever comes over it.
#[tokio::test(start_paused = true)]
async fn a_server_of_this_machine_that_is_not_up_yet_gives_no_answer() {
    in_world(|world| async move {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = unused.local_addr().unwrap().port();
        drop(unused);
        for host in ["127.0.0.1", "localhost", "0.0.0.0", "[::]"] {
            let asked = format!("GET http://{host}:{port}/ HTTP/1.1\r\n\r\n");
            assert_eq!(world.exchange(asked.as_bytes()).await, "", "{host}");
        }
        let mut config = (**world.edge.shared.config.load()).clone();
        let rule = config::ConnectRule::parse("far.example:80", &format!("127.0.0.1:{port}"));
        config.upstream.connect.insert(0, rule.unwrap());
        world.edge.shared.config.store(Arc::new(config));
        let elsewhere = world.exchange(b"GET http://far.example/ HTTP/1.1\r\n\r\n").await;
        assert!(elsewhere.starts_with("HTTP/1.1 502 "), "{elsewhere}");
    })
    .await;
}
