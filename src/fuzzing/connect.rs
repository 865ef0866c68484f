//! Cursor's envelopes, and what is read out of the protocol buffers in them.

use super::same;
use crate::meter::connect_rpc as envelopes;
use crate::meter::surface::cursor::{asked_model, told};

/// The first byte chooses the cap.
pub fn connect(data: &[u8]) {
    let Some((&cap, data)) = data.split_first() else { return };
    let cap = usize::from(cap) * 8;
    same(|size| {
        let mut out = Vec::new();
        let mut parser = envelopes::Parser::new(cap);
        for piece in data.chunks(size) {
            parser.feed(piece, &mut |envelope| {
                assert!(envelope.payload.len() <= cap);
                let (asked, told) = (asked_model(envelope.payload), told(envelope.payload));
                out.push(format!("{envelope:?} {asked:?} {told:?}"));
            });
        }
        out
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::seed;
    use crate::meter::connect_rpc::tests::envelope;
    use crate::meter::surface::protobuf::tests::{nested, number};

    #[test]
    fn seeds_are_current() {
        let counts = [number(1, 1000), number(2, 100), number(3, 400), number(5, 30)].concat();
        let stream = [
            envelope(0, &nested(1, &nested(9, &nested(1, b"gpt-5")))),
            envelope(1, &nested(1, &nested(1, b"text"))),
            envelope(1, &nested(1, &nested(14, &counts))),
            envelope(2, b"{}"),
        ];
        seed("connect", "run", &[&[200], &stream.concat()[..]].concat());
        seed("connect", "over-cap", &[&[1], &stream.concat()[..]].concat());
    }
}
