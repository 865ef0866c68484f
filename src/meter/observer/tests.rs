mod clocks;
mod interleaved;
mod lost;
mod table;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::meter::attribution::Method;
use crate::meter::feed::{Budget, Feed, feed};
use crate::meter::pulse::Pulse;
use crate::meter::row::Completeness;
use crate::meter::websocket::tests::text;

#[derive(Default)]
struct Rows(Mutex<Vec<Row>>);

impl RowSink for Rows {
    fn record(&self, row: Row) {
        self.0.lock().unwrap().push(row);
    }
}

impl Rows {
    /// The last writing of each row.
    fn ledger(&self) -> Vec<Row> {
        let mut out: Vec<Row> = Vec::new();
        for row in self.0.lock().unwrap().iter() {
            match out.iter_mut().find(|r| r.id == row.id) {
                Some(old) => *old = row.clone(),
                None => out.push(row.clone()),
            }
        }
        out
    }
}

fn subject(alpn: Option<&[u8]>, attribution: Attributed) -> Subject {
    Subject {
        entry: Entry::unrecorded(Uuid::nil()),
        host: "api.example.com".to_owned(),
        port: 443,
        local: false,
        alpn: alpn.map(<[u8]>::to_vec),
        since: (Timestamp::UNIX_EPOCH, Instant::now()),
        clocks: |since| since,
        attribution,
    }
}

/// Observes what `script` feeds.
async fn observed(
    alpn: Option<&[u8]>,
    attribution: Attributed,
    script: impl FnOnce(&mut Feed),
) -> (Vec<Row>, Observed) {
    observed_as(subject(alpn, attribution), script).await
}

async fn observed_as(subject: Subject, script: impl FnOnce(&mut Feed)) -> (Vec<Row>, Observed) {
    let (mut feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
    script(&mut feed);
    drop(feed);
    let rows = Arc::new(Rows::default());
    let book = Arc::new(ArcSwap::from(Book::builtin()));
    let result = observe(watch, subject, rows.clone(), book, follower).await;
    (rows.ledger(), result)
}

fn nobody() -> Attributed {
    watch::channel(None).1
}

const REQUEST: &[u8] = b"GET /v1/x HTTP/1.1\r\nHost: h\r\n\r\n";
const QUESTION: &[u8] = b"POST /v1/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n\
    {\"model\":\"m\",\"stream\":true}\n";
const UPGRADE: &[u8] = b"GET /v1/responses HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\n\r\n";

#[tokio::test]
async fn the_responses_of_a_websocket_are_rows_and_so_is_the_socket() {
    let ask = || text(Side::Client, r#"{"type":"response.create","model":"m"}"#);
    let told = |how, broken: bool| async move {
        let (rows, observed) = observed(None, nobody(), |feed| {
            feed.bytes(Side::Client, UPGRADE);
            feed.bytes(Side::Server, SWITCH);
            feed.bytes(Side::Client, &ask());
            let over = r#"{"type":"response.completed","response":{"id":"r1","model":"m",
                "usage":{"input_tokens":7,"output_tokens":3}}}"#;
            feed.bytes(Side::Server, &text(Side::Server, over));
            feed.bytes(Side::Client, &ask());
            if broken {
                feed.bytes(Side::Server, &[0xff; 20]);
            }
            feed.closed(how);
        })
        .await;
        assert_eq!((rows.len(), observed.exchanges), (3, 3), "{rows:?}");
        assert!(rows.iter().all(|row| row.protocol == Protocol::Ws && row.status == Some(101)));
        assert_eq!((rows[1].tokens.input, rows[1].tokens.output), (Some(7), Some(3)));
        assert_eq!(rows[1].completeness, Completeness::Complete);
        let end = |row: &Row| (row.completeness, row.completeness_reason.clone());
        assert_eq!(rows[0].billable, broken);
        (end(&rows[0]), end(&rows[2]))
    };
    let (socket, cut) = told(Closing::By(Side::Client), false).await;
    assert_eq!(socket, (Completeness::Complete, None));
    let hung_up = Some("the client hung up".to_owned());
    assert_eq!(cut, (Completeness::Interrupted, hung_up));
    let (_, cut) = told(Closing::Ours, false).await;
    assert_eq!(cut, (Completeness::Interrupted, Some("daemon stopped".to_owned())));
    let (socket, cut) = told(Closing::Orderly, true).await;
    let malformed = Some("a WebSocket frame was malformed".to_owned());
    assert_eq!(socket, (Completeness::Lossy, malformed.clone()));
    assert_eq!(cut, (Completeness::Lossy, malformed));
}

