//! Tests of custom effects: the examples and every kind of output through the real loader on both
//! backends, and refusals, whose messages name the file, the line and the tensor.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::*;
use ooblex_effects::{
    Backend, Chain, CustomEffect, CustomEffectLimits, CustomEffectSet, Effect, ModelStore, Parameters, effects, i420_from_rgb, load_models,
    models_of, rgb_from_i420,
};
use ooblex_pipeline::{Analysis, EffectName, I420, Mask, ModelInput, Rgb, Thing};
use serde_json::json;

const LIMITS: CustomEffectLimits = CustomEffectLimits { model_bytes: 4 << 20, effects: 8 };

/// A folder of effects, deleted on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own-{name}-{}", std::process::id()));
        _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Adds an effect with one of the test models, and returns its folder.
    fn add(&self, name: &str, model: &str, rest: &str) -> PathBuf {
        let folder = self.0.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(data(&format!("own/{model}.onnx")), folder.join("model.onnx")).unwrap();
        let text = format!("name = \"{name}\"\ntitle = \"T\"\n[model]\nfile = \"model.onnx\"\nwidth = 64\nheight = 48\n{rest}");
        fs::write(folder.join("effect.toml"), text).unwrap();
        folder
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn load(name: &str, model: &str, rest: &str) -> Arc<CustomEffect> {
    let folder = Folder::new(&format!("{name}-{model}"));
    Arc::new(CustomEffect::read(&folder.add(name, model, rest), LIMITS).unwrap_or_else(|error| panic!("{error}")))
}

/// Returns the reason why a folder is refused, without the path of the folder of effects.
fn refusal(model: &str, rest: &str) -> String {
    let folder = Folder::new(&format!("refused-{model}-{:x}", rest.len() * 7919 + rest.bytes().map(usize::from).sum::<usize>()));
    let error = CustomEffect::read(&folder.add("mine", model, rest), LIMITS).err().unwrap_or_else(|| panic!("accepted: {rest}"));
    error.to_string().replace(&format!("{}/", folder.0.display()), "")
}

fn assert_refused(model: &str, rest: &str, words: &[&str]) {
    let said = refusal(model, rest);
    for word in words {
        assert!(said.contains(word), "'{word}' is missing in: {said}");
    }
}

/// Passes one frame through an effect on a backend.
fn painted(effect: &Arc<CustomEffect>, backend: Backend, frame: &I420, given: &serde_json::Value) -> (Analysis, I420) {
    let mut models = models(backend, &[effect.clone() as Arc<dyn Effect>]);
    let (_, analysis, picture) = through(effect.as_ref(), &mut models, frame, given);
    (analysis.unwrap(), picture)
}

fn small() -> I420 {
    i420_from_rgb(&crop(&png("picture_640x480.png"), 120, 55, 320, 180)).unwrap()
}

#[test]
fn the_examples_paint_what_a_person_has_looked_at() {
    let root: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "examples", "effects.d"].iter().collect();
    let taken: Vec<_> = effects().iter().map(|effect| effect.name()).collect();
    let set = CustomEffectSet::read(&root, LIMITS, &taken);
    assert_eq!(set.refused, [], "an example is refused");
    assert_eq!(set.effects.iter().map(|effect| effect.name().to_string()).collect::<Vec<_>>(), ["faces", "relief", "spotlight"]);
    for effect in &set.effects {
        for backend in BACKENDS {
            let trial = effect.try_on(&runtime(backend), &small(), 1).unwrap();
            let (found, file) = (rgb_from_i420(&trial.painted), format!("golden_own_{}_small.png", effect.name()));
            if env::var_os("OOBLEX_BLESS").is_some() && backend == Backend::Ort {
                write_png(&file, &found);
            }
            let difference = mean_difference(&found.data, &png(&file).data);
            assert!(difference <= 0.005, "{backend}: {file} differs by {difference}");
            assert!(mean_difference(&found.data, &rgb_from_i420(&small()).data) > 0.005, "{file} is the picture as it was");
        }
    }
}

