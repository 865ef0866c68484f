//! What the sources of the list say, compared with each other and with the list.
//!
//! The data is for `pricing check` alone: the daemon never reads it, so that its pages stay on disk.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::book::{Book, Entry, Rate, in_force};

const SOURCES: &str = include_str!("../../../config/price-sources.json");
const EXPLAINED: &str = include_str!("../../../config/price-differences.json");

/// The outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// On which day they said so.
    pub day: Date,
    pub sources: Vec<String>,
    pub providers: BTreeSet<String>,
    /// How many figures of theirs were compared.
    pub rates: usize,
    pub differences: Vec<Difference>,
    /// Explanations to which no difference belongs any more.
    pub stale_explanations: Vec<String>,
}

/// A rate of which not all say the same.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// `provider/model`.
    pub model: String,
    pub tier: Option<String>,
    pub rate: &'static str,
    /// Dollars per million tokens; none: the list does not have it.
    pub list: Option<String>,
    pub says: BTreeMap<String, String>,
    /// Why they differ; none: nobody knows.
    pub explanation: Option<String>,
}

/// Why the data can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    #[error("the sources of the price list can't be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the explanations of differences can't be read: {0}")]
    Pattern(#[from] regex::Error),
}

impl Comparison {
    /// Compares the sources that this binary carries with `list`.
    ///
    /// # Errors
    /// Says what is wrong with the data, which the tests read too.
    pub fn builtin(list: &Book) -> Result<Self, SourcesError> {
        Self::of(list, SOURCES, EXPLAINED)
    }

    fn of(list: &Book, sources: &str, explained: &str) -> Result<Self, SourcesError> {
        let file: File = serde_json::from_str(sources)?;
        let mut reasons = Reasons::parse(explained)?;
        let mut found = Self {
            day: file.day,
            sources: file.sources.values().cloned().collect(),
            providers: BTreeSet::new(),
            rates: 0,
            differences: Vec::new(),
            stale_explanations: Vec::new(),
        };
        for line in &file.models {
            found.providers.insert(line.provider.clone());
            for name in &line.names {
                found.compare(list, &file, line, name, &mut reasons);
            }
        }
        found.stale_explanations = reasons.unused();
        Ok(found)
    }

    fn compare(
        &mut self,
        list: &Book,
        file: &File,
        line: &Line,
        name: &str,
        reasons: &mut Reasons,
    ) {
        let noon = TimeZone::UTC.to_timestamp(file.day.at(12, 0, 0, 0));
        let at = noon.unwrap_or(Timestamp::MIN);
        let tiers: BTreeSet<&String> = line.says.values().flat_map(BTreeMap::keys).collect();
        for tier in tiers {
            let listed = listed(list, &line.provider, name, tier, at);
            for (rate, of) in RATES {
                let said: BTreeMap<&str, &Rate> = line
                    .says
                    .iter()
                    .filter_map(|(source, tiers)| {
                        let label = file.sources.get(source).map_or("", |label| short(label));
                        Some((label, of(tiers.get(tier)?)?))
                    })
                    .collect();
                self.rates += said.len();
                let listed = listed.and_then(of);
                let model = format!("{}/{name}", line.provider);
                let place = match tier.as_str() {
                    "" => format!("{model} {rate}"),
                    tier => format!("{model}+{tier} {rate}"),
                };
                let explanations: Vec<Option<String>> = odd_ones(listed, &said)
                    .map(|odd| reasons.of(&format!("{place} {odd}")))
                    .collect();
                if explanations.is_empty() {
                    continue;
                }
                // One that nobody explains is not explained by what another one's is.
                let explanation = explanations.into_iter().collect::<Option<BTreeSet<String>>>();
                self.differences.push(Difference {
                    model,
                    tier: Some(tier.clone()).filter(|tier| !tier.is_empty()),
                    rate,
                    list: listed.map(ToString::to_string),
                    says: said.iter().map(|(s, r)| ((*s).to_owned(), r.to_string())).collect(),
                    explanation: explanation
                        .map(|all| all.into_iter().collect::<Vec<_>>().join("; ")),
                });
            }
        }
    }

