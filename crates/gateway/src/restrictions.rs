//! The restrictions of a session: effects, parameters and sizes that its token allows.
//!
//! Every change of the session's effect is checked against them, whichever way it comes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use ooblex_config::Limits;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::problem::{Problem, ProblemKind};
use crate::settings::{Catalogue, Settings};

/// The restrictions of a session.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Restrictions {
    /// Allowed effects; `None` allows all. The first one is the default of sessions that ask for
    /// none. Unless `none` is listed, the effect cannot be removed.
    #[serde(default, deserialize_with = "given")]
    pub effects: Option<Vec<String>>,
    /// Allowed parameter values, by effect and parameter name.
    #[serde(default)]
    pub params: BTreeMap<String, BTreeMap<String, Allowed>>,
    /// Largest frame in thousands of pixels; larger ones are scaled down.
    #[serde(default, deserialize_with = "given")]
    pub max_kilopixels: Option<NonZeroU32>,
    /// True to record the room of the session.
    #[serde(default)]
    pub record: bool,
}

/// The allowed values of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Allowed {
    /// A single value.
    Value(Value),
    /// A list of values.
    OneOf(Vec<Value>),
    /// An inclusive range of numbers.
    Range {
        /// Smallest allowed number.
        min: f64,
        /// Largest allowed number.
        max: f64,
    },
}

/// Deserializes a claim that must have a value if it is present: `null` does not mean "no
/// restriction".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl<'de> Deserialize<'de> for Allowed {
    /// Reads a value, a list of values, or a range such as `{"min": 0.5, "max": 1}`.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Range {
            min: Option<f64>,
            max: Option<f64>,
        }
        match Value::deserialize(from)? {
            Value::Array(values) => Ok(Allowed::OneOf(values)),
            range @ Value::Object(_) => {
                let Range { min, max } = serde_json::from_value(range).map_err(de::Error::custom)?;
                Ok(Allowed::Range { min: min.unwrap_or(f64::NEG_INFINITY), max: max.unwrap_or(f64::INFINITY) })
            }
            Value::Null => Err(de::Error::custom("a parameter that is restricted has a value, a list of values, or min and max")),
            value => Ok(Allowed::Value(value)),
        }
    }
}

impl Allowed {
    fn allows(&self, value: &Value) -> bool {
        // JSON numbers are compared by value, so that 1 equals 1.0.
        let same = |a: &Value, b: &Value| a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b);
        match self {
            Allowed::Value(only) => same(only, value),
            Allowed::OneOf(values) => values.iter().any(|one| same(one, value)),
            Allowed::Range { min, max } => value.as_f64().is_some_and(|number| (*min..=*max).contains(&number)),
        }
    }

    /// Returns the allowed value that replaces a disallowed one.
    fn nearest(&self, value: &Value) -> Option<Value> {
        match self {
            Allowed::Value(only) => Some(only.clone()),
            Allowed::OneOf(values) => values.first().cloned(),
            Allowed::Range { min, max } if min <= max => value.as_f64().map(|number| number.clamp(*min, *max).into()),
            Allowed::Range { .. } => None,
        }
    }
}

impl Restrictions {
    /// Returns the maximum size of the session's frames in thousands of pixels.
    pub fn frame_kilopixels(&self, limits: &Limits) -> u32 {
        self.max_kilopixels.map_or(limits.frame_kilopixels, |max| limits.frame_kilopixels.min(max.get()))
    }

    /// Returns the settings for an offer: the requested effect, or the first allowed one.
    ///
    /// # Errors
    /// As [`Catalogue::settings`], and when the effect or a parameter is not allowed.
    pub fn settings(&self, catalogue: &Catalogue, name: Option<&str>, params: &Value) -> Result<Settings, Problem> {
        let default = catalogue.default_effect();
        let own = match (name, &self.effects) {
            (None, Some(effects)) if !default.as_str().split('+').all(|part| effects.iter().any(|effect| effect == part)) => {
                effects.first()
            }
            _ => None,
        };
        let settings = catalogue.settings(name.or(own.map(String::as_str)), params)?;
        self.permit(catalogue, settings, params)
    }

