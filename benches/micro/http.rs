//! The HTTP followers: per exchange (heads, HPACK) and per MiB of a body.

use halton_meter::meter::http::{Follower, HttpEvent, Side};
use halton_meter::meter::http1::Http1;
use halton_meter::meter::http2::Http2;

use crate::Case;

const EXCHANGES: u32 = 50;
const MIB: usize = 1 << 20;
const PIECE: usize = 16 * 1024;
const FIELDS: [(&str, &str); 9] = [
    ("accept", "application/json"),
    ("authorization", "Bearer sk-ant-REDACTED-REDACTED-REDACTED-REDACTED-REDACTED"),
    ("anthropic-version", "2023-06-01"),
    ("anthropic-beta", "claude-code-20250219,interleaved-thinking-2025-05-14"),
    ("content-type", "application/json"),
    ("user-agent", "claude-cli/2.1 (external, cli)"),
    ("x-stainless-lang", "js"),
    ("x-stainless-runtime-version", "v24.3.0"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
];

/// Feeds what both sides said and counts what the follower made of it.
fn follow(mut follower: impl Follower, said: &[(Side, Vec<u8>)]) -> usize {
    let mut seen = 0;
    for (side, bytes) in said {
        for piece in bytes.chunks(PIECE) {
            follower.feed(*side, piece, &mut |event| {
                assert!(!matches!(event, HttpEvent::GaveUp { .. }), "{event:?}");
                seen += 1;
            });
        }
    }
    assert!(seen > 0);
    seen
}

fn http1_request() -> Vec<u8> {
    let mut head = "POST /v1/messages HTTP/1.1\r\nhost: api.anthropic.com\r\n".to_owned();
    for (name, value) in FIELDS {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}content-length: 2\r\n\r\n{{}}").into_bytes()
}

fn http1_response(body: usize) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\n\
        cf-cache-status: DYNAMIC\r\n";
    let mut response = format!("{head}content-length: {body}\r\n\r\n").into_bytes();
    response.resize(response.len() + body, b'x');
    response
}

pub(crate) fn http1_exchange() -> Case {
    let one = [(Side::Client, http1_request()), (Side::Server, http1_response(200))];
    let said: Vec<_> = (0..EXCHANGES).flat_map(|_| one.clone()).collect();
    Case::new("http1-exchange", "exchange", u64::from(EXCHANGES), move || {
        follow(Http1::new(), &said)
    })
}

pub(crate) fn http1_mib() -> Case {
    let said = [(Side::Client, http1_request()), (Side::Server, http1_response(MIB))];
    Case::new("http1", "byte", MIB as u64, move || follow(Http1::new(), &said))
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    out.extend(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// What both sides of a connection say over its exchanges.
fn http2_said(exchanges: u32, body: usize) -> Vec<(Side, Vec<u8>)> {
    let (mut requests, mut responses) = (loona_hpack::Encoder::new(), loona_hpack::Encoder::new());
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame(SETTINGS, 0, 0, &[], &mut hello);
    let mut settings = Vec::new();
    frame(SETTINGS, 0, 0, &[], &mut settings);
    let mut said = vec![(Side::Client, hello), (Side::Server, settings)];
    for stream in (0..exchanges).map(|n| 2 * n + 1) {
        let pseudo = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "api.anthropic.com"),
            (":path", "/v1/messages"),
        ];
        let fields = pseudo.iter().chain(&FIELDS);
        let block = requests.encode(fields.map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let mut request = Vec::new();
        frame(HEADERS, END_HEADERS, stream, &block, &mut request);
        frame(DATA, END_STREAM, stream, b"{}", &mut request);
        said.push((Side::Client, request));
        let fields = [(":status", "200"), ("content-type", "application/json")];
        let block = responses.encode(fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        let mut response = Vec::new();
        frame(HEADERS, END_HEADERS, stream, &block, &mut response);
        vec![b'x'; body].chunks(PIECE).for_each(|c| frame(DATA, 0, stream, c, &mut response));
        frame(DATA, END_STREAM, stream, &[], &mut response);
        said.push((Side::Server, response));
    }
    said
}

pub(crate) fn http2_exchange() -> Case {
    let said = http2_said(EXCHANGES, 200);
    Case::new("http2-exchange", "exchange", u64::from(EXCHANGES), move || {
        follow(Http2::new(), &said)
    })
}

pub(crate) fn http2_mib() -> Case {
    let said = http2_said(1, MIB);
    Case::new("http2", "byte", MIB as u64, move || follow(Http2::new(), &said))
}
