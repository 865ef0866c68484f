//! Numbers as providers write them: integer, float, string, null, absent.

use serde_json::Value;

/// A count at `path` below `value`. Absent and null are `None`, never 0.
pub(super) fn count(value: &Value, path: &[&str]) -> Option<u64> {
    as_count(walk(value, path)?)
}

/// `value` as a count.
pub(super) fn as_count(value: &Value) -> Option<u64> {
    match value {
        // Cohere bills in floats.
        Value::Number(number) => number.as_u64().or_else(|| rounded(number.as_f64()?)),
        // 64-bit integers in JSON made from protocol buffers.
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number at `path`, in thousandths.
pub(super) fn thousandths(value: &Value, path: &[&str]) -> Option<u64> {
    let value = walk(value, path)?;
    // Whisper's is a text at times.
    let float = value.as_f64().or_else(|| value.as_str()?.parse().ok())?;
    if float.fract() == 0.0 {
        as_count(value).or_else(|| rounded(float))?.checked_mul(1000)
    } else {
        rounded(float * 1000.0)
    }
}

/// Negative, infinite or absurd numbers are no counts.
fn rounded(float: f64) -> Option<u64> {
    let float = float.round();
    (0.0..9e15).contains(&float).then(|| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the range was checked"
        )]
        let whole = float as u64;
        whole
    })
}

pub(super) fn text<'a>(value: &'a Value, path: &[&str]) -> Option<&'a str> {
    walk(value, path)?.as_str().filter(|text| !text.is_empty())
}

pub(super) fn walk<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| value.get(key))
}

/// `a + b` where absent parts add nothing, and absent + absent stays absent.
pub(super) fn plus(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}

/// `a - b`, not below 0; absent when `a` is.
pub(super) fn minus(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a?.saturating_sub(b.unwrap_or(0)))
}
