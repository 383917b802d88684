//! Binary encoding of jobs and results in Redis.
//!
//! A message is `O B`, the version, `J` (job) or `R` (result), then the fields in postcard's
//! encoding. Anyone who can write to Redis can write any bytes there, so nothing is trusted:
//! lengths are checked before memory is allocated, sizes are checked against contents, and numbers
//! must be finite.

use std::time::Duration;

use ooblex_pipeline::{Analysis, EffectName, Face, FaceMesh, FrameSeq, Job, ModelInput, Outcome, Rgb, Thing, TrackId};
use serde::{Deserialize, Serialize};

/// Version of the wire format. It is incremented whenever the fields of a job or a result change.
pub(super) const VERSION: u8 = 3;
/// Maximum size of a job or a result in bytes: a 1920×1080 picture in RGB fits.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// Maximum length of a worker's failure message, characters.
const MAX_REASON: usize = 500;
/// Maximum length of an effect's name, bytes.
const MAX_NAME: usize = 100;
/// Maximum width and height of a picture or a mask, pixels.
const MAX_SIDE: u32 = 1 << 16;
/// Maximum number of faces in a result, with or without a mesh: the detector has no more
/// candidates.
const MAX_FACES: usize = 896;
/// Maximum number of meshes with points in a result. `face_mesh` has at most 4.
const MAX_MESHED: usize = 16;
/// Maximum number of boxes and labels in a result, which is the most that a custom effect may ask
/// for.
const MAX_THINGS: usize = 100;
/// Maximum number of arguments of a model.
const MAX_ARGUMENTS: usize = 1024;
/// Maximum time that a worker reports for a job. A job whose deadline has passed is given up long
/// before.
const MAX_ANALYSING: Duration = Duration::from_secs(3600);

const MAGIC: &[u8; 2] = b"OB";

/// Random number of a job that its result must repeat. A process that did not get the job cannot
/// know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Nonce([u8; 16]);

impl Nonce {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }
}

/// Reason why bytes are not a job, or not a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    /// The bytes do not begin with the header of the message that is expected.
    #[error("bytes that Ooblex has not written")]
    Foreign,
    /// The bytes were written by another version of the wire format.
    #[error("version {got} of the wire format, and this program speaks {VERSION}: run the same version of Ooblex everywhere")]
    Version {
        /// Version in the header.
        got: u8,
    },
    /// There are more than [`MAX_BYTES`] bytes.
    #[error("{got} bytes, more than the {MAX_BYTES} allowed")]
    TooLong {
        /// Number of bytes.
        got: usize,
    },
    /// The fields cannot be decoded, or have values that are not allowed.
    #[error("damaged: {0}")]
    Damaged(String),
}

/// Fields of a job that a worker needs.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WireJob {
    pub(super) track: TrackId,
    pub(super) seq: FrameSeq,
    pub(super) nonce: Nonce,
    pub(super) effect: EffectName,
    pub(super) input: ModelInput,
}

/// Borrowed form of [`WireJob`], which is encoded without copying the job.
#[derive(Serialize)]
struct WireJobRef<'a> {
    track: TrackId,
    seq: FrameSeq,
    nonce: Nonce,
    effect: &'a EffectName,
    input: &'a ModelInput,
}

/// Fields of a result that a gateway needs.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct WireResult {
    pub(super) track: TrackId,
    pub(super) seq: FrameSeq,
    pub(super) nonce: Nonce,
    /// Time from taking the job to its end at the worker.
    pub(super) analysing: Duration,
    pub(super) result: Result<Analysis, String>,
}

/// Encodes a job.
pub(super) fn encode_job(job: &Job, nonce: Nonce) -> Vec<u8> {
    let size = job.input.picture.data.len() + 4 * job.input.arguments.len() + 256;
    encode(b'J', size, &WireJobRef { track: job.track, seq: job.seq, nonce, effect: &job.effect, input: &job.input })
}

