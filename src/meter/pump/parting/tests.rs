use proptest::prelude::*;

use super::*;
use crate::meter::http2::tests::frame;

const PING: u8 = 6;
const GOAWAY: [u8; 17] = [0, 0, 8, GO_AWAY, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// What a server says, in frames, and whether something may be said behind each.
fn said_by_a_server() -> Vec<(Vec<u8>, bool)> {
    vec![
        (frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]), true),
        (frame(SETTINGS, ACK, 0, &[]), true),
        (frame(HEADERS, 0, 1, b"head"), false),
        (frame(CONTINUATION, 0, 1, b""), false),
        (frame(CONTINUATION, END_HEADERS, 1, b"er"), true),
        (frame(DATA, 0, 1, &GOAWAY), true),
        (frame(PUSH_PROMISE, 0, 1, &[0, 0, 0, 2]), false),
        (frame(CONTINUATION, END_HEADERS, 1, b"promise"), true),
        (frame(PING, 0, 0, &[0; 8]), true),
        (frame(DATA, 0, 1, b""), true),
        (frame(HEADERS, END_HEADERS | 0x28, 3, b"\x02....hh\0\0"), true),
        (frame(0xfa, 0xff, 7, b"grease"), true),
        (frame(DATA, 1, 3, b"end"), true),
    ]
}

/// What a client gets, when the wish comes after `ask` bytes; the server's bytes come in `pieces`, and
/// so many are taken at once.
fn got(parting: Parting, wire: &[u8], ask: usize, pieces: &[usize], takes: &[usize]) -> Vec<u8> {
    let (mut parting, mut out, mut at) = (parting, Vec::new(), 0);
    let (mut pieces, mut takes) = (pieces.iter().cycle(), takes.iter().cycle());
    loop {
        if at >= ask {
            parting.want();
        }
        while let Some(word) = parting.due() {
            let (frame, takes) = (word.frame(), *takes.next().unwrap());
            let due = word.rest(&frame);
            let n = due.len().min(takes);
            out.extend(&due[..n]);
            parting.said(n);
        }
        if at == wire.len() {
            return out;
        }
        let mut piece = &wire[at..(at + pieces.next().unwrap()).min(wire.len())];
        if at < ask {
            piece = &piece[..piece.len().min(ask - at)];
        }
        let reach = parting.reach(piece);
        assert!((1..=piece.len()).contains(&reach));
        let n = reach.min(*takes.next().unwrap());
        parting.passed(Side::Server, &piece[..n]);
        out.extend(&piece[..n]);
        at += n;
    }
}

/// What is to come of it: at the first place that is one.
fn wanted(wire: &[u8], places: &[usize], ask: usize) -> Vec<u8> {
    let mut out = wire.to_vec();
    if let Some(place) = places.iter().find(|place| **place >= ask) {
        out.splice(place..place, GOAWAY);
    }
    out
}

fn wire_and_places(frames: &[(Vec<u8>, bool)]) -> (Vec<u8>, Vec<usize>) {
    let (mut wire, mut places) = (Vec::new(), Vec::new());
    for (frame, place) in frames {
        wire.extend(frame);
        if *place {
            places.push(wire.len());
        }
    }
    (wire, places)
}

#[test]
fn it_is_a_goaway_without_an_error_that_excludes_nobody() {
    assert_eq!(&GOAWAY[..], frame(GO_AWAY, 0, 0, b"\x7f\xff\xff\xff\0\0\0\0"));
    assert_eq!(Word::new(ALL).frame(), GOAWAY);
    assert_eq!(&Word::new(7).frame()[..], frame(GO_AWAY, 0, 0, b"\0\0\0\x07\0\0\0\0"));
}

#[test]
fn it_goes_between_two_frames_wherever_the_bytes_are_cut() {
    let (wire, places) = wire_and_places(&said_by_a_server());
    for ask in 0..=wire.len() {
        let wanted = wanted(&wire, &places, ask);
        for size in [1, 2, 3, 8, 9, 10, 17, 50, wire.len()] {
            for takes in [1, 5, wire.len()] {
                let got = got(Parting::new(), &wire, ask, &[size], &[takes]);
                assert_eq!(got, wanted, "{ask} {size} {takes}");
            }
        }
    }
}

#[test]
fn where_nothing_may_be_said_nothing_is() {
    let settings = frame(SETTINGS, 0, 0, &[]);
    let two = |first: &[u8], second: Vec<u8>| [first, &second].concat();
    let goodbye = frame(GO_AWAY, 0, 0, b"\0\0\0\x05\0\0\0\0debug");
    for (what, wire) in [
        ("h1", b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec()),
        ("no greeting", two(&frame(PING, 0, 0, &[0; 8]), settings.clone())),
        ("an acknowledgement first", two(&frame(SETTINGS, ACK, 0, &[]), settings.clone())),
        ("settings that are none", two(&frame(SETTINGS, 0, 0, &[0; 5]), settings.clone())),
        ("settings of a stream", two(&frame(SETTINGS, 0, 1, &[]), settings.clone())),
    ] {
        assert_eq!(got(Parting::new(), &wire, 0, &[4], &[wire.len()]), wire, "{what}");
    }
    for (what, wire) in [
        ("the server leaves", two(&goodbye, frame(DATA, 0, 1, b"x"))),
        ("no continuation", two(&frame(HEADERS, 0, 1, b"h"), frame(DATA, 0, 1, b"x"))),
        ("another's", two(&frame(HEADERS, 0, 1, b"h"), frame(CONTINUATION, 4, 3, b"x"))),
        ("of nothing", two(&frame(CONTINUATION, 4, 1, b"h"), frame(DATA, 0, 1, b"x"))),
    ] {
        let wire = [settings.clone(), wire].concat();
        let ask = settings.len() + 1;
        assert_eq!(got(Parting::new(), &wire, ask, &[4], &[wire.len()]), wire, "{what}");
    }
}

