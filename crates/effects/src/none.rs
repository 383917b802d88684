//! The effect `none`: the unchanged picture, sent through the same pipeline.

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb};

use crate::effect::{Chaining, ComposeError, Effect, Painter, WhenSlow};
use crate::parameters::{Parameter, Parameters};
use ooblex_inference::{ModelSpec, Models, RunError};

/// The effect `none`; see the module documentation.
pub(crate) struct NoEffect;

const NAME: &str = "none";

impl Effect for NoEffect {
    fn name(&self) -> EffectName {
        EffectName::new(NAME)
    }

    fn title(&self) -> &'static str {
        "None"
    }

    fn description(&self) -> &'static str {
        "The picture as it is, sent through the same pipeline."
    }

    fn parameters(&self) -> &[Parameter] {
        &[]
    }

    fn models(&self) -> Vec<&ModelSpec> {
        Vec::new()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    fn analyse(&self, _models: &mut Models, _input: &ModelInput) -> Result<Analysis, RunError> {
        Err(RunError::Missing { model: NAME.into() })
    }

    fn chaining(&self) -> Chaining {
        Chaining::Idle
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(NoPainter)
    }
}

struct NoPainter;

impl Painter for NoPainter {
    fn prepare(&mut self, _source: &I420, _parameters: &Parameters) -> ModelInput {
        ModelInput { picture: Rgb { width: 0, height: 0, data: Vec::new() }, content: [0; 4], arguments: Vec::new() }
    }

    fn compose(&mut self, _picture: &mut I420, analysis: Option<&Analysis>, _parameters: &Parameters) -> Result<(), ComposeError> {
        match analysis {
            None => Ok(()),
            Some(_) => Err(ComposeError { effect: EffectName::new(NAME), got: "an analysis, since it has no models" }),
        }
    }

    /// The effect hides nothing, so the picture itself is safe to show.
    fn placeholder(&mut self, _picture: &mut I420, _parameters: &Parameters) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_stays_as_it_is() {
        let mut picture = I420::grey(33, 21, 100);
        picture.planes_mut()[0][40] = 200;
        let (before, parameters) = (picture.clone(), Parameters::defaults(NoEffect.parameters()));
        let mut painter = NoEffect.painter();
        painter.compose(&mut picture, None, &parameters).unwrap();
        painter.placeholder(&mut picture, &parameters);
        assert!(picture == before);
    }

    #[test]
    fn an_analysis_is_refused() {
        let refused = NoEffect.painter().compose(&mut I420::grey(8, 8, 16), Some(&Analysis::Faces(vec![])), &Parameters::defaults(&[]));
        assert!(refused.unwrap_err().to_string().starts_with("none cannot paint"));
    }
}
