//! The type of effects without a model, and what their files share.

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput, Rgb};

use crate::effect::{Chaining, ComposeError, Effect, Painter, WhenSlow};
use crate::parameters::{Kind, Parameter, Parameters};
use ooblex_inference::{ModelSpec, Models, RunError};

/// Description and paint function of one effect without a model.
pub(crate) struct Simple {
    /// Name used in requests.
    pub(super) name: &'static str,
    /// Name shown to users.
    pub(super) title: &'static str,
    /// One sentence that says what the viewer sees.
    pub(super) description: &'static str,
    pub(super) parameters: &'static [Parameter],
    /// Position that the effect may take in a chain.
    pub(super) chaining: Chaining,
    /// Creates the state that paints the frames of one track.
    pub(super) paint: fn() -> Box<dyn Paint>,
}

/// Paints the frames of one track, in order.
pub(super) trait Paint: Send {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters);

    /// Returns the position in the painted picture of a point of the source; see
    /// [`Painter::place`].
    fn place(&self, point: [f32; 2], _parameters: &Parameters) -> [f32; 2] {
        point
    }
}

impl<F: FnMut(&mut I420, &Parameters) + Send> Paint for F {
    fn paint(&mut self, picture: &mut I420, parameters: &Parameters) {
        self(picture, parameters);
    }
}

impl Effect for &'static Simple {
    fn name(&self) -> EffectName {
        EffectName::new(self.name)
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn parameters(&self) -> &[Parameter] {
        self.parameters
    }

    fn models(&self) -> Vec<&ModelSpec> {
        Vec::new()
    }

    fn when_slow(&self) -> WhenSlow {
        WhenSlow::Hold
    }

    fn analyse(&self, _models: &mut Models, _input: &ModelInput) -> Result<Analysis, RunError> {
        Err(RunError::Missing { model: self.name.into() })
    }

    fn chaining(&self) -> Chaining {
        self.chaining
    }

    fn painter(&self) -> Box<dyn Painter> {
        Box::new(SimplePainter { facts: self, paint: (self.paint)() })
    }
}

struct SimplePainter {
    facts: &'static Simple,
    paint: Box<dyn Paint>,
}

impl Painter for SimplePainter {
    fn prepare(&mut self, _source: &I420, _parameters: &Parameters) -> ModelInput {
        ModelInput { picture: Rgb { width: 0, height: 0, data: Vec::new() }, content: [0; 4], arguments: Vec::new() }
    }

    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError> {
        match analysis {
            None => self.paint.paint(picture, parameters),
            Some(other) => return Err(ComposeError { effect: EffectName::new(self.facts.name), got: other.kind() }),
        }
        Ok(())
    }

    fn place(&self, point: [f32; 2], parameters: &Parameters) -> [f32; 2] {
        self.paint.place(point, parameters)
    }

    fn placeholder(&mut self, picture: &mut I420, parameters: &Parameters) {
        self.paint.paint(picture, parameters);
    }
}

/// Creates a number parameter from 0 to 1.
pub(super) const fn share(name: &'static str, title: &'static str, description: &'static str, default: f64) -> Parameter {
    Parameter::new(name, title, description, Kind::Number { min: 0.0, max: 1.0, default })
}

/// Converts a fraction of 0..=1 to an integer of 0..=256.
pub(super) fn of_256(share: f64) -> i16 {
    (share * 256.0).round() as i16
}
