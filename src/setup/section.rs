//! Our marked section in a file of the user's. Pure: the rest of the file stays as it is, byte for byte,
//! in whatever encoding it may be.

use std::ops::Range;

const BEGIN: &[u8] = b"# >>> halton-meter >>>";
const END: &[u8] = b"# <<< halton-meter <<<";

/// `text` with our section holding `body`, where it was or at the end; `None`: without it.
#[must_use]
pub fn with(text: &[u8], body: Option<&str>) -> Vec<u8> {
    let section = body.map(|body| {
        let lines = [BEGIN, body.trim_end_matches('\n').as_bytes(), END, b""];
        lines.join(&b'\n')
    });
    match (find(text), section) {
        (Some(found), Some(section)) => {
            [&text[..found.all.start], &section, &text[found.all.end..]].concat()
        }
        (Some(found), None) => {
            let (before, after) = (&text[..found.all.start], &text[found.all.end..]);
            [without_ours(before, after), after].concat()
        }
        (None, Some(section)) if text.is_empty() => section,
        // One line end, whatever is before it: so the last line is one without it again.
        (None, Some(section)) => [text, b"\n", &section].concat(),
        (None, None) => text.to_vec(),
    }
}

/// The line end that we put before our section goes with it, unless it has come to part two lines of the
/// user's.
fn without_ours<'a>(before: &'a [u8], after: &[u8]) -> &'a [u8] {
    let Some(rest) = before.strip_suffix(b"\n") else { return before };
    let ours = match rest.last() {
        None | Some(b'\n') => true,
        // As an editor writes it, who has been at it since.
        Some(b'\r') => false,
        Some(_) => after.is_empty(),
    };
    if ours { rest } else { before }
}

/// The same for a file that was there, and may have been empty: a line end before our section says so,
/// and goes with it. Without that, a file that holds our section alone is ours.
#[must_use]
pub fn with_in_file(text: &[u8], body: Option<&str>) -> Vec<u8> {
    let was_empty = text.is_empty() && body.is_some();
    [if was_empty { &b"\n"[..] } else { b"" }, &with(text, body)].concat()
}

/// Whether we made the file that holds this, and nobody else has written to it.
#[must_use]
pub fn is_all_of(text: &[u8]) -> bool {
    find(text).is_some_and(|found| found.all == (0..text.len()))
}

/// What our section holds.
#[must_use]
pub fn body(text: &[u8]) -> Option<String> {
    let inner = &text[find(text)?.inner];
    Some(String::from_utf8_lossy(inner.strip_suffix(b"\n").unwrap_or(inner)).into_owned())
}

struct Found {
    /// The bytes of our section, its last line end included.
    all: Range<usize>,
    /// What is between its marks.
    inner: Range<usize>,
}

/// An end belongs to the nearest beginning before it. A beginning without an end, or an end without a
/// beginning, is none of ours any more: what is beside it may be the user's.
fn find(text: &[u8]) -> Option<Found> {
    let (mut offset, mut begun) = (0, None);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let start = offset;
        offset += line.len();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match begun {
            _ if line == BEGIN => begun = Some((start, offset)),
            Some((first, inside)) if line == END => {
                return Some(Found { all: first..offset, inner: inside..start });
            }
            Some(_) | None => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(text: &str, body: Option<&str>) -> String {
        String::from_utf8(with(text.as_bytes(), body)).unwrap()
    }

    #[test]
    fn it_goes_where_it_was_and_else_to_the_end() {
        let one = after("alias ll='ls -l'\n", Some("export A=1"));
        assert_eq!(
            one,
            "alias ll='ls -l'\n\n# >>> halton-meter >>>\nexport A=1\n# <<< halton-meter <<<\n"
        );
        let later = format!("{one}alias x=y\n");
        let two = after(&later, Some("export A=2\n"));
        assert_eq!(two, later.replace("A=1", "A=2"));
        assert_eq!(body(two.as_bytes()).as_deref(), Some("export A=2"));
        assert_eq!(after(&two, None), "alias ll='ls -l'\nalias x=y\n");
        // The line that had no end has one since: two lines stay two.
        let later = format!("{}more\n", after("last", Some("a")));
        assert_eq!(after(&later, None), "last\nmore\n");
        let edited = after("a\n", Some("b")).replace('\n', "\r\n");
        assert_eq!(body(edited.as_bytes()).as_deref(), Some("b\r"));
        assert_eq!(after(&edited, None), "a\r\n\r\n");
    }

    #[test]
    fn a_mark_without_its_other_one_is_left_alone() {
        let [begin, end] = ["# >>> halton-meter >>>\nold\n", "old\n# <<< halton-meter <<<\n"];
        for broken in [begin, end, &format!("{end}{begin}")] {
            assert_eq!(after(broken, None), broken);
            assert_eq!(body(broken.as_bytes()), None);
        }
        // What followed a beginning whose end was edited away was lost with the next section.
        for before in [format!("x=1\n{begin}"), format!("{end}y=2\n"), format!("{end}{begin}")] {
            let there = after(&before, Some("new"));
            assert_eq!(body(there.as_bytes()).as_deref(), Some("new"), "{before}");
            assert_eq!(after(&there, Some("newer")), there.replace("new\n", "newer\n"));
            assert_eq!(after(&there, None), before);
        }
    }

    /// Lines of the user's: none of them is whole marks of ours in their order.
    fn lines() -> impl Strategy<Value = Vec<u8>> {
        let ends = prop::sample::select(vec!["\n", "\r\n"]);
        let line = prop_oneof![
            4 => "[a-z #'\"\\$]{0,12}".prop_map(String::into_bytes),
            1 => Just(vec![0xfc, 0xff]),
            1 => Just(END.to_vec()),
        ];
        let with_end = (line, ends).prop_map(|(line, end)| [&line[..], end.as_bytes()].concat());
        // Behind the last end there may be beginnings.
        let begun = prop_oneof!["[a-z =]{0,9}".prop_map(String::into_bytes), Just(BEGIN.to_vec())];
        let begun = begun.prop_map(|line| [&line[..], b"\n"].concat());
        let all = (
            prop::collection::vec(with_end, 0..5),
            prop::collection::vec(begun, 0..3),
            "[a-z]{0,5}",
        );
        all.prop_map(|(ended, begun, last)| {
            [ended.concat(), begun.concat(), last.into_bytes()].concat()
        })
    }

    proptest! {
        #[test]
        fn in_and_out_leaves_the_file_as_it_was(
            text in lines(),
            content in "[a-z =]{1,20}(\n[a-z =]{1,20}){0,3}",
        ) {
            let in_file = with_in_file(&text, Some(&content));
            prop_assert!(!is_all_of(&in_file));
            prop_assert_eq!(&with_in_file(&in_file, None), &text);
            let there = with(&text, Some(&content));
            prop_assert_eq!(is_all_of(&there), text.is_empty());
            prop_assert_eq!(body(&there), Some(content.clone()));
            prop_assert_eq!(&with(&there, Some(&content)), &there);
            prop_assert_eq!(with(&there, None), text);
        }
    }
}
