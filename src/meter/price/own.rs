//! The user's own prices: what a contract says, from a day on. They stand in `prices.toml` of the
//! home directory and go before the book's.

use std::fmt;
use std::path::Path;

use jiff::civil::Date;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::book::{Book, Entry, Model, Rate};
use super::money::{nano_from_decimal, usd};
use crate::meter::own_file::{self, OwnError};
use crate::meter::usage::is_plain;

/// A price that goes before the book's. What it does not name stays as it is there.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OwnPrice {
    pub provider: String,
    pub model: String,
    /// `batch`, `flex`, `priority`, `fast` …; none: the plain price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<String>,
    /// First day (UTC); none: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Date>,
    #[serde(flatten)]
    pub rates: OwnRates,
}

/// Dollars per million tokens, by class.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, clap::Args)]
pub struct OwnRates {
    /// Input that is not cached
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Dollars>,
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read: Option<Dollars>,
    /// Audio that is read from a cache
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_audio: Option<Dollars>,
    /// Images that are read from a cache
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_read_image: Option<Dollars>,
    /// Cache writes that live 5 minutes
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_5m: Option<Dollars>,
    /// Cache writes that live an hour
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<Dollars>,
    /// Cache writes that live 12 hours
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_12h: Option<Dollars>,
    /// Output, reasoning included
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Dollars>,
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<Dollars>,
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<Dollars>,
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_input: Option<Dollars>,
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_output: Option<Dollars>,
    /// Dollars for one web search
    #[arg(long, value_name = "USD")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_search: Option<Dollars>,
}

/// An amount that is kept in nano-dollars and written as a decimal number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Dollars(u64);

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    price: Vec<OwnPrice>,
}

/// The user's prices; none when there is no file.
///
/// # Errors
/// Names the file, and the line of what is wrong in it.
pub fn read_own(path: &Path) -> Result<Vec<OwnPrice>, OwnError> {
    own_file::read(path, parse_own)
}

pub(crate) fn parse_own(text: &str) -> Result<Vec<OwnPrice>, toml::de::Error> {
    toml::from_str(text).map(|file: File| file.price)
}

/// Writes them all, in place of what the file said.
///
/// # Errors
/// When the file can't be written.
pub fn write_own(path: &Path, prices: &[OwnPrice]) -> Result<(), OwnError> {
    let head = "# Your own prices in dollars per million tokens. `halton-meter pricing set` writes \
        this file;\n# `halton-meter recompute-costs` applies it to what is in the ledger.\n\n";
    let text = toml::to_string(&File { price: prices.to_vec() });
    own_file::write(path, text.map(|text| format!("{head}{text}")))
}

impl OwnPrice {
    /// Whether `other` is for the same thing, from the same day on: a later one replaces it.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        self.is_for(&other.provider, &other.model)
            && self.variant() == other.variant()
            && self.from == other.from
    }

    /// The tier, if it is one that has a price of its own.
    fn variant(&self) -> Option<&str> {
        self.tier.as_deref().filter(|tier| !is_plain(tier))
    }

    #[must_use]
    pub fn is_for(&self, provider: &str, model: &str) -> bool {
        self.provider == provider && self.model.eq_ignore_ascii_case(model)
    }
}

impl OwnRates {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn apply(&self, entry: &mut Entry) {
        for (own, slot) in [
            (self.input, &mut entry.input),
            (self.cache_read, &mut entry.cache_read),
            (self.cache_read_audio, &mut entry.cache_read_audio),
            (self.cache_read_image, &mut entry.cache_read_image),
            (self.cache_write_5m, &mut entry.write_5m),
            (self.cache_write_1h, &mut entry.write_1h),
            (self.cache_write_12h, &mut entry.write_12h),
            (self.output, &mut entry.output),
            (self.audio_input, &mut entry.audio_input),
            (self.audio_output, &mut entry.audio_output),
            (self.image_input, &mut entry.image_input),
            (self.image_output, &mut entry.image_output),
        ] {
            if let Some(Dollars(nano)) = own {
                *slot = Some(Rate::flat(nano));
            }
        }
        entry.web_search = self.web_search.map(|Dollars(nano)| nano).or(entry.web_search);
        if self.output.is_some() {
            // What is set for output is for all of it.
            entry.reasoning = None;
        }
    }
}

