//! What a cost is made of, and how an amount is spread over that.

use super::money::SCALE;

/// So many of a kind at the same rate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Item {
    /// `input`, `cache_read`, `web_searches` …
    pub kind: String,
    pub quantity: u64,
    /// For one of them, in [`SCALE`]ths of a nano-dollar.
    pub(super) rate: i128,
}

impl Item {
    /// Dollars for one of them, exact: `0.00000125`.
    #[must_use]
    pub fn unit_price(&self) -> String {
        let one = SCALE.unsigned_abs() * 1_000_000_000;
        let (whole, rest) = (self.rate.unsigned_abs() / one, self.rate.unsigned_abs() % one);
        let text = format!("{whole}.{rest:018}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    fn amount(&self) -> i128 {
        i128::from(self.quantity).saturating_mul(self.rate)
    }
}

/// Spreads `total` nano-dollars over the items by what each costs: the shares add up to it, and each
/// is its exact one rounded up or down. `None`: none of them costs anything, but the whole does.
#[must_use]
pub fn spread(total: i64, items: &[Item]) -> Option<Vec<i64>> {
    let all = items.iter().fold(0_i128, |sum, item| sum.saturating_add(item.amount()));
    if all == 0 {
        return (total == 0).then(|| vec![0; items.len()]);
    }
    // By what they come to so far, rounded: no remainder is left over at the end.
    let (mut so_far, mut given) = (0_i128, 0);
    let share = |item: &Item| {
        so_far = so_far.saturating_add(item.amount());
        let until = part(total, so_far, all);
        let share = until - given;
        given = until;
        share
    };
    Some(items.iter().map(share).collect())
}

/// `total × part / all`, half up.
fn part(total: i64, part: i128, all: i128) -> i64 {
    // Both may be shortened alike where the product would be out of range.
    let room = i128::MAX / i128::from(total.unsigned_abs().max(1)) / 4;
    let shorter = (all / room.max(1)).max(0) + 1;
    let (part, all) = (part / shorter, (all / shorter).max(1));
    let exact = (2 * i128::from(total) * part + all).div_euclid(2 * all);
    i64::try_from(exact).unwrap_or(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn item(quantity: u64, nano_per_million: i128) -> Item {
        Item { kind: String::new(), quantity, rate: nano_per_million * 1000 }
    }

    #[test]
    fn prices_of_one_are_exact() {
        let price = |nano_per_million| item(1, nano_per_million).unit_price();
        assert_eq!(price(1_250_000_000), "0.00000125");
        assert_eq!(price(1), "0.000000000000001");
        assert_eq!(price(0), "0");
        assert_eq!(Item { rate: 10_000_000 * SCALE, ..item(1, 0) }.unit_price(), "0.01");
    }

    #[test]
    fn what_costs_nothing_takes_nothing() {
        let items = [item(10, 5_000_000), item(7, 0), item(20, 2_500_000)];
        assert_eq!(spread(100, &items), Some(vec![50, 0, 50]));
        assert_eq!(spread(3, &items), Some(vec![2, 0, 1]), "half a nano-dollar goes to one");
        assert_eq!(spread(0, &[item(7, 0)]), Some(vec![0]));
        assert_eq!(spread(5, &[item(7, 0)]), None);
        assert_eq!((spread(5, &[]), spread(0, &[])), (None, Some(Vec::new())));
    }

    proptest! {
        #[test]
        fn shares_add_up_and_are_near(
            total in prop_oneof![0..10_000i64, 0..i64::MAX],
            each in prop::collection::vec((0..u64::MAX / 4, 0..100_000_000_000i128), 1..9),
        ) {
            let items: Vec<Item> = each.into_iter().map(|(n, rate)| item(n, rate)).collect();
            if let Some(shares) = spread(total, &items) {
                prop_assert_eq!(shares.iter().map(|n| i128::from(*n)).sum::<i128>(), i128::from(total));
                prop_assert!(shares.iter().all(|share| (0..=total).contains(share)));
            }
        }

        #[test]
        fn what_the_list_says_is_split_to_the_nano_dollar(
            each in prop::collection::vec((0..10_000_000u64, 0..100_000_000_000i128), 1..9),
        ) {
            let items: Vec<Item> = each.into_iter().map(|(n, rate)| item(n, rate)).collect();
            let all: i128 = items.iter().map(Item::amount).sum();
            let total = crate::meter::price::money::round_half_up(all).unwrap();
            let shares = spread(total, &items).unwrap_or_else(|| vec![0; items.len()]);
            for (share, item) in shares.iter().zip(&items) {
                let own = item.amount() / SCALE;
                prop_assert!((i128::from(*share) - own).abs() <= 2, "{share} for {own}");
            }
        }
    }
}
