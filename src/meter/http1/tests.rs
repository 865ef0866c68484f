use proptest::prelude::*;

use super::*;
use crate::fuzzing::Transcript;
use crate::fuzzing::tests::{script, seed};

mod random;

/// What one side does.
#[derive(Clone, Debug)]
enum Act {
    C(Vec<u8>),
    S(Vec<u8>),
    CEnd,
    SEnd,
}

fn c(text: &str) -> Act {
    Act::C(text.as_bytes().to_vec())
}

fn s(text: &str) -> Act {
    Act::S(text.as_bytes().to_vec())
}

fn run(acts: &[Act], mut cut: impl FnMut(&[u8]) -> Vec<Vec<u8>>) -> Vec<String> {
    let mut follower = Http1::new();
    let mut transcript = Transcript::default();
    for act in acts {
        let mut sink = |event: HttpEvent<'_>| transcript.add(&event);
        match act {
            Act::C(bytes) => {
                for piece in cut(bytes) {
                    follower.feed(Side::Client, &piece, &mut sink);
                }
            }
            Act::S(bytes) => {
                for piece in cut(bytes) {
                    follower.feed(Side::Server, &piece, &mut sink);
                }
            }
            Act::CEnd => follower.finish(Side::Client, &mut sink),
            Act::SEnd => follower.finish(Side::Server, &mut sink),
        }
    }
    transcript.lines()
}

