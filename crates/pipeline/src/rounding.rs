//! Rounding of numbers for output.

/// Rounds to two decimals; more digits would suggest a false precision.
pub fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
