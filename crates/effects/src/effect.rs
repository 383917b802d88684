//! The [`Effect`] and [`Painter`] traits, the two halves of an effect. The stateless half runs on
//! any worker; the painter holds the state of one track and runs at the gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};

use crate::found::Found;
use crate::parameters::{Parameter, Parameters};
use ooblex_inference::{ModelSpec, Models, RunError};

/// An entry of the list of effects. All tracks and workers share it.
pub trait Effect: Send + Sync {
    /// Returns the name used in requests: snake case, never renamed.
    fn name(&self) -> EffectName;

    /// Returns the name shown to users.
    fn title(&self) -> &str;

    /// Returns one sentence for users that says what the viewer sees.
    fn description(&self) -> &str;

    /// Returns the parameters of the effect, with types, ranges and defaults.
    fn parameters(&self) -> &[Parameter];

    /// Returns the models that `analyse` runs.
    fn models(&self) -> Vec<&ModelSpec>;

    /// Returns the name of the job queue for frames of this effect. It is the name of the effect,
    /// followed by a version where several versions can exist, so that a worker receives only
    /// frames that were prepared for its version.
    fn queue(&self) -> EffectName {
        self.name()
    }

    /// Returns the folder that the effect was read from; `None` for built-in effects.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Returns the verified bytes of one of the effect's models, if they are not in the
    /// [`ModelStore`](crate::ModelStore).
    fn model_bytes(&self, _model: &ModelSpec) -> Option<Arc<[u8]>> {
        None
    }

    /// Returns whether frames are sent to a worker. If not, they are composed from the frame alone
    /// and never queued. The default is true for effects with models; an effect whose `analyse` is
    /// useful without a model overrides this method.
    fn needs_worker(&self) -> bool {
        !self.models().is_empty()
    }

    /// Returns what to show when the models are slower than the camera, unless the operator
    /// configures otherwise.
    fn when_slow(&self) -> WhenSlow;

    /// Runs the models on one prepared frame. It is pure: the result depends on the input alone. It
    /// is called only for effects that need a worker.
    ///
    /// # Errors
    /// When a model fails or returns an invalid result (a wrong shape, NaN). The frame is then
    /// dropped and counted.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError>;

    /// Returns the constraints on the effect's position in a chain.
    fn chaining(&self) -> Chaining {
        Chaining::Anywhere
    }

    /// Creates the painter of one track, when the effect is switched on there.
    fn painter(&self) -> Box<dyn Painter>;
}

/// Position that an effect may take in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chaining {
    /// The effect paints on the picture, whatever was painted before.
    Anywhere,
    /// The effect repaints the whole picture from the source, which would undo the effects before
    /// it.
    First,
    /// The effect moves pixels; effects that analyse the source have to come before it.
    Moves,
    /// The effect changes nothing, and is refused in a chain of several effects.
    Idle,
}

/// Policy for the time in which the models are slower than the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenSlow {
    /// Show only frames that have their own analysis: fewer frames, each exact.
    Hold,
    /// Show every frame, painted with the newest analysis, unless that analysis is of a frame
    /// captured more than `max_age` earlier.
    Reuse {
        /// Maximum age of an analysis that is still painted.
        max_age: Duration,
    },
}

/// The half of an effect that belongs to one track: it prepares frames for the model and paints
/// results, in capture order.
pub trait Painter: Send {
    /// Makes the model's input from a frame. It is called only for effects that need a worker.
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput;

    /// Paints the effect onto `picture`, which holds the source and keeps its size.
    ///
    /// `analysis` is `None` exactly for effects that need no worker. It may come from another
    /// machine, so implementations validate all of it.
    ///
    /// # Errors
    /// When the analysis is not of this effect's kind, or its sizes do not match its data. The
    /// picture must then not be shown.
    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError>;

    /// Returns, as data, what was detected in the last composed frame, at the positions where it
    /// was painted; `None` for effects that detect nothing.
    fn found(&self) -> Option<Vec<Found>> {
        None
    }

    /// Turns `picture`, which holds the source, into one that is safe to show while there is no
    /// analysis: nothing that the effect exists to hide may be recognisable in it.
    fn placeholder(&mut self, picture: &mut I420, parameters: &Parameters);

    /// Returns the position in the painted picture of a point of the source, both as fractions of
    /// the frame. Only effects that move pixels return another position.
    fn place(&self, point: [f32; 2], _parameters: &Parameters) -> [f32; 2] {
        point
    }

    /// Forgets all positions in earlier frames: the camera was turned before the next frame to
    /// compose. Effects that keep none need not implement it.
    fn on_turned(&mut self) {}

    /// Makes the next inputs one step smaller because the models cannot keep up. Returns `false` if
    /// this effect does not choose its input size or there is no smaller step.
    fn shrink_input(&mut self) -> bool {
        false
    }

    /// Makes the next inputs one step larger because the models kept up for a while. `utilisation`
    /// is the fraction, 0..=1, of all workers' time that is in use now. Returns `false` if there is
    /// no larger step or not enough capacity for it.
    fn grow_input(&mut self, _utilisation: f32) -> bool {
        false
    }
}

/// Error of a painter that received an analysis it cannot paint.
#[derive(Debug, thiserror::Error)]
#[error("{effect} cannot paint {got}")]
pub struct ComposeError {
    /// Name of the effect that was asked to paint.
    pub effect: EffectName,
    /// Description of the analysis that was passed in.
    pub got: &'static str,
}
