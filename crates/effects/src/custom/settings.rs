//! Parameters of a custom effect: those of its kind of output, as modified by the declaration, and
//! those passed to the model as tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use toml::Spanned;

use super::error::{CustomEffectError, Place};
use super::spec::{Declared, Located, Mask, Output};
use super::toml::{Default as Given, Parameter as Written, Rest};
use crate::parameters::{Kind, Parameter};

/// Name of the parameter for the strength of the effect, which the painter reads.
pub(super) const STRENGTH: &str = "strength";
/// Name of the parameter for the softness of a mask's edge, which the painter reads.
pub(super) const SOFTNESS: &str = "edge_softness";
/// Name of the parameter for the minimum score, which the painter reads.
pub(super) const THRESHOLD: &str = "threshold";
/// Name of the flag that shows labels, which the painter reads.
pub(super) const LABELS: &str = "labels";

/// Maximum number of declared parameters.
const MOST: usize = 8;

/// Returns all parameters of an effect with this output. `place` converts an offset in the file to
/// a place.
pub(super) fn declared(
    output: &Output,
    written: &BTreeMap<String, Spanned<Written>>,
    place: &dyn Fn(usize) -> Place,
) -> Result<Vec<Declared>, CustomEffectError> {
    let wrong = |at, what| CustomEffectError::Declaration { place: place(at), what };
    let mut declared: Vec<_> = of_kind(output).into_iter().map(|parameter| Declared { parameter, input: None }).collect();
    let known: Vec<_> = declared.iter().map(|declared| declared.parameter.name.clone()).collect();
    if written.len() > MOST {
        return Err(wrong(0, format!("an effect may have {MOST} parameters")));
    }
    for (name, given) in written {
        let start = given.span().start;
        let refuse = |what: String| wrong(start, format!("parameters.{name}: {what}"));
        let own = given.get_ref();
        if name.len() > 40 || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return Err(refuse("a parameter's name has small letters, digits and '_', 40 at most".into()));
        }
        let own_default = own.default.as_ref().map(|default| *default.get_ref());
        match (declared.iter_mut().find(|declared| declared.parameter.name == *name), &own.input) {
            (Some(_), Some(_)) => {
                return Err(refuse("this one belongs to the kind of effect, and goes into no tensor: choose another name".into()));
            }
            (Some(declared), None) => {
                let parameter = &mut declared.parameter;
                parameter.kind = changed(&parameter.kind, own, own_default).map_err(refuse)?;
                if let Some(title) = &own.title {
                    parameter.title = title.clone().into();
                }
                if let Some(description) = &own.description {
                    parameter.description = description.clone().into();
                }
            }
            (None, Some(input)) => {
                let (Some(min), Some(max), Some(Given::Number(default))) = (own.min, own.max, own_default) else {
                    return Err(refuse("one that goes into the model has numbers for min, max and default".into()));
                };
                if !(min.is_finite() && max.is_finite() && min < max && (min..=max).contains(&default)) {
                    return Err(refuse("min < max must hold, and the default lie between them".into()));
                }
                let parameter = Parameter {
                    name: name.clone().into(),
                    title: own.title.clone().unwrap_or_else(|| name.clone()).into(),
                    description: own.description.clone().map_or("What the model takes beside the picture.".into(), Cow::from),
                    kind: Kind::Number { min, max, default },
                };
                declared.push(Declared {
                    parameter,
                    input: Some(Located { value: input.get_ref().clone(), place: place(input.span().start) }),
                });
            }
            (None, None) => {
                let known = known.join(", ");
                return Err(refuse(format!(
                    "an effect of this kind has {known}; one that the model takes names its tensor, as input = \"…\""
                )));
            }
        }
    }
    Ok(declared)
}

/// Returns a parameter's type with the declared range and default.
fn changed(kind: &Kind, written: &Written, given: Option<Given>) -> Result<Kind, String> {
    match (kind, given) {
        (Kind::Flag { default }, None | Some(Given::Flag(_))) if written.min.is_none() && written.max.is_none() => {
            let default = if let Some(Given::Flag(given)) = given { given } else { *default };
            Ok(Kind::Flag { default })
        }
        (Kind::Flag { .. }, _) => Err("it is true or false".into()),
        (Kind::Number { min, max, default }, None | Some(Given::Number(_))) => {
            let default = if let Some(Given::Number(given)) = given { given } else { *default };
            let (least, greatest) = (written.min.unwrap_or(*min), written.max.unwrap_or(*max));
            if least < *min || greatest > *max || least >= greatest || !(least..=greatest).contains(&default) {
                return Err(format!("it may go from {min} to {max}, with min < max and the default between them"));
            }
            Ok(Kind::Number { min: least, max: greatest, default })
        }
        _ => Err("its default is a number".into()),
    }
}

/// Returns the parameters that every effect with this kind of output has.
fn of_kind(output: &Output) -> Vec<Parameter> {
    let number = |name, title, description, min, default| Parameter::new(name, title, description, Kind::Number { min, max: 1.0, default });
    let softness = || number(SOFTNESS, "Soft edge", "How gradually the one part passes into the other.", 0.0, 0.5);
    match output {
        Output::Picture(_) => {
            vec![number(
                STRENGTH,
                "Strength",
                "How much of the effect is seen: at 0 the camera's picture, at 1 the effect alone.",
                0.0,
                1.0,
            )]
        }
        Output::Mask(Mask { rest: Rest::Blur, .. }) => {
            let description = "How strongly it is blurred; at 0 still enough that nothing can be read.";
            vec![number(STRENGTH, "Strength", description, 0.0, 0.6), softness()]
        }
        Output::Mask(Mask { rest: Rest::Tint, .. }) => {
            vec![number(STRENGTH, "Strength", "How much of the colour is laid over.", 0.0, 0.6), softness()]
        }
        Output::Mask(Mask { rest: Rest::Replace, .. }) => vec![softness()],
        Output::Boxes(_) | Output::Labels(_) => {
            let description = "How certain the model must be.";
            let labels = Parameter::new(LABELS, "Labels", "What it is, and how certain the model is.", Kind::Flag { default: true });
            let least = if matches!(output, Output::Boxes(_)) { 0.05 } else { 0.0 };
            let mut parameters = vec![number(THRESHOLD, "Certainty", description, least, if least > 0.0 { 0.5 } else { 0.1 })];
            if matches!(output, Output::Boxes(_)) {
                parameters.push(labels);
            }
            parameters
        }
    }
}
