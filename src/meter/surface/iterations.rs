//! Anthropic's `usage.iterations`: what one message is made of, each with tokens of its own.

use std::collections::BTreeMap;

use serde_json::Value;

use super::anthropic::Counts;
use super::count::text;
use crate::meter::usage::{Tokens, UsagePart};

/// What the message costs.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Billed {
    /// What the top level says, at one price.
    Top,
    /// Each at its own.
    Parts(Vec<UsagePart>),
    /// Every model that was asked declined before it said anything.
    Nothing,
}

#[derive(Debug, Default)]
pub(super) struct Iterations(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    kind: String,
    part: UsagePart,
}

/// A turn of the model that was asked, or of one that it fell back to.
const MESSAGE: &str = "message";
/// The last turn of a fallback.
const FALLBACK: &str = "fallback_message";

impl Iterations {
    pub(super) fn read(entries: &Value) -> Self {
        let entry = |entry: &Value| Entry {
            kind: text(entry, &["type"]).unwrap_or(MESSAGE).to_owned(),
            part: UsagePart {
                model: text(entry, &["model"]).map(str::to_owned),
                tokens: Counts::read(entry).tokens(),
                ..UsagePart::default()
            },
        };
        Self(entries.as_array().map(|all| all.iter().map(entry).collect()).unwrap_or_default())
    }

    /// The model that a fallback led to.
    pub(super) fn server(&self) -> Option<&String> {
        self.last_fallback()?.part.model.as_ref()
    }

    /// `top` is the top level, of `model`; `declined`: the last model that was asked did.
    pub(super) fn billed(&self, top: &Tokens, model: Option<&str>, declined: bool) -> Billed {
        match self.last_fallback() {
            Some(last) => self.of_attempts(last, top, declined),
            None => self.of_turns(top, model),
        }
    }

    fn last_fallback(&self) -> Option<&Entry> {
        self.0.iter().rev().find(|entry| entry.kind == FALLBACK)
    }

    /// Of a message that fell back. The top level is the last attempt alone, and nothing adds up to it:
    /// the entries are the bill. A model's entries are one attempt, since none is asked twice; one that
    /// declined before it said anything is told and not billed.
    fn of_attempts(&self, last: &Entry, top: &Tokens, declined: bool) -> Billed {
        let attempt = |entry: &Entry| matches!(entry.kind.as_str(), MESSAGE | FALLBACK);
        let mut said: BTreeMap<&Option<String>, u64> = BTreeMap::new();
        for entry in self.0.iter().filter(|entry| attempt(entry)) {
            let all = said.entry(&entry.part.model).or_default();
            *all = all.saturating_add(entry.part.tokens.output.unwrap_or(0));
        }
        let is_free = |entry: &Entry| {
            let model = &entry.part.model;
            let nothing = said_nothing(said.get(model).copied());
            attempt(entry) && nothing && (declined || *model != last.part.model)
        };
        let mut parts = Vec::new();
        for entry in self.0.iter().filter(|entry| !is_free(entry)) {
            entry.part.clone().add_to(&mut parts);
        }
        match &parts[..] {
            [] => Billed::Nothing,
            // The top level splits cache writes in any case, and tells thoughts.
            [one]
                if one.model == last.part.model
                    && same_size(&one.tokens, top)
                    && one.steps() == steps(top) =>
            {
                Billed::Top
            }
            _ => Billed::Parts(parts),
        }
    }

    /// Of a message of one model, of which some ran outside the top-level figures, or one after the
    /// other below a price step that their sum is above.
    ///
    /// Compaction is outside of them, an advisor runs on another model. The entries are only trusted
    /// with the whole when those of type `message` add up to the top level; if not, the top level
    /// stands and what is surely outside is added.
    fn of_turns(&self, top: &Tokens, model: Option<&str>) -> Billed {
        if self.0.is_empty() {
            return Billed::Top;
        }
        let plain = self.0.iter().all(|entry| {
            entry.kind == MESSAGE && entry.part.model.as_deref().is_none_or(|m| Some(m) == model)
        });
        let turns = self.0.iter().filter(|entry| entry.kind == MESSAGE);
        let sum = turns.fold(Tokens::default(), |sum, entry| sum.plus(&entry.part.tokens));
        if same_size(&sum, top) {
            let mut parts = Vec::new();
            self.0.iter().for_each(|entry| entry.part.clone().add_to(&mut parts));
            // Priced alike, the top level says it better: it splits cache writes in any case.
            let alike = plain && parts.iter().all(|part| part.steps() == steps(top));
            return if alike { Billed::Top } else { Billed::Parts(parts) };
        }
        if plain {
            return Billed::Top;
        }
        let outside = self
            .0
            .iter()
            .filter(|entry| matches!(entry.kind.as_str(), "compaction" | "advisor_message"))
            .map(|entry| entry.part.clone());
        Billed::Parts(std::iter::once(whole(top)).chain(outside).collect())
    }
}

/// Declined before there was any output, which some count as one token of it.
pub(super) fn said_nothing(output: Option<u64>) -> bool {
    output.unwrap_or(0) <= 1
}

fn same_size(sum: &Tokens, top: &Tokens) -> bool {
    sum.total_input() == top.total_input() && sum.output.unwrap_or(0) == top.output.unwrap_or(0)
}

fn whole(top: &Tokens) -> UsagePart {
    UsagePart { tokens: *top, ..UsagePart::default() }
}

fn steps(top: &Tokens) -> usize {
    whole(top).steps()
}
