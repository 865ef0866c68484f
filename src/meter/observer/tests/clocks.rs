//! Connections that outlive a sleep of the machine, or a clock that is set.

use super::*;

fn hours(n: i64) -> Timestamp {
    Timestamp::from_second(n * 3600).unwrap()
}

/// Whether the row began at this time, and how long it took.
fn dated(row: &Row, at: Timestamp) -> bool {
    let late = row.started_at.duration_since(at);
    let took = row.duration_ms.unwrap_or_default();
    (0..60).contains(&late.as_secs()) && took < 60_000
}

/// The clocks move for all connections at once; each has its own here.
macro_rules! clocks {
    ($hours:ident) => {
        |(_, instant)| (hours(i64::from($hours.load(Ordering::SeqCst))), instant)
    };
}

#[tokio::test]
async fn a_request_after_a_sleep_is_dated_by_the_clock() {
    static HOURS: AtomicU32 = AtomicU32::new(0);
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let rows = Arc::new(Rows::default());
    let subject = Subject { clocks: clocks!(HOURS), ..subject(None, nobody()) };
    foreign::observe(subject, rows.clone(), |see| {
        let mut bytes = |side, bytes| see(Seen::Bytes { side, at: Instant::now(), bytes });
        bytes(Side::Client, REQUEST);
        bytes(Side::Server, ANSWER);
        bytes(Side::Client, REQUEST);
        // Asleep in the middle of one: what is counted is the time awake.
        HOURS.store(2, Ordering::SeqCst);
        bytes(Side::Server, ANSWER);
        bytes(Side::Client, REQUEST);
        bytes(Side::Server, ANSWER);
        // Set back.
        HOURS.store(1, Ordering::SeqCst);
        bytes(Side::Client, REQUEST);
        bytes(Side::Server, ANSWER);
    });
    let rows = rows.ledger();
    let right: Vec<bool> =
        rows.iter().zip([0, 0, 2, 1]).map(|(row, at)| dated(row, hours(at))).collect();
    assert_eq!(right, [true; 4], "{rows:#?}");
}

#[tokio::test]
async fn so_are_streams_beside_an_old_one_and_turns_of_a_websocket() {
    use crate::meter::http2::tests::{client, frame, server};
    use interleaved::{Style, data, head};
    static HOURS: AtomicU32 = AtomicU32::new(0);
    let rows = Arc::new(Rows::default());
    let subject = Subject { clocks: clocks!(HOURS), ..subject(Some(b"h2"), nobody()) };
    let get = [(":method", "GET"), (":path", "/v1/models"), (":authority", "h")];
    let plain = &mut Style(0);
    let socket: Vec<(Side, Vec<u8>)> = interleaved::socket(plain, 1, 1 << 14);
    foreign::observe(subject, rows.clone(), |see| {
        let mut bytes = |(side, bytes): &(Side, Vec<u8>)| {
            see(Seen::Bytes { side: *side, at: Instant::now(), bytes });
        };
        bytes(&client(&[]));
        bytes(&server(&[]));
        // The handshake, a question, an answer; then another two.
        let (first, second) = socket.split_at(4);
        first.iter().for_each(&mut bytes);
        HOURS.store(3, Ordering::SeqCst);
        bytes(&head(plain, Side::Client, 3, &get));
        bytes(&(Side::Client, frame(0, 1, 3, b"")));
        bytes(&head(plain, Side::Server, 3, &[(":status", "200")]));
        data(plain, Side::Server, 3, b"{}", 2).iter().for_each(&mut bytes);
        second.iter().for_each(&mut bytes);
    });
    let rows = rows.ledger();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.path.as_str(), (row.started_at.as_second() + 60) / 3600, row.duration_ms))
        .collect();
    let at = |n: usize| (found[n].0, found[n].1);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!([at(0), at(1)], [("/v1/responses", 0), ("/v1/responses", 0)], "{found:?}");
    assert_eq!([at(2), at(3)], [("/v1/models", 3), ("/v1/responses", 3)], "{found:?}");
    assert!(found.iter().all(|(_, _, took)| took.unwrap_or_default() < 60_000), "{found:?}");
}
