//! Nano-dollars (10⁻⁹ USD) as integers, and the one rounding that a row gets.

/// What `Σ units × rate` is divided by: rates are per million tokens, factors per mille.
pub(super) const SCALE: i128 = 1_000_000 * 1_000;

/// Divides by [`SCALE`], half up. `None` when the result is out of range.
pub(super) fn round_half_up(scaled: i128) -> Option<i64> {
    i64::try_from(scaled.checked_add(SCALE / 2)?.div_euclid(SCALE)).ok()
}

/// `0.0714` → 71 400 000. Reads the JSON number's own digits, so that no float is involved; what is
/// beyond a nano-dollar is rounded half up. `None` for what is not a plain or scientific number.
#[must_use]
pub fn nano_from_decimal(text: &str) -> Option<i64> {
    shifted(text, 9)
}

/// `text × 10^shift`, half up.
pub(crate) fn shifted(text: &str, shift: i32) -> Option<i64> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (negative, whole) = whole.strip_prefix('-').map_or((false, whole), |w| (true, w));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || mantissa.len() > 40 {
        return None;
    }
    // The value is `digits × 10^(exponent - fraction.len())`.
    let digits = format!("{whole}{fraction}");
    let mut shift = shift.checked_add(exponent)?;
    shift = shift.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let mut value: i128 = digits.parse().ok()?;
    for _ in 0..shift.clamp(0, 40) {
        value = value.checked_mul(10)?;
    }
    let mut round_up = false;
    for _ in 0..shift.min(0).unsigned_abs().min(80) {
        round_up = value % 10 >= 5;
        value /= 10;
    }
    let value = i64::try_from(value + i128::from(round_up)).ok()?;
    Some(if negative { -value } else { value })
}

/// `1_234_500_000` → `"1.2345"`: exact, without trailing zeros, never in scientific form.
#[must_use]
pub fn usd(nano: i64) -> String {
    let sign = if nano < 0 { "-" } else { "" };
    let magnitude = nano.unsigned_abs();
    let (whole, rest) = (magnitude / 1_000_000_000, magnitude % 1_000_000_000);
    let text = format!("{sign}{whole}.{rest:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
