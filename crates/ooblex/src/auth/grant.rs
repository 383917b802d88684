//! The permissions of a caller: rooms, roles, and the restrictions that its session carries.
//!
//! [`Grant`] is what a key, a token or the hook gives. [`Restrictions`] is the part of it that a session keeps, and that every change of
//! its effect is held against, whichever way it comes. It knows nothing of HTTP.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::config::Role;
use crate::problem::{Problem, ProblemKind};
use crate::settings::{Catalogue, Settings};

/// The permissions of a caller.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grant {
    /// Rooms that it may send a camera to. `POST /offer` has no room, and any pattern here allows it.
    pub publish: Rooms,
    /// Rooms that it may watch.
    pub view: Rooms,
    /// Tells whether it may do what an operator may.
    pub admin: bool,
    /// The restrictions of its sessions.
    pub restrictions: Restrictions,
    /// When it ends, and its sessions with it.
    pub expires: Option<SystemTime>,
}

impl Grant {
    /// The permissions that a role stands for.
    pub fn of(role: Role) -> Self {
        let mut grant = Self::default();
        match role {
            Role::Publish => grant.publish = Rooms::all(),
            Role::View => grant.view = Rooms::all(),
            Role::Admin => {
                (grant.publish, grant.view, grant.admin) = (Rooms::all(), Rooms::all(), true);
            }
        }
        grant
    }

    /// Tells whether it may begin sessions that send a camera.
    pub fn may_publish(&self) -> bool {
        self.admin || self.publish.is_any()
    }

    /// How long it still holds; `None`: for good.
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        self.expires.map(|at| at.duration_since(now).unwrap_or_default())
    }
}

/// Patterns of rooms' names, in which `*` stands for any characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rooms(Vec<String>);

impl Rooms {
    /// All rooms.
    pub fn all() -> Self {
        Self(vec!["*".into()])
    }

    /// Tells whether there can be a room that matches.
    pub fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Tells whether a room is among them.
    pub fn has(&self, room: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, room))
    }
}

impl<'de> Deserialize<'de> for Rooms {
    /// `true`, `false`, one pattern, or a list of patterns.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::Bool(true) => Ok(Self::all()),
            Value::Bool(false) => Ok(Self::default()),
            Value::String(pattern) => Ok(Self(vec![pattern])),
            list => Ok(Self(serde_json::from_value(list).map_err(de::Error::custom)?)),
        }
    }
}

/// Tells whether `name` matches a pattern with `*`. Time is proportional to the product of both lengths at most.
fn matches(pattern: &str, name: &str) -> bool {
    let parts: Vec<&str> = pattern.split('*').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    middle.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// The restrictions of a session.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Restrictions {
    /// Effects that it may have, the one of sessions that ask for none first; not set: all. Without `none` among them the effect cannot be
    /// taken off.
    #[serde(default, deserialize_with = "given")]
    pub effects: Option<Vec<String>>,
    /// Values that parameters may have, by effect and parameter.
    #[serde(default)]
    pub params: BTreeMap<String, BTreeMap<String, Allowed>>,
    /// Pixels of a frame at most, in thousands.
    #[serde(default, deserialize_with = "given")]
    pub max_kilopixels: Option<NonZeroU32>,
}

/// Values that a parameter may have.
#[derive(Debug, Clone, PartialEq)]
pub enum Allowed {
    /// This one.
    Value(Value),
    /// One of these.
    OneOf(Vec<Value>),
    /// A number from here to there.
    Range {
        /// The smallest.
        min: f64,
        /// The largest.
        max: f64,
    },
}

/// A claim that is there must have a value: `null` does not stand for "everything".
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl<'de> Deserialize<'de> for Allowed {
    /// A value, a list of values, or `{"min": 0.5, "max": 1}`.
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
        // 1 and 1.0 are the same number.
        let same = |a: &Value, b: &Value| a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b);
        match self {
            Allowed::Value(only) => same(only, value),
            Allowed::OneOf(values) => values.iter().any(|one| same(one, value)),
            Allowed::Range { min, max } => value.as_f64().is_some_and(|number| (*min..=*max).contains(&number)),
        }
    }

    /// An allowed value in the place of one that is not.
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
    /// The settings for an offer: the effect that it asks for, or the first that it may have.
    ///
    /// # Errors
    /// As [`Catalogue::settings`], and when that is not allowed.
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

    /// A change of the settings in force.
    ///
    /// # Errors
    /// As [`Catalogue::change`], and when that is not allowed.
    pub fn change(&self, catalogue: &Catalogue, current: &Settings, name: Option<&str>, params: &Value) -> Result<Settings, Problem> {
        let settings = catalogue.change(current, name, params)?;
        self.permit(catalogue, settings, params)
    }

    /// The settings if they are allowed. Parameters that were not `asked` for get an allowed value in the place of a default that is not.
    ///
    /// # Errors
    /// When an effect, or a parameter that was asked for, is not allowed.
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
                // A parameter that the effect does not have cannot be restricted, so the effect cannot be had.
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
        // The values that were put in could be rounded, or be of the wrong kind, so the result is checked once more.
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
    use crate::config::Config;

    fn catalogue() -> Catalogue {
        Catalogue::new(&Config::default()).unwrap()
    }

    fn restrictions(claims: Value) -> Restrictions {
        serde_json::from_value(claims).unwrap()
    }

    #[test]
    fn rooms_match_patterns() {
        let rooms = |claim: Value| serde_json::from_value::<Rooms>(claim).unwrap();
        for (claim, yes, no) in [
            (json!("*"), &["a", "", "a*b"][..], &[][..]),
            (json!(true), &["a"], &[]),
            (json!(["team-*", "lobby"]), &["team-", "team-7", "lobby"], &["lobby2", "a-team-7", ""]),
            (json!("a*b*c"), &["abc", "aXbYc", "abbc"], &["ac", "abcd", "acb"]),
            (json!("aa*aa"), &["aaaa", "aaXaa"], &["aaa"]),
            (json!(false), &[], &["a", ""]),
            (json!([]), &[], &["a"]),
        ] {
            let rooms = rooms(claim.clone());
            assert!(yes.iter().all(|room| rooms.has(room)) && !no.iter().any(|room| rooms.has(room)), "{claim}");
        }
        assert!(serde_json::from_value::<Rooms>(json!(7)).is_err() && serde_json::from_value::<Rooms>(Value::Null).is_err());
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
            json!({"params": {"sepia": 1}}),
            json!({"params": {"sepia": {"strength": null}}}),
            json!({"params": {"sepia": {"strength": {"least": 1}}}}),
        ] {
            assert!(serde_json::from_value::<Restrictions>(claims.clone()).is_err(), "{claims}");
        }
    }
}
