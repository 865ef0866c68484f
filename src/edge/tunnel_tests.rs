//! Tunnels by themselves, on a thread of their own as in the edge.

use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::edge::live::Raw;
use crate::edge::status::Counters;
use crate::edge::tunnels::Tunnels;
use crate::testing::pair;

/// A client's and a server's own end, with a running tunnel between them.
async fn tunnelled() -> (TcpStream, TcpStream, oneshot::Receiver<Summary>) {
    tunnelled_by(|tunnel| tunnel).await
}

async fn tunnelled_by(
    change: impl FnOnce(Tunnel) -> Tunnel,
) -> (TcpStream, TcpStream, oneshot::Receiver<Summary>) {
    let (client, near) = pair().await;
    let (far, server) = pair().await;
    let tunnel = change(Tunnel::new(near.into_std().unwrap(), far.into_std().unwrap()));
    (client, server, run(tunnel))
}

/// Runs it to its end.
fn run(tunnel: Tunnel) -> oneshot::Receiver<Summary> {
    let (tell, told) = oneshot::channel();
    let (over, mut ended) = mpsc::unbounded_channel();
    let tunnels = Tunnels::new(Box::new(move |summary, _| over.send(summary).unwrap())).unwrap();
    tunnels.add(Raw { tunnel, passed: None }, Arc::<Counters>::default().open());
    tokio::spawn(async move {
        let _ = tell.send(ended.recv().await.unwrap());
        drop(tunnels);
    });
    told
}

/// Bytes that tell where they stand.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ (i >> 16) as u8 ^ seed).collect()
}

async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

/// The next request may name another server.
#[tokio::test]
async fn of_what_a_client_says_only_the_request_passes() {
    let head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n".to_vec();
    let sent = head.clone();
    let (mut client, mut server, run) =
        tunnelled_by(|tunnel| tunnel.with_request_head(sent).with_response_gate(Answer::Framed))
            .await;
    let (body, next) = (pattern(300_000, 3), pattern(200_000, 4));
    let upload = async {
        client.write_all(&body).await.unwrap();
        client.write_all(&next).await.unwrap();
    };
    let mut got = vec![0; head.len() + body.len()];
    let (_, ()) = tokio::join!(async { server.read_exact(&mut got).await.unwrap() }, upload);
    assert_eq!(got, [head, body].concat());
    server.write_all(b"HTTP/1.1 200 OK\r\n\r\ndone").await.unwrap();
    server.shutdown().await.unwrap();
    let answer = read_all(&mut client).await;
    assert_eq!(answer, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ndone");
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"", "nothing of the next one");
    assert!(!run.await.unwrap().aborted);
}

/// The server keeps its side open.
#[tokio::test]
async fn the_clients_half_ends_with_the_answer_and_not_before() {
    let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
    let body = pattern(3_000_000, 5);
    let counted = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n".to_vec();
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n".to_vec();
    let chunks = [b"2dc6c0\r\n", &body[..], b"\r\n0\r\n\r\n"].concat();
    for (fields, body) in [(counted, body), (chunked, chunks)] {
        let sent = head.clone();
        let (mut client, mut server, run) = tunnelled_by(|tunnel| {
            tunnel.with_request_head(sent).with_response_gate(Answer::Framed)
        })
        .await;
        let mut got = vec![0; head.len()];
        server.read_exact(&mut got).await.unwrap();
        let (first, last) = body.split_at(body.len() - 1);
        client.write_all(b"GET http://elsewhere.example/ HTTP/1.1\r\n\r\n").await.unwrap();
        let close = b"Connection: close\r\n\r\n";
        let mut got = vec![0; fields.len() + close.len() + first.len()];
        let sent = [&fields[..], b"\r\n", first].concat();
        let (wrote, read) = tokio::join!(server.write_all(&sent), client.read_exact(&mut got));
        wrote.unwrap();
        read.unwrap();
        assert!(got == [&fields[..], close, first].concat());
        let early = tokio::time::timeout(Duration::from_millis(50), client.read(&mut [0])).await;
        assert!(early.is_err(), "one byte is still to come");
        server.write_all(&[last, b"more"].concat()).await.unwrap();
        let rest = tokio::time::timeout(Duration::from_secs(20), read_all(&mut client)).await;
        assert!(rest.expect("an end").starts_with(last));
        client.shutdown().await.unwrap();
        assert!(!run.await.unwrap().aborted);
    }
}

