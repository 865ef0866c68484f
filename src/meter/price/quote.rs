//! The arithmetic: tokens by class × the rates in force, rounded once.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::book::{Book, Entry, Model, Rate, first_listed, in_force};
use super::charges::charges;
use super::items::Item;
use super::money::{SCALE, round_half_up};
use crate::meter::usage::{Tokens, Usage, UsagePart, UsageState, is_plain};

/// What is to be priced.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub provider: &'a str,
    pub model: &'a str,
    pub at: Timestamp,
    /// The hour counts in which it was answered.
    pub ended: Timestamp,
    pub usage: &'a Usage,
}

/// The price, or why there is none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Quote {
    pub cost_nanousd: Option<i64>,
    /// Book, model, since when, variant, long-context step: `2026-11-24:openai/gpt-6-astra+flex>272000`.
    pub rule: Option<String>,
    pub estimated: bool,
    /// Why there is no cost, or why it is an estimate.
    pub reason: Option<String>,
}

impl Book {
    /// The list price of `query.usage` at `query.at`.
    ///
    /// A tier or speed that has no price gives no cost, never the plain price. What had to be assumed
    /// makes the quote an estimate and is named in its reason.
    #[must_use]
    pub fn quote(&self, query: &Query<'_>) -> Quote {
        self.itemised(query).0
    }

    /// The same, and what it is made of.
    #[must_use]
    pub fn itemised(&self, query: &Query<'_>) -> (Quote, Vec<Item>) {
        match self.total(query) {
            Ok(priced) => priced,
            Err(reason) => (Quote { reason: Some(reason), ..Quote::default() }, Vec::new()),
        }
    }

    fn total(&self, query: &Query<'_>) -> Result<(Quote, Vec<Item>), String> {
        let usage = query.usage;
        let untold = usage.state == UsageState::Absent && usage.caveat.is_none();
        if untold || no_counts(usage) {
            return Err("the response carried no usage".to_owned());
        }
        if !self.knows_provider(query.provider) && !self.knows(query.provider, query.model) {
            return Err(format!("no prices for provider {}", query.provider));
        }
        let variant = variant(usage)?;
        let mut notes = Vec::new();
        if usage.state == UsageState::Partial {
            notes.push("only a part of the usage is known".to_owned());
        }
        let mut sum = Sum::default();
        let whole = [UsagePart {
            tokens: usage.tokens,
            cached: usage.cached,
            written_12h: usage.written_12h,
            ..UsagePart::default()
        }];
        let parts = if usage.parts.is_empty() { &whole[..] } else { &usage.parts[..] };
        let mut rules: Vec<String> = Vec::new();
        let asked = self.find(query.provider, query.model);
        let mut first = None;
        for part in parts {
            let name = part.model.as_deref().unwrap_or(query.model);
            let found = if name == query.model { asked } else { self.find(query.provider, name) };
            let found = found.ok_or_else(|| format!("model {name} is not in the price book"))?;
            if found.guessed {
                notes.push(format!("{name} is taken for a snapshot of {}", found.model.id));
            }
            let rates = match Rates::resolve(found.model, variant, query) {
                // The speed was asked of the message's model, not of another that advises it.
                Err(why)
                    if name != query.model && is_plain(usage.tier.as_deref().unwrap_or("")) =>
                {
                    notes.push(format!("{why}: its plain price is used"));
                    Rates::resolve(found.model, None, query)?
                }
                told => told?,
            };
            notes.extend(rates.doubt(query).map(str::to_owned));
            let step = sum.add(&rates, part, usage, &mut notes)?;
            if step.is_some() && may_be_turns(&rates, usage) {
                notes.push(
                    "its input may be that of several turns, none of them above the price step"
                        .to_owned(),
                );
            }
            let rule = rates.rule(step);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
            first = first.or(Some(found));
        }
        // Fees by count are the exchange's, at the rate of the model that was asked; a batch asks none.
        if let Some(found) = asked.or(first) {
            let rates = Rates::resolve(found.model, variant, query)?;
            sum.add_fees(&rates, usage, &mut notes);
        }
        if usage.tokens == Tokens::default() && sum.scaled == Some(0) && !notes.is_empty() {
            // All that was used is what has no price.
            return Err(notes.join("; "));
        }
        if sum.scaled == Some(0)
            && let Some(found) = asked.or(first)
            && let Some(name) = Rates::resolve(found.model, variant, query)?.untold_fee(usage)
        {
            return Err(format!("no count of {}", name.replace('_', " ")));
        }
        let cost = sum.scaled.ok_or("the cost is out of range")?;
        let cost = round_half_up(cost).ok_or("the cost is out of range")?;
        let mut told = BTreeSet::new();
        notes.retain(|note| told.insert(note.clone()));
        let quote = Quote {
            cost_nanousd: Some(cost),
            rule: Some(format!("{}:{}", self.date, rules.join(","))),
            estimated: !notes.is_empty(),
            reason: (!notes.is_empty()).then(|| notes.join("; ")),
        };
        Ok((quote, sum.items))
    }
}