#[test]
fn the_examples_boxes_are_those_of_the_program_s_own_detector() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "examples", "effects.d", "faces"].iter().collect();
    let faces = Arc::new(CustomEffect::read(&folder, LIMITS).unwrap());
    for frame in [landscape(), portrait()] {
        let (Analysis::Things(things), _) = painted(&faces, Backend::Ort, &frame, &json!({})) else { panic!("no things") };
        let detection = effect("face_detection");
        let mut models = models(Backend::Ort, std::slice::from_ref(&detection));
        let (_, Some(Analysis::Faces(own)), _) = through(detection.as_ref(), &mut models, &frame, &json!({})) else { panic!("no faces") };
        assert_eq!((things.len(), own.len()), (1, 1));
        // The built-in effect returns the mean of all candidates, this one the best of them.
        let (ours, theirs) = (own[0].rect, things[0].rect.unwrap());
        assert!(ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 0.02), "{ours:?} {theirs:?}");
    }
}

#[test]
fn pictures_of_every_layout_range_and_colour_order_come_out_right() {
    let frame = small();
    let source = rgb_from_i420(&frame);
    let negative: Vec<u8> = source.data.iter().map(|value| 255 - value).collect();
    let swapped: Vec<u8> = source.data.as_chunks::<3>().0.iter().flat_map(|[r, g, b]| [255 - b, 255 - g, 255 - r]).collect();
    for (model, input, output, expected) in [
        ("invert", "", "", &negative),
        ("invert", "colours = \"bgr\"\n", "colours = \"bgr\"\n", &negative),
        ("invert", "colours = \"bgr\"\n", "", &swapped),
        ("invert_nhwc", "layout = \"nhwc\"\nrange = \"-1..1\"\n", "layout = \"nhwc\"\nrange = \"-1..1\"\n", &negative),
        ("invert", "mean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]\n", "", &negative),
        ("open", "", "", &negative),
        ("invert", "fit = \"letterbox\"\npadding = 255\n", "", &negative),
        ("quarter", "", "", &source.data),
    ] {
        let effect = load("pictures", model, &format!("{input}[picture]\n{output}"));
        for backend in BACKENDS {
            let (_, picture) = painted(&effect, backend, &frame, &json!({}));
            let difference = mean_difference(&rgb_from_i420(&picture).data, expected);
            // The rest of the difference is detail that 64 columns cannot hold.
            assert!(difference < 0.06, "{backend} {model} {input} {output}: {difference}");
        }
    }
    let effect = load("pictures", "invert", "[picture]\n");
    let (_, untouched) = painted(&effect, Backend::Rten, &frame, &json!({"strength": 0.0}));
    assert!(untouched == frame, "at strength 0 the camera's picture is seen");
}

#[test]
fn masks_keep_what_they_mark_and_the_rest_is_blurred_replaced_or_tinted() {
    let frame = I420::grey(320, 180, 120);
    let declared = |more: &str| format!("[mask]\nactivation = \"softmax\"\nchannel = 1\n{more}");
    let luma = |picture: &I420, x: usize| picture.planes()[0][90 * 320 + x];
    for backend in BACKENDS {
        let replace = load("masks", "left_half", &declared("rest = \"replace\"\ncolour = \"#ffffff\"\n"));
        let (_, picture) = painted(&replace, backend, &frame, &json!({}));
        assert_eq!((luma(&picture, 20), luma(&picture, 300)), (120, 235), "{backend}");
        let other = load("masks", "left_half", &declared("keeps = \"unmarked\"\nrest = \"replace\"\ncolour = \"#ffffff\"\n"));
        let (_, picture) = painted(&other, backend, &frame, &json!({}));
        assert_eq!((luma(&picture, 20), luma(&picture, 300)), (235, 120), "{backend}");
        let tint = load("masks", "left_half", &declared("rest = \"tint\"\ncolour = \"#000000\"\n[parameters.strength]\ndefault = 0.5\n"));
        let (_, picture) = painted(&tint, backend, &frame, &json!({}));
        assert_eq!((luma(&picture, 20), luma(&picture, 300)), (120, 68), "{backend}");
    }
    let sigmoid = load("masks", "left_half", "[mask]\nactivation = \"sigmoid\"\nchannel = 0\nrest = \"replace\"\ncolour = \"#000000\"\n");
    let (_, picture) = painted(&sigmoid, Backend::Rten, &frame, &json!({}));
    assert_eq!((luma(&picture, 20), luma(&picture, 300)), (16, 120), "channel 0 marks the right half");
}

