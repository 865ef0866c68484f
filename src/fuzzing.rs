//! Entry points for `fuzz/` and for the tests that replay its corpora. Each feeds the same bytes in
//! different pieces and panics when what comes out depends on the pieces, or breaks a promise.
//!
//! Not in the product: compiled for tests and for the fuzzer only.

mod connect;
mod door;
mod exchange;
mod files;
mod follow;
mod machine;
mod ours;
mod redact;
mod sockets;
mod text;

use crate::meter::http::Side;
pub use follow::Transcript;

/// What is fuzzed: a decoder of bytes that others choose.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// The longest input that is tried, in KiB.
    pub longest: usize,
    /// MiB that an input may take, whatever its length.
    pub memory: usize,
}

impl Target {
    /// Bytes of memory that an input of this length may take, with what a target keeps of it to
    /// compare the ways.
    #[must_use]
    pub const fn memory_for(&self, length: usize) -> usize {
        (self.memory << 20) + length * 64
    }
}

macro_rules! targets {
    ($($name:ident = $file:ident: $longest:literal KiB, $memory:literal MiB;)+) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target {
            name: stringify!($name),
            run: $file::$name,
            longest: $longest,
            memory: $memory,
        }),+];

        #[cfg(test)]
        mod corpora {
            $(#[test]
            fn $name() {
                super::tests::replay(stringify!($name), super::$file::$name);
            })+
        }
    };
}

targets! {
    // What the edge reads.
    head = door: 80 KiB, 4 MiB;
    gate = door: 80 KiB, 4 MiB;
    handover = door: 80 KiB, 4 MiB;
    hello = door: 16 KiB, 4 MiB;
    answers = door: 16 KiB, 1 MiB;
    // What client and provider say, from the connection to the row.
    http1 = follow: 32 KiB, 4 MiB;
    http2 = follow: 32 KiB, 4 MiB;
    hpack = follow: 32 KiB, 8 MiB;
    coding = text: 32 KiB, 64 MiB;
    sse = text: 16 KiB, 1 MiB;
    eventstream = text: 16 KiB, 4 MiB;
    connect = connect: 16 KiB, 1 MiB;
    scan = text: 32 KiB, 4 MiB;
    websocket = sockets: 16 KiB, 64 MiB;
    turns = sockets: 16 KiB, 64 MiB;
    headers = exchange: 16 KiB, 16 MiB;
    exchange = exchange: 32 KiB, 64 MiB;
    connection = exchange: 32 KiB, 64 MiB;
    redact = redact: 32 KiB, 16 MiB;
    // What is read of files and of the system.
    config = files: 16 KiB, 8 MiB;
    prices = files: 16 KiB, 16 MiB;
    lines = files: 32 KiB, 4 MiB;
    places = files: 8 KiB, 1 MiB;
    certificates = ours: 8 KiB, 4 MiB;
    takeover = ours: 16 KiB, 16 MiB;
    rollups = ours: 16 KiB, 16 MiB;
    budgets = ours: 8 KiB, 4 MiB;
    names = ours: 8 KiB, 4 MiB;
    processes = machine: 8 KiB, 1 MiB;
    macos = machine: 8 KiB, 1 MiB;
}

/// Ways of cutting the input: as it is, bytewise, and in pieces of a few odd lengths.
const PIECES: [usize; 5] = [usize::MAX, 1, 2, 7, 61];

/// Runs `run` for each way of cutting and compares.
fn same<T: PartialEq + std::fmt::Debug>(run: impl Fn(usize) -> T) {
    let mut first = None;
    for size in PIECES {
        let result = run(size);
        match &first {
            None => first = Some(result),
            Some(first) => assert_eq!(&result, first, "in pieces of {size}"),
        }
    }
}

