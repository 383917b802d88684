//! What travels to a model and what comes back: plain data, the same in one process and between machines.

use serde::{Deserialize, Serialize};

/// A picture in interleaved 8-bit RGB, rows tightly packed: `3 * width * height` bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rgb {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `R G B R G B …`.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// What `prepare` makes of a frame for a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// The frame, resized to what the model wants, with padding where the effect asked for it.
    pub picture: Rgb,
    /// Where the frame lies within `picture`, in its pixels: left, top, width, height. The rest is padding.
    pub content: [u32; 4],
    /// Numbers that the analysis takes besides the picture (such as the weights of the styles); empty for most effects.
    pub arguments: Vec<f32>,
}

/// A model's result for one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Analysis {
    /// How likely each pixel belongs to the person.
    Mask(Mask),
    /// The faces that were found, best first.
    Faces(Vec<Face>),
    /// A picture to paint in place of the frame; it shows the whole frame, whatever its size.
    Picture(Rgb),
    /// The faces that were found with the meshes that lie on them, best first.
    Meshes(Vec<FaceMesh>),
    /// Things of any kind that were found, or labels of the whole frame, best first.
    Things(Vec<Thing>),
}

impl Analysis {
    /// What it is, in words.
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

/// A probability per pixel; it covers the whole frame, whatever its size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mask {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Row-major, 0 = certainly background, 255 = certainly person.
    #[serde(with = "serde_bytes")]
    pub probability: Vec<u8>,
}

/// One face, in coordinates of the frame: (0, 0) its top left corner, (1, 1) its bottom right one. Parts may lie outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Face {
    /// 0..=1.
    pub score: f32,
    /// Left, top, right, bottom.
    pub rect: [f32; 4],
    /// Right eye, left eye, nose, mouth, right ear, left ear (the person's right and left), each x, y.
    pub keypoints: [[f32; 2]; 6],
}

/// One thing that was found, or a label of the whole frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    /// Its number among the classes of the model; the effect knows their names.
    pub class: u32,
    /// 0..=1.
    pub score: f32,
    /// Left, top, right, bottom in coordinates of the frame, as of a [`Face`]; `None` for a label of the whole frame.
    pub rect: Option<[f32; 4]>,
}

/// A face with the mesh that lies on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaceMesh {
    /// Where the detector found it.
    pub face: Face,
    /// [`FaceMesh::POINTS`] points in MediaPipe's order: x and y in coordinates of the frame, z on the scale of x; the smaller, the nearer.
    /// Empty where the model for meshes saw no face.
    pub points: Vec<[f32; 3]>,
}

impl FaceMesh {
    /// Points of a mesh.
    pub const POINTS: usize = 468;
}
