//! Results of batches: JSON lines, each with the answer that was asked for earlier.

use serde_json::Value;

use super::anthropic::Messages;
use super::count::{as_count, plus};
use super::scan::Found;
use super::tools::{self, ToolCalls};
use super::{Field, Reader, Reading, gemini, openai_chat, openai_responses, state};
use crate::meter::usage::{Tokens, Usage, UsagePart};

/// More models in more price steps are in no batch that is one.
const MAX_PARTS: usize = 128;

/// Adds up the lines that are priced alike: each is a request of its own. How often they are downloaded
/// is the ledger's to know: it counts what the path names once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: Vec<UsagePart>,
    /// Lines that were refused before any output: counted if there are no others.
    refused: Vec<UsagePart>,
    tools: ToolCalls,
    /// There were more than [`MAX_PARTS`].
    cut: bool,
    /// The last line has come: only that says how many there are.
    whole: bool,
}

impl Batch {
    fn add(&mut self, part: UsagePart, refused: bool) {
        let parts = if refused { &mut self.refused } else { &mut self.parts };
        part.add_to(parts);
        if parts.len() > MAX_PARTS {
            parts.pop();
            self.cut |= !refused;
        }
    }

    fn parts(&self) -> &[UsagePart] {
        if self.parts.is_empty() { &self.refused } else { &self.parts }
    }

    /// What all parts agree on.
    fn common(&self, of: fn(&UsagePart) -> &Option<String>) -> Option<String> {
        let first = of(self.parts().first()?);
        first.clone().filter(|_| self.parts().iter().all(|part| of(part) == first))
    }
}

impl Reader for Batch {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        if let Some(usage) = found.field(Field::ResultUsage) {
            let model = found.text(Field::ResultModel);
            let line = Messages::of_line(found, usage).reading().usage;
            let whole = UsagePart { tokens: line.tokens, ..UsagePart::default() };
            let parts = if line.parts.is_empty() { vec![whole] } else { line.parts };
            for part in parts {
                let model = part.model.or_else(|| model.map(str::to_owned));
                self.add(UsagePart { model, geo: line.geo.clone(), ..part }, line.refused);
            }
            self.tools.searches = plus(self.tools.searches, line.web_searches);
        } else if let Some(usage) = found.field(Field::BodyUsage) {
            let model = found.text(Field::BodyModel);
            let mut calls = ToolCalls::of(found, &tools::LINE, model, None);
            let tokens = openai(usage, model);
            // Lines have lifetimes of their own, and are added up.
            let half_day = found.text(Field::BodyCacheTtl) == Some("12h");
            let all = tokens.cache_write_other.filter(|_| half_day);
            let own = UsagePart {
                model: model.map(str::to_owned),
                tokens,
                written_12h: openai_responses::written_12h(usage).or(all),
                ..UsagePart::default()
            };
            for part in std::iter::once(own).chain(std::mem::take(&mut calls.parts)) {
                self.add(part, false);
            }
            self.tools.add(calls);
        }
    }

    fn end(&mut self, whole: bool) {
        self.whole = whole;
    }

    fn reading(&self) -> Reading {
        Reading {
            model: self.common(|part| &part.model),
            usage: Usage {
                geo: self.common(|part| &part.geo),
                web_searches: self.tools.searches,
                counts: self.tools.counts.clone(),
                refused: self.parts.is_empty() && !self.refused.is_empty(),
                ..of_parts(self.parts(), self.whole && !self.cut)
            },
            deferred: !self.parts().is_empty(),
            ..Reading::default()
        }
    }
}

/// A batch of Gemini's that holds its answers itself, once they are there.
#[derive(Debug, Default)]
pub(super) struct Inline {
    model: Option<String>,
    parts: Vec<UsagePart>,
    cut: bool,
    whole: bool,
}

impl Reader for Inline {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let model = found.text(Field::InlineModel);
        self.model = model.map(|name| name.trim_start_matches("models/").to_owned());
        // Told in two places, the same in both: where the second has begun, the first is whole.
        let [one, other] = [
            (Field::InlineUsage, [Field::InlineCount, Field::InlineEmbedded]),
            (Field::DoneUsage, [Field::DoneCount, Field::DoneEmbedded]),
        ]
        .map(|(usage, counts)| told(found, usage, counts));
        self.cut = found.is_cut() && (one.is_empty() || other.is_empty());
        self.parts.clear();
        for tokens in if other.len() > one.len() { other } else { one } {
            UsagePart { tokens, ..UsagePart::default() }.add_to(&mut self.parts);
        }
    }

    fn end(&mut self, whole: bool) {
        self.whole = whole;
    }

    fn reading(&self) -> Reading {
        Reading {
            model: self.model.clone(),
            usage: of_parts(&self.parts, self.whole && !self.cut),
            deferred: !self.parts.is_empty(),
            ..Reading::default()
        }
    }
}

/// What each answer of a batch used; that of embeddings says how many tokens went in, and no more.
fn told(found: &Found, usage: Field, counts: [Field; 2]) -> Vec<Tokens> {
    let usage = found.all(usage as usize).filter(|usage| usage.is_object());
    let told: Vec<Tokens> = usage.map(|usage| gemini::tokens(usage, false)).collect();
    if !told.is_empty() {
        return told;
    }
    let counts = counts.into_iter().flat_map(|place| found.all(place as usize));
    let input = counts.filter_map(as_count);
    input.map(|input| Tokens { input: Some(input), ..Tokens::default() }).collect()
}

/// `whole`: nothing had to be left out.
fn of_parts(parts: &[UsagePart], whole: bool) -> Usage {
    Usage {
        state: state(!parts.is_empty(), whole),
        tokens: parts.iter().fold(Tokens::default(), |sum, part| sum.plus(&part.tokens)),
        parts: parts.to_vec(),
        tier: (!parts.is_empty()).then(|| "batch".to_owned()),
        ..Usage::default()
    }
}

/// A line's body is a chat completion, an embedding or a response.
fn openai(usage: &Value, model: Option<&str>) -> Tokens {
    if usage.get("prompt_tokens").is_some() {
        openai_chat::tokens(usage, model)
    } else {
        openai_responses::tokens(usage)
    }
}