/// Decodes a job and checks its fields.
pub(super) fn decode_job(bytes: &[u8]) -> Result<WireJob, WireError> {
    let job: WireJob = decode(b'J', bytes)?;
    check(job.effect.as_str().len() <= MAX_NAME, "a long name of an effect")?;
    check_rgb(&job.input.picture)?;
    check(job.input.arguments.len() <= MAX_ARGUMENTS, "more arguments than any model has")?;
    check(job.input.arguments.iter().all(|argument| argument.is_finite()), "an argument that is not finite")?;
    Ok(job)
}

/// Encodes the outcome of a job, as its worker sees it.
pub(super) fn encode_result(track: TrackId, seq: FrameSeq, nonce: Nonce, outcome: Outcome, analysing: Duration) -> Vec<u8> {
    let (size, result) = match outcome {
        Outcome::Analysed { analysis, .. } => (size(&analysis), Ok(analysis)),
        Outcome::Failed { reason } => (reason.len(), Err(reason.chars().take(MAX_REASON).collect())),
        other => (0, Err(format!("{other:?}"))),
    };
    encode(b'R', size + 256, &WireResult { track, seq, nonce, analysing, result })
}

/// Decodes a result and checks its fields.
pub(super) fn decode_result(bytes: &[u8]) -> Result<WireResult, WireError> {
    let result: WireResult = decode(b'R', bytes)?;
    check(result.analysing <= MAX_ANALYSING, "a time that no job takes")?;
    match &result.result {
        Ok(Analysis::Mask(mask)) => {
            let pixels = u64::from(mask.width) * u64::from(mask.height);
            check(mask.width <= MAX_SIDE && mask.height <= MAX_SIDE, "a mask with a long side")?;
            check(pixels == mask.probability.len() as u64, "a mask whose size is not that of its content")?;
        }
        Ok(Analysis::Picture(picture)) => check_rgb(picture)?,
        Ok(Analysis::Faces(faces)) => {
            check(faces.len() <= MAX_FACES, "more faces than a picture has")?;
            check(faces.iter().all(is_finite), "a face with a number that is not finite")?;
        }
        Ok(Analysis::Meshes(meshes)) => {
            check(meshes.len() <= MAX_FACES, "more faces than a picture has")?;
            let meshed = meshes.iter().filter(|mesh| !mesh.points.is_empty()).count();
            check(meshed <= MAX_MESHED, "more meshes than a picture has")?;
            let whole = |mesh: &FaceMesh| mesh.points.is_empty() || mesh.points.len() == FaceMesh::POINTS;
            check(meshes.iter().all(whole), "a mesh with a wrong number of points")?;
            let finite = |mesh: &FaceMesh| is_finite(&mesh.face) && mesh.points.iter().flatten().all(|number| number.is_finite());
            check(meshes.iter().all(finite), "a mesh with a number that is not finite")?;
        }
        Ok(Analysis::Things(things)) => {
            check(things.len() <= MAX_THINGS, "more things than a picture has")?;
            let finite = |thing: &Thing| thing.score.is_finite() && thing.rect.iter().flatten().all(|number| number.is_finite());
            check(things.iter().all(finite), "a thing with a number that is not finite")?;
        }
        Err(reason) => check(reason.len() <= 4 * MAX_REASON, "a long reason")?,
    }
    Ok(result)
}

fn encode<T: Serialize>(kind: u8, size: usize, fields: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&[MAGIC[0], MAGIC[1], VERSION, kind]);
    postcard::to_extend(fields, bytes).expect("memory takes all, and the fields are plain data")
}

