//! The price book: `config/prices.json`, looked up by provider, model and time.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde::de::{self, SeqAccess, Visitor};

use super::holidays::Holidays;
use super::money::usd;

const BUILTIN: &str = include_str!("../../../config/prices.json");
/// The format that this code reads.
const SCHEMA: u32 = 1;

/// List prices, immutable once read. Looked up by [`Book::quote`].
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub(super) date: String,
    pub(super) models: Vec<Model>,
    /// By provider, then by name.
    names: HashMap<String, HashMap<String, Name>>,
    /// Those that the book lists; the user's own prices make none.
    providers: Vec<String>,
    /// The last day of which the book knows whether it is a holiday, where a price depends on it.
    holidays_until: Option<Date>,
}

#[derive(Debug, thiserror::Error)]
pub enum BookError {
    #[error("the price book is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the price book has schema {found}, this program reads {SCHEMA}")]
    Schema { found: u32 },
    #[error("the price book names {name} twice")]
    Duplicate { name: String },
    #[error("the price book has no prices for {name}")]
    Unpriced { name: String },
    #[error("the price book has no holidays of {name}")]
    Holidays { name: String },
}

impl Book {
    /// The book that this binary carries, read on first use (a few milliseconds).
    #[must_use]
    pub fn builtin() -> Arc<Self> {
        static BOOK: OnceLock<Arc<Book>> = OnceLock::new();
        // A test parses it; should it be broken all the same, rows are unpriced, not refused.
        Arc::clone(BOOK.get_or_init(|| Arc::new(Self::parse(BUILTIN).unwrap_or_default())))
    }

    /// # Errors
    /// Says what is wrong with the text, by line where it is not JSON of the right shape.
    pub fn parse(text: &str) -> Result<Self, BookError> {
        let mut file: File = serde_json::from_str(text)?;
        if file.schema != SCHEMA {
            return Err(BookError::Schema { found: file.schema });
        }
        let mut book = Self { date: file.book, ..Self::default() };
        let calendars: HashMap<_, _> =
            file.holidays.into_iter().map(|(name, days)| (name, Arc::new(days))).collect();
        book.holidays_until = calendars.values().map(|days| days.until()).min();
        for entry in file.models.iter_mut().flat_map(Model::entries) {
            if let Some(name) = &entry.not_on {
                let calendar = calendars.get(name).cloned();
                let unknown = || BookError::Holidays { name: name.clone() };
                entry.off = Some(calendar.ok_or_else(unknown)?);
            }
        }
        for (index, model) in file.models.iter().enumerate() {
            if model.prices.is_empty() {
                return Err(BookError::Unpriced { name: model.label() });
            }
            if !book.providers.contains(&model.provider) {
                book.providers.push(model.provider.clone());
            }
            let own = [model.id.clone()];
            let names = if model.names.is_empty() { &own[..] } else { &model.names[..] };
            for name in names {
                let snapshots = name.ends_with('*');
                let plain = name.trim_end_matches('*');
                if book.name(&model.provider, plain, Name { model: index, snapshots }).is_some() {
                    return Err(BookError::Duplicate {
                        name: format!("{}/{plain}", model.provider),
                    });
                }
            }
        }
        book.models = file.models;
        Ok(book)
    }

    /// The day that the prices were gathered.
    #[must_use]
    pub fn date(&self) -> &str {
        &self.date
    }

    /// The last day of which it is known whether it is a holiday, where a price depends on it.
    #[must_use]
    pub fn holidays_until(&self) -> Option<Date> {
        self.holidays_until
    }

    /// Whether any model of `provider` has a price.
    #[must_use]
    pub fn knows_provider(&self, provider: &str) -> bool {
        self.providers.iter().any(|p| p == provider)
    }

    /// Whether the book has a price for this model of `provider`.
    #[must_use]
    pub fn knows(&self, provider: &str, model: &str) -> bool {
        self.find(provider, model).is_some()
    }

    /// Whether the user gave this very model a price.
    #[must_use]
    pub fn is_own(&self, provider: &str, model: &str) -> bool {
        let prices = |model: &Model| model.prices.iter().any(|entry| entry.own);
        self.find(provider, model).is_some_and(|found| prices(found.model))
    }

    /// Takes another model in, under its id alone.
    pub(super) fn add(&mut self, model: Model) -> usize {
        let index = self.models.len();
        self.name(&model.provider, &model.id, Name { model: index, snapshots: false });
        self.models.push(Model { names: Vec::new(), ..model });
        index
    }

    /// Returns what had the name before.
    fn name(&mut self, provider: &str, name: &str, of: Name) -> Option<Name> {
        self.names.entry(provider.to_owned()).or_default().insert(name.replace('@', "-"), of)
    }

