//! However the streams of an HTTP/2 connection are interleaved and cut, the rows are the same.

use proptest::prelude::*;

use super::*;
use crate::meter::http2::tests::{block, client, frame, server};
use crate::meter::websocket::tests::{Deflater, close, frame as ws_frame};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What the two sides say on one stream, in order.
pub(super) type Acts = Vec<(Side, Vec<u8>)>;

pub(super) fn head(side: Side, stream: u32, fields: &[(&str, &str)]) -> (Side, Vec<u8>) {
    (side, frame(HEADERS, END_HEADERS, stream, &block(fields)))
}

/// `content` in frames of `size`, the last of which ends the stream's half.
pub(super) fn data(side: Side, stream: u32, content: &[u8], size: usize) -> Acts {
    let mut acts: Acts =
        content.chunks(size).map(|piece| (side, frame(DATA, 0, stream, piece))).collect();
    acts.push((side, frame(DATA, END_STREAM, stream, b"")));
    acts
}

/// A streamed answer of Anthropic's.
fn question(stream: u32, size: usize) -> Acts {
    let post = [(":method", "POST"), (":path", "/v1/messages"), (":authority", "h")];
    let mut acts = vec![head(Side::Client, stream, &post)];
    acts.extend(data(Side::Client, stream, br#"{"model":"m","stream":true}"#, size));
    let id = format!("req-{stream}");
    let fields =
        [(":status", "200"), ("content-type", "text/event-stream"), ("request-id", id.as_str())];
    acts.push(head(Side::Server, stream, &fields));
    let events = format!(
        "data: {{\"type\":\"message_start\",\"message\":{{\"model\":\"m\",\"usage\":\
         {{\"input_tokens\":{stream},\"output_tokens\":1}}}}}}\n\n\
         data: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{{\"output_tokens\":{}}}}}\n\n\
         data: {{\"type\":\"message_stop\"}}\n\n",
        stream + 1
    );
    acts.extend(data(Side::Server, stream, events.as_bytes(), size));
    acts
}

/// Two responses on a WebSocket (RFC 8441).
pub(super) fn socket(stream: u32, size: usize) -> Acts {
    let connect = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":path", "/v1/responses"),
        (":authority", "h"),
    ];
    let accept = [(":status", "200"), ("sec-websocket-extensions", "permessage-deflate")];
    let mut acts = vec![head(Side::Client, stream, &connect), head(Side::Server, stream, &accept)];
    let (mut up, mut down) = (Deflater::new(true), Deflater::new(true));
    for n in 0..2 {
        let ask = up.frames(Side::Client, r#"{"type":"response.create","model":"m"}"#, 2);
        let over = format!(
            "{{\"type\":\"response.completed\",\"response\":{{\"id\":\"r-{stream}-{n}\",\
             \"usage\":{{\"input_tokens\":{stream},\"output_tokens\":{n}}}}}}}"
        );
        let said = [ws_frame(Side::Server, 0x89, b"?"), down.frames(Side::Server, &over, 3)];
        for (side, bytes) in [(Side::Client, ask), (Side::Server, said.concat())] {
            let pieces = bytes.chunks(size);
            acts.extend(pieces.map(|piece| (side, frame(DATA, 0, stream, piece))));
        }
    }
    acts.extend(data(Side::Client, stream, &close(Side::Client, 1000), size));
    acts.extend(data(Side::Server, stream, &close(Side::Server, 1000), size));
    acts
}

fn streams(size: usize) -> Vec<Acts> {
    vec![question(1, size), socket(3, size), question(5, size), socket(7, size)]
}

/// All of them in the order that `choices` say; new ones are opened in order.
pub(super) fn merge(mut streams: Vec<Acts>, choices: &[usize]) -> Acts {
    streams.iter_mut().for_each(|acts| acts.reverse());
    let whole: Vec<usize> = streams.iter().map(Vec::len).collect();
    let mut out = vec![client(&[]), server(&[])];
    let mut choices = choices.iter().cycle();
    while streams.iter().any(|acts| !acts.is_empty()) {
        let chosen = choices.next().copied().unwrap_or_default() % streams.len();
        let unopened = (0..streams.len()).find(|i| streams[*i].len() == whole[*i]);
        let chosen = if streams[chosen].len() == whole[chosen] {
            unopened.unwrap_or(chosen)
        } else {
            chosen
        };
        // One that is over gives way to the next that is not.
        let next = (chosen..streams.len()).chain(0..chosen).find(|i| {
            !streams[*i].is_empty() && (streams[*i].len() < whole[*i] || unopened == Some(*i))
        });
        out.extend(next.and_then(|i| streams[i].pop()));
    }
    out
}

/// What the ledger has in the end, without ids and times.
fn ledger(acts: &[(Side, Vec<u8>)], piece: usize) -> Vec<String> {
    ledger_of("api.example.com", acts, piece)
}

pub(super) fn ledger_of(host: &str, acts: &[(Side, Vec<u8>)], piece: usize) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let subject = Subject { host: host.to_owned(), ..subject(Some(b"h2"), nobody()) };
    let (rows, result) = runtime.block_on(observed_as(subject, |feed| {
        for (side, bytes) in acts {
            bytes.chunks(piece).for_each(|piece| feed.bytes(*side, piece));
        }
        feed.closed(Closing::Orderly);
    }));
    assert_eq!(result.lossy, None);
    let mut rows: Vec<String> = rows
        .iter()
        .map(|row| {
            format!(
                "{:?} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?}",
                row.provider_request_id,
                row.protocol,
                row.surface,
                row.status,
                row.completeness,
                row.billable,
                row.tokens,
                row.request_bytes,
                row.response_bytes,
                (
                    (&row.path, &row.model, &row.model_requested, row.usage, row.cost_nanousd),
                    (&row.cost_reason, &row.error_class, &row.detail, &row.tier, row.stream),
                )
            )
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn one_after_the_other() {
    let rows = ledger(&merge(streams(1 << 14), &[0]), usize::MAX);
    assert_eq!(rows.len(), 2 + 2 * 3, "{rows:#?}");
    let of = |id: &str| rows.iter().find(|row| row.contains(id)).unwrap();
    assert!(of("req-5").contains("input: Some(5)") && of("req-5").contains("output: Some(6)"));
    assert!(of("r-7-1").contains("Ws") && of("r-7-1").contains("Complete true"));
    assert!(of("r-7-1").contains("input: Some(7)") && of("r-7-1").contains("output: Some(1)"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_interleaving_in_any_pieces(
        choices in proptest::collection::vec(0_usize..4, 1..60),
        size in 1_usize..90,
        piece in 1_usize..200,
    ) {
        let plain = ledger(&merge(streams(size), &[0]), usize::MAX);
        prop_assert_eq!(ledger(&merge(streams(size), &choices), piece), plain);
    }
}
