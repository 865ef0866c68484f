//! Gemini Interactions, and the surfaces that count pages.

use serde_json::Value;

use super::count::{as_count, count, minus, plus, text};
use super::error::in_stream;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage};

/// `usage` of the interaction, in the document or in the stream's last event.
#[derive(Debug, Default)]
pub(super) struct Interactions {
    model: Option<String>,
    id: Option<String>,
    usage: Option<Value>,
    error: Option<&'static str>,
}

impl Reader for Interactions {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let either = |plain, inner| found.field(inner).or_else(|| found.field(plain));
        let name = |plain, inner| found.text(inner).or_else(|| found.text(plain));
        // An agent chooses its models itself, and is billed under its own name.
        let agent = name(Field::Agent, Field::InteractionAgent);
        keep(&mut self.model, name(Field::Model, Field::InteractionModel).or(agent));
        keep(&mut self.id, name(Field::Id, Field::InteractionId));
        let status = name(Field::Status, Field::InteractionStatus);
        if let Some(usage) = either(Field::Usage, Field::InteractionUsage)
            && usage.is_object()
            && !matches!(status, Some("in_progress" | "queued"))
        {
            self.usage = Some(usage.clone());
        }
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn reading(&self) -> Reading {
        let usage = self.usage.as_ref();
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(usage.is_some(), true),
                tokens: usage.map(tokens).unwrap_or_default(),
                tier: usage.and_then(|u| text(u, &["service_tier"])).map(str::to_owned),
                ..Usage::default()
            },
            error: self.error,
            over: usage.is_some(),
            // Nothing in it says that it ran in the background: whether it was told before is the
            // ledger's to know, by its id.
            deferred: usage.is_some() && self.id.is_some(),
            ..Reading::default()
        }
    }
}

/// Thoughts are beside the output, what tools put into the prompt beside the input.
fn tokens(usage: &Value) -> Tokens {
    let total = |name| count(usage, &[name]);
    let cached = total("total_cached_tokens");
    let thoughts = total("total_thought_tokens");
    Tokens {
        input: plus(minus(total("total_input_tokens"), cached), total("total_tool_use_tokens")),
        cache_read: cached,
        output: plus(total("total_output_tokens"), thoughts),
        reasoning: thoughts,
        ..Tokens::default()
    }
}

/// Mistral's OCR: pages, no tokens.
#[derive(Debug, Default)]
pub(super) struct Pages {
    model: Option<String>,
    pages: Option<u64>,
    error: Option<&'static str>,
}

impl Reader for Pages {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        keep(&mut self.model, found.text(Field::Model));
        self.pages = found.field(Field::Pages).and_then(as_count).or(self.pages);
        self.error = found.field(Field::Error).map(in_stream).or(self.error);
    }

    fn reading(&self) -> Reading {
        let pages = self.pages.map(|pages| ("pages".to_owned(), pages));
        Reading {
            model: self.model.clone(),
            usage: Usage {
                state: state(pages.is_some(), true),
                counts: pages.into_iter().collect(),
                ..Usage::default()
            },
            error: self.error,
            ..Reading::default()
        }
    }
}
