//! Face tracking: identities of faces from frame to frame, smoothing of their positions, and
//! bridging of short gaps in their detection.
//!
//! The tracker receives the boxes and points of one track's faces, in frame order. A face keeps its
//! id for as long as it is detected, and for [`REMEMBERED`] frames beyond in case it reappears in
//! the same place.
//!
//! **Smoothing** uses a One Euro filter for each coordinate (Casiez, Roussel, Vogel, *1 € Filter*,
//! 2012): a low-pass whose cutoff rises with speed, so that jitter is suppressed and motion is
//! followed. Speed is measured in sizes of the face, so that near and far faces are treated alike,
//! and by frames, of which [`FRAMES_PER_SECOND`] are assumed per second: a painter has no clock.

use ooblex_pipeline::{Analysis, EffectName, Face, FaceMesh};

use crate::effect::ComposeError;
use crate::found::Found;

/// Frame rate that the filter assumes.
const FRAMES_PER_SECOND: f32 = 30.0;
/// Number of frames for which the id of a lost face is remembered.
const REMEMBERED: u32 = 60;
/// Maximum number of faces accepted in one frame.
pub(crate) const MOST_FACES: usize = 560;
/// Fraction of the threshold that suffices for a face that is already tracked (hysteresis).
pub(crate) const LOYALTY: f32 = 0.6;

/// Cutoff of the filter for a face at rest, in Hz.
const CUTOFF_STILL: f32 = 0.7;
/// Increase of the cutoff in Hz for each face size per second of speed.
const CUTOFF_BY_SPEED: f32 = 14.0;
/// Cutoff of the filter for speeds, in Hz.
const CUTOFF_OF_SPEED: f32 = 1.2;
/// Jump from one frame to the next, as a fraction of the face's size, above which the filter is
/// bypassed.
const JUMP: f32 = 0.25;

/// A tracked face as it is to be painted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// Id of the face: unique within the track, assigned in the order of appearance from 1 on.
    pub(crate) id: u32,
    /// Smoothed box and keypoints.
    pub(crate) face: Face,
    /// Number of frames since the face was last detected; 0 if it was detected in this one.
    pub(crate) missed: u32,
    /// Points of the face's mesh, x and y as fractions of the frame, z on the scale of x; empty
    /// without a mesh.
    pub(crate) landmarks: Vec<[f32; 3]>,
}

/// Tracks the faces of one video track.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    tracks: Vec<Tracked>,
    last_id: u32,
    found: Vec<Seen>,
}

#[derive(Debug)]
struct Tracked {
    id: u32,
    missed: u32,
    score: f32,
    /// Filtered coordinates: four of the box, twelve of the keypoints, then three for each point of
    /// the mesh.
    numbers: Vec<Smoothed>,
}

/// One value behind a One Euro filter.
#[derive(Debug, Clone, Copy)]
struct Smoothed {
    value: f32,
    raw: f32,
    /// Change of the value per frame.
    speed: f32,
}