#[test]
fn an_effect_that_hides_never_shows_what_it_hides() {
    let rest = "[mask]\nactivation = \"softmax\"\nchannel = 1\nrest = \"blur\"\n";
    let folder = Folder::new("hides");
    let path = folder.add("hides", "left_half", rest);
    let text = fs::read_to_string(path.join("effect.toml")).unwrap();
    fs::write(path.join("effect.toml"), format!("hides = true\n{text}")).unwrap();
    let effect = Arc::new(CustomEffect::read(&path, LIMITS).unwrap());
    // Alternating columns have the highest possible spatial frequency.
    let mut frame = I420::grey(320, 180, 16);
    frame.planes_mut()[0].iter_mut().step_by(2).for_each(|luma| *luma = 235);
    let contrast = |picture: &I420, from: usize| {
        let rows = picture.planes()[0].chunks_exact(320);
        rows.flat_map(|row| row[from..].windows(2).map(|pair| pair[0].abs_diff(pair[1])).collect::<Vec<_>>()).max().unwrap()
    };
    let (_, picture) = painted(&effect, Backend::Ort, &frame, &json!({"strength": 0.0}));
    assert!(contrast(&picture, 200) <= 4, "the background has a contrast of {}", contrast(&picture, 200));
    assert!(contrast(&picture, 0) > 200, "the other half is as it was");
    let mut held = frame.clone();
    let parameters = Parameters::defaults(effect.parameters());
    effect.painter().placeholder(&mut held, &parameters);
    assert!(contrast(&held, 0) <= 2);
    // An invalid analysis is refused, whatever a worker sends.
    let broken = |width, height, bytes| Analysis::Mask(Mask { width, height, probability: vec![0; bytes] });
    let things = Analysis::Things(vec![Thing { class: 0, score: 1.0, rect: None }]);
    for analysis in [Some(broken(64, 48, 7)), Some(broken(0, 0, 0)), Some(things), Some(Analysis::Faces(vec![])), None] {
        let refused = effect.painter().compose(&mut frame.clone(), analysis.as_ref(), &parameters);
        assert!(refused.unwrap_err().to_string().starts_with("hides cannot paint"));
    }
}

#[test]
fn boxes_in_rows_or_columns_shares_or_pixels_are_the_same_boxes() {
    let rows =
        load("boxes", "boxes", "[boxes]\ntensor = \"boxes\"\nscores = \"scores\"\nform = \"xyxy\"\nlabels = [\"cup\", \"pen\", \"hat\"]\n");
    let columns = load(
        "boxes",
        "boxes_columns",
        "[boxes]\nform = \"cxcywh\"\nunits = \"pixels\"\norder = \"columns\"\nobjectness = true\nlabels = [\"cup\", \"pen\", \"hat\"]\n",
    );
    for effect in [&rows, &columns] {
        for backend in BACKENDS {
            let (Analysis::Things(things), picture) = painted(effect, backend, &small(), &json!({})) else { panic!("no things") };
            assert_eq!(things.iter().map(|thing| (thing.class, (thing.score * 10.0).round() as u32)).collect::<Vec<_>>(), [(0, 9), (2, 7)]);
            let rect = things[1].rect.unwrap();
            assert!(rect.iter().zip([0.5, 0.5, 0.9, 0.9]).all(|(got, wanted)| (got - wanted).abs() < 1e-5), "{rect:?}");
            assert!(picture != small(), "the boxes are drawn");
        }
        let (Analysis::Things(all), _) = painted(effect, Backend::Rten, &small(), &json!({"threshold": 0.15})) else { panic!("no things") };
        assert_eq!(all.len(), 3, "the unsure one as well, and not the one that is the same");
    }
    let parameters = Parameters::defaults(rows.parameters());
    let mut painter = rows.painter();
    let thing = |score, left| Thing { class: 2, score, rect: Some([left, 0.0, 0.5, 0.5]) };
    painter.compose(&mut small(), Some(&Analysis::Things(vec![thing(0.9, 0.1), thing(0.3, 0.1)])), &parameters).unwrap();
    let found = painter.found().unwrap();
    assert_eq!((found.len(), found[0].label.as_ref(), found[0].rect), (1, "hat", Some([0.1, 0.0, 0.5, 0.5])));
    for bad in [thing(f32::NAN, 0.1), thing(0.9, f32::INFINITY), thing(2.0, 0.1)] {
        assert!(painter.compose(&mut small(), Some(&Analysis::Things(vec![bad])), &parameters).is_err());
    }
    assert!(painter.compose(&mut small(), Some(&Analysis::Things(vec![thing(0.9, 0.1); 101])), &parameters).is_err());
}

