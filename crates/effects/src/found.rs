//! What an effect found in a frame, as data beside the picture. It owns the shape; who reads it is not its business.

use std::borrow::Cow;

use ooblex_pipeline::Face;

/// One thing that was found and painted, in coordinates of the frame: (0, 0) its top left corner, (1, 1) its bottom right one. Parts
/// may lie outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The same thing has the same number from frame to frame; `None` where things are not followed.
    pub id: Option<u64>,
    /// What it is, such as `face`.
    pub label: Cow<'static, str>,
    /// How certain the model was, 0..=1.
    pub score: f32,
    /// Left, top, right, bottom; `None` where the label is of the whole frame.
    pub rect: Option<[f32; 4]>,
    /// Points in it, each x, y.
    pub points: Vec<[f32; 2]>,
    /// The names of the points, in their order; empty where they have none.
    pub names: &'static [&'static str],
}

impl Found {
    /// The label of faces.
    pub const FACE: &str = "face";
    /// The names of a face's keypoints. Right and left are the person's.
    pub const KEYPOINTS: [&str; 6] = ["right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear"];

    /// A face where it was painted.
    pub fn face(id: Option<u64>, face: &Face) -> Self {
        let points = face.keypoints.to_vec();
        Self { id, label: Self::FACE.into(), score: face.score, rect: Some(face.rect), points, names: &Self::KEYPOINTS }
    }
}