/// What is said of `acts`, the same at every split of every piece.
fn said(acts: &[Act]) -> Vec<String> {
    let whole = run(acts, |bytes| vec![bytes.to_vec()]);
    let bytewise = run(acts, |bytes| bytes.chunks(1).map(<[u8]>::to_vec).collect());
    assert_eq!(bytewise, whole, "bytewise");
    let longest = acts
        .iter()
        .map(|act| match act {
            Act::C(bytes) | Act::S(bytes) => bytes.len(),
            Act::CEnd | Act::SEnd => 0,
        })
        .max()
        .unwrap_or(0);
    for at in 1..longest {
        let split = run(acts, |bytes| {
            let (a, b) = bytes.split_at(at.min(bytes.len()));
            [a, b].into_iter().filter(|p| !p.is_empty()).map(<[u8]>::to_vec).collect()
        });
        assert_eq!(split, whole, "cut at {at}");
    }
    whole
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const SAID_GET: [&str; 2] = ["0 request GET /a h - [host: h]", "0 request-end"];

/// The server's part of one GET.
fn answer(text: &str) -> Vec<String> {
    let mut lines = said(&[c(GET), s(text)]);
    assert_eq!(lines.drain(..2).collect::<Vec<_>>(), SAID_GET);
    lines
}

#[test]
fn a_request_with_a_body_and_a_response() {
    let lines = said(&[
        c("POST /v1/messages?beta=true HTTP/1.1\r\nHost: api.example\r\nX-Api-KEY: k\r\n\
           content-length: 5\r\n\r\nhello"),
        s("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRequest-Id:r1\r\n\r\nok"),
    ]);
    assert_eq!(
        lines,
        [
            "0 request POST /v1/messages?beta=true api.example - [host: api.example; x-api-key: k; content-length: 5]",
            "0 request-body hello",
            "0 request-end",
            "0 response 200 [content-length: 2; request-id: r1]",
            "0 response-body ok",
            "0 response-end",
        ]
    );
}

#[test]
fn keep_alive_pipelining_and_blank_lines_between() {
    let lines = said(&[
        c(&format!("\r\n{GET}\r\nPOST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx{GET}")),
        s("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nb\r\n\
           HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ]);
    assert_eq!(
        lines,
        [
            "0 request GET /a h - [host: h]",
            "0 request-end",
            "1 request POST /b h - [host: h; content-length: 1]",
            "1 request-body x",
            "1 request-end",
            "2 request GET /a h - [host: h]",
            "2 request-end",
            "0 response 204 []",
            "0 response-end",
            "1 response 200 [content-length: 1]",
            "1 response-body b",
            "1 response-end",
            "2 response 200 [content-length: 0]",
            "2 response-end",
        ]
    );
}

#[test]
fn a_head_that_has_begun_is_known() {
    let mut follower = Http1::new();
    let mut feed = |side, bytes: &[u8]| {
        follower.feed(side, bytes, &mut |_| {});
        follower.is_asking()
    };
    for _ in 0..2 {
        assert!(!feed(Side::Client, b"\r\n"), "a blank line is none");
        let head = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        for (at, byte) in head.iter().enumerate() {
            assert_eq!(feed(Side::Client, &[*byte]), at + 1 < head.len(), "{at}");
        }
        assert!(!feed(Side::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
    }
}

#[test]
fn chunks_with_extensions_and_trailers() {
    let expected = [
        "0 response 200 [transfer-encoding: gzip, Chunked; content-length: 3]",
        "0 response-body hello, world of chunks",
        "0 response-end",
    ];
    for end in ["\r\n", "\n"] {
        let body =
            ["5;a=\"b\"", "hello", "0011 ; x", ", world of chunks", "0;last", "T: 1", "", ""];
        let text = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 3\r\n\r\n{}",
            body.join(end)
        );
        assert_eq!(answer(&text), expected);
    }
    // An upload, and the next request right behind it.
    let lines = said(&[c(&format!(
        "POST /u HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n{GET}"
    ))]);
    assert_eq!(
        lines,
        [
            "0 request POST /u - - [transfer-encoding: chunked]",
            "0 request-body 0123456789",
            "0 request-end",
            "1 request GET /a h - [host: h]",
            "1 request-end",
        ]
    );
}

#[test]
fn responses_without_a_body() {
    let head = "HEAD /a HTTP/1.1\r\n\r\n";
    let lines = said(&[
        c(&head.repeat(2)),
        s(
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
    ]);
    assert_eq!(
        &lines[4..],
        [
            "0 response 200 [content-length: 10]",
            "0 response-end",
            "1 response 200 [transfer-encoding: chunked]",
            "1 response-end",
        ]
    );
    assert_eq!(
        answer("HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"),
        ["0 response 304 [content-length: 10]", "0 response-end"]
    );
}

#[test]
fn interim_responses_and_early_final_ones() {
    let lines = said(&[
        c("POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"),
        s("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        c("ab"),
        s("HTTP/1.1 401 No\r\nContent-Length: 1\r\n\r\nx"),
        c("cd"),
        c(GET),
    ]);
    assert_eq!(
        lines,
        [
            "0 request POST /a - - [expect: 100-continue; content-length: 4]",
            "0 informational 100",
            "0 informational 103",
            "0 request-body ab",
            "0 response 401 [content-length: 1]",
            "0 response-body x",
            "0 response-end",
            "0 request-body cd",
            "0 request-end",
            "1 request GET /a h - [host: h]",
            "1 request-end",
        ]
    );
}

#[test]
fn a_close_delimited_response_ends_with_the_connection() {
    let acts = [c(GET), s("HTTP/1.0 200 OK\r\n\r\nall the rest"), Act::SEnd, Act::CEnd];
    let lines = said(&acts);
    assert_eq!(
        &lines[2..],
        ["0 response 200 []", "0 response-body all the rest", "0 response-end"]
    );
    // When the client has left, its end proves nothing.
    let acts = [c(GET), s("HTTP/1.0 200 OK\r\n\r\nsome"), Act::CEnd, Act::SEnd];
    assert_eq!(said(&acts).last().unwrap(), "0 cut Eof(Client)");
}

#[test]
fn an_upgrade_tunnels_even_when_the_client_is_seen_first() {
    let ask = "GET /ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let accept = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    let start = [
        "0 request GET /ws - - [connection: keep-alive, Upgrade; upgrade: websocket]",
        "0 request-end",
        "0 response 101 [upgrade: websocket]",
        "0 upgraded",
    ];
    let lines = said(&[c(ask), s(&format!("{accept}\x01\r\n")), c("GET x"), Act::SEnd, Act::CEnd]);
    assert_eq!(lines[..4], start);
    assert_eq!(lines[4..], ["0 server \\x01\\r\\n", "0 client GET x", "0 response-end"]);
    // The copies of the two directions may reach us in the other order.
    let lines = said(&[c(&format!("{ask}frame")), c("s"), s(accept)]);
    assert_eq!(lines[..4], start);
    assert_eq!(lines[4..], ["0 client frames"]);
    // Refused: HTTP goes on.
    let lines =
        said(&[c(&format!("{ask}{GET}")), s("HTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n")]);
    assert_eq!(
        lines[2..],
        [
            "0 response 426 [content-length: 0]",
            "0 response-end",
            "1 request GET /a h - [host: h]",
            "1 request-end",
        ]
    );
}

#[test]
fn connect_tunnels() {
    let lines = said(&[c("CONNECT h:443 HTTP/1.1\r\n\r\nhello"), s("HTTP/1.1 200 OK\r\n\r\nhi")]);
    assert_eq!(
        lines,
        [
            "0 request CONNECT h:443 - - []",
            "0 request-end",
            "0 response 200 []",
            "0 upgraded",
            "0 client hello",
            "0 server hi",
        ]
    );
}

#[test]
fn a_response_that_is_seen_before_its_request_waits() {
    let lines = said(&[s("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), c(&GET.repeat(2))]);
    assert_eq!(
        lines,
        [
            "0 request GET /a h - [host: h]",
            "0 request-end",
            "0 response 200 [content-length: 2]",
            "0 response-body ok",
            "0 response-end",
            "1 request GET /a h - [host: h]",
            "1 request-end",
        ]
    );
    // A farewell on an idle connection is nobody's.
    assert_eq!(said(&[s("HTTP/1.1 408 Timeout\r\n\r\n"), Act::SEnd, Act::CEnd]), [""; 0]);
}

#[test]
fn what_the_end_of_the_connection_cuts() {
    let post = "POST /a HTTP/1.1\r\nContent-Length: 4\r\n\r\nab";
    // In the upload.
    let lines = said(&[c(post), Act::CEnd, s("HTTP/1.1 200 OK\r\n\r\n"), Act::SEnd]);
    assert_eq!(lines[2..], ["0 cut Eof(Client)"]);
    // In the response; a second request has none at all.
    let lines = said(&[
        c(&GET.repeat(2)),
        s("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"),
        Act::SEnd,
        Act::CEnd,
    ]);
    assert_eq!(lines[6..], ["0 cut Eof(Server)", "1 cut Eof(Server)"]);
    // The client gave up first.
    let lines =
        said(&[c(GET), Act::CEnd, s("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"), Act::SEnd]);
    assert_eq!(lines[2..], ["0 response 200 [content-length: 4]", "0 cut Eof(Client)"]);
    // Behind the end of the server, an upload and a request go nowhere.
    let lines = said(&[c(post), Act::SEnd, c(&format!("cd{GET}")), Act::CEnd]);
    assert_eq!(
        lines[2..],
        [
            "0 cut Eof(Server)",
            "1 request GET /a h - [host: h]",
            "1 request-end",
            "1 cut Eof(Server)",
        ]
    );
    // The answer was whole, the upload was not.
    let lines =
        said(&[c(post), s("HTTP/1.1 413 Big\r\nContent-Length: 0\r\n\r\n"), Act::SEnd, Act::CEnd]);
    assert_eq!(lines[3..], ["0 response-end", "0 cut Eof(Server)"]);
    // Half a head is nobody's.
    assert_eq!(said(&[c("GET / HT"), Act::CEnd, Act::SEnd]), [""; 0]);
}

#[test]
fn tolerated_heads() {
    assert_eq!(
        answer(
            "HTTP/1.1 200\r\nA: 1,\r\n\t2\r\nB : 3\r\nContent-Length: 0, 0\r\nContent-Length: 0\r\n\r\n"
        )[0],
        "0 response 200 [a: 1,  \\t2; b: 3; content-length: 0, 0; content-length: 0]"
    );
    let lines = said(&[c("GET https://h.example/x?y HTTP/1.1\nHost: other\nX: a\n b\n\n")]);
    assert_eq!(lines[0], "0 request GET /x?y h.example - [host: other; x: a  b]");
}

#[test]
fn what_can_not_be_followed() {
    let gave_up = |acts: &[Act], reason: &str| {
        assert_eq!(*said(acts).last().unwrap(), format!("gave up: {reason}"), "{acts:?}");
    };
    gave_up(&[c("\x16\x03\x01 nonsense\n\n")], "BadHead");
    gave_up(&[c("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")], "BadHead");
    gave_up(&[c("POST / HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n")], "BadFraming");
    gave_up(&[c("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\n")], "BadFraming");
    gave_up(&[c("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n")], "BadFraming");
    gave_up(&[c("POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n")], "BadFraming");
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunk in ["x", "\r\n", "11112222333344445\r\n", "1\r\nab", "-1\r\n"] {
        gave_up(&[c(&format!("{chunked}{chunk}"))], "BadFraming");
    }
    // Terminal, whatever comes.
    let lines =
        said(&[c("nonsense\n\n"), c(GET), s("HTTP/1.1 200 OK\r\n\r\n"), Act::SEnd, Act::CEnd]);
    assert_eq!(lines, ["gave up: BadHead"]);
}

#[test]
fn a_head_may_have_any_number_of_fields() {
    let many = "X: y\r\n".repeat(3_000);
    let asked = c(&format!("GET /a HTTP/1.1\r\n{many}Host: h\r\n\r\n"));
    let told = s(&format!("HTTP/1.1 204 No\r\n{many}\r\n"));
    let lines = run(&[asked, told], |bytes| vec![bytes.to_vec()]);
    let begun: Vec<_> = lines.iter().map(|line| line.split(" [").next().unwrap()).collect();
    assert_eq!(
        begun,
        ["0 request GET /a h -", "0 request-end", "0 response 204", "0 response-end"]
    );
}

#[test]
fn what_was_asked_is_told_of_a_head_that_cannot_be_followed() {
    let line = "POST /v1/messages?a HTTP/1.1\r\n";
    let asked = "0 request POST /v1/messages?a - - []";
    for (rest, reason) in [
        ("X Y: z\r\n\r\n", "BadHead"),
        ("Content-Length: x\r\n\r\n", "BadFraming"),
        ("Transfer-Encoding: gzip\r\n\r\n", "BadFraming"),
    ] {
        let lines = said(&[c(&format!("{line}{rest}"))]);
        assert_eq!(lines, [asked, &format!("gave up: {reason}")], "{rest:?}");
    }
    let long = c(&format!("\r\n{line}X: {}\r\n\r\n", "x".repeat(MAX_HEAD)));
    for size in [usize::MAX, 999] {
        let lines = run(std::slice::from_ref(&long), |bytes| {
            bytes.chunks(size).map(<[u8]>::to_vec).collect()
        });
        assert_eq!(lines, [asked, "gave up: HeadTooLarge"]);
    }
    let lines = said(&[c("GET /a b HTTP/1.1\r\n\r\n")]);
    assert_eq!(lines, ["gave up: BadHead"]);
}

#[test]
fn caps_hold_in_any_pieces() {
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
    let lines = run(&[c(&long)], |bytes| vec![bytes.to_vec()]);
    assert_eq!(lines, ["gave up: HeadTooLarge"]);
    let lines = run(&[c(&long)], |bytes| bytes.chunks(999).map(<[u8]>::to_vec).collect());
    assert_eq!(lines, ["gave up: HeadTooLarge"]);
    let extension = format!(
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\n",
        "x".repeat(100_000)
    );
    for size in [1_000_000, 999] {
        let lines = run(&[c(&extension)], |b| b.chunks(size).map(<[u8]>::to_vec).collect());
        assert_eq!(lines[1..], ["gave up: BadFraming"]);
    }
    let lines = run(&[c(&GET.repeat(MAX_PIPELINED + 1))], |bytes| vec![bytes.to_vec()]);
    assert_eq!(lines.last().unwrap(), "gave up: TooManyStreams");
    let lines = run(&[s(&"x".repeat(MAX_HEAD)), s("y")], |bytes| vec![bytes.to_vec()]);
    assert_eq!(lines, ["gave up: BadFraming"]);
}

#[test]
fn body_slices_are_those_that_were_fed() {
    let mut follower = Http1::new();
    follower.feed(Side::Client, GET.as_bytes(), &mut |_| {});
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n";
    follower.feed(Side::Server, head, &mut |_| {});
    let bytes = vec![b'x'; 0x8000];
    let mut pieces = 0;
    follower.feed(Side::Server, &bytes, &mut |event| {
        let HttpEvent::ResponseBody { data, .. } = event else { panic!("{event:?}") };
        assert_eq!(data.as_ptr_range(), bytes.as_ptr_range());
        pieces += 1;
    });
    assert_eq!(pieces, 1);
}

#[test]
fn seeds_are_current() {
    use Side::{Client as C, Server as S};
    let text = |side, text: &str| (side, text.as_bytes().to_vec());
    let end = |side| (side, Vec::new());
    let post = "POST /v1/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}";
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n";
    let acts = [text(C, post), text(S, chunked), text(C, GET), text(S, "HTTP/1.1 204 \r\n\r\n")];
    seed("http1", "keep-alive", &script(&acts));
    let acts = [
        text(C, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"),
        text(S, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 413 Big\r\nContent-Length: 3\r\n\r\nno"),
        end(S),
        text(C, "0\r\n\r\n"),
        end(C),
    ];
    seed("http1", "early-answer-cut", &script(&acts));
    let acts = [
        text(C, "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframe"),
        text(S, "HTTP/1.1 101 Go\r\n\r\nframe"),
        text(C, "more"),
        end(C),
        end(S),
    ];
    seed("http1", "upgrade", &script(&acts));
    let acts = [
        text(C, &format!("\r\nHEAD / HTTP/1.0\r\n\r\n{GET}")),
        text(S, "HTTP/1.0 200\r\nA: 1,\r\n 2\r\nContent-Length: 9\r\n\r\nHTTP/1.0 200 OK\n\nrest"),
        end(S),
    ];
    seed("http1", "close-delimited", &script(&acts));
}
