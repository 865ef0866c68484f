//! Money as integers.

/// Nano-dollars: 10⁻⁹ USD. Rates are nano-dollars per million units.
pub type NanoUsd = i64;
