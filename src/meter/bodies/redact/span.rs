//! Parts of a text, small: there may be millions.

use std::ops::Range;

/// Some bytes, and the number of the class that they are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) class: u16,
}

/// Some of them, in any order.
#[derive(Debug, Default)]
pub(super) struct Spans {
    found: Vec<Span>,
    /// So many were there when they were united last.
    united: usize,
}

/// So few need not be united.
const FEW: usize = 4096;

impl Spans {
    pub(super) fn push(&mut self, range: Range<usize>, class: u16) {
        self.add(Span { start: place(range.start), end: place(range.end), class });
    }

    pub(super) fn add(&mut self, span: Span) {
        if self.found.len() >= FEW.max(self.united * 2) {
            self.unite();
        }
        self.found.push(span);
    }

    /// Without overlaps, in order. Of several classes the one that begins first, or is longest, names it.
    pub(super) fn united(mut self) -> Vec<Span> {
        self.unite();
        self.found
    }

    fn unite(&mut self) {
        self.found.sort_unstable_by_key(|span| (span.start, u32::MAX - span.end, span.class));
        self.found.dedup_by(|span, last| {
            let within = span.start < last.end;
            if within {
                last.end = last.end.max(span.end);
            }
            within
        });
        self.united = self.found.len();
    }
}

/// Bodies are far below 4 GiB.
pub(super) fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overlaps_is_one_and_has_the_name_of_the_first_and_longest() {
        let mut spans = Spans::default();
        for (range, class) in [(5..9, 3), (0..4, 2), (3..5, 1), (8..12, 0), (5..10, 7)] {
            spans.push(range, class);
        }
        let united: Vec<_> = spans.united().iter().map(|s| (s.start, s.end, s.class)).collect();
        assert_eq!(united, [(0, 5, 2), (5, 12, 7)]);
    }

    #[test]
    fn the_same_ones_again_and_again_take_no_more_room() {
        let mut spans = Spans::default();
        (0..FEW * 20).for_each(|n| spans.push(n % 100 * 10..n % 100 * 10 + 5, 0));
        assert!(spans.found.capacity() <= FEW * 2);
        assert_eq!(spans.united().len(), 100);
    }
}
