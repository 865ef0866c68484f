use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frame::PREFACE;
use super::*;
use crate::fuzzing::Transcript;
use crate::fuzzing::tests::{script, seed};

mod hpack;
mod lost;
mod peers;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

pub(in crate::meter) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Literal fields, neither indexed nor compressed.
pub(in crate::meter) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            out.push(u8::try_from(text.len()).unwrap());
            assert!(text.len() < 127);
            out.extend(text.bytes());
        }
    }
    out
}

fn request(stream: u32, flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![(":method", "POST"), (":path", "/p"), (":authority", "h")];
    fields.extend(more);
    frame(HEADERS, flags | END_HEADERS, stream, &block(&fields))
}

fn response(stream: u32, flags: u8, status: &str) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(&[(":status", status)]))
}

/// What a connection starts with, and `frames`.
pub(in crate::meter) fn client(frames: &[Vec<u8>]) -> (Side, Vec<u8>) {
    (Side::Client, [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat())
}

pub(in crate::meter) fn server(frames: &[Vec<u8>]) -> (Side, Vec<u8>) {
    (Side::Server, [&frame(SETTINGS, 0, 0, &[])[..], &frames.concat()].concat())
}

fn run(acts: &[(Side, Vec<u8>)], mut cut: impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> Vec<String> {
    let mut follower = Http2::new();
    let mut transcript = Transcript::default();
    for (side, bytes) in acts {
        let mut sink = |event: HttpEvent<'_>| transcript.add(&event);
        if bytes.is_empty() {
            follower.finish(*side, &mut sink);
        }
        for piece in cut(bytes) {
            follower.feed(*side, &piece, &mut sink);
        }
    }
    transcript.lines()
}

/// What is said of `acts` (no bytes: the side ends), the same at every split of every piece.
fn said(acts: &[(Side, Vec<u8>)]) -> Vec<String> {
    let whole = run(acts, |bytes| vec![bytes.to_vec()]);
    let bytewise = run(acts, |bytes| bytes.chunks(1).map(<[u8]>::to_vec).collect());
    assert_eq!(bytewise, whole, "bytewise");
    let longest = acts.iter().map(|(_, bytes)| bytes.len()).max().unwrap_or(0);
    for at in 1..longest {
        let split = run(acts, |bytes| {
            let (a, b) = bytes.split_at(at.min(bytes.len()));
            [a, b].into_iter().filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect()
        });
        assert_eq!(split, whole, "cut at {at}");
    }
    whole
}

fn end(side: Side) -> (Side, Vec<u8>) {
    (side, Vec::new())
}

#[test]
fn two_streams_interleaved_with_trailers() {
    let lines = said(&[
        client(&[
            request(1, 0, &[("x-a", "1")]),
            request(3, END_STREAM, &[]),
            frame(DATA, 0, 1, b"he"),
            frame(6, 0, 0, &[0; 8]),
            frame(8, 0, 1, &[0, 0, 1, 0]),
            frame(0xfa, 0xff, 1, b"grease"),
            frame(DATA, END_STREAM, 1, b"llo"),
        ]),
        server(&[
            response(3, 0, "200"),
            frame(DATA, 0, 3, b"three"),
            response(1, 0, "103"),
            response(1, 0, "200"),
            frame(DATA, END_STREAM, 3, b""),
            frame(DATA, 0, 1, b"one"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("grpc-status", "0")])),
        ]),
    ]);
    assert_eq!(
        lines,
        [
            "1 request POST /p h - [x-a: 1]",
            "3 request POST /p h - []",
            "3 request-end",
            "1 request-body hello",
            "1 request-end",
            "3 response 200 []",
            "3 response-body three",
            "1 informational 103",
            "1 response 200 []",
            "3 response-end",
            "1 response-body one",
            "1 trailers [grpc-status: 0]",
            "1 response-end",
        ]
    );
}

