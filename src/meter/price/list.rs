//! The book as a list, for people.

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use super::book::{Book, Entry, Model, in_force};
use super::money::usd;

/// What a model costs on one tier at one moment; amounts are exact decimals of dollars per million
/// tokens.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct ListPrice {
    pub provider: String,
    pub model: String,
    pub tier: Option<String>,
    pub from: Option<Date>,
    pub own: bool,
    pub input: Option<String>,
    pub cache_read: Option<String>,
    pub cache_write_5m: Option<String>,
    pub cache_write_1h: Option<String>,
    pub cache_write_12h: Option<String>,
    pub output: Option<String>,
    /// Dollars for one.
    pub web_search: Option<String>,
    /// Above so many input tokens the whole request costs more.
    pub long_context_above: Option<u64>,
    /// Holds at some hours only.
    pub peak_hours: bool,
}

impl Book {
    /// Every price in force at `at`, by name.
    #[must_use]
    pub fn prices(&self, at: Timestamp) -> Vec<ListPrice> {
        let mut prices: Vec<ListPrice> = self
            .models
            .iter()
            .flat_map(|model| {
                let plain = in_force(&model.prices, at, at).or(model.listed_first());
                let tiers = model.variants.iter().filter_map(move |(tier, entries)| {
                    Some((Some(tier), in_force(entries, at, at)?))
                });
                let all = plain.map(|entry| (None, entry)).into_iter().chain(tiers);
                all.map(move |(tier, entry)| price(model, tier, entry))
            })
            .filter(|price| price.input.is_some() || price.output.is_some())
            .collect();
        prices.sort_by(|a, b| {
            (&a.provider, &a.model, &a.tier).cmp(&(&b.provider, &b.model, &b.tier))
        });
        prices
    }
}

impl ListPrice {
    /// `provider/model`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.provider, self.model)
    }

    /// What the columns don't say.
    #[must_use]
    pub fn note(&self) -> String {
        let mut notes = Vec::new();
        if self.own {
            notes.push("yours".to_owned());
        }
        notes.extend(self.long_context_above.map(|tokens| format!("more above {tokens} in")));
        if self.peak_hours {
            notes.push("at peak hours".to_owned());
        }
        notes.join(", ")
    }
}

fn price(model: &Model, tier: Option<&String>, entry: &Entry) -> ListPrice {
    let dollars = |nano: u64| usd(i64::try_from(nano).unwrap_or(i64::MAX));
    let rate = |rate: &Option<super::book::Rate>| rate.as_ref().map(|rate| dollars(rate.base()));
    ListPrice {
        provider: model.provider.clone(),
        model: model.id.clone(),
        tier: tier.cloned(),
        from: entry.from,
        own: entry.own,
        input: rate(&entry.input),
        cache_read: rate(&entry.cache_read),
        cache_write_5m: rate(&entry.write_5m),
        cache_write_1h: rate(&entry.write_1h),
        cache_write_12h: rate(&entry.write_12h),
        output: rate(&entry.output),
        web_search: entry.web_search.map(dollars),
        long_context_above: entry.input.as_ref().and_then(super::book::Rate::first_step),
        peak_hours: entry.hours.is_some(),
    }
}
