//! Invariants for any input: damaged model files, frames of every size, invalid analyses; and no
//! part of the background is ever visible.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::*;
use ooblex_effects::{
    Backend, LoadError, ModelFileError, ModelStore, Parameters, RunError, Runtime, diagnostics, effects, load_models, verify_models,
};
use ooblex_pipeline::{Analysis, Face, I420, Mask, ModelInput, Rgb};
use serde_json::json;

/// Creates a temporary folder for one test, with all models in it.
fn folder_of_models(test: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("ooblex-effects-{}-{test}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    for spec in effects().iter().flat_map(|effect| effect.models()) {
        fs::write(folder.join(spec.file.as_ref()), spec.embedded).unwrap();
    }
    folder
}

fn refusal(folder: &Path) -> String {
    let store = ModelStore::folder(folder);
    let verified = verify_models(&store, &effects()).unwrap_err().to_string();
    match load_models(&runtime(Backend::Rten), &store, &effects()) {
        Err(LoadError::File(error)) => assert_eq!(error.to_string(), verified),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was loaded"),
    }
    verified
}

#[test]
fn whole_model_files_are_accepted_from_a_folder_and_from_the_program() {
    let folder = folder_of_models("whole");
    for store in [ModelStore::folder(&folder), ModelStore::embedded()] {
        verify_models(&store, &effects()).unwrap();
        let models = load_models(&runtime(Backend::Rten), &store, &effects()).unwrap();
        let effects = effects();
        let all: BTreeSet<_> = effects.iter().flat_map(|effect| effect.models()).map(|spec| spec.name.as_ref()).collect();
        assert_eq!(models.names().collect::<BTreeSet<_>>(), all);
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn damaged_model_files_are_named_with_the_cause_and_the_remedy() {
    let folder = folder_of_models("broken");
    let file = folder.join("style26.onnx");
    let whole = fs::read(&file).unwrap();
    let name = file.display().to_string();

    fs::write(&file, &whole[..1000]).unwrap();
    assert!(refusal(&folder).starts_with(&format!("model file {name} has 1000 bytes instead of 720457: copy it again")));
    fs::write(&file, []).unwrap();
    assert!(refusal(&folder).starts_with(&format!("model file {name} is empty (0 bytes instead of 720457): copy it again")));
    let mut flipped = whole.clone();
    flipped[300_000] ^= 1;
    fs::write(&file, &flipped).unwrap();
    let corrupted = refusal(&folder);
    assert!(corrupted.starts_with(&format!("model file {name} is corrupted (sha256 ")), "{corrupted}");
    assert!(corrupted.contains("instead of 9666058870addbc2800f16d0a9e89cd98746eb7c8da515e3e7933dbf266ffe0c"), "{corrupted}");
    fs::remove_file(&file).unwrap();
    assert!(refusal(&folder).starts_with(&format!("model file {name} is missing: copy it again")));
    fs::create_dir(&file).unwrap();
    assert!(refusal(&folder).starts_with(&format!("model file {name}")));
    fs::remove_dir_all(&folder).unwrap();
    assert!(refusal(&folder).contains("is missing"));
}

#[test]
fn a_model_that_was_not_loaded_is_an_error_and_not_another_model() {
    for backend in BACKENDS {
        let mut models = models(backend, &[effect("face_detection")]);
        let blur = effect("background_blur");
        let input = blur.painter().prepare(&landscape(), &Parameters::defaults(blur.parameters()));
        let refused = blur.analyse(&mut models, &input);
        assert!(matches!(refused, Err(RunError::Missing { model }) if model == "selfie_landscape_144x256"));
    }
}

#[test]
fn prepared_frames_that_do_not_fit_are_refused_and_the_next_one_is_analysed() {
    let picture = |width: u32, height: u32| Rgb { width, height, data: vec![9; 3 * (width * height) as usize] };
    let input = |picture: Rgb, content, arguments| ModelInput { picture, content, arguments };
    for backend in BACKENDS {
        let mut models = models(backend, &effects());
        for effect in effects().iter().filter(|effect| effect.needs_worker()) {
            let bad = [
                input(picture(1, 1), [0, 0, 1, 1], vec![]),
                input(picture(0, 0), [0; 4], vec![0.5]),
                input(Rgb { width: 256, height: 144, data: vec![] }, [0, 0, 256, 144], vec![]),
                input(Rgb { width: u32::MAX, height: u32::MAX, data: vec![0; 12] }, [0, 0, 1, 1], vec![0.5]),
                input(picture(256, 160), [0, 0, 257, 160], vec![0.5]),
                input(picture(256, 160), [0, 0, 0, 0], vec![0.5]),
                input(picture(256, 160), [0, 0, 256, 160], vec![f32::NAN; 26]),
            ];
            for bad in bad {
                let refused = effect.analyse(&mut models, &bad);
                assert!(matches!(refused, Err(RunError::BadInput { .. })), "{}: {refused:?}", effect.name());
            }
            through(&**effect, &mut models, &landscape(), &json!({}));
        }
    }
}

#[test]
fn a_library_that_can_not_be_had_is_an_error_when_it_was_asked_for() {
    let missing = Runtime::load(Some(Path::new("/nowhere/libonnxruntime.so")), None).unwrap_err().to_string();
    assert!(missing.starts_with("ONNX Runtime cannot be loaded from /nowhere/libonnxruntime.so: "), "{missing}");
    assert!(missing.contains("ORT_DYLIB_PATH"), "{missing}");
    let file = std::env::temp_dir().join(format!("ooblex-effects-{}.so", std::process::id()));
    for content in [&b""[..], b"not a library"] {
        fs::write(&file, content).unwrap();
        let refused = Runtime::load(Some(&file), Some(Backend::Ort)).unwrap_err().to_string();
        assert!(refused.starts_with("ONNX Runtime cannot be loaded from"), "{refused}");
    }
    fs::remove_file(file).unwrap();
    assert_eq!(Runtime::load(Some(Path::new("/nowhere")), Some(Backend::Rten)).unwrap().backend(), Backend::Rten);
}

#[test]
fn every_size_of_frame_is_prepared_analysed_and_painted() {
    let sides =
        [(1, 1), (2, 1), (1, 2), (3, 5), (17, 9), (64, 64), (641, 481), (361, 640), (1080, 1920), (1920, 1080), (4096, 1), (1, 4096)];
    let mut models = models(Backend::Ort, &effects());
    for effect in effects() {
        let parameters = Parameters::defaults(effect.parameters());
        // One painter is used for all sizes, because the frame size of a track changes during a
        // call.
        let mut painter = effect.painter();
        for (width, height) in sides {
            let frame = noise(width, height);
            let input = painter.prepare(&frame, &parameters);
            let analysis = effect.needs_worker().then(|| effect.analyse(&mut models, &input).unwrap());
            for picture in [&mut frame.clone(), &mut noise(height, width)] {
                let size = (picture.width(), picture.height());
                painter.compose(picture, analysis.as_ref(), &parameters).unwrap();
                assert_eq!((picture.width(), picture.height()), size, "{}", effect.name());
                painter.placeholder(picture, &parameters);
                assert_eq!((picture.width(), picture.height()), size, "{}", effect.name());
            }
        }
    }
}

/// The blurred background keeps less fine detail than a fraction of the source's. The source is a
/// real picture with added noise: its own background is so smooth that the rounding errors of the
/// blur would dominate.
#[test]
fn the_background_is_never_sharp() {
    let blur = effect("background_blur");
    let frame = noisy(&landscape());
    let person: Vec<u8> = png("mask_256x144.png").data.into_iter().step_by(3).collect();
    let background = background(&person);
    let in_background = |x: usize, y: usize| background[y * 640 + x];
    let in_person = |x: usize, y: usize| person_at(&person, x, y) > 250;
    for backend in BACKENDS {
        let mut models = models(backend, std::slice::from_ref(&blur));
        let (_, analysis, _) = through(&*blur, &mut models, &landscape(), &json!({}));
        for strength in [0.0, 0.1, 0.3, 0.6, 1.0] {
            for softness in [0.0, 0.5, 1.0] {
                let given = json!({"strength": strength, "edge_softness": softness});
                let parameters = Parameters::parse(blur.parameters(), &given).unwrap();
                let mut picture = frame.clone();
                blur.painter().compose(&mut picture, analysis.as_ref(), &parameters).unwrap();
                let left = detail(&picture, in_background) / detail(&frame, in_background);
                println!("{backend}, strength {strength}, softness {softness}: {left:.5} of the detail is left");
                assert!(left < 0.002, "strength {strength}, softness {softness}: {left}");
                let kept = detail(&picture, in_person) / detail(&frame, in_person);
                assert!(kept > 0.9, "strength {strength}: only {kept} of the person's detail is left");
            }
        }
    }
    let mut picture = frame.clone();
    blur.painter().placeholder(&mut picture, &Parameters::defaults(blur.parameters()));
    let left = detail(&picture, |_, _| true) / detail(&frame, |_, _| true);
    println!("placeholder: {left:.5} of the detail is left");
    assert!(left < 0.001, "placeholder: {left}");
}

#[test]
fn a_placeholder_that_is_not_blurred_is_the_same_for_every_source() {
    for name in ["face_detection", "style_transfer"] {
        let effect = effect(name);
        let parameters = Parameters::defaults(effect.parameters());
        let placeholders = [noise(641, 481), I420::grey(641, 481, 16)].map(|mut picture| {
            effect.painter().placeholder(&mut picture, &parameters);
            picture
        });
        assert!(placeholders[0] == placeholders[1], "{name}");
    }
}

#[test]
fn results_of_one_effect_are_refused_by_all_others() {
    let mut models = models(Backend::Ort, &effects());
    let results: Vec<Option<Analysis>> = effects().iter().map(|e| through(&**e, &mut models, &landscape(), &json!({})).1).collect();
    let kind = |result: &Option<Analysis>| result.as_ref().map(Analysis::kind);
    for (effect, own) in effects().iter().zip(&results) {
        for result in &results {
            let painted = effect.painter().compose(&mut landscape(), result.as_ref(), &Parameters::defaults(effect.parameters()));
            assert_eq!(painted.is_ok(), kind(own) == kind(result), "{} with {:?}", effect.name(), kind(result));
        }
    }
}

/// Results also come from other machines: an older version, a broken one, or an attacker.
#[test]
fn results_whose_sizes_or_places_can_not_be_are_refused_by_every_painter_and_the_next_frame_is_painted() {
    let mask = |width, height, bytes| Analysis::Mask(Mask { width, height, probability: vec![200; bytes] });
    let picture = |width, height, bytes| Analysis::Picture(Rgb { width, height, data: vec![200; bytes] });
    let face = |score, place: f32| Face { score, rect: [0.2, 0.2, place, 0.6], keypoints: [[0.3, place]; 6] };
    let faces = |faces: Vec<Face>| Analysis::Faces(faces);
    let sizes = [
        (0, 0, 0),
        (0, 0, 1),
        (0, 144, 0),
        (256, 0, 0),
        (256, 144, 0),
        (4, 4, 1),
        (4097, 1, 4097),
        (1, 4097, 4097),
        (u32::MAX, u32::MAX, 1),
        (1 << 16, 1 << 16, 0),
        (u32::MAX, 1, 0),
    ];
    let off_by_one = [(16, 16, 255), (16, 16, 257), (1, 1, 2)];
    let masks = sizes.iter().chain(&off_by_one).map(|(width, height, bytes)| mask(*width, *height, *bytes));
    let pictures = sizes.iter().map(|(width, height, bytes)| picture(*width, *height, 3 * bytes));
    let pictures = pictures.chain(off_by_one.iter().map(|(width, height, bytes)| picture(*width, *height, 3 * bytes - 1)));
    let places = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|place| faces(vec![face(0.9, 0.5), face(0.9, place)]));
    let scores = [f32::NAN, f32::INFINITY, -1.0, 1.1, f32::MAX].map(|score| faces(vec![face(score, 0.5)]));
    let broken: Vec<_> = masks.chain(pictures).chain(places).chain(scores).chain([faces(vec![face(0.9, 0.5); 10_000])]).collect();
    let mut models = models(Backend::Ort, &effects());
    for effect in effects().into_iter().chain(diagnostics()) {
        let parameters = Parameters::defaults(effect.parameters());
        let mut painter = effect.painter();
        let input = painter.prepare(&landscape(), &parameters);
        let good = effect.needs_worker().then(|| effect.analyse(&mut models, &input).unwrap());
        painter.compose(&mut landscape(), good.as_ref(), &parameters).unwrap();
        for broken in &broken {
            let mut frame = noise(65, 49);
            let refused = painter.compose(&mut frame, Some(broken), &parameters).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{} cannot paint", effect.name())), "{refused}");
            assert!(frame == noise(65, 49), "{} has begun to paint", effect.name());
            painter.compose(&mut noise(65, 49), good.as_ref(), &parameters).unwrap();
        }
    }
}

#[test]
fn results_of_any_size_that_can_be_are_painted_on_frames_of_any_size() {
    for (width, height) in [(1, 1), (1, 4096), (4096, 1), (7, 3), (4096, 4096)] {
        let pixels = (width * height) as usize;
        let mask = Analysis::Mask(Mask { width, height, probability: vec![200; pixels] });
        let painting = Analysis::Picture(Rgb { width, height, data: vec![200; 3 * pixels] });
        for (name, result) in [("background_blur", mask), ("style_transfer", painting)] {
            let effect = effect(name);
            let (parameters, mut painter) = (Parameters::defaults(effect.parameters()), effect.painter());
            for (width, height) in [(1, 1), (2, 3), (641, 481), (1, 4096), (4096, 1)] {
                painter.compose(&mut noise(width, height), Some(&result), &parameters).unwrap();
            }
        }
    }
    let far = [f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e30];
    let face = |a: f32, b: f32| Face { score: 1.0, rect: [a, b, b, a], keypoints: [[a, b]; 6] };
    let faces = Analysis::Faces(far.iter().flat_map(|a| far.iter().map(|b| face(*a, *b))).collect());
    let effect = effect("face_detection");
    let mut painter = effect.painter();
    for (width, height) in [(1, 1), (2, 3), (641, 481), (1, 4096), (4096, 1)] {
        painter.compose(&mut noise(width, height), Some(&faces), &Parameters::defaults(effect.parameters())).unwrap();
    }
}

/// A frame of deterministic noise.
fn noise(width: u32, height: u32) -> I420 {
    let mut picture = I420::grey(width, height, 16);
    let mut state = 1_u32;
    for plane in picture.planes_mut() {
        for value in plane {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *value = (state >> 24) as u8;
        }
    }
    picture
}

/// Adds noise of -32 to 31 to each luma value of the frame.
fn noisy(frame: &I420) -> I420 {
    let (mut picture, noise) = (frame.clone(), noise(frame.width(), frame.height()));
    for (luma, noise) in picture.planes_mut()[0].iter_mut().zip(noise.planes()[0]) {
        *luma = luma.saturating_add(noise / 4).saturating_sub(32);
    }
    picture
}

fn person_at(mask: &[u8], x: usize, y: usize) -> u8 {
    mask[(y * 144 / 480) * 256 + x * 256 / 640]
}

/// Returns for each pixel of a 640x480 frame whether it and all pixels within about 15 px are
/// certainly background.
fn background(mask: &[u8]) -> Vec<bool> {
    let is_clear = |x: usize, y: usize| {
        let columns = x.saturating_sub(6)..(x + 7).min(256);
        (y.saturating_sub(5)..(y + 6).min(144)).all(|row| mask[row * 256..][columns.clone()].iter().all(|p| *p < 26))
    };
    let clear: Vec<bool> = (0..144).flat_map(|y| (0..256).map(move |x| (x, y))).map(|(x, y)| is_clear(x, y)).collect();
    (0..480).flat_map(|y| (0..640).map(move |x| (y * 144 / 480) * 256 + x * 256 / 640)).map(|cell| clear[cell]).collect()
}

/// Mean square of the second difference (a Laplacian) of luma where `counts` returns true.
fn detail(picture: &I420, counts: impl Fn(usize, usize) -> bool) -> f64 {
    let (luma, width) = (picture.planes()[0], picture.width() as usize);
    let at = |x: usize, y: usize| f64::from(luma[y * width + x]);
    let (mut sum, mut pixels) = (0.0, 0_u32);
    for y in 1..picture.height() as usize - 1 {
        for x in (1..width - 1).filter(|x| counts(*x, y)) {
            let second = 4.0 * at(x, y) - at(x - 1, y) - at(x + 1, y) - at(x, y - 1) - at(x, y + 1);
            sum += second * second;
            pixels += 1;
        }
    }
    assert!(pixels > 10_000, "only {pixels} pixels count");
    sum / f64::from(pixels)
}

/// The exhaustive match makes the compiler report a new kind of broken file that no test covers.
#[allow(dead_code)]
fn all_kinds_are_tested(error: ModelFileError) {
    match error {
        ModelFileError::Missing { .. }
        | ModelFileError::Unreadable { .. }
        | ModelFileError::Empty { .. }
        | ModelFileError::WrongSize { .. }
        | ModelFileError::WrongChecksum { .. } => {}
    }
}
