//! What of a connection is told when some of it can't be followed.

use super::*;
use crate::meter::http2::tests::{block, client, frame, server};

#[derive(Default)]
struct Noting {
    rows: Rows,
    lost: Mutex<Vec<(Timestamp, String)>>,
}

impl RowSink for Noting {
    fn record(&self, row: Row) {
        self.rows.record(row);
    }

    fn lost_sight(&self, _connection: Uuid, at: Timestamp, host: &str) {
        self.lost.lock().unwrap().push((at, host.to_owned()));
    }
}

async fn noted(script: &[(Side, Vec<u8>)]) -> (Vec<Row>, Vec<String>, Observed, Boundaries) {
    noted_of(Some(b"h2"), script).await
}

async fn noted_of(
    alpn: Option<&[u8]>,
    script: &[(Side, Vec<u8>)],
) -> (Vec<Row>, Vec<String>, Observed, Boundaries) {
    let (mut feed, mut watch) = feed(&Budget::new(1 << 20), 1 << 20, &Arc::default());
    let progress = watch.progress();
    let sink = Arc::new(Noting::default());
    let subject = subject(alpn, nobody());
    let book = Arc::new(ArcSwap::from(Book::builtin()));
    let mut observer = Observer::new(subject, sink.clone(), book, follower, progress);
    let mut boundaries = Vec::new();
    for (side, bytes) in script {
        feed.bytes(*side, bytes);
        watch.next(|seen| observer.see(seen)).await.unwrap();
        boundaries.push(feed.boundary());
    }
    assert!(alpn.is_none() || feed.begun() > 0);
    feed.closed(Closing::Orderly);
    watch.next(|seen| observer.see(seen)).await.unwrap();
    observer.end();
    observer.settle();
    let lost = sink.lost.lock().unwrap().iter().map(|(_, host)| host.clone()).collect();
    (sink.rows.ledger(), lost, observer.observed, boundaries)
}

type Boundaries = Vec<crate::meter::feed::Boundary>;

fn ask(stream: u32) -> Vec<u8> {
    let fields = [(":method", "POST"), (":path", "/v1/messages"), (":authority", "h")];
    frame(1, 5, stream, &block(&fields))
}

fn answer(stream: u32, fields: usize, flags: u8) -> Vec<u8> {
    let fields = [block(&[(":status", "200")]), block(&[("a", "b")]).repeat(fields)].concat();
    frame(1, flags, stream, &fields)
}

#[tokio::test]
async fn an_answer_that_is_lost_is_one_row_and_still_under_way() {
    use crate::meter::feed::Boundary::{Between, Within};
    let (rows, lost, observed, boundaries) = noted(&[
        client(&[ask(1), ask(3)]),
        server(&[answer(3, 0, 5)]),
        (Side::Server, answer(1, 600, 4)),
        (Side::Server, frame(0, 0, 1, b"some of it")),
        (Side::Server, frame(0, 1, 1, b"the rest")),
        (Side::Client, ask(5)),
        (Side::Server, answer(5, 0, 5)),
    ])
    .await;
    assert_eq!(boundaries, [Within, Within, Within, Within, Between, Within, Between]);
    let told: Vec<_> = rows.iter().map(|row| (row.status, row.completeness)).collect();
    let (whole, lossy) = (Completeness::Complete, Completeness::Lossy);
    assert_eq!(told, [(Some(200), whole), (Some(200), lossy), (Some(200), whole)]);
    assert_eq!(
        rows[1].completeness_reason.as_deref(),
        Some("a message head was over the size cap")
    );
    assert_eq!(
        observed,
        Observed { exchanges: 3, lossy: Some(GaveUp::HeadTooLarge), aborted: false }
    );
    assert_eq!(lost, [""; 0], "the connection is followed on");
}

#[tokio::test]
async fn a_connection_that_is_lost_is_told_once() {
    let (rows, lost, observed, _) =
        noted(&[client(&[ask(1)]), server(&[frame(1, 4, 1, &[0xff])]), (Side::Client, ask(3))])
            .await;
    assert_eq!(rows.len(), 1);
    assert_eq!(observed.lossy, Some(GaveUp::BadHeaderBlock));
    assert_eq!(lost, ["api.example.com"]);
}

#[tokio::test]
async fn a_request_that_nobody_can_tell_is_a_gap() {
    let odd = "X Y: z\r\nhost: x\r\n\r\n";
    for (asked, path, gap) in [
        ("POST /v1/messages HTTP/1.1\r\n", "/v1/messages", false),
        ("POST /v1 /messages HTTP/1.1\r\n", "", true),
    ] {
        let asked = format!("{asked}{odd}").into_bytes();
        let (rows, lost, _, _) = noted_of(None, &[(Side::Client, asked)]).await;
        let [row] = &rows[..] else { panic!("{rows:?}") };
        assert_eq!((row.path.as_str(), row.completeness), (path, Completeness::Lossy));
        assert_eq!(!lost.is_empty(), gap, "{path:?}");
    }
}
