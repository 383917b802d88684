//! Regression tests of the effects' quality: the figures of `make quality` are compared with the
//! committed ones.
//!
//! To renew them after an effect has improved, run
//! `OOBLEX_BLESS=1 cargo test --release -p ooblex-effects --test all quality`.

mod figures;
mod scenes;

use std::{env, fs};

use crate::common::*;
use ooblex_effects::{Backend, effects};
use serde_json::{Map, Value, json};

/// Tolerated deterioration of a figure as a fraction of the committed one, since CPUs differ in
/// rounding.
const SHARE: f64 = 0.12;
/// Absolute amount added to the tolerance of [`SHARE`].
const AMOUNT: f64 = 0.02;

#[test]
fn effects_are_as_steady_and_as_right_as_they_were() {
    let figures = figures::all(&mut models(Backend::Ort, &effects()));
    if env::var_os("OOBLEX_BLESS").is_some() {
        let all: Map<_, _> =
            figures.iter().map(|figure| (figure.name.to_string(), json!({"before": figure.before, "after": figure.after}))).collect();
        fs::write(data("quality.json"), format!("{:#}\n", Value::from(all))).unwrap();
    }
    let committed: Value = serde_json::from_str(&fs::read_to_string(data("quality.json")).unwrap()).unwrap();
    assert_eq!(committed.as_object().unwrap().len(), figures.len());
    for figure in &figures {
        println!("{:16} {:8.4} -> {:8.4}  {}", figure.name, figure.before, figure.after, figure.meaning);
        let held = committed[figure.name]["after"].as_f64().unwrap();
        let worse = if figure.rises { (held - figure.after) * 5.0 } else { figure.after - held };
        assert!(worse <= SHARE * held + AMOUNT, "{} was {held} and is {}", figure.name, figure.after);
    }
    let after = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap().after;
    assert!(after("style_flicker") <= 1.5, "a still scene's painting changes by more than 1.5 times what the scene does");
    assert!(after("style_smear") <= 0.3);
    assert_eq!(after("id_switches"), 0.0);
}
