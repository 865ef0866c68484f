//! Text from outside, as it may be shown: a terminal obeys control characters, those above U+007F too, and
//! a spreadsheet takes some texts for formulas.

/// What a formula begins with: also as East Asian keyboards write it, which some programs read alike. A tab
/// or an end of a line, which do the same, is a control character.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];

/// Text from outside without what a terminal would obey, and not endless.
#[must_use]
pub fn clean(text: &str) -> String {
    const LONGEST: usize = 48;
    let mut out: String = harmless(text).chars().take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// The same in full.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if is_bad(c) { '\u{fffd}' } else { c }).collect()
}

/// The same of a text whose lines matter.
#[must_use]
pub fn harmless_lines(text: &str) -> String {
    let kept = |c| matches!(c, '\n' | '\t');
    let bad = |c: char| is_bad(c) && !kept(c);
    text.replace("\r\n", "\n").chars().map(|c| if bad(c) { '\u{fffd}' } else { c }).collect()
}

/// JSON as it is, but with escapes for what a terminal would obey: they mean the same.
#[must_use]
pub fn json_text(json: String) -> String {
    // Between strings there is none of it, but ends of lines.
    let bad = |c: char| c >= '\u{7f}' && is_bad(c);
    if !json.contains(bad) {
        return json;
    }
    let mut text = String::with_capacity(json.len() + 64);
    for c in json.chars() {
        if bad(c) {
            // All of them are within the first plane.
            text.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            text.push(c);
        }
    }
    text
}

fn is_bad(c: char) -> bool {
    c.is_control() || is_bidi(c)
}

/// Turns the order of what is beside it round.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text that neither a spreadsheet takes for a formula nor a terminal for a command.
#[must_use]
pub fn csv_text(text: &str) -> String {
    let text = harmless(text);
    let quote = if text.starts_with(FORMULA) { "'" } else { "" };
    format!("{quote}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_drive_the_terminal() {
        assert_eq!(clean("a\x1b[31mb\u{202e}"), "a\u{fffd}[31mb\u{fffd}");
        assert_eq!(clean(&"x".repeat(100)).chars().count(), 48);
        assert_eq!(clean(&"x".repeat(48)), "x".repeat(48));
    }

    /// Controls of both sets, and what turns text round.
    const BAD: &str =
        "\u{7f}\u{80}\u{85}\u{9b}31m\u{9f}\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}";

    #[test]
    fn no_control_above_ascii_is_shown() {
        let shown = [clean(BAD), harmless(BAD), harmless_lines(BAD), csv_text(BAD)];
        for text in shown {
            assert!(text.chars().all(|c| c == '\u{fffd}' || "31m".contains(c)), "{text:?}");
        }
    }

    #[test]
    fn json_says_the_same_without_them() {
        let value = serde_json::json!({ BAD: [BAD, "日本 é \u{a0}\n\u{1b}"] });
        for json in [serde_json::to_string_pretty(&value).unwrap(), value.to_string()] {
            let text = json_text(json);
            assert!(!text.chars().any(|c| c != '\n' && is_bad(c)), "{text:?}");
            assert!(text.contains("\\u009b31m") && text.contains("日本 é \u{a0}"), "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn no_text_is_a_formula() {
        for start in FORMULA {
            let text = format!("{start}1+1");
            assert_eq!(csv_text(&text), format!("'{text}"));
        }
        for start in ['\t', '\r', '\n'] {
            assert_eq!(csv_text(&format!("{start}=1")), "\u{fffd}=1");
        }
        assert_eq!(csv_text("a=1"), "a=1");
    }
}
