//! Takes secrets out of a text before anything else sees it.
//!
//! A secret may be escaped (JSON, URLs, JSON within JSON) or come in pieces (the deltas of a stream).
//! So it is looked for in several [`mod@views`] of the text, each of which knows where its bytes come
//! from; whatever is found in any of them is replaced in the text itself.

mod armour;
mod classes;
#[cfg(test)]
mod tests;
mod views;

use std::collections::BTreeMap;
use std::ops::Range;

use classes::{CLASSES, Class};
use views::{View, views};

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
    let mut spans: Vec<(Range<usize>, &'static str)> = Vec::new();
    for view in views(text) {
        armour::keys(view.text(), view.is_structured(), &mut |key| {
            view.sources(key, &mut |span| spans.push((span, "private_key")));
        });
        for class in CLASSES.iter() {
            find(&view, class, &mut spans);
        }
    }
    let end = text.floor_char_boundary(keep);
    let mut redacted = Redacted::default();
    let mut at = 0;
    for (span, class) in united(spans) {
        if span.start >= end {
            break;
        }
        redacted.text.push_str(text.get(at..span.start).unwrap_or_default());
        redacted.text.push_str("[REDACTED:");
        redacted.text.push_str(class);
        redacted.text.push(']');
        *redacted.found.entry(class).or_default() += 1;
        at = span.end;
    }
    redacted.text.push_str(text.get(at..end).unwrap_or_default());
    redacted
}

fn find(view: &View<'_>, class: &Class, spans: &mut Vec<(Range<usize>, &'static str)>) {
    let text = view.text();
    for found in class.pattern(view.is_structured()).captures_iter(text) {
        // The secret is what a pattern has in its last brackets, if it has any.
        let secret = found.iter().skip(1).flatten().last().or_else(|| found.get(0));
        let Some(secret) = secret.filter(|secret| !secret.is_empty()) else { continue };
        if class.is_one(&found, secret.as_str()) {
            view.sources(secret.range(), &mut |span| spans.push((span, class.name)));
        }
    }
}

/// Without overlaps, in order. Of several classes the one that begins first, or is longest, names it.
fn united(mut spans: Vec<(Range<usize>, &'static str)>) -> Vec<(Range<usize>, &'static str)> {
    spans.sort_by_key(|(span, _)| (span.start, usize::MAX - span.end));
    let mut united: Vec<(Range<usize>, &'static str)> = Vec::new();
    for (span, class) in spans {
        match united.last_mut() {
            Some((last, _)) if span.start < last.end => last.end = last.end.max(span.end),
            Some(_) | None => united.push((span, class)),
        }
    }
    united
}