impl Tracker {
    /// Updates the tracks with the faces of the next frame. A face with a score of at least
    /// `threshold` starts a new track; [`LOYALTY`] times that suffices to continue one. A face that
    /// is no longer detected stays in place for `kept` frames.
    pub(crate) fn update<'a>(&mut self, seen: impl Iterator<Item = (&'a Face, &'a [[f32; 3]])>, threshold: f32, kept: u32) {
        let seen: Vec<_> = seen.filter(|(face, _)| face.score >= LOYALTY * threshold).collect();
        let pairs = self.pairs(&seen);
        self.tracks.iter_mut().for_each(|track| track.missed += 1);
        let mut taken = vec![false; seen.len()];
        for (track, face) in pairs {
            taken[face] = true;
            self.tracks[track].follow(seen[face].0, seen[face].1);
        }
        for ((face, mesh), _) in seen.into_iter().zip(taken).filter(|((face, _), taken)| !taken && face.score >= threshold) {
            self.last_id = self.last_id.wrapping_add(1);
            self.tracks.push(Tracked::new(self.last_id, face, mesh));
        }
        self.tracks.retain(|track| track.missed <= REMEMBERED.max(kept) && track.is_possible());
        if self.tracks.len() > MOST_FACES {
            self.tracks.drain(..self.tracks.len() - MOST_FACES);
        }
        self.found.clear();
        self.found.extend(self.tracks.iter().filter(|track| track.missed <= kept).map(Tracked::found));
    }

    /// Forgets all faces; those of later frames get new ids.
    pub(crate) fn forget(&mut self) {
        self.tracks.clear();
        self.found.clear();
    }

    /// Returns the faces to paint, oldest first, including those that were briefly not detected.
    pub(crate) fn found(&self) -> &[Seen] {
        &self.found
    }

    /// Returns the faces as data: with the points of the mesh if there is one, else with the
    /// keypoints.
    pub(crate) fn told(&self) -> Vec<Found> {
        let told = |seen: &Seen| {
            let found = Found::face(Some(seen.id.into()), &seen.face);
            match &seen.landmarks[..] {
                [] => found,
                mesh => Found { points: mesh.iter().map(|[x, y, _]| [*x, *y]).collect(), names: &[], ..found },
            }
        };
        self.found.iter().map(told).collect()
    }

    /// Assigns detected faces to tracks, nearest first, each at most once; returns pairs of
    /// indices.
    fn pairs(&self, seen: &[(&Face, &[[f32; 3]])]) -> Vec<(usize, usize)> {
        let mut near: Vec<_> = self
            .tracks
            .iter()
            .enumerate()
            .flat_map(|(t, track)| seen.iter().enumerate().filter_map(move |(f, (face, _))| Some((track.distance(face)?, t, f))))
            .collect();
        near.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut tracks, mut faces) = (vec![false; self.tracks.len()], vec![false; seen.len()]);
        near.retain(|(_, t, f)| {
            let is_free = !tracks[*t] && !faces[*f];
            tracks[*t] |= is_free;
            faces[*f] |= is_free;
            is_free
        });
        near.into_iter().map(|(_, t, f)| (t, f)).collect()
    }
}

impl Tracked {
    fn new(id: u32, face: &Face, mesh: &[[f32; 3]]) -> Self {
        let still = |raw| Smoothed { value: raw, raw, speed: 0.0 };
        Self { id, missed: 0, score: face.score, numbers: numbers(face, mesh).map(still).collect() }
    }

    fn follow(&mut self, face: &Face, mesh: &[[f32; 3]]) {
        if self.numbers.len() != 16 + 3 * mesh.len() {
            *self = Self { numbers: Self::new(self.id, face, mesh).numbers, ..Self::new(self.id, face, &[]) };
            return;
        }
        let size = size(&face.rect);
        for (smoothed, raw) in self.numbers.iter_mut().zip(numbers(face, mesh)) {
            smoothed.follow(raw, size);
        }
        self.missed = 0;
        self.score = face.score;
    }

    /// Returns the distance to a detected face in sizes of the face; `None` if it cannot be the
    /// same face.
    fn distance(&self, face: &Face) -> Option<f32> {
        let own: [f32; 4] = std::array::from_fn(|side| self.numbers[side].value);
        let [own_size, their_size] = [size(&own), size(&face.rect)];
        let centre = |rect: &[f32; 4], axis: usize| (rect[axis] + rect[axis + 2]) / 2.0;
        let away = [0, 1].map(|axis| (centre(&own, axis) - centre(&face.rect, axis)) / own_size.max(their_size)[axis].max(f32::EPSILON));
        let distance = away[0].hypot(away[1]);
        let ratio = own_size.0[0] / their_size.0[0].max(f32::EPSILON);
        (distance < 0.8 && (0.4..=2.5).contains(&ratio)).then_some(distance + 0.2 * ratio.ln().abs())
    }

    fn is_possible(&self) -> bool {
        self.numbers.iter().all(|number| number.value.is_finite())
    }

    fn found(&self) -> Seen {
        let values: Vec<f32> = self.numbers.iter().map(|number| number.value).collect();
        let rect = std::array::from_fn(|side| values[side]);
        let keypoints = std::array::from_fn(|k| [values[4 + 2 * k], values[5 + 2 * k]]);
        let landmarks = values[16..].as_chunks().0.to_vec();
        Seen { id: self.id, face: Face { score: self.score, rect, keypoints }, missed: self.missed, landmarks }
    }
}

