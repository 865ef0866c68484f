//! Adding up rows: pure, one row at a time.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::meter::row::{Billing, Completeness, usd_decimal};
use crate::meter::usage::{Tokens, UsageState};

/// Sums over a set of requests. What no row said stays absent, it is not 0.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Totals {
    pub requests: u64,
    /// Refused, failed, aborted or cut.
    pub errors: u64,
    /// Interrupted or lossy: the figures may be short.
    pub incomplete: u64,
    /// Still running.
    pub open: u64,
    pub tokens: Tokens,
    pub web_searches: Option<u64>,
    /// What the user pays for, by the price book.
    pub cost_nanousd: Option<i64>,
    pub cost_usd: Option<String>,
    /// What requests that a subscription covers would have cost; nothing of it is in the cost.
    pub subscription_nanousd: Option<i64>,
    pub subscription_usd: Option<String>,
    /// Requests whose cost is an estimate.
    pub estimated: u64,
    /// Requests with usage but without a price.
    pub unpriced: u64,
    pub unpriced_models: Vec<UnpricedModel>,
    /// Requests that the provider answered without telling the usage.
    pub without_usage: u64,
    pub latency_ms: Latency,
    pub ttfb_ms: Latency,
}

/// A model without a price.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct UnpricedModel {
    pub model: Option<String>,
    pub requests: u64,
}

/// Nearest-rank percentiles.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Latency {
    pub p50: Option<u64>,
    pub p95: Option<u64>,
}

/// What a total needs of a row.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) model: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) error_class: Option<String>,
    pub(super) usage: UsageState,
    pub(super) tokens: Tokens,
    pub(super) web_searches: Option<u64>,
    pub(super) cost_nanousd: Option<i64>,
    pub(super) cost_estimated: bool,
    pub(super) billing: Billing,
    pub(super) completeness: Completeness,
    pub(super) ttfb_ms: Option<u64>,
    pub(super) duration_ms: Option<u64>,
}

/// Totals in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    totals: Totals,
    unpriced: BTreeMap<Option<String>, u64>,
    durations: Vec<u64>,
    ttfbs: Vec<u64>,
}

impl Tally {
    pub(super) fn add(&mut self, sample: &Sample) {
        let t = &mut self.totals;
        let failed = sample.error_class.is_some() || sample.status.is_some_and(|s| s >= 400);
        t.requests += 1;
        t.errors += u64::from(failed);
        match sample.completeness {
            Completeness::Open => t.open += 1,
            Completeness::Complete => {}
            Completeness::Interrupted | Completeness::Lossy => t.incomplete += 1,
        }
        add_tokens(&mut t.tokens, &sample.tokens);
        add(&mut t.web_searches, sample.web_searches);
        match (sample.cost_nanousd, sample.billing) {
            (Some(cost), Billing::Metered) => add_money(&mut t.cost_nanousd, cost),
            (Some(cost), Billing::Subscription) => add_money(&mut t.subscription_nanousd, cost),
            (None, Billing::Metered | Billing::Subscription) => match sample.usage {
                UsageState::Reported | UsageState::Partial => {
                    t.unpriced += 1;
                    *self.unpriced.entry(sample.model.clone()).or_default() += 1;
                }
                UsageState::Absent => {
                    let running = sample.completeness == Completeness::Open;
                    t.without_usage += u64::from(!failed && !running);
                }
            },
        }
        t.estimated += u64::from(sample.cost_estimated && sample.cost_nanousd.is_some());
        // How long it took to be refused says nothing of the model.
        if !failed {
            self.durations.extend(sample.duration_ms);
            self.ttfbs.extend(sample.ttfb_ms);
        }
    }

    pub(super) fn finish(mut self) -> Totals {
        let mut t = self.totals;
        t.cost_usd = t.cost_nanousd.map(usd_decimal);
        t.subscription_usd = t.subscription_nanousd.map(usd_decimal);
        t.unpriced_models = self
            .unpriced
            .into_iter()
            .map(|(model, requests)| UnpricedModel { model, requests })
            .collect();
        t.unpriced_models.sort_by_key(|m| std::cmp::Reverse(m.requests));
        t.latency_ms = percentiles(&mut self.durations);
        t.ttfb_ms = percentiles(&mut self.ttfbs);
        t
    }
}

fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn add_money(sum: &mut Option<i64>, value: i64) {
    *sum = Some(sum.unwrap_or(0).saturating_add(value));
}

fn add_tokens(sum: &mut Tokens, value: &Tokens) {
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
    } = *value;
    add(&mut sum.input, input);
    add(&mut sum.cache_read, cache_read);
    add(&mut sum.cache_write_5m, cache_write_5m);
    add(&mut sum.cache_write_1h, cache_write_1h);
    add(&mut sum.cache_write_other, cache_write_other);
    add(&mut sum.output, output);
    add(&mut sum.reasoning, reasoning);
    add(&mut sum.audio_input, audio_input);
    add(&mut sum.audio_output, audio_output);
    add(&mut sum.image_input, image_input);
    add(&mut sum.image_output, image_output);
}

fn percentiles(values: &mut [u64]) -> Latency {
    values.sort_unstable();
    Latency { p50: nearest_rank(values, 50), p95: nearest_rank(values, 95) }
}

/// The smallest value that at least `percent` of the values don't exceed.
fn nearest_rank(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            model: Some("m".to_owned()),
            status: Some(200),
            error_class: None,
            usage: UsageState::Reported,
            tokens: Tokens::default(),
            web_searches: None,
            cost_nanousd: Some(10),
            cost_estimated: false,
            billing: Billing::Metered,
            completeness: Completeness::Complete,
            ttfb_ms: None,
            duration_ms: None,
        }
    }

    fn total(samples: &[Sample]) -> Totals {
        let mut tally = Tally::default();
        samples.iter().for_each(|s| tally.add(s));
        tally.finish()
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentiles(&mut hundred), Latency { p50: Some(50), p95: Some(95) });
        assert_eq!(percentiles(&mut [7]), Latency { p50: Some(7), p95: Some(7) });
        assert_eq!(percentiles(&mut [1, 2]), Latency { p50: Some(1), p95: Some(2) });
        assert_eq!(percentiles(&mut []), Latency::default());
    }

    #[test]
    fn absent_stays_absent_and_zero_is_zero() {
        assert_eq!(total(&[]).cost_nanousd, None);
        let mut a = sample();
        a.tokens.output = Some(0);
        a.cost_nanousd = Some(0);
        let t = total(&[a]);
        assert_eq!((t.tokens.output, t.tokens.input), (Some(0), None));
        assert_eq!(t.cost_usd.as_deref(), Some("0.00"));
    }

    #[test]
    fn subscription_money_is_kept_apart() {
        let sub = Sample { billing: Billing::Subscription, ..sample() };
        let t = total(&[sample(), sub]);
        assert_eq!((t.cost_nanousd, t.subscription_nanousd), (Some(10), Some(10)));
    }

    #[test]
    fn unpriced_without_usage_and_failed_are_three_things() {
        let unpriced = Sample { cost_nanousd: None, ..sample() };
        let silent = Sample { cost_nanousd: None, usage: UsageState::Absent, ..sample() };
        let refused = Sample { status: Some(429), ..silent.clone() };
        let running = Sample { completeness: Completeness::Open, status: None, ..silent.clone() };
        let t = total(&[unpriced.clone(), unpriced, silent, refused, running]);
        assert_eq!((t.unpriced, t.without_usage, t.errors, t.open), (2, 1, 1, 1));
        assert_eq!(t.unpriced_models, [UnpricedModel { model: Some("m".to_owned()), requests: 2 }]);
    }
}
