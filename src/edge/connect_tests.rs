use proptest::prelude::*;

use super::*;

const TAIL: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello";

fn target(host: &str, port: u16) -> Target {
    Target { host: host.into(), port }
}

/// Feeds `input` as it would be peeked in pieces of `size`; gives the outcome and what was taken.
fn run(input: &[u8], size: usize) -> (Step, usize) {
    let mut reader = Reader::default();
    let mut taken = 0;
    while taken < input.len() {
        let chunk = &input[taken..(taken + size).min(input.len())];
        match reader.feed(chunk) {
            Step::More => taken += chunk.len(),
            Step::Done { take, request } => {
                assert!(take <= chunk.len());
                return (Step::Done { take, request }, taken + take);
            }
            refused @ Step::Refuse(_) => return (refused, taken),
        }
    }
    (Step::More, taken)
}

fn request(input: &[u8]) -> Request {
    match run(input, usize::MAX / 2).0 {
        Step::Done { request, .. } => request,
        other @ (Step::More | Step::Refuse(_)) => panic!("{other:?}"),
    }
}

fn status(input: &[u8]) -> u16 {
    match run(input, usize::MAX / 2).0 {
        Step::Refuse(refusal) => refusal.status,
        other @ (Step::More | Step::Done { .. }) => {
            panic!("{:?} gave {other:?}", String::from_utf8_lossy(input))
        }
    }
}

#[test]
fn the_forms_of_connect_that_occur() {
    let forms: &[(&str, Target)] = &[
        ("CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n\r\n", target("h.example", 443)),
        ("CONNECT h.example:443 HTTP/1.0\r\n\r\n", target("h.example", 443)),
        ("CONNECT H.example:443 HTTP/1.1\r\nhost: h.example\r\n\r\n", target("h.example", 443)),
        (
            "CONNECT h:8443 HTTP/1.1\r\nHost: h\r\nConnection: close\r\nProxy-Connection: close\r\n\
             Proxy-Authorization: Basic eDp5\r\nUser-Agent: x\r\n\r\n",
            target("h", 8443),
        ),
        ("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n", target("::1", 443)),
        ("CONNECT [FE80::1%Eth0]:443 HTTP/1.1\r\n\r\n", target("fe80::1%Eth0", 443)),
        ("CONNECT [fe80::1%25en0.7]:443 HTTP/1.1\r\n\r\n", target("fe80::1%en0.7", 443)),
        ("CONNECT 10.0.0.1:443 HTTP/1.1\n\n", target("10.0.0.1", 443)),
        ("\r\nCONNECT h:1 HTTP/1.1\r\n\r\n", target("h", 1)),
    ];
    for (text, expected) in forms {
        let input = [text.as_bytes(), TAIL].concat();
        for size in 1..=input.len() {
            let (step, taken) = run(&input, size);
            assert!(
                matches!(&step, Step::Done { request: Request::Connect(t), .. } if t == expected),
                "{text:?} in pieces of {size}: {step:?}"
            );
            assert_eq!(taken, text.len(), "{text:?} in pieces of {size}");
        }
    }
}

