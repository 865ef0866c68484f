//! Private keys between lines of their own. Not one pattern: from each beginning it would look for an
//! end through all of the text, and a text may be full of beginnings.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// What stands between its lines, when its end is missing: with what editors and escapes put there.
const BETWEEN: &str = "+/=:,.()\\→|>#*-";

static BEGIN: LazyLock<Regex> = LazyLock::new(|| line("BEGIN"));
static END: LazyLock<Regex> = LazyLock::new(|| line("END"));

/// Where keys are in `text`. In JSON (`structured`) none goes on behind its string.
pub(super) fn keys(text: &str, structured: bool, sink: &mut dyn FnMut(Range<usize>)) {
    let mut ends = END.find_iter(text).map(|end| end.range()).peekable();
    let mut quote = 0;
    let mut behind = 0;
    for begin in BEGIN.find_iter(text) {
        // Within the one before.
        if begin.start() < behind {
            continue;
        }
        let from = begin.end();
        // Both only go on: each part of the text is looked at once.
        while ends.next_if(|end| end.start < from).is_some() {}
        if structured && quote < from {
            let rest = text.get(from..).unwrap_or_default();
            quote = rest.find('"').map_or(text.len(), |at| from + at);
        }
        let end = ends.peek().filter(|end| !structured || end.start < quote);
        behind =
            end.map_or_else(|| from + run(text.get(from..).unwrap_or_default()), |end| end.end);
        sink(begin.start()..behind);
    }
}

/// How long it goes on as a key might.
fn run(text: &str) -> usize {
    let fits = |c: char| c.is_ascii_alphanumeric() || c.is_whitespace() || BETWEEN.contains(c);
    text.find(|c| !fits(c)).unwrap_or(text.len())
}

fn line(word: &str) -> Regex {
    let pattern = format!("-----{word} [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----");
    Regex::new(&pattern).expect("written here, and compiled by each test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, structured: bool) -> Vec<&str> {
        let mut out = Vec::new();
        keys(text, structured, &mut |range| out.push(&text[range]));
        out
    }

    #[test]
    fn a_key_goes_to_its_end_or_as_far_as_it_looks_like_one() {
        let whole = "-----BEGIN RSA PRIVATE KEY-----\nab!c\n-----END RSA PRIVATE KEY-----";
        assert_eq!(found(&format!("x {whole} y {whole}"), false), [whole, whole]);
        let cut = "-----BEGIN PRIVATE KEY-----\nabc/+=\n";
        assert_eq!(found(&format!("{cut}!rest"), false), [cut]);
        let json = r#"{"a":"-----BEGIN PRIVATE KEY-----\nab!","b":"-----END PRIVATE KEY-----"}"#;
        assert_eq!(found(json, true), [r"-----BEGIN PRIVATE KEY-----\nab"]);
        assert_eq!(found(json, false).len(), 1);
    }

    #[test]
    fn many_beginnings_cost_no_more_than_one() {
        let text = "-----BEGIN PRIVATE KEY-----!".repeat(40_000);
        assert_eq!(found(&text, false).len(), 40_000);
        assert_eq!(found(&text, true).len(), 40_000);
    }
}
