//! A connection of HTTP/2 on which requests overlap, while the daemon wants to stop.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::meter::feed::Seen;
use crate::meter::http::{Follower, HttpEvent};
use crate::meter::http2::Http2;
use crate::meter::http2::tests::frame;

/// That excludes nobody.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
const ANSWER: Duration = Duration::from_secs(3);

/// Looks on as the observer does: counts what begins and what is open.
async fn look_on(mut watch: Watch) {
    let progress = watch.progress();
    let mut follower = Http2::new();
    let mut open = 0_usize;
    let mut look = |seen: Seen<'_>| {
        let mut sink = |event: HttpEvent<'_>| match event {
            HttpEvent::Request { .. } => {
                progress.note_begun();
                open += 1;
            }
            HttpEvent::ResponseEnd { .. } | HttpEvent::Cut { .. } => open -= 1,
            HttpEvent::RequestBody { .. }
            | HttpEvent::RequestEnd { .. }
            | HttpEvent::Response { .. }
            | HttpEvent::ResponseBody { .. } => {}
            HttpEvent::Informational { .. }
            | HttpEvent::Trailers { .. }
            | HttpEvent::Upgraded { .. }
            | HttpEvent::Tunnelled { .. }
            | HttpEvent::Lost { .. }
            | HttpEvent::GaveUp { .. } => panic!("{event:?}"),
        };
        if let Seen::Bytes { side, bytes, .. } = seen {
            follower.feed(side, bytes, &mut sink);
        }
        progress.set_open(open);
    };
    while watch.next(&mut look).await.is_some() {}
}

/// Answers each request after a while, in pieces.
async fn answer_all(server: DuplexStream, served: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(server).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let answer = http::Response::new(());
            let mut send = respond.send_response(answer, false).unwrap();
            for _ in 0..10 {
                send.send_data(vec![b's'; 3000].into(), false).unwrap();
                sleep(ANSWER / 10).await;
            }
            send.send_data(vec![b'e'; 10].into(), true).unwrap();
            served.fetch_add(1, Ordering::SeqCst);
        });
    }
}

/// A client of h2 that talks to a server of it through the pump.
struct Conversation {
    send: h2::client::SendRequest<bytes::Bytes>,
    /// Requests answered so far.
    served: Arc<AtomicUsize>,
    stage: watch::Sender<Stage>,
    pump: JoinHandle<(Ended, bool, usize)>,
    parts: Parts,
}

struct Parts {
    connection: JoinHandle<Result<(), h2::Error>>,
    server: JoinHandle<()>,
    observer: JoinHandle<()>,
}

impl Parts {
    async fn end(self) {
        self.connection.await.unwrap().unwrap();
        self.server.await.unwrap();
        self.observer.await.unwrap();
    }
}

async fn conversation() -> Conversation {
    let World { client, server, stage, watch, pump } = world_of(true, 1 << 16);
    let observer = tokio::spawn(look_on(watch.unwrap()));
    let served = Arc::default();
    let server = tokio::spawn(answer_all(server, Arc::clone(&served)));
    let (send, connection) = h2::client::handshake(client).await.unwrap();
    let parts = Parts { connection: tokio::spawn(connection), server, observer };
    Conversation { send, served, stage, pump, parts }
}

async fn ask(send: h2::client::SendRequest<bytes::Bytes>) -> Result<usize, h2::Error> {
    let request = http::Request::post("https://api.example.com/v1").body(()).unwrap();
    let (response, _) = send.ready().await?.send_request(request, true)?;
    let mut body = response.await?.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        length += data.len();
    }
    Ok(length)
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_requests_overlap_goes_elsewhere_and_loses_none() {
    let Conversation { send, served, stage, pump, parts } = conversation().await;
    let started = Instant::now();
    let mut asked = Vec::new();
    let refused = loop {
        asked.push(tokio::spawn(ask(send.clone())));
        sleep(ANSWER / 3).await;
        if started.elapsed() > Duration::from_secs(4) {
            stage.send_replace(Stage::Draining);
        }
        if let Err(e) = send.clone().ready().await {
            break e;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "it is told in time");
    };
    let told = started.elapsed();
    assert!(told >= PARTING, "not while it may end by itself: {told:?}");
    assert!(refused.is_go_away() && refused.is_remote(), "{refused:?}");
    assert_eq!(refused.reason(), Some(h2::Reason::NO_ERROR));
    drop(send);
    let count = asked.len();
    let mut wholes = 0;
    for (n, answer) in asked.into_iter().enumerate() {
        match answer.await.unwrap() {
            Ok(length) => {
                assert_eq!(length, 30_010);
                wholes += 1;
            }
            // One that the client had not sent yet is one that it repeats.
            Err(e) => assert!(e.is_go_away() && n + 1 == count, "{n} of {count}: {e}"),
        }
    }
    assert_eq!(served.load(Ordering::SeqCst), wholes, "whatever was sent was answered");
    let (ended, aborted, _) = timeout(CLOSE_DEADLINE * 3, pump).await.unwrap().unwrap();
    assert!(!aborted, "{ended:?}");
    drop(stage);
    parts.end().await;
}