#[test]
fn what_cannot_be_served_is_named() {
    assert_eq!(status(b"CONNECT h.example HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"CONNECT h.example:0 HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"CONNECT h.example:99999 HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"CONNECT :443 HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"CONNECT ::1:443 HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"CONNECT [::1:443 HTTP/1.1\r\n\r\n"), 400);
    for zone in ["", "a]b", "a/b", "a%b", "\u{e9}"] {
        let head = format!("CONNECT [fe80::1%{zone}]:443 HTTP/1.1\r\n\r\n");
        assert_eq!(status(head.as_bytes()), 400, "{zone}");
    }
    assert_eq!(status(b"CONNECT a/b:443 HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(TAIL), 400);
    assert_eq!(status(b"GET https:///x HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET https://h:0/ HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET ftp://h/ HTTP/1.1\r\n\r\n"), 400);
    assert_eq!(status(b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n"), 404);
    assert_eq!(status(b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 404);
    assert_eq!(status(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(request(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:8081\r\n\r\n"), Request::Health);
    assert_eq!(request(b"GET /health HTTP/1.0\r\n\r\n"), Request::Health);
    assert_eq!(request(b"GET /passing HTTP/1.1\r\nHost: localhost\r\n\r\n"), Request::Passing);
}

#[test]
fn heads_over_the_cap_end() {
    let long = format!("CONNECT h:443 HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_CONNECT));
    for size in [1, 100, 4096, 100_000] {
        assert!(
            matches!(run(long.as_bytes(), size).0, Step::Refuse(Refusal { status: 431, .. })),
            "{size}"
        );
    }
    let endless = vec![b'G'; MAX_FORWARD + 1];
    assert!(matches!(run(&endless, 4096).0, Step::Refuse(_)));
    let cookies = format!("GET http://h/ HTTP/1.1\r\nCookie: {}\r\n\r\n", "c".repeat(MAX_CONNECT));
    assert!(matches!(run(cookies.as_bytes(), 4096).0, Step::Done { .. }));
}

#[test]
fn plain_requests_become_origin_form() {
    let input = b"POST http://u:p@H.example:8080/a?b#c HTTP/1.1\r\nHost: other\r\nX-A: 1\r\n\
        Proxy-Authorization: Basic x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
        Content-Length: 4\r\n\r\nbody";
    let Request::Forward { target: to, head, secure: false } = request(input) else { panic!() };
    assert_eq!(to, target("h.example", 8080));
    assert_eq!(
        String::from_utf8(head).unwrap(),
        "POST /a?b HTTP/1.1\r\nHost: H.example:8080\r\nX-A: 1\r\nContent-Length: 4\r\n\
         Connection: close\r\n\r\n"
    );
    let input = b"GET HTTP://[::1]?q HTTP/1.0\r\n\r\n";
    let Request::Forward { target: to, head, secure: false } = request(input) else { panic!() };
    assert_eq!(to, target("::1", 80));
    assert!(head.starts_with(b"GET /?q HTTP/1.0\r\nHost: [::1]\r\n"));
    let scoped = request(b"GET http://u%40@[fe80::1%25en0]:81/a%25 HTTP/1.1\r\n\r\n");
    let Request::Forward { target: to, head, secure: false } = scoped else { panic!() };
    assert_eq!(to, target("fe80::1%en0", 81));
    assert!(head.starts_with(b"GET /a%25 HTTP/1.1\r\nHost: [fe80::1]:81\r\n"));
}

#[test]
fn what_is_odd_in_a_head_passes_as_it_came() {
    let many: String = (0..200).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let input = [
        b"GET http://h/caf\xe9 b?\xe9#c HTTP/1.1\r\nX(y): a\r\nX[z]: \x01\x7f\r\nX Y: \xe9\r\nA: 1,\r\n 2\r\n\
          Spaced : x\r\nConnection : keep-alive,\r\n x-hop\r\nX-Hop: 1\r\nHost : other\r\n",
        many.as_bytes(),
        b"\r\n",
    ]
    .concat();
    let Request::Forward { target: to, head, secure: false } = request(&input) else { panic!() };
    assert_eq!(to, target("h", 80));
    let expected = [
        b"GET /caf\xe9 b?\xe9 HTTP/1.1\r\nHost: h\r\nX(y): a\r\nX[z]: \x01\x7f\r\nX Y: \xe9\r\n\
          A: 1,\r\n 2\r\nSpaced : x\r\n",
        many.as_bytes(),
        b"Connection: close\r\n\r\n",
    ]
    .concat();
    assert_eq!(head.escape_ascii().to_string(), expected.escape_ascii().to_string());
    // Nothing of these is sent on.
    let connect =
        [b"CONNECT h:1 HTTP/1.1\r\nX(y): \0\r\nno colon\r\n x\r\n", many.as_bytes(), b"\r\n"];
    assert_eq!(request(&connect.concat()), Request::Connect(target("h", 1)));
}

#[test]
fn a_field_that_frames_in_disguise_is_refused() {
    for line in
        ["Content-Length : 5", "Transfer-Encoding:\x0bchunked", "X: \rContent-Length: 5", "X"]
    {
        let head = format!("POST http://h/ HTTP/1.1\r\n{line}\r\n\r\n");
        assert_eq!(status(head.as_bytes()), 400, "{line:?}");
    }
    let hidden = b"GET /health HTTP/1.1\r\nHost: evil.example\0\r\n\r\n";
    assert_eq!(status(hidden), 404);
}

#[test]
fn https_in_absolute_form_is_the_same_over_tls() {
    let input = b"POST https://u:p@H.example/a?b HTTP/1.1\r\nHost: h.example\r\nX-A: 1\r\n\
        Proxy-Connection: keep-alive\r\nContent-Length: 4\r\n\r\nbody";
    for size in 1..=input.len() {
        let (Step::Done { request, .. }, taken) = run(input, size) else { panic!("{size}") };
        assert_eq!((request.how(), taken), (Asked::Secure, input.len() - 4));
        let Request::Forward { target: to, head, secure: true } = request else { panic!("{size}") };
        assert_eq!(to, target("h.example", 443));
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "POST /a?b HTTP/1.1\r\nHost: H.example\r\nX-A: 1\r\nContent-Length: 4\r\n\
             Connection: close\r\n\r\n"
        );
    }
    let other = request(b"GET HTTPS://h:8443 HTTP/1.1\r\n\r\n");
    assert_eq!(other.target(), Some(&target("h", 8443)));
}

proptest! {
    #[test]
    fn never_panics_and_never_takes_more_than_there_is(
        input in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..64,
    ) {
        let (_, taken) = run(&input, size);
        prop_assert!(taken <= input.len());
    }

    #[test]
    fn the_slicing_changes_nothing(
        head in "(CONNECT|GET|connect) [a-z:/.\\[\\]0-9]{0,20} HTTP/1.[01]\r\n([A-Za-z-]{1,8}: [ -~]{0,12}\r\n){0,4}\r\n",
        size in 1usize..40,
    ) {
        let outcome = |(step, taken)| match step {
            Step::Done { request, .. } => (Some(request), taken, None),
            Step::Refuse(refusal) => (None, 0, Some(refusal)),
            Step::More => (None, taken, None),
        };
        prop_assert_eq!(
            outcome(run(head.as_bytes(), size)),
            outcome(run(head.as_bytes(), head.len()))
        );
    }
}
