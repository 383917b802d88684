//! Parameters of effects: their declaration, their JSON Schema, and values checked against it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value, json};

/// Declaration of one parameter.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Name in requests, snake case.
    pub name: Cow<'static, str>,
    /// Name shown to users.
    pub title: Cow<'static, str>,
    /// One sentence that says what the parameter changes in the picture.
    pub description: Cow<'static, str>,
    /// Type, range and default.
    pub kind: Kind,
}

/// Type of a parameter with its range and default.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A number within `min..=max`.
    Number {
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
        /// Value if none is given.
        default: f64,
    },
    /// One of several words.
    Choice {
        /// The allowed words, best ones first.
        options: &'static [&'static str],
        /// Word if none is given.
        default: &'static str,
    },
    /// A boolean.
    Flag {
        /// Value if none is given.
        default: bool,
    },
    /// Weights, each 0..=1, for any of several words; empty by default.
    Weights {
        /// The allowed words.
        options: &'static [&'static str],
    },
}

/// Checked values of all parameters of one effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters(BTreeMap<Cow<'static, str>, Setting>);

#[derive(Debug, Clone, PartialEq)]
enum Setting {
    Number(f64),
    Choice(&'static str),
    Flag(bool),
    Weights(Vec<(&'static str, f64)>),
}

/// Reason why a value is refused. The message names the parameter and says what would be accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ParameterError {
    /// The parameters are not a JSON object.
    #[error("parameters must be a JSON object such as {{\"strength\": 0.7}}, not {0}")]
    NotAnObject(String),
    /// The effect has no such parameter.
    #[error("there is no parameter '{name}'; known: {known}")]
    Unknown {
        /// The name as it was given, shortened.
        name: String,
        /// Names of the effect's parameters, comma separated.
        known: String,
    },
    /// The value has the wrong type or is out of range.
    #[error("parameter '{name}' must be {expected}, not {got}")]
    Invalid {
        /// Name of the parameter.
        name: String,
        /// Description of the accepted values.
        expected: String,
        /// The value as it was given, shortened.
        got: String,
    },
}

impl Parameter {
    /// Makes a parameter that is known at build time.
    pub const fn new(name: &'static str, title: &'static str, description: &'static str, kind: Kind) -> Self {
        Self { name: Cow::Borrowed(name), title: Cow::Borrowed(title), description: Cow::Borrowed(description), kind }
    }
}

impl Parameters {
    /// Returns the default values of all parameters.
    pub fn defaults(declared: &[Parameter]) -> Self {
        Self(declared.iter().map(|p| (p.name.clone(), p.kind.default())).collect())
    }

    /// Checks `given` (an object, or null for no values) and fills in defaults.
    ///
    /// # Errors
    /// On the first value that is unknown, of the wrong type, or out of range.
    pub fn parse(declared: &[Parameter], given: &Value) -> Result<Self, ParameterError> {
        let mut parameters = Self::defaults(declared);
        let given = match given {
            Value::Null => return Ok(parameters),
            Value::Object(given) => given,
            other => return Err(ParameterError::NotAnObject(brief(other))),
        };
        for (name, value) in given {
            let Some(parameter) = declared.iter().find(|p| p.name == *name) else {
                let known: Vec<_> = declared.iter().map(|p| p.name.as_ref()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(ParameterError::Unknown { name: brief(&json!(name)), known });
            };
            parameters.0.insert(parameter.name.clone(), parameter.kind.parse(&parameter.name, value)?);
        }
        Ok(parameters)
    }

    /// Returns the value of a number.
    ///
    /// # Panics
    /// When the effect declares no such number: a bug of the effect, found by its first test.
    pub fn number(&self, name: &str) -> f64 {
        match self.0.get(name) {
            Some(Setting::Number(value)) => *value,
            other => panic!("'{name}' is not a declared number but {other:?}"),
        }
    }

    /// Returns the word of a choice.
    ///
    /// # Panics
    /// When the effect declares no such choice.
    pub fn choice(&self, name: &str) -> &'static str {
        match self.0.get(name) {
            Some(Setting::Choice(value)) => value,
            other => panic!("'{name}' is not a declared choice but {other:?}"),
        }
    }

    /// Returns the value of a flag.
    ///
    /// # Panics
    /// When the effect declares no such flag.
    pub fn flag(&self, name: &str) -> bool {
        match self.0.get(name) {
            Some(Setting::Flag(value)) => *value,
            other => panic!("'{name}' is not a declared flag but {other:?}"),
        }
    }

    /// Returns the words with a weight above 0.
    ///
    /// # Panics
    /// When the effect declares no such weights.
    pub fn weights(&self, name: &str) -> &[(&'static str, f64)] {
        match self.0.get(name) {
            Some(Setting::Weights(value)) => value,
            other => panic!("'{name}' are not declared weights but {other:?}"),
        }
    }

    /// Returns every parameter with its value as JSON.
    pub fn to_json(&self) -> Value {
        self.0
            .iter()
            .map(|(name, setting)| {
                let value = match setting {
                    Setting::Number(v) => json!(v),
                    Setting::Choice(v) => json!(v),
                    Setting::Flag(v) => json!(v),
                    Setting::Weights(v) => v.iter().map(|(name, weight)| (name.to_string(), json!(weight))).collect(),
                };
                (name.to_string(), value)
            })
            .collect()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Number { min, max, default } => write!(f, "{min} to {max} [default: {default}]"),
            Kind::Choice { options, default } => write!(f, "{} [default: {default}]", options.join(" | ")),
            Kind::Flag { default } => write!(f, "true | false [default: {default}]"),
            Kind::Weights { .. } => write!(f, "{{\"name\": 0 to 1, …}} [default: {{}}]"),
        }
    }
}

impl Kind {
    fn default(&self) -> Setting {
        match self {
            Kind::Number { default, .. } => Setting::Number(*default),
            Kind::Choice { default, .. } => Setting::Choice(default),
            Kind::Flag { default } => Setting::Flag(*default),
            Kind::Weights { .. } => Setting::Weights(Vec::new()),
        }
    }

    fn parse(&self, name: &str, value: &Value) -> Result<Setting, ParameterError> {
        let invalid = |expected: String| ParameterError::Invalid { name: name.into(), expected, got: brief(value) };
        match self {
            Kind::Number { min, max, .. } => match value.as_f64() {
                Some(v) if (*min..=*max).contains(&v) => Ok(Setting::Number(v)),
                _ => Err(invalid(format!("a number from {min} to {max}"))),
            },
            Kind::Choice { options, .. } => {
                let found = value.as_str().and_then(|v| options.iter().find(|o| **o == v));
                found.map(|o| Setting::Choice(o)).ok_or_else(|| invalid(format!("one of {}", options.join(", "))))
            }
            Kind::Flag { .. } => value.as_bool().map(Setting::Flag).ok_or_else(|| invalid("true or false".into())),
            Kind::Weights { options } => {
                let expected = || invalid(format!("an object with weights from 0 to 1 for some of {}", options.join(", ")));
                let mut weights = Vec::new();
                for (word, weight) in value.as_object().ok_or_else(expected)? {
                    let word = options.iter().find(|o| *o == word).ok_or_else(expected)?;
                    let weight = weight.as_f64().filter(|w| (0.0..=1.0).contains(w)).ok_or_else(expected)?;
                    if weight > 0.0 {
                        weights.push((*word, weight));
                    }
                }
                Ok(Setting::Weights(weights))
            }
        }
    }
}

/// Returns the parameters of an effect as JSON Schema (draft 2020-12).
pub fn schema(declared: &[Parameter]) -> Value {
    let properties: Map<String, Value> = declared
        .iter()
        .map(|p| {
            let mut property = match &p.kind {
                Kind::Number { min, max, default } => json!({"type": "number", "minimum": min, "maximum": max, "default": default}),
                Kind::Choice { options, default } => json!({"type": "string", "enum": options, "default": default}),
                Kind::Flag { default } => json!({"type": "boolean", "default": default}),
                Kind::Weights { options } => json!({
                    "type": "object",
                    "propertyNames": {"enum": options},
                    "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1},
                    "default": {},
                }),
            };
            property["title"] = json!(p.title);
            property["description"] = json!(p.description);
            (p.name.to_string(), property)
        })
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}

/// Formats a value for a message, limited to 60 characters.
fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared() -> Vec<Parameter> {
        let parameter = |name, kind| Parameter::new(name, "T", "D", kind);
        vec![
            parameter("strength", Kind::Number { min: 0.0, max: 1.0, default: 0.5 }),
            parameter("style", Kind::Choice { options: &["ink", "oil"], default: "ink" }),
            parameter("labels", Kind::Flag { default: true }),
            parameter("blend", Kind::Weights { options: &["ink", "oil"] }),
        ]
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        let parameters = Parameters::parse(&declared(), &json!({"strength": 0.25})).unwrap();
        assert_eq!(parameters.number("strength"), 0.25);
        assert_eq!(parameters.choice("style"), "ink");
        assert!(parameters.flag("labels"));
        assert!(parameters.weights("blend").is_empty());
        assert_eq!(Parameters::parse(&declared(), &Value::Null).unwrap(), Parameters::defaults(&declared()));
    }

    #[test]
    fn values_survive_the_round_trip_through_json() {
        let given = json!({"blend": {"oil": 0.5}, "labels": false, "strength": 1.0, "style": "oil"});
        let parameters = Parameters::parse(&declared(), &given).unwrap();
        assert_eq!(parameters.to_json(), given);
    }

    #[test]
    fn refusals_name_the_parameter_and_what_would_be_accepted() {
        let refusal = |given| Parameters::parse(&declared(), &given).unwrap_err().to_string();
        assert_eq!(refusal(json!({"strength": 2})), "parameter 'strength' must be a number from 0 to 1, not 2");
        assert_eq!(refusal(json!({"strength": "x"})), "parameter 'strength' must be a number from 0 to 1, not \"x\"");
        assert_eq!(refusal(json!({"style": "tar"})), "parameter 'style' must be one of ink, oil, not \"tar\"");
        assert_eq!(refusal(json!({"labels": 1})), "parameter 'labels' must be true or false, not 1");
        assert!(refusal(json!({"blend": {"tar": 1}})).starts_with("parameter 'blend' must be an object with weights"));
        assert_eq!(refusal(json!({"size": 1})), "there is no parameter '\"size\"'; known: strength, style, labels, blend");
        assert!(refusal(json!([1])).starts_with("parameters must be a JSON object"));
        assert!(refusal(json!({"style": "é".repeat(500)})).len() < 200);
    }

    #[test]
    fn the_schema_tells_types_ranges_and_defaults() {
        let schema = schema(&declared());
        assert_eq!(schema["properties"]["strength"]["maximum"], 1.0);
        assert_eq!(schema["properties"]["style"]["enum"], json!(["ink", "oil"]));
        assert_eq!(schema["properties"]["labels"]["default"], true);
        assert_eq!(schema["additionalProperties"], false);
    }
}
