//! Keys where names belong. A client may send its key as a model, in a path or as its session's name;
//! what is written of a request goes through here, so that none of them is kept.
//!
//! By their forms ([`FORMS`], which bodies are searched for too), and long tokens that look made by
//! chance. A name that holds one is gone as a whole: nobody needs the rest.

mod forms;
mod harmless;
mod random;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::iter;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

pub use forms::{FORMS, Form, InName};
use harmless::Harmless;

use super::row::Row;
use crate::config::percent_decode;

/// What stands in such a name's place.
pub const REDACTED: &str = "[redacted]";
/// No form of a key is shorter.
const SHORTEST: usize = 12;
/// How a segment of a path begins that is nothing else.
const BEGINNINGS: &[&str] = &["sk-", "sk_", "AIza", "xai-", "gsk_", "key-", "Bearer"];

/// Takes keys out of what a request and its response said.
pub fn strip(row: &mut Row) {
    // The same id is the same answer: two that are taken out are not.
    for id in [&mut row.provider_request_id, &mut row.response_id] {
        id.take_if(|id| has_form(id));
    }
    let parts = row.detail.parts.iter_mut().flat_map(|part| [&mut part.model, &mut part.geo]);
    let names = [
        &mut row.model_requested,
        &mut row.model,
        &mut row.tier,
        &mut row.speed,
        &mut row.geo,
        &mut row.detail.cache_ttl,
        &mut row.client,
        &mut row.session,
        &mut row.agent,
        &mut row.agent_parent,
        &mut row.agent_kind,
    ];
    parts.chain(names).flatten().chain([&mut row.method]).for_each(|name| replace(name, is_key));
}

/// … and of what is known of the client. Directories may be named by digests, and projects by commits.
pub fn strip_owner(row: &mut Row) {
    row.run.iter_mut().for_each(|name| replace(name, is_key));
    let names = [&mut row.project, &mut row.client, &mut row.branch];
    names.into_iter().flatten().for_each(|name| replace(name, is_of_a_form));
    row.cwd.iter_mut().for_each(|directory| {
        if is_of_a_form(directory) {
            *directory = without(directory, is_of_a_form);
        }
    });
}

/// A path without the segments that hold a key.
#[must_use]
pub fn path(path: &str) -> String {
    let begins = |segment: &str| BEGINNINGS.iter().any(|b| segment.starts_with(b));
    without(path, |segment| begins(segment) || is_key(segment))
}

fn without(path: &str, is_one: impl Fn(&str) -> bool) -> String {
    let clean = |segment| if either(segment, &is_one) { REDACTED } else { segment };
    path.split('/').map(clean).collect::<Vec<_>>().join("/")
}

fn replace(name: &mut String, is_one: fn(&str) -> bool) {
    if either(name, is_one) {
        REDACTED.clone_into(name);
    }
}

/// As it is, or as a URL has it.
fn either(text: &str, is_one: impl Fn(&str) -> bool) -> bool {
    is_one(text) || (text.contains('%') && is_one(&String::from_utf8_lossy(&percent_decode(text))))
}

thread_local! {
    /// Neither a form nor chance.
    static NO_KEYS: Harmless = const { RefCell::new(Vec::new()) };
    static NO_FORMS: Harmless = const { RefCell::new(Vec::new()) };
}

fn is_key(name: &str) -> bool {
    harmless::or_search(&NO_KEYS, name, |name| has_form(name) || random::is_in(name))
}

fn is_of_a_form(name: &str) -> bool {
    harmless::or_search(&NO_FORMS, name, has_form)
}

fn has_form(text: &str) -> bool {
    static PLAIN: LazyLock<Regex> = LazyLock::new(|| {
        any_of(|form| match form.name {
            InName::Same => Some(form.pattern),
            InName::Stricter(pattern) => Some(pattern),
            InName::WithDigit | InName::Made(_) | InName::Never => None,
        })
    });
    static WITH_DIGIT: LazyLock<Regex> =
        LazyLock::new(|| any_of(|form| (form.name == InName::WithDigit).then_some(form.pattern)));
    static MADE: LazyLock<Regex> = LazyLock::new(|| {
        any_of(|form| match form.name {
            InName::Made(pattern) => Some(pattern),
            InName::Same | InName::WithDigit | InName::Stricter(_) | InName::Never => None,
        })
    });
    // The last ones: there are digits in beginnings too.
    let digit = |found: &[u8]| found.iter().rev().take(SHORTEST).any(u8::is_ascii_digit);
    let bearer = || text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer "));
    let made = |found: &[u8]| is_made(&String::from_utf8_lossy(found));
    text.len() >= SHORTEST
        && (bearer()
            || found_in(&PLAIN, text).next().is_some()
            || found_in(&WITH_DIGIT, text).any(digit)
            || found_in(&MADE, text).any(made))
}

/// What begins a word; within one only what nobody makes up: `task-ant-design` holds no key.
fn found_in<'t>(forms: &Regex, text: &'t str) -> impl Iterator<Item = &'t [u8]> {
    let bytes = text.as_bytes();
    let is_in_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let mut from = 0;
    let found = iter::from_fn(move || {
        let found = forms.find_at(bytes, from)?;
        // What is not one may have swallowed one.
        from = found.start() + 1;
        Some(found)
    });
    found
        .filter(move |found| {
            let within = found.start().checked_sub(1).is_some_and(is_in_word);
            !(within && is_in_word(found.start())) || is_mixed(found.as_bytes())
        })
        .map(|found| found.as_bytes())
}

/// Letters and digits in one long piece, or small and capital letters and digits.
fn is_made(key: &str) -> bool {
    let (_, tail) = key.split_once(['-', '_']).unwrap_or_default();
    let digit = |piece: &str| piece.bytes().any(|b| b.is_ascii_digit());
    let long = tail.split(['-', '_']).any(|piece| piece.len() >= 16 && digit(piece));
    let uuid = tail.len() >= 36
        && (0..=tail.len() - 36)
            .any(|at| tail.get(at..at + 36).is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()));
    is_mixed(tail.as_bytes()) || long || uuid
}

fn is_mixed(signs: &[u8]) -> bool {
    let has = |of: fn(&u8) -> bool| signs.iter().any(of);
    has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase)
}

fn any_of(pattern: impl Fn(&Form) -> Option<&'static str>) -> Regex {
    let patterns: Vec<String> =
        FORMS.iter().filter_map(|form| Some(format!("(?:{})", pattern(form)?))).collect();
    // All forms are ASCII: without all other letters it is smaller.
    let built = RegexBuilder::new(&patterns.join("|")).unicode(false).build();
    built.expect("written here, and compiled by each test")
}
