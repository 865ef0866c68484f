//! The pump between two peers in memory, with time that moves only when nobody can do anything.

mod leaving;

use std::sync::Arc;

use tokio::io::{
    AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream, ReadBuf, duplex,
};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::meter::feed::{Budget, Watch, feed};
use crate::meter::plain::Plain;
use crate::testing::pair;

/// Our end of a connection in memory.
struct End {
    io: BufReader<DuplexStream>,
    h2: bool,
    aborted: bool,
}

impl tokio::io::AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncBufRead for End {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().io).poll_fill_buf(cx)
    }
    fn consume(mut self: Pin<&mut Self>, n: usize) {
        Pin::new(&mut self.io).consume(n);
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Peer for End {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
    fn speaks_h2(&self) -> bool {
        self.h2
    }
    fn poll_bare_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_shutdown(cx)
    }
    fn abort(&mut self) {
        self.aborted = true;
    }
}

struct World {
    client: DuplexStream,
    server: DuplexStream,
    stage: watch::Sender<Stage>,
    /// Kept, or nobody would observe.
    watch: Option<Watch>,
    /// How it ended, whether it was an abort, and what of the client's was left unread.
    pump: JoinHandle<(Ended, bool, usize)>,
}

fn world() -> World {
    world_of(false, 1 << 16)
}