#[test]
fn a_wish_can_be_taken_back_until_it_has_begun() {
    let mut parting = Parting::new();
    parting.passed(Side::Server, &frame(SETTINGS, 0, 0, &[]));
    parting.want();
    parting.forget();
    assert_eq!(parting.due(), None);
    parting.want();
    parting.said(1);
    parting.forget();
    assert_eq!(parting.due().unwrap().rest(&GOAWAY), &GOAWAY[1..]);
    parting.said(16);
    parting.want();
    assert_eq!(parting.due(), None, "once");
}

/// Both have greeted.
fn greeted() -> Parting {
    let mut parting = Parting::new();
    parting.passed(Side::Client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    for side in [Side::Client, Side::Server] {
        parting.passed(side, &frame(SETTINGS, 0, 0, &[]));
    }
    parting
}

#[test]
fn where_no_stream_is_open_it_names_the_last_one() {
    use Side::{Client, Server};
    const END: u8 = END_STREAM | END_HEADERS;
    let gap = |parting: &Parting| parting.due().map(|word| word.last);
    let mut parting = greeted();
    parting.leave();
    assert_eq!(gap(&parting), None, "nothing was asked yet");
    for (n, (side, bytes, last)) in [
        (Client, frame(HEADERS, END, 1, b"ask"), None),
        (Server, frame(HEADERS, END_HEADERS, 1, b"head"), None),
        (Server, frame(DATA, END_STREAM, 1, b"end"), Some(1)),
        // A part of the next frame, whatever it is going to be.
        (Client, vec![0, 0, 3], None),
        (Client, vec![PING, 0, 0, 0, 0, 0, 1, 2, 3], Some(1)),
        (Server, vec![0, 0, 3], None),
        (Server, vec![PING, 0, 0, 0, 0, 0, 1, 2, 3], Some(1)),
        // Two at once, one with a body, whose answer is there before that ends.
        (Client, frame(HEADERS, END_HEADERS, 3, b"ask"), None),
        (Client, frame(HEADERS, END, 5, b"ask"), None),
        (Server, frame(HEADERS, END, 3, b"head"), None),
        (Server, frame(HEADERS, END, 5, b"head"), None),
        (Client, frame(DATA, 0, 3, b"more"), None),
        (Client, frame(DATA, END_STREAM, 3, b""), Some(5)),
        // Trailers of both.
        (Client, frame(HEADERS, END_HEADERS, 7, b"ask"), None),
        (Client, frame(HEADERS, END, 7, b"trailer"), None),
        (Server, frame(HEADERS, END_HEADERS, 7, b"head"), None),
        (Server, frame(HEADERS, END_STREAM, 7, b"trail"), None),
        (Server, frame(CONTINUATION, END_HEADERS, 7, b"er"), Some(7)),
        // Broken off by the one or the other.
        (Client, frame(HEADERS, END, 9, b"ask"), None),
        (Client, frame(RST_STREAM, 0, 9, &[0, 0, 0, 8]), Some(9)),
        (Client, frame(HEADERS, END_HEADERS, 11, b"ask"), None),
        (Server, frame(RST_STREAM, 0, 11, &[0, 0, 0, 8]), Some(11)),
        // The server has left by itself.
        (Server, frame(GO_AWAY, 0, 0, &[0; 8]), None),
    ]
    .into_iter()
    .enumerate()
    {
        parting.passed(side, &bytes);
        assert_eq!(gap(&parting), last, "{n}");
    }
}

#[test]
fn what_is_not_known_to_be_over_is_not() {
    let gap = |parting: &mut Parting, side, bytes: &[u8]| {
        parting.leave();
        parting.passed(Side::Client, &frame(HEADERS, END_STREAM | END_HEADERS, 1, b""));
        parting.passed(side, bytes);
        parting.passed(Side::Server, &frame(HEADERS, END_STREAM | END_HEADERS, 1, b""));
        parting.due().is_some()
    };
    assert!(gap(&mut greeted(), Side::Client, b""));
    let promise = frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]);
    assert!(!gap(&mut greeted(), Side::Server, &promise));
    let many = (0..2000).flat_map(|n| frame(HEADERS, END_HEADERS, 3 + 2 * n, b""));
    let ends = (0..2000).flat_map(|n| frame(RST_STREAM, 0, 3 + 2 * n, &[0; 4]));
    assert!(!gap(&mut greeted(), Side::Client, &many.chain(ends).collect::<Vec<_>>()));
    assert!(!gap(&mut greeted(), Side::Client, &frame(CONTINUATION, 0, 1, b"")));
    assert!(!gap(&mut Parting::new(), Side::Client, b""), "not greeted");
}

