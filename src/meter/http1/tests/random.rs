//! Random messages, pieces and interleavings.

use super::*;

/// A message with a body in one of the framings; and the body.
fn message(head: &'static str) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let body = proptest::collection::vec(any::<u8>(), 0..200);
    (body, proptest::option::of(1_usize..50)).prop_map(move |(body, chunk)| {
        let mut wire = head.as_bytes().to_vec();
        match chunk {
            None => {
                wire.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
                wire.extend(&body);
            }
            Some(size) => {
                wire.extend(b"Transfer-Encoding: chunked\r\n\r\n");
                for piece in body.chunks(size) {
                    wire.extend(format!("{:x}\r\n", piece.len()).bytes());
                    wire.extend(piece);
                    wire.extend(b"\r\n");
                }
                wire.extend(b"0\r\n\r\n");
            }
        }
        (wire, body)
    })
}

proptest! {
    #[test]
    fn bodies_arrive_in_any_pieces_and_any_order_of_the_sides(
        exchanges in proptest::collection::vec(
            (message("POST /x HTTP/1.1\r\n"), message("HTTP/1.1 200 OK\r\n")), 1..6),
        pieces in proptest::collection::vec((any::<bool>(), 1_usize..80), 1..100),
    ) {
        let requests: Vec<u8> = exchanges.iter().flat_map(|((wire, _), _)| wire.clone()).collect();
        let responses: Vec<u8> = exchanges.iter().flat_map(|(_, (wire, _))| wire.clone()).collect();
        let (mut requests, mut responses) = (&requests[..], &responses[..]);
        let mut follower = Http1::new();
        let mut got = vec![(Vec::<u8>::new(), Vec::<u8>::new(), 0); exchanges.len()];
        let mut sink = |event: HttpEvent<'_>| match event {
            HttpEvent::RequestBody { stream, data } => got[stream as usize].0.extend(data),
            HttpEvent::ResponseBody { stream, data } => got[stream as usize].1.extend(data),
            HttpEvent::RequestEnd { stream } | HttpEvent::ResponseEnd { stream } => {
                got[stream as usize].2 += 1;
            }
            HttpEvent::Request { .. } | HttpEvent::Response { .. } => {}
            HttpEvent::Informational { .. }
            | HttpEvent::Trailers { .. }
            | HttpEvent::Upgraded { .. }
            | HttpEvent::Tunnelled { .. }
            | HttpEvent::Cut { .. }
            | HttpEvent::Lost { .. }
            | HttpEvent::GaveUp { .. } => panic!("{event:?}"),
        };
        for (server, size) in pieces.into_iter().cycle() {
            if requests.is_empty() && responses.is_empty() {
                break;
            }
            let (side, bytes) = match server {
                false if !requests.is_empty() => (Side::Client, &mut requests),
                _ if responses.is_empty() => (Side::Client, &mut requests),
                _ => (Side::Server, &mut responses),
            };
            let (now, later) = bytes.split_at(size.min(bytes.len()));
            *bytes = later;
            follower.feed(side, now, &mut sink);
        }
        for (got, ((_, request), (_, response))) in got.iter().zip(&exchanges) {
            prop_assert_eq!(&got.0, request);
            prop_assert_eq!(&got.1, response);
            prop_assert_eq!(got.2, 2);
        }
    }

    #[test]
    fn garbage_never_panics(
        acts in proptest::collection::vec(
            (0..4, "(GET|POST|HTTP/1.1 |[0-9]{1,3}|/|: ?|\r\n|\r\n\r\n|\n| HTTP/1.1\r\n|content-length|\
             transfer-encoding: chunked|upgrade|connection|[\\x00-\\xff]{0,5}){0,12}"), 0..12),
    ) {
        let acts: Vec<Act> = acts
            .into_iter()
            .map(|(kind, text)| match kind {
                0 => Act::C(text.into_bytes()),
                1 => Act::S(text.into_bytes()),
                2 => Act::CEnd,
                _ => Act::SEnd,
            })
            .collect();
        let whole = run(&acts, |bytes| vec![bytes.to_vec()]);
        let split = run(&acts, |bytes| bytes.chunks(3).map(<[u8]>::to_vec).collect());
        prop_assert_eq!(whole, split);
    }
}
