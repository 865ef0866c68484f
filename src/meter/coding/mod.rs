//! Content codings, decoded as the bytes arrive: what the sender flushed comes out at once.
//!
//! Memory is bounded by the formats and by us: 32 KiB of window for gzip and deflate, 16 MiB for
//! brotli (its "large window" extension is refused), 8 MiB for zstd (the limit of RFC 9659), and one
//! buffer per coding.

mod gzip;
#[cfg(test)]
pub(in crate::meter) mod tests;

use std::fmt;

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Operation};

/// Codings that may be stacked in one `Content-Encoding`.
const MAX_STAGES: usize = 4;
const BUFFER: usize = 16 * 1024;
/// Names of codings that there are, and that are not undone here.
const OTHERS: [&str; 9] =
    ["compress", "x-compress", "dcb", "dcz", "exi", "aes128gcm", "pack200-gzip", "snappy", "lz4"];
const ZSTD_WINDOW_LOG: u32 = 23;

/// Why a body can't be decoded. Terminal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    #[error("the content coding is not supported")]
    Unsupported,
    #[error("the encoded body is corrupt")]
    Corrupt,
    #[error("the decoded body is over the size cap")]
    TooLarge,
}

/// Decodes one body.
#[derive(Debug)]
pub struct Decoder {
    /// In the order of decoding: the last coding named comes first.
    stages: Vec<Stage>,
    max_output: u64,
    /// Only counted when there is no stage.
    passed: u64,
    failed: Option<Error>,
}

#[derive(Debug)]
struct Stage {
    coding: Coding,
    buffer: Vec<u8>,
    produced: u64,
}

impl Decoder {
    /// `content_encoding` is the header's value, empty when there is none; `max_output` bounds what
    /// each of its codings may expand to.
    pub fn new(content_encoding: &str, max_output: u64) -> Result<Self, Error> {
        let mut stages = Vec::new();
        for name in content_encoding.split(',').rev().map(str::trim) {
            if let Some(coding) = Coding::named(name)? {
                if stages.len() == MAX_STAGES {
                    return Err(Error::Unsupported);
                }
                stages.push(Stage { coding, buffer: vec![0; BUFFER], produced: 0 });
            }
        }
        Ok(Self { stages, max_output, passed: 0, failed: None })
    }

    /// Feeds bytes of the body; `sink` receives what they decode to, in pieces.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let result = if self.stages.is_empty() {
            count(&mut self.passed, bytes.len(), self.max_output).map(|()| sink(bytes))
        } else {
            run(&mut self.stages, self.max_output, bytes, sink)
        };
        result.inspect_err(|&error| {
            self.failed = Some(error);
            // Windows are large, and nothing more comes out.
            self.stages = Vec::new();
        })
    }
}

/// Sends `bytes` through the first stage, and what comes out through the rest.
fn run(
    stages: &mut [Stage],
    max_output: u64,
    bytes: &[u8],
    sink: &mut dyn FnMut(&[u8]),
) -> Result<(), Error> {
    let Some((stage, later)) = stages.split_first_mut() else {
        sink(bytes);
        return Ok(());
    };
    let Stage { coding, buffer, produced } = stage;
    let mut bytes = bytes;
    let mut stalled = false;
    loop {
        let Progress { consumed, written } = coding.step(bytes, buffer)?;
        bytes = bytes.get(consumed..).unwrap_or_default();
        if written > 0 {
            count(produced, written, max_output)?;
            run(later, max_output, buffer.get(..written).unwrap_or_default(), sink)?;
        }
        // A full buffer may mean that there is more inside, even without input.
        if bytes.is_empty() && written < buffer.len() {
            return Ok(());
        }
        // Some notice the end of their stream in a step of its own; nobody needs two.
        if std::mem::replace(&mut stalled, consumed == 0 && written == 0) && stalled {
            return Err(Error::Corrupt);
        }
    }
}

fn count(total: &mut u64, more: usize, max: u64) -> Result<(), Error> {
    *total = total.saturating_add(more as u64);
    if *total > max { Err(Error::TooLarge) } else { Ok(()) }
}

/// What one step took and gave.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    consumed: usize,
    written: usize,
}