/// Claude's figures add up all turns between its searches. Where the turns are not told, how long each
/// was is not known.
fn may_be_turns(rates: &Rates<'_>, usage: &Usage) -> bool {
    usage.parts.is_empty()
        && usage.web_searches.is_some_and(|searches| searches > 0)
        && rates.model.id.contains("claude")
}

/// What is billed so is not billed by the token, though the list may have that too.
const CHARACTERS: &str = "characters";
/// The fee for a request that searched as little as one can.
const SMALLEST: &str = "requests_low";

fn no_counts(usage: &Usage) -> bool {
    usage.tokens == Tokens::default()
        && usage.parts.is_empty()
        && usage.web_searches.is_none()
        && usage.counts.is_empty()
}

/// The price variant that the response's tier and speed ask for.
fn variant(usage: &Usage) -> Result<Option<&str>, String> {
    let named = |value: &'_ Option<String>| value.as_deref().is_some_and(|word| !is_plain(word));
    match (named(&usage.tier), named(&usage.speed)) {
        (false, false) => Ok(None),
        (true, false) => Ok(usage.tier.as_deref()),
        (false, true) => Ok(usage.speed.as_deref()),
        (true, true) => Err(format!(
            "no price for tier {} at speed {}",
            usage.tier.as_deref().unwrap_or_default(),
            usage.speed.as_deref().unwrap_or_default(),
        )),
    }
}

/// One model's rates at one moment.
pub(super) struct Rates<'a> {
    model: &'a Model,
    plain: &'a Entry,
    variant: Option<(&'a str, &'a Entry)>,
}

impl<'a> Rates<'a> {
    fn resolve(
        model: &'a Model,
        variant: Option<&'a str>,
        &Query { at, ended, .. }: &Query<'_>,
    ) -> Result<Self, String> {
        let plain = in_force(&model.prices, at, ended)
            .or(model.listed_first())
            .ok_or_else(|| format!("no price for {} at that time", model.id))?;
        let Some(name) = variant else { return Ok(Self { model, plain, variant: None }) };
        let lower = name.to_ascii_lowercase();
        let entry = model
            .variants
            .get(&lower)
            .and_then(|entries| in_force(entries, at, ended).or(first_listed(entries)))
            .filter(|entry| entry.input.is_some() || entry.output.is_some())
            .ok_or_else(|| format!("no price for tier {lower} of {}", model.id))?;
        Ok(Self { model, plain, variant: Some((name, entry)) })
    }

    /// The rate of a class; the flag says that the variant does not name it, so the plain one is used.
    pub(super) fn get(&self, class: fn(&Entry) -> Option<&Rate>) -> (Option<&'a Rate>, bool) {
        let plain = class(self.plain);
        match self.variant {
            None => (plain, false),
            Some((_, entry)) => match class(entry) {
                Some(rate) => (Some(rate), false),
                None => (plain, plain.is_some()),
            },
        }
    }

    /// The same for caches: batch price lists leave out what of these is not discounted.
    pub(super) fn of_cache(&self, class: fn(&Entry) -> Option<&Rate>) -> (Option<&'a Rate>, bool) {
        let (rate, plain) = self.get(class);
        let batch = self.variant.is_some_and(|(name, _)| name.eq_ignore_ascii_case("batch"));
        (rate, plain && !batch)
    }