/// Says it is HTTP/2 and lets exchanges begin, one each second, one of them always open.
async fn busy(world: &mut World, seconds: u32) -> Vec<u8> {
    let mut watch = world.watch.take().unwrap();
    let progress = watch.progress();
    tokio::spawn(async move { while watch.next(|_| ()).await.is_some() {} });
    progress.set_open(1);
    let mut got = Vec::new();
    for _ in 0..seconds {
        progress.note_begun();
        world.client.write_all(b"up").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let mut buffer = [0; 1024];
        while let Ok(n) = timeout(Duration::from_millis(1), world.client.read(&mut buffer)).await {
            got.extend_from_slice(&buffer[..n.unwrap()]);
        }
    }
    got
}

#[tokio::test(start_paused = true)]
async fn it_is_said_at_once_between_two_frames_and_not_within_one() {
    // The client takes a few bytes at a time.
    for room in [1, 7, 1024] {
        let settings = frame(4, 0, 0, &[]);
        let data = frame(0, 0, 1, b"some data");
        for cut in 0..=data.len() {
            let mut world = world_of(true, room);
            world.server.write_all(&settings).await.unwrap();
            world.server.write_all(&data[..cut]).await.unwrap();
            world.stage.send_replace(Stage::Draining);
            let before = busy(&mut world, 15).await;
            let between = cut == 0 || cut == data.len();
            let said: &[u8] = if between { &GOAWAY } else { &[] };
            assert_eq!(before, [&settings, &data[..cut], said].concat(), "{room} {cut}");
            world.server.write_all(&data[cut..]).await.unwrap();
            world.server.write_all(&data).await.unwrap();
            let after = busy_reads(&mut world).await;
            let said: &[u8] = if between { &[] } else { &GOAWAY };
            assert_eq!(after, [&data[cut..], said, &data].concat(), "{room} {cut}");
            let length = settings.len() + 2 * data.len();
            drop(world.server);
            drop(world.client);
            let (ended, _, _) = timeout(CLOSE_DEADLINE, world.pump).await.unwrap().unwrap();
            assert_eq!(ended.bytes_down, length as u64, "what is ours is not counted");
        }
    }
}

