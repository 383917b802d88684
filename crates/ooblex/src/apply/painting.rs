//! Applies an effect to every frame of a video: models run in parallel, because their results do
//! not depend on earlier frames, and everything else runs in order.
//!
//! This module owns the model threads. The painter prepares and composes the frames in order, as
//! for a live track.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context as _, anyhow};
use crossbeam_channel::{Receiver, Sender, bounded};
use ooblex_effects::{Chain, Models, RunError};
use ooblex_pipeline::{Analysis, I420, ModelInput};

use ooblex_gateway::settings::Settings;

/// Number of frames in flight per model thread: one in progress, and one that waits.
const AHEAD: usize = 2;

/// Paints all frames from `next`, and passes them to `put` in their order. `models` has one element
/// per thread, and is empty for an effect without models.
///
/// # Errors
/// Returns the first error in reading, analysing, painting or writing a frame.
pub(super) fn paint_all(
    settings: &Settings,
    models: Vec<Models>,
    next: impl FnMut() -> anyhow::Result<Option<I420>>,
    put: impl FnMut(&I420) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let window = (models.len() * AHEAD).max(1);
    let (jobs, waiting) = bounded(window);
    let (done, results) = bounded(window);
    std::thread::scope(|scope| {
        for models in models {
            let (waiting, done, effect) = (waiting.clone(), done.clone(), settings.effect.as_ref());
            scope.spawn(move || analyse(effect, models, &waiting, &done));
        }
        drop(done);
        // The threads end when the job channel closes, also after an error.
        Order { settings, jobs, results, window, ready: BTreeMap::new() }.run(next, put)
    })
}

/// A frame number with the inputs of its models.
type Job = (u64, Vec<(usize, ModelInput)>);
/// A frame number with the results of its models.
type Done = (u64, Result<Vec<Analysis>, RunError>);

fn analyse(effect: &Chain, mut models: Models, waiting: &Receiver<Job>, done: &Sender<Done>) {
    for (number, inputs) in waiting {
        if done.send((number, effect.analyse(&mut models, &inputs))).is_err() {
            return;
        }
    }
}

/// Keeps the frames in order.
struct Order<'a> {
    settings: &'a Settings,
    jobs: Sender<Job>,
    results: Receiver<Done>,
    window: usize,
    /// Results that are waiting for those of earlier frames.
    ready: BTreeMap<u64, Result<Vec<Analysis>, RunError>>,
}

impl Order<'_> {
    fn run(
        mut self,
        mut next: impl FnMut() -> anyhow::Result<Option<I420>>,
        mut put: impl FnMut(&I420) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Settings { effect, parameters, .. } = self.settings;
        let mut painter = effect.painter();
        let mut under_way: VecDeque<(u64, I420)> = VecDeque::new();
        let (mut number, mut over) = (0, false);
        loop {
            while !over && under_way.len() < self.window {
                let Some(picture) = next()? else {
                    over = true;
                    break;
                };
                if effect.needs_worker() {
                    let input = painter.prepare(&picture, parameters);
                    self.jobs.send((number, input)).map_err(|_| anyhow!("the models' threads ended"))?;
                }
                under_way.push_back((number, picture));
                number += 1;
            }
            let Some((number, mut picture)) = under_way.pop_front() else { return Ok(()) };
            let analyses = if effect.needs_worker() { self.result_of(number)? } else { Vec::new() };
            painter.compose(&mut picture, &analyses, parameters).with_context(|| format!("frame {number}"))?;
            put(&picture)?;
        }
    }

    fn result_of(&mut self, number: u64) -> anyhow::Result<Vec<Analysis>> {
        while !self.ready.contains_key(&number) {
            let (done, result) = self.results.recv().map_err(|_| anyhow!("the models' threads ended"))?;
            self.ready.insert(done, result);
        }
        let result = self.ready.remove(&number).ok_or_else(|| anyhow!("frame {number} was not analysed"))?;
        result.with_context(|| format!("frame {number} cannot be analysed"))
    }
}