#[test]
fn labels_are_the_best_classes_written_into_the_picture() {
    let folder = Folder::new("labels");
    let path = folder.add("labels", "labels", "[labels]\nactivation = \"softmax\"\ntop = 2\nlabels_file = \"labels.txt\"\n");
    fs::write(path.join("labels.txt"), "cat\ndog\nowl\nbee\n").unwrap();
    let effect = Arc::new(CustomEffect::read(&path, LIMITS).unwrap());
    for backend in BACKENDS {
        let trial = effect.try_on(&runtime(backend), &small(), 1).unwrap();
        assert_eq!(trial.found, "owl 83%, bee 11%");
        assert!(trial.painted != small());
    }
    fs::write(path.join("labels.txt"), "cat\ndog\n").unwrap();
    let refused = CustomEffect::read(&path, LIMITS).err().unwrap().to_string();
    assert!(refused.contains("effect.toml:7: tensor 'logits' of model.onnx: it has 4 classes, and 2 labels are given"), "{refused}");
}

#[test]
fn numbers_go_into_the_model() {
    let rest = "tensor = \"picture\"\n[picture]\n[parameters.amount]\nmin = 0.0\nmax = 1.0\ndefault = 1.0\ninput = \"amount\"\n";
    let effect = load("amounts", "two_inputs", rest);
    for backend in BACKENDS {
        let (_, picture) = painted(&effect, backend, &small(), &json!({"amount": 0.0}));
        assert!(rgb_from_i420(&picture).data.iter().all(|value| *value < 4), "{backend}: times 0 is black");
        let (_, picture) = painted(&effect, backend, &small(), &json!({}));
        assert!(mean_difference(&rgb_from_i420(&picture).data, &rgb_from_i420(&small()).data) < 0.06);
    }
}

