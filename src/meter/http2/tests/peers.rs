//! Followed traffic of two real HTTP/2 peers.

use super::*;

/// Moves bytes one way and notes them before they are passed on, as the tap does.
async fn relay(
    side: Side,
    mut from: tokio::io::ReadHalf<tokio::io::DuplexStream>,
    mut to: tokio::io::WriteHalf<tokio::io::DuplexStream>,
    log: Log,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        log.lock().unwrap().push((side, buffer[..n].to_vec()));
        if to.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    log.lock().unwrap().push((side, Vec::new()));
    let _ = to.shutdown().await;
}

fn big(n: usize) -> String {
    "some long value! ".repeat(n % 23)
}

/// Talks h2 to h2, `count` requests at once, and returns what went over the wire.
pub(super) async fn real_traffic(count: usize) -> Vec<(Side, Vec<u8>)> {
    let log = Log::default();
    let (client_end, tap_client) = tokio::io::duplex(4096);
    let (tap_server, server_end) = tokio::io::duplex(4096);
    let (client_read, client_write) = tokio::io::split(tap_client);
    let (server_read, server_write) = tokio::io::split(tap_server);
    let relays = tokio::spawn(futures_join(
        relay(Side::Client, client_read, server_write, log.clone()),
        relay(Side::Server, server_read, client_write, log.clone()),
    ));
    let server = tokio::spawn(async move {
        let mut connection = h2::server::handshake(server_end).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let n: usize = request.headers()["x-number"].to_str().unwrap().parse().unwrap();
                let mut body = request.into_body();
                let mut size = 0;
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    size += data.len();
                }
                let answer = http::Response::builder()
                    .header("x-number", n)
                    .header("x-size", size)
                    .header("x-big", big(n))
                    .body(())
                    .unwrap();
                let mut send = respond.send_response(answer, false).unwrap();
                for _ in 0..3 {
                    send.send_data(vec![b's'; n * 97].into(), false).unwrap();
                    tokio::task::yield_now().await;
                }
                let mut trailers = http::HeaderMap::new();
                trailers.insert("x-trailer", "t".parse().unwrap());
                send.send_trailers(trailers).unwrap();
            });
        }
    });
    let (send, connection) = h2::client::Builder::new()
        .header_table_size(65_536)
        .handshake::<_, bytes::Bytes>(client_end)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let mut tasks = Vec::new();
    for n in 0..count {
        let mut send = send.clone().ready().await.unwrap();
        let request = http::Request::builder()
            .method("POST")
            .uri(format!("https://api.example/v1/{n}"))
            .header("x-number", n)
            .header("x-big", big(n * 7))
            .header("cookie", format!("a={n}"))
            .body(())
            .unwrap();
        let (response, mut body) = send.send_request(request, false).unwrap();
        tasks.push(tokio::spawn(async move {
            body.send_data(vec![b'c'; n * 31].into(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            assert!(body.trailers().await.unwrap().is_some());
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    drop(send);
    driver.await.unwrap().unwrap();
    server.await.unwrap();
    relays.await.unwrap();
    Arc::into_inner(log).unwrap().into_inner().unwrap()
}

async fn futures_join(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    tokio::join!(a, b);
}

#[test]
fn real_peers_are_followed_in_any_pieces() {
    const COUNT: usize = 60;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let traffic = runtime.block_on(real_traffic(COUNT));
    let whole = run(&traffic, |bytes| vec![bytes.to_vec()]);
    for size in [1, 3, 1000] {
        let pieces = |bytes: &[u8]| bytes.chunks(size).map(<[u8]>::to_vec).collect();
        assert_eq!(run(&traffic, pieces), whole, "in pieces of {size}");
    }
    assert!(whole.iter().all(|line| !line.contains("cut") && !line.contains("gave up")));
    for n in 0..COUNT {
        let id = 2 * n + 1;
        let of = |what: &str| -> Vec<&str> {
            let prefix = format!("{id} {what}");
            whole.iter().filter_map(|line| line.strip_prefix(&prefix)).collect()
        };
        let size = n * 31;
        let sent = format!(
            "POST /v1/{n} api.example - [x-number: {n}; x-big: {}; cookie: a={n}]",
            big(n * 7)
        );
        assert_eq!(of("request "), [sent]);
        assert_eq!(of("request-body ").concat(), "c".repeat(size));
        assert_eq!(of("request-end").len(), 1);
        let answer = format!("200 [x-number: {n}; x-size: {size}; x-big: {}]", big(n));
        assert_eq!(of("response "), [answer]);
        assert_eq!(of("response-body ").concat(), "s".repeat(n * 97 * 3));
        assert_eq!(of("response-end").len(), 1);
    }
}

#[test]
fn a_frame_that_has_begun_is_known() {
    let fields =
        block(&[(":method", "GET"), (":scheme", "https"), (":authority", "h"), (":path", "/")]);
    let (first, second) = fields.split_at(4);
    // SETTINGS, PING; HEADERS with END_STREAM, and the rest of the block.
    let idle = [frame(4, 0, 0, &[]), frame(6, 0, 0, &[0; 8])];
    let asks = [frame(1, 0x1, 1, first), frame(9, 0x4, 1, second)];
    let whole: Vec<usize> = [PREFACE.to_vec(), idle[0].clone(), idle[1].clone(), asks.concat()]
        .iter()
        .scan(0, |at, part| {
            *at += part.len();
            Some(*at)
        })
        .collect();
    let mut follower = Http2::new();
    assert!(!follower.is_asking());
    for (at, byte) in [PREFACE, &idle.concat(), &asks.concat()].concat().iter().enumerate() {
        follower.feed(Side::Client, &[*byte], &mut |_| {});
        assert_eq!(follower.is_asking(), !whole.contains(&(at + 1)), "{at}");
    }
}