#[test]
fn padding_priority_and_continuations() {
    let fields = block(&[(":method", "GET"), (":path", "/x"), ("host", "old")]);
    let (first, second) = fields.split_at(7);
    let mut start = vec![3, 0x80, 0, 0, 0, 16];
    start.extend(first);
    start.extend([0; 3]);
    let lines = said(&[
        client(&[
            frame(HEADERS, PADDED | PRIORITY, 1, &start),
            frame(CONTINUATION, PADDED, 1, second),
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            frame(DATA, PADDED, 1, &[2, b'd', 0, 0]),
            frame(DATA, PADDED | END_STREAM, 1, &[3, 0, 0, 0]),
        ]),
        server(&[response(1, 0, "200"), frame(DATA, PADDED | END_STREAM, 1, &[1, b'a', b'b', 0])]),
    ]);
    assert_eq!(
        lines,
        [
            "1 request GET /x old - [host: old]",
            "1 request-body d",
            "1 request-end",
            "1 response 200 []",
            "1 response-body ab",
            "1 response-end",
        ]
    );
}

#[test]
fn resets_and_goaway() {
    let cancel = 8_u32.to_be_bytes();
    let lines = said(&[
        client(&[1, 3, 5, 7].map(|stream| request(stream, END_STREAM, &[]))),
        server(&[response(1, 0, "200"), response(7, 0, "200")]),
        (Side::Client, frame(RST, 0, 1, &cancel)),
        // Late frames of a stream that is over: the header block still counts for HPACK.
        (Side::Server, [frame(DATA, 0, 1, b"late"), response(1, END_STREAM, "200")].concat()),
        (Side::Server, frame(RST, 0, 3, &[0, 0, 0, 7])),
        (Side::Server, frame(GOAWAY, 0, 0, b"\x80\0\0\x05\0\0\0\x0bdebug data")),
        (Side::Client, request(9, END_STREAM, &[])),
        (Side::Server, response(5, END_STREAM, "200")),
    ]);
    assert_eq!(
        lines[8..],
        [
            "1 response 200 []",
            "7 response 200 []",
            "1 cut Reset { by: Client, code: 8 }",
            "3 cut Reset { by: Server, code: 7 }",
            "7 cut Reset { by: Server, code: 11 }",
            "9 request POST /p h - []",
            "9 cut Reset { by: Server, code: 11 }",
            "5 response 200 []",
            "5 response-end",
        ]
    );
}

#[test]
fn an_upload_that_is_stopped_after_the_answer() {
    let lines = said(&[
        client(&[request(1, 0, &[])]),
        server(&[response(1, END_STREAM, "413"), frame(RST, 0, 1, &[0; 4])]),
    ]);
    let cut = "1 cut Reset { by: Server, code: 0 }";
    assert_eq!(lines[1..], ["1 response 413 []", "1 response-end", cut]);
}

#[test]
fn the_end_of_the_connection() {
    let start = [
        client(&[request(1, END_STREAM, &[]), request(3, 0, &[]), request(5, END_STREAM, &[])]),
        server(&[response(1, 0, "200")]),
    ];
    let with = |more: &[(Side, Vec<u8>)]| said(&[&start[..], more].concat())[6..].to_vec();
    let lines = with(&[end(Side::Server), end(Side::Client)]);
    assert_eq!(lines, ["1 cut Eof(Server)", "3 cut Eof(Server)", "5 cut Eof(Server)"]);
    let lines = with(&[
        end(Side::Client),
        (Side::Server, frame(DATA, END_STREAM, 1, b"x")),
        end(Side::Server),
    ]);
    let expected =
        ["3 cut Eof(Client)", "1 response-body x", "1 response-end", "5 cut Eof(Client)"];
    assert_eq!(lines, expected);
}

