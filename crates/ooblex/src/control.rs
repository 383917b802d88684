//! The words of the data channel `control`: JSON, one object a message.

use ooblex_pipeline::{EffectName, Face, FrameSeq, MediaTime};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::figures::round;
use crate::problem::{Problem, ProblemKind};
use crate::settings::Settings;

/// What a browser asks for.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Another effect, other parameters, or both.
    SetEffect {
        /// Without it the effect stays.
        effect: Option<String>,
        /// With `effect`: all that shall not be the default. Without it: what shall change.
        #[serde(default)]
        params: Value,
        /// Given back in the answer.
        #[serde(default)]
        id: Value,
    },
}

impl Request {
    /// Reads a message; `None` stands for one that was too long to be kept.
    pub(crate) fn parse(text: Option<&[u8]>) -> Result<Self, Problem> {
        let text = text.ok_or_else(|| Problem::new(ProblemKind::TooLarge, "a control message may have 16 KiB at most"))?;
        serde_json::from_slice(text).map_err(|error| {
            let example = r#"{"type":"set_effect","effect":"background_blur","params":{"strength":0.7},"id":1}"#;
            Problem::new(ProblemKind::BadRequest, format!("the control message is not understood ({error}); an example: {example}"))
        })
    }
}

/// The change with this id is in force from the frame `first` on.
pub(crate) fn ack(id: &Value, settings: &Settings, first: FrameSeq, timestamp: MediaTime) -> String {
    let (effect, params) = (settings.effect.name(), settings.parameters.to_json());
    json!({
        "type": "ack", "id": id, "effect": effect, "params": params, "first_sequence": first, "timestamp": rtp(timestamp),
    })
    .to_string()
}

/// Something was refused, or went wrong; everything else goes on as it was.
pub(crate) fn error(id: &Value, problem: &Problem) -> String {
    json!({"type": "error", "id": id, "problem": problem}).to_string()
}

/// Whether frames of the effect reach a worker, when that has changed.
pub(crate) fn service(effect: &EffectName, state: &str) -> String {
    json!({"type": "service", "effect": effect, "state": state}).to_string()
}

/// The faces in a shown frame of `width × height` pixels, boxes and keypoints in its pixels.
pub(crate) fn detections(seq: FrameSeq, timestamp: MediaTime, width: u32, height: u32, faces: &[Face]) -> String {
    let x = |v: f32| round(f64::from(v) * f64::from(width));
    let y = |v: f32| round(f64::from(v) * f64::from(height));
    let faces: Vec<_> = faces
        .iter()
        .map(|face| {
            let [left, top, right, bottom] = face.rect;
            let names = ["right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear"];
            let keypoints: serde_json::Map<String, Value> =
                names.iter().zip(face.keypoints).map(|(name, [kx, ky])| (name.to_string(), json!([x(kx), y(ky)]))).collect();
            json!({"score": round(face.score.into()), "box": [x(left), y(top), x(right), y(bottom)], "keypoints": keypoints})
        })
        .collect();
    json!({
        "type": "detections", "sequence": seq, "timestamp": rtp(timestamp), "width": width, "height": height, "faces": faces,
    })
    .to_string()
}

/// The timestamp as it stands in RTP packets: 32 bits.
fn rtp(time: MediaTime) -> u32 {
    time.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_answered_with_an_example() {
        for text in ["", "[]", "{}", r#"{"type":"dance"}"#, r#"{"type":"set_effect","effect":7}"#] {
            let problem = Request::parse(Some(text.as_bytes())).unwrap_err();
            assert!(problem.detail.contains("set_effect"), "{text}: {}", problem.detail);
        }
        assert_eq!(Request::parse(None).unwrap_err().status, 413);
    }

    #[test]
    fn detections_are_in_pixels_of_the_frame() {
        let face = Face { score: 0.5, rect: [0.25, 0.5, 0.5, 1.0], keypoints: [[0.5, 0.5]; 6] };
        let text: Value = serde_json::from_str(&detections(FrameSeq(3), MediaTime((1 << 32) + 7), 640, 480, &[face])).unwrap();
        assert_eq!(text["faces"][0]["box"], json!([160.0, 240.0, 320.0, 480.0]));
        assert_eq!(text["faces"][0]["keypoints"]["nose"], json!([320.0, 240.0]));
        assert_eq!(text["timestamp"], 7);
    }
}
