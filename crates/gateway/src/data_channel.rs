//! The messages of the data channel `control`: JSON, one object per message.

use ooblex_effects::Found;
use ooblex_pipeline::{EffectName, FrameSeq, Generation, MediaTime, round};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::labels::ByeReason;
use crate::problem::{Problem, ProblemKind};
use crate::settings::{ChangedBy, Settings};

/// A request of a browser.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// Changes the effect, its parameters, or both.
    SetEffect {
        /// The new effect; without it, the effect stays.
        effect: Option<String>,
        /// With `effect`: the parameters that differ from the defaults. Without it: the parameters
        /// that change.
        #[serde(default)]
        params: Value,
        /// An identifier that the answer repeats.
        #[serde(default)]
        id: Value,
    },
}

impl Request {
    /// Parses a message; `None` stands for one that was too long to be kept.
    pub fn parse(text: Option<&[u8]>) -> Result<Self, Problem> {
        let text = text.ok_or_else(|| Problem::new(ProblemKind::TooLarge, "a control message may have 16 KiB at most"))?;
        serde_json::from_slice(text).map_err(|error| {
            let example = r#"{"type":"set_effect","effect":"background_blur","params":{"strength":0.7},"id":1}"#;
            Problem::new(ProblemKind::BadRequest, format!("the control message is not understood ({error}); an example: {example}"))
        })
    }
}

/// Returns the message `ack`: the change with this id is in force from the frame `first` on.
/// `change` numbers the changes of a session: of an ack and a [`settings`] message, the one with
/// the higher number says what is in force.
pub fn ack(id: &Value, settings: &Settings, change: Generation, first: FrameSeq, timestamp: MediaTime) -> String {
    let (effect, params) = (settings.effect.name(), settings.parameters.to_json());
    json!({
        "type": "ack", "id": id, "effect": effect, "params": params, "change": change.0, "first_sequence": first,
        "timestamp": rtp(timestamp),
    })
    .to_string()
}

/// Returns the message `settings`: other settings are in force, numbered as in [`ack`]. The first
/// frame with them may follow later.
pub fn settings(settings: &Settings, change: Generation, by: ChangedBy) -> String {
    let (effect, params) = (settings.effect.name(), settings.parameters.to_json());
    json!({"type": "settings", "effect": effect, "params": params, "change": change.0, "by": by.label()}).to_string()
}

/// Returns the message `error`: something was refused or failed; everything else continues.
pub fn error(id: &Value, problem: &Problem) -> String {
    json!({"type": "error", "id": id, "problem": problem}).to_string()
}

/// Returns the message `bye`, the last one of a session that the gateway ends.
pub fn bye(why: ByeReason) -> String {
    let reason = match why {
        ByeReason::Ended => "ended",
        ByeReason::Stopping => "stopping",
        ByeReason::Draining => "draining",
        ByeReason::Expired => "expired",
        ByeReason::Broken => "broken",
        ByeReason::Undecodable => "undecodable",
        ByeReason::Idle => "idle",
        ByeReason::TimeLimit => "time_limit",
        ByeReason::Budget => "budget",
        ByeReason::TooManyChannels => "too_many_channels",
        ByeReason::PublisherEnded => "publisher_ended",
    };
    let mut bye = json!({"type": "bye", "reason": reason});
    if why == ByeReason::Undecodable {
        bye["detail"] =
            json!("the camera's frames are refused one after the other: send VP8, or H.264 4:2:0 with 8 bits, within the gateway's limits");
    }
    bye.to_string()
}

/// Returns the message `service`, sent when it has changed whether frames of the effect reach a
/// worker.
pub fn service(effect: &EffectName, state: &str) -> String {
    json!({"type": "service", "effect": effect, "state": state}).to_string()
}

/// Returns the message `detections` about a shown frame of `width × height` pixels, with boxes and
/// points in its pixels.
pub fn detections(seq: FrameSeq, timestamp: MediaTime, (width, height): (u32, u32), found: &[Found]) -> String {
    let place = |[x, y]: [f32; 2]| [round(f64::from(x) * f64::from(width)), round(f64::from(y) * f64::from(height))];
    let told = |thing: &Found| {
        let mut told = json!({"label": thing.label, "score": round(thing.score.into())});
        if let Some(id) = thing.id {
            told["id"] = json!(id);
        }
        if let Some([left, top, right, bottom]) = thing.rect {
            told["box"] = json!([place([left, top]), place([right, bottom])].concat());
        }
        let points = thing.points.iter().map(|point| json!(place(*point)));
        if thing.names.len() == thing.points.len() && !thing.points.is_empty() {
            told["keypoints"] = thing.names.iter().map(ToString::to_string).zip(points).collect::<Map<_, _>>().into();
        } else if !thing.points.is_empty() {
            told["points"] = points.collect();
        }
        told
    };
    let (faces, objects): (Vec<_>, Vec<_>) = found.iter().partition(|thing| thing.label == Found::FACE);
    let [faces, objects] = [faces, objects].map(|things| things.into_iter().map(told).collect::<Vec<_>>());
    let mut message = json!({
        "type": "detections", "sequence": seq, "timestamp": rtp(timestamp), "width": width, "height": height, "faces": faces,
    });
    if !objects.is_empty() {
        message["objects"] = json!(objects);
    }
    message.to_string()
}

/// Returns a timestamp as in RTP packets: 32 bits.
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
        let named = Found {
            id: Some(7),
            label: Found::FACE.into(),
            score: 0.5,
            rect: Some([0.25, 0.5, 0.5, 1.0]),
            points: vec![[0.5, 0.5]; 6],
            names: &Found::KEYPOINTS,
        };
        let thing = Found { id: None, label: "cup".into(), rect: None, names: &[], ..named.clone() };
        let text = detections(FrameSeq(3), MediaTime((1 << 32) + 7), (640, 480), &[named, thing]);
        let told: Value = serde_json::from_str(&text).unwrap();
        let points = |count| vec![json!([320.0, 240.0]); count];
        let keypoints: Map<_, _> = Found::KEYPOINTS.map(String::from).into_iter().zip(points(6)).collect();
        assert_eq!(
            told["faces"],
            json!([{"label": "face", "score": 0.5, "id": 7, "box": [160.0, 240.0, 320.0, 480.0], "keypoints": keypoints}])
        );
        assert_eq!(told["objects"], json!([{"label": "cup", "score": 0.5, "points": points(6)}]));
        assert_eq!((&told["timestamp"], &told["sequence"]), (&json!(7), &json!(3)));
    }
}
