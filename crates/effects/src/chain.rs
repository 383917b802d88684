//! A chain of one to four effects, such as `background_blur+face_detection+sepia`.
//!
//! All effects that run a model analyse the source as the camera took it; composition runs in
//! order, each effect on the picture that the one before has painted. A frame is decoded and
//! encoded once. A chain of one behaves like that effect. All rules about valid chains are in this
//! file.

use std::fmt;
use std::sync::Arc;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};
use serde_json::{Map, Value};

use crate::effect::{Chaining, ComposeError, Effect, Painter};
use crate::found::Found;
use crate::parameters::{ParameterError, Parameters};
use ooblex_inference::{Models, RunError};

/// Separator between the names of a chain's effects.
const LINK: char = '+';

/// One effect, or several applied in order.
#[derive(Clone)]
pub struct Chain {
    name: EffectName,
    parts: Vec<Arc<dyn Effect>>,
}

/// Checked values of all parameters of all effects of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainParameters(Vec<(EffectName, Parameters)>);

/// The painters of a chain's effects on one track.
pub struct ChainPainter {
    parts: Vec<Part>,
    found: Option<Vec<Found>>,
}

struct Part {
    needs_worker: bool,
    painter: Box<dyn Painter>,
}

/// Reason why effects cannot be chained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// No effect has this name.
    #[error("there is no effect '{name}'")]
    Unknown {
        /// The name as it was given, shortened to 60 characters.
        name: String,
    },
    /// The chain has more than [`Chain::MOST`] effects.
    #[error("a chain may have {most} effects at most, not {got}", most = Chain::MOST)]
    TooLong {
        /// Number of effects given.
        got: usize,
    },
    /// The chain contains an effect twice.
    #[error("'{name}' stands twice in the chain: name it once")]
    Twice {
        /// Name of the effect.
        name: EffectName,
    },
    /// The chain contains an effect that leaves the picture unchanged.
    #[error("'{name}' changes nothing: leave it out of the chain")]
    Idle {
        /// Name of the effect.
        name: EffectName,
    },
    /// An effect that repaints the whole picture from the source is not first, and would undo the
    /// effects before it.
    #[error("'{name}' paints the whole picture anew from the source, and would undo what comes before it: put it first")]
    NotFirst {
        /// Name of the effect.
        name: EffectName,
    },
    /// An effect that analyses the source comes after one that moves its pixels.
    #[error("'{name}' looks at the source, and would miss its mark once '{mover}' has moved the picture: put '{mover}' behind it")]
    Moved {
        /// Name of the effect that analyses the source.
        name: EffectName,
        /// Name of the effect that moves pixels.
        mover: EffectName,
    },
}

/// Reason why the parameters of a chain are refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ChainParameterError {
    /// A parameter of one effect is invalid.
    #[error("{effect}: {error}")]
    Part {
        /// Name of the effect.
        effect: EffectName,
        /// Reason why the parameter is refused.
        error: ParameterError,
    },
    /// The parameters of a chain are not an object.
    #[error("the parameters of a chain are an object with one for each effect, such as {{\"background_blur\": {{\"strength\": 0.7}}}}")]
    NotAnObject,
    /// The parameters name an effect that is not in the chain.
    #[error("'{name}' is not in the chain; its effects are {known}, each with an object of its own")]
    NotInChain {
        /// The name as it was given, shortened to 60 characters.
        name: String,
        /// Names of the effects in the chain, comma separated.
        known: String,
    },
}

impl Chain {
    /// Maximum number of effects in a chain.
    pub const MOST: usize = 4;
    /// Value of the metrics' `effect` label for all chains of several effects.
    pub const LABEL: &str = "chain";

    /// Parses a chain such as `sepia+mirror`, whose effects are among `known`.
    ///
    /// # Errors
    /// When an effect does not exist, or the effects cannot be chained.
    pub fn parse(name: &str, known: &[Arc<dyn Effect>]) -> Result<Self, ChainError> {
        let words: Vec<_> = name.split(LINK).take(2 * Self::MOST).map(str::trim).collect();
        if words.len() > Self::MOST {
            return Err(ChainError::TooLong { got: name.split(LINK).count() });
        }
        let find = |word: &str| known.iter().find(|effect| effect.name().as_str() == word).cloned();
        let unknown = |word: &str| ChainError::Unknown { name: word.chars().take(60).collect() };
        let parts = words.into_iter().map(|word| find(word).ok_or_else(|| unknown(word))).collect::<Result<Vec<_>, _>>()?;
        if let [_, _, ..] = parts[..] {
            check(&parts)?;
        }
        let names: Vec<_> = parts.iter().map(|part| part.name().to_string()).collect();
        Ok(Self { name: EffectName::new(names.join("+")), parts })
    }

