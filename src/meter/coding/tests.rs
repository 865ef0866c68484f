use std::io::Write;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(data: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn br(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
    encoder.write_all(data).unwrap();
    drop(encoder);
    out
}

fn zstd(data: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(data, 3).unwrap()
}

pub(in crate::meter) type Encode = fn(&[u8]) -> Vec<u8>;

pub(in crate::meter) const ALL: [(&str, Encode); 7] = [
    ("", <[u8]>::to_vec),
    ("identity", <[u8]>::to_vec),
    ("gzip", gzip),
    ("deflate", zlib),
    ("deflate", raw_deflate),
    ("br", br),
    ("zstd", zstd),
];

/// Decodes `pieces` one after the other.
fn decode<'a>(
    coding: &str,
    max: u64,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, Error> {
    let mut decoder = Decoder::new(coding, max)?;
    let mut out = Vec::new();
    for piece in pieces {
        decoder.feed(piece, &mut |bytes| out.extend_from_slice(bytes))?;
    }
    Ok(out)
}

fn sample() -> Vec<u8> {
    (0..400_u32)
        .flat_map(|i| {
            format!("data: {{\"n\":{},\"h\":{}}}\n\n", i, i.wrapping_mul(2_654_435_761))
                .into_bytes()
        })
        .collect()
}

#[test]
fn every_coding_decodes_whole_at_each_split_and_bytewise() {
    let data = &sample()[..2_000];
    for (name, encode) in ALL {
        let encoded = encode(data);
        assert_eq!(decode(name, MIB, [&encoded[..]]).unwrap(), data, "{name} whole");
        assert_eq!(decode(name, MIB, encoded.chunks(1)).unwrap(), data, "{name} bytewise");
        for cut in 0..=encoded.len() {
            let (a, b) = encoded.split_at(cut);
            assert_eq!(decode(name, MIB, [a, b]).unwrap(), data, "{name} cut at {cut}");
        }
    }
}

#[test]
fn large_bodies_decode() {
    let data = sample().repeat(60);
    for (name, encode) in ALL {
        let encoded = encode(&data);
        assert_eq!(decode(name, 64 * MIB, [&encoded[..]]).unwrap(), data, "{name}");
        assert_eq!(decode(name, 64 * MIB, encoded.chunks(1_400)).unwrap(), data, "{name}");
    }
}

/// Runs an encoder event by event, flushing each, and checks that each comes out at once.
fn flushed_events_come_out<W: Write>(name: &str, mut encoder: W, written: impl Fn(&W) -> Vec<u8>) {
    let mut decoder = Decoder::new(name, MIB).unwrap();
    let mut seen = 0;
    for event in sample().split_inclusive(|&b| b == b'\n').take(100) {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
        let wire = written(&encoder);
        let mut out = Vec::new();
        decoder.feed(&wire[seen..], &mut |bytes| out.extend_from_slice(bytes)).unwrap();
        seen = wire.len();
        assert_eq!(out, event, "{name}");
    }
}

#[test]
fn what_a_flush_makes_available_comes_out_at_once() {
    let level = flate2::Compression::default();
    let encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    flushed_events_come_out("gzip", encoder, |e| e.get_ref().clone());
    let encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
    flushed_events_come_out("deflate", encoder, |e| e.get_ref().clone());
    let encoder = flate2::write::DeflateEncoder::new(Vec::new(), level);
    flushed_events_come_out("deflate", encoder, |e| e.get_ref().clone());
    let encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
    flushed_events_come_out("br", encoder, |e| e.get_ref().clone());
    let encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    flushed_events_come_out("zstd", encoder, |e| e.get_ref().clone());
}

#[test]
fn stacked_codings_are_undone_from_the_last() {
    let data = sample();
    let encoded = br(&gzip(&data));
    assert_eq!(decode("gzip, br", MIB, encoded.chunks(7)).unwrap(), data);
    assert_eq!(decode("GZIP ,identity,  Br", MIB, [&encoded[..]]).unwrap(), data);
    assert_eq!(decode("br, gzip", MIB, [&encoded[..]]), Err(Error::Corrupt));
}

#[test]
fn unknown_codings_and_towers_are_refused() {
    assert_eq!(Decoder::new("compress", 1).unwrap_err(), Error::Unsupported);
    assert_eq!(Decoder::new("gzip, dcb", 1).unwrap_err(), Error::Unsupported);
    assert_eq!(Decoder::new("gzip,gzip,gzip,gzip,gzip", 1).unwrap_err(), Error::Unsupported);
    assert!(Decoder::new("x-gzip", 1).is_ok());
}

#[test]
fn a_name_of_no_coding_is_none_where_the_body_is_text() {
    for text in ["{\"a\":1}", " \r\n[1]", "data: {}\n\n", "event: x\n", ": hi\n\n", "", " \n"] {
        let pieces = || text.as_bytes().chunks(1);
        assert_eq!(decode("UTF-8", MIB, pieces()).unwrap(), text.as_bytes(), "{text:?}");
        assert_eq!(
            decode("utf-8, gzip", MIB, [&gzip(text.as_bytes())[..]]).unwrap(),
            text.as_bytes()
        );
    }
    let long = sample().repeat(10);
    assert_eq!(decode("none", MIB, [&long[..]]).unwrap(), long);
    for other in [&b"\x1f\x8b"[..], b"<html>", b" \0", b"\xff"] {
        assert_eq!(decode("utf-8", MIB, [other]), Err(Error::Unsupported), "{other:?}");
    }
}

#[test]
fn gzip_members_header_fields_and_padding() {
    let mut wire = gzip(b"one ");
    // FEXTRA, FNAME, FCOMMENT and FHCRC (its value is not checked).
    let plain = gzip(b"two ");
    wire.extend_from_slice(&[0x1f, 0x8b, 8, 0x1e, 0, 0, 0, 0, 0, 255]);
    wire.extend_from_slice(&[3, 0, b'x', b'y', b'z']);
    wire.extend_from_slice(b"name\0comment\0\xaa\xbb");
    wire.extend_from_slice(&plain[10..]);
    // An empty FEXTRA.
    wire.extend_from_slice(&[0x1f, 0x8b, 8, 0x04, 0, 0, 0, 0, 0, 255, 0, 0]);
    wire.extend_from_slice(&gzip(b"three")[10..]);
    wire.extend_from_slice(&[0; 600]);
    assert_eq!(decode("gzip", MIB, [&wire[..]]).unwrap(), b"one two three");
    assert_eq!(decode("gzip", MIB, wire.chunks(1)).unwrap(), b"one two three");
}

#[test]
fn bombs_stop_at_the_cap() {
    let zeros = vec![0; 32 << 20];
    for (name, encode) in ALL {
        let encoded = encode(&zeros);
        let mut decoder = Decoder::new(name, MIB).unwrap();
        let mut out = 0_u64;
        let result = decoder.feed(&encoded, &mut |bytes| out += bytes.len() as u64);
        assert_eq!(result, Err(Error::TooLarge), "{name}");
        assert!(out <= MIB, "{name}: {out}");
        assert_eq!(decoder.feed(b"x", &mut |_| panic!("after the end")), result, "{name}");
    }
    // The outer coding expands little, the inner one a lot, and the other way round.
    let twice = gzip(&gzip(&zeros));
    assert_eq!(decode("gzip, gzip", MIB, [&twice[..]]), Err(Error::TooLarge));
}

#[test]
fn corruption_is_noticed() {
    let data = sample();
    for (name, encode) in &ALL[2..] {
        assert_eq!(
            decode(name, MIB, [&b"\xff\xfe\xfd\xfc not encoded"[..]]),
            Err(Error::Corrupt),
            "{name}"
        );
        // Not every coding has a checksum; but it must not come out right.
        let mut encoded = encode(&data);
        let middle = encoded.len() / 2;
        encoded[middle] ^= 0x55;
        assert_ne!(decode(name, MIB, [&encoded[..]]).as_ref(), Ok(&data), "{name}");
    }
    let mut encoded = gzip(&data);
    let sum = encoded.len() - 8;
    encoded[sum] ^= 1;
    assert_eq!(decode("gzip", MIB, encoded.chunks(100)), Err(Error::Corrupt));
}

#[test]
fn windows_beyond_the_bound_are_refused() {
    let data = sample().repeat(700);
    let mut encoder = ::zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(26).unwrap();
    encoder.write_all(&data).unwrap();
    let encoded = encoder.finish().unwrap();
    assert_eq!(decode("zstd", 1 << 30, [&encoded[..]]), Err(Error::Corrupt));
    // Brotli's large-window header: asks for 2^30.
    assert_eq!(decode("br", 1 << 30, [&[0x11, 0x1e, 0, 0, 0, 0, 0, 0][..]]), Err(Error::Corrupt));
}

#[test]
fn a_truncated_body_gives_what_there_was() {
    let data = sample();
    for (name, encode) in &ALL[2..] {
        let encoded = encode(&data);
        for cut in (0..encoded.len()).step_by(37) {
            let out = decode(name, MIB, [&encoded[..cut]]).unwrap();
            assert!(data.starts_with(&out), "{name} at {cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_data_in_any_pieces(
        data in proptest::collection::vec(any::<u8>(), 0..5_000),
        which in 0..ALL.len(),
        piece in 1_usize..600,
    ) {
        let (name, encode) = ALL[which];
        let encoded = encode(&data);
        prop_assert_eq!(decode(name, MIB, encoded.chunks(piece)).unwrap(), data);
    }

    #[test]
    fn garbage_never_panics(
        data in proptest::collection::vec(any::<u8>(), 0..2_000),
        which in 0..ALL.len(),
        piece in 1_usize..600,
    ) {
        let _ = decode(ALL[which].0, 4 * MIB, data.chunks(piece));
    }

    #[test]
    fn damaged_bodies_never_panic(
        at in any::<prop::sample::Index>(),
        bits in 1_u8..,
        which in 2..ALL.len(),
        piece in 1_usize..600,
    ) {
        let mut encoded = ALL[which].1(&sample());
        let at = at.index(encoded.len());
        encoded[at] ^= bits;
        let _ = decode(ALL[which].0, 4 * MIB, encoded.chunks(piece));
    }
}

/// A decoder that looks into its window before anything is in it makes something up instead.
#[test]
fn what_refers_to_before_the_beginning_is_corrupt() {
    let far = [0x78, 0x9c, 0x6a, 0xd0, 0x14, 0x47, 0x47, 0x47, 0x47, 0x47, 0x41, 0x47, 0x47, 0x47];
    for size in [1, 5, far.len()] {
        let mut decoder = Decoder::new("deflate", 1 << 20).expect("is known");
        let fed = far.chunks(size).try_for_each(|piece| decoder.feed(piece, &mut |_| {}));
        assert_eq!(fed, Err(Error::Corrupt), "in pieces of {size}");
    }
}
