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
pub(super) struct Iterations {
    entries: Vec<Entry>,
    /// The figures that they came with; those that came before are not in it.
    beside: Tokens,
}

#[derive(Debug)]
struct Entry {
    kind: String,
    part: UsagePart,
}

/// A turn of the model that was asked, or of one that it fell back to.
const MESSAGE: &str = "message";
/// A turn that sums up what was said, outside of the top level.
const COMPACTION: &str = "compaction";
/// The last turn of a fallback.
const FALLBACK: &str = "fallback_message";

impl Iterations {
    /// `beside`: the top level that `entries` came with.
    pub(super) fn read(entries: &Value, beside: Tokens) -> Self {
        let entry = |entry: &Value| Entry {
            kind: text(entry, &["type"]).unwrap_or(MESSAGE).to_owned(),
            part: UsagePart {
                model: text(entry, &["model"]).map(str::to_owned),
                tokens: Counts::read(entry).tokens(),
                ..UsagePart::default()
            },
        };
        let entries = entries.as_array().into_iter().flatten().map(entry).collect();
        Self { entries, beside }
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
        self.entries.iter().rev().find(|entry| entry.kind == FALLBACK)
    }

    /// Of a message that fell back. The top level is the last attempt alone, and nothing adds up to it:
    /// the entries are the bill. A model's entries are one attempt, since none is asked twice; one that
    /// declined before it said anything is told and not billed.
    fn of_attempts(&self, last: &Entry, top: &Tokens, declined: bool) -> Billed {
        let attempt = |entry: &Entry| matches!(entry.kind.as_str(), MESSAGE | FALLBACK);
        let mut said: BTreeMap<&Option<String>, u64> = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| attempt(entry)) {
            let all = said.entry(&entry.part.model).or_default();
            *all = all.saturating_add(entry.part.tokens.output.unwrap_or(0));
        }
        let is_free = |entry: &Entry| {
            let model = &entry.part.model;
            let nothing = said_nothing(said.get(model).copied());
            attempt(entry) && nothing && (declined || *model != last.part.model)
        };
        let is_top = |entry: &Entry| attempt(entry) && entry.part.model == last.part.model;
        let parts = self.parts(top, is_top, |entry| !is_free(entry));
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
    /// stands and what is surely outside is added. A stream that begins with a compaction may have a top
    /// level of two turns, and what the last one did not tell is the compaction's: there they must agree
    /// with what they came with.
    fn of_turns(&self, top: &Tokens, model: Option<&str>) -> Billed {
        if self.entries.is_empty() {
            return Billed::Top;
        }
        let plain = self.entries.iter().all(|entry| {
            entry.kind == MESSAGE && entry.part.model.as_deref().is_none_or(|m| Some(m) == model)
        });
        let is_turn = |entry: &Entry| entry.kind == MESSAGE;
        let sum = self.sum(is_turn);
        let compacted = self.entries.iter().any(|entry| entry.kind == COMPACTION);
        if same_size(&sum, top) || (compacted && agrees(&sum, &self.beside)) {
            let parts = self.parts(top, is_turn, |_| true);
            // Priced alike, the top level says it better: it splits cache writes in any case.
            let alike = plain && parts.iter().all(|part| part.steps() == steps(top));
            return if alike { Billed::Top } else { Billed::Parts(parts) };
        }
        if plain {
            return Billed::Top;
        }
        let outside = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.kind.as_str(), COMPACTION | "advisor_message"))
            .map(|entry| entry.part.clone());
        Billed::Parts(std::iter::once(whole(top)).chain(outside).collect())
    }

    fn sum(&self, of: impl Fn(&Entry) -> bool) -> Tokens {
        let entries = self.entries.iter().filter(|entry| of(entry));
        entries.fold(Tokens::default(), |sum, entry| sum.plus(&entry.part.tokens))
    }

    /// What is billed, added up by what is priced alike. Where the entries that the top level is made of
    /// don't tell the lifetime of their cache writes, it does.
    fn parts(
        &self,
        top: &Tokens,
        is_top: impl Fn(&Entry) -> bool,
        is_billed: impl Fn(&Entry) -> bool,
    ) -> Vec<UsagePart> {
        let sum = self.sum(&is_top);
        let of_top = same_size(&sum, top) && writes(&sum) == writes(top);
        let over = |all: Option<u64>, told: Option<u64>| {
            let left = all.unwrap_or(0).saturating_sub(told.unwrap_or(0));
            if of_top { left } else { 0 }
        };
        let mut left_1h = over(top.cache_write_1h, sum.cache_write_1h);
        let mut left_5m = over(top.cache_write_5m, sum.cache_write_5m);
        let mut parts = Vec::new();
        for entry in self.entries.iter().filter(|entry| is_billed(entry)) {
            let mut part = entry.part.clone();
            if is_top(entry) {
                take(&mut part.tokens, |tokens| &mut tokens.cache_write_1h, &mut left_1h);
                take(&mut part.tokens, |tokens| &mut tokens.cache_write_5m, &mut left_5m);
            }
            part.add_to(&mut parts);
        }
        parts
    }
}

/// Moves cache writes of no known lifetime to one of which so many are left.
fn take(tokens: &mut Tokens, to: fn(&mut Tokens) -> &mut Option<u64>, left: &mut u64) {
    let open = tokens.cache_write_other.unwrap_or(0);
    let moved = open.min(*left);
    if moved > 0 {
        *left -= moved;
        tokens.cache_write_other = Some(open - moved).filter(|rest| *rest > 0);
        let known = to(tokens);
        *known = Some(known.unwrap_or(0).saturating_add(moved));
    }
}

/// Declined before there was any output, which some count as one token of it.
pub(super) fn said_nothing(output: Option<u64>) -> bool {
    output.unwrap_or(0) <= 1
}

fn same_size(sum: &Tokens, top: &Tokens) -> bool {
    sum.total_input() == top.total_input() && sum.output.unwrap_or(0) == top.output.unwrap_or(0)
}

/// Whether `sum` is what was told, as far as it was.
fn agrees(sum: &Tokens, told: &Tokens) -> bool {
    let alike = |sum: Option<u64>, told: Option<u64>| told.is_none_or(|n| n == sum.unwrap_or(0));
    alike(sum.input, told.input)
        && alike(sum.cache_read, told.cache_read)
        && alike(writes(sum), writes(told))
        && alike(sum.output, told.output)
}

/// All cache writes, whatever their lifetime.
fn writes(tokens: &Tokens) -> Option<u64> {
    let all = [tokens.cache_write_5m, tokens.cache_write_1h, tokens.cache_write_other];
    all.into_iter().flatten().reduce(u64::saturating_add)
}

fn whole(top: &Tokens) -> UsagePart {
    UsagePart { tokens: *top, ..UsagePart::default() }
}

fn steps(top: &Tokens) -> usize {
    whole(top).steps()
}
