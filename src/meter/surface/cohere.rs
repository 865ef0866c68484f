//! Cohere: what is billed is `billed_units`, which may be floats.

use serde_json::Value;

use super::count::{count, plus};
use super::error::in_stream;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage};

/// What is billed and is no token.
const COUNTED: [&str; 3] = ["search_units", "classifications", "images"];

/// v2 (`usage`, `delta.usage`), v1 (`meta`, `response.meta`).
#[derive(Debug, Default)]
pub(super) struct Cohere {
    id: Option<String>,
    billed: Option<Value>,
    error: Option<&'static str>,
}

impl Reader for Cohere {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        keep(&mut self.id, found.text(Field::Id));
        let places = [Field::Usage, Field::DeltaUsage, Field::Meta, Field::ResponseMeta];
        let billed = places
            .into_iter()
            .filter_map(|place| found.field(place)?.get("billed_units"))
            .find(|billed| billed.is_object());
        if let Some(billed) = billed {
            self.billed = Some(billed.clone());
        }
        let finish = found.text(Field::DeltaFinish).or_else(|| found.text(Field::FinishReason));
        self.error = match finish {
            Some("TIMEOUT") => Some("timeout"),
            Some(reason) if reason.starts_with("ERROR") => Some("in_stream"),
            Some(_) | None => self.error,
        };
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn reading(&self) -> Reading {
        let field = |name| count(self.billed.as_ref()?, &[name]);
        let counted = COUNTED.into_iter().filter_map(|name| Some((name.to_owned(), field(name)?)));
        // Billed apart from text, at a rate of their own; ours are within the input.
        let image = field("image_tokens");
        Reading {
            model: None,
            id: self.id.clone(),
            usage: Usage {
                counts: counted.collect(),
                state: state(self.billed.is_some(), true),
                tokens: Tokens {
                    input: plus(field("input_tokens"), image),
                    image_input: image,
                    output: field("output_tokens"),
                    ..Tokens::default()
                },
                ..Usage::default()
            },
            error: self.error,
            over: self.billed.is_some(),
            ..Reading::default()
        }
    }
}
