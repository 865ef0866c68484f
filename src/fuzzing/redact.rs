//! Secrets in a text.

use crate::meter::bodies::redact as redacted;

const SECRET: &str = "sk-ant-api03-abcdefghijkl";

/// The first three bytes choose how much of it is kept and where a secret stands in it.
pub fn redact(data: &[u8]) {
    let Some((&[keep, high, low], rest)) = data.split_first_chunk() else { return };
    let text = String::from_utf8_lossy(rest);
    let share = |of: usize, part: usize, parts: usize| of * part / parts;
    let plain = redacted(&text, text.len());
    if plain.found.is_empty() {
        assert_eq!(plain.text, text, "nothing was found, and yet");
    }
    let at = text.floor_char_boundary(share(
        text.len(),
        usize::from(high) << 8 | usize::from(low),
        0xffff,
    ));
    let (before, after) = text.split_at(at);
    let with = format!("{before}{SECRET}{after}");
    let kept = redacted(&with, share(with.len(), usize::from(keep), 0xff));
    let left = kept.text.contains(SECRET) || kept.text.contains("ant-api03-a");
    assert!(!left || text.contains("ant-api03-a"), "{}", kept.text);
}
