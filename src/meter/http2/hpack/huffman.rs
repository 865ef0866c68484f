//! The string code of RFC 7541, appendix B. It is canonical: codes of one length follow each other in
//! the order of their symbols, so that the lengths tell all of it.

use std::sync::LazyLock;

const LONGEST: usize = 30;
/// The symbol that only pads.
const END: u16 = 256;

/// The text, unless the code is broken.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let codes = &*CODES;
    let mut out = Vec::with_capacity(coded.len() * 8 / 5);
    // The next `held` bits, at the top.
    let mut bits = 0_u64;
    let mut held = 0_usize;
    let mut rest = coded.iter();
    loop {
        while held <= 56 {
            let Some(byte) = rest.next() else { break };
            bits |= u64::from(*byte) << (56 - held);
            held += 8;
        }
        let Some((symbol, length)) = codes.symbol(bits).filter(|(_, length)| *length <= held)
        else {
            break;
        };
        out.push(u8::try_from(symbol).ok()?);
        bits <<= length;
        held -= length;
    }
    // What is left is padding: less than a byte, all ones.
    (held < 8 && bits == !(u64::MAX >> held)).then_some(out)
}

struct Codes {
    /// By length: behind its last code, at the top of 32 bits; its first code; where its symbols are.
    lengths: Vec<(usize, u64, u64, usize)>,
    /// By length, then by value.
    symbols: Vec<u16>,
}

impl Codes {
    /// The symbol that these bits begin with, and how long its code is.
    fn symbol(&self, bits: u64) -> Option<(u16, usize)> {
        let top = bits >> 32;
        let (length, _, first, at) = self.lengths.iter().find(|(_, end, ..)| top < *end)?;
        let code = top >> (32 - length);
        let index = at + usize::try_from(code - first).ok()?;
        self.symbols.get(index).map(|symbol| (*symbol, *length))
    }
}

static CODES: LazyLock<Codes> = LazyLock::new(|| {
    let mut codes = Codes { lengths: Vec::new(), symbols: Vec::new() };
    let mut code = 0_u64;
    for length in 1..=LONGEST {
        code <<= 1;
        let (first, at) = (code, codes.symbols.len());
        let of_length = (0..=END).zip(LENGTHS).filter(|(_, l)| usize::from(*l) == length);
        codes.symbols.extend(of_length.map(|(symbol, _)| symbol));
        code += (codes.symbols.len() - at) as u64;
        if code > first {
            codes.lengths.push((length, code << (32 - length), first, at));
        }
    }
    codes
});

/// Of the code of each byte, and of the end.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// All bytes in turn, by another implementation.
    const ALL: &str = "ffc7fffd8fffffe2fffffe3fffffe4fffffe5fffffe6fffffe7fffffe8ffffeafffffff3fffffa7fffffabff\
        ffffdfffffebfffffecfffffedfffffeefffffefffffff0ffffff1ffffff2fffffffbfffffcffffffd3fffff\
        d7fffffdbfffffdffffffe3fffffe7fffffebfffffed4fe3f9ffaffcabf1febfafefe7fdfd2cbb00089969b7\
        1d79fb9f7fff20ffbff3ff50ddbd7f061c58f265cd9f469d5af66dddbf871e5f9cff7ff7fffc3ff9ffe45fff\
        4719242cb34e6e9d68a6a3d7dac426defe3cfaf7fffbfe7ffbffdffffffcfffe6ffff4bfff9ffffa3fffd3ff\
        ff53fffd5ffffb3fffeb7fffdaffffb7ffff73fffeeffffdeffffebffffbfffffd9ffffdbfffebffffe0ffff\
        eeffffc3ffff8bffff1ffffe4fffee7fffb1ffff97fffd9ffffcdffff9fffffbffffdafffeeffff4ffffb7ff\
        fee7fffe8ffffd3fffdeffffd5fffeeffffbdffffe1fffdfffff7fffff5ffffecffff07fff87fffe0ffff17f\
        ffedffff87ffff77fffeffffeaffff8bfffe3ffff93ffff87fffcbffff37ffff1fffff83ffffe1fffebfffe3\
        ffff3fffff2ffffa3ffffd9fffff17ffffc7fffff27ffffdefffffbffffff2fffff8fffffb7fff97fff8ffff\
        fe6fffffc1fffff87ffffe7fffffc5ffffe5fffe4ffff2fffffd1fffff4ffffffefffffe3fffffc9fffff97f\
        ffb3ffffcffffb7fffcdffff4ffff9ffffd1ffffcffffeaffffafffffddffffeffffff4fffff5fffffabffff\
        a7ffffd7fffff9bffffecfffffb7fffff3fffffe8fffffd3fffffabfffff5fffffff7ffffecfffffdbfffffb\
        bfffff7ffffff0fffffbbf";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    #[test]
    fn every_byte_has_its_code() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&bytes(ALL)), Some(all));
        assert_eq!(decode(&[]), Some(Vec::new()));
        assert_eq!(decode(&bytes("f1e3c2e5f23a6ba0ab90f4ff")).unwrap(), b"www.example.com");
    }

    #[test]
    fn padding_is_short_and_of_ones_and_the_end_is_no_text() {
        // "o" is 00111.
        assert_eq!(decode(&[0b0011_1111]), Some(b"o".to_vec()));
        for broken in [&[0b0011_1110][..], &[0b0011_1111, 0xff], &[0xff], &[0xff; 4], &[0xff; 9]] {
            assert_eq!(decode(broken), None, "{broken:?}");
        }
    }
}
