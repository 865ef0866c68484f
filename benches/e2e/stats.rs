//! Arithmetic of the tables. Pure.

use std::collections::BTreeMap;

/// A figure per round: only rounds that both have are compared with each other.
pub type Series = BTreeMap<usize, f64>;

/// Nearest rank; `None` of nothing.
pub fn percentile(sorted: &[u64], percent: f64) -> Option<u64> {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().checked_sub(1)?)).copied()
}

pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

/// The least: what the machine gives when nobody else wants it.
pub fn best(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    values.into_iter().filter(|v| v.is_finite()).min_by(f64::total_cmp)
}

/// Median of the differences within each round.
pub fn added(series: &Series, base: &Series) -> Option<f64> {
    median(paired(series, base).map(|(value, base)| value - base))
}

/// Median of the ratios within each round.
pub fn ratio(series: &Series, base: &Series) -> Option<f64> {
    median(paired(series, base).filter(|(_, base)| *base > 0.0).map(|(value, base)| value / base))
}

fn paired<'a>(series: &'a Series, base: &'a Series) -> impl Iterator<Item = (f64, f64)> + 'a {
    series.iter().filter_map(|(round, value)| Some((*value, *base.get(round)?)))
}

/// Which of `n` targets comes at this place of this round: each is first equally often, so that
/// nobody always follows the same neighbour's leavings.
pub fn turn(place: usize, round: usize, n: usize) -> usize {
    (place + round) % n
}