fn decode<'a, T: Deserialize<'a>>(kind: u8, bytes: &'a [u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_BYTES {
        return Err(WireError::TooLong { got: bytes.len() });
    }
    let fields = match bytes {
        [m0, m1, VERSION, k, fields @ ..] if [*m0, *m1] == *MAGIC && *k == kind => fields,
        [m0, m1, version, ..] if [*m0, *m1] == *MAGIC && *version != VERSION => return Err(WireError::Version { got: *version }),
        _ => return Err(WireError::Foreign),
    };
    let (value, rest) = postcard::take_from_bytes(fields).map_err(|error| WireError::Damaged(error.to_string()))?;
    check(rest.is_empty(), "more bytes than fields")?;
    Ok(value)
}

fn is_finite(face: &Face) -> bool {
    face.score.is_finite() && face.rect.iter().chain(face.keypoints.iter().flatten()).all(|number| number.is_finite())
}

fn check_rgb(picture: &Rgb) -> Result<(), WireError> {
    let bytes = 3 * u64::from(picture.width) * u64::from(picture.height);
    check(picture.width <= MAX_SIDE && picture.height <= MAX_SIDE, "a picture with a long side")?;
    check(bytes == picture.data.len() as u64, "a picture whose size is not that of its content")
}

fn check(holds: bool, otherwise: &str) -> Result<(), WireError> {
    if holds { Ok(()) } else { Err(WireError::Damaged(otherwise.into())) }
}