    /// Checks a change of the current settings.
    ///
    /// # Errors
    /// As [`Catalogue::change`], and when the effect or a parameter is not allowed.
    pub fn change(&self, catalogue: &Catalogue, current: &Settings, name: Option<&str>, params: &Value) -> Result<Settings, Problem> {
        let settings = catalogue.change(current, name, params)?;
        self.permit(catalogue, settings, params)
    }

    /// Returns the settings if they are allowed. A disallowed default is replaced by an allowed
    /// value, unless the parameter is in `asked`.
    ///
    /// # Errors
    /// When an effect, or a requested parameter, is not allowed.
    pub fn permit(&self, catalogue: &Catalogue, settings: Settings, asked: &Value) -> Result<Settings, Problem> {
        let parts = settings.effect.parts();
        if let Some(allowed) = &self.effects
            && let Some(part) = parts.iter().find(|part| !allowed.iter().any(|name| name == part.name().as_str()))
        {
            let detail = format!(
                "this session may not have the effect '{}'; it may have: {}. Its token says so: ask for one with other effects",
                part.name(),
                if allowed.is_empty() { "none at all".into() } else { allowed.join(", ") }
            );
            return Err(Problem::new(ProblemKind::Forbidden, detail));
        }
        if parts.iter().all(|part| !self.params.contains_key(part.name().as_str())) {
            return Ok(settings);
        }
        let mut params = settings.parameters.to_json();
        let is_chain = parts.len() > 1;
        let mut is_changed = false;
        for part in parts {
            let name = part.name();
            for (parameter, allowed) in self.params.get(name.as_str()).into_iter().flatten() {
                let of = |value: &Value| if is_chain { value[name.as_str()][parameter].clone() } else { value[parameter].clone() };
                let value = of(&params);
                if allowed.allows(&value) {
                    continue;
                }
                // A restriction of a parameter that the effect does not have cannot be met, so the
                // effect is refused.
                let nearest = allowed.nearest(&value).filter(|_| of(asked).is_null() && !value.is_null());
                let Some(nearest) = nearest else {
                    let detail = format!("this session may not have {name} with {parameter} = {value}: its token restricts that parameter");
                    return Err(Problem::new(ProblemKind::Forbidden, detail));
                };
                if is_chain {
                    params[name.as_str()][parameter] = nearest;
                } else {
                    params[parameter] = nearest;
                }
                is_changed = true;
            }
        }
        if !is_changed {
            return Ok(settings);
        }
        let settings = catalogue.settings(Some(settings.effect.name().as_str()), &params)?;
        // The replaced values may have been rounded or have the wrong type, so the result is
        // checked once more.
        self.permit(catalogue, settings, &params)
    }
}

impl Serialize for Allowed {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Allowed::Value(value) => value.serialize(to),
            Allowed::OneOf(values) => values.serialize(to),
            Allowed::Range { min, max } => serde_json::json!({"min": min, "max": max}).serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use ooblex_config::Config;

    fn catalogue() -> Catalogue {
        Catalogue::new(&Config::default()).unwrap()
    }

    fn restrictions(claims: Value) -> Restrictions {
        serde_json::from_value(claims).unwrap()
    }

    #[test]
    fn an_effect_that_is_not_listed_is_not_had_alone_nor_in_a_chain() {
        let (catalogue, blur_only) = (catalogue(), restrictions(json!({"effects": ["background_blur", "sepia"]})));
        let ask =
            |name: Option<&str>| blur_only.settings(&catalogue, name, &Value::Null).map(|settings| settings.effect.name().to_string());
        assert_eq!(ask(Some("background_blur")).unwrap(), "background_blur");
        assert_eq!(ask(Some("background_blur+sepia")).unwrap(), "background_blur+sepia");
        for refused in ["none", "face_detection", "background_blur+face_detection"] {
            assert_eq!(ask(Some(refused)).unwrap_err().kind, ProblemKind::Forbidden, "{refused}");
        }
        assert_eq!(ask(Some("nothing")).unwrap_err().kind, ProblemKind::UnknownEffect);
    }

