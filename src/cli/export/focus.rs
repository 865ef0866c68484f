//! The columns of FOCUS 1.2: a line for each UTC day, project, provider, model and kind of billing.
//!
//! What has no price has no cost here either, never 0; what a plan covers is billed 0 and has its
//! list cost. Columns of our own begin with `x_`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::cli::output::{all_input, csv_text, csv_usd, write_csv};
use crate::meter::row::{Billing, Row};

const COLUMNS: [&str; 31] = [
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
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "SkuId",
    "x_Project",
    "x_Model",
    "x_Requests",
    "x_Unpriced",
    "x_Estimated",
    "x_Billing",
];

pub fn header(out: &mut dyn Write) -> io::Result<()> {
    write_csv(out, &COLUMNS.map(str::to_owned))
}

/// The lines of one day, which is all that is kept: rows come newest first.
#[derive(Default)]
pub struct Focus {
    day: Option<Date>,
    lines: BTreeMap<Key, Sum>,
}

#[derive(Eq, Ord, PartialEq, PartialOrd)]
struct Key {
    project: String,
    provider: String,
    model: String,
    covered: bool,
}

#[derive(Default)]
struct Sum {
    requests: u64,
    unpriced: u64,
    estimated: u64,
    tokens: Option<u64>,
    cost: Option<i64>,
    list: Option<i64>,
}

impl Focus {
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
        };
        self.lines.entry(key).or_default().add(row);
        Ok(())
    }

    pub fn flush(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let lines = std::mem::take(&mut self.lines);
        let Some(day) = self.day else { return Ok(()) };
        lines.iter().try_for_each(|(key, sum)| write_csv(out, &line(day, key, sum)))
    }
}

impl Sum {
    fn add(&mut self, row: &Row) {
        let plus = |sum: &mut Option<i64>, more: Option<i64>| {
            *sum = match (*sum, more) {
                (Some(sum), Some(more)) => Some(sum.saturating_add(more)),
                (sum, more) => sum.or(more),
            };
        };
        self.requests += 1;
        self.estimated += u64::from(row.cost_estimated);
        let used = all_input(&row.tokens).into_iter().chain(row.tokens.output);
        let used = used.reduce(u64::saturating_add);
        self.unpriced += u64::from(row.cost_nanousd.is_none() && used.is_some());
        if let Some(used) = used {
            self.tokens = Some(self.tokens.unwrap_or(0).saturating_add(used));
        }
        plus(&mut self.cost, row.cost_nanousd);
        plus(&mut self.list, row.list_nanousd.or(row.cost_nanousd));
    }
}

fn line(day: Date, key: &Key, sum: &Sum) -> Vec<String> {
    let midnight = |day: Date| format!("{day}T00:00:00Z");
    let month = day.first_of_month();
    let next_month = day.last_of_month().tomorrow().unwrap_or(Date::MAX);
    // A plan pays for what it covers.
    let billed = if key.covered { sum.cost.map(|_| 0) } else { sum.cost };
    let (provider, model) = (csv_text(&key.provider), csv_text(&key.model));
    let tokens = sum.tokens.map(|n| n.to_string()).unwrap_or_default();
    let unit = if sum.tokens.is_some() { "Tokens" } else { "" };
    let priced = if sum.cost.is_some() { (tokens.clone(), unit) } else { (String::new(), "") };
    let [account, currency, nothing] = ["unknown", "USD", ""].map(str::to_owned);
    vec![
        csv_usd(billed),
        account,
        nothing.clone(),
        currency,
        midnight(next_month),
        midnight(month),
        "Usage".to_owned(),
        nothing,
        csv_text(&format!("Requests to {}", key.model)),
        "Usage-Based".to_owned(),
        midnight(day.tomorrow().unwrap_or(Date::MAX)),
        midnight(day),
        tokens,
        unit.to_owned(),
        csv_usd(billed),
        csv_usd(billed),
        provider.clone(),
        csv_usd(sum.list),
        priced.0,
        priced.1.to_owned(),
        provider.clone(),
        provider.clone(),
        "AI and Machine Learning".to_owned(),
        format!("{provider} API"),
        format!("{provider}/{model}"),
        csv_text(&key.project),
        model,
        sum.requests.to_string(),
        sum.unpriced.to_string(),
        sum.estimated.to_string(),
        if key.covered { Billing::Subscription } else { Billing::Metered }.as_str().to_owned(),
    ]
}
