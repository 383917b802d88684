//! Inputs and results of models: plain data, with one form within a process and between machines.

use serde::{Deserialize, Serialize};

/// A picture in interleaved 8-bit RGB, rows tightly packed: `3 * width * height` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rgb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes in the order `R G B R G B …`.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// Input of a model, which an effect's `prepare` makes from a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// Frame resized to the input size of the model, with padding if the effect asks for it.
    pub picture: Rgb,
    /// Area of the frame within `picture`, in its pixels: left, top, width, height. The rest is
    /// padding.
    pub content: [u32; 4],
    /// Numeric inputs of the model besides the picture (such as the weights of the styles); empty
    /// for most effects.
    pub arguments: Vec<f32>,
}

/// A model's result for one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Analysis {
    /// Probability for each pixel that it belongs to the person.
    Mask(Mask),
    /// Faces that were found, best first.
    Faces(Vec<Face>),
    /// Picture that is painted in place of the frame. It shows the whole frame, whatever its size.
    Picture(Rgb),
    /// Faces that were found, with their meshes, best first.
    Meshes(Vec<FaceMesh>),
    /// Objects of any kind that were found, or labels of the whole frame, best first.
    Things(Vec<Thing>),
}

impl Analysis {
    /// Returns the kind of analysis in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Analysis::Mask(_) => "a mask",
            Analysis::Faces(_) => "faces",
            Analysis::Picture(_) => "a picture",
            Analysis::Meshes(_) => "meshes",
            Analysis::Things(_) => "things",
        }
    }
}

/// Mask with a probability per pixel. It covers the whole frame, whatever its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Row-major, 0 = certainly background, 255 = certainly person.
    #[serde(with = "serde_bytes")]
    pub probability: Vec<u8>,
}

/// Face in coordinates of the frame: (0, 0) is its top left corner, (1, 1) its bottom right one.
/// Parts may lie outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// Confidence, 0..=1.
    pub score: f32,
    /// Bounding box: left, top, right, bottom.
    pub rect: [f32; 4],
    /// Key points, each as x, y: right eye, left eye, nose, mouth, right ear, left ear (the
    /// person's right and left).
    pub keypoints: [[f32; 2]; 6],
}

/// Object that was found, or a label of the whole frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    /// Number of the class in the model. The effect knows the names of the classes.
    pub class: u32,
    /// Confidence, 0..=1.
    pub score: f32,
    /// Bounding box (left, top, right, bottom) in coordinates of the frame, as in [`Face`]; `None`
    /// for a label of the whole frame.
    pub rect: Option<[f32; 4]>,
}

/// Face with its mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaceMesh {
    /// Face as the detector found it.
    pub face: Face,
    /// [`FaceMesh::POINTS`] points in MediaPipe's order: x and y in coordinates of the frame, z on
    /// the scale of x (smaller is nearer). Empty if the mesh model saw no face.
    pub points: Vec<[f32; 3]>,
}

impl FaceMesh {
    /// Number of points of a mesh.
    pub const POINTS: usize = 468;
}