    #[test]
    fn an_offer_that_asks_for_nothing_gets_what_it_may_have() {
        let mut config = Config::default();
        config.serve.default_effect = "none".into();
        let catalogue = Catalogue::new(&config).unwrap();
        let ask = |claims| restrictions(claims).settings(&catalogue, None, &Value::Null).map(|settings| settings.effect.name().to_string());
        assert_eq!(ask(json!({})).unwrap(), "none");
        assert_eq!(ask(json!({"effects": ["sepia", "background_blur"]})).unwrap(), "sepia");
        assert_eq!(ask(json!({"effects": ["sepia", "none"]})).unwrap(), "none", "the operator's default, as it is allowed");
        assert_eq!(ask(json!({"effects": []})).unwrap_err().kind, ProblemKind::Forbidden);
        assert_eq!(ask(json!({"effects": ["gone"]})).unwrap_err().kind, ProblemKind::UnknownEffect);
    }

    #[test]
    fn parameters_stay_where_the_token_has_them() {
        let catalogue = catalogue();
        let strong = restrictions(json!({"params": {"background_blur": {"strength": {"min": 0.9}}}}));
        let ask =
            |name: &str, params: Value| strong.settings(&catalogue, Some(name), &params).map(|settings| settings.parameters.to_json());
        assert_eq!(ask("background_blur", Value::Null).unwrap()["strength"], json!(0.9), "the default is moved");
        assert_eq!(ask("background_blur", json!({"strength": 0.95})).unwrap()["strength"], json!(0.95));
        assert_eq!(ask("background_blur", json!({"strength": 0.0})).unwrap_err().kind, ProblemKind::Forbidden);
        assert_eq!(ask("background_blur+sepia", Value::Null).unwrap()["background_blur"]["strength"], json!(0.9));
        let weak = json!({"background_blur": {"strength": 0.1}});
        assert_eq!(ask("background_blur+sepia", weak).unwrap_err().kind, ProblemKind::Forbidden);
        assert!(ask("sepia", Value::Null).is_ok(), "others are free");
        let current = strong.settings(&catalogue, Some("background_blur"), &Value::Null).unwrap();
        assert!(strong.change(&catalogue, &current, None, &json!({"strength": 0.2})).is_err());
        assert!(strong.change(&catalogue, &current, None, &json!({"strength": 1.0})).is_ok());
        let misspelt = restrictions(json!({"params": {"background_blur": {"strenght": 1}}}));
        assert_eq!(misspelt.settings(&catalogue, None, &Value::Null).err().unwrap().kind, ProblemKind::Forbidden);
        let contradictory = restrictions(json!({"params": {"background_blur": {"strength": {"min": 1, "max": 0}}}}));
        assert!(contradictory.settings(&catalogue, None, &Value::Null).is_err());
    }

    #[test]
    fn claims_that_make_no_sense_are_refused_and_never_read_as_everything() {
        for claims in [
            json!({"effects": null}),
            json!({"effects": "sepia"}),
            json!({"effects": [7]}),
            json!({"max_kilopixels": 0}),
            json!({"max_kilopixels": null}),
            json!({"max_kilopixels": -1}),
            json!({"record": "no"}),
            json!({"record": null}),
            json!({"params": {"sepia": 1}}),
            json!({"params": {"sepia": {"strength": null}}}),
            json!({"params": {"sepia": {"strength": {"least": 1}}}}),
        ] {
            assert!(serde_json::from_value::<Restrictions>(claims.clone()).is_err(), "{claims}");
        }
    }
}
