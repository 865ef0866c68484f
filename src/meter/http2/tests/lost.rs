//! Exchanges that are lost by themselves, on a connection that is followed on.

use super::*;

/// Runs the acts and then says whether something is still under way that no event tells of.
fn is_asking(acts: &[(Side, Vec<u8>)]) -> bool {
    let mut follower = Http2::new();
    for (side, bytes) in acts {
        follower.feed(*side, bytes, &mut |event| {
            assert!(!matches!(event, HttpEvent::GaveUp { .. }), "{event:?}");
        });
    }
    follower.is_asking()
}

fn many_fields(first: (&str, &str)) -> Vec<u8> {
    [block(&[first]), block(&[("a", "b")]).repeat(600), INDEXED.to_vec()].concat()
}

#[test]
fn a_head_with_too_many_fields_costs_its_own_exchange() {
    let mut answer = block(&[(":status", "200")]);
    answer.push(0x80 | 62);
    let trailers = many_fields(("grpc-status", "0"));
    let acts = [
        client(&[1, 3, 5].map(|stream| request(stream, END_STREAM, &[]))),
        server(&[frame(HEADERS, END_HEADERS, 1, &many_fields((":status", "200")))]),
        (Side::Server, frame(HEADERS, END_HEADERS, 3, &answer)),
        (Side::Server, frame(DATA, END_STREAM, 1, b"unread")),
        // Of trailers what fits.
        (Side::Server, frame(HEADERS, END_HEADERS | END_STREAM, 3, &trailers)),
        (Side::Server, response(5, END_STREAM, "200")),
    ];
    let lines = said(&acts);
    let all = lines[6..].iter().map(|line| line.split(" [").next().unwrap()).collect::<Vec<_>>();
    assert_eq!(
        all,
        [
            "1 response 200",
            "1 lost: HeadTooLarge",
            "3 response 200",
            "3 trailers",
            "3 response-end",
            "5 response 200",
            "5 response-end",
        ]
    );
    assert!(lines[8].ends_with("[x-k: v]"), "the table is in step: {}", lines[8]);
    assert!(is_asking(&acts[..3]), "its answer is still under way");
    assert!(!is_asking(&acts[..4]));
}

#[test]
fn a_request_with_too_many_fields_is_told_and_lost() {
    let ask = many_fields((":method", "POST"));
    let acts = [
        client(&[frame(HEADERS, END_HEADERS, 1, &ask), frame(DATA, END_STREAM, 1, b"body")]),
        server(&[response(1, 0, "103"), response(1, 0, "200")]),
        (Side::Client, request(3, END_STREAM, &[])),
        (Side::Server, [frame(DATA, END_STREAM, 1, b"x"), response(3, END_STREAM, "200")].concat()),
    ];
    let lines = said(&acts);
    assert!(lines[0].starts_with("1 request POST"), "{}", lines[0]);
    assert_eq!(
        lines[1..],
        [
            "1 lost: HeadTooLarge",
            "3 request POST /p h - []",
            "3 request-end",
            "3 response 200 []",
            "3 response-end",
        ]
    );
    assert!(is_asking(&acts[..3]));
    assert!(!is_asking(&acts));
    // However it ends, it is not said again.
    let ends = [
        vec![(Side::Client, frame(RST, 0, 1, &8_u32.to_be_bytes()))],
        vec![(Side::Server, frame(GOAWAY, 0, 0, &[0; 8]))],
        vec![end(Side::Server), end(Side::Client)],
        vec![end(Side::Client), end(Side::Server)],
    ];
    for ends in ends {
        let lines = said(&[&acts[..2], &ends].concat());
        assert_eq!(lines[1..], ["1 lost: HeadTooLarge"]);
        assert!(!is_asking(&[&acts[..2], &ends[..1]].concat()) || ends[0].1.is_empty());
    }
}

#[test]
fn a_stream_too_many_is_lost_alone() {
    let whole = |bytes: &[u8]| vec![bytes.to_vec()];
    let stream = |n: usize| 2 * n as u32 + 1;
    let many: Vec<_> = (0..=MAX_STREAMS).map(|n| request(stream(n), END_STREAM, &[])).collect();
    let last = stream(MAX_STREAMS);
    let more = stream(MAX_STREAMS + 1);
    let lines = run(
        &[
            client(&many),
            server(&[response(1, END_STREAM, "200"), response(last, END_STREAM, "200")]),
            (Side::Client, request(more, END_STREAM, &[])),
            (Side::Server, response(more, END_STREAM, "200")),
            (Side::Server, response(3, END_STREAM, "200")),
        ],
        whole,
    );
    let from = 2 * MAX_STREAMS;
    assert_eq!(
        lines[from..],
        [
            format!("{last} request POST /p h - []"),
            format!("{last} lost: TooManyStreams"),
            "1 response 200 []".to_owned(),
            "1 response-end".to_owned(),
            format!("{more} request POST /p h - []"),
            format!("{more} request-end"),
            format!("{more} response 200 []"),
            format!("{more} response-end"),
            "3 response 200 []".to_owned(),
            "3 response-end".to_owned(),
        ]
    );
}