/// `data` is a script of records: a tag (bit 0: the server speaks, bit 1: it ends), and unless it is
/// an end, a length (two bytes, big-endian) and so many bytes.
fn pieces(data: &[u8], size: usize, mut each: impl FnMut(Side, Option<&[u8]>)) {
    let mut rest = data;
    while let Some((&tag, after)) = rest.split_first() {
        let side = if tag & 1 == 0 { Side::Client } else { Side::Server };
        rest = after;
        if tag & 2 != 0 {
            each(side, None);
            continue;
        }
        let Some((length, after)) = rest.split_first_chunk() else { break };
        let length = usize::from(u16::from_be_bytes(*length));
        let (now, after) = after.split_at_checked(length).unwrap_or((after, &[]));
        rest = after;
        now.chunks(size).for_each(|piece| each(side, Some(piece)));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::path::PathBuf;

    use super::*;

    fn folder(target: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
    }

    pub(super) fn replay(target: &str, entry: fn(&[u8])) {
        let mut files = 0;
        for file in std::fs::read_dir(folder(target)).unwrap() {
            entry(&std::fs::read(file.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files > 0, "no corpus for {target}");
    }

    /// Writes what `follower` reads; no bytes: the side ends.
    pub(crate) fn script(acts: &[(Side, Vec<u8>)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (side, bytes) in acts {
            let tag = match side {
                Side::Client => 0,
                Side::Server => 1,
            };
            if bytes.is_empty() {
                out.push(tag | 2);
            } else {
                out.push(tag);
                out.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
                out.extend(bytes);
            }
        }
        out
    }

    /// A seed of the corpus is what the code says it is; with `WRITE_SEEDS` set it is made so.
    pub(crate) fn seed(target: &str, name: &str, bytes: &[u8]) {
        let path = folder(target).join(name);
        if std::env::var_os("WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(folder(target)).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
        let committed = std::fs::read(&path).unwrap_or_default();
        assert!(committed == bytes, "{target}/{name} is stale: run with WRITE_SEEDS=1");
    }

    /// The seeds for the HTTP followers are beside them.
    #[test]
    fn seeds_are_current() {
        const EVENTS: &str = "\u{feff}: hi\r\nevent: message_delta\r\ndata: {\"usage\":\r\n\
            data: {\"output_tokens\": 7}}\r\n\r\nid: 1\rdata: \u{1f38c}\r\rdata:x\ndata\n\ndata: end";
        seed("sse", "mixed", format!("\u{60}{EVENTS}").as_bytes());
        seed("sse", "over-cap", format!("\u{8}{EVENTS}").as_bytes());
        const ARRAY: &str = "[{\"usageMetadata\": {\"totalTokenCount\": 7, \"x\": \"]}\\\"\"}}\r\n,\r\n\
            {\"model\": \"m\", \"error\": {\"type\": \"t\"}}, \"s\", 12 ,null,[]]\r\n";
        const LINES: &str = "{\"choices\": [{\"delta\": {\"a\": [1.5e3]}}, {}], \"usage\": null}\n\
            {\"usage\":{\"n\":-1}}";
        seed("scan", "array", ARRAY.as_bytes());
        seed("scan", "lines", LINES.as_bytes());

        let text = EVENTS.repeat(3).into_bytes();
        let level = flate2::Compression::default();
        let coded = |choice: u8, name: &str, bytes: &[u8]| {
            seed("coding", name, &[&[choice], bytes].concat());
        };
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let brotli = |bytes: &[u8]| {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes).unwrap();
            encoder.into_inner()
        };
        coded(0, "gzip", &gzip(&text));
        coded(0, "gzip-members", &[gzip(b"one"), gzip(b"two"), vec![0; 9]].concat());
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), level);
        zlib.write_all(&text).unwrap();
        coded(1, "zlib", &zlib.finish().unwrap());
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), level);
        raw.write_all(&text).unwrap();
        coded(1, "deflate", &raw.finish().unwrap());
        coded(2, "br", &brotli(&text));
        coded(3, "zstd", &zstd::stream::encode_all(&text[..], 3).unwrap());
        coded(4, "gzip-br", &brotli(&gzip(&text)));
        let zstd = zstd::stream::encode_all(&text[..], 3).unwrap();
        coded(5, "zstd-gzip", &gzip(&zstd));
    }
}