/// Without ALPN the first bytes tell the protocol, however few come at once.
#[tokio::test]
async fn the_protocol_is_told_by_first_bytes_in_any_pieces() {
    use crate::meter::http2::tests::{block, frame};
    let head = block(&[(":method", "POST"), (":path", "/v1/messages"), (":authority", "h")]);
    let h2 =
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[]), &frame(1, 5, 1, &head)];
    for (said, path, protocol) in [
        (h2.concat(), "/v1/messages", Protocol::H2),
        (REQUEST.to_vec(), "/v1/x", Protocol::H1),
        (b"PRIX /x HTTP/1.1\r\nHost: h\r\n\r\n".to_vec(), "/x", Protocol::H1),
    ] {
        for size in [1, 2, 15, 16, said.len()] {
            let (rows, _) = observed(None, nobody(), |feed| {
                said.chunks(size).for_each(|piece| feed.bytes(Side::Client, piece));
                feed.closed(Closing::Orderly);
            })
            .await;
            let seen: Vec<_> = rows.iter().map(|row| (row.path.as_str(), row.protocol)).collect();
            assert_eq!(seen, [(path, protocol)], "in pieces of {size}");
        }
    }
}

#[test]
fn a_websocket_that_is_open_is_no_request_under_way() {
    let rows = Arc::new(Rows::default());
    let (_feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
    let book = Arc::new(ArcSwap::from(Book::builtin()));
    let subject = subject(None, nobody());
    let mut observer = Observer::new(subject, rows.clone(), book, follower, watch.progress());
    for (side, bytes) in [(Side::Client, UPGRADE), (Side::Server, SWITCH)] {
        observer.see(Seen::Bytes { side, at: Instant::now(), bytes });
    }
    observer.settle();
    let [row] = &rows.ledger()[..] else { panic!("not one row") };
    assert_eq!((row.protocol, row.completeness), (Protocol::Ws, Completeness::Open));
    assert!(!row.billable);
}

/// A stream's row says what it has told so far, as we may die before its end; what is over by the next
/// rest is written once.
#[test]
fn an_answer_that_goes_on_is_written_with_its_head_and_its_first_usage() {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n";
    const START: &[u8] = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":\
        {\"model\":\"m\",\"usage\":{\"input_tokens\":25,\"output_tokens\":1}}}\n\n";
    const DELTA: &[u8] = b"event: ping\ndata: {\"type\":\"ping\"}\n\n";
    let written = |rests: &[&[(Side, &[u8])]]| {
        let rows = Arc::new(Rows::default());
        let (_feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
        let book = Arc::new(ArcSwap::from(Book::builtin()));
        let subject = Subject { host: "api.anthropic.com".to_owned(), ..subject(None, nobody()) };
        let mut observer = Observer::new(subject, rows.clone(), book, follower, watch.progress());
        for rest in rests {
            for (side, bytes) in *rest {
                observer.see(Seen::Bytes { side: *side, at: Instant::now(), bytes });
            }
            observer.settle();
        }
        let rows = rows.0.lock().unwrap();
        rows.iter().map(|row| (row.status, row.tokens.input)).collect::<Vec<_>>()
    };
    let asked = (Side::Client, QUESTION);
    let answer = |bytes| (Side::Server, bytes);
    let (head, start, delta) = (answer(HEAD), answer(START), answer(DELTA));
    let apart: [&[_]; 5] = [&[asked], &[head], &[start], &[delta], &[delta]];
    assert_eq!(written(&apart), [(None, None), (Some(200), None), (Some(200), Some(25))]);
    let together: [&[_]; 3] = [&[asked], &[head, start, delta], &[delta]];
    assert_eq!(written(&together), [(None, None), (Some(200), Some(25))]);
    assert_eq!(written(&[&[asked, head, start]]), [(Some(200), Some(25))]);
    let short = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(written(&[&[asked], &[short]]), [(None, None), (Some(200), None)]);
    assert_eq!(written(&[&[asked, short]]), [(Some(200), None)]);
}

#[tokio::test]
async fn who_broke_off_is_what_the_row_says() {
    let cut = |how| async move {
        let (rows, _) = observed(Some(b"http/1.1"), nobody(), |feed| {
            feed.bytes(Side::Client, REQUEST);
            feed.bytes(Side::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            feed.closed(how);
        })
        .await;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(row.completeness, Completeness::Interrupted);
        (row.error_class.clone(), row.completeness_reason.clone())
    };
    assert_eq!(cut(Closing::By(Side::Client)).await.0.as_deref(), Some("client_abort"));
    assert_eq!(cut(Closing::By(Side::Server)).await.0.as_deref(), Some("upstream_cut"));
    assert_eq!(cut(Closing::Ours).await, (None, Some("daemon stopped".to_owned())));
}

#[tokio::test]
async fn a_client_that_was_told_to_leave_has_not_hung_up() {
    for how in [Closing::Orderly, Closing::By(Side::Client)] {
        let (rows, _) = observed(Some(b"http/1.1"), nobody(), |feed| {
            feed.bytes(Side::Client, REQUEST);
            feed.bytes(Side::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
            feed.parts();
            feed.end(Side::Client, false);
            feed.end(Side::Server, false);
            feed.closed(how);
        })
        .await;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        let reason = Some("daemon stopped".to_owned());
        assert_eq!((&row.error_class, &row.completeness_reason), (&None, &reason), "{how:?}");
    }
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_the_providers_failure() {
    for answered in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
        // The provider closes when it hears of it.
        for (first, clean, expected) in [
            (Side::Client, false, "client_abort"),
            (Side::Client, true, "client_abort"),
            (Side::Server, false, if answered.is_empty() { "network" } else { "upstream_cut" }),
        ] {
            let (rows, _) = observed(Some(b"http/1.1"), nobody(), |feed| {
                feed.bytes(Side::Client, REQUEST);
                feed.bytes(Side::Server, answered);
                feed.end(first, clean);
                feed.end(if first == Side::Client { Side::Server } else { Side::Client }, false);
                feed.closed(Closing::Orderly);
            })
            .await;
            let [row] = &rows[..] else { panic!("{rows:?}") };
            assert_eq!(row.error_class.as_deref(), Some(expected), "{first:?}: {row:?}");
        }
    }
}

/// Codex, when its user interrupts it: there is no Close frame.
#[tokio::test]
async fn nor_is_one_that_leaves_a_websocket_without_a_word() {
    for (first, clean, expected) in [
        (Side::Client, false, "client_abort"),
        (Side::Client, true, "client_abort"),
        (Side::Server, false, "upstream_cut"),
        (Side::Server, true, "upstream_cut"),
    ] {
        let (rows, _) = observed(None, nobody(), |feed| {
            feed.bytes(Side::Client, UPGRADE);
            feed.bytes(Side::Server, SWITCH);
            feed.bytes(
                Side::Client,
                &text(Side::Client, r#"{"type":"response.create","model":"m"}"#),
            );
            feed.end(first, clean);
            feed.end(if first == Side::Client { Side::Server } else { Side::Client }, true);
            feed.closed(Closing::Orderly);
        })
        .await;
        let [_, turn] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(turn.error_class.as_deref(), Some(expected), "{first:?} {clean}: {turn:?}");
    }
}

#[tokio::test]
async fn a_stream_without_a_length_is_whole_when_its_last_event_came() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let start = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":\
        {\"model\":\"m\",\"usage\":{\"input_tokens\":7,\"output_tokens\":1}}}\n\n";
    let stop = b"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\
        \"usage\":{\"output_tokens\":9}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let ended = |parts: Vec<&'static [u8]>, clean: Option<bool>, how| async move {
        let (rows, _) = observed(Some(b"http/1.1"), nobody(), |feed| {
            feed.bytes(Side::Client, QUESTION);
            feed.bytes(Side::Server, head);
            parts.iter().for_each(|part| feed.bytes(Side::Server, part));
            if let Some(clean) = clean {
                feed.end(Side::Server, clean);
            }
            feed.closed(how);
        })
        .await;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        row.completeness
    };
    let (all, half) = (vec![&start[..], &stop[..]], vec![&start[..]]);
    let (orderly, reset) = (Closing::Orderly, Closing::By(Side::Server));
    for (parts, clean, how, expected) in [
        (all.clone(), Some(true), orderly, Completeness::Complete),
        (all.clone(), Some(false), orderly, Completeness::Complete),
        (all, None, reset, Completeness::Complete),
        (half.clone(), Some(false), orderly, Completeness::Interrupted),
        (half, None, reset, Completeness::Interrupted),
        (vec![], Some(false), orderly, Completeness::Interrupted),
    ] {
        let got = ended(parts.clone(), clean, how).await;
        assert_eq!(got, expected, "{} parts, {clean:?}, {how:?}", parts.len());
    }
}

#[tokio::test]
async fn what_cannot_be_followed_is_one_lossy_row() {
    for (alpn, bytes) in [(Some(&b"imap"[..]), REQUEST), (None, &b"\0\0garbage\r\n\r\n"[..])] {
        let (rows, observed) = observed(alpn, nobody(), |feed| {
            feed.bytes(Side::Client, bytes);
            feed.bytes(Side::Client, bytes);
            feed.closed(Closing::Orderly);
        })
        .await;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!(row.completeness, Completeness::Lossy);
        assert!(observed.lossy.is_some() && row.completeness_reason.is_some());
    }
}

#[tokio::test]
async fn a_feed_that_overflowed_ends_open_rows() {
    let (rows, observed) = observed(None, nobody(), |feed| {
        feed.bytes(Side::Client, REQUEST);
        feed.bytes(Side::Server, &vec![b'x'; 2 << 20]);
        feed.closed(Closing::Orderly);
    })
    .await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.completeness, row.path.as_str()), (Completeness::Lossy, "/v1/x"));
    assert_eq!(observed, Observed { exchanges: 1, lossy: Some(GaveUp::Overrun), aborted: false });
}

#[tokio::test]
async fn after_a_gap_the_next_request_has_its_row() {
    const ANSWER: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
    let bodied = b"POST /v1/long HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n";
    let second = b"POST /v1/second HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    for broken in [&[b'x'; 2 << 20][..], b"no such protocol\r\n\r\n"] {
        let (rows, observed) = observed(None, nobody(), |feed| {
            feed.bytes(Side::Client, bodied);
            feed.bytes(Side::Server, broken);
            feed.bytes(Side::Client, b"the body\n");
            feed.bytes(Side::Client, second);
            feed.bytes(Side::Server, b"rest of the first answer");
            feed.bytes(Side::Client, second);
            feed.bytes(Side::Server, ANSWER);
            feed.closed(Closing::Orderly);
        })
        .await;
        let told: Vec<_> = rows.iter().map(|row| (row.path.as_str(), row.completeness)).collect();
        let expected = [("/v1/long", Completeness::Lossy), ("/v1/second", Completeness::Complete)];
        assert_eq!(told, expected);
        assert_eq!(observed.exchanges, 2);
        assert!(observed.lossy.is_some());
    }
}

