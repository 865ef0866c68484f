//! Adding up rows: pure, one row at a time.

use std::collections::BTreeMap;

use serde::Serialize;

use super::histogram::{Histogram, nearest_rank};
use crate::meter::row::{Billing, Completeness, is_cut_short, is_redirect, usd_decimal};
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
    /// Requests that the provider answered, or had begun to, without telling the usage.
    pub without_usage: u64,
    pub latency_ms: Latency,
    pub ttfb_ms: Latency,
}

impl Totals {
    /// Requests whose cost is not known: the truth is higher than the cost.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unpriced.saturating_add(self.without_usage)
    }
}

/// A model without a price.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct UnpricedModel {
    pub model: Option<String>,
    pub requests: u64,
}

/// Nearest-rank percentiles, of values rounded to three digits.
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

/// What totals are made of, except which models had no price. Sums of sums are exact: the order and
/// how the rows were split make no difference.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) requests: u64,
    pub(super) errors: u64,
    pub(super) incomplete: u64,
    pub(super) open: u64,
    pub(super) estimated: u64,
    pub(super) unpriced: u64,
    pub(super) without_usage: u64,
    pub(super) tokens: Tokens,
    pub(super) web_searches: Option<u64>,
    /// Wider than a row's, so that only the result is ever cut to size.
    pub(super) cost: Option<i128>,
    pub(super) subscription: Option<i128>,
    pub(super) durations: Histogram,
    pub(super) ttfbs: Histogram,
}

impl Sums {
    pub(super) fn add(&mut self, sample: &Sample) {
        let failed = sample.error_class.is_some() || sample.status.is_some_and(|s| s >= 400);
        let running = sample.completeness == Completeness::Open;
        self.requests += 1;
        self.errors += u64::from(failed);
        match sample.completeness {
            Completeness::Open => self.open += 1,
            Completeness::Complete => {}
            Completeness::Interrupted | Completeness::Lossy => self.incomplete += 1,
        }
        add_tokens(&mut self.tokens, &sample.tokens);
        add(&mut self.web_searches, sample.web_searches);
        let cost = sample.cost_nanousd.map(i128::from);
        match (sample.billing, cost) {
            (Billing::Metered, Some(_)) => add_money(&mut self.cost, cost),
            (Billing::Subscription, Some(_)) => add_money(&mut self.subscription, cost),
            // What still runs has no price yet, which is another thing than none.
            (Billing::Metered | Billing::Subscription, None) => match sample.usage {
                UsageState::Reported | UsageState::Partial => self.unpriced += u64::from(!running),
                UsageState::Absent => {
                    let Sample { completeness, status, error_class, .. } = sample;
                    let cut = is_cut_short(*completeness, *status, error_class.as_deref());
                    let answered = !failed && !running && !is_redirect(*status);
                    self.without_usage += u64::from(cut || answered);
                }
            },
        }
        self.estimated += u64::from(sample.cost_estimated && cost.is_some());
        // How long it took to be refused says nothing of the model.
        if !failed {
            sample.duration_ms.into_iter().for_each(|ms| self.durations.add(ms));
            sample.ttfb_ms.into_iter().for_each(|ms| self.ttfbs.add(ms));
        }
    }

    fn merge(&mut self, other: &Self) {
        // Taken apart so that a new sum can't be forgotten here.
        let Self {
            requests,
            errors,
            incomplete,
            open,
            estimated,
            unpriced,
            without_usage,
            tokens,
            web_searches,
            cost,
            subscription,
            durations,
            ttfbs,
        } = other;
        plus(&mut self.requests, *requests);
        plus(&mut self.errors, *errors);
        plus(&mut self.incomplete, *incomplete);
        plus(&mut self.open, *open);
        plus(&mut self.estimated, *estimated);
        plus(&mut self.unpriced, *unpriced);
        plus(&mut self.without_usage, *without_usage);
        add_tokens(&mut self.tokens, tokens);
        add(&mut self.web_searches, *web_searches);
        add_money(&mut self.cost, *cost);
        add_money(&mut self.subscription, *subscription);
        self.durations.merge(durations);
        self.ttfbs.merge(ttfbs);
    }
}

