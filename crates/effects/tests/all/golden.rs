//! Golden tests: the output of each effect on real pictures, on both backends, is compared with
//! pictures that were inspected by a person.
//!
//! To renew them after a change of an effect, run
//! `OOBLEX_BLESS=1 cargo test --release -p ooblex-effects --test all golden` and inspect them before
//! committing.

use std::env;

use crate::common::*;
use ooblex_effects::{Backend, effects, i420_from_rgb, rgb_from_i420};
use ooblex_pipeline::I420;
use serde_json::{Value, json};

/// Maximum mean difference of a picture, as a fraction of the value range.
const TOLERANCE: f64 = 0.005;

fn cases() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("background_blur", "default", json!({})),
        ("background_blur", "weakest", json!({"strength": 0.0, "edge_softness": 0.0})),
        ("background_blur", "strongest", json!({"strength": 1.0, "edge_softness": 1.0})),
        ("background_replace", "default", json!({})),
        ("background_replace", "sunset", json!({"background": "sunset"})),
        ("background_replace", "green", json!({"background": "green", "edge_softness": 0.0})),
        ("face_detection", "default", json!({})),
        ("face_anonymize", "default", json!({})),
        ("face_anonymize", "blur", json!({"way": "blur"})),
        ("face_anonymize", "cover", json!({"way": "cover"})),
        ("face_mesh", "default", json!({})),
        ("face_mesh", "glasses", json!({"look": "glasses"})),
        ("face_mesh", "mask", json!({"look": "mask"})),
        ("style_transfer", "default", json!({})),
        ("cartoon", "default", json!({})),
        ("edges", "default", json!({})),
        ("edges", "neon", json!({"look": "neon", "strength": 0.7})),
        ("grayscale", "default", json!({})),
        ("sepia", "default", json!({})),
        ("invert", "default", json!({})),
        ("mirror", "default", json!({})),
        ("mirror", "symmetric", json!({"way": "symmetric"})),
        ("vignette", "default", json!({})),
        ("sharpen", "default", json!({})),
        ("denoise", "default", json!({})),
        (
            "style_transfer",
            "blend",
            json!({"style": "yellow_ink", "blend": {"blue_starlight": 0.5}, "strength": 0.8, "resolution": "288p"}),
        ),
    ]
}

fn pictures() -> [(&'static str, I420); 3] {
    let small = i420_from_rgb(&crop(&png("picture_640x480.png"), 120, 55, 320, 180)).unwrap();
    [("landscape", landscape()), ("portrait", portrait()), ("small", small)]
}

#[test]
fn each_effect_paints_what_it_painted_before() {
    for backend in BACKENDS {
        let mut models = models(backend, &effects());
        for (name, variant, given) in cases() {
            let is_simple = effect(name).models().is_empty();
            // Effects without a model have one golden picture each, and do not depend on the
            // backend.
            for (kind, frame) in pictures().into_iter().filter(|(kind, _)| !is_simple || *kind == "small") {
                let (_, _, picture) = through(&*effect(name), &mut models, &frame, &given);
                let painted = rgb_from_i420(&picture);
                let file = format!("golden_{name}_{variant}_{kind}.png");
                if env::var_os("OOBLEX_BLESS").is_some() && backend == Backend::Ort {
                    write_png(&file, &painted);
                }
                let difference = mean_difference(&painted.data, &png(&file).data);
                println!("{backend} {file}: mean difference {difference:.5}");
                assert!(difference <= TOLERANCE, "{backend}: {file} differs by {difference}");
            }
        }
    }
}

#[test]
fn none_leaves_every_picture_as_it_is() {
    let mut models = models(Backend::Rten, &[]);
    for (kind, frame) in pictures() {
        assert!(through(&*effect("none"), &mut models, &frame, &json!({})).2 == frame, "{kind}");
    }
}

#[test]
fn a_frame_gives_the_same_picture_each_time() {
    let mut models = models(Backend::Ort, &effects());
    for effect in effects() {
        let twice = [(), ()].map(|()| through(&*effect, &mut models, &portrait(), &json!({})).2);
        assert!(twice[0] == twice[1], "{}", effect.name());
    }
}