#[test]
fn what_effect_toml_says_wrong_is_told_with_its_line() {
    let ok = "[picture]\n";
    assert_refused("invert", &format!("widht = 3\n{ok}"), &["mine/effect.toml:7: unknown field `widht`", "`width`"]);
    assert_refused("invert", &format!("layout = \"chw\"\n{ok}"), &["effect.toml:7: unknown variant `chw`", "`nchw`"]);
    assert_refused("invert", &format!("padding = \"grey\"\n{ok}"), &["effect.toml:7: invalid type: string", "expected u8"]);
    assert_refused("invert", "[picture]\nrange 5\n", &["effect.toml:8:"]);
    assert_refused("invert", "", &["effect.toml:1: nothing says what comes out", "[mask]"]);
    assert_refused("invert", "[picture]\n[labels]\n", &["effect.toml:8: an effect has one of"]);
    assert_refused("invert", "[mask]\n", &["effect.toml:7: missing field `rest`"]);
    assert_refused("invert", "[mask]\nrest = \"tint\"\n", &["effect.toml:8:", "need a colour"]);
    assert_refused("invert", "[mask]\nrest = \"tint\"\ncolour = \"red\"\n", &["effect.toml:9: a colour is written like"]);
    assert_refused("invert", "[mask]\nrest = \"blur\"\nthreshold = 7.0\n", &["effect.toml:9: threshold = 7 must be from 0.05 to 0.95"]);
    assert_refused("invert", "mean = [0.5]\nstd = [0.5]\n[picture]\n", &["effect.toml:7: mean and std have one number for each"]);
    assert_refused("invert", "mean = [0.5, 0.5, 0.5]\n[picture]\n", &["effect.toml:7: mean and std belong together"]);
    assert_refused("invert", "[picture]\n[parameters.size]\n", &["effect.toml:8: parameters.size:", "has strength;", "input"]);
    assert_refused(
        "invert",
        "[picture]\n[parameters.strength]\nmax = 3.0\n",
        &["effect.toml:8: parameters.strength: it may go from 0 to 1"],
    );
    let base = |text: &str| {
        let folder = Folder::new(&format!("base-{:x}", text.len()));
        let path = folder.add("mine", "invert", ok);
        fs::write(path.join("effect.toml"), text).unwrap();
        CustomEffect::read(&path, LIMITS).err().unwrap().to_string()
    };
    assert!(
        base("name = \"My Effect\"\ntitle = \"T\"\n[model]\nfile = \"model.onnx\"\nwidth = 64\nheight = 48\n[picture]\n")
            .contains("effect.toml:1: name = \"My Effect\" is no name")
    );
    assert!(
        base("name = \"mine\"\n\ntitle = \"T\"\n[model]\nfile = \"../model.onnx\"\nwidth = 64\nheight = 48\n[picture]\n")
            .contains("effect.toml:5: \"../model.onnx\" does not lie in this folder")
    );
    assert!(
        base("name = \"mine\"\ntitle = \"T\"\n[model]\nfile = \"other.onnx\"\nwidth = 64\nheight = 48\n[picture]\n")
            .contains("effect.toml:4: model.file = \"other.onnx\" is not there")
    );
    assert!(
        base("hides = true\nname = \"mine\"\ntitle = \"T\"\n[model]\nfile = \"model.onnx\"\nwidth = 64\nheight = 48\n[picture]\n")
            .contains("effect.toml:1: only a [mask]")
    );
    let shown = "hides = true\nwhen_slow = \"reuse\"\nname = \"mine\"\ntitle = \"T\"\n[model]\nfile = \"model.onnx\"\nwidth = 64\nheight = 48\n[mask]\nrest = \"blur\"\n";
    assert!(base(shown).contains("effect.toml:2: when_slow = \"reuse\""));
}

