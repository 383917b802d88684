//! Tests of cameras whose frames are refused, and of codecs that the operator has disabled.

use crate::common::{FRAME, Gateway, PLENTY, Player};
use ooblex_client::{Client, ClientError, Wish};
use ooblex_codec::{Encoder, EncoderConfig, Speed};
use ooblex_pipeline::{EncodedFrame, I420, MediaTime, VideoCodec};

fn wish(codec: VideoCodec) -> Wish {
    Wish { codecs: vec![codec], effect: Some("none".into()), ..Wish::default() }
}

/// Returns a keyframe whose headers are refused, for a different reason with each codec.
fn refused_keyframe(codec: VideoCodec) -> Vec<u8> {
    let config = EncoderConfig { codec, bitrate_bps: 300_000, frame_rate: 30.0, speed: Speed::Fast };
    let mut data = Encoder::new(config).unwrap().encode(&I420::grey(64, 64, 90), MediaTime(0), true).unwrap().unwrap().data.to_vec();
    match codec {
        // The first partition becomes longer than the frame.
        VideoCodec::Vp8 => data[1..3].fill(0xff),
        // The profile becomes one of scalable video coding.
        VideoCodec::H264 => {
            let sps = data.windows(4).position(|window| window == [0, 0, 1, 0x67]).unwrap() + 4;
            data[sps] = 83;
        }
    }
    data
}

#[test]
fn camera_of_which_every_frame_is_refused_ends_its_session_and_no_other() {
    let gateway = Gateway::start("", &["--workers", "1"]);
    for (codec, label, words) in
        [(VideoCodec::Vp8, "frame_header", "first partition"), (VideoCodec::H264, "sequence_parameters", "its profile is none of")]
    {
        let mut other = Player::new(&gateway, &wish(codec));
        let mut player = Player::new(&gateway, &wish(codec));
        other.play_until(160, 128, "pictures", |other| other.shown.len() >= 3);
        let data = refused_keyframe(codec);
        for number in 0..PLENTY as u64 {
            if player.ended {
                break;
            }
            let frame = EncodedFrame { codec, data: data.as_slice().into(), capture: MediaTime(90_000 + number * 3000), keyframe: true };
            player.client.send_frame(&frame, None).unwrap();
            player.listen(FRAME);
        }
        assert!(player.ended, "{label}: the session goes on");
        let problem = &player.heard(0, "error")[0]["problem"];
        assert_eq!(problem["type"], "urn:ooblex:problem:undecodable");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        let bye = player.heard(0, "bye")[0];
        assert!(bye["reason"] == "undecodable" && bye["detail"].as_str().unwrap().contains("refused"), "{bye}");
        assert!(player.shown.is_empty());
        gateway.wait("the session to be gone", |gateway| gateway.json("/api/sessions")["sessions"].as_array().unwrap().len() == 1);
        assert!(gateway.metric_of("ooblex_frames_undecodable_total", &format!("reason=\"{label}\"")) >= 6.0);
        let shown = other.shown.len();
        other.play_until(160, 128, "the other session to go on", |other| other.shown.len() >= shown + 5);
        assert!(!other.ended);
        other.client.close().unwrap();
        gateway.wait("nobody to be there", |gateway| gateway.json("/api/sessions")["sessions"].as_array().unwrap().is_empty());
    }
    assert_eq!(gateway.metric_of("ooblex_sessions_ended_total", "reason=\"undecodable\""), 2.0);
}

#[test]
fn picture_beyond_the_limit_is_never_decoded_and_a_smaller_one_goes_on() {
    let gateway = Gateway::start("[limits]\nframe_kilopixels = 50\ndecode_kilopixels = 50\n", &["--workers", "1"]);
    for codec in [VideoCodec::Vp8, VideoCodec::H264] {
        let mut player = Player::new(&gateway, &wish(codec));
        player.play_until(320, 240, "to be told", |player| !player.heard(0, "error").is_empty());
        let problem = &player.heard(0, "error")[0]["problem"];
        assert_eq!(problem["type"], "urn:ooblex:problem:too-large");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("320x240") && detail.contains("limits.decode_kilopixels"), "{problem}");
        assert!(player.shown.is_empty());
        player.play_until(160, 128, "pictures", |player| player.shown.len() >= 5);
    }
    assert!(gateway.metric_of("ooblex_frames_undecodable_total", "reason=\"size\"") >= 2.0);
}

#[test]
fn codec_that_was_left_out_is_in_no_answer() {
    let gateway = Gateway::start("[video]\ncodecs = [\"vp8\"]\n", &["--workers", "1"]);
    match Client::connect(&gateway.url, &wish(VideoCodec::H264)) {
        Err(ClientError::Refused(422, problem)) => {
            assert_eq!(problem["type"], "urn:ooblex:problem:no-common-codec");
            assert!(problem["detail"].as_str().unwrap().contains("video.codecs"), "{problem}");
        }
        other => panic!("{:?}", other.err()),
    }
    let both = Wish { codecs: vec![VideoCodec::H264, VideoCodec::Vp8], ..wish(VideoCodec::Vp8) };
    let client = Client::connect(&gateway.url, &both).unwrap();
    assert!(client.answer.contains("VP8/90000") && !client.answer.contains("H264"), "{}", client.answer);
}

#[test]
fn codecs_that_make_no_sense_keep_the_gateway_from_starting() {
    for (variable, words) in [("", "video.codecs is empty"), ("vp9", "\"vp9\" is no codec of Ooblex"), ("vp8,av1", "\"av1\"")] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_ooblex"))
            .args(["check", "--print"])
            .env("OOBLEX_VIDEO__CODECS", variable)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{variable:?}: {said}");
    }
}
