//! Roll-ups as bytes: LEB128 numbers, each text once.
//!
//! A cell takes about 100 bytes and is read some ten times faster than a record of thirty columns.

use std::collections::HashMap;

use uuid::Uuid;

use super::{Head, Key};
use crate::meter::ledger::histogram::Histogram;
use crate::meter::ledger::tally::Sums;
#[cfg(any(test, fuzzing))]
use crate::meter::ledger::tally::Tally;
use crate::meter::usage::Tokens;

pub(super) fn encode(head: &Head, cells: &[(Key<'_>, &Sums)]) -> Vec<u8> {
    let mut out = Out(Vec::with_capacity(64 + cells.len() * 128));
    out.number(head.requests);
    out.number(head.first);
    out.length(head.carried.len());
    for (connection, hour) in &head.carried {
        out.0.extend(connection.as_bytes());
        out.signed(i128::from(*hour));
    }
    let mut texts = Texts::default();
    let keys: Vec<[u64; 6]> = cells.iter().map(|(key, _)| texts.of(key)).collect();
    out.length(texts.list.len());
    for text in &texts.list {
        out.length(text.len());
        out.0.extend(text.as_bytes());
    }
    out.length(cells.len());
    for (key, (_, sums)) in keys.iter().zip(cells) {
        key.iter().for_each(|text| out.number(*text));
        out.sums(sums);
    }
    out.0
}

/// What [`encode`] wrote; `None`: these are not such bytes.
pub(in super::super) fn decode(bytes: &[u8]) -> Option<Vec<(Key<'_>, Sums)>> {
    let mut rest = In(bytes);
    rest.head()?;
    let texts = (0..rest.length()?).map(|_| rest.text()).collect::<Option<Vec<&str>>>()?;
    let cells = rest.length()?;
    let mut found = Vec::with_capacity(cells);
    for _ in 0..cells {
        found.push((rest.key(&texts)?, rest.sums()?));
    }
    rest.0.is_empty().then_some(found)
}

/// The head alone, which comes first.
pub(in super::super) fn decode_head(bytes: &[u8]) -> Option<Head> {
    In(bytes).head()
}

/// What it writes of what it read, after adding it up twice; for the fuzzer.
#[cfg(any(test, fuzzing))]
pub(in super::super) fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let cells = decode(bytes)?;
    let mut tally = Tally::default();
    for _ in 0..2 {
        cells.iter().for_each(|(key, sums)| tally.merge(key.model, sums));
    }
    let _ = tally.finish();
    let cells: Vec<_> = cells.iter().map(|(key, sums)| (*key, sums)).collect();
    Some(encode(&decode_head(bytes)?, &cells))
}

/// Texts and their numbers; 0 stands for none.
#[derive(Default)]
struct Texts<'a> {
    list: Vec<&'a str>,
    numbers: HashMap<&'a str, u64>,
}

impl<'a> Texts<'a> {
    fn of(&mut self, key: &Key<'a>) -> [u64; 6] {
        [key.project, key.model, key.provider, key.client, key.session, key.agent].map(|text| {
            text.map_or(0, |text| {
                *self.numbers.entry(text).or_insert_with(|| {
                    self.list.push(text);
                    self.list.len() as u64
                })
            })
        })
    }
}

struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, n: u64) {
        self.wide(u128::from(n));
    }

    fn length(&mut self, n: usize) {
        self.number(n as u64);
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to seven bits")]
    fn wide(&mut self, mut n: u128) {
        while n >= 0x80 {
            self.0.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    /// Small magnitudes are short, whatever their sign.
    fn signed(&mut self, n: i128) {
        self.wide(((n << 1) ^ (n >> 127)).cast_unsigned());
    }

    fn sums(&mut self, s: &Sums) {
        counts(s).iter().for_each(|n| self.number(*n));
        let optional = optional(s);
        let mut present = 0;
        for (bit, value) in optional.iter().enumerate() {
            present |= u64::from(value.is_some()) << bit;
        }
        present |= u64::from(s.cost.is_some()) << optional.len();
        present |= u64::from(s.subscription.is_some()) << (optional.len() + 1);
        self.number(present);
        optional.into_iter().flatten().for_each(|n| self.number(n));
        [s.cost, s.subscription].into_iter().flatten().for_each(|n| self.signed(n));
        self.histogram(&s.durations);
        self.histogram(&s.ttfbs);
    }

    fn histogram(&mut self, histogram: &Histogram) {
        let pairs = histogram.sorted();
        self.length(pairs.len());
        let mut last = 0;
        for (place, times) in pairs {
            self.number(u64::from(place - last));
            self.number(u64::from(times));
            last = place;
        }
    }
}

const COUNTS: usize = 7;
const OPTIONAL: usize = 12;

const fn counts(s: &Sums) -> [u64; COUNTS] {
    [s.requests, s.errors, s.incomplete, s.open, s.estimated, s.unpriced, s.without_usage]
}

const fn optional(s: &Sums) -> [Option<u64>; OPTIONAL] {
    // Taken apart so that a new class can't be forgotten here.
    let Tokens {
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        cache_write_other,
        output,
        reasoning,
        audio_input,
        audio_output,
        image_input,
        image_output,
    } = s.tokens;
    [
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        cache_write_other,
        output,
        reasoning,
        audio_input,
        audio_output,
        image_input,
        image_output,
        s.web_searches,
    ]
}

/// What has not been read yet.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn number(&mut self) -> Option<u64> {
        // Nearly all are this short.
        if let [byte @ 0..0x80, rest @ ..] = self.0 {
            self.0 = rest;
            return Some(u64::from(*byte));
        }
        u64::try_from(self.wide()?).ok()
    }

    /// Of things that take a byte at least: a damaged length must not reserve memory.
    fn length(&mut self) -> Option<usize> {
        self.number()?.try_into().ok().filter(|n| *n <= self.0.len())
    }

    fn wide(&mut self) -> Option<u128> {
        let mut n = 0;
        for shift in (0..u128::BITS).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i128> {
        let n = self.wide()?;
        Some((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        str::from_utf8(self.bytes(length)?).ok()
    }

    fn head(&mut self) -> Option<Head> {
        let (requests, first) = (self.number()?, self.number()?);
        let mut carried = Vec::new();
        for _ in 0..self.length()? {
            let connection = Uuid::from_slice(self.bytes(size_of::<Uuid>())?).ok()?;
            carried.push((connection, i64::try_from(self.signed()?).ok()?));
        }
        Some(Head { requests, first, carried })
    }

    fn key(&mut self, texts: &[&'a str]) -> Option<Key<'a>> {
        let mut text = || match usize::try_from(self.number()?).ok()? {
            0 => Some(None),
            n => texts.get(n - 1).map(|text| Some(*text)),
        };
        Some(Key {
            project: text()?,
            model: text()?,
            provider: text()?,
            client: text()?,
            session: text()?,
            agent: text()?,
        })
    }

    fn sums(&mut self) -> Option<Sums> {
        let mut counts = [0; COUNTS];
        for count in &mut counts {
            *count = self.number()?;
        }
        let [requests, errors, incomplete, open, estimated, unpriced, without_usage] = counts;
        let present = self.number()?;
        let there = |bit: usize| present >> bit & 1 == 1;
        let mut optional = [None; OPTIONAL];
        for (bit, value) in optional.iter_mut().enumerate() {
            if there(bit) {
                *value = Some(self.number()?);
            }
        }
        let cost = if there(OPTIONAL) { Some(self.signed()?) } else { None };
        let subscription = if there(OPTIONAL + 1) { Some(self.signed()?) } else { None };
        let [
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            cache_write_other,
            output,
            reasoning,
            audio_input,
            audio_output,
            image_input,
            image_output,
            web_searches,
        ] = optional;
        Some(Sums {
            requests,
            errors,
            incomplete,
            open,
            estimated,
            unpriced,
            without_usage,
            tokens: Tokens {
                input,
                cache_read,
                cache_write_5m,
                cache_write_1h,
                cache_write_other,
                output,
                reasoning,
                audio_input,
                audio_output,
                image_input,
                image_output,
            },
            web_searches,
            cost,
            subscription,
            durations: self.histogram()?,
            ttfbs: self.histogram()?,
        })
    }

    fn histogram(&mut self) -> Option<Histogram> {
        let pairs = self.length()?;
        let mut histogram = Histogram::with_room(pairs);
        let mut place: u16 = 0;
        for _ in 0..pairs {
            place = place.checked_add(self.number()?.try_into().ok()?)?;
            histogram.count(place, self.number()?.try_into().ok()?);
        }
        Some(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> Sums {
        let mut durations = Histogram::default();
        (0..200).for_each(|n| durations.add(n * n * n));
        Sums {
            requests: 1,
            errors: 2,
            incomplete: 3,
            open: 4,
            estimated: 5,
            unpriced: 6,
            without_usage: u64::MAX,
            tokens: Tokens { input: Some(0), output: Some(u64::MAX), ..Tokens::default() },
            web_searches: Some(300),
            cost: Some(-5),
            subscription: Some(i128::from(i64::MAX) * 1000),
            durations,
            ttfbs: Histogram::default(),
        }
    }

    fn encoded() -> Vec<u8> {
        let head = Head {
            requests: 200,
            first: 3,
            carried: vec![(Uuid::from_u128(7), 480_000), (Uuid::from_u128(8), -1)],
        };
        let key = Key { project: Some("é"), model: Some("m"), ..Key::default() };
        encode(&head, &[(key, &sums()), (Key::default(), &Sums::default())])
    }

    #[test]
    fn what_was_encoded_comes_back() {
        let bytes = encoded();
        let head = decode_head(&bytes).unwrap();
        assert_eq!((head.requests, head.first), (200, 3));
        assert_eq!(head.carried, [(Uuid::from_u128(7), 480_000), (Uuid::from_u128(8), -1)]);
        let cells = decode(&bytes).unwrap();
        let key = Key { project: Some("é"), model: Some("m"), ..Key::default() };
        assert_eq!((cells[0].0, cells[1].0), (key, Key::default()));
        let (got, want) = (&cells[0].1, sums());
        assert_eq!(counts(got), counts(&want));
        assert_eq!(optional(got), optional(&want));
        assert_eq!((got.cost, got.subscription), (want.cost, want.subscription));
        assert_eq!(got.durations.sorted(), want.durations.sorted());
        assert!(got.ttfbs.sorted().is_empty());
    }

    #[test]
    fn damage_is_noticed_or_harmless() {
        let bytes = encoded();
        crate::fuzzing::tests::seed("rollups", "sums", &bytes);
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_none(), "{end}");
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                let _ = (decode(&damaged), decode_head(&damaged));
            }
        }
    }
}