impl Smoothed {
    /// Advances the filter by one frame. `size` is the width and height of the face.
    fn follow(&mut self, raw: f32, size: Size) {
        let size = size.0[0].max(size.0[1]).max(1e-3);
        let share = |cutoff: f32| 1.0 / (1.0 + FRAMES_PER_SECOND / (2.0 * std::f32::consts::PI * cutoff));
        let moved = raw - self.value;
        if moved.abs() > JUMP * size {
            *self = Self { value: raw, raw, speed: 0.0 };
            return;
        }
        self.speed += (raw - self.raw - self.speed) * share(CUTOFF_OF_SPEED);
        self.raw = raw;
        let sizes_a_second = self.speed.abs() / size * FRAMES_PER_SECOND;
        self.value += moved * share(CUTOFF_STILL + CUTOFF_BY_SPEED * sizes_a_second);
    }
}

/// Width and height of a box.
#[derive(Clone, Copy)]
struct Size([f32; 2]);

impl Size {
    fn max(self, other: Size) -> [f32; 2] {
        [self.0[0].max(other.0[0]), self.0[1].max(other.0[1])]
    }
}

fn size(rect: &[f32; 4]) -> Size {
    Size([rect[2] - rect[0], rect[3] - rect[1]])
}

fn numbers(face: &Face, mesh: &[[f32; 3]]) -> impl Iterator<Item = f32> {
    let points = face.keypoints.into_iter().flatten();
    face.rect.into_iter().chain(points).chain(mesh.iter().copied().flatten())
}

/// Returns the intersection over union of two boxes; 0 for boxes without area.
pub(crate) fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |rect: &[f32; 4]| (rect[2] - rect[0]).max(0.0) * (rect[3] - rect[1]).max(0.0);
    let common = side(0) * side(1);
    let all = area(a) + area(b) - common;
    if all > 0.0 { common / all } else { 0.0 }
}

/// Returns the faces of an analysis. It may come from another machine, so values that cannot be
/// painted are refused.
pub(crate) fn faces_of<'a>(effect: &'static str, analysis: Option<&'a Analysis>) -> Result<&'a [Face], ComposeError> {
    let refused = |got| Err(ComposeError { effect: EffectName::new(effect), got });
    match analysis {
        Some(Analysis::Faces(faces)) if faces.len() > MOST_FACES => refused("more faces than the model has candidates"),
        Some(Analysis::Faces(faces)) if !faces.iter().all(is_possible) => refused("a face with an invalid score or position"),
        Some(Analysis::Faces(faces)) => Ok(faces),
        Some(other) => refused(other.kind()),
        None => refused("a frame without its faces"),
    }
}

/// Returns the meshes of an analysis, validated as by [`faces_of`].
pub(crate) fn meshes_of<'a>(effect: &'static str, analysis: Option<&'a Analysis>) -> Result<&'a [FaceMesh], ComposeError> {
    let refused = |got| Err(ComposeError { effect: EffectName::new(effect), got });
    let whole = |mesh: &FaceMesh| {
        is_possible(&mesh.face)
            && (mesh.points.is_empty() || mesh.points.len() == FaceMesh::POINTS)
            && mesh.points.as_flattened().iter().all(|value| value.is_finite())
    };
    match analysis {
        Some(Analysis::Meshes(meshes)) if meshes.len() > MOST_FACES => refused("more meshes than the model has candidates"),
        Some(Analysis::Meshes(meshes)) if !meshes.iter().all(whole) => refused("a mesh with an invalid position"),
        Some(Analysis::Meshes(meshes)) => Ok(meshes),
        Some(other) => refused(other.kind()),
        None => refused("a frame without its meshes"),
    }
}

