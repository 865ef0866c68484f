//! Ollama: JSON lines, of which the last one counts.

use super::count::as_count;
use super::error::in_stream;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Tokens, Usage};

#[derive(Debug, Default)]
pub(super) struct Ollama {
    model: Option<String>,
    input: Option<u64>,
    output: Option<u64>,
    done: bool,
    /// Nothing was asked of the model.
    warm_up: bool,
    error: Option<&'static str>,
}

impl Reader for Ollama {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        keep(&mut self.model, found.text(Field::Model));
        // Absent when the whole prompt was in the cache.
        self.input = found.field(Field::OllamaInput).and_then(as_count).or(self.input);
        self.output = found.field(Field::OllamaOutput).and_then(as_count).or(self.output);
        self.done |=
            found.field(Field::OllamaDone).and_then(serde_json::Value::as_bool) == Some(true);
        self.warm_up |= matches!(found.text(Field::OllamaDoneReason), Some("load" | "unload"));
        if let Some(error) = found.field(Field::Error) {
            self.error = Some(in_stream(error));
        }
    }

    fn reading(&self) -> Reading {
        let known = self.input.is_some() || self.output.is_some();
        Reading {
            model: self.model.clone(),
            usage: Usage {
                state: state(known, true),
                tokens: Tokens { input: self.input, output: self.output, ..Tokens::default() },
                ..Usage::default()
            },
            error: self.error,
            over: self.done,
            warm_up: self.warm_up,
            ..Reading::default()
        }
    }
}
