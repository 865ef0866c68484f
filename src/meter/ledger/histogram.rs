//! Latencies, counted: what percentiles can be had of without keeping every value, and what can be
//! added up.
//!
//! A value is rounded to three decimal digits: up to 999 it stays as it is, above it is within
//! 0.5 %. That is independent of the order and of how the values were split, so a sum of roll-ups
//! and a pass over the rows give the same percentiles.

use std::mem;

/// The values below 1000 have a place each. Each further digit takes so many more.
const PER_DIGIT: u64 = 900;
/// As many different values are kept as pairs; more are counted in an array.
const PAIRS: usize = 512;

/// How often each (rounded) value was seen.
#[derive(Clone, Debug)]
pub(super) enum Histogram {
    /// (place, count) in any order, a place several times at most until it is tidied.
    Few { pairs: Vec<(u16, u32)>, tidy_at: usize },
    /// A count for each place.
    Many(Vec<u32>),
}

impl Default for Histogram {
    fn default() -> Self {
        Self::Few { pairs: Vec::new(), tidy_at: 32 }
    }
}

impl Histogram {
    /// For so many different values.
    pub(super) fn with_room(values: usize) -> Self {
        Self::Few { pairs: Vec::with_capacity(values), tidy_at: (values + 1).max(32) }
    }

    pub(super) fn add(&mut self, value: u64) {
        self.count(place(value), 1);
    }

    /// Counts a value `times` times, given by its place.
    pub(super) fn count(&mut self, place: u16, times: u32) {
        match self {
            Self::Few { pairs, tidy_at } => {
                pairs.push((place, times));
                if pairs.len() < *tidy_at {
                    return;
                }
                tidy(pairs);
                *tidy_at = (pairs.len() * 2).max(32);
                if pairs.len() > PAIRS {
                    let mut counts = Vec::new();
                    mem::take(pairs).into_iter().for_each(|(p, n)| bump(&mut counts, p, n));
                    *self = Self::Many(counts);
                }
            }
            Self::Many(counts) => bump(counts, place, times),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match other {
            Self::Few { pairs, .. } => pairs.iter().for_each(|(p, n)| self.count(*p, *n)),
            Self::Many(counts) => (0..).zip(counts).for_each(|(p, n)| {
                if *n > 0 {
                    self.count(p, *n);
                }
            }),
        }
    }

    /// Places and counts in ascending order, each place once.
    pub(super) fn sorted(&self) -> Vec<(u16, u32)> {
        match self {
            Self::Few { pairs, .. } => {
                let mut pairs = pairs.clone();
                tidy(&mut pairs);
                pairs
            }
            Self::Many(counts) => {
                (0..).zip(counts.iter().copied()).filter(|(_, n)| *n > 0).collect()
            }
        }
    }
}

/// The smallest value that at least `percent` of the values don't exceed, of what
/// [`Histogram::sorted`] gave.
pub(super) fn nearest_rank(sorted: &[(u16, u32)], percent: u64) -> Option<u64> {
    let all: u64 = sorted.iter().map(|(_, n)| u64::from(*n)).sum();
    let rank = (all * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let found = sorted.iter().find(|(_, n)| {
        seen += u64::from(*n);
        seen >= rank
    });
    found.map(|(place, _)| value(*place))
}

fn tidy(pairs: &mut Vec<(u16, u32)>) {
    pairs.sort_unstable_by_key(|(place, _)| *place);
    pairs.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 = kept.1.saturating_add(next.1);
        }
        same
    });
}

fn bump(counts: &mut Vec<u32>, place: u16, times: u32) {
    let at = usize::from(place);
    if counts.len() <= at {
        counts.resize(at + 1, 0);
    }
    if let Some(count) = counts.get_mut(at) {
        *count = count.saturating_add(times);
    }
}

/// Where a value is counted; ascending with the value.
fn place(value: u64) -> u16 {
    let further = value.checked_ilog10().unwrap_or(0).saturating_sub(2);
    let unit = 10_u64.pow(further);
    // To the nearest; that may reach the next power of ten, which is the next place all the same.
    let rounded = value / unit + u64::from(value % unit * 2 >= unit);
    u16::try_from(u64::from(further) * PER_DIGIT + rounded).unwrap_or(u16::MAX)
}

/// The value that is counted there.
fn value(place: u16) -> u64 {
    let place = u64::from(place);
    let further = place.saturating_sub(PER_DIGIT / 9) / PER_DIGIT;
    let digits = place - further * PER_DIGIT;
    let unit = 10_u64.saturating_pow(u32::try_from(further).unwrap_or(u32::MAX));
    digits.saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|v| histogram.add(*v));
        histogram
    }

    fn percentile(values: &[u64], percent: u64) -> Option<u64> {
        nearest_rank(&of(values).sorted(), percent)
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 95)), (Some(50), Some(95)));
        assert_eq!((percentile(&[7], 50), percentile(&[7], 95)), (Some(7), Some(7)));
        assert_eq!((percentile(&[1, 2], 50), percentile(&[1, 2], 95)), (Some(1), Some(2)));
        assert_eq!(percentile(&[], 50), None);
    }

    proptest! {
        #[test]
        fn a_value_is_kept_within_its_bound(v in prop_oneof![0..2000u64, 0..u64::MAX / 200]) {
            let kept = value(place(v));
            prop_assert!(kept.abs_diff(v) <= v / 200 + 1, "{v} became {kept}");
            prop_assert!(v > 999 || kept == v);
            prop_assert_eq!(place(kept), place(v));
            prop_assert!(place(v) <= place(v + 1));
        }

        #[test]
        fn how_it_was_split_makes_no_difference(
            values in prop::collection::vec(0..5_000_000u64, 0..3000),
            at in 0..3000usize,
        ) {
            let (a, b) = values.split_at(at.min(values.len()));
            let mut merged = of(b);
            merged.merge(&of(a));
            prop_assert_eq!(merged.sorted(), of(&values).sorted());
        }
    }
}