#[test]
fn a_model_that_does_not_fit_is_told_with_the_line_and_the_tensor() {
    let folder = Folder::new("fit");
    let path = folder.add("mine", "invert", "[picture]\n");
    let text = fs::read_to_string(path.join("effect.toml")).unwrap().replace("width = 64", "width = 128");
    fs::write(path.join("effect.toml"), text).unwrap();
    let refused = CustomEffect::read(&path, LIMITS).err().unwrap().to_string();
    assert!(
        refused
            .contains("effect.toml:5: tensor 'picture' of model.onnx: it is [1, 3, 48, 64], and the declaration makes it [1, 3, 48, 128]"),
        "{refused}"
    );

    let tensor = |line: u32, tensor: &str| format!("effect.toml:{line}: tensor '{tensor}' of model.onnx: ");
    assert_refused("invert", "layout = \"nhwc\"\n[picture]\n", &["tensor 'picture' of model.onnx: it is [1, 3, 48, 64]", "[1, 48, 64, 3]"]);
    assert_refused(
        "invert",
        "[picture]\ntensor = \"positive\"\n",
        &[&tensor(8, "positive"), "there is none; it gives 'negative' [1, 3, 48, 64]"],
    );
    assert_refused("invert", "tensor = \"image\"\n[picture]\n", &[&tensor(7, "image"), "it takes 'picture'"]);
    assert_refused("left_half", "[picture]\n", &[&tensor(7, "logits"), "2 channels instead of 3"]);
    assert_refused("left_half", "[mask]\nrest = \"blur\"\nchannel = 2\n", &[&tensor(9, "logits"), "no channel 2"]);
    assert_refused("bytes_out", "[picture]\n", &[&tensor(7, "bytes"), "it is uint8, where float32 is wanted"]);
    assert_refused("no_shape", "[picture]\n", &[&tensor(7, "any"), "shape_inference"]);
    assert_refused("two_inputs", "[picture]\n", &[&tensor(4, "picture"), "not the only one", "'amount' [1]"]);
    assert_refused(
        "two_inputs",
        "tensor = \"picture\"\n[picture]\n",
        &[&tensor(7, "amount"), "it would get no value", "[parameters.NAME]"],
    );
    assert_refused("invert", "[boxes]\nform = \"xyxy\"\n", &[&tensor(7, "negative"), "candidates are the rows of [1, N, K]"]);
    assert_refused("boxes", "[boxes]\nform = \"xyxy\"\n", &["it is not the only one; it gives 'boxes' [1, 4, 4], 'scores' [1, 4, 3]"]);
    assert_refused("boxes", "[boxes]\ntensor = \"boxes\"\nform = \"xyxy\"\n", &[&tensor(8, "boxes"), "leaves none for scores"]);
    assert_refused(
        "boxes",
        "[boxes]\ntensor = \"boxes\"\nscores = \"scores\"\nform = \"xyxy\"\nlabels = [\"a\"]\n",
        &[&tensor(9, "scores"), "3 classes, and 1 labels"],
    );
}

#[test]
fn a_model_that_misbehaves_is_found_when_it_is_tried() {
    let tried =
        |model: &str, rest: &str, backend| load("tried", model, rest).try_on(&runtime(backend), &small(), 1).unwrap_err().to_string();
    for backend in BACKENDS {
        for (model, tensor) in [("nan", "nan"), ("nan_on_black", "share")] {
            let said = tried(model, "[picture]\n", backend);
            assert!(said.contains(&format!("tried/model.onnx gave a value that is not finite in '{tensor}'")), "{backend}: {said}");
        }
        let said = tried("unknown_operator", "[picture]\n", backend);
        assert!(said.contains("cannot load model tried/model.onnx") && said.contains("Frobnicate"), "{backend}: {said}");
    }
    let said = tried("logits", "[mask]\nrest = \"blur\"\n", Backend::Rten);
    assert!(said.contains("effect.toml:7: tensor 'logits' of model.onnx has values from -10 to"), "{said}");
    assert!(said.contains("where 0 to 1 is declared") && said.contains("activation = \"sigmoid\""), "{said}");
    load("tried", "logits", "[mask]\nactivation = \"sigmoid\"\nrest = \"blur\"\n").try_on(&runtime(Backend::Rten), &small(), 1).unwrap();
}

#[test]
fn files_that_lead_out_of_the_folder_or_are_too_large_are_refused_and_links_within_it_are_not() {
    let folder = Folder::new("files");
    let path = folder.add("mine", "invert", "[picture]\n");
    let refused = |limits| CustomEffect::read(&path, limits).err().map(|error| error.to_string()).unwrap_or_default();
    let said = refused(CustomEffectLimits { model_bytes: 100, effects: 1 });
    assert!(
        said.contains("mine/model.onnx: it has") && said.contains("100 are allowed") && said.contains("own_effects.model_mib"),
        "{said}"
    );
    // Kubernetes mounts files as symbolic links within the folder.
    fs::create_dir(path.join("..data")).unwrap();
    fs::rename(path.join("model.onnx"), path.join("..data/model.onnx")).unwrap();
    symlink("..data/model.onnx", path.join("model.onnx")).unwrap();
    assert_eq!(refused(LIMITS), "");
    fs::remove_file(path.join("model.onnx")).unwrap();
    symlink(data("own/invert.onnx"), path.join("model.onnx")).unwrap();
    let said = refused(LIMITS);
    assert!(said.contains("mine/model.onnx: it leads out of its folder, to /") && said.contains("put a copy"), "{said}");
    fs::remove_file(path.join("model.onnx")).unwrap();
    fs::create_dir(path.join("model.onnx")).unwrap();
    assert!(refused(LIMITS).contains("model.onnx: it is no regular file"));
    fs::remove_dir(path.join("model.onnx")).unwrap();
    fs::write(path.join("model.onnx"), "<html>not found</html>").unwrap();
    assert!(refused(LIMITS).contains("mine/model.onnx: it is no ONNX file"));
    fs::write(path.join("effect.toml"), [b"name = \"mine\"\n".to_vec(), vec![0xff; 3]].concat()).unwrap();
    assert!(refused(LIMITS).contains("effect.toml:2: it is no text in UTF-8"));
}

