//! What changes in a text, for people: one hunk, as `diff -u` shows it. Our changes are in one place.

const CONTEXT: usize = 2;

/// Lines with `-`, `+` or a space before them; empty: no change.
#[must_use]
pub fn lines(before: &str, after: &str) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let same =
        |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
    let head = same(&mut old.iter().zip(&new));
    let tail = same(&mut old.iter().rev().zip(new.iter().rev()));
    let tail = tail.min(old.len().min(new.len()) - head);
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let shown = |mark: &str, part: &[&str]| {
        part.iter().map(|line| format!("{mark}{line}")).collect::<Vec<_>>()
    };
    let after_it = &old[old_end..old.len().min(old_end + CONTEXT)];
    [
        shown(" ", &old[head.saturating_sub(CONTEXT)..head]),
        shown("-", &old[head..old_end]),
        shown("+", &new[head..new_end]),
        shown(" ", after_it),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hunk_with_what_is_around_it() {
        let diff = lines("a\nb\nc\nd\ne\n", "a\nb\nc\nX\nY\ne\n");
        assert_eq!(diff, [" b", " c", "-d", "+X", "+Y", " e"]);
        assert_eq!(lines("a\n", "a\nb\n"), [" a", "+b"]);
        assert_eq!(lines("a\na\n", "a\na\na\n"), [" a", " a", "+a"]);
        assert_eq!(lines("", "x\n"), ["+x"]);
        assert_eq!(lines("x\n", "x\n"), Vec::<String>::new());
    }
}
