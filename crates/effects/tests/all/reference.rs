//! Compares the analyses with those of an independent implementation (Python's ONNX Runtime and
//! OpenCV) for the same picture.
//!
//! The files were made by `tests/data/make_reference.py`. Our pictures take the path of a camera's:
//! RGB to I420 to prepare to analyse.

use crate::common::*;
use ooblex_effects::{Models, Parameters};
use ooblex_pipeline::{Analysis, Face, I420, ModelInput};
use serde_json::{Value, json};

fn analysis_of(name: &str, models: &mut Models, given: &Value) -> Analysis {
    through(&*effect(name), models, &landscape(), given).1.unwrap()
}

/// Returns the faces with a score of at least `threshold`. Effects themselves use a lower
/// threshold, to keep faces that are already tracked.
fn faces_above(models: &mut Models, threshold: f64) -> Analysis {
    let effect = effect("face_detection");
    let prepared = effect.painter().prepare(&landscape(), &Parameters::defaults(effect.parameters()));
    effect.analyse(models, &ModelInput { arguments: vec![threshold as f32], ..prepared }).unwrap()
}

#[test]
fn the_mask_is_the_reference_mask() {
    for backend in BACKENDS {
        let mut models = models(backend, &[effect("background_blur")]);
        let Analysis::Mask(mask) = analysis_of("background_blur", &mut models, &json!({})) else { panic!("not a mask") };
        let reference: Vec<u8> = png("mask_256x144.png").data.into_iter().step_by(3).collect();
        let difference = mean_difference(&mask.probability, &reference);
        println!("{backend}: mean difference of the mask {difference:.4}");
        assert!(difference <= 0.02, "{backend}: {difference}");
    }
}

#[test]
fn the_face_is_the_reference_face() {
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(data("faces.json")).unwrap()).unwrap();
    let numbers = |value: &Value| value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
    for backend in BACKENDS {
        let mut models = models(backend, &[effect("face_detection")]);
        let Analysis::Faces(faces) = faces_above(&mut models, 0.65) else { panic!("not faces") };
        assert_eq!(faces.len(), reference.as_array().unwrap().len(), "{backend}");
        let (face, expected) = (&faces[0], &reference[0]);
        let overlap = overlap(&in_pixels(face), &numbers(&expected["box"]));
        let names = ["right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear"];
        let away = names.iter().zip(face.keypoints).map(|(name, [x, y])| {
            let expected = numbers(&expected["keypoints"][name]);
            (f64::from(x) * 640.0 - expected[0]).hypot(f64::from(y) * 480.0 - expected[1])
        });
        let farthest = away.fold(0.0, f64::max);
        println!("{backend}: overlap {overlap:.4}, farthest keypoint {farthest:.2} px, score {:.4}", face.score);
        assert!(overlap >= 0.95, "{backend}: {overlap}");
        assert!(farthest <= 2.0, "{backend}: {farthest}");
        assert!((f64::from(face.score) - expected["score"].as_f64().unwrap()).abs() < 0.02);
    }
}

#[test]
fn the_mesh_is_the_reference_mesh() {
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(data("mesh.json")).unwrap()).unwrap();
    let expected: Vec<Vec<f64>> = serde_json::from_value(reference["points"].clone()).unwrap();
    for backend in BACKENDS {
        let mut models = models(backend, &[effect("face_mesh")]);
        let Analysis::Meshes(meshes) = analysis_of("face_mesh", &mut models, &json!({})) else { panic!("not meshes") };
        assert_eq!((meshes.len(), meshes[0].points.len()), (1, expected.len()), "{backend}");
        let away = |(point, expected): (&[f32; 3], &Vec<f64>)| {
            (f64::from(point[0]) * 640.0 - expected[0]).hypot(f64::from(point[1]) * 480.0 - expected[1])
        };
        let mean = meshes[0].points.iter().zip(&expected).map(away).sum::<f64>() / expected.len() as f64;
        let farthest = meshes[0].points.iter().zip(&expected).map(away).fold(0.0, f64::max);
        let depth = meshes[0].points.iter().zip(&expected).map(|(p, e)| (f64::from(p[2]) * 640.0 - e[2]).abs()).sum::<f64>() / 468.0;
        println!("{backend}: points are {mean:.2} px away, {farthest:.2} px at most; depth {depth:.2} px");
        // The reference cuts its square out of the whole picture, we out of one that is 2.5 times
        // as coarse.
        assert!(mean <= 1.2 && farthest <= 3.0 && depth <= 2.0, "{backend}: {mean}, {farthest}, {depth}");
    }
}