    /// The model that `name` is, by the exact name or as a dated snapshot of one.
    ///
    /// Nothing looser: tomorrow's `gpt-9-mini` must be unpriced, not sold at the price of `gpt-9`.
    pub(super) fn find(&self, provider: &str, name: &str) -> Option<Found<'_>> {
        let names = self.names.get(provider)?;
        // Vertex sets a snapshot off by `@`.
        let plain = |byte: u8| byte != b'@' && !byte.is_ascii_uppercase();
        let name = match name.bytes().all(plain) {
            true => Cow::Borrowed(name),
            false => Cow::Owned(name.to_ascii_lowercase().replace('@', "-")),
        };
        let name = name.strip_prefix("models/").unwrap_or(&name);
        // Fine-tuned: `ft:gpt-4o-2024-08-06:owner:name:id`.
        let name = match name.strip_prefix("ft:").and_then(|tuned| tuned.find(':')) {
            Some(end) => name.get(.."ft:".len() + end).unwrap_or(name),
            None => name,
        };
        if let Some(known) = names.get(name) {
            return self.models.get(known.model).map(|model| Found { model, guessed: false });
        }
        let base = without_snapshot(provider, name)?;
        let known = names.get(base)?;
        self.models.get(known.model).map(|model| Found { model, guessed: !known.snapshots })
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) model: &'a Model,
    /// A snapshot of a model whose snapshots have had prices of their own.
    pub(super) guessed: bool,
}

/// `name` without `-20260601`, `-2026-06-01`; for Google also `-001`.
fn without_snapshot<'a>(provider: &str, name: &'a str) -> Option<&'a str> {
    let digits = |s: &str, n: usize| s.len() == n && s.bytes().all(|b| b.is_ascii_digit());
    if let Some((base, date)) = name.rsplit_once('-')
        && (digits(date, 8) || (provider == "google" && digits(date, 3)))
    {
        return Some(base);
    }
    let mut parts = name.rsplitn(4, '-');
    let (day, month, year, base) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (digits(day, 2) && digits(month, 2) && digits(year, 4)).then_some(base)
}

#[derive(Clone, Debug)]
struct Name {
    model: usize,
    /// Dated snapshots of this name are the same model, as the source says.
    snapshots: bool,
}

#[derive(Debug, Deserialize)]
struct File {
    schema: u32,
    book: String,
    #[serde(default)]
    holidays: HashMap<String, Holidays>,
    models: Vec<Model>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Model {
    #[serde(rename = "p")]
    pub(super) provider: String,
    #[serde(rename = "m")]
    pub(super) id: String,
    #[serde(default)]
    names: Vec<String>,
    pub(super) prices: Vec<Entry>,
    #[serde(default)]
    pub(super) variants: BTreeMap<String, Vec<Entry>>,
    /// Factors per mille by the region that inference ran in.
    #[serde(default)]
    pub(super) geo: BTreeMap<String, u32>,
}

impl Model {
    fn entries(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.prices.iter_mut().chain(self.variants.values_mut().flatten())
    }

    /// Before the first day that is known, the oldest price of the list is the best there is.
    pub(super) fn listed_first(&self) -> Option<&Entry> {
        first_listed(&self.prices)
    }

    pub(super) fn label(&self) -> String {
        format!("{}/{}", self.provider, self.id)
    }
}

/// Rates that hold from a day on, maybe only at some hours. Short names: the file has thousands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) from: Option<Date>,
    /// The user's, not the list's.
    #[serde(skip)]
    pub(super) own: bool,
    #[serde(default)]
    pub(super) hours: Option<Hours>,
    /// First and last day of the week, Monday = 1.
    #[serde(default)]
    pub(super) days: Option<Days>,
    /// Whose public holidays it does not hold on; and these.
    #[serde(default)]
    pub(super) not_on: Option<String>,
    #[serde(skip)]
    pub(super) off: Option<Arc<Holidays>>,
    #[serde(rename = "in")]
    pub(super) input: Option<Rate>,
    #[serde(rename = "out")]
    pub(super) output: Option<Rate>,
    #[serde(rename = "cr")]
    pub(super) cache_read: Option<Rate>,
    /// Of audio and of images that are read from a cache.
    #[serde(rename = "ca")]
    pub(super) cache_read_audio: Option<Rate>,
    #[serde(rename = "ci")]
    pub(super) cache_read_image: Option<Rate>,
    #[serde(rename = "w5")]
    pub(super) write_5m: Option<Rate>,
    #[serde(rename = "w1")]
    pub(super) write_1h: Option<Rate>,
    #[serde(rename = "w12")]
    pub(super) write_12h: Option<Rate>,
    #[serde(rename = "or")]
    pub(super) reasoning: Option<Rate>,
    #[serde(rename = "ia")]
    pub(super) audio_input: Option<Rate>,
    #[serde(rename = "oa")]
    pub(super) audio_output: Option<Rate>,
    #[serde(rename = "ii")]
    pub(super) image_input: Option<Rate>,
    #[serde(rename = "oi")]
    pub(super) image_output: Option<Rate>,
    /// Nano-dollars for one web search.
    #[serde(rename = "ws")]
    pub(super) web_search: Option<u64>,
    /// Nano-dollars for one of what else is billed by count.
    #[serde(default)]
    pub(super) fees: BTreeMap<String, u64>,
    /// Nano-dollars for the request itself.
    #[serde(rename = "rq")]
    pub(super) request: Option<u64>,
}