#[tokio::test]
async fn small_messages_both_ways() {
    let (mut client, mut server, run) = tunnelled().await;
    for i in 0..200u32 {
        let message = pattern(1 + i as usize * 7, i as u8);
        let mut got = vec![0; message.len()];
        client.write_all(&message).await.unwrap();
        server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, message);
        server.write_all(&message).await.unwrap();
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, message);
    }
    drop(client);
    assert_eq!(read_all(&mut server).await, b"");
    drop(server);
    let summary = run.await.unwrap();
    assert_eq!(summary.up, summary.down);
    assert!(!summary.aborted);
}

#[tokio::test]
async fn bulk_both_ways_at_once_is_verbatim() {
    const SIZE: usize = 64 * 1024 * 1024;
    let (client, server, run) = tunnelled().await;
    let exchange = |stream: TcpStream, seed: u8, expect: u8| async move {
        let (mut read, mut write) = stream.into_split();
        let send = async move {
            write.write_all(&pattern(SIZE, seed)).await.unwrap();
            write.shutdown().await.unwrap();
            write
        };
        let (_write, got) = tokio::join!(send, read_all(&mut read));
        assert!(got == pattern(SIZE, expect), "bytes differ");
    };
    tokio::join!(exchange(client, 1, 2), exchange(server, 2, 1));
    let summary = run.await.unwrap();
    assert_eq!(summary, Summary { up: SIZE as u64, down: SIZE as u64, aborted: false });
}

#[tokio::test]
async fn bulk_and_small_in_turns_keep_their_order() {
    let (mut client, mut server, run) = tunnelled().await;
    let sizes = [1, 300_000, 5, 5, 5, 5, 5, 5, 1_000_000, 70_000, 1, 200_000];
    let all: Vec<u8> = sizes.iter().enumerate().flat_map(|(i, n)| pattern(*n, i as u8)).collect();
    let send = async {
        for (i, n) in sizes.iter().enumerate() {
            client.write_all(&pattern(*n, i as u8)).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
    };
    let ((), got) = tokio::join!(send, read_all(&mut server));
    assert!(got == all);
    drop(server);
    assert_eq!(run.await.unwrap().up, all.len() as u64);
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    const SIZE: usize = 8 * 1024 * 1024;
    let (mut client, mut server, run) = tunnelled().await;
    let send = async {
        server.write_all(&pattern(SIZE, 3)).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let receive = async {
        let mut got = Vec::new();
        let mut piece = [0; 3000];
        loop {
            match client.read(&mut piece).await.unwrap() {
                0 => return got,
                n => got.extend_from_slice(&piece[..n]),
            }
            tokio::task::yield_now().await;
        }
    };
    let ((), got) = tokio::join!(send, receive);
    assert!(got == pattern(SIZE, 3));
    drop(client);
    run.await.unwrap();
}

#[tokio::test]
async fn half_closes_pass_in_either_direction() {
    let (mut client, mut server, run) = tunnelled().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"question");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, b"answer");
    assert!(!run.await.unwrap().aborted);

    let (mut client, mut server, run) = tunnelled().await;
    server.shutdown().await.unwrap();
    assert_eq!(read_all(&mut client).await, b"");
    client.write_all(b"more").await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut server).await, b"more");
    assert!(!run.await.unwrap().aborted);
}

#[tokio::test]
async fn a_reset_is_a_reset_on_the_other_side() {
    let (client, mut server, run) = tunnelled().await;
    client.set_zero_linger().unwrap();
    drop(client);
    let error = server.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(run.await.unwrap().aborted);

    let (mut client, server, run) = tunnelled().await;
    server.set_zero_linger().unwrap();
    drop(server);
    let error = client.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(run.await.unwrap().aborted);
}

/// The first write to a socket that was reset gets the reset, and a read after it would get an end.
#[tokio::test]
async fn a_reset_that_a_write_was_told_of_is_no_end() {
    for mode in [Mode::Copy, Mode::Splice] {
        let (mut client, near) = pair().await;
        let (far, mut server) = pair().await;
        server.write_all(b"half an answ").await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        client.write_all(b"still sending").await.unwrap();
        let mut tunnel = Tunnel::new(near.into_std().unwrap(), far.into_std().unwrap());
        tunnel.up.mode = mode;
        tunnel.ready(Which::Client, true, true, false);
        tunnel.ready(Which::Server, true, true, true);
        let Turn::Over(summary) = tunnel.run() else { panic!("{mode:?}: goes on") };
        assert!(summary.aborted);
        drop(tunnel);
        let mut got = [0; 12];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"half an answ");
        let error = client.read(&mut got).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{mode:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_takes_no_answer_of_the_server_to_be_noticed() {
    let (mut client, near) = pair().await;
    let (far, mut server) = pair().await;
    let near = near.into_std().unwrap();
    let same = near.try_clone().unwrap();
    let run = run(Tunnel::new(near, far.into_std().unwrap()));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut server).await, b"question");
    // Whether somebody still waits is asked from now on.
    while !rustix::net::sockopt::socket_keepalive(&same).unwrap() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(same);
    // What its kernel answers a minute after it was closed.
    client.set_zero_linger().unwrap();
    drop(client);
    let noticed = tokio::time::timeout(Duration::from_secs(20), run).await;
    assert!(noticed.expect("noticed").unwrap().aborted);
    // It was not broken off: what the server has not read yet is still its.
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
}

