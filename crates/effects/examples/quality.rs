//! Prints the temporal stability and the accuracy of the effects, before and after temporal
//! smoothing and edge alignment by the painters. Run it with `make quality`.
//!
//! Usage: `cargo run --release -p ooblex-effects --example quality [CLIP.y4m …]`. For clips it
//! prints the figures that need no ground truth.

#![allow(clippy::unwrap_used, reason = "what is shared with the tests may fail by panicking")]

#[path = "../tests/all/common/mod.rs"]
mod common;
#[path = "../tests/all/quality/figures.rs"]
mod figures;
#[path = "../tests/all/quality/scenes.rs"]
mod scenes;

use std::error::Error;
use std::path::Path;

use ooblex_effects::{ModelStore, Runtime, effects, load_models};

/// Maximum number of frames of a clip that are measured.
const MOST_FRAMES: usize = 150;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::load(None, None)?;
    println!("{}", runtime.describe());
    let mut models = load_models(&runtime, &ModelStore::embedded(), &effects())?;
    let clips: Vec<_> = std::env::args().skip(1).collect();
    if clips.is_empty() {
        print("pictures of the tests, moved", &figures::all(&mut models));
    }
    for clip in clips {
        let frames = scenes::clip(Path::new(&clip), MOST_FRAMES)?;
        print(&format!("{clip}, {} frames", frames.len()), &figures::of_clip(&mut models, &frames));
    }
    Ok(())
}

fn print(title: &str, figures: &[figures::Figure]) {
    println!("\n{title}\n{:16} {:>9} {:>9}", "", "before", "after");
    for figure in figures {
        let better = if figure.rises { "more is better" } else { "less is better" };
        println!("{:16} {:9.4} {:9.4}  {}; {better}", figure.name, figure.before, figure.after, figure.meaning);
    }
}
