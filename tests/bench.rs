//! The arithmetic of `benches/e2e`, whose own target has no test harness.

#[path = "../benches/e2e/stats.rs"]
mod stats;
#[path = "../benches/e2e/table.rs"]
mod table;

use stats::{Series, added, best, median, percentile, ratio, turn};
use table::{figure, maybe, spread, table, times};

fn series(values: &[(usize, f64)]) -> Series {
    values.iter().copied().collect()
}

#[test]
fn percentiles_are_nearest_ranks() {
    let hundred: Vec<u64> = (1..=100).collect();
    for (percent, expected) in
        [(0.0, 1), (1.0, 1), (50.0, 50), (99.0, 99), (99.1, 100), (100.0, 100)]
    {
        assert_eq!(percentile(&hundred, percent), Some(expected), "p{percent}");
    }
    assert_eq!(percentile(&[7], 50.0), Some(7));
    assert_eq!(percentile(&[1, 2], 50.0), Some(1));
    assert_eq!(percentile(&[], 50.0), None);
}

#[test]
fn a_median_is_in_the_middle_whatever_the_order() {
    assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
    assert_eq!(median([]), None);
    // A cell that divided by nothing is no measurement.
    assert_eq!(median([f64::NAN, 5.0, f64::INFINITY]), Some(5.0));
    assert_eq!(best([f64::NAN, 5.0, 4.0]), Some(4.0));
    assert_eq!(best([]), None);
}

#[test]
fn only_the_same_round_is_compared() {
    // The machine slowed down in round 2, for both: the difference stays.
    let direct = series(&[(0, 100.0), (1, 110.0), (2, 500.0)]);
    let proxy = series(&[(0, 140.0), (1, 150.0), (2, 540.0), (3, 9.0)]);
    assert_eq!(added(&proxy, &direct), Some(40.0));
    assert_eq!(ratio(&series(&[(0, 50.0), (1, 220.0), (2, 500.0)]), &direct), Some(1.0));
    assert_eq!(added(&proxy, &Series::new()), None);
    assert_eq!(ratio(&proxy, &series(&[(0, 0.0)])), None, "nothing to divide by");
}

#[test]
fn everyone_is_first_equally_often_and_once_a_round() {
    for n in 1..5 {
        for round in 0..n {
            let mut order: Vec<_> = (0..n).map(|place| turn(place, round, n)).collect();
            assert_eq!(order[0], round);
            order.sort_unstable();
            assert_eq!(order, (0..n).collect::<Vec<_>>());
        }
    }
}

#[test]
fn figures_have_three_digits() {
    for (value, expected) in [
        (0.0, "0.00"),
        (0.126, "0.13"),
        (9.996, "10.0"),
        (38.72, "38.7"),
        (99.96, "100"),
        (327.4, "327"),
        (999.6, "1,000"),
        (12_345.6, "12,346"),
        (1_234_567.0, "1,234,567"),
        (-1_500.0, "-1,500"),
        (-3.2, "-3.20"),
    ] {
        assert_eq!(figure(value), expected);
    }
    assert_eq!(maybe(None), "–");
    assert_eq!(times(Some(1.149)), "1.15");
    assert_eq!(spread(&[]), "–");
    assert_eq!(spread(&[3.0, 2.0, 10.0]), "3.00 [2.00]");
}

#[test]
fn a_table_is_markdown_with_figures_to_the_right() {
    let rows =
        vec![vec!["one".to_owned(), "1.00".to_owned()], vec!["two".to_owned(), "20.0".to_owned()]];
    assert_eq!(
        table(1, &["case", "CPU µs"], &rows),
        "| case | CPU µs |\n|------|--------|\n| one  |   1.00 |\n| two  |   20.0 |"
    );
}