    /// Returns the names of the chain's effects, joined with `+`.
    pub fn name(&self) -> EffectName {
        self.name.clone()
    }

    /// Returns the name of the chain with the versions of its effects. Frames prepared or painted
    /// by one version are of no use to another.
    pub fn version(&self) -> EffectName {
        match &self.parts[..] {
            [only] => only.queue(),
            parts => EffectName::new(parts.iter().map(|part| part.queue().to_string()).collect::<Vec<_>>().join("+")),
        }
    }

    /// Returns the value of the metrics' `effect` label: the name of a single effect, or
    /// [`Chain::LABEL`] for several, since there are too many combinations.
    pub fn label(&self) -> EffectName {
        if self.parts.len() == 1 { self.name.clone() } else { EffectName::new(Self::LABEL) }
    }

    /// Returns the chain's effects, in order.
    pub fn parts(&self) -> &[Arc<dyn Effect>] {
        &self.parts
    }

    /// Returns whether any effect sends frames to workers.
    pub fn needs_worker(&self) -> bool {
        self.analysed().next().is_some()
    }

    /// Returns the effects that send frames to workers.
    pub fn analysed(&self) -> impl Iterator<Item = &Arc<dyn Effect>> {
        self.parts.iter().filter(|part| part.needs_worker())
    }

    /// Checks `given` and fills in defaults. For a single effect `given` is the object of its
    /// parameters; for a chain it maps the name of an effect to such an object.
    ///
    /// # Errors
    /// On the first value that is unknown, of the wrong type, or out of range.
    pub fn parse_parameters(&self, given: &Value) -> Result<ChainParameters, ChainParameterError> {
        let parse = |part: &Arc<dyn Effect>, given: &Value| match Parameters::parse(part.parameters(), given) {
            Ok(parameters) => Ok((part.name(), parameters)),
            Err(error) => Err(ChainParameterError::Part { effect: part.name(), error }),
        };
        if let [only] = &self.parts[..] {
            return Ok(ChainParameters(vec![parse(only, given)?]));
        }
        let given = match given {
            Value::Null => &Map::new(),
            Value::Object(given) => given,
            _ => return Err(ChainParameterError::NotAnObject),
        };
        if let Some(name) = given.keys().find(|name| self.parts.iter().all(|part| part.name().as_str() != *name)) {
            let known: Vec<_> = self.parts.iter().map(|part| part.name().to_string()).collect();
            return Err(ChainParameterError::NotInChain { name: name.chars().take(60).collect(), known: known.join(", ") });
        }
        let of = |part: &Arc<dyn Effect>| parse(part, given.get(part.name().as_str()).unwrap_or(&Value::Null));
        Ok(ChainParameters(self.parts.iter().map(of).collect::<Result<_, _>>()?))
    }

    /// Runs the models of all effects, one after the other, on the inputs made by
    /// [`ChainPainter::prepare`]. It is for callers that run all models in one place.
    ///
    /// # Errors
    /// As [`Effect::analyse`].
    pub fn analyse(&self, models: &mut Models, inputs: &[(usize, ModelInput)]) -> Result<Vec<Analysis>, RunError> {
        inputs.iter().map(|(index, input)| self.parts[*index].analyse(models, input)).collect()
    }

    /// Creates the painters of one track.
    pub fn painter(&self) -> ChainPainter {
        let parts = self.parts.iter().map(|part| Part { needs_worker: part.needs_worker(), painter: part.painter() });
        ChainPainter { parts: parts.collect(), found: None }
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({})", self.name)
    }
}

fn check(parts: &[Arc<dyn Effect>]) -> Result<(), ChainError> {
    let mut mover = None;
    for (index, part) in parts.iter().enumerate() {
        let name = part.name();
        if parts[..index].iter().any(|before| before.name() == name) {
            return Err(ChainError::Twice { name });
        }
        match part.chaining() {
            Chaining::Idle => return Err(ChainError::Idle { name }),
            Chaining::First if index > 0 => return Err(ChainError::NotFirst { name }),
            _ => {}
        }
        if let Some(mover) = mover.clone().filter(|_| part.needs_worker()) {
            return Err(ChainError::Moved { name, mover });
        }
        if part.chaining() == Chaining::Moves {
            mover.get_or_insert(name);
        }
    }
    Ok(())
}

