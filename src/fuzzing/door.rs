//! What stands at the door: the heads that the edge reads, hellos, hand-over frames, and answers of
//! other processes.

use super::{PIECES, same};
use crate::actors::ask;
use crate::dial::HeadEnd;
use crate::edge::connect::{Reader, Request, Step};
use crate::edge::extent::Answer;
use crate::edge::forward::ResponseGate;
use crate::edge::head;
use crate::edge::probe;
use crate::handover::wire::{Decoder, Frame, encode};
use crate::handover::{ToDaemon, ToEdge};
use crate::meter::budget::webhook;
use crate::meter::hello::{Look, look};

/// A client's request head.
pub fn head(data: &[u8]) {
    let mut first: Option<Step> = None;
    for size in PIECES {
        let end = read(data, size);
        if let Step::Done { take, request: Request::Forward { head, .. } } = &end {
            assert!(*take <= data.len());
            assert_one_request(head);
        }
        match (&end, &first) {
            // Garbage is refused at once or at the next end of a line.
            (Step::Refuse(_), Some(Step::More)) | (Step::More, Some(Step::Refuse(_))) => {}
            (end, Some(first)) => assert_eq!(end, first, "in pieces of {size}"),
            (_, None) => first = Some(end),
        }
    }
}

fn read(data: &[u8], size: usize) -> Step {
    let mut reader = Reader::default();
    let mut before = 0;
    for piece in data.chunks(size) {
        match reader.feed(piece) {
            Step::More => before += piece.len(),
            Step::Done { take, request } => return Step::Done { take: before + take, request },
            refuse @ Step::Refuse(_) => return refuse,
        }
    }
    assert_eq!(reader.taken(), data, "all of it was the head's");
    Step::More
}

/// An origin must see one request in it, of one host, and nothing that was said to the proxy.
fn assert_one_request(head: &[u8]) {
    let request = head::read(head).ok().flatten().expect("a request");
    assert_eq!(request.length, head.len());
    let fields = request.fields().expect("each is read in one way");
    let named = |name| fields.iter().filter(|field| field.is(name)).count();
    assert_eq!((named("host"), named("connection"), named("proxy-authorization")), (1, 1, 0));
}

/// A response on its way through the proxy.
pub fn gate(data: &[u8]) {
    same(|size| {
        let mut gate = ResponseGate::new(Answer::Framed);
        let mut out = Vec::new();
        let mut pieces = data.chunks(size);
        for piece in pieces.by_ref() {
            let passed = gate.feed(piece);
            out.extend(passed.bytes);
            if let Some(mut rest) = passed.rest {
                out.extend(pieces.flat_map(|piece| &piece[..rest.take(piece)]));
                return out;
            }
        }
        out.extend(gate.finish());
        assert_eq!(out, data, "no head, no change");
        out
    });
}

/// The first byte says who listens.
pub fn handover(data: &[u8]) {
    match data.split_first() {
        Some((0x80.., data)) => frames::<ToDaemon>(data),
        Some((_, data)) => frames::<ToEdge>(data),
        None => {}
    }
}

fn frames<M: Frame + PartialEq + std::fmt::Debug>(data: &[u8]) {
    same(|size| {
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for piece in data.chunks(size) {
            decoder.feed(piece);
            loop {
                match decoder.take_frame::<M>() {
                    Ok(Some(message)) => seen.push(again(message)),
                    Ok(None) => break,
                    Err(error) => return (seen, Some(error.to_string())),
                }
            }
        }
        (seen, None)
    });
}

/// What was understood is said again and understood as the same.
fn again<M: Frame + PartialEq + std::fmt::Debug>(message: M) -> String {
    // Text in JSON may be shorter than what is written for it.
    if let Ok(frame) = encode(&message) {
        let mut decoder = Decoder::default();
        decoder.feed(&frame);
        assert_eq!(decoder.take_frame::<M>().expect("our own"), Some(message));
        return format!("{frame:?}");
    }
    format!("{message:?}")
}

/// The first bytes of a TLS connection: what is known of them is not taken back when more come.
pub fn hello(data: &[u8]) {
    let mut known = Look::Partial;
    let mut lengths: Vec<usize> = (0..10).chain((1..=32).map(|n| data.len() * n / 32)).collect();
    lengths.sort_unstable();
    for length in lengths {
        let Some(bytes) = data.get(..length) else { continue };
        let seen = look(bytes);
        assert!(known == Look::Partial || seen == known, "{length}: {seen:?} after {known:?}");
        known = seen;
    }
    if let Look::Whole(hello) = known {
        assert!(hello.sni.is_none_or(|name| name.len() <= 253), "no name is that long");
    }
}

/// Answers to small questions of ours: of a proxy in front, of the daemon, of a webhook.
pub fn answers(data: &[u8]) {
    same(|size| {
        let mut end = HeadEnd::default();
        let mut before = 0;
        let at = data.chunks(size).find_map(|piece| {
            let found = end.feed(piece).map(|length| before + length);
            before += piece.len();
            found
        });
        assert!(at.is_none_or(|at| at <= data.len() && data.get(at - 1) == Some(&b'\n')));
        at
    });
    let whole = probe::instance(data);
    // What a prefix says of health, the whole says too: a length was announced.
    for part in [data.len() / 2, data.len() * 3 / 4] {
        if let (Some(early), Some(whole)) = (data.get(..part).and_then(probe::instance), whole) {
            assert_eq!(early, whole);
        }
    }
    if let Some((status, _)) = ask::parse(data) {
        assert!(status < 1000);
    }
    let _ = webhook::status(data);
}