/// Returns whether the score is within 0..=1 and all coordinates are finite; they may lie outside
/// the frame.
fn is_possible(face: &Face) -> bool {
    (0.0..=1.0).contains(&face.score) && face.rect.iter().chain(face.keypoints.as_flattened()).all(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(score: f32, left: f32, top: f32, side: f32) -> Face {
        Face { score, rect: [left, top, left + side, top + side], keypoints: [[left + side / 2.0, top + side / 2.0]; 6] }
    }

    fn feed(tracker: &mut Tracker, faces: &[Face]) -> Vec<(u32, f32)> {
        tracker.update(faces.iter().map(|face| (face, &[][..])), 0.65, 8);
        tracker.found().iter().map(|found| (found.id, found.face.rect[0])).collect()
    }

    fn ids(tracker: &mut Tracker, faces: &[Face]) -> Vec<u32> {
        feed(tracker, faces).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn a_trembling_face_is_held_and_a_moving_one_followed() {
        let mut tracker = Tracker::default();
        let trembles: Vec<f32> =
            (0..60).map(|n| feed(&mut tracker, &[face(0.9, 0.4 + if n % 2 == 0 { 0.004 } else { 0.0 }, 0.4, 0.2)])[0].1).collect();
        let spread = trembles[30..].windows(2).map(|pair| (pair[0] - pair[1]).abs()).fold(0.0, f32::max);
        assert!(spread < 0.001, "still trembles by {spread} of 0.004");
        // The face moves by its own size per second.
        let lag = (1..60).map(|n| {
            let at = 0.4 + 0.2 / 30.0 * n as f32;
            at - feed(&mut tracker, &[face(0.9, at, 0.4, 0.2)])[0].1
        });
        let worst = lag.skip(10).fold(0.0, f32::max);
        assert!(worst < 0.1 * 0.2, "lags by {worst}");
    }

    #[test]
    fn faces_keep_their_numbers_when_they_pass_each_other_and_change_their_order() {
        let mut tracker = Tracker::default();
        assert_eq!(ids(&mut tracker, &[face(0.9, 0.1, 0.4, 0.1), face(0.8, 0.6, 0.4, 0.1)]), [1, 2]);
        for n in 1..20 {
            let (left, right) = (face(0.9, 0.1 + 0.01 * n as f32, 0.4, 0.1), face(0.95, 0.6 - 0.01 * n as f32, 0.4, 0.1));
            assert_eq!(ids(&mut tracker, &[right, left]), [1, 2]);
        }
    }

    #[test]
    fn a_face_that_is_missed_stays_for_a_moment_and_keeps_its_number_for_longer() {
        let mut tracker = Tracker::default();
        ids(&mut tracker, &[face(0.9, 0.4, 0.4, 0.2)]);
        for _ in 0..8 {
            assert_eq!(ids(&mut tracker, &[]), [1]);
        }
        for _ in 0..30 {
            assert!(ids(&mut tracker, &[]).is_empty());
        }
        assert_eq!(ids(&mut tracker, &[face(0.9, 0.42, 0.4, 0.2)]), [1]);
        assert_eq!(ids(&mut tracker, &[face(0.9, 0.42, 0.4, 0.2), face(0.9, 0.8, 0.1, 0.2)]), [1, 2]);
    }

    #[test]
    fn a_face_that_was_there_needs_less_certainty_than_a_new_one() {
        let mut tracker = Tracker::default();
        assert!(ids(&mut tracker, &[face(0.5, 0.4, 0.4, 0.2)]).is_empty());
        assert_eq!(ids(&mut tracker, &[face(0.7, 0.4, 0.4, 0.2)]), [1]);
        for _ in 0..20 {
            assert_eq!(ids(&mut tracker, &[face(0.4, 0.4, 0.4, 0.2)]), [1]);
        }
        assert_eq!(tracker.found()[0].missed, 0);
    }

    #[test]
    fn what_can_not_be_followed_is_forgotten() {
        let mut tracker = Tracker::default();
        for far in [f32::MAX, f32::MIN, 1e30, -0.0] {
            ids(&mut tracker, &[face(0.9, far, -far, 0.3), face(0.9, 0.5, 0.5, -0.3)]);
            ids(&mut tracker, &[face(0.9, -far, far, 0.3)]);
        }
        assert!(tracker.found().iter().all(|found| found.face.rect.iter().all(|value| value.is_finite())));
    }
}
