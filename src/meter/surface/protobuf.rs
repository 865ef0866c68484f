//! Protocol buffers without a schema: as much of the encoding as it takes to find a field.

/// Fields that are looked at in one message.
const MAX_FIELDS: usize = 4096;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    /// A text, bytes or a message.
    Bytes(&'a [u8]),
    /// 64 bits, which may be a `double`.
    Wide(u64),
    /// 32 bits.
    Fixed,
}

/// The fields of a message by number, in order; `None`: it is no message.
pub(super) fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => {
                let (wide, rest) = bytes.split_first_chunk()?;
                bytes = rest;
                Value::Wide(u64::from_le_bytes(*wide))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => take(&mut bytes, 4).map(|_| Value::Fixed)?,
            // Groups, which nobody uses any more, or nonsense.
            _ => return None,
        };
        if tag >> 3 == 0 || out.len() == MAX_FIELDS {
            return None;
        }
        out.push((tag >> 3, value));
    }
    Some(out)
}

/// The last message or text with this number, which is the one that counts.
pub(super) fn inside(bytes: &[u8], number: u64) -> Option<&[u8]> {
    fields(bytes)?.into_iter().rev().find_map(|(n, value)| match value {
        Value::Bytes(inner) if n == number => Some(inner),
        Value::Bytes(_) | Value::Varint(_) | Value::Wide(_) | Value::Fixed => None,
    })
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (now, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(now)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *take(bytes, 1)?.first()?;
        // The tenth has room for one bit.
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        out.push(u8::try_from(value).unwrap());
    }

    pub(crate) fn number(field: u64, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(field << 3, &mut out);
        write_varint(value, &mut out);
        out
    }

    pub(crate) fn nested(field: u64, inner: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_varint(field << 3 | 2, &mut out);
        write_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        out
    }

    #[test]
    fn every_type_and_what_is_none() {
        let wire = [
            number(1, 300),
            nested(2, b"ab"),
            vec![0x19, 1, 2, 3, 4, 5, 6, 7, 8],
            vec![0x25, 1, 2, 3, 4],
            number(15, u64::MAX),
            nested(2, b"c"),
        ]
        .concat();
        let expected = vec![
            (1, Value::Varint(300)),
            (2, Value::Bytes(b"ab")),
            (3, Value::Wide(0x0807_0605_0403_0201)),
            (4, Value::Fixed),
            (15, Value::Varint(u64::MAX)),
            (2, Value::Bytes(b"c")),
        ];
        assert_eq!(fields(&wire), Some(expected));
        assert_eq!((inside(&wire, 2), inside(&wire, 1)), (Some(&b"c"[..]), None));
        assert_eq!(fields(&[]), Some(Vec::new()));
        for cut in [&wire[..1], &[0x0b][..], &[0x0a, 5, 1], &[0, 0], &[0xff; 12], &[8, 0xff, 2, 3]]
        {
            let read = fields(cut);
            assert!(read.is_none() || cut == [8, 0xff, 2, 3], "{cut:?} {read:?}");
        }
        assert_eq!(fields(&number(1, 0).repeat(MAX_FIELDS + 1)), None);
    }

    proptest! {
        #[test]
        fn numbers_lead_back(field in 1_u64..1 << 29, value: u64) {
            let wire = number(field, value);
            prop_assert_eq!(fields(&wire), Some(vec![(field, Value::Varint(value))]));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = fields(&bytes);
        }
    }
}
