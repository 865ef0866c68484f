//! Results of batches: JSON lines, each with the answer that was asked for earlier.

use serde_json::Value;

use super::anthropic::Counts;
use super::scan::Found;
use super::{Field, Reader, Reading, gemini, openai_chat, openai_responses, state};
use crate::meter::usage::{Tokens, Usage, UsagePart};

/// Adds up the lines by model. How often they are downloaded is the ledger's to know: it counts what
/// the path names once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    parts: Vec<UsagePart>,
}

impl Reader for Batch {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let messages = found.field(Field::ResultUsage).map(|usage| Counts::read(usage).tokens());
        let line = messages.or_else(|| found.field(Field::BodyUsage).map(openai));
        let model = found.text(Field::ResultModel).or_else(|| found.text(Field::BodyModel));
        let Some(tokens) = line else { return };
        match self.parts.iter_mut().find(|part| part.model.as_deref() == model) {
            Some(part) => part.tokens = part.tokens.plus(&tokens),
            None => self.parts.push(UsagePart { model: model.map(str::to_owned), tokens }),
        }
    }

    fn reading(&self) -> Reading {
        let only = match self.parts.as_slice() {
            [one] => one.model.clone(),
            _ => None,
        };
        Reading {
            model: only,
            usage: Usage {
                state: state(!self.parts.is_empty(), true),
                tokens: self.parts.iter().fold(Tokens::default(), |sum, p| sum.plus(&p.tokens)),
                parts: self.parts.clone(),
                tier: Some("batch".to_owned()).filter(|_| !self.parts.is_empty()),
                ..Usage::default()
            },
            deferred: !self.parts.is_empty(),
            ..Reading::default()
        }
    }
}

/// A batch of Gemini's that holds its answers itself, once they are there.
#[derive(Debug, Default)]
pub(super) struct Inline {
    model: Option<String>,
    tokens: Option<Tokens>,
}

impl Reader for Inline {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let model = found.text(Field::InlineModel);
        self.model = model.map(|name| name.trim_start_matches("models/").to_owned());
        // Told in two places, the same in both.
        let sum = |place: Field| {
            let each = found.all(place as usize).filter(|usage| usage.is_object());
            each.map(|usage| gemini::tokens(usage, false)).reduce(|sum, one| sum.plus(&one))
        };
        self.tokens = sum(Field::InlineUsage).or_else(|| sum(Field::DoneUsage));
    }

    fn reading(&self) -> Reading {
        Reading {
            model: self.model.clone(),
            usage: Usage {
                state: state(self.tokens.is_some(), true),
                tokens: self.tokens.unwrap_or_default(),
                tier: self.tokens.map(|_| "batch".to_owned()),
                ..Usage::default()
            },
            deferred: self.tokens.is_some(),
            ..Reading::default()
        }
    }
}

/// A line's body is a chat completion, an embedding or a response.
fn openai(usage: &Value) -> Tokens {
    if usage.get("prompt_tokens").is_some() {
        openai_chat::tokens(usage)
    } else {
        openai_responses::tokens(usage)
    }
}