/// Totals in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    sums: Sums,
    unpriced: BTreeMap<Option<String>, u64>,
}

impl Tally {
    pub(super) fn add(&mut self, sample: &Sample) {
        let before = self.sums.unpriced;
        self.sums.add(sample);
        if self.sums.unpriced > before {
            *self.unpriced.entry(sample.model.clone()).or_default() += 1;
        }
    }

    /// Adds sums of rows of one model.
    pub(super) fn merge(&mut self, model: Option<&str>, sums: &Sums) {
        self.sums.merge(sums);
        if sums.unpriced > 0 {
            plus(self.unpriced.entry(model.map(str::to_owned)).or_default(), sums.unpriced);
        }
    }

    /// Requests of a kind whose price can only be an estimate: those whose usage is known.
    pub(super) fn told(&self) -> Option<u64> {
        let told = self.sums.estimated.saturating_add(self.sums.unpriced);
        (told > 0).then_some(told)
    }

    pub(super) fn finish(self) -> Totals {
        let Sums { requests, errors, incomplete, open, estimated, unpriced, .. } = self.sums;
        let money = |sum: Option<i128>| {
            sum.map(|n| i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX }))
        };
        let (cost, subscription) = (money(self.sums.cost), money(self.sums.subscription));
        let mut unpriced_models: Vec<UnpricedModel> = self
            .unpriced
            .into_iter()
            .map(|(model, requests)| UnpricedModel { model, requests })
            .collect();
        unpriced_models.sort_by_key(|m| std::cmp::Reverse(m.requests));
        Totals {
            requests,
            errors,
            incomplete,
            open,
            tokens: self.sums.tokens,
            web_searches: self.sums.web_searches,
            cost_nanousd: cost,
            cost_usd: cost.map(usd_decimal),
            subscription_nanousd: subscription,
            subscription_usd: subscription.map(usd_decimal),
            estimated,
            unpriced,
            unpriced_models,
            without_usage: self.sums.without_usage,
            latency_ms: percentiles(&self.sums.durations),
            ttfb_ms: percentiles(&self.sums.ttfbs),
        }
    }
}

fn plus(sum: &mut u64, value: u64) {
    *sum = sum.saturating_add(value);
}

fn add(sum: &mut Option<u64>, value: Option<u64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn add_money(sum: &mut Option<i128>, value: Option<i128>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
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

fn percentiles(values: &Histogram) -> Latency {
    let sorted = values.sorted();
    Latency { p50: nearest_rank(&sorted, 50), p95: nearest_rank(&sorted, 95) }
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
        let counting = Sample { completeness: Completeness::Open, ..unpriced.clone() };
        let all = [unpriced.clone(), unpriced, silent.clone(), refused, running, counting];
        let t = total(&all);
        assert_eq!((t.unpriced, t.without_usage, t.errors, t.open), (2, 1, 1, 2));
        assert_eq!(t.unknown(), 3);
        assert_eq!(t.unpriced_models, [UnpricedModel { model: Some("m".to_owned()), requests: 2 }]);
        let cut = |class: &str, status| Sample {
            error_class: Some(class.to_owned()),
            status,
            completeness: Completeness::Interrupted,
            ..silent.clone()
        };
        // On a WebSocket the status is the handshake's.
        let begun = [cut("client_abort", Some(200)), cut("upstream_cut", Some(101))];
        let never = [
            cut("network", None),
            cut("client_abort", None),
            cut("rate_limit", Some(429)),
            cut("overloaded", Some(200)),
        ];
        let t = total(&[&begun[..], &never].concat());
        assert_eq!((t.without_usage, t.errors, t.incomplete), (2, 6, 6));
    }
}