impl Book {
    /// The book with the user's prices in front of its own. What one of them does not name is as it
    /// was without it, then: also where the book changes, or has other prices at peak hours.
    #[must_use]
    pub fn with_own(&self, own: &[OwnPrice]) -> Self {
        let mut book = self.clone();
        let mut own: Vec<&OwnPrice> = own.iter().collect();
        own.sort_by_key(|price| price.from);
        for price in own {
            let model = book.model_for(&price.provider, &price.model);
            let entries = match price.variant() {
                None => &mut model.prices,
                Some(tier) => model.variants.entry(tier.to_ascii_lowercase()).or_default(),
            };
            let mine = in_front(entries, price);
            entries.extend(mine);
        }
        book
    }

    /// The model of that name, made if there is none. A snapshot that was only guessed to be of a
    /// model becomes one of its own.
    fn model_for(&mut self, provider: &str, name: &str) -> &mut Model {
        let known = self.find(provider, name).map(|found| (found.model.clone(), found.guessed));
        let at = match &known {
            Some((model, false)) => {
                self.models.iter().position(|m| m.provider == provider && m.id == model.id)
            }
            Some((_, _)) | None => None,
        };
        let at = at.unwrap_or_else(|| {
            let mut model = known.map(|(model, _)| model).unwrap_or_default();
            model.provider = provider.to_owned();
            model.id = name.to_ascii_lowercase();
            self.add(model)
        });
        &mut self.models[at]
    }
}

/// What goes behind `entries` (the last that holds is in force): a copy of them from the price's day on,
/// with its rates.
fn in_front(entries: &[Entry], price: &OwnPrice) -> Vec<Entry> {
    let always =
        |entry: &Entry| entry.hours.is_none() && entry.days.is_none() && entry.off.is_none();
    let from = |entry: &Entry| entry.from.max(price.from);
    let mut kept: Vec<Entry> = Vec::new();
    // From the last: one that holds always, from no later on, leaves nothing to those before it.
    for entry in entries.iter().rev() {
        if kept.iter().all(|later| !always(later) || later.from > from(entry)) {
            kept.push(Entry { from: from(entry), ..entry.clone() });
        }
    }
    if !kept.iter().any(|entry| always(entry) && entry.from <= price.from) {
        // Before its first day, the oldest price of the list is the best there is.
        let oldest = entries.first().cloned().unwrap_or_default();
        kept.push(Entry { from: price.from, hours: None, days: None, off: None, ..oldest });
    }
    for entry in &mut kept {
        entry.own = true;
        price.rates.apply(entry);
    }
    kept.reverse();
    kept
}

impl Dollars {
    #[must_use]
    pub fn nano(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&usd(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }
}

impl std::str::FromStr for Dollars {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_start_matches('$');
        let nano = nano_from_decimal(text).and_then(|nano| u64::try_from(nano).ok());
        nano.map(Self).ok_or("expected dollars, like 1.25")
    }
}

