//! Video effects: running models on a frame, and painting the results onto it.
//!
//! An effect is one file with two halves: `analyse` runs models and has no state, `compose` paints
//! and belongs to one track. [`effects`] lists the effects offered to users, [`diagnostics`] those
//! that exist for tests and benchmarks.
#![warn(missing_docs)]

mod background_blur;
mod background_replace;
mod blocks;
mod blur;
mod boxes;
mod chain;
mod colour;
mod custom;
mod delay;
mod drawing;
mod effect;
mod face_anonymize;
mod face_detection;
mod face_mesh;
mod face_model;
mod faces;
mod found;
mod guided;
mod list;
mod matte;
mod models;
mod none;
mod parameters;
mod person;
mod pixels;
mod simple;
mod stillness;
mod style_transfer;

pub use chain::{Chain, ChainError, ChainPainter, ChainParameterError, ChainParameters};
#[doc(hidden)]
pub use custom::fuzz;
pub use custom::{CustomEffect, CustomEffectError, CustomEffectLimits, CustomEffectSet, Place, Refused, Trial};
pub use drawing::caption;
pub use effect::{Chaining, ComposeError, Effect, Painter, WhenSlow};
pub use found::Found;
pub use list::{diagnostics, effects, find};
pub use models::{load_models, models_of, verify_models};
pub use ooblex_inference::{
    Backend, Device, DeviceError, Extent, Input, LONGEST_RUN, LoadError, ModelFileError, ModelSpec, ModelStore, Models, RunError, Runtime,
    RuntimeError, Tensor, TensorSpec,
};
pub use parameters::{Kind, Parameter, ParameterError, Parameters, schema};
pub use pixels::{BadPicture, i420_from_rgb, rgb_from_i420};