    /// The rate of input that is no text: that of text where both are the same, and where there is none
    /// if it is billed `as_text` then, as images are.
    pub(super) fn beside_text(
        &self,
        class: fn(&Entry) -> Option<&Rate>,
        as_text: bool,
    ) -> (Option<&'a Rate>, bool) {
        let own = self.get(class);
        let entry = if own.1 { self.plain } else { self.entry() };
        let alike = match (own.0, &entry.input) {
            (Some(own), Some(text)) => own.is_of(text),
            (None, _) => as_text,
            (Some(_), None) => false,
        };
        if alike { (self.get(|e| e.input.as_ref()).0, false) } else { own }
    }

    fn entry(&self) -> &'a Entry {
        self.variant.map_or(self.plain, |(_, entry)| entry)
    }

    /// What is not known of the time at which these hold.
    fn doubt(&self, &Query { at, ended, .. }: &Query<'_>) -> Option<&'static str> {
        let day = TimeZone::UTC.to_datetime(at).date();
        if self.variant.is_some_and(|(_, entry)| entry.from.is_some_and(|from| day < from)) {
            return Some("the tier's price of a later day");
        }
        let calendar = self.entry().off.as_ref().filter(|calendar| !calendar.knows(ended));
        calendar.map(|_| "the public holidays of that day are not known: priced as a working day")
    }

    /// The model is billed by what was counted (seconds of audio); its tokens are told and cost nothing. So
    /// it is where both have a price, and the characters were told.
    fn only_count(&self, usage: &Usage) -> bool {
        let Entry { input, output, .. } = self.plain;
        let by_count = input.is_none() && output.is_none();
        usage.counts.iter().any(|(name, count)| {
            *count > 0 && self.fee(name).is_some() && (by_count || name == CHARACTERS)
        })
    }

    /// What the list bills this model by and the answer did not count: its tokens are listed at nothing,
    /// which is no price of the request.
    fn untold_fee(&self, usage: &Usage) -> Option<&'a str> {
        let Entry { input, output, fees, own, .. } = self.plain;
        let free = |rate: &Option<Rate>| rate.as_ref().is_none_or(|rate| *rate == Rate::flat(0));
        let told = || usage.counts.keys().any(|name| self.fee(name).is_some());
        let by_count = !own && free(input) && free(output) && !told();
        by_count.then(|| fees.keys().next()).flatten().map(String::as_str)
    }

    /// For one of what is billed by count, in [`SCALE`]ths of a nano-dollar.
    fn fee(&self, name: &str) -> Option<i128> {
        let Entry { fees, web_search, .. } = self.plain;
        let (fee, parts) = match (fees.get(name), name) {
            (Some(fee), _) => (*fee, 1),
            (None, "audio_milliseconds") => (*fees.get("audio_seconds")?, 1000),
            // Only where the list has a fee of its own is it another.
            (None, "preview_searches") => ((*web_search)?, 1),
            (None, _) => return None,
        };
        Some(i128::from(fee).checked_mul(SCALE)? / parts)
    }

    fn rule(&self, step: Option<u64>) -> String {
        let mut rule = self.model.label();
        let entry = self.entry();
        if let Some(from) = entry.from {
            rule += &format!("@{from}");
        }
        if let Some((name, _)) = self.variant {
            rule += &format!("+{}", name.to_ascii_lowercase());
        }
        if entry.own {
            rule += "+own";
        }
        if entry.hours.is_some() {
            rule += "+peak";
        }
        if let Some(threshold) = step {
            rule += &format!(">{threshold}");
        }
        rule
    }
}

/// `Σ units × rate × factor`, exact; `None` once it is out of range.
struct Sum {
    scaled: Option<i128>,
    items: Vec<Item>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { scaled: Some(0), items: Vec::new() }
    }
}