impl ChainParameters {
    /// Returns the parameters as JSON, every one with its value, in the form that
    /// [`Chain::parse_parameters`] takes.
    pub fn to_json(&self) -> Value {
        match &self.0[..] {
            [(_, only)] => only.to_json(),
            all => all.iter().map(|(name, parameters)| (name.to_string(), parameters.to_json())).collect(),
        }
    }

    /// Returns the parameters as JSON with `changes` applied. Objects are merged: values that
    /// `changes` does not name keep theirs.
    pub fn merged(&self, changes: &Value) -> Value {
        let mut merged = self.to_json();
        match changes {
            Value::Null => {}
            Value::Object(changes) if self.0.len() == 1 => changes.iter().for_each(|(name, value)| merged[name] = value.clone()),
            Value::Object(changes) => changes.iter().for_each(|(part, change)| match (merged.get_mut(part), change) {
                (Some(Value::Object(own)), Value::Object(change)) => own.extend(change.clone()),
                _ => merged[part] = change.clone(),
            }),
            other => merged = other.clone(),
        }
        merged
    }

    fn of(&self, index: usize) -> &Parameters {
        &self.0[index].1
    }
}

impl ChainPainter {
    /// Makes the model inputs of a frame, each with the index of its effect in the chain. All of
    /// them show the source.
    pub fn prepare(&mut self, source: &I420, parameters: &ChainParameters) -> Vec<(usize, ModelInput)> {
        let parts = self.parts.iter_mut().enumerate().filter(|(_, part)| part.needs_worker);
        parts.map(|(index, part)| (index, part.painter.prepare(source, parameters.of(index)))).collect()
    }

    /// Paints all effects onto `picture`, in order. `analyses` holds, in order, one analysis for
    /// each effect that needs a worker.
    ///
    /// # Errors
    /// When an analysis is missing or cannot be painted. The picture must then not be shown.
    pub fn compose(&mut self, picture: &mut I420, analyses: &[Analysis], parameters: &ChainParameters) -> Result<(), ComposeError> {
        let mut analyses = analyses.iter();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let analysis = if part.needs_worker { analyses.next() } else { None };
            part.painter.compose(picture, analysis, parameters.of(index))?;
        }
        self.found = self.locate(parameters);
        Ok(())
    }

    /// Turns `picture` into one that is safe to show while there is no analysis, by applying all
    /// placeholders in order.
    pub fn placeholder(&mut self, picture: &mut I420, parameters: &ChainParameters) {
        for (index, part) in self.parts.iter_mut().enumerate() {
            part.painter.placeholder(picture, parameters.of(index));
        }
    }

    /// Returns what the last `compose` found, at its positions in the finished picture.
    pub fn found(&self) -> Option<Vec<Found>> {
        self.found.clone()
    }

    /// Tells all effects that the camera was turned before the next frame; see
    /// [`Painter::on_turned`].
    pub fn on_turned(&mut self) {
        self.parts.iter_mut().for_each(|part| part.painter.on_turned());
    }

    /// Shrinks the input of the first effect that can; see [`Painter::shrink_input`].
    pub fn shrink_input(&mut self) -> bool {
        self.parts.iter_mut().any(|part| part.painter.shrink_input())
    }

    /// Enlarges the input of the first effect that can; see [`Painter::grow_input`].
    pub fn grow_input(&mut self, utilisation: f32) -> bool {
        self.parts.iter_mut().any(|part| part.painter.grow_input(utilisation))
    }

    fn locate(&self, parameters: &ChainParameters) -> Option<Vec<Found>> {
        let (last, mut found) = self.parts.iter().enumerate().rev().find_map(|(index, part)| Some((index, part.painter.found()?)))?;
        for (index, part) in self.parts.iter().enumerate().skip(last + 1) {
            found.iter_mut().for_each(|found| relocate(found, |point| part.painter.place(point, parameters.of(index))));
        }
        Some(found)
    }
}

