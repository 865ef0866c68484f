//! The pump between two peers in memory, with time that moves only when nobody can do anything.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::meter::feed::{Budget, Watch, feed};

/// Our end of a connection in memory.
struct End {
    io: BufReader<DuplexStream>,
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
    let (client, ours) = duplex(1 << 16);
    let (server, theirs) = duplex(1 << 16);
    let (stage, mut told) = watch::channel(Stage::Serving);
    let (mut feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
    let pump = tokio::spawn(async move {
        let end = |io| End { io: BufReader::new(io), aborted: false };
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