    pub fn unexplained(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(|difference| difference.explanation.is_none())
    }

    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.unexplained().next().is_none() && self.stale_explanations.is_empty()
    }
}

impl Difference {
    /// Who says what, in a line.
    #[must_use]
    pub fn place(&self) -> String {
        let tier = self.tier.as_ref().map(|tier| format!("+{tier}")).unwrap_or_default();
        format!("{}{tier} {}", self.model, self.rate)
    }
}

/// Who differs from the list, by name; `SOURCE list`: the list has nothing there.
fn odd_ones<'a>(
    listed: Option<&'a Rate>,
    said: &'a BTreeMap<&str, &Rate>,
) -> impl Iterator<Item = String> + 'a {
    // 0 is no price, unless the list has another: free experiments, the output of embeddings.
    let said = said.iter().filter(move |(_, rate)| listed.is_some() || rate.base() > 0);
    said.filter(move |(_, rate)| listed.is_none_or(|listed| !listed.agrees(rate))).map(
        move |(source, _)| {
            if listed.is_none() { format!("{source} list") } else { (*source).to_owned() }
        },
    )
}

type RateOf = fn(&Entry) -> Option<&Rate>;

const RATES: [(&str, RateOf); 12] = [
    ("input", |e| e.input.as_ref()),
    ("output", |e| e.output.as_ref()),
    ("cache_read", |e| e.cache_read.as_ref()),
    ("cache_write_5m", |e| e.write_5m.as_ref()),
    ("cache_write_1h", |e| e.write_1h.as_ref()),
    ("cache_write_12h", |e| e.write_12h.as_ref()),
    ("audio_input", |e| e.audio_input.as_ref()),
    ("audio_output", |e| e.audio_output.as_ref()),
    ("image_input", |e| e.image_input.as_ref()),
    ("image_output", |e| e.image_output.as_ref()),
    ("cache_read_audio", |e| e.cache_read_audio.as_ref()),
    ("cache_read_image", |e| e.cache_read_image.as_ref()),
];

fn listed<'a>(
    list: &'a Book,
    provider: &str,
    name: &str,
    tier: &str,
    at: Timestamp,
) -> Option<&'a Entry> {
    let model = list.find(provider, name)?.model;
    match tier {
        "" => in_force(&model.prices, at, at).or(model.listed_first()),
        tier => in_force(model.variants.get(tier)?, at, at),
    }
}

/// `litellm 1.109.1 (2026-11)` → `litellm`.
fn short(label: &str) -> &str {
    label.split(' ').next().unwrap_or(label)
}

struct Reasons(Vec<Reason>);

struct Reason {
    whole: Regex,
    pattern: String,
    why: String,
    used: bool,
}

impl Reasons {
    fn parse(text: &str) -> Result<Self, SourcesError> {
        let all: BTreeMap<String, String> = serde_json::from_str(text)?;
        let each = all.into_iter().map(|(pattern, why)| {
            let whole = Regex::new(&format!("^(?:{pattern})$"))?;
            Ok(Reason { whole, pattern, why, used: false })
        });
        each.collect::<Result<_, SourcesError>>().map(Self)
    }

    fn of(&mut self, difference: &str) -> Option<String> {
        let reason = self.0.iter_mut().find(|reason| reason.whole.is_match(difference))?;
        reason.used = true;
        Some(reason.why.clone())
    }

    fn unused(self) -> Vec<String> {
        self.0.into_iter().filter(|reason| !reason.used).map(|reason| reason.pattern).collect()
    }
}

