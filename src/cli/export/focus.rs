//! The columns of FOCUS 1.2: a line for each UTC day, project, provider, model, kind of token and price.
//!
//! What has no price has no cost here either, never 0; what a plan covers is billed 0 and has its
//! list cost. Columns of our own begin with `x_`. The costs of a row's lines add up to the row's, to
//! the nano-dollar, whoever named it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::split::{Part, split};
use crate::cli::output::{csv_count, csv_text, csv_usd, write_csv};
use crate::meter::price::Book;
use crate::meter::row::{Billing, Row};

const COLUMNS: [&str; 35] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "SkuMeter",
    "x_Project",
    "x_Model",
    "x_TokenType",
    "x_Tier",
    "x_Requests",
    "x_Unpriced",
    "x_Estimated",
    "x_Billing",
];

pub fn header(out: &mut dyn Write) -> io::Result<()> {
    write_csv(out, &COLUMNS.map(str::to_owned))
}

/// The lines of one day, which is all that is kept: rows come newest first.
pub struct Focus {
    /// What costs are split by.
    book: Book,
    day: Option<Date>,
    lines: BTreeMap<Key, Sum>,
}

#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    project: String,
    provider: String,
    model: String,
    covered: bool,
    tier: String,
    kind: String,
    /// Dollars for one, by the list.
    unit_price: Option<String>,
    priced: bool,
}

#[derive(Default)]
struct Sum {
    requests: u64,
    unpriced: u64,
    estimated: u64,
    quantity: Option<u64>,
    cost: Option<i64>,
    list: Option<i64>,
}

impl Focus {
    pub fn new(book: Book) -> Self {
        Self { book, day: None, lines: BTreeMap::new() }
    }

    pub fn row(&mut self, row: &Row, out: &mut dyn Write) -> io::Result<()> {
        let day = row.started_at.to_zoned_datetime(TimeZone::UTC).date();
        if self.day != Some(day) {
            self.flush(out)?;
            self.day = Some(day);
        }
        let key = Key {
            project: row.project.clone().unwrap_or_default(),
            provider: row.provider.clone(),
            model: row.model.clone().or(row.model_requested.clone()).unwrap_or_default(),
            covered: row.billing == Billing::Subscription,
            tier: row.tier.clone().or(row.speed.clone()).unwrap_or_default(),
            kind: String::new(),
            unit_price: None,
            priced: row.cost_nanousd.is_some(),
        };
        for part in split(row, &self.book) {
            let key =
                Key { kind: part.kind.clone(), unit_price: part.unit_price.clone(), ..key.clone() };
            self.lines.entry(key).or_default().add(&part, row);
        }
        Ok(())
    }

    pub fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        let Some(day) = self.day else { return Ok(()) };
        lines.iter().try_for_each(|(key, sum)| write_csv(out, &line(day, key, sum)))
    }
}

impl Sum {
    fn add(&mut self, part: &Part, row: &Row) {
        self.requests += 1;
        self.estimated += u64::from(row.cost_estimated);
        self.unpriced += u64::from(row.cost_nanousd.is_none() && part.quantity.is_some());
        plus(&mut self.quantity, part.quantity, u64::saturating_add);
        plus(&mut self.cost, part.cost, i64::saturating_add);
        plus(&mut self.list, part.list, i64::saturating_add);
    }
}

fn plus<N: Copy>(sum: &mut Option<N>, more: Option<N>, add: fn(N, N) -> N) {
    *sum = match (*sum, more) {
        (Some(sum), Some(more)) => Some(add(sum, more)),
        (sum, more) => sum.or(more),
    };
}

fn line(day: Date, key: &Key, sum: &Sum) -> Vec<String> {
    let midnight = |day: Date| format!("{day}T00:00:00Z");
    let month = day.first_of_month();
    let next_month = day.last_of_month().tomorrow().unwrap_or(Date::MAX);
    // A plan pays for what it covers.
    let billed = if key.covered { sum.cost.map(|_| 0) } else { sum.cost };
    let (provider, model) = (csv_text(&key.provider), csv_text(&key.model));
    let sku = format!("{provider}/{model}/{}", key.kind);
    let unit = sum.quantity.map(|_| unit(&key.kind).to_owned()).unwrap_or_default();
    let priced = sum.quantity.filter(|_| key.priced);
    let priced_unit = if priced.is_some() { unit.clone() } else { String::new() };
    let [account, currency, nothing] = ["unknown", "USD", ""].map(str::to_owned);
    let kind = key.kind.replace('_', " ");
    vec![
        csv_usd(billed),
        account,
        nothing.clone(),
        currency,
        midnight(next_month),
        midnight(month),
        "Usage".to_owned(),
        nothing,
        csv_text(format!("Requests to {} {kind}", key.model).trim_end()),
        "Usage-Based".to_owned(),
        midnight(day.tomorrow().unwrap_or(Date::MAX)),
        midnight(day),
        csv_count(sum.quantity),
        unit,
        csv_usd(billed),
        csv_usd(billed),
        provider.clone(),
        csv_usd(sum.list),
        key.unit_price.clone().unwrap_or_default(),
        csv_count(priced),
        priced_unit,
        provider.clone(),
        provider.clone(),
        "AI and Machine Learning".to_owned(),
        format!("{provider} API"),
        sku,
        csv_text(&key.kind),
        csv_text(&key.project),
        model,
        csv_text(&key.kind),
        csv_text(&key.tier),
        sum.requests.to_string(),
        sum.unpriced.to_string(),
        sum.estimated.to_string(),
        if key.covered { Billing::Subscription } else { Billing::Metered }.as_str().to_owned(),
    ]
}

/// What is counted of a kind.
fn unit(kind: &str) -> &'static str {
    let of_tokens = ["input", "output", "cache_", "reasoning", "tokens"];
    match kind {
        "request" => "Requests",
        "web_searches" | "file_searches" | "preview_searches" | "searches" => "Searches",
        "audio_seconds" | "prompt_audio_seconds" => "Seconds",
        "audio_milliseconds" => "Milliseconds",
        "characters" => "Characters",
        "pages" | "annotated_pages" => "Pages",
        kind if kind.starts_with("video_seconds_") => "Seconds",
        kind if kind.starts_with("requests_") => "Requests",
        kind if of_tokens.iter().any(|part| kind.contains(part)) => "Tokens",
        _ => "Units",
    }
}
