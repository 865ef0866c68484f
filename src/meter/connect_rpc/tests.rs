use std::io::Write as _;

use super::*;

/// An envelope as it stands on the wire.
pub(crate) fn envelope(flags: u8, payload: &[u8]) -> Vec<u8> {
    let payload = if flags & COMPRESSED == 0 { payload.to_vec() } else { gzip(payload) };
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[flags], &length[..], &payload].concat()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn read(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    let mut parser = Parser::new(40);
    let mut out = Vec::new();
    for piece in pieces {
        parser.feed(piece, &mut |envelope| out.push((envelope.last, envelope.payload.to_vec())));
    }
    out
}

#[test]
fn messages_come_out_whole_wherever_they_are_cut() {
    let wire = [
        envelope(0, b"one"),
        envelope(1, b"two"),
        envelope(0, b""),
        // Over the cap, before and after decompression.
        envelope(0, &[7; 41]),
        envelope(1, &[7; 4000]),
        // Not what the flag says.
        [&[1, 0, 0, 0, 3][..], b"abc"].concat(),
        envelope(0x80, b"t"),
        envelope(2, b"{}"),
    ]
    .concat();
    let said = |last, text: &[u8]| (last, text.to_vec());
    let expected = [
        said(false, b"one"),
        said(false, b"two"),
        said(false, b""),
        said(true, b"t"),
        said(true, b"{}"),
    ];
    for at in 0..=wire.len() {
        let (a, b) = wire.split_at(at);
        assert_eq!(read(&[a, b]), expected, "cut at {at}");
    }
    assert_eq!(read(&wire.chunks(1).collect::<Vec<_>>()), expected);
}

#[test]
fn what_is_passed_over_can_be_asked() {
    let missed = |wire: &[u8], coding: Option<&str>| {
        let mut parser = Parser::new(40).compressed_by(coding);
        let mut said = 0;
        parser.feed(wire, &mut |_| said += 1);
        (parser.has_missed(), said)
    };
    for (wire, coding, expected) in [
        (envelope(0, b"one"), None, (false, 1)),
        (envelope(1, b"one"), Some("gzip"), (false, 1)),
        (envelope(1, b"one"), Some("zstd"), (true, 0)),
        (envelope(1, b"one"), Some("snappy"), (true, 0)),
        (envelope(0, &[7; 41]), None, (true, 0)),
        (b"data: {}\n\n".to_vec(), None, (true, 0)),
    ] {
        assert_eq!(missed(&wire, coding), expected, "{wire:?} {coding:?}");
    }
    let zstd = zstd::stream::encode_all(&b"one"[..], 3).unwrap();
    let wire = [&[1, 0, 0, 0, u8::try_from(zstd.len()).unwrap()], &zstd[..]].concat();
    assert_eq!(missed(&wire, Some("zstd")), (false, 1));
}

#[test]
fn what_is_no_envelope_ends_the_reading() {
    let wire = [envelope(0, b"one"), b"data: {}\n\n".to_vec(), envelope(0, b"two")].concat();
    assert_eq!(read(&[&wire]), [(false, b"one".to_vec())]);
}