#[derive(Deserialize)]
struct File {
    day: Date,
    /// By the letter that stands for it.
    sources: BTreeMap<String, String>,
    models: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "p")]
    provider: String,
    /// Of which everybody says the same.
    names: Vec<String>,
    /// Source → tier → rates; the plain tier is `""`.
    says: BTreeMap<String, BTreeMap<String, Entry>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"schema":1,"book":"2026-11-24","models":[
        {"p":"x","m":"m","names":["m*"],"prices":[{"in":1000000000,"out":[2000000000,200000,4000000000]}],
         "variants":{"batch":[{"in":[500000000,200000,null]}]}}]}"#;

    fn compared(models: &str, explained: &str) -> Comparison {
        let sources = format!(
            r#"{{"schema":1,"day":"2026-11-24","sources":{{"a":"first 1 (2026-11)","b":"second 2 (2026-11)"}},
                "models":[{models}]}}"#
        );
        Comparison::of(&Book::parse(LIST).unwrap(), &sources, explained).unwrap()
    }

    #[test]
    fn no_difference_of_the_shipped_data_is_unexplained() {
        let found = Comparison::builtin(&Book::builtin()).unwrap();
        let open: Vec<String> = found
            .unexplained()
            .map(|d| format!("{}: {:?} {:?}", d.place(), d.list, d.says))
            .collect();
        assert!(open.is_empty(), "{}", open.join("\n"));
        assert_eq!(found.stale_explanations, [""; 0]);
        assert!(found.rates > 4000, "{}", found.rates);
        let providers: Vec<&str> = found.providers.iter().map(String::as_str).collect();
        assert_eq!(providers, ["anthropic", "google", "mistral", "openai", "xai"]);
        assert_eq!(found.day.to_string(), Book::builtin().date());
    }

    #[test]
    fn what_agrees_is_no_difference() {
        let found = compared(
            r#"{"p":"x","names":["m","m-20260101"],"says":{
                "a":{"":{"in":1000000000,"out":[2000000000,200000,4000000000]}},
                "b":{"":{"in":1000000000},"batch":{"in":500000000}}}}"#,
            "{}",
        );
        assert_eq!((found.rates, found.differences.len(), found.is_sound()), (8, 0, true));
    }

    #[test]
    fn each_who_differs_needs_an_explanation() {
        let line = r#"{"p":"x","names":["m"],"says":{
            "a":{"":{"in":1500000000}},"b":{"":{"in":1600000000,"out":2000000000}}}}"#;
        let found = compared(line, r#"{"x/m input first":"why", "x/m output":"a step"}"#);
        let [input, output] = &found.differences[..] else { panic!("{found:?}") };
        assert_eq!((input.place(), &input.explanation), ("x/m input".to_owned(), &None));
        assert_eq!(input.says["second"], "1.6");
        assert_eq!(output.list.as_deref(), Some("2 (4 above 200000)"));
        assert_eq!(output.explanation.as_deref(), None, "a pattern is for all of it");
        let all = r#"{"x/m input first":"why","x/m (in|out)put second":"and why","x/n .*":"old"}"#;
        let found = compared(line, all);
        assert_eq!(found.differences[0].explanation.as_deref(), Some("and why; why"));
        assert_eq!(found.unexplained().count(), 0);
        assert_eq!(
            (found.stale_explanations.as_slice(), found.is_sound()),
            (&["x/n .*".to_owned()][..], false)
        );
    }

    #[test]
    fn what_the_list_lacks_is_a_difference_unless_it_is_free() {
        let found = compared(
            r#"{"p":"x","names":["new"],"says":{"a":{"":{"in":1,"out":0}},"b":{"fast":{"in":7000000000}}}}"#,
            r#"{"x/new input first list":"too new"}"#,
        );
        let places: Vec<_> =
            found.differences.iter().map(|d| (d.place(), d.explanation.is_some())).collect();
        assert_eq!(
            places,
            [("x/new input".to_owned(), true), ("x/new+fast input".to_owned(), false)]
        );
    }
}
