//! However the streams of an HTTP/2 connection are interleaved and cut, the rows are the same.

use proptest::prelude::*;

use super::*;
use crate::meter::http2::tests::{block, client, frame, server};
use crate::meter::websocket::tests::{Deflater, close, frame as ws_frame};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// What the two sides say on one stream, in order.
pub(super) type Acts = Vec<(Side, Vec<u8>)>;

/// Draws how the same is put into frames; of 0, the plainest way.
pub(super) struct Style(pub(super) u64);

impl Style {
    /// One of `n`; 0 is the plain way.
    fn of(&mut self, n: usize) -> usize {
        if self.0 == 0 {
            return 0;
        }
        // Xorshift never comes to 0.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    /// A frame that can be padded; `before` stands between the padding's length and the content.
    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        before: &[u8],
        content: &[u8],
    ) -> Vec<u8> {
        if self.of(2) == 0 {
            return frame(kind, flags, stream, &[before, content].concat());
        }
        let padding = vec![0; self.of(30)];
        let length = [padding.len() as u8];
        let payload = [&length, before, content, padding.as_slice()].concat();
        frame(kind, flags | PADDED, stream, &payload)
    }

    /// A header block: one frame, or some more that go on with it.
    fn headers(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
        let block = block(fields);
        let size = if self.of(2) == 0 { block.len() } else { 1 + self.of(block.len()) };
        let (first, rest) = block.split_at(size);
        let rest: Vec<&[u8]> = rest.chunks(size).collect();
        let last = |n: usize| if n == rest.len() { END_HEADERS } else { 0 };
        let (priority, before) =
            if self.of(2) == 0 { (0, &[][..]) } else { (PRIORITY, &[0x80, 0, 0, 0, 16][..]) };
        let mut out = self.frame(HEADERS, flags | priority | last(0), stream, before, first);
        for (n, piece) in rest.iter().enumerate() {
            out.extend(frame(CONTINUATION, last(n + 1), stream, piece));
        }
        out
    }
}

pub(super) fn head(
    style: &mut Style,
    side: Side,
    stream: u32,
    fields: &[(&str, &str)],
) -> (Side, Vec<u8>) {
    (side, style.headers(0, stream, fields))
}

/// `content` in frames of `size`.
fn pieces(style: &mut Style, side: Side, stream: u32, content: &[u8], size: usize) -> Acts {
    let mut acts = Acts::new();
    for piece in content.chunks(size) {
        if style.of(4) == 1 {
            acts.push((side, frame(WINDOW_UPDATE, 0, stream, &[0, 0, 1, 0])));
        }
        acts.push((side, style.frame(DATA, 0, stream, &[], piece)));
    }
    acts
}

/// The same, and then the stream's half ends: by a frame of its own, with the last one, or (in what is
/// no tunnel) by trailers.
fn ended(acts: &mut Acts, style: &mut Style, side: Side, stream: u32, trailers: bool) {
    match (style.of(if trailers { 3 } else { 2 }), acts.last_mut()) {
        // The flags are the fifth byte of a frame.
        (1, Some((_, last))) => last[4] |= END_STREAM,
        (2, _) => acts.push((side, style.headers(END_STREAM, stream, &[("x-trailer", "t")]))),
        _ => acts.push((side, style.frame(DATA, END_STREAM, stream, &[], b""))),
    }
}

pub(super) fn data(
    style: &mut Style,
    side: Side,
    stream: u32,
    content: &[u8],
    size: usize,
) -> Acts {
    let mut acts = pieces(style, side, stream, content, size);
    ended(&mut acts, style, side, stream, true);
    acts
}

