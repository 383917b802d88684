//! Custom effects: folders with an `effect.toml` and an ONNX file, read at run time
//! (`docs/custom-effect.md`).
//!
//! `toml` defines the file's syntax; `parse` with `settings` checks its meaning and makes a
//! `spec`; `graph` reads the inputs and outputs of the model; `bind` checks that model and
//! declaration match; `decode` interprets the model's tensors; `painter` paints them; `effect`
//! combines all of it into an [`Effect`](crate::Effect). The caller decides where the folders are,
//! when they are read, and in which process a model is tried before it is served.

mod bind;
mod decode;
mod effect;
mod error;
pub mod fuzz;
mod graph;
mod painter;
mod parse;
mod settings;
mod shape;
mod spec;
mod toml;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ooblex_pipeline::EffectName;
use sha2::{Digest, Sha256};

pub use effect::{CustomEffect, Trial};
pub use error::{CustomEffectError, Place};

use crate::effect::Effect as _;
use graph::Graph;
use ooblex_inference::ModelSpec;
use spec::BoundSpec;
use spec::{Declaration, LabelSource, Located, MAX_LABELS, Output};

/// Name of the file that makes a folder an effect.
const DECLARATION: &str = "effect.toml";
/// Maximum size of a declaration, and of a file of labels, in bytes.
const MAX_TEXT: u64 = 256 * 1024;

/// Limits on what is read from a folder of effects.
#[derive(Debug, Clone, Copy)]
pub struct CustomEffectLimits {
    /// Maximum size of a model file in bytes.
    pub model_bytes: u64,
    /// Maximum number of effect folders; further ones are refused.
    pub effects: usize,
}

/// The result of reading a folder of effects.
#[derive(Default)]
pub struct CustomEffectSet {
    /// Usable effects, in the order of their folders' names.
    pub effects: Vec<Arc<CustomEffect>>,
    /// Folders that were refused, each with the reason.
    pub refused: Vec<Refused>,
}

/// A folder that is refused as an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Name of the folder.
    pub folder: String,
    /// Error message: the defect, its place, and the remedy.
    pub reason: String,
}

impl CustomEffectSet {
    /// Reads all folders in `root`, in the order of their names; those that begin with a dot are
    /// skipped. A missing `root` contains no effects. `taken` lists names that no custom effect may
    /// have.
    pub fn read(root: &Path, limits: CustomEffectLimits, taken: &[EffectName]) -> Self {
        let mut set = Self::default();
        let mut folders = match fs::read_dir(root) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| is_candidate(path)).collect::<Vec<_>>(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return set,
            Err(error) => {
                set.refuse(root, format!("{}: the folder of effects cannot be read ({error}): fix its permissions", root.display()));
                return set;
            }
        };
        folders.sort();
        for (number, folder) in folders.iter().enumerate() {
            if number >= limits.effects {
                set.refuse(
                    folder,
                    format!("{}: {} effects are allowed: raise own_effects.most, or take one away", folder.display(), limits.effects),
                );
                continue;
            }
            let read = inside(root, folder).and_then(|()| CustomEffect::read(folder, limits));
            match read {
                Ok(effect) => match set.collision(&effect, taken) {
                    None => set.effects.push(Arc::new(effect)),
                    Some(reason) => set.refuse(folder, reason),
                },
                Err(error) => set.refuse(folder, error.to_string()),
            }
        }
        set
    }

    fn refuse(&mut self, folder: &Path, reason: String) {
        let folder = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        self.refused.push(Refused { folder, reason });
    }

    fn collision(&self, effect: &CustomEffect, taken: &[EffectName]) -> Option<String> {
        let (name, place) = (effect.name(), effect.name_place());
        if taken.contains(&name) {
            return Some(format!("{place}: name = \"{name}\" is that of an effect of the program: choose another"));
        }
        let other = self.effects.iter().find(|other| other.name() == name)?;
        Some(format!("{place}: name = \"{name}\" is also that of {}: choose another", other.name_place()))
    }
}