#[test]
fn a_lower_threshold_finds_no_less_and_a_higher_one_no_more() {
    let mut models = models(BACKENDS[0], &[effect("face_detection")]);
    let count = |models: &mut Models, threshold: f64| match faces_above(models, threshold) {
        Analysis::Faces(faces) => {
            assert!(faces.iter().all(|face| f64::from(face.score) >= threshold - 1e-6));
            faces.len()
        }
        _ => panic!("not faces"),
    };
    assert_eq!(count(&mut models, 0.95), 0, "the reference's score is 0.93");
    assert_eq!(count(&mut models, 0.9), 1);
    assert!(count(&mut models, 0.3) >= 1);
}

/// The reference's input was the frame stretched to 384x216 without a border, so this test uses the
/// same.
#[test]
fn the_paintings_are_the_reference_paintings() {
    let (width, height, edge) = (384, 216, 4);
    let style = effect("style_transfer");
    let numbers = [(0, "apricot_canvas"), (12, "lavender_pastel"), (19, "blue_starlight")];
    for backend in BACKENDS {
        let mut models = models(backend, std::slice::from_ref(&style));
        for (number, name) in numbers {
            let parameters = Parameters::parse(style.parameters(), &json!({"style": name})).unwrap();
            let mut painter = style.painter();
            // `prepare` does not stretch the input, so its picture is replaced by the whole frame
            // in the reference's size.
            let prepared = painter.prepare(&landscape(), &parameters);
            let content = [edge, edge, width - 2 * edge, height - 2 * edge];
            assert_eq!(prepared.arguments[number], 1.0);
            // A second style with a tiny weight selects the network of all styles, the one that has
            // a reference.
            let mut arguments = prepared.arguments;
            (arguments[number], arguments[number + 1]) = (0.9999, 0.0001);
            let input = ModelInput { picture: stretched(&landscape(), width, height), content, arguments };
            let Analysis::Picture(painting) = style.analyse(&mut models, &input).unwrap() else { panic!("not a picture") };
            let reference = crop(&png(&format!("style_{number:02}_384x216.png")), edge, edge, width - 2 * edge, height - 2 * edge);
            let difference = mean_difference(&painting.data, &reference.data);
            println!("{backend}: mean difference of {name} {difference:.4}");
            assert!(difference <= 0.02, "{backend}, {name}: {difference}");
        }
    }
}

/// Stretches the frame by averaging areas, like the reference's resizing.
fn stretched(frame: &I420, width: u32, height: u32) -> ooblex_pipeline::Rgb {
    let rgb = ooblex_effects::rgb_from_i420(frame);
    let share = |index: u32, side: u32, of: u32| {
        let (start, end) = (f64::from(index * of) / f64::from(side), f64::from((index + 1) * of) / f64::from(side));
        (start as u32..(end.ceil() as u32).min(of))
            .map(move |at| (at, (end.min(f64::from(at + 1)) - start.max(f64::from(at))) / (end - start)))
    };
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let mut pixel = [0.0; 3];
            for (row, down) in share(y, height, rgb.height) {
                for (column, across) in share(x, width, rgb.width) {
                    let source = &rgb.data[3 * (row * rgb.width + column) as usize..][..3];
                    pixel.iter_mut().zip(source).for_each(|(sum, value)| *sum += f64::from(*value) * down * across);
                }
            }
            data.extend(pixel.map(|value| value.round() as u8));
        }
    }
    ooblex_pipeline::Rgb { width, height, data }
}

fn in_pixels(face: &Face) -> Vec<f64> {
    face.rect.iter().zip([640.0, 480.0, 640.0, 480.0]).map(|(share, side)| f64::from(*share) * side).collect()
}

fn overlap(a: &[f64], b: &[f64]) -> f64 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |rect: &[f64]| (rect[2] - rect[0]) * (rect[3] - rect[1]);
    let common = side(0) * side(1);
    common / (area(a) + area(b) - common)
}
