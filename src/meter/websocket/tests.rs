use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

use super::*;

const TEXT: u8 = 1;
const PING: u8 = 9;
const CLOSE: u8 = 8;

/// One frame as it stands on the wire; a client masks.
pub(crate) fn frame(side: Side, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let masked = if side == Side::Client { 0x80 } else { 0 };
    match payload.len() {
        n @ 0..=125 => out.push(masked | n as u8),
        n @ 126..=0xffff => {
            out.push(masked | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(masked | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    if masked == 0 {
        out.extend(payload);
    } else {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        out.extend(key);
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    out
}

pub(crate) fn text(side: Side, payload: &str) -> Vec<u8> {
    frame(side, 0x80 | TEXT, payload.as_bytes())
}

pub(crate) fn close(side: Side, code: u16) -> Vec<u8> {
    frame(side, 0x80 | CLOSE, &code.to_be_bytes())
}

/// What a peer with permessage-deflate does before it frames.
pub(crate) struct Deflater {
    compress: Compress,
    takeover: bool,
}

impl Deflater {
    pub(crate) fn new(takeover: bool) -> Self {
        Self { compress: Compress::new(Compression::default(), false), takeover }
    }

    pub(crate) fn payload(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() * 2 + 128);
        self.compress.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
        if out.is_empty() {
            // zlib doesn't flush twice without anything between; an empty block says as much.
            out.extend([0, 0, 0, 0xff, 0xff]);
        }
        assert!(out.ends_with(&[0, 0, 0xff, 0xff]));
        out.truncate(out.len() - 4);
        if !self.takeover {
            self.compress.reset();
        }
        out
    }

    /// The message in `pieces` frames.
    pub(crate) fn frames(&mut self, side: Side, message: &str, pieces: usize) -> Vec<u8> {
        let payload = self.payload(message.as_bytes());
        let chunks: Vec<_> = payload.chunks(payload.len().div_ceil(pieces).max(1)).collect();
        let mut out = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            let opcode = if i == 0 { 0x40 | TEXT } else { 0 };
            let last = if i + 1 == chunks.len() { 0x80 } else { 0 };
            out.extend(frame(side, last | opcode, chunk));
        }
        out
    }
}

pub(crate) fn agreed(value: &str) -> Option<Extensions> {
    Extensions::agreed(&[("sec-websocket-extensions", value)].into_iter().collect())
}

/// One line for each message, close and end of following. What a lost message handed out before it
/// was lost depends on the pieces, and is dropped.
fn heard(follower: &mut WebSocket, side: Side, wire: &[u8], piece: usize) -> Vec<String> {
    let (mut out, mut open) = (Vec::new(), Vec::new());
    for bytes in wire.chunks(piece) {
        follower.feed(side, bytes, &mut |event| match event {
            WsEvent::Data { data, .. } => open.extend_from_slice(data),
            WsEvent::End { lost: Some(lost), .. } => {
                open.clear();
                out.push(format!("lost {lost:?}"));
            }
            WsEvent::End { text, lost: None, .. } => {
                let said = String::from_utf8_lossy(&std::mem::take(&mut open)).into_owned();
                out.push(format!("{} {said}", if text { "text" } else { "binary" }));
            }
            WsEvent::Close { code, .. } => out.push(format!("close {code:?}")),
            WsEvent::GaveUp(_) => out.push("gave up".to_owned()),
        });
    }
    out
}

/// The same in any pieces; says what.
fn read(extensions: Extensions, side: Side, wire: &[u8]) -> Vec<String> {
    let whole = heard(&mut WebSocket::new(extensions), side, wire, usize::MAX);
    for piece in [1, 2, 3, 7, 61] {
        assert_eq!(heard(&mut WebSocket::new(extensions), side, wire, piece), whole, "{piece}");
    }
    whole
}

fn plain() -> Extensions {
    Extensions::default()
}

fn deflate() -> Extensions {
    agreed("permessage-deflate").unwrap()
}

#[test]
fn messages_of_every_length_form_masked_and_not() {
    for side in [Side::Client, Side::Server] {
        for length in [0, 1, 125, 126, 0xffff, 0x1_0000] {
            let message = "x".repeat(length);
            let wire = text(side, &message);
            let heard = read(plain(), side, &wire);
            assert!(heard == [format!("text {message}")], "{side:?} {length}");
        }
    }
}

#[test]
fn fragments_with_control_frames_between_them() {
    let mut wire = frame(Side::Client, TEXT, b"one ");
    wire.extend(frame(Side::Client, 0x80 | PING, b"are you there"));
    wire.extend(frame(Side::Client, 0, b""));
    wire.extend(frame(Side::Client, 0x80 | 10, b""));
    wire.extend(frame(Side::Client, 0x80, b"two"));
    wire.extend(frame(Side::Client, 0x82, b"b"));
    wire.extend(close(Side::Client, 1001));
    wire.extend(b"what comes behind is not looked at");
    let heard = read(plain(), Side::Client, &wire);
    assert_eq!(heard, ["text one two", "binary b", "close Some(1001)"]);
    let bare = frame(Side::Server, 0x80 | CLOSE, b"");
    assert_eq!(read(plain(), Side::Server, &bare), ["close None"]);
}

#[test]
fn broken_framing_ends_the_following() {
    let server = Side::Server;
    for (wire, what) in [
        (frame(server, 0x83, b""), "an unknown opcode"),
        (frame(server, 0xa1, b""), "a reserved bit"),
        (frame(server, 0xc1, b""), "compressed, which was not agreed"),
        (frame(server, 0x80, b""), "a continuation of nothing"),
        (frame(server, 0x09, b""), "a ping in pieces"),
        (frame(server, 0x89, &[0; 126]), "a large ping"),
        ([frame(server, 1, b""), frame(server, 0x81, b"")].concat(), "a message in a message"),
        (vec![0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1], "a negative length"),
    ] {
        let mut wire = wire;
        wire.extend(text(server, "behind"));
        assert_eq!(read(plain(), server, &wire), ["gave up"], "{what}");
    }
    let wire = [frame(server, 0x41, b""), frame(server, 0xc0, b"")].concat();
    assert_eq!(read(deflate(), server, &wire), ["gave up"], "compressed in the middle");
}

#[test]
fn what_extensions_were_agreed() {
    let takeover = |value| {
        let extensions = agreed(value)?;
        let side = |inflate: Inflate| inflate.is_agreed();
        assert_eq!(side(extensions.client()), side(extensions.server()));
        Some(format!("{extensions:?}"))
    };
    let said = |client: bool, server: bool| {
        format!("Extensions {{ deflate: Some(Takeover {{ client: {client}, server: {server} }}) }}")
    };
    for (value, expected) in [
        ("", Some("Extensions { deflate: None }".to_owned())),
        ("permessage-deflate", Some(said(true, true))),
        ("Permessage-Deflate ; server_no_context_takeover", Some(said(true, false))),
        (
            "permessage-deflate; client_no_context_takeover; server_max_window_bits=\"9\"",
            Some(said(false, true)),
        ),
        ("permessage-deflate; client_max_window_bits=15", Some(said(true, true))),
        ("permessage-deflate; client_max_window_bits", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; x=1", None),
        ("permessage-deflate, permessage-deflate", None),
        ("x-webkit-deflate-frame", None),
    ] {
        assert_eq!(takeover(value), expected, "{value}");
    }
}

#[test]
fn compressed_messages_with_and_without_takeover_in_both_directions() {
    let event = r#"{"type":"response.output_text.delta","delta":"The quick brown fox jumps over 13 lazy dogs, twice; Zephyr vexed Jack."}"#;
    let none = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
    for (value, takeover) in [("permessage-deflate", true), (none, false)] {
        for side in [Side::Client, Side::Server] {
            let mut deflater = Deflater::new(takeover);
            let mut wire = deflater.frames(side, event, 1);
            let first = wire.len();
            wire.extend(deflater.frames(side, event, 3));
            if takeover {
                // Only the window of the first explains the second.
                assert!(wire.len() - first < first / 2);
            }
            wire.extend(text(side, "as it is"));
            wire.extend(deflater.frames(side, "", 1));
            let event = format!("text {event}");
            let expected = [&event, &event, "text as it is", "text "];
            assert_eq!(read(agreed(value).unwrap(), side, &wire), expected, "{value} {side:?}");
        }
    }
}

#[test]
fn the_example_of_the_standard_with_a_last_block() {
    // RFC 7692 section 7.2.3.4: "Hello" with BFINAL set.
    let payload = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    let wire = frame(Side::Server, 0xc1, &payload);
    let twice = [wire.clone(), wire].concat();
    let none = agreed("permessage-deflate; server_no_context_takeover").unwrap();
    assert_eq!(read(none, Side::Server, &twice), ["text Hello", "text Hello"]);
    // With takeover the window before the last block would be needed, and is not there any more.
    assert_eq!(read(deflate(), Side::Server, &twice), ["text Hello", "lost Corrupt"]);
}

#[test]
fn a_corrupt_message_takes_only_those_with_it_that_need_its_window() {
    let corrupt = frame(Side::Server, 0xc1, &[0xff; 40]);
    for (value, takeover, behind) in [
        ("permessage-deflate; server_no_context_takeover", false, "text good"),
        ("permessage-deflate", true, "lost Corrupt"),
    ] {
        let good = Deflater::new(takeover).frames(Side::Server, "good", 1);
        let wire = [&corrupt[..], &good, &text(Side::Server, "as it is")].concat();
        let heard = read(agreed(value).unwrap(), Side::Server, &wire);
        assert_eq!(heard, ["lost Corrupt", behind, "text as it is"], "{value}");
    }
}

#[test]
fn a_message_over_the_cap_is_lost_and_those_behind_it_are_not() {
    const OVER: usize = 70 << 20;
    let count = |wire: &[u8]| {
        let (mut bytes, mut ends) = (0_u64, Vec::new());
        WebSocket::new(deflate()).feed(Side::Server, wire, &mut |event| match event {
            WsEvent::Data { data, .. } => bytes += data.len() as u64,
            WsEvent::End { lost, .. } => ends.push(lost),
            WsEvent::Close { .. } | WsEvent::GaveUp(_) => panic!("{event:?}"),
        });
        (bytes, ends)
    };
    let plain = [frame(Side::Server, 0x81, &vec![b'x'; OVER]), text(Side::Server, "y")].concat();
    let (bytes, ends) = count(&plain);
    assert!(bytes <= (64 << 20) + 31, "{bytes}");
    assert_eq!(ends, [Some(Lost::TooLarge), None]);

    let mut deflater = Deflater::new(true);
    let zeros = "0".repeat(OVER);
    let mut wire = deflater.frames(Side::Server, &zeros, 2);
    wire.extend(deflater.frames(Side::Server, "0000000000000000000000000000000", 1));
    assert!(wire.len() < 200_000, "a bomb: {}", wire.len());
    let (bytes, ends) = count(&wire);
    assert!(bytes <= (64 << 20) + 31, "{bytes}");
    assert_eq!(ends, [Some(Lost::TooLarge), None], "the window is kept");

    let mut deflater = Deflater::new(true);
    let mut wire = Vec::new();
    let chunk = deflater.payload(zeros.as_bytes());
    // Fragments of one message: each flushed, so that they can be put one behind the other.
    wire.extend(frame(Side::Server, 0x41, &chunk));
    for _ in 0..4 {
        let more = [&[0, 0, 0xff, 0xff][..], &deflater.payload(zeros.as_bytes())].concat();
        wire.extend(frame(Side::Server, 0, &more));
    }
    wire.extend(frame(Side::Server, 0x80, b""));
    wire.extend(deflater.frames(Side::Server, "behind", 1));
    let (_, ends) = count(&wire);
    assert_eq!(ends, [Some(Lost::TooLarge), Some(Lost::TooLarge)], "not inflated without end");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_messages_in_any_pieces(
        messages in proptest::collection::vec(("[ -~]{0,300}", 1_usize..4, any::<bool>()), 1..12),
        takeover in any::<bool>(),
        piece in 1_usize..400,
    ) {
        let value = if takeover {
            "permessage-deflate"
        } else {
            "permessage-deflate; client_no_context_takeover"
        };
        let mut deflater = Deflater::new(takeover);
        let mut wire = Vec::new();
        let mut expected = Vec::new();
        for (message, pieces, compressed) in &messages {
            if *compressed {
                wire.extend(deflater.frames(Side::Client, message, *pieces));
            } else {
                wire.extend(text(Side::Client, message));
            }
            expected.push(format!("text {message}"));
        }
        let mut follower = WebSocket::new(agreed(value).unwrap());
        prop_assert_eq!(heard(&mut follower, Side::Client, &wire, piece), expected);
    }

    #[test]
    fn garbage_says_the_same_in_any_pieces(
        data in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        read(deflate(), Side::Server, &data);
    }
}