/// Who waits for room at the server does not read what would tell of the client's end.
#[tokio::test]
async fn a_client_that_is_gone_ends_its_upload_to_a_server_that_reads_nothing() {
    for half in [false, true] {
        let (mut client, mut server, run) = tunnelled().await;
        let (chunk, mut sent) = (pattern(64 * 1024, 0), 0);
        let wait = Duration::from_millis(500);
        while let Ok(wrote) = tokio::time::timeout(wait, client.write(&chunk)).await {
            sent += wrote.unwrap();
        }
        if half {
            client.shutdown().await.unwrap();
        }
        client.set_zero_linger().unwrap();
        drop(client);
        let noticed = tokio::time::timeout(Duration::from_secs(20), run).await;
        let summary = noticed.expect("noticed").unwrap();
        assert!(summary.aborted && summary.up > 0);
        let (mut got, mut buffer) = (0, vec![0; 64 * 1024]);
        let error = loop {
            match server.read(&mut buffer).await {
                Ok(0) => panic!("a reset is no end"),
                Ok(count) => got += count,
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(got > 0 && got < sent, "{got} of {sent}");
    }
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_uploads() {
    let (client, mut server, run) = tunnelled().await;
    let (mut read, mut write) = client.into_split();
    let upload = async {
        let chunk = pattern(64 * 1024, 0);
        while write.write_all(&chunk).await.is_ok() {}
    };
    let refuse = async {
        let mut first = [0; 1000];
        server.read_exact(&mut first).await.unwrap();
        server.write_all(b"413 too large").await.unwrap();
        // Closed for reading: what the client goes on sending is refused from here.
        drop(server);
    };
    let answer = async {
        let mut got = [0; 13];
        read.read_exact(&mut got).await.unwrap();
        got
    };
    let ((), (), got) = tokio::join!(upload, refuse, answer);
    assert_eq!(&got, b"413 too large");
    assert!(run.await.unwrap().aborted);
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_download() {
    let (client, mut server, run) = tunnelled().await;
    let chunk = pattern(64 * 1024, 0);
    server.write_all(&chunk).await.unwrap();
    drop(client);
    while server.write_all(&chunk).await.is_ok() {}
    run.await.unwrap();
}

#[tokio::test]
async fn a_shared_client_sees_the_end_although_another_holds_its_socket() {
    let (mut client, near) = pair().await;
    let (far, server) = pair().await;
    let kept_by_a_frozen_process = near.as_fd().try_clone_to_owned().unwrap();
    let tunnel = Tunnel::new(near.into_std().unwrap(), far.into_std().unwrap()).shared_client();
    let run = run(tunnel);
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(read_all(&mut client).await, b"");
    assert!(run.await.unwrap().aborted);
    drop(kept_by_a_frozen_process);
}

#[tokio::test]
async fn heads_of_a_plain_exchange_are_rewritten_and_bodies_not() {
    let head = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n".to_vec();
    let (mut client, mut server, run) =
        tunnelled_by(|t| t.with_request_head(head.clone()).with_response_gate(Answer::Framed))
            .await;
    client.write_all(b"body").await.unwrap();
    let mut got = vec![0; head.len() + 4];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [&head[..], b"body"].concat());
    let body = pattern(500_000, 9);
    let answer = async {
        server.write_all(b"HTTP/1.1 200 OK\r\nX: 1\r\nConnec").await.unwrap();
        tokio::task::yield_now().await;
        server.write_all(b"tion: keep-alive\r\n\r\n").await.unwrap();
        server.write_all(&body).await.unwrap();
        drop(server);
    };
    let ((), got) = tokio::join!(answer, read_all(&mut client));
    let expected = [&b"HTTP/1.1 200 OK\r\nX: 1\r\nConnection: close\r\n\r\n"[..], &body].concat();
    assert!(got == expected);
    drop(client);
    run.await.unwrap();
}
