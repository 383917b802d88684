//! What an effect is: a stateless half that any worker runs, and a half with the state of one track that runs at the gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ooblex_pipeline::{Analysis, EffectName, I420, ModelInput};

use crate::found::Found;
use crate::model::{ModelSpec, Models, RunError};
use crate::parameters::{Parameter, Parameters};

/// One entry of the list of effects. Shared by all tracks and workers.
pub trait Effect: Send + Sync {
    /// The name in requests: snake case, never renamed.
    fn name(&self) -> EffectName;

    /// The name for people.
    fn title(&self) -> &str;

    /// One sentence for people: what the viewer sees.
    fn description(&self) -> &str;

    /// What can be set, with types, ranges and defaults.
    fn parameters(&self) -> &[Parameter];

    /// The models that `analyse` runs.
    fn models(&self) -> &[&'static ModelSpec];

    /// The name under which its frames wait for workers: that of the effect, with what tells versions of it apart where there can be
    /// several, so that a worker gets only frames that were prepared as it analyses them.
    fn queue(&self) -> EffectName {
        self.name()
    }

    /// The folder that it was read from; `None` for those of the program.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// The bytes of one of its models, already checked, where they are not in the [`ModelStore`](crate::ModelStore).
    fn model_bytes(&self, _model: &ModelSpec) -> Option<Arc<[u8]>> {
        None
    }

    /// Whether frames go to a worker at all. Those of an effect that needs none are composed from the frame alone and never queued.
    /// Effects with models need one; an effect whose `analyse` is of use without a model says so here.
    fn needs_worker(&self) -> bool {
        !self.models().is_empty()
    }

    /// What to show when the models are slower than the camera, unless the operator says otherwise.
    fn when_slow(&self) -> WhenSlow;

    /// Runs the models on one prepared frame. Pure: the result depends on the input alone. Called for effects that need a worker only.
    ///
    /// # Errors
    /// When a model fails or gives what it must not (a wrong shape, NaN). The frame is then dropped and counted.
    fn analyse(&self, models: &mut Models, input: &ModelInput) -> Result<Analysis, RunError>;

    /// What must be heeded when it stands in a chain with others.
    fn chaining(&self) -> Chaining {
        Chaining::Anywhere
    }

    /// The half that belongs to one track, from its first frame with this effect on.
    fn painter(&self) -> Box<dyn Painter>;
}

/// Where an effect may stand in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chaining {
    /// It paints on the picture, whatever came before.
    Anywhere,
    /// It paints the picture anew from the source, and would undo what came before.
    First,
    /// It moves pixels: what looks at the source has to come before it.
    Moves,
    /// It changes nothing: a chain is better without it.
    Idle,
}

/// What to show when the models are slower than the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenSlow {
    /// Only frames with an analysis of their own: fewer frames, each exact.
    Hold,
    /// Every frame, painted with the newest analysis, unless that was made of a frame captured longer than `max_age` before.
    Reuse {
        /// Oldest analysis that is still painted.
        max_age: Duration,
    },
}

/// The half of an effect that lives in one track: it prepares frames for the model and paints results, in capture order.
pub trait Painter: Send {
    /// Makes the model's input of a frame. Called for effects that need a worker only.
    fn prepare(&mut self, source: &I420, parameters: &Parameters) -> ModelInput;

    /// Paints the effect onto `picture`, which holds the source and keeps its size.
    ///
    /// `analysis` is `None` exactly for effects that need no worker. It may come from another machine, so nothing about it is taken
    /// for granted.
    ///
    /// # Errors
    /// When the analysis is not of this effect's kind, or its sizes are not those of its data. The picture must then not be shown.
    fn compose(&mut self, picture: &mut I420, analysis: Option<&Analysis>, parameters: &Parameters) -> Result<(), ComposeError>;

    /// What was found in the frame that was composed last, exactly where it was painted, for those who want it as data. `None` for
    /// effects that look for nothing.
    fn found(&self) -> Option<Vec<Found>> {
        None
    }

    /// Turns `picture`, which holds the source, into one that is safe to show while there is no analysis:
    /// nothing of the source may be recognised that the effect is there to hide.
    fn placeholder(&mut self, picture: &mut I420, parameters: &Parameters);

    /// Where a point of the source, in shares of the frame, is in the painted picture: elsewhere only for effects that move pixels.
    fn place(&self, point: [f32; 2], _parameters: &Parameters) -> [f32; 2] {
        point
    }

    /// The models can not keep up: makes the next inputs a step smaller, where that is this effect's to choose. `false`: it is not,
    /// or there is no smaller step.
    fn shrink_input(&mut self) -> bool {
        false
    }

    /// The models kept up for a while: makes the next inputs a step larger, where that is this effect's to choose. `utilisation` is
    /// the share of all workers' time, 0..=1, that is in use now. `false`: there is no larger step, or no room for it.
    fn grow_input(&mut self, _utilisation: f32) -> bool {
        false
    }
}

/// A result that can not be painted.
#[derive(Debug, thiserror::Error)]
#[error("{effect} can not paint {got}")]
pub struct ComposeError {
    /// The effect that was asked to paint.
    pub effect: EffectName,
    /// What it was given.
    pub got: &'static str,
}