/// `room`: so much the client's connection takes until it reads.
fn world_of(h2: bool, room: usize) -> World {
    let (client, ours) = duplex(room);
    let (server, theirs) = duplex(1 << 16);
    let (stage, mut told) = watch::channel(Stage::Serving);
    let (mut feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
    let pump = tokio::spawn(async move {
        let end = |io| End { io: BufReader::new(io), h2, aborted: false };
        let (mut c, mut s) = (end(ours), end(theirs));
        let ended = run(&mut c, &mut s, &mut feed, &mut told).await;
        let mut left = [0; 1024];
        let unread = timeout(Duration::ZERO, c.read(&mut left)).await;
        (ended, c.aborted, unread.map_or(0, Result::unwrap_or_default))
    });
    World { client, server, stage, watch: Some(watch), pump }
}

impl World {
    async fn up(&mut self, text: &[u8]) {
        self.client.write_all(text).await.unwrap();
        let mut got = vec![0; text.len()];
        self.server.read_exact(&mut got).await.unwrap();
        assert_eq!(got, text);
    }

    async fn down(&mut self, text: &[u8]) {
        self.server.write_all(text).await.unwrap();
        let mut got = vec![0; text.len()];
        self.client.read_exact(&mut got).await.unwrap();
        assert_eq!(got, text);
    }

    /// One exchange, which the observer follows to its end.
    async fn exchange(&mut self) {
        self.up(b"request").await;
        self.down(b"answer").await;
        let watch = self.watch.as_mut().unwrap();
        for _ in 0..2 {
            watch.next(|_| ()).await.unwrap();
        }
    }

    /// Once the client has closed too.
    async fn ends_by_us(self, within: Duration) {
        drop(self.client);
        let (ended, aborted, unread) = timeout(within, self.pump).await.expect("it ends").unwrap();
        assert_eq!((ended.how, aborted, unread), (Closing::Ours, false, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_between_exchanges() {
    let mut world = world();
    world.exchange().await;
    world.stage.send_replace(Stage::Draining);
    let began = Instant::now();
    assert_eq!(world.client.read(&mut [0]).await.unwrap(), 0);
    assert!(began.elapsed() <= DRAIN_TICK * (QUIET_BETWEEN + 1), "{:?}", began.elapsed());
    assert_eq!(world.server.read(&mut [0]).await.unwrap(), 0);
    world.ends_by_us(CROSSING).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_crossed_our_goodbye_is_taken_from_the_socket() {
    let mut world = world();
    world.exchange().await;
    world.stage.send_replace(Stage::Draining);
    assert_eq!(world.client.read(&mut [0]).await.unwrap(), 0);
    world.client.write_all(b"crossing request").await.unwrap();
    // And the rest of it, as long as the client talks.
    sleep(CROSSING * 2).await;
    world.client.write_all(b", second part").await.unwrap();
    world.ends_by_us(CLOSE_DEADLINE).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_request_in_the_drain_keeps_the_connection_until_its_answer() {
    let mut world = world();
    world.exchange().await;
    world.stage.send_replace(Stage::Draining);
    sleep(DRAIN_TICK).await;
    world.up(b"one more").await;
    sleep(Duration::from_secs(20)).await;
    assert!(!world.pump.is_finished());
    world.down(b"its answer").await;
    let watch = world.watch.as_mut().unwrap();
    for _ in 0..2 {
        watch.next(|_| ()).await.unwrap();
    }
    assert_eq!(world.client.read(&mut [0]).await.unwrap(), 0);
    world.ends_by_us(CLOSE_DEADLINE).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_answer_is_not_closed_because_nobody_watches() {
    let mut world = world();
    world.up(b"request").await;
    // The observer gave up: boundaries are unknown.
    world.watch = None;
    world.stage.send_replace(Stage::Draining);
    sleep(Duration::from_secs(20)).await;
    assert!(!world.pump.is_finished(), "thinks for a while before it answers");
    world.down(b"half an").await;
    sleep(Duration::from_secs(9)).await;
    assert!(!world.pump.is_finished(), "pauses in its answer");
    world.down(b" answer").await;
    assert_eq!(world.client.read(&mut [0]).await.unwrap(), 0);
    world.ends_by_us(CLOSE_DEADLINE).await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_end_is_cut() {
    let mut world = world();
    world.up(b"request").await;
    world.stage.send_replace(Stage::Draining);
    sleep(Duration::from_secs(60)).await;
    assert!(!world.pump.is_finished());
    world.stage.send_replace(Stage::Cut);
    let (ended, aborted, _) = world.pump.await.unwrap();
    assert_eq!((ended.how, aborted), (Closing::Ours, true));
}

/// A pump between two sockets, without TLS. What it is told from outside must be kept.
fn between(
    client: TcpStream,
    server: TcpStream,
) -> (JoinHandle<Ended>, (watch::Sender<Stage>, Watch)) {
    let (stage, mut told) = watch::channel(Stage::Serving);
    let (mut feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
    let pump = tokio::spawn(async move {
        let (mut client, mut server) = (Plain::new(client), Plain::new(server));
        run(&mut client, &mut server, &mut feed, &mut told).await
    });
    (pump, (stage, watch))
}

/// The first write to a socket that was reset gets the reset, and a read after it would get an end.
#[tokio::test]
async fn a_reset_that_a_write_was_told_of_is_no_end() {
    let ((mut client, ours), (theirs, mut server)) = (pair().await, pair().await);
    server.write_all(b"half an answ").await.unwrap();
    server.set_zero_linger().unwrap();
    drop(server);
    client.write_all(b"still sending").await.unwrap();
    let (pump, _kept) = between(ours, theirs);
    let mut got = [0; 12];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"half an answ");
    let error = client.read(&mut got).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(pump.await.unwrap().how, Closing::By(Side::Server));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_gone_takes_no_answer_of_the_server_to_be_noticed() {
    let ((mut client, ours), (theirs, mut server)) = (pair().await, pair().await);
    let (pump, _kept) = between(ours, theirs);
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"question");
    // One that waits for its answer is there.
    sleep(LOOK * 3).await;
    server.write_all(b"answer").await.unwrap();
    client.read_exact(&mut [0; 6]).await.unwrap();
    sleep(LOOK * 3).await;
    assert!(!pump.is_finished());
    // What its kernel answers a minute after it was closed.
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(pump.await.unwrap().how, Closing::By(Side::Client));
    // It was not broken off: what the server has not read yet is still its.
    assert_eq!(server.read(&mut got).await.unwrap(), 0);
}