proptest! {
    /// In whatever pieces, and whichever answer is too much.
    #[test]
    fn a_gap_costs_one_row(asked in 1_usize..6, lost in 0_usize..5, piece in 1_usize..200) {
        let lost = lost % asked;
        let script = |feed: &mut Feed| {
            for n in 0..asked {
                let ask = format!("POST /v1/{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
                let (line, rest) = ask.split_at(ask.find('\n').unwrap() + 1);
                feed.bytes(Side::Client, line.as_bytes());
                rest.as_bytes().chunks(piece).for_each(|bytes| feed.bytes(Side::Client, bytes));
                let length = if n == lost { 2 << 20 } else { 5 };
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                head.as_bytes().chunks(piece).for_each(|bytes| feed.bytes(Side::Server, bytes));
                feed.bytes(Side::Server, &vec![b'x'; length]);
            }
            feed.closed(Closing::Orderly);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (rows, _) = runtime.block_on(observed(None, nobody(), script));
        let told: Vec<_> = rows.iter().map(|row| (row.path.clone(), row.completeness)).collect();
        let expected: Vec<_> = (0..asked)
            .map(|n| (format!("/v1/{n}"), if n == lost { Completeness::Lossy } else { Completeness::Complete }))
            .collect();
        prop_assert_eq!(told, expected);
    }
}

#[tokio::test]
async fn an_owner_found_late_is_written_all_the_same() {
    let (found, attribution) = watch::channel(None);
    let known = Attribution {
        pid: Some(7),
        program: Some("tool".to_owned()),
        project: Some("shop".to_owned()),
        project_source: Some(Method::Git),
        ..Attribution::default()
    };
    let run = observed(None, attribution, |feed| {
        feed.bytes(Side::Client, REQUEST);
        feed.bytes(Side::Server, b"HTTP/1.1 204 No Content\r\n\r\n");
        feed.closed(Closing::Orderly);
    });
    let late = async {
        tokio::task::yield_now().await;
        found.send_replace(Some(Arc::new(known)));
    };
    let ((rows, _), ()) = tokio::join!(run, late);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(row.completeness, Completeness::Complete);
    assert_eq!((row.client_pid, row.client.as_deref()), (Some(7), Some("tool")));
    assert_eq!(
        (row.project.as_deref(), row.project_source.as_deref()),
        (Some("shop"), Some("git"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_owner_found_in_a_rest_does_not_end_it() {
    let pulse = Pulse::start(&tokio::runtime::Handle::current());
    pulse.news(&Arc::default());
    let (mut feed, watch) = feed(&Budget::new(1 << 20), 1 << 20, &pulse);
    let (found, attribution) = watch::channel(None);
    let rows = Arc::new(Rows::default());
    let book = Arc::new(ArcSwap::from(Book::builtin()));
    let sink: Arc<dyn RowSink> = rows.clone();
    let observer = tokio::spawn(observe(watch, subject(None, attribution), sink, book, follower));
    let others = async || {
        for _ in 0..9 {
            tokio::task::yield_now().await;
        }
    };
    others().await;
    feed.bytes(Side::Client, REQUEST);
    found.send_replace(Some(Arc::default()));
    others().await;
    feed.bytes(Side::Server, b"HTTP/1.1 204 No Content\r\n\r\n");
    feed.closed(Closing::Orderly);
    observer.await.unwrap();
    let rows = rows.0.lock().unwrap();
    assert_eq!(rows.iter().map(|row| row.status).collect::<Vec<_>>(), [Some(204)]);
}

/// The search for the owner ends on another thread, at any moment.
#[tokio::test]
async fn an_owner_found_meanwhile_never_brings_back_an_earlier_state() {
    for delay in (0..4000_u32).step_by(4) {
        let (found, attribution) = watch::channel(None);
        let (go, gone) = std::sync::mpsc::channel();
        let finder = std::thread::spawn(move || {
            let () = gone.recv().unwrap();
            for _ in 0..delay {
                std::hint::spin_loop();
            }
            found.send_replace(Some(Arc::new(Attribution::default())));
        });
        let (rows, _) = observed(None, attribution, |feed| {
            for _ in 0..50 {
                feed.bytes(Side::Client, REQUEST);
                feed.bytes(Side::Server, b"HTTP/1.1 204 No Content\r\n\r\n");
            }
            feed.closed(Closing::Orderly);
            go.send(()).unwrap();
        })
        .await;
        finder.join().unwrap();
        assert_eq!(rows.len(), 50);
        let earlier = rows.iter().filter(|r| r.completeness != Completeness::Complete).count();
        assert_eq!(earlier, 0, "after {delay}");
    }
}
