//! HPACK's Huffman code (RFC 7541, appendix B). It is canonical: the lengths say it all.

/// Bits of each byte's code. The end of string, 30 ones, is the last of the longest.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const SHORTEST: usize = 5;
const LONGEST: usize = 30;

/// The codes of one length: a run of numbers, and the bytes that they stand for.
#[derive(Clone, Copy)]
struct Run {
    first: u32,
    count: u32,
    /// Where its bytes begin in [`BYTES`].
    at: usize,
}

const RUNS: [Run; LONGEST + 1] = runs();
const BYTES: [u8; 256] = bytes();

const fn runs() -> [Run; LONGEST + 1] {
    let mut runs = [Run { first: 0, count: 0, at: 0 }; LONGEST + 1];
    let (mut length, mut first, mut at) = (1, 0, 0);
    while length <= LONGEST {
        let mut count = 0;
        let mut byte = 0;
        while byte < LENGTHS.len() {
            if LENGTHS[byte] as usize == length {
                count += 1;
            }
            byte += 1;
        }
        runs[length] = Run { first, count, at };
        first = (first + count) << 1;
        at += count as usize;
        length += 1;
    }
    runs
}

const fn bytes() -> [u8; 256] {
    let mut bytes = [0; 256];
    let (mut length, mut at) = (1, 0);
    while length <= LONGEST {
        let mut byte = 0;
        while byte < LENGTHS.len() {
            if LENGTHS[byte] as usize == length {
                bytes[at] = byte as u8;
                at += 1;
            }
            byte += 1;
        }
        length += 1;
    }
    bytes
}

/// Appends what `coded` stands for. `None`: it is not of this code.
pub(super) fn decode(coded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut coded = coded.iter();
    let (mut window, mut bits) = (0_u64, 0_usize);
    loop {
        while bits <= 56
            && let Some(byte) = coded.next()
        {
            window = window << 8 | u64::from(*byte);
            bits += 8;
        }
        match symbol(window, bits) {
            Some((byte, length)) => {
                out.push(byte);
                bits -= length;
                window &= (1 << bits) - 1;
            }
            // What fills the last byte is the beginning of the end of string.
            None => return (bits < 8 && window + 1 == 1 << bits).then_some(()),
        }
    }
}

/// The first of the lowest `bits` of `window`, and its length.
fn symbol(window: u64, bits: usize) -> Option<(u8, usize)> {
    for (length, run) in RUNS.iter().enumerate().take(bits + 1).skip(SHORTEST) {
        let code = (window >> (bits - length)) as u32;
        let nth = code.wrapping_sub(run.first);
        if nth < run.count {
            return Some((*BYTES.get(run.at + nth as usize)?, length));
        }
    }
    None
}