impl CustomEffect {
    /// Reads one effect folder.
    ///
    /// # Errors
    /// When it cannot be used as an effect. The message names the file, and the line and the tensor
    /// if there is one.
    pub fn read(folder: &Path, limits: CustomEffectLimits) -> Result<Self, CustomEffectError> {
        let path = folder.join(DECLARATION);
        let text = read_text(folder, &path)?;
        let declared = Declaration::parse(&path, &text)?;
        let Declaration { name: Located { value: name, place: name_place }, title, description, when_slow, model, output, parameters } =
            declared;
        let model_path = folder.join(&model.file.value);
        let remedy = "take a smaller model, or raise own_effects.model_mib";
        let bytes = read_file(folder, &model_path, limits.model_bytes, remedy).map_err(|error| match error {
            CustomEffectError::Unreadable { reason, .. } if reason.kind() == std::io::ErrorKind::NotFound => {
                CustomEffectError::Declaration {
                    place: model.file.place.clone(),
                    what: format!("model.file = {:?} is not there: put the ONNX file beside effect.toml", model.file.value),
                }
            }
            error => error,
        })?;
        let graph = Graph::read(&bytes).map_err(|what| CustomEffectError::Model { path: model_path, what })?;
        let labels = read_labels(folder, &path, &output)?;
        let fitted = bind::fit(&model, &output, &parameters, labels.len(), &graph)?;

        let checksum = hex(&Sha256::digest(&bytes));
        let content = [text.as_bytes(), checksum.as_bytes(), labels.join("\n").as_bytes()].concat();
        let version = hex(&Sha256::digest(content));
        let spec = ModelSpec {
            name: format!("{name}/{}", model.file.value).into(),
            file: model.file.value.clone().into(),
            sha256: checksum.into(),
            embedded: &[],
            inputs: fitted.inputs.into(),
            outputs: fitted.outputs.into(),
            threads: model.threads,
            warm_up: &[],
        };
        let name = EffectName::new(name);
        let form = BoundSpec { name: name.clone(), model, output, labels, inputs: fitted.parameters };
        Ok(Self {
            queue: EffectName::new(format!("{name}@{}", &version[..8])),
            name,
            title,
            description,
            when_slow,
            folder: folder.into(),
            bytes: Some(bytes.into()),
            spec,
            parameters: parameters.into_iter().map(|declared| declared.parameter).collect(),
            name_place,
            form: Arc::new(form),
        })
    }
}

fn is_candidate(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.is_dir()
}

/// Returns the names of the model's classes.
fn read_labels(folder: &Path, declaration: &Path, output: &Output) -> Result<Vec<String>, CustomEffectError> {
    let source = match output {
        Output::Boxes(boxes) => &boxes.labels,
        Output::Labels(labels) => &labels.labels,
        Output::Picture(_) | Output::Mask(_) => return Ok(Vec::new()),
    };
    let (words, line) = match source {
        LabelSource::None => return Ok(Vec::new()),
        LabelSource::List(list, place) => (LabelSource::words(list.iter().map(String::as_str)), place.line),
        LabelSource::File(file, place) => {
            let text = read_text(folder, &folder.join(file))?;
            (LabelSource::words(text.lines().filter(|line| !line.trim().is_empty())), place.line)
        }
    };
    if words.is_empty() || words.len() > MAX_LABELS {
        let place = Place { path: declaration.into(), line };
        return Err(CustomEffectError::Declaration {
            place,
            what: format!("{} labels: there must be 1 to {MAX_LABELS}, one for each class", words.len()),
        });
    }
    Ok(words)
}

fn read_text(folder: &Path, path: &Path) -> Result<String, CustomEffectError> {
    let bytes = read_file(folder, path, MAX_TEXT, "it is to be a small text")?;
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        CustomEffectError::Declaration { place: Place { path: path.into(), line }, what: "it is no text in UTF-8: save it as such".into() }
    })
}

/// Reads a file that lies in the folder, up to `most` bytes.
fn read_file(folder: &Path, path: &Path, most: u64, remedy: &'static str) -> Result<Vec<u8>, CustomEffectError> {
    inside(folder, path)?;
    let about = fs::metadata(path).map_err(CustomEffectError::unreadable(path))?;
    if !about.is_file() {
        return Err(CustomEffectError::NoFile { path: path.into() });
    }
    let too_large = |got| CustomEffectError::TooLarge { path: path.into(), got, most, remedy };
    if about.len() > most {
        return Err(too_large(about.len()));
    }
    let mut bytes = Vec::with_capacity(about.len() as usize);
    let file = File::open(path).map_err(CustomEffectError::unreadable(path))?;
    // The file may grow while it is read.
    file.take(most + 1).read_to_end(&mut bytes).map_err(CustomEffectError::unreadable(path))?;
    if bytes.len() as u64 > most { Err(too_large(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Checks that a path, with all symbolic links resolved, lies within a folder. Links within the
/// folder are allowed: Kubernetes mounts files that way.
fn inside(folder: &Path, path: &Path) -> Result<(), CustomEffectError> {
    let whole = |path: &Path| -> Result<PathBuf, CustomEffectError> { path.canonicalize().map_err(CustomEffectError::unreadable(path)) };
    let target = whole(path)?;
    if target.starts_with(whole(folder)?) { Ok(()) } else { Err(CustomEffectError::LeadsOut { path: path.into(), target }) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