impl Sum {
    /// Adds a part of the request; returns the long-context threshold that it passed, if any.
    fn add(
        &mut self,
        rates: &Rates<'_>,
        part: &UsagePart,
        usage: &Usage,
        notes: &mut Vec<String>,
    ) -> Result<Option<u64>, String> {
        if rates.only_count(usage) {
            return Ok(None);
        }
        let total_input = part.total_input();
        let geo = part.geo.as_ref().or(usage.geo.as_ref());
        // Who enters a price of his own enters what he pays, wherever that is.
        let factor = factor(rates.model, geo.filter(|_| !rates.entry().own), notes);
        let mut passed = None;
        for charge in charges(rates, part, usage) {
            if charge.tokens == 0 {
                continue;
            }
            let Some(rate) = charge.rate else {
                let kind = charge.kind.replace('_', " ");
                return Err(format!("no rate for {kind} of {}", rates.model.id));
            };
            let (nano, step) = rate.at(total_input);
            passed = passed.max(step);
            let nano = nano.ok_or_else(|| {
                format!(
                    "no price above {} input tokens for this tier of {}",
                    step.unwrap_or_default(),
                    rates.model.id
                )
            })?;
            if let Some(assumed) = charge.assumed {
                notes.push(assumed.to_owned());
            }
            self.plus(charge.kind, charge.tokens, i128::from(nano).checked_mul(factor));
        }
        Ok(passed)
    }

    fn add_fees(&mut self, rates: &Rates<'_>, usage: &Usage, notes: &mut Vec<String>) {
        let each = |fee: u64| i128::from(fee).checked_mul(SCALE);
        if let Some(fee) = rates.plain.request {
            self.plus("request", 1, each(fee));
        }
        let sized = |name: &String| name.starts_with("requests_");
        if let Some(fee) =
            rates.plain.fees.get(SMALLEST).filter(|_| !usage.counts.keys().any(sized))
        {
            notes.push(
                "how much it searched is not told: the smallest fee for a request".to_owned(),
            );
            self.plus(SMALLEST, 1, each(*fee));
        }
        let [read, annotated] = ["pages", "annotated_pages"].map(|name| usage.counts.get(name));
        if read.is_some_and(|n| *n > 0) && annotated.is_some() {
            notes.push(
                "pages that were annotated are taken to be billed for their reading too".to_owned(),
            );
        }
        let by_token = usage.tokens != Tokens::default() && !rates.only_count(usage);
        if rates.plain.fees.contains_key(CHARACTERS) && by_token {
            notes.push(
                "billed by the character, which was not told: priced by the token".to_owned(),
            );
        }
        let searches = usage.web_searches.unwrap_or(0);
        let mapped = usage.counts.contains_key("maps_queries");
        let googles = matches!(rates.model.provider.as_str(), "google" | "vertex")
            && !rates.model.id.contains("claude");
        if (searches > 0 || mapped) && googles {
            notes.push("a free allowance of searches is not deducted".to_owned());
        }
        match rates.plain.web_search {
            Some(fee) => self.plus("web_searches", searches, each(fee)),
            None if searches > 0 => notes.push("no price for web searches".to_owned()),
            None => {}
        }
        for (name, count) in usage.counts.iter().filter(|(_, count)| **count > 0) {
            match rates.fee(name) {
                Some(fee) => self.plus(name, *count, Some(fee)),
                None => notes.push(format!("no price for {}", name.replace('_', " "))),
            }
        }
    }

    /// So many of a kind, each at `rate`.
    fn plus(&mut self, kind: &str, quantity: u64, rate: Option<i128>) {
        let amount = rate.and_then(|rate| i128::from(quantity).checked_mul(rate));
        self.scaled = self.scaled.zip(amount).and_then(|(sum, amount)| sum.checked_add(amount));
        if let Some(rate) = rate.filter(|_| quantity > 0) {
            self.items.push(Item { kind: kind.to_owned(), quantity, rate });
        }
    }
}

/// Per mille, by where inference ran.
fn factor(model: &Model, geo: Option<&String>, notes: &mut Vec<String>) -> i128 {
    let Some(geo) = geo else { return 1000 };
    match model.geo.get(&geo.to_ascii_lowercase()) {
        Some(factor) => i128::from(*factor),
        None => {
            notes.push(format!("no regional price for {geo}"));
            1000
        }
    }
}