#[test]
fn once_it_is_being_said_the_client_is_not_heard() {
    let mut parting = greeted();
    parting.leave();
    parting.passed(Side::Client, &frame(HEADERS, END_STREAM | END_HEADERS, 1, b""));
    parting.passed(Side::Server, &frame(HEADERS, END_STREAM | END_HEADERS, 1, b""));
    parting.want();
    assert!(!parting.has_closed());
    for left in (0..17).rev() {
        parting.said(1);
        assert!(parting.has_closed());
        let frame = Word::new(1).frame();
        let rest = parting.due().map_or(0, |word| word.rest(&frame).len());
        assert_eq!(rest, left);
    }
    // One that is for all streams does not close anything.
    let mut parting = greeted();
    parting.want();
    parting.said(17);
    assert!(!parting.has_closed() && parting.due().is_none());
}

proptest! {
    #[test]
    fn no_byte_is_lost_or_moved(
        frames in proptest::collection::vec(
            (prop_oneof![Just(DATA), Just(HEADERS), Just(PING), Just(SETTINGS), 10_u8..],
             1_u32..4, 0_usize..600, 0_usize..3), 0..30),
        ask in any::<prop::sample::Index>(),
        pieces in proptest::collection::vec(1_usize..700, 1..20),
        takes in proptest::collection::vec(1_usize..700, 1..20),
    ) {
        let mut all = vec![(frame(SETTINGS, 0, 0, &[]), true)];
        for (kind, stream, length, continued) in frames {
            // Payloads that look like frames.
            let payload: Vec<u8> = GOAWAY.iter().copied().cycle().take(length).collect();
            let continued = if kind == HEADERS { continued } else { 0 };
            let flags = |last| if last { END_HEADERS } else { 0 };
            let first = if kind == HEADERS { flags(continued == 0) } else { 0 };
            all.push((frame(kind, first, stream, &payload), continued == 0));
            for left in (0..continued).rev() {
                all.push((frame(CONTINUATION, flags(left == 0), stream, &payload), left == 0));
            }
        }
        let (wire, places) = wire_and_places(&all);
        let ask = ask.index(wire.len() + 1);
        let got = got(Parting::new(), &wire, ask, &pieces, &takes);
        prop_assert_eq!(got, wanted(&wire, &places, ask));
    }

    #[test]
    fn garbage_passes(
        wire in proptest::collection::vec(any::<u8>(), 0..300),
        greeting in any::<bool>(),
        ask in 0_usize..300,
        pieces in proptest::collection::vec(1_usize..50, 1..20),
    ) {
        let greeting = if greeting { frame(SETTINGS, 0, 0, &[]) } else { Vec::new() };
        let wire = [greeting, wire].concat();
        let got = got(Parting::new(), &wire, ask, &pieces, &[usize::MAX]);
        let at = got.len() - wire.len();
        prop_assert!(at == 0 || at == GOAWAY.len());
        // It is the wire, but for one GOAWAY at most.
        let whole = (0..=wire.len()).any(|place| {
            let mut wanted = wire.clone();
            if at > 0 { wanted.splice(place..place, GOAWAY); }
            wanted == got
        });
        prop_assert!(whole);
    }

    /// Against a list of what each side has said of each stream, at every split.
    #[test]
    fn a_gap_is_where_every_stream_has_ended(
        acts in proptest::collection::vec((0_u32..6, 0_u8..4), 1..60),
        split in 1_usize..40,
    ) {
        let mut parting = greeted();
        parting.leave();
        let mut streams: Vec<(bool, bool)> = Vec::new();
        for (which, act) in acts {
            let at = which as usize;
            let (side, kind, end) = match act {
                // The next one begins, with its end or without.
                0 | 1 if streams.len() <= at => {
                    streams.push((act == 1, false));
                    (Side::Client, HEADERS, act == 1)
                }
                _ if streams.len() <= at => continue,
                0 => { streams[at].0 = true; (Side::Client, DATA, true) }
                1 => { streams[at].1 = true; (Side::Server, DATA, true) }
                2 => (Side::Server, DATA, false),
                _ => { streams[at] = (true, true); (Side::Server, RST_STREAM, false) }
            };
            let id = if kind == HEADERS { streams.len() - 1 } else { at };
            let id = u32::try_from(id).unwrap() * 2 + 1;
            let flags = if end { END_STREAM } else { 0 };
            let flags = if kind == HEADERS { flags | END_HEADERS } else { flags };
            for piece in frame(kind, flags, id, b"1234").chunks(split) {
                parting.passed(side, piece);
            }
            let over = streams.iter().all(|(up, down)| *up && *down);
            let last = u32::try_from(streams.len()).unwrap() * 2 - 1;
            let expected = over.then(|| Word::new(last));
            prop_assert_eq!(parting.due(), expected);
        }
    }
}