#[test]
fn extended_connect_tunnels() {
    let ask = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/ws")];
    let lines = said(&[
        client(&[frame(HEADERS, END_HEADERS, 1, &block(&ask))]),
        server(&[response(1, 0, "200"), frame(DATA, 0, 1, b"from server")]),
        (Side::Client, frame(DATA, END_STREAM, 1, b"from client")),
        (Side::Server, frame(DATA, END_STREAM, 1, b"")),
    ]);
    assert_eq!(
        lines,
        [
            "1 request CONNECT /ws - websocket []",
            "1 response 200 []",
            "1 upgraded",
            "1 server from server",
            "1 client from client",
            "1 request-end",
            "1 response-end",
        ]
    );
    let refused = said(&[
        client(&[frame(HEADERS, END_HEADERS, 1, &block(&ask))]),
        server(&[response(1, 0, "403"), frame(DATA, END_STREAM, 1, b"no")]),
    ]);
    assert_eq!(refused[1..], ["1 response 403 []", "1 response-body no", "1 response-end"]);
}

/// "x-k: v" with incremental indexing: the first entry of the dynamic table (index 62).
const INDEXED: &[u8] = b"\x40\x03x-k\x01v";

#[test]
fn pushed_requests_keep_the_table_in_step() {
    let mut promise = vec![0, 0, 0, 2];
    promise.extend(INDEXED);
    let mut answer = block(&[(":status", "200")]);
    answer.push(0x80 | 62);
    let lines = said(&[
        client(&[request(1, END_STREAM, &[])]),
        server(&[
            frame(PUSH, END_HEADERS, 1, &promise),
            response(2, 0, "200"),
            frame(DATA, END_STREAM, 2, b"pushed"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &answer),
        ]),
    ]);
    assert_eq!(lines[2..], ["1 response 200 [x-k: v]", "1 response-end"]);
}

#[test]
fn each_direction_has_a_table_of_its_own_and_settings_cross() {
    let start = block(&[(":method", "GET")]);
    let update = [&b"\x3f\xe1\x3f"[..], &start, INDEXED].concat(); // to 8192
    let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &update);
    // The server allows 8192, so the client's blocks may announce it.
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100, 0, 1, 0, 0, 0x20, 0]);
    let allowed = [(Side::Server, settings.clone()), client(std::slice::from_ref(&request))];
    assert_eq!(said(&allowed)[0], "1 request GET  - - [x-k: v]");
    // Without that, or when the client says it of the other direction, or in an acknowledgement.
    let refused = ["gave up: BadHeaderBlock"];
    assert_eq!(said(&[client(std::slice::from_ref(&request))]), refused);
    assert_eq!(said(&[client(&[settings.clone(), request.clone()])]), refused);
    let ack = frame(SETTINGS, 1, 0, &settings[9..]);
    assert_eq!(said(&[(Side::Server, ack), client(std::slice::from_ref(&request))]), refused);
    // The server's blocks can't refer to the client's table.
    let mut answer = block(&[(":status", "200")]);
    answer.push(0x80 | 62);
    let answer = frame(HEADERS, END_HEADERS, 1, &answer);
    let lines = said(&[(Side::Server, settings), client(&[request]), (Side::Server, answer)]);
    assert_eq!(*lines.last().unwrap(), refused[0]);
}