#[test]
fn a_bad_folder_does_not_hinder_the_good_ones() {
    let folder = Folder::new("set");
    for name in ["first", "second", "background_blur"] {
        folder.add(name, "invert", "[picture]\n");
    }
    let twin = folder.add("twin", "invert", "[picture]\n");
    let text = fs::read_to_string(twin.join("effect.toml")).unwrap();
    fs::write(twin.join("effect.toml"), format!("# A copy.\n{}", text.replace("twin", "first"))).unwrap();
    fs::create_dir(folder.0.join("empty")).unwrap();
    fs::create_dir(folder.0.join(".hidden")).unwrap();
    fs::write(folder.0.join("README"), "no folder").unwrap();
    symlink("/", folder.0.join("root")).unwrap();
    let taken = [EffectName::new("background_blur")];
    let set = CustomEffectSet::read(&folder.0, LIMITS, &taken);
    assert_eq!(set.effects.iter().map(|effect| effect.name().to_string()).collect::<Vec<_>>(), ["first", "second"]);
    let reason =
        |name: &str| set.refused.iter().find(|refused| refused.folder == name).map(|refused| refused.reason.clone()).unwrap_or_default();
    assert_eq!(set.refused.len(), 4, "{:?}", set.refused);
    assert!(reason("background_blur").contains("effect.toml:1: name = \"background_blur\" is that of an effect of the program"));
    assert!(reason("twin").contains("twin/effect.toml:2: name = \"first\" is also that of"));
    assert!(reason("empty").contains("empty/effect.toml: it cannot be read"));
    assert!(reason("root").contains("it leads out of its folder"));
    let few = CustomEffectSet::read(&folder.0, CustomEffectLimits { effects: 2, ..LIMITS }, &[]);
    assert!(few.refused.iter().any(|refused| refused.reason.contains("2 effects are allowed")));
    assert_eq!(CustomEffectSet::read(&folder.0.join("nowhere"), LIMITS, &[]).refused, []);
}

#[test]
fn a_changed_folder_is_another_version_and_workers_take_it_over() {
    let folder = Folder::new("versions");
    let path = folder.add("mine", "invert", "[picture]\n");
    let read = || Arc::new(CustomEffect::read(&path, LIMITS).unwrap());
    let (old, same) = (read(), read());
    assert_eq!(old.queue(), same.queue());
    assert!(old.models() == same.models(), "what is the same need not be loaded again");
    fs::copy(data("own/quarter.onnx"), path.join("model.onnx")).unwrap();
    let new = read();
    assert_eq!((old.name(), new.queue().without_version()), (new.name(), "mine"));
    assert_ne!(old.queue(), new.queue());

    let load = |effect: &Arc<CustomEffect>| models(Backend::Rten, &[effect.clone() as Arc<dyn Effect>]);
    let mut loaded = load(&old);
    loaded.take_over(load(&new), &models_of(&[new.clone() as Arc<dyn Effect>]));
    assert_eq!(loaded.names().collect::<Vec<_>>(), ["mine/model.onnx"], "the old one is let go");
    let (_, _, picture) = through(new.as_ref(), &mut loaded, &small(), &json!({}));
    assert!(mean_difference(&rgb_from_i420(&picture).data, &rgb_from_i420(&small()).data) < 0.06, "it is the new model that runs");
}

