use proptest::prelude::*;

use super::*;
use crate::meter::http2::tests::frame;

const DATA: u8 = 0;
const PING: u8 = 6;

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
        while let due @ [_, ..] = parting.due() {
            let n = due.len().min(*takes.next().unwrap());
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
        parting.passed(&piece[..n]);
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
}

#[test]
fn it_goes_between_two_frames_wherever_the_bytes_are_cut() {
    let (wire, places) = wire_and_places(&said_by_a_server());
    for ask in 0..=wire.len() {
        let wanted = wanted(&wire, &places, ask);
        for size in [1, 2, 3, 8, 9, 10, 17, 50, wire.len()] {
            for takes in [1, 5, wire.len()] {
                let got = got(Parting::new(true), &wire, ask, &[size], &[takes]);
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
    for (what, h2, wire) in [
        ("not h2", false, two(&settings, frame(DATA, 0, 1, b"x"))),
        ("h1", true, b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n".to_vec()),
        ("no greeting", true, two(&frame(PING, 0, 0, &[0; 8]), settings.clone())),
        ("an acknowledgement first", true, two(&frame(SETTINGS, ACK, 0, &[]), settings.clone())),
        ("settings that are none", true, two(&frame(SETTINGS, 0, 0, &[0; 5]), settings.clone())),
        ("settings of a stream", true, two(&frame(SETTINGS, 0, 1, &[]), settings.clone())),
    ] {
        assert_eq!(got(Parting::new(h2), &wire, 0, &[4], &[wire.len()]), wire, "{what}");
    }
    for (what, wire) in [
        ("the server leaves", two(&goodbye, frame(DATA, 0, 1, b"x"))),
        ("no continuation", two(&frame(HEADERS, 0, 1, b"h"), frame(DATA, 0, 1, b"x"))),
        ("another's", two(&frame(HEADERS, 0, 1, b"h"), frame(CONTINUATION, 4, 3, b"x"))),
        ("of nothing", two(&frame(CONTINUATION, 4, 1, b"h"), frame(DATA, 0, 1, b"x"))),
    ] {
        let wire = [settings.clone(), wire].concat();
        let ask = settings.len() + 1;
        assert_eq!(got(Parting::new(true), &wire, ask, &[4], &[wire.len()]), wire, "{what}");
    }
}

#[test]
fn a_wish_can_be_taken_back_until_it_has_begun() {
    let mut parting = Parting::new(true);
    parting.passed(&frame(SETTINGS, 0, 0, &[]));
    parting.want();
    parting.forget();
    assert_eq!(parting.due(), b"");
    parting.want();
    parting.said(1);
    parting.forget();
    assert_eq!(parting.due(), &GOAWAY[1..]);
    parting.said(16);
    parting.want();
    assert_eq!(parting.due(), b"", "once");
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
        let got = got(Parting::new(true), &wire, ask, &pieces, &takes);
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
        let got = got(Parting::new(true), &wire, ask, &pieces, &[usize::MAX]);
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
}