#[test]
fn what_can_not_be_followed() {
    let gave_up = |acts: &[(Side, Vec<u8>)], reason: &str| {
        assert_eq!(*said(acts).last().unwrap(), format!("gave up: {reason}"));
    };
    gave_up(&[(Side::Client, b"GET / HTTP/1.1\r\n\r\n".to_vec())], "UnknownProtocol");
    gave_up(&[(Side::Server, b"HTTP/1.1 400 Bad Request\r\n".to_vec())], "UnknownProtocol");
    gave_up(&[server(&[frame(CONTINUATION, 0, 1, b"")])], "BadFraming");
    gave_up(&[server(&[frame(HEADERS, 0, 1, b""), frame(DATA, 0, 1, b"")])], "BadFraming");
    gave_up(&[server(&[frame(HEADERS, 0, 1, b""), frame(CONTINUATION, 0, 3, b"")])], "BadFraming");
    gave_up(&[server(&[frame(DATA, PADDED, 1, &[5, 0])])], "BadFraming");
    gave_up(&[server(&[frame(DATA, PADDED, 1, &[])])], "BadFraming");
    gave_up(&[server(&[frame(DATA, 0, 0, b"x")])], "BadFraming");
    gave_up(&[server(&[frame(RST, 0, 1, &[0; 3])])], "BadFraming");
    gave_up(&[server(&[frame(SETTINGS, 0, 0, &[0; 7])])], "BadFraming");
    gave_up(&[client(&[frame(HEADERS, END_HEADERS, 1, &[0xff])])], "BadHeaderBlock");
    gave_up(&[client(&[frame(HEADERS, END_HEADERS, 1, &block(&[("a", "b")]))])], "BadHead");
    // Terminal, whatever comes.
    let lines = said(&[
        (Side::Client, b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        client(&[request(1, 0, &[])]),
        end(Side::Client),
        end(Side::Server),
    ]);
    assert_eq!(lines, ["gave up: UnknownProtocol"]);
}

#[test]
fn caps_on_streams_and_header_blocks() {
    let whole = |bytes: &[u8]| vec![bytes.to_vec()];
    let many: Vec<_> = (0..=MAX_OPEN as u32).map(|n| request(2 * n + 1, END_STREAM, &[])).collect();
    let lines = run(&[client(&many[..MAX_STREAMS])], whole);
    assert_eq!(lines.len(), 2 * MAX_STREAMS);
    let lines = run(&[client(&many)], whole);
    assert_eq!(lines.last().unwrap(), "gave up: TooManyStreams");
    let mut flood = vec![frame(HEADERS, 0, 1, &[0; 16_000])];
    flood.extend((0..9).map(|_| frame(CONTINUATION, 0, 1, &[0; 16_000])));
    assert_eq!(run(&[client(&flood)], whole), ["gave up: HeadTooLarge"]);
}

#[test]
fn data_slices_are_those_that_were_fed() {
    let mut follower = Http2::new();
    let mut start = frame(DATA, 0, 1, &[]);
    start[..3].copy_from_slice(&[0xff; 3]);
    for (side, bytes) in [
        client(&[request(1, END_STREAM, &[])]),
        server(&[response(1, 0, "200")]),
        (Side::Server, start),
    ] {
        follower.feed(side, &bytes, &mut |_| {});
    }
    let bytes = vec![b'x'; 1 << 16];
    let mut pieces = 0;
    follower.feed(Side::Server, &bytes, &mut |event| {
        let HttpEvent::ResponseBody { data, .. } = event else { panic!("{event:?}") };
        assert_eq!(data.as_ptr_range(), bytes.as_ptr_range());
        pieces += 1;
    });
    assert_eq!(pieces, 1);
}

type Log = Arc<Mutex<Vec<(Side, Vec<u8>)>>>;

#[test]
fn seeds_are_current() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    seed("http2", "real-peers", &script(&runtime.block_on(peers::real_traffic(4))));
    let mut promise = vec![0, 0, 0, 2];
    promise.extend(INDEXED);
    let mut start = vec![1, 0x80, 0, 0, 0, 16];
    start.extend(block(&[(":method", "GET")]));
    start.push(0);
    let acts = [
        (Side::Server, frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0x20, 0])),
        client(&[
            frame(HEADERS, PADDED | PRIORITY, 1, &start),
            frame(CONTINUATION, END_HEADERS, 1, b"\x84"),
        ]),
        (Side::Client, [frame(DATA, PADDED, 1, &[1, b'x', 0]), request(3, 0, &[])].concat()),
        (Side::Server, frame(PUSH, END_HEADERS, 1, &promise)),
        (Side::Server, [response(1, 0, "103"), response(1, END_STREAM, "200")].concat()),
        (Side::Client, frame(RST, 0, 1, &[0, 0, 0, 8])),
        (Side::Server, frame(GOAWAY, 0, 0, &[0; 9])),
        end(Side::Client),
        end(Side::Server),
    ];
    seed("http2", "odd-frames", &script(&acts));
    let ask = [(":method", "CONNECT"), (":protocol", "websocket")];
    let acts = [
        client(&[frame(HEADERS, END_HEADERS, 1, &block(&ask))]),
        server(&[response(1, 0, "200"), frame(DATA, 0, 1, b"s")]),
        (Side::Client, frame(DATA, END_STREAM, 1, b"c")),
        end(Side::Server),
    ];
    seed("http2", "extended-connect", &script(&acts));
}

