//! Detections of an effect, as data that is sent beside the picture.

use std::borrow::Cow;

use ooblex_pipeline::Face;

/// One detected and painted object, in coordinates of the frame: the top left corner is (0, 0), the
/// bottom right one (1, 1). Parts may lie outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Id of the object, constant from frame to frame; `None` if objects are not tracked.
    pub id: Option<u64>,
    /// Class of the object, such as `face`.
    pub label: Cow<'static, str>,
    /// Score of the detection, 0..=1.
    pub score: f32,
    /// Left, top, right and bottom of the object; `None` if the label is of the whole frame.
    pub rect: Option<[f32; 4]>,
    /// Points of the object, each x, y.
    pub points: Vec<[f32; 2]>,
    /// Names of the points, in their order; empty if they have none.
    pub names: &'static [&'static str],
}

impl Found {
    /// Label of faces.
    pub const FACE: &str = "face";
    /// Names of a face's keypoints. Right and left are the person's.
    pub const KEYPOINTS: [&str; 6] = ["right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear"];

    /// Creates a detection of a face.
    pub fn face(id: Option<u64>, face: &Face) -> Self {
        let points = face.keypoints.to_vec();
        Self { id, label: Self::FACE.into(), score: face.score, rect: Some(face.rect), points, names: &Self::KEYPOINTS }
    }
}