#[test]
fn inputs_that_were_not_prepared_for_it_are_refused() {
    let effect = load("inputs", "invert", "[picture]\n");
    let mut models = load_models(&runtime(Backend::Rten), &ModelStore::embedded(), &[effect.clone() as Arc<dyn Effect>]).unwrap();
    let input = |width, height, arguments: Vec<f32>| ModelInput {
        picture: Rgb { width, height, data: vec![0; 3 * width as usize * height as usize] },
        content: [0, 0, width, height],
        arguments,
    };
    for bad in [input(48, 64, vec![0.0]), input(64, 48, vec![]), input(64, 48, vec![0.0, 1.0])] {
        assert!(effect.analyse(&mut models, &bad).is_err());
    }
    assert!(effect.analyse(&mut models, &input(64, 48, vec![0.0])).is_ok());
}

#[test]
fn custom_effects_can_be_chained_as_their_kind_allows() {
    let known: Vec<Arc<dyn Effect>> = effects()
        .into_iter()
        .chain([
            load("painting", "invert", "[picture]\n") as Arc<dyn Effect>,
            load("marking", "left_half", "[mask]\nactivation = \"softmax\"\nchannel = 1\nrest = \"blur\"\n") as Arc<dyn Effect>,
        ])
        .collect();
    let chain = Chain::parse("painting+marking+sepia", &known).unwrap();
    let [painting, marking] = [&known[known.len() - 2], &known[known.len() - 1]];
    assert_eq!(chain.version().as_str(), format!("{}+{}+sepia", painting.queue(), marking.queue()));
    assert!(Chain::parse("sepia+painting", &known).unwrap_err().to_string().contains("put it first"));
    let parameters = chain.parse_parameters(&json!({"painting": {"strength": 0.5}})).unwrap();
    let mut models = models(Backend::Rten, chain.parts());
    let mut painter = chain.painter();
    let analyses = chain.analyse(&mut models, &painter.prepare(&small(), &parameters)).unwrap();
    let mut picture = small();
    painter.compose(&mut picture, &analyses, &parameters).unwrap();
    assert!(picture != small());
}

#[test]
fn the_tutorial_names_every_key_and_shows_a_message_as_it_is() {
    let tutorial = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/custom-effect.md")).unwrap();
    let written = include_str!("../../src/custom/toml.rs");
    let keys: Vec<_> =
        written.lines().filter_map(|line| line.trim().strip_prefix("pub(super) ")?.split_once(':').map(|(key, _)| key)).collect();
    assert!(keys.len() > 40, "{keys:?}");
    for key in keys {
        // The tutorial may name a section or a key in any of these forms.
        let named = [format!("`{key}`"), format!("`{key} = "), format!("`[{key}]`"), format!("`[{key}."), format!("\n{key} = ")];
        assert!(named.iter().any(|named| tutorial.contains(named.as_str())), "docs/custom-effect.md does not name '{key}'");
    }
    let folder = Folder::new("tutorial");
    let example: PathBuf = [env!("CARGO_MANIFEST_DIR"), "..", "..", "examples", "effects.d", "spotlight"].iter().collect();
    let path = folder.0.join("spotlight");
    fs::create_dir(&path).unwrap();
    fs::copy(example.join("selfie_landscape_144x256.onnx"), path.join("selfie_landscape_144x256.onnx")).unwrap();
    let wrong = fs::read_to_string(example.join("effect.toml")).unwrap().replace("width = 256", "width = 320");
    fs::write(path.join("effect.toml"), wrong).unwrap();
    let said = CustomEffect::read(&path, LIMITS).err().unwrap().to_string();
    let said = said.replace(folder.0.to_str().unwrap(), "effects.d");
    assert!(tutorial.contains(&format!("\nWRONG effect   {said}\n")), "the tutorial shows something else than: {said}");
}