/// Maps all points of `found` through `place`. The corners of a flipped box are sorted, so that
/// left and top stay the smaller ones.
fn relocate(found: &mut Found, place: impl Fn([f32; 2]) -> [f32; 2]) {
    if let Some([left, top, right, bottom]) = found.rect {
        let (a, b) = (place([left, top]), place([right, bottom]));
        found.rect = Some([a[0].min(b[0]), a[1].min(b[1]), a[0].max(b[0]), a[1].max(b[1])]);
    }
    found.points.iter_mut().for_each(|point| *point = place(*point));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::list::effects;

    fn chain(name: &str) -> Result<Chain, ChainError> {
        Chain::parse(name, &effects())
    }

    fn refused(name: &str) -> String {
        chain(name).unwrap_err().to_string()
    }

    #[test]
    fn a_chain_of_one_is_the_effect() {
        let sepia = chain("sepia").unwrap();
        assert_eq!((sepia.name().as_str(), sepia.label().as_str(), sepia.parts().len()), ("sepia", "sepia", 1));
        assert_eq!(sepia.parse_parameters(&json!({"strength": 0.5})).unwrap().to_json(), json!({"strength": 0.5}));
        assert!(chain("none").is_ok());
    }

    #[test]
    fn what_can_not_be_chained_says_why() {
        assert!(refused("background_blur+dance").contains("no effect 'dance'"));
        assert!(refused("").contains("no effect ''"));
        assert!(refused("sepia+").contains("no effect ''"));
        assert!(refused("sepia+invert+sepia").contains("'sepia' stands twice"));
        assert!(refused("sepia+none").contains("'none' changes nothing"));
        assert!(refused("background_blur+style_transfer").contains("put it first"));
        assert!(refused("mirror+sepia+background_blur").contains("put 'mirror' behind it"));
        assert!(refused("sepia+invert+vignette+sharpen+denoise").contains("4 effects at most, not 5"));
        assert!(refused(&"sepia+".repeat(100_000)).contains("not 100001"));
        assert!(refused(&"x".repeat(100_000)).len() < 200);
        for name in ["style_transfer+background_blur", "background_blur+face_detection+mirror+sepia", "background_blur + sepia"] {
            assert!(chain(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn parameters_are_given_by_effect_and_merged_by_effect() {
        let chain = chain("background_blur+sepia").unwrap();
        let defaults = chain.parse_parameters(&Value::Null).unwrap().to_json();
        assert_eq!(defaults["sepia"], json!({"strength": 1.0}));
        let given = chain.parse_parameters(&json!({"background_blur": {"strength": 0.1}})).unwrap();
        let merged = given.merged(&json!({"background_blur": {"edge_softness": 0.2}}));
        assert_eq!(merged["background_blur"], json!({"edge_softness": 0.2, "strength": 0.1}));
        for (bad, why) in [
            (json!({"strength": 0.1}), "'strength' is not in the chain"),
            (json!({"sepia": {"strength": 2}}), "sepia: parameter 'strength' must be a number from 0 to 1"),
            (json!({"sepia": 3}), "sepia: parameters must be a JSON object"),
            (json!(3), "an object with one for each effect"),
        ] {
            let refused = chain.parse_parameters(&bad).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn effects_paint_in_order_and_the_placeholder_hides_what_each_of_them_would() {
        let chain = chain("background_blur+invert").unwrap();
        let parameters = chain.parse_parameters(&Value::Null).unwrap();
        let (mut painter, mut picture) = (chain.painter(), I420::grey(64, 48, 200));
        picture.planes_mut()[0].chunks_exact_mut(64).for_each(|row| row.iter_mut().step_by(2).for_each(|luma| *luma = 20));
        let source = picture.clone();
        painter.placeholder(&mut picture, &parameters);
        let luma = picture.planes()[0];
        let is_smooth = luma.chunks_exact(64).all(|row| row.windows(2).all(|pair| pair[0].abs_diff(pair[1]) < 4));
        assert!(is_smooth && luma[0].abs_diff(251 - 110) < 8, "{luma:?}");
        assert_eq!(painter.prepare(&source, &parameters).len(), 1);
        assert!(painter.compose(&mut source.clone(), &[], &parameters).is_err(), "without the mask nothing is to be shown");
    }

    #[test]
    fn faces_are_told_where_they_are_in_the_finished_picture() {
        let chain = chain("face_detection+mirror").unwrap();
        let parameters = chain.parse_parameters(&Value::Null).unwrap();
        let face = ooblex_pipeline::Face { score: 0.9, rect: [0.1, 0.2, 0.3, 0.4], keypoints: [[0.15, 0.3]; 6] };
        let mut painter = chain.painter();
        painter.compose(&mut I420::grey(640, 480, 100), &[Analysis::Faces(vec![face])], &parameters).unwrap();
        let found = &painter.found().unwrap()[0];
        let [left, _, right, _] = found.rect.unwrap();
        assert!((left - 0.7).abs() < 1e-6 && (right - 0.9).abs() < 1e-6, "{left} to {right}");
        assert!((found.points[0][0] - 0.85).abs() < 1e-6);
    }
}
