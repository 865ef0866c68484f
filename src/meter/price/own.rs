//! The user's own prices: what a contract says, from a day on. They stand in `prices.toml` of the
//! home directory and go before the book's.

use std::path::Path;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use super::book::{Book, Entry, Model, Rate};
use super::dollars::Dollars;
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
            if let Some(dollars) = own {
                *slot = Some(Rate::flat(dollars.nano()));
            }
        }
        entry.web_search = self.web_search.map(Dollars::nano).or(entry.web_search);
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

#[cfg(test)]
mod tests;