enum Coding {
    Gzip(gzip::Gzip),
    Deflate(Deflate),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    Zstd(zstd::stream::raw::Decoder<'static>),
    /// No coding has the name (`utf-8`, some gateways say); what begins as text shows that there is none.
    Unknown,
    /// Nothing was done to it.
    Plain,
    /// The encoded stream is complete: what follows is not looked at.
    Over,
}

impl Coding {
    /// `None`: nothing to undo.
    fn named(name: &str) -> Result<Option<Self>, Error> {
        let coding = match name.to_ascii_lowercase().as_str() {
            "" | "identity" => return Ok(None),
            "gzip" | "x-gzip" => Self::Gzip(gzip::Gzip::new()),
            "deflate" => Self::Deflate(Deflate::Unknown { first: None }),
            "br" => {
                // `new` instead of `new_strict` would let a stream ask for a window of 1 GiB.
                let alloc = StandardAlloc::default;
                Self::Brotli(Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())))
            }
            "zstd" => {
                let mut decoder =
                    zstd::stream::raw::Decoder::new().map_err(|_| Error::Unsupported)?;
                decoder
                    .set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
                    .map_err(|_| Error::Unsupported)?;
                Self::Zstd(decoder)
            }
            name if OTHERS.contains(&name) => return Err(Error::Unsupported),
            _ => Self::Unknown,
        };
        Ok(Some(coding))
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Progress, Error> {
        match self {
            Self::Gzip(gzip) => gzip.step(input, output),
            Self::Deflate(deflate) => {
                let (progress, over) = deflate.step(input, output)?;
                if over {
                    *self = Self::Over;
                }
                Ok(progress)
            }
            Self::Brotli(state) => {
                let mut progress = Progress::default();
                let (mut left, mut room, mut total) = (input.len(), output.len(), 0);
                let result = BrotliDecompressStream(
                    &mut left,
                    &mut progress.consumed,
                    input,
                    &mut room,
                    &mut progress.written,
                    output,
                    &mut total,
                    state,
                );
                match result {
                    BrotliResult::ResultFailure => return Err(Error::Corrupt),
                    BrotliResult::ResultSuccess => *self = Self::Over,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Ok(progress)
            }
            Self::Zstd(decoder) => {
                let status = decoder.run_on_buffers(input, output).map_err(|_| Error::Corrupt)?;
                Ok(Progress { consumed: status.bytes_read, written: status.bytes_written })
            }
            Self::Unknown => {
                if let Some(first) = input.iter().find(|byte| !byte.is_ascii_whitespace()) {
                    // JSON, or a line of an event stream.
                    if !matches!(first, b'{' | b'[' | b'e' | b'd' | b'i' | b'r' | b':') {
                        return Err(Error::Unsupported);
                    }
                    *self = Self::Plain;
                }
                Ok(pass(input, output))
            }
            Self::Plain => Ok(pass(input, output)),
            Self::Over => Ok(Progress { consumed: input.len(), written: 0 }),
        }
    }
}

fn pass(input: &[u8], output: &mut [u8]) -> Progress {
    let length = input.len().min(output.len());
    let (from, to) = (input.get(..length), output.get_mut(..length));
    from.zip(to).into_iter().for_each(|(from, to)| to.copy_from_slice(from));
    Progress { consumed: length, written: length }
}

impl fmt::Debug for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "gzip",
            Self::Deflate(_) => "deflate",
            Self::Brotli(_) => "br",
            Self::Zstd(_) => "zstd",
            Self::Unknown => "unknown",
            Self::Plain => "plain",
            Self::Over => "over",
        })
    }
}

/// "deflate" is zlib by the standard and raw deflate by some servers.
#[derive(Debug)]
enum Deflate {
    /// The first two bytes tell.
    Unknown {
        first: Option<u8>,
    },
    Known(Decompress),
}

impl Deflate {
    /// Also says whether the stream is over.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(Progress, bool), Error> {
        match self {
            Self::Unknown { first: None } => {
                let first = input.first().copied();
                *self = Self::Unknown { first };
                let consumed = usize::from(first.is_some());
                Ok((Progress { consumed, written: 0 }, false))
            }
            Self::Unknown { first: Some(first) } => {
                let first = *first;
                let Some(&second) = input.first() else { return Ok((Progress::default(), false)) };
                // RFC 1950: method 8, a window of at most 32 KiB, and a check of both bytes. No
                // encoder begins a raw stream like that.
                let zlib = first & 0x0f == 8
                    && first >> 4 <= 7
                    && u16::from_be_bytes([first, second]) % 31 == 0;
                let mut inflate = Decompress::new(zlib);
                // One byte is no symbol yet: nothing is written here.
                inflate_step(&mut inflate, &[first], output)?;
                let step = inflate_step(&mut inflate, input, output)?;
                *self = Self::Known(inflate);
                Ok(step)
            }
            Self::Known(inflate) => inflate_step(inflate, input, output),
        }
    }
}

/// One step of a deflate stream, and whether it is over.
fn inflate_step(
    inflate: &mut Decompress,
    input: &[u8],
    output: &mut [u8],
) -> Result<(Progress, bool), Error> {
    let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
    let status =
        inflate.decompress(input, output, FlushDecompress::None).map_err(|_| Error::Corrupt)?;
    // The differences are lengths of the two slices at most.
    let progress = Progress {
        consumed: (inflate.total_in() - before_in) as usize,
        written: (inflate.total_out() - before_out) as usize,
    };
    Ok((progress, matches!(status, Status::StreamEnd)))
}