proptest! {
    /// Streams of DATA frames with and without padding, interleaved and cut at random.
    #[test]
    fn interleaved_streams_arrive_whole(
        frames in proptest::collection::vec(
            (any::<bool>(), 0_u32..4, 0_usize..300, proptest::option::of(0_u8..20)), 0..60),
        size in 1_usize..500,
    ) {
        let mut wire = (vec![], vec![]);
        let mut expected = vec![(Vec::new(), Vec::new()); 4];
        for (from_server, n, length, padding) in frames {
            let of = &mut expected[n as usize];
            let of = if from_server { &mut of.1 } else { &mut of.0 };
            // No byte of one stream looks like the same of another, nor like its neighbours.
            let salt = 64 * n as usize + usize::from(from_server) * 32;
            let content: Vec<u8> = (of.len()..).map(|at| (at * 7 + salt) as u8).take(length).collect();
            of.extend_from_slice(&content);
            let mut payload = Vec::new();
            payload.extend(padding);
            payload.extend(content);
            payload.extend(vec![0; usize::from(padding.unwrap_or(0))]);
            let flags = if padding.is_some() { PADDED } else { 0 };
            let data = frame(DATA, flags, 2 * n + 1, &payload);
            if from_server { wire.1.push(data) } else { wire.0.push(data) }
        }
        let mut follower = Http2::new();
        let mut got = vec![(Vec::new(), Vec::new()); 4];
        let mut sink = |event: HttpEvent<'_>| match event {
            HttpEvent::RequestBody { stream, data } => got[stream as usize / 2].0.extend_from_slice(data),
            HttpEvent::ResponseBody { stream, data } => got[stream as usize / 2].1.extend_from_slice(data),
            HttpEvent::Request { .. } | HttpEvent::Response { .. } => {}
            HttpEvent::RequestEnd { .. }
            | HttpEvent::ResponseEnd { .. }
            | HttpEvent::Informational { .. }
            | HttpEvent::Trailers { .. }
            | HttpEvent::Upgraded { .. }
            | HttpEvent::Tunnelled { .. }
            | HttpEvent::Cut { .. }
            | HttpEvent::Lost { .. }
            | HttpEvent::GaveUp { .. } => panic!("{event:?}"),
        };
        let start = [1, 3, 5, 7];
        for (side, bytes) in [
            client(&start.map(|stream| request(stream, 0, &[]))),
            server(&start.map(|stream| response(stream, 0, "200"))),
            (Side::Client, wire.0.concat()),
            (Side::Server, wire.1.concat()),
        ] {
            for piece in bytes.chunks(size) {
                follower.feed(side, piece, &mut sink);
            }
        }
        prop_assert_eq!(got, expected);
    }

    #[test]
    fn garbage_never_panics(
        frames in proptest::collection::vec(
            (any::<bool>(), 0_u8..11, any::<u8>(), 0_u32..9,
             proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
        tail in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut acts = vec![client(&[]), server(&[])];
        for (from_server, kind, flags, stream, payload) in frames {
            let side = if from_server { Side::Server } else { Side::Client };
            acts.push((side, frame(kind, flags, stream, &payload)));
        }
        acts.push((Side::Client, tail.clone()));
        acts.push((Side::Server, tail));
        acts.extend([end(Side::Client), end(Side::Server)]);
        let whole = run(&acts, |bytes| vec![bytes.to_vec()]);
        let split = run(&acts, |bytes| bytes.chunks(2).map(<[u8]>::to_vec).collect());
        prop_assert_eq!(whole, split);
    }

    #[test]
    fn damaged_header_blocks_never_panic(
        blocks in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..60), 0..20),
    ) {
        let mut hpack = Hpack::new();
        for block in blocks {
            let _ = hpack.decode(&block);
        }
    }
}
