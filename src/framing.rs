//! Message bodies on HTTP/1.x: where they end, and which bytes are theirs. For who follows them and for who
//! sends them on.

use memchr::memchr;
use serde::{Deserialize, Serialize};

/// Bytes of chunk extensions in a row, and of trailers, before a body is taken for garbage.
const MAX_LINE_NOISE: u32 = 64 * 1024;

/// It is framed in no way that is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Broken;

/// A body that is being read.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Body {
    /// Bytes left.
    Length(u64),
    Chunked(Chunked),
    UntilEof,
}

/// What the next bytes were.
#[derive(Debug)]
pub enum Step<'b> {
    /// Framing; the body goes on.
    More,
    Data(&'b [u8]),
    End,
}

impl Body {
    /// Takes what it can from non-empty `bytes`; returns what that was, and the rest.
    pub fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<(Step<'b>, &'b [u8]), Broken> {
        match self {
            Self::Length(left) => {
                let (data, rest) = split(bytes, *left);
                *left -= data.len() as u64;
                Ok((Step::Data(data), rest))
            }
            Self::Chunked(chunked) => chunked.step(bytes),
            Self::UntilEof => Ok((Step::Data(bytes), &[])),
        }
    }

    /// Whether the body ended with `step`.
    pub const fn is_over(&self, step: &Step<'_>) -> bool {
        matches!((self, step), (Self::Length(0), _) | (_, Step::End))
    }
}

/// State of the chunked coding.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Chunked {
    Size { value: u64, digits: u8 },
    Extension { value: u64, seen: u32 },
    Data { left: u64 },
    AfterData,
    Trailer { line: u32, seen: u32 },
}

impl Chunked {
    pub const fn new() -> Self {
        Self::Size { value: 0, digits: 0 }
    }

    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<(Step<'b>, &'b [u8]), Broken> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok((Step::More, bytes)) };
        match self {
            Self::Size { value, digits } => {
                if let Some(digit) = char::from(first).to_digit(16) {
                    if *digits == 16 {
                        return Err(Broken);
                    }
                    *value = *value << 4 | u64::from(digit);
                    *digits += 1;
                    return Ok((Step::More, rest));
                }
                if *digits == 0 || !matches!(first, b'\r' | b'\n' | b';' | b' ' | b'\t') {
                    return Err(Broken);
                }
                *self = Self::Extension { value: *value, seen: 0 };
                Ok((Step::More, bytes))
            }
            Self::Extension { value, seen } => {
                let Some(end) = memchr(b'\n', bytes) else {
                    *seen = noise(*seen, bytes.len())?;
                    return Ok((Step::More, &[]));
                };
                noise(*seen, end)?;
                *self = match *value {
                    0 => Self::Trailer { line: 0, seen: 0 },
                    left => Self::Data { left },
                };
                Ok((Step::More, after(bytes, end)))
            }
            Self::Data { left } => {
                let (data, rest) = split(bytes, *left);
                *left -= data.len() as u64;
                if *left == 0 {
                    *self = Self::AfterData;
                }
                Ok((Step::Data(data), rest))
            }
            Self::AfterData => match first {
                b'\r' => Ok((Step::More, rest)),
                b'\n' => {
                    *self = Self::new();
                    Ok((Step::More, rest))
                }
                _ => Err(Broken),
            },
            Self::Trailer { line, seen } => {
                let Some(end) = memchr(b'\n', bytes) else {
                    *seen = noise(*seen, bytes.len())?;
                    *line += meaningful(bytes);
                    return Ok((Step::More, &[]));
                };
                let (this, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
                let blank = *line + meaningful(this) == 0;
                *seen = noise(*seen, this.len())?;
                *line = 0;
                Ok((if blank { Step::End } else { Step::More }, after(rest, 0)))
            }
        }
    }
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    usize::try_from(at).ok().and_then(|at| bytes.split_at_checked(at)).unwrap_or((bytes, &[]))
}

/// What follows the byte at `index`.
fn after(bytes: &[u8], index: usize) -> &[u8] {
    bytes.get(index + 1..).unwrap_or_default()
}

fn noise(seen: u32, more: usize) -> Result<u32, Broken> {
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    match seen.saturating_add(more) {
        total if total <= MAX_LINE_NOISE => Ok(total),
        _ => Err(Broken),
    }
}

/// 1 when the line holds anything but its own end.
fn meaningful(line: &[u8]) -> u32 {
    u32::from(line.iter().any(|&byte| byte != b'\r'))
}