fn size(analysis: &Analysis) -> usize {
    match analysis {
        Analysis::Mask(mask) => mask.probability.len(),
        Analysis::Picture(picture) => picture.data.len(),
        Analysis::Faces(faces) => faces.len() * 80,
        Analysis::Meshes(meshes) => meshes.len() * (80 + 12 * FaceMesh::POINTS),
        Analysis::Things(things) => things.len() * 32,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use ooblex_pipeline::Mask;
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    const NONCE: Nonce = Nonce(*b"0123456789abcdef");

    fn job(width: u32, height: u32) -> Job {
        let data = (0..3 * width * height).map(|n| n as u8).collect();
        let input = ModelInput { picture: Rgb { width, height, data }, content: [0, 0, width, height], arguments: vec![0.5, -1.0] };
        let submitted = Instant::now();
        Job { track: TrackId(7), seq: FrameSeq(9), effect: EffectName::new("style_transfer"), input, submitted, deadline: submitted }
    }

    /// Makes an outcome whose times are zero, because results do not carry them.
    fn analysed(analysis: Analysis) -> Outcome {
        Outcome::Analysed { analysis, queued: Duration::ZERO, analysing: Duration::ZERO, computed: Duration::ZERO }
    }

    fn results() -> Vec<Outcome> {
        let face = Face { score: 0.5, rect: [0.1, 0.2, 0.3, 0.4], keypoints: [[0.5, 0.5]; 6] };
        let analyses = [
            Analysis::Mask(Mask { width: 16, height: 9, probability: vec![200; 144] }),
            Analysis::Faces(vec![face.clone(), face.clone()]),
            Analysis::Picture(Rgb { width: 4, height: 5, data: vec![3; 60] }),
            Analysis::Meshes(vec![FaceMesh { face: face.clone(), points: vec![[0.1, 0.2, -0.3]; 468] }, FaceMesh { face, points: vec![] }]),
            Analysis::Things(vec![
                Thing { class: 3, score: 0.5, rect: Some([0.1, 0.2, 0.3, 0.4]) },
                Thing { class: 0, score: 0.4, rect: None },
            ]),
        ];
        analyses.map(analysed).into_iter().chain([Outcome::Failed { reason: "NaN".into() }]).collect()
    }

    fn encoded_results() -> Vec<Vec<u8>> {
        results().into_iter().map(|outcome| encode_result(TrackId(1), FrameSeq(2), NONCE, outcome, Duration::from_millis(3))).collect()
    }

    #[test]
    fn jobs_and_results_come_out_as_they_went_in() {
        let sent = job(32, 18);
        let got = decode_job(&encode_job(&sent, NONCE)).unwrap();
        assert_eq!((got.track, got.seq, got.nonce, got.effect, got.input), (sent.track, sent.seq, NONCE, sent.effect, sent.input));
        for (outcome, bytes) in results().into_iter().zip(encoded_results()) {
            let got = decode_result(&bytes).unwrap();
            assert_eq!((got.track, got.seq, got.nonce, got.analysing), (TrackId(1), FrameSeq(2), NONCE, Duration::from_millis(3)));
            match outcome {
                Outcome::Analysed { analysis, .. } => assert_eq!(got.result, Ok(analysis)),
                _ => assert_eq!(got.result, Err("NaN".into())),
            }
        }
    }

    /// Pins the encoding of version 3. A change of the fields without a new version would be taken
    /// for damage or, worse, be misread.
    #[test]
    fn version_3_is_these_bytes() {
        let small = encode_job(&job(1, 1), NONCE);
        assert_eq!(
            small,
            b"OB\x03J\x07\x090123456789abcdef\x0estyle_transfer\x01\x01\x03\x00\x01\x02\x00\x00\x01\x01\x02\x00\x00\x00\x3f\x00\x00\x80\xbf".to_vec()
        );
        let failed = encode_result(TrackId(1), FrameSeq(2), NONCE, Outcome::Failed { reason: "no".into() }, Duration::from_nanos(300));
        assert_eq!(failed, b"OB\x03R\x01\x020123456789abcdef\x00\xac\x02\x01\x02no".to_vec());
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode_job(&job(2, 2), NONCE);
        bytes[2] = 9;
        assert_eq!(decode_job(&bytes), Err(WireError::Version { got: 9 }));
        assert!(decode_job(&bytes).unwrap_err().to_string().contains("run the same version"));
    }

    #[test]
    fn a_result_is_no_job_and_foreign_bytes_are_neither() {
        assert_eq!(decode_job(&encoded_results()[0]), Err(WireError::Foreign));
        for bytes in [&b""[..], b"O", b"OB", b"OB\x03", b"hello, world", &[0; 64]] {
            assert_eq!(decode_job(bytes), Err(WireError::Foreign));
            assert_eq!(decode_result(bytes), Err(WireError::Foreign));
        }
    }

    #[test]
    fn sizes_that_do_not_fit_their_content_are_refused() {
        let mut bad = job(4, 4);
        bad.input.picture.width = 5;
        assert!(matches!(decode_job(&encode_job(&bad, NONCE)), Err(WireError::Damaged(_))));
        let mask = Mask { width: u32::MAX, height: u32::MAX, probability: vec![1] };
        let outcome = analysed(Analysis::Mask(mask));
        assert!(matches!(
            decode_result(&encode_result(TrackId(1), FrameSeq(2), NONCE, outcome, Duration::ZERO)),
            Err(WireError::Damaged(_))
        ));
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        let mut bad = job(1, 1);
        bad.input.arguments[0] = f32::NAN;
        assert!(decode_job(&encode_job(&bad, NONCE)).is_err());
        let face = Face { score: f32::INFINITY, rect: [0.0; 4], keypoints: [[0.0; 2]; 6] };
        let outcome = analysed(Analysis::Faces(vec![face]));
        assert!(decode_result(&encode_result(TrackId(1), FrameSeq(2), NONCE, outcome, Duration::ZERO)).is_err());
        let face = Face { score: 0.5, rect: [0.0; 4], keypoints: [[0.0; 2]; 6] };
        for points in [vec![[0.0; 3]; 467], vec![[0.0, f32::NAN, 0.0]; 468]] {
            let analysis = Analysis::Meshes(vec![FaceMesh { face: face.clone(), points }]);
            let outcome = analysed(analysis);
            let refused = decode_result(&encode_result(TrackId(1), FrameSeq(2), NONCE, outcome, Duration::ZERO)).unwrap_err();
            assert!(refused.to_string().contains("a mesh with"), "{refused}");
        }
        let things = vec![Thing { class: 0, score: 0.5, rect: Some([0.0, f32::NAN, 0.0, 0.0]) }];
        let outcome = analysed(Analysis::Things(things));
        let refused = decode_result(&encode_result(TrackId(1), FrameSeq(2), NONCE, outcome, Duration::ZERO)).unwrap_err();
        assert!(refused.to_string().contains("a thing with"), "{refused}");
    }

    #[test]
    fn times_that_no_job_takes_are_refused() {
        let encoded = |analysing| encode_result(TrackId(1), FrameSeq(2), NONCE, Outcome::Failed { reason: "no".into() }, analysing);
        assert_eq!(decode_result(&encoded(Duration::from_secs(3600))).unwrap().analysing, Duration::from_secs(3600));
        for too_long in [Duration::from_secs(3601), Duration::MAX] {
            assert_eq!(decode_result(&encoded(too_long)), Err(WireError::Damaged("a time that no job takes".into())));
        }
    }

    #[test]
    fn results_with_more_than_a_picture_has_are_refused() {
        let face = Face { score: 0.5, rect: [0.0; 4], keypoints: [[0.0; 2]; 6] };
        let thing = Thing { class: 0, score: 0.5, rect: None };
        let mesh = |points| FaceMesh { face: face.clone(), points };
        let most = [
            Analysis::Faces(vec![face.clone(); MAX_FACES]),
            Analysis::Meshes([vec![mesh(vec![[0.0; 3]; 468]); MAX_MESHED], vec![mesh(vec![]); MAX_FACES - MAX_MESHED]].concat()),
            Analysis::Things(vec![thing.clone(); MAX_THINGS]),
        ];
        let read = |analysis| decode_result(&encode_result(TrackId(1), FrameSeq(2), NONCE, analysed(analysis), Duration::ZERO));
        most.into_iter().for_each(|analysis| assert!(read(analysis).is_ok()));
        for analysis in [
            Analysis::Faces(vec![face.clone(); MAX_FACES + 1]),
            Analysis::Meshes(vec![mesh(vec![]); MAX_FACES + 1]),
            Analysis::Meshes(vec![mesh(vec![[0.0; 3]; 468]); MAX_MESHED + 1]),
            Analysis::Things(vec![thing; MAX_THINGS + 1]),
        ] {
            let refused = read(analysis).unwrap_err().to_string();
            assert!(refused.contains("than a picture has"), "{refused}");
        }
        let mut bad = job(1, 1);
        bad.input.arguments = vec![0.0; MAX_ARGUMENTS + 1];
        assert!(decode_job(&encode_job(&bad, NONCE)).is_err());
    }

    /// Decodes truncated, spliced and flipped bytes. They are refused or read, without a panic and
    /// without more memory than came in.
    #[test]
    fn damaged_bytes_of_all_sorts_are_survived() {
        let mut random = SmallRng::seed_from_u64(11);
        let originals: Vec<_> = encoded_results().into_iter().chain([encode_job(&job(8, 8), NONCE)]).collect();
        let (mut refused, mut read) = (0, 0);
        for _ in 0..200_000 {
            let mut bytes = originals[random.random_range(0..originals.len())].clone();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                match random.random_range(0..5) {
                    0 => bytes.truncate(at),
                    1 if !bytes.is_empty() => bytes[at] ^= 1 << random.random_range(0..8),
                    2 if !bytes.is_empty() => bytes[at] = 0xff,
                    3 => bytes.insert(at, random.random()),
                    _ => {
                        let other = &originals[random.random_range(0..originals.len())];
                        bytes.extend_from_slice(&other[random.random_range(0..other.len())..]);
                    }
                }
            }
            let outcomes = [decode_job(&bytes).is_ok(), decode_result(&bytes).is_ok()];
            match outcomes.contains(&true) {
                true => read += 1,
                false => refused += 1,
            }
        }
        assert!(refused > 0 && read > 0, "both branches were taken: {refused} refused, {read} read");
    }
}