fn asked(style: &mut Style, stream: u32, size: usize) -> Acts {
    let post = [(":method", "POST"), (":path", "/v1/messages"), (":authority", "h")];
    let mut acts = vec![head(style, Side::Client, stream, &post)];
    acts.extend(data(style, Side::Client, stream, br#"{"model":"m","stream":true}"#, size));
    acts
}

/// The answer's head, and its events but for the last.
fn answer(style: &mut Style, stream: u32) -> ((Side, Vec<u8>), String) {
    let id = format!("req-{stream}");
    let fields =
        [(":status", "200"), ("content-type", "text/event-stream"), ("request-id", id.as_str())];
    let events = format!(
        "data: {{\"type\":\"message_start\",\"message\":{{\"model\":\"m\",\"usage\":\
         {{\"input_tokens\":{stream},\"output_tokens\":1}}}}}}\n\n\
         data: {{\"type\":\"message_delta\",\"delta\":{{}},\"usage\":{{\"output_tokens\":{}}}}}\n\n",
        stream + 1
    );
    (head(style, Side::Server, stream, &fields), events)
}

/// A streamed answer of Anthropic's.
fn question(style: &mut Style, stream: u32, size: usize) -> Acts {
    let mut acts = asked(style, stream, size);
    let (head, events) = answer(style, stream);
    acts.push(head);
    let events = events + "data: {\"type\":\"message_stop\"}\n\n";
    acts.extend(data(style, Side::Server, stream, events.as_bytes(), size));
    acts
}

/// The same, and one side gives it up before its end.
pub(super) fn reset(style: &mut Style, stream: u32, size: usize) -> Acts {
    let mut acts = asked(style, stream, size);
    let (head, events) = answer(style, stream);
    acts.push(head);
    let until = 1 + size * 31 % events.len();
    acts.extend(pieces(style, Side::Server, stream, &events.as_bytes()[..until], size));
    let by = [Side::Server, Side::Client][size % 2];
    acts.push((by, frame(RESET, 0, stream, &8_u32.to_be_bytes())));
    acts
}

/// The last stream of a connection, which a server that goes away won't answer.
pub(super) fn refused(style: &mut Style, stream: u32, size: usize) -> Acts {
    let mut acts = asked(style, stream, size);
    let last = (stream - 2).to_be_bytes();
    acts.push((Side::Server, frame(GOAWAY, 0, 0, &[&last[..], &[0; 4], b"bye"].concat())));
    acts
}

/// A WebSocket (RFC 8441) on which all this is said.
pub(super) fn tunnel(
    style: &mut Style,
    stream: u32,
    path: &str,
    said: &[(Side, Vec<u8>)],
    size: usize,
) -> Acts {
    let connect =
        [(":method", "CONNECT"), (":protocol", "websocket"), (":path", path), (":authority", "h")];
    let accept = [(":status", "200"), ("sec-websocket-extensions", "permessage-deflate")];
    let mut acts = vec![
        head(style, Side::Client, stream, &connect),
        head(style, Side::Server, stream, &accept),
    ];
    for (side, bytes) in said {
        acts.extend(pieces(style, *side, stream, bytes, size));
    }
    for side in [Side::Client, Side::Server] {
        let mut bye = pieces(style, side, stream, &close(side, 1000), size);
        ended(&mut bye, style, side, stream, false);
        acts.extend(bye);
    }
    acts
}

/// Two responses on one.
pub(super) fn socket(style: &mut Style, stream: u32, size: usize) -> Acts {
    let (mut up, mut down) = (Deflater::new(true), Deflater::new(true));
    let mut said = Vec::new();
    for n in 0..2 {
        let ask = up.frames(Side::Client, r#"{"type":"response.create","model":"m"}"#, 2);
        let over = format!(
            "{{\"type\":\"response.completed\",\"response\":{{\"id\":\"r-{stream}-{n}\",\
             \"usage\":{{\"input_tokens\":{stream},\"output_tokens\":{n}}}}}}}"
        );
        let answer = [ws_frame(Side::Server, 0x89, b"?"), down.frames(Side::Server, &over, 3)];
        said.extend([(Side::Client, ask), (Side::Server, answer.concat())]);
    }
    tunnel(style, stream, "/v1/responses", &said, size)
}

fn streams(mut style: Style, size: usize) -> Vec<Acts> {
    let style = &mut style;
    vec![
        question(style, 1, size),
        socket(style, 3, size),
        question(style, 5, size),
        socket(style, 7, size),
    ]
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
    let rows = ledger(&merge(streams(Style(0), 1 << 14), &[0]), usize::MAX);
    assert_eq!(rows.len(), 2 + 2 * 3, "{rows:#?}");
    let of = |id: &str| rows.iter().find(|row| row.contains(id)).unwrap();
    assert!(of("req-5").contains("input: Some(5)") && of("req-5").contains("output: Some(6)"));
    assert!(of("r-7-1").contains("Ws") && of("r-7-1").contains("Complete true"));
    assert!(of("r-7-1").contains("input: Some(7)") && of("r-7-1").contains("output: Some(1)"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_interleaving_in_any_frames_and_pieces(
        choices in proptest::collection::vec(0_usize..6, 1..60),
        style in any::<u64>(),
        size in 1_usize..90,
        piece in 1_usize..200,
    ) {
        let plain = ledger(&merge(streams(Style(0), size), &[0]), usize::MAX);
        let mut drawn = streams(Style(style), size);
        prop_assert_eq!(&ledger(&merge(drawn.clone(), &choices), piece), &plain);
        // What is given up among them is cut short, and nothing else is.
        let lost = [reset(&mut Style(style), 9, size), refused(&mut Style(style), 11, size)];
        drawn.extend(lost);
        let mut rows = ledger(&merge(drawn, &choices), piece);
        let cut: Vec<_> = rows.extract_if(.., |row| row.contains("Interrupted")).collect();
        prop_assert_eq!(rows, plain);
        prop_assert_eq!(cut.len(), 2, "{:#?}", cut);
        prop_assert!(cut.iter().any(|row| row.contains("req-9")), "{:#?}", cut);
    }
}
