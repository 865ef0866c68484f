//! An unknown path on an unknown host: the first telling unit says which surface it is.

use super::error::in_stream;
use super::scan::Found;
use super::{Field, Kind, Reader, Reading, reader};

#[derive(Debug, Default)]
pub(super) struct Sniff {
    inner: Option<Box<dyn Reader>>,
    kind: Option<Kind>,
    error: Option<&'static str>,
}

impl Reader for Sniff {
    fn unit(&mut self, event: Option<&str>, found: &Found) {
        if self.inner.is_none() {
            self.kind = shape(event, found);
            self.inner = reader(self.kind);
        }
        match &mut self.inner {
            Some(inner) => inner.unit(event, found),
            None => self.error = found.field(Field::Error).map(in_stream).or(self.error),
        }
    }

    fn done(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.done();
        }
    }

    fn end(&mut self, whole: bool) {
        if let Some(inner) = &mut self.inner {
            inner.end(whole);
        }
    }

    fn reading(&self) -> Reading {
        match &self.inner {
            Some(inner) => inner.reading(),
            None => Reading { error: self.error, ..Reading::default() },
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.kind
    }
}

fn shape(event: Option<&str>, found: &Found) -> Option<Kind> {
    let kind = found.text(Field::Type).or(event).unwrap_or_default();
    let object = found.text(Field::Object).unwrap_or_default();
    let usage_has = |name| found.field(Field::Usage).is_some_and(|usage| usage.get(name).is_some());
    if kind == "message_start" || (kind == "message" && usage_has("input_tokens")) {
        Some(Kind::Messages)
    } else if object.starts_with("chat.completion") {
        Some(Kind::Chat)
    } else if object == "response" || kind.starts_with("response.") {
        Some(Kind::Responses)
    } else if found.field(Field::UsageMetadata).is_some() {
        Some(Kind::Gemini)
    } else if found.field(Field::WrappedUsage).is_some() {
        Some(Kind::CodeAssist)
    } else if usage_has("inputTokens") {
        Some(Kind::Converse)
    } else if usage_has("billed_units")
        || found.field(Field::Meta).is_some_and(|meta| meta.get("billed_units").is_some())
    {
        Some(Kind::Cohere)
    } else if found.field(Field::OllamaDone).is_some() || found.field(Field::OllamaInput).is_some()
    {
        Some(Kind::Ollama)
    } else if usage_has("prompt_tokens") {
        Some(if object == "list" { Kind::Embeddings } else { Kind::Chat })
    } else {
        None
    }
}
