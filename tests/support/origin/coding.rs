//! Content codings with a flush after every event, as streaming providers do.

use std::io::Write;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// Encodes the parts so that each can be decoded as soon as it has arrived. `None`: unknown coding.
pub fn encode(coding: &str, parts: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
    match coding {
        "gzip" => Some(run(
            GzEncoder::new(Vec::new(), Compression::default()),
            parts,
            |e| std::mem::take(e.get_mut()),
            |e| e.finish().expect("gzip"),
        )),
        "deflate" => Some(run(
            ZlibEncoder::new(Vec::new(), Compression::default()),
            parts,
            |e| std::mem::take(e.get_mut()),
            |e| e.finish().expect("deflate"),
        )),
        "br" => Some(run(
            brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20),
            parts,
            |e| std::mem::take(e.get_mut()),
            |e| e.into_inner(),
        )),
        "zstd" => Some(run(
            zstd::stream::write::Encoder::new(Vec::new(), 3).expect("zstd"),
            parts,
            |e| std::mem::take(e.get_mut()),
            |e| e.finish().expect("zstd"),
        )),
        _ => None,
    }
}

fn run<E: Write>(
    mut encoder: E,
    parts: &[Vec<u8>],
    take: impl Fn(&mut E) -> Vec<u8>,
    finish: impl FnOnce(E) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    for part in parts {
        encoder.write_all(part).expect("encode");
        encoder.flush().expect("flush");
        out.push(take(&mut encoder));
    }
    let tail = finish(encoder);
    match out.last_mut() {
        Some(last) => last.extend(tail),
        None => out.push(tail),
    }
    out
}
