//! The rounding of figures for people.

/// To hundredths: more digits would only look exact.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
