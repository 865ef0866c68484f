//! Takes secrets out of a text before anything else sees it.
//!
//! A secret may be escaped (JSON, URLs, JSON within JSON) or come in pieces (the deltas of a stream).
//! So it is looked for in several [`mod@views`] of the text, each of which knows where its bytes come
//! from; whatever is found in any of them is replaced in the text itself.

mod armour;
mod classes;
mod span;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;

use classes::{CLASSES, Class};
use span::Spans;
use views::View;

/// The number of the class that is none of [`CLASSES`].
const PRIVATE_KEY: u16 = u16::MAX;

/// A text without the secrets that were found in it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Redacted {
    pub text: String,
    /// How often each class was found; pieces that lie apart count once each.
    pub found: BTreeMap<&'static str, u64>,
}

/// The first `keep` bytes of `text`, redacted. What lies behind them is looked at too, so that a
/// secret on the border is known as one.
#[must_use]
pub fn redact(text: &str, keep: usize) -> Redacted {
    let mut spans = Spans::default();
    views::each(text, &mut |view| {
        let mut found = Spans::default();
        armour::keys(view.text(), view.is_structured(), &mut |key| found.push(key, PRIVATE_KEY));
        for (class, number) in CLASSES.iter().zip(0..) {
            find(view, class, number, &mut found);
        }
        view.sources(found.united()).into_iter().for_each(|span| spans.add(span));
    });
    let end = text.floor_char_boundary(keep);
    let mut redacted = Redacted { text: String::with_capacity(end), ..Redacted::default() };
    let mut at = 0;
    for span in spans.united() {
        let start = span.start as usize;
        if start >= end {
            break;
        }
        let class = CLASSES.get(usize::from(span.class)).map_or("private_key", |class| class.name);
        redacted.text.push_str(text.get(at..start).unwrap_or_default());
        redacted.text.push_str("[REDACTED:");
        redacted.text.push_str(class);
        redacted.text.push(']');
        *redacted.found.entry(class).or_default() += 1;
        at = span.end as usize;
    }
    redacted.text.push_str(text.get(at..end).unwrap_or_default());
    redacted
}

fn find(view: &View<'_>, class: &Class, number: u16, spans: &mut Spans) {
    let text = view.text();
    for found in class.pattern(view.is_structured()).captures_iter(text) {
        // The secret is what a pattern has in its last brackets, if it has any.
        let secret = found.iter().skip(1).flatten().last().or_else(|| found.get(0));
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else { continue };
        if class.is_one(&found, secret.as_str()) {
            spans.push(secret.range(), number);
        }
    }
}