impl Serialize for Dollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;
        impl Visitor<'_> for Amount {
            type Value = Dollars;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("dollars, like 1.25 or \"1.25\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Dollars, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, whole: i64) -> Result<Dollars, E> {
                self.visit_str(&whole.to_string())
            }

            // The shortest text of a float is what the user wrote.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Dollars, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::price::Query;
    use crate::meter::price::book::in_force;
    use crate::meter::usage::{Cached, Tokens, Usage, UsageState};

    fn cost(
        book: &Book,
        provider: &str,
        model: &str,
        day: &str,
        tier: Option<&str>,
    ) -> Option<i64> {
        let usage = Usage {
            state: UsageState::Reported,
            tokens: Tokens { input: Some(1000), output: Some(100), ..Tokens::default() },
            tier: tier.map(str::to_owned),
            ..Usage::default()
        };
        let at = format!("{day}T00:00:00Z").parse().unwrap();
        book.quote(&Query { provider, model, at, ended: at, usage: &usage }).cost_nanousd
    }

    fn own(text: &str) -> Vec<OwnPrice> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.toml");
        std::fs::write(&path, text).unwrap();
        read_own(&path).unwrap()
    }

    #[test]
    fn a_tier_that_is_plain_is_the_plain_price() {
        let mine = own(
            "[[price]]\nprovider='openai'\nmodel='gpt-4o-mini'\ntier='standard'\ninput=1\noutput=1\n",
        );
        let book = Book::builtin().with_own(&mine);
        for tier in [None, Some("default")] {
            let cost = cost(&book, "openai", "gpt-4o-mini", "2026-11-24", tier);
            assert_eq!(cost, Some(1_100_000), "{tier:?}");
        }
    }

    #[test]
    fn own_prices_go_before_the_book_from_their_day_on() {
        let mine = own(
            "[[price]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\nfrom = '2026-06-01'\ninput = 0.10\n\
             [[price]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\nfrom = '2026-01-01'\ninput = '0.12'\noutput = 1\n\
             [[price]]\nprovider = 'openai'\nmodel = 'gpt-4o-mini'\ntier = 'priority'\ninput = 9\noutput = 9\n",
        );
        let book = Book::builtin().with_own(&mine);
        let price = |day, tier| cost(&book, "openai", "gpt-4o-mini", day, tier);
        // List: 0.15 and 0.60.
        assert_eq!(price("2025-12-31", None), Some(210_000));
        assert_eq!(price("2026-01-01", None), Some(220_000));
        // What is not named is what was in force, by the user's word too.
        assert_eq!(price("2026-06-01", None), Some(200_000));
        assert_eq!(
            cost(&book, "openai", "gpt-4o-mini-2024-07-18", "2026-06-01", None),
            Some(200_000)
        );
        assert_eq!(price("2026-06-01", Some("priority")), Some(9_900_000));
        assert_eq!(cost(&book, "openai", "gpt-4o", "2026-06-01", None), Some(3_500_000));
    }

    #[test]
    fn a_tier_that_names_some_rates_only_is_an_estimate() {
        let quote = |text: &str| {
            let book = Book::builtin().with_own(&own(text));
            let usage = Usage {
                state: UsageState::Reported,
                tokens: Tokens { input: Some(1000), output: Some(100), ..Tokens::default() },
                tier: Some("scale".to_owned()),
                ..Usage::default()
            };
            let at = "2026-11-25T00:00:00Z".parse().unwrap();
            book.quote(&Query { provider: "openai", model: "gpt-4o", at, ended: at, usage: &usage })
        };
        let price = "[[price]]\nprovider='openai'\nmodel='gpt-4o'\ntier='scale'\ninput=1\n";
        // The plain price of output is 10.
        let half = quote(price);
        assert_eq!((half.cost_nanousd, half.estimated), (Some(2_000_000), true), "{half:?}");
        assert_eq!(half.reason.as_deref(), Some("this tier names no rate for output"));
        let whole = quote(&format!("{price}output=3\n"));
        assert_eq!((whole.cost_nanousd, whole.estimated), (Some(1_300_000), false), "{whole:?}");
    }

    #[test]
    fn what_is_not_named_follows_the_list() {
        // The list: 1.00 and 6.00; 0.20 and 1.20 from 2026-07-30 on.
        let luna = |from: &str, rate: &str| {
            format!("[[price]]\nprovider='openai'\nmodel='gpt-5.6-luna'\nfrom='{from}'\n{rate}\n")
        };
        let text = luna("2026-08-15", "output=2") + &luna("2026-07-01", "input=0.5");
        let book = Book::builtin().with_own(&own(&text));
        for (day, expected) in [
            ("2026-06-30", 1_600_000),
            ("2026-07-01", 1_100_000),
            ("2026-07-29", 1_100_000),
            ("2026-07-30", 620_000),
            ("2026-08-14", 620_000),
            ("2026-08-15", 700_000),
        ] {
            assert_eq!(cost(&book, "openai", "gpt-5.6-luna", day, None), Some(expected), "{day}");
        }
        // A price without a day holds always, and leaves the others' days alone.
        let always = "[[price]]\nprovider='openai'\nmodel='gpt-5.6-luna'\noutput=0\n";
        let book = Book::builtin().with_own(&own(&(always.to_owned() + &text)));
        let price = |day| cost(&book, "openai", "gpt-5.6-luna", day, None);
        assert_eq!(price("2026-06-30"), Some(1_000_000));
        assert_eq!((price("2026-07-01"), price("2026-08-15")), (Some(500_000), Some(700_000)));
    }

    #[test]
    fn many_days_of_one_model_stay_few_prices() {
        let day = |n: i64| Date::constant(2026, 1, 1).saturating_add(jiff::Span::new().days(n));
        let rate = |n| OwnRates { input: Some(Dollars(n)), ..OwnRates::default() };
        let mine: Vec<OwnPrice> = (0..300_u64)
            .map(|n| OwnPrice {
                provider: "deepseek".to_owned(),
                model: "deepseek-flash".to_owned(),
                from: Some(day(n.cast_signed())),
                rates: rate(n),
                ..OwnPrice::default()
            })
            .collect();
        let book = Book::builtin().with_own(&mine);
        let model = book.find("deepseek", "deepseek-flash").unwrap().model;
        assert!(model.prices.len() < 300 * 10, "{}", model.prices.len());
        // Peak hours stay what they are for the rates that are not named (a Tuesday, 02:00).
        let at = |time: &str| format!("2026-11-24T{time}Z").parse().unwrap();
        let output =
            |time| in_force(&model.prices, at(time), at(time)).unwrap().output.clone().unwrap();
        assert_eq!(output("02:00:00").base(), 2 * output("05:00:00").base());
        let input =
            |time| in_force(&model.prices, at(time), at(time)).unwrap().input.clone().unwrap();
        assert_eq!((input("02:00:00").base(), input("05:00:00").base()), (299, 299));
    }

    #[test]
    fn audio_and_images_out_of_a_cache_have_rates_of_their_own() {
        let rate = |words: &str| {
            own(&format!("[[price]]\nprovider='openai'\nmodel='gpt-realtime-mini'\n{words}\n"))
        };
        let usage = Usage {
            state: UsageState::Reported,
            tokens: Tokens { cache_read: Some(3000), ..Tokens::default() },
            cached: Cached { audio: Some(1000), image: Some(1000) },
            ..Usage::default()
        };
        let cost = |words: &str| {
            let (provider, model) = ("openai", "gpt-realtime-mini");
            let at = "2026-11-24T00:00:00Z".parse().unwrap();
            let book = Book::builtin().with_own(&rate(words));
            book.quote(&Query { provider, model, at, ended: at, usage: &usage }).cost_nanousd
        };
        // The list: 0.06, of audio 0.30, of images 0.08.
        assert_eq!(cost("output = 1"), Some(440_000));
        assert_eq!(cost("cache_read_audio = 1"), Some(1_140_000));
        assert_eq!(cost("cache_read_image = 2"), Some(2_360_000));
        assert_eq!(cost("cache_read_audio = 1\ncache_read_image = 2"), Some(3_060_000));
    }

    #[test]
    fn a_model_that_nobody_lists_has_the_users_price_and_no_other() {
        let text = "[[price]]\nprovider = 'llm.corp.example'\nmodel = 'House-7b'\n\
             from = '2026-06-01'\ninput = 1\noutput = 2\n";
        let book = Book::builtin().with_own(&own(text));
        let price = |model, day| cost(&book, "llm.corp.example", model, day, None);
        assert_eq!(price("house-7b", "2026-06-01"), Some(1_200_000));
        assert_eq!(price("house-7b", "2026-05-31"), None);
        assert_eq!(price("house-8b", "2026-06-01"), None);
        assert!(!book.knows_provider("llm.corp.example"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.toml");
        assert_eq!(read_own(&path).unwrap(), []);
        let price = OwnPrice {
            provider: "openai".to_owned(),
            model: "gpt-4o".to_owned(),
            from: Some("2026-06-01".parse().unwrap()),
            rates: OwnRates { input: Some("0.000000001".parse().unwrap()), ..OwnRates::default() },
            ..OwnPrice::default()
        };
        write_own(&path, std::slice::from_ref(&price)).unwrap();
        assert_eq!(read_own(&path).unwrap(), [price]);
        for bad in [
            "x",
            "[[price]]\nprovider = 'a'\n",
            "[[price]]\nprovider='a'\nmodel='b'\ninptu=1\n",
            "[[price]]\nprovider='a'\nmodel='b'\ninput=-1\n",
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = read_own(&path).unwrap_err().to_string();
            assert!(error.contains("prices.toml"), "{error}");
        }
    }
}