async fn busy_reads(world: &mut World) -> Vec<u8> {
    let (mut got, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(n) = timeout(Duration::from_secs(1), world.client.read(&mut buffer)).await {
        got.extend_from_slice(&buffer[..n.unwrap()]);
    }
    got
}

#[tokio::test(start_paused = true)]
async fn it_is_not_said_where_it_could_do_harm_or_no_good() {
    let settings = frame(4, 0, 0, &[]);
    // HTTP/1.1; nothing begins any more; not draining.
    for (h2, begins, draining) in [(false, 15, true), (true, 4, true), (true, 15, false)] {
        let mut world = world_of(h2, 1024);
        world.server.write_all(&settings).await.unwrap();
        if draining {
            world.stage.send_replace(Stage::Draining);
        }
        let mut got = busy(&mut world, begins).await;
        sleep(Duration::from_secs(20)).await;
        got.extend(busy_reads(&mut world).await);
        assert_eq!(got, settings, "{h2} {begins} {draining}");
        assert!(!world.pump.is_finished());
    }
    // It has lost sight.
    let mut world = world_of(true, 1024);
    world.server.write_all(&settings).await.unwrap();
    world.watch.as_ref().unwrap().progress().set_lossy(true);
    world.stage.send_replace(Stage::Draining);
    assert_eq!(busy(&mut world, 15).await, settings);
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn goaway(last: u8) -> Vec<u8> {
    frame(7, 0, 0, &[0, 0, 0, last, 0, 0, 0, 0])
}

/// One of HTTP/2 with both greetings and a whole exchange; nobody observes it.
async fn greeted() -> World {
    let mut world = world_of(true, 1024);
    world.up(PREFACE).await;
    world.up(&frame(4, 0, 0, &[])).await;
    world.down(&frame(4, 0, 0, &[])).await;
    world.up(&frame(1, 5, 1, b"ask")).await;
    world.down(&frame(1, 5, 1, b"answer")).await;
    world
}

#[tokio::test(start_paused = true)]
async fn where_no_request_is_open_the_client_is_told_at_once() {
    let mut world = greeted().await;
    let began = Instant::now();
    world.stage.send_replace(Stage::Draining);
    let mut got = Vec::new();
    world.client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, goaway(1));
    assert!(began.elapsed() < DRAIN_TICK, "{:?}", began.elapsed());
    assert_eq!(world.server.read(&mut [0]).await.unwrap(), 0);
    world.ends_by_us(CLOSE_DEADLINE).await;
}

/// One worker, back to back: the answer's last byte is followed by the word, and what the client had
/// sent by then and the server has not heard is for it to repeat.
#[tokio::test(start_paused = true)]
async fn a_request_that_crosses_the_word_never_reaches_the_server() {
    let mut world = greeted().await;
    world.up(&frame(1, 5, 3, b"ask")).await;
    world.stage.send_replace(Stage::Draining);
    world.down(&frame(1, 4, 3, b"head")).await;
    sleep(Duration::from_secs(20)).await;
    assert!(!world.pump.is_finished(), "it is in the middle of one");
    let answer = [frame(0, 1, 3, b"end"), frame(6, 0, 0, &[0; 8])].concat();
    world.server.write_all(&answer).await.unwrap();
    let mut got = vec![0; answer.len() + 17];
    world.client.read_exact(&mut got).await.unwrap();
    assert_eq!(got, [answer, goaway(3)].concat());
    world.client.write_all(&frame(1, 5, 5, b"ask")).await.unwrap();
    got.clear();
    world.server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"");
    world.ends_by_us(CLOSE_DEADLINE).await;
}

/// It takes nothing for a while. Until the first byte of the word is out it may begin another request.
#[tokio::test(start_paused = true)]
async fn a_client_that_is_slow_to_read_is_heard_until_the_word_has_begun() {
    for room_for_the_word in [0, 10] {
        let mut world = greeted().await;
        world.up(&frame(1, 5, 3, b"ask")).await;
        world.stage.send_replace(Stage::Draining);
        let answer = frame(0, 1, 3, &vec![b'x'; 1024 - 9 - room_for_the_word]);
        world.server.write_all(&answer).await.unwrap();
        sleep(DRAIN_TICK).await;
        let next = frame(1, 5, 5, b"ask");
        world.client.write_all(&next).await.unwrap();
        sleep(DRAIN_TICK).await;
        let mut wanted = answer;
        let mut heard = Vec::new();
        if room_for_the_word == 0 {
            let end = frame(1, 5, 5, b"answer");
            world.server.write_all(&end).await.unwrap();
            wanted.extend(end);
            wanted.extend(goaway(5));
            heard = next;
        } else {
            wanted.extend(goaway(3));
        }
        let mut got = Vec::new();
        world.client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, wanted);
        got.clear();
        world.server.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, heard);
        world.ends_by_us(CLOSE_DEADLINE).await;
    }
}

/// A client and a server of h2: back to back across three drains.
#[tokio::test(start_paused = true)]
async fn one_request_after_the_other_survives_every_drain() {
    let mut answered = 0;
    for drain in 1..=3_u32 {
        let Conversation { send, served, stage, pump, parts } = conversation().await;
        let started = Instant::now();
        let error = loop {
            if started.elapsed() > ANSWER / 2 * drain {
                stage.send_replace(Stage::Draining);
            }
            match ask(send.clone()).await {
                Ok(30_010) => answered += 1,
                Ok(length) => panic!("{length}"),
                Err(e) => break e,
            }
        };
        assert!(error.is_go_away() && error.is_remote(), "{error:?}");
        assert_eq!(served.load(Ordering::SeqCst), answered, "{drain}");
        assert!(started.elapsed() <= ANSWER * 3, "{:?}", started.elapsed());
        answered = 0;
        drop(send);
        let (ended, aborted, _) = timeout(CLOSE_DEADLINE * 3, pump).await.unwrap().unwrap();
        assert_eq!((ended.how, aborted), (Closing::Ours, false));
        parts.end().await;
    }
}
