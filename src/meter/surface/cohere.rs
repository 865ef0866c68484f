//! Cohere: what is billed is `billed_units`, which may be floats.

use serde_json::Value;

use super::count::count;
use super::error::in_stream;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage};

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
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn reading(&self) -> Reading {
        let field = |name| count(self.billed.as_ref()?, &[name]);
        Reading {
            model: None,
            id: self.id.clone(),
            usage: Usage {
                counts: field("search_units")
                    .map(|units| ("search_units".to_owned(), units))
                    .into_iter()
                    .collect(),
                state: state(self.billed.is_some(), true),
                tokens: Tokens {
                    input: field("input_tokens"),
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
