//! Surfaces that are billed by a count of their own and tell no tokens.

use serde_json::Value;

use super::count::as_count;
use super::error::in_stream;
use super::openai_chat::class_of_minimax;
use super::scan::Found;
use super::{Field, Reader, Reading, keep, state};
use crate::meter::usage::{Counts, Usage};

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum What {
    Pages,
    Characters,
    Searches,
    /// Seconds of a video, which is made behind the answer.
    Video,
    /// What a model was trained with, likewise.
    Training,
    /// Tokens that are kept for requests to come.
    Cache,
}

/// Reads what such an answer counts.
#[derive(Debug)]
pub(super) struct Counted {
    what: What,
    model: Option<String>,
    id: Option<String>,
    counts: Counts,
    error: Option<&'static str>,
}

impl Counted {
    pub(super) fn of(what: What) -> Self {
        Self { what, model: None, id: None, counts: Counts::new(), error: None }
    }

    /// What is made behind the answer counts where it is read back finished.
    fn is_made_later(&self) -> bool {
        matches!(self.what, What::Video | What::Training)
    }

    fn count(&mut self, name: &str, told: Option<u64>) {
        if let Some(count) = told {
            self.counts.insert(name.to_owned(), count);
        }
    }
}

impl Reader for Counted {
    fn unit(&mut self, _event: Option<&str>, found: &Found) {
        let number = |field| found.field(field).and_then(as_count);
        // Google puts the collection in front, its cloud the project too.
        let model = found.text(Field::Model);
        let bare = model.and_then(|name| name.rsplit('/').next());
        keep(&mut self.model, if self.what == What::Cache { bare } else { model });
        keep(&mut self.id, found.text(Field::Id));
        // A job that is well has an error without anything in it.
        let is_one = |error: &&Value| {
            error.as_object().is_none_or(|error| error.values().any(|said| !said.is_null()))
        };
        let error = found.field(Field::Error).filter(is_one);
        let status = found.field(Field::MiniMaxStatus).and_then(as_count);
        self.error = error.map(in_stream).or(status.and_then(class_of_minimax)).or(self.error);
        match self.what {
            What::Pages => {
                self.count("pages", number(Field::Pages));
                self.count("annotated_pages", number(Field::AnnotatedPages).filter(|n| *n > 0));
            }
            What::Characters => {
                let told = number(Field::Characters).or(number(Field::TaskCharacters));
                self.count("characters", told);
            }
            What::Searches => {
                let answered = found.field(Field::ResultUrl).is_some() || self.id.is_some();
                self.count("searches", (answered && self.error.is_none()).then_some(1));
            }
            What::Video => {
                let done = found.text(Field::Status) == Some("completed");
                if let Some(size) = found.text(Field::VideoSize).and_then(size).filter(|_| done) {
                    self.count(&format!("video_seconds_{size}"), number(Field::VideoSeconds));
                }
            }
            What::Training => {
                let done = found.text(Field::Status).is_some_and(has_succeeded);
                self.count("trained_tokens", number(Field::TrainedTokens).filter(|_| done));
            }
            What::Cache => {
                let usage = found.field(Field::UsageMetadata);
                let told = usage.and_then(|usage| usage.get("totalTokenCount")).and_then(as_count);
                self.count("stored_tokens", told);
            }
        }
    }

    fn reading(&self) -> Reading {
        let told = !self.counts.is_empty();
        Reading {
            model: self.model.clone(),
            id: self.id.clone(),
            usage: Usage {
                state: state(told, true),
                counts: self.counts.clone(),
                ..Usage::default()
            },
            error: self.error,
            deferred: told && self.is_made_later(),
            ..Reading::default()
        }
    }
}

/// `OpenAI`'s word, and Mistral's.
fn has_succeeded(status: &str) -> bool {
    status.eq_ignore_ascii_case("succeeded") || status.eq_ignore_ascii_case("success")
}

/// `1280x720`, and nothing else: it becomes part of a name.
fn size(told: &str) -> Option<&str> {
    let digits =
        |text: &str| (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    told.split_once('x').filter(|(width, height)| digits(width) && digits(height)).map(|_| told)
}