/// What the list began with.
pub(super) fn first_listed(entries: &[Entry]) -> Option<&Entry> {
    entries.first().filter(|entry| !entry.own)
}

/// The entry in force: the last one whose conditions hold. Its day is that of the beginning, its hours
/// are those of the end, as `DeepSeek` bills.
pub(super) fn in_force(entries: &[Entry], began: Timestamp, ended: Timestamp) -> Option<&Entry> {
    let day = TimeZone::UTC.to_datetime(began).date();
    let now = TimeZone::UTC.to_datetime(ended);
    let minute = i32::from(now.hour()) * 60 + i32::from(now.minute());
    let weekday = now.weekday().to_monday_one_offset();
    entries.iter().rev().find(|entry| {
        entry.from.is_none_or(|from| day >= from)
            && entry.hours.is_none_or(|hours| hours.contains(minute))
            && entry.days.is_none_or(|Days(first, last)| (first..=last).contains(&weekday))
            && entry.off.as_ref().is_none_or(|off| !off.contains(ended))
    })
}

/// Nano-dollars per million tokens: plain, and over thresholds of the request's whole input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rate {
    base: u64,
    /// Ascending; `None` = nobody says what it costs there.
    steps: Vec<(u64, Option<u64>)>,
}

impl Rate {
    pub(super) fn flat(base: u64) -> Self {
        Self { base, steps: Vec::new() }
    }

    /// Nano-dollars per million tokens, of a short request.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The first threshold of a long one.
    pub(super) fn first_step(&self) -> Option<u64> {
        self.steps.first().map(|(threshold, _)| *threshold)
    }

    /// Whether it is `other`, or the rate of it for a short request, to which no steps are told.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        self.base == other.base && (self.steps.is_empty() || self.steps == other.steps)
    }

    /// Whether both say the same as far as both say something: of a step that is `None` here, nobody did.
    pub(super) fn agrees(&self, said: &Self) -> bool {
        let known: Vec<_> = self.steps.iter().filter(|(_, rate)| rate.is_some()).collect();
        self.base == said.base && known == said.steps.iter().collect::<Vec<_>>()
    }

    /// The rate for a request with `total_input` tokens, and the threshold that was passed.
    pub(super) fn at(&self, total_input: u64) -> (Option<u64>, Option<u64>) {
        match self.steps.iter().rev().find(|(threshold, _)| total_input > *threshold) {
            Some((threshold, rate)) => (*rate, Some(*threshold)),
            None => (Some(self.base), None),
        }
    }
}

/// Dollars per million tokens: `2 (4 above 200000)`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = |nano: u64| usd(i64::try_from(nano).unwrap_or(i64::MAX));
        f.write_str(&dollars(self.base))?;
        for (threshold, rate) in &self.steps {
            let rate = rate.map_or("no price".to_owned(), dollars);
            write!(f, " ({rate} above {threshold})")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;
        impl<'de> Visitor<'de> for RateVisitor {
            type Value = Rate;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate or [rate, threshold, rate, …]")
            }

            fn visit_u64<E: de::Error>(self, base: u64) -> Result<Rate, E> {
                Ok(Rate { base, steps: Vec::new() })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rate, A::Error> {
                let base = seq.next_element()?.ok_or_else(|| de::Error::custom("empty rate"))?;
                let mut steps: Vec<(u64, Option<u64>)> = Vec::new();
                while let Some(threshold) = seq.next_element()? {
                    let rate = seq
                        .next_element::<Option<u64>>()?
                        .ok_or_else(|| de::Error::custom("a threshold without a rate"))?;
                    if steps.last().is_some_and(|(last, _)| *last >= threshold) {
                        return Err(de::Error::custom("thresholds must ascend"));
                    }
                    steps.push((threshold, rate));
                }
                Ok(Rate { base, steps })
            }
        }
        deserializer.deserialize_any(RateVisitor)
    }
}

/// Minutes of the UTC day, from – to; may run over midnight.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hours(i32, i32);

impl Hours {
    fn contains(self, minute: i32) -> bool {
        let Self(start, end) = self;
        if start <= end { (start..end).contains(&minute) } else { minute >= start || minute < end }
    }
}

impl TryFrom<String> for Hours {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let minute = |t: &str| {
            let value: i32 = t.parse().ok()?;
            (t.len() == 4 && value / 100 < 24 && value % 100 < 60)
                .then_some(value / 100 * 60 + value % 100)
        };
        let (start, end) = text.split_once('-').ok_or("hours are written 0100-0400")?;
        Ok(Self(
            minute(start).ok_or("hours are written 0100-0400")?,
            minute(end).ok_or("hours are written 0100-0400")?,
        ))
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Days(i8, i8);

impl TryFrom<String> for Days {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (first, last) = text.split_once('-').ok_or("days are written 1-5")?;
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if 1 <= first && first <= last && last <= 7 => {
                Ok(Self(first, last))
            }
            _ => Err("days are written 1-5"),
        }
    }
}
