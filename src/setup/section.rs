//! Our marked section in a text of the user's. Pure: the rest of the text stays as it is, byte for byte.

const BEGIN: &str = "# >>> halton-meter >>>";
const END: &str = "# <<< halton-meter <<<";
/// Before our section, in a file of the user's that was empty.
const WAS_EMPTY: &str = "\n";

/// `text` with our section holding `body`, where it was or at the end; `None`: without it.
#[must_use]
pub fn with(text: &str, body: Option<&str>) -> String {
    let section = body.map(|body| format!("{BEGIN}\n{}\n{END}\n", body.trim_end_matches('\n')));
    let section = section.unwrap_or_default();
    match find(text) {
        Some(found) => {
            let (before, after) = (&text[..found.start], &text[found.end..]);
            // The empty line that we put before it goes with it.
            let before = match before.strip_suffix("\n\n") {
                Some(rest) if section.is_empty() => &before[..=rest.len()],
                None if section.is_empty() && before == WAS_EMPTY => "",
                Some(_) | None => before,
            };
            format!("{before}{section}{after}")
        }
        None if section.is_empty() => text.to_owned(),
        None if text.is_empty() => section,
        None => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            format!("{text}{end}\n{section}")
        }
    }
}

/// The same for a file that was there, and may have been empty: a line end before our section says so,
/// and goes with it. Without that, a file that holds our section alone is ours.
#[must_use]
pub fn with_in_file(text: &str, body: Option<&str>) -> String {
    let empty = if text.is_empty() && body.is_some() { WAS_EMPTY } else { "" };
    format!("{empty}{}", with(text, body))
}

/// Whether we made the file that holds this, and nobody else has written to it.
#[must_use]
pub fn is_all_of(text: &str) -> bool {
    find(text).is_some_and(|found| found == (0..text.len()))
}

/// What our section holds.
#[must_use]
pub fn body(text: &str) -> Option<&str> {
    let section = &text[find(text)?];
    let inner = section.strip_prefix(BEGIN)?.strip_prefix('\n')?;
    let inner = inner.trim_end_matches('\n').strip_suffix(END)?;
    Some(inner.strip_suffix('\n').unwrap_or(inner))
}

/// The bytes of our section, its last line end included. A beginning without an end is none: what
/// follows it may be the user's.
fn find(text: &str) -> Option<std::ops::Range<usize>> {
    let at = |from: usize, mark: &str| {
        let mut offset = from;
        text[from..].split_inclusive('\n').find_map(|line| {
            let start = offset;
            offset += line.len();
            (line.trim_end_matches(['\n', '\r']) == mark).then_some((start, offset))
        })
    };
    let (start, inside) = at(0, BEGIN)?;
    let (_, end) = at(inside, END)?;
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_goes_where_it_was_and_else_to_the_end() {
        let one = with("alias ll='ls -l'\n", Some("export A=1"));
        assert_eq!(
            one,
            "alias ll='ls -l'\n\n# >>> halton-meter >>>\nexport A=1\n# <<< halton-meter <<<\n"
        );
        let later = format!("{one}alias x=y\n");
        let two = with(&later, Some("export A=2\n"));
        assert_eq!(two, later.replace("A=1", "A=2"));
        assert_eq!(body(&two), Some("export A=2"));
        assert_eq!(with(&two, None), "alias ll='ls -l'\nalias x=y\n");
    }

    #[test]
    fn a_beginning_without_an_end_is_left_alone() {
        let broken = "# >>> halton-meter >>>\nmine\n";
        assert_eq!(with(broken, None), broken);
        assert_eq!(body(broken), None);
    }

    proptest! {
        #[test]
        fn in_and_out_leaves_the_text_but_for_a_last_line_end(
            text in "([a-z #'\"\\$]{0,12}\r?\n){0,5}[a-z]{0,5}",
            content in "[a-z =]{1,20}(\n[a-z =]{1,20}){0,3}",
        ) {
            let in_file = with_in_file(&text, Some(&content));
            prop_assert!(!is_all_of(&in_file));
            let there = with(&text, Some(&content));
            prop_assert_eq!(with_in_file(&in_file, None), with(&there, None));
            prop_assert_eq!(is_all_of(&there), text.is_empty());
            prop_assert_eq!(body(&there), Some(content.as_str()));
            prop_assert_eq!(&with(&there, Some(&content)), &there);
            let back = with(&there, None);
            let missing = !text.is_empty() && !text.ends_with('\n');
            prop_assert_eq!(back, if missing { format!("{text}\n") } else { text });
        }
    }
}
