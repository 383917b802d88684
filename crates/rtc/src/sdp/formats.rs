//! The payload formats of a media section: which of them this program speaks, and a description of
//! the others for people.

use std::collections::HashMap;

use ooblex_pipeline::VideoCodec;
use str0m::format::{Codec, CodecSpec, FormatParams};
use str0m::media::{Frequency, Pt};

use super::description::Section;

/// A payload format of an offer that this program speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) pt: Pt,
    /// The payload type of retransmissions.
    pub(crate) resent: Option<Pt>,
    /// The codec with the parameters of the offer, which the answer repeats.
    pub(crate) spec: CodecSpec,
}

impl Format {
    /// Returns whether the WebRTC library could not tell the two apart.
    fn is_like(&self, other: &Self) -> bool {
        self.spec.codec == other.spec.codec && profile(self.spec.format) == profile(other.spec.format)
    }

    /// Returns whether the two can be used in one connection, where a payload type has one meaning.
    fn goes_with(&self, other: &Self) -> bool {
        let [types, others] = [self, other].map(|format| [Some(format.pt), format.resent]);
        let share_types = types.iter().flatten().any(|pt| others.contains(&Some(*pt)));
        self == other || !(self.is_like(other) || share_types)
    }

    /// Adds the formats that can be used beside those in `all` to these.
    pub(super) fn merge(all: &mut Vec<Self>, formats: &[Self]) {
        for format in formats {
            if !all.contains(format) {
                all.push(*format);
            }
        }
    }

    /// Returns those of `formats` that can be used beside all of `others`, and beside each other.
    pub(super) fn compatible(formats: Vec<Self>, others: &[Self]) -> Vec<Self> {
        let mut taken: Vec<Self> = Vec::new();
        for format in formats {
            if others.iter().chain(&taken).all(|other| format.goes_with(other)) && format.resent != Some(format.pt) {
                taken.push(format);
            }
        }
        taken
    }
}

/// A payload format as it is offered.
struct Offered<'a> {
    pt: u8,
    /// The name of the codec, such as `VP8`.
    name: &'a str,
    /// The clock rate, and for audio the channels: `48000/2`.
    clock: &'a str,
    params: FormatParams,
}

/// Returns the video formats of a section in the order of its author. `is_sent`: this program sends
/// on it, too.
pub(super) fn video(section: &Section<'_>, is_sent: bool) -> Vec<Format> {
    let repairs = repairs(section);
    let spoken = offered(section).filter_map(|offered| {
        let (codec, format) = match () {
            () if offered.is("VP8") => (Codec::Vp8, FormatParams::default()),
            () if offered.is("H264") && H264::of(offered.params).is_spoken(is_sent) => (Codec::H264, h264_params(offered.params)),
            () => return None,
        };
        let spec = CodecSpec { codec, clock_rate: Frequency::NINETY_KHZ, channels: None, format };
        Some(Format { pt: offered.pt.into(), resent: repairs.get(&offered.pt).map(|pt| (*pt).into()), spec })
    });
    spoken.collect()
}

/// Returns the audio formats of a section.
pub(super) fn audio(section: &Section<'_>) -> Vec<Format> {
    let opus = offered(section).filter(|offered| offered.is("opus") && offered.clock == "48000/2");
    opus.map(|offered| {
        let FormatParams { min_p_time, use_inband_fec, use_dtx, stereo, sprop_stereo, .. } = offered.params;
        // A browser that is not told that stereo is wanted sends mono.
        let stereo = [stereo, sprop_stereo].contains(&Some(true)).then_some(true);
        let format = FormatParams { min_p_time, use_inband_fec, use_dtx, stereo, sprop_stereo: stereo, ..FormatParams::default() };
        let spec = CodecSpec { codec: Codec::Opus, clock_rate: Frequency::FORTY_EIGHT_KHZ, channels: Some(2), format };
        Format { pt: offered.pt.into(), resent: None, spec }
    })
    .collect()
}

/// Returns the codec of a video format.
pub(super) fn video_codec(format: &Format) -> VideoCodec {
    if format.spec.codec == Codec::Vp8 { VideoCodec::Vp8 } else { VideoCodec::H264 }
}

/// Returns the names of the video formats of a section, without retransmissions and the like.
pub(super) fn names(section: &Section<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for offered in offered(section).filter(|offered| !["rtx", "red", "ulpfec", "flexfec-03"].iter().any(|name| offered.is(name))) {
        let name = match () {
            () if offered.is("H264") => H264::of(offered.params).name(),
            () if offered.is("H265") => "H.265 (HEVC)".into(),
            () => offered.name.to_string(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Returns the formats of a section in the order of its author.
fn offered<'a>(section: &Section<'a>) -> impl Iterator<Item = Offered<'a>> {
    let mut maps: HashMap<u8, (&str, &str)> = HashMap::new();
    for (pt, encoding) in section.values("rtpmap").filter_map(by_payload_type) {
        let (name, clock) = encoding.split_once('/').unwrap_or((encoding, ""));
        maps.entry(pt).or_insert((name, clock));
    }
    let mut params: HashMap<u8, String> = HashMap::new();
    for (pt, format) in section.values("fmtp").filter_map(by_payload_type) {
        let all = params.entry(pt).or_default();
        all.push_str(format);
        all.push(';');
    }
    // RFC 5761 §4: the other types cannot be told from RTCP.
    let types = section.formats.iter().filter_map(|format| format.parse().ok()).filter(|pt| *pt < 64 || (96..128).contains(pt));
    types
        .filter_map(move |pt: u8| {
            // A type that is repeated is taken once.
            let (name, clock) = maps.remove(&pt)?;
            let params = params.get(&pt).map_or_else(FormatParams::default, |params| FormatParams::parse_line(params));
            Some(Offered { pt, name, clock, params })
        })
        .collect::<Vec<_>>()
        .into_iter()
}

impl Offered<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Returns the payload types of retransmissions (RFC 4588) by those that they repair.
fn repairs(section: &Section<'_>) -> HashMap<u8, u8> {
    let mut apt = HashMap::new();
    for (pt, format) in section.values("fmtp").filter_map(by_payload_type) {
        let repaired = format.split(';').find_map(|parameter| parameter.trim().strip_prefix("apt=")?.parse::<u8>().ok());
        if let Some(repaired) = repaired {
            apt.entry(pt).or_insert(repaired);
        }
    }
    let mut repairs = HashMap::new();
    for rtx in offered(section).filter(|offered| offered.is("rtx")) {
        if let Some(repaired) = apt.get(&rtx.pt) {
            repairs.entry(*repaired).or_insert(rtx.pt);
        }
    }
    repairs
}

/// Splits the value of an attribute that begins with a payload type.
pub(super) fn by_payload_type(value: &str) -> Option<(u8, &str)> {
    let (pt, rest) = value.split_once(' ')?;
    Some((pt.parse().ok()?, rest.trim()))
}

/// H.264 of one profile (RFC 6184 §8.1, table 5) and packetization mode.
struct H264 {
    id: Option<u32>,
    mode: Option<u8>,
}

impl H264 {
    fn of(params: FormatParams) -> Self {
        Self { id: params.profile_level_id, mode: params.packetization_mode }
    }

    /// Returns whether this program speaks it. It decodes all profiles of 8 bits and 4:2:0, and
    /// sends Constrained Baseline, which each of them includes. What it sends is cut into fragments,
    /// which mode 0 excludes; a client that does not name the mode takes them all the same.
    fn is_spoken(&self, is_sent: bool) -> bool {
        let mode = self.mode.unwrap_or(1);
        DECODABLE.contains(&profile_of(self.id)) && (mode == 1 || (mode == 0 && !is_sent))
    }

    fn name(&self) -> String {
        let id = self.id.map(|id| format!(" ({id:06x})")).unwrap_or_default();
        let mode = if self.mode == Some(1) { "" } else { " without packetization-mode=1" };
        format!("H.264 {}{id}{mode}", profile_of(self.id))
    }
}

const CONSTRAINED_BASELINE: &str = "Constrained Baseline";
const BASELINE: &str = "Baseline";
const MAIN: &str = "Main";
const CONSTRAINED_HIGH: &str = "Constrained High";
const HIGH: &str = "High";
/// The profiles that openh264 decodes.
const DECODABLE: [&str; 5] = [CONSTRAINED_BASELINE, BASELINE, MAIN, CONSTRAINED_HIGH, HIGH];

/// Returns the parameters by which the answer repeats an H.264 format.
fn h264_params(offered: FormatParams) -> FormatParams {
    let FormatParams { level_asymmetry_allowed, packetization_mode, profile_level_id, .. } = offered;
    FormatParams { level_asymmetry_allowed, packetization_mode, profile_level_id, ..FormatParams::default() }
}

fn profile(params: FormatParams) -> &'static str {
    profile_of(params.profile_level_id)
}

/// Returns the profile of a `profile-level-id`. Without one it is Baseline.
fn profile_of(id: Option<u32>) -> &'static str {
    let Some(id) = id else { return BASELINE };
    let [_, idc, constraints, _] = id.to_be_bytes();
    let is_set = |set: u8| constraints & (0x80 >> set) != 0;
    match idc {
        0x42 if is_set(1) => CONSTRAINED_BASELINE,
        0x4d if is_set(0) => CONSTRAINED_BASELINE,
        0x42 => BASELINE,
        0x4d => MAIN,
        0x58 => "Extended",
        0x64 if is_set(4) && is_set(5) => CONSTRAINED_HIGH,
        0x64 => HIGH,
        0x6e => "High 10",
        0x7a => "High 4:2:2",
        0xf4 => "High 4:4:4 Predictive",
        0x2c => "CAVLC 4:4:4 Intra",
        _ => "of an unknown profile",
    }
}

#[cfg(test)]
mod tests {
    use super::super::description::Description;
    use super::*;

    /// Returns the formats of a video section with these attributes, as text.
    fn formats(types: &str, lines: &[&str], is_sent: bool) -> Vec<String> {
        let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF {types}\n{}", lines.join("\n"));
        let description = Description::parse(&text);
        let found = Format::compatible(video(&description.sections[0], is_sent), &[]);
        found
            .iter()
            .map(|format| {
                format!("{} {:?} {:?} {}", format.pt, format.resent.map(|pt| *pt), video_codec(format), format.spec.format)
                    .trim_end()
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn formats_come_in_the_order_of_the_browser_with_their_retransmissions() {
        let lines = [
            "a=rtpmap:96 VP8/90000",
            "a=rtpmap:97 rtx/90000",
            "a=fmtp:97 apt=96",
            "a=rtpmap:98 VP9/90000",
            "a=rtpmap:102 h264/90000",
            "a=fmtp:102 profile-level-id=42E01F; packetization-mode=1;level-asymmetry-allowed=1;x=y",
        ];
        let h264 = "102 None H264 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert_eq!(formats("102 98 96 97", &lines, true), [h264, "96 Some(97) Vp8"]);
        assert_eq!(formats("96", &lines, true), ["96 None Vp8"], "only the types of the m= line are offered");
    }

    #[test]
    fn h264_without_a_profile_is_baseline_and_is_answered_without_one() {
        let map = "a=rtpmap:99 H264/90000";
        assert_eq!(formats("99", &[map, "a=fmtp:99 packetization-mode=1"], true), ["99 None H264 packetization-mode=1"]);
        assert_eq!(formats("99", &[map], true), ["99 None H264"]);
    }

    #[test]
    fn packetization_mode_0_is_taken_only_where_nothing_is_sent() {
        let lines = ["a=rtpmap:99 H264/90000", "a=fmtp:99 packetization-mode=0;profile-level-id=42e01f"];
        assert!(formats("99", &lines, true).is_empty());
        assert_eq!(formats("99", &lines, false), ["99 None H264 packetization-mode=0;profile-level-id=42e01f"]);
    }

    #[test]
    fn profiles_of_8_bits_are_spoken_and_the_others_are_named() {
        let name = |id| H264 { id: Some(id), mode: Some(1) }.name();
        let spoken = |id| H264 { id: Some(id), mode: Some(1) }.is_spoken(true);
        for id in [0x42e01f, 0x42001f, 0x42000a, 0x42c033, 0x4d001f, 0x4d0032, 0x64001f, 0x640028, 0x640c1f, 0x640c34] {
            assert!(spoken(id), "{}", name(id));
        }
        for id in [0xf4001f, 0x6e001f, 0x7a001f, 0x2c101f, 0x58001f, 0x58c01f, 0xabcdef] {
            assert!(!spoken(id), "{}", name(id));
        }
        assert_eq!(name(0xf4001f), "H.264 High 4:4:4 Predictive (f4001f)");
        assert_eq!(name(0x640c34), "H.264 Constrained High (640c34)");
    }

    #[test]
    fn formats_that_the_library_could_not_tell_apart_are_taken_once() {
        let maps = ["a=rtpmap:99 H264/90000", "a=rtpmap:101 H264/90000", "a=fmtp:99 packetization-mode=1"];
        let second = |fmtp| formats("99 101", &[&maps[..], &[fmtp]].concat(), true).len();
        assert_eq!(second("a=fmtp:101 packetization-mode=1"), 1);
        assert_eq!(second("a=fmtp:101 packetization-mode=1;profile-level-id=42001f"), 1);
        assert_eq!(second("a=fmtp:101 packetization-mode=1;profile-level-id=42e01f"), 2);
        let shared = ["a=rtpmap:96 VP8/90000", "a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96", "a=fmtp:97 apt=99"];
        let lines = [&maps[..], &shared[..]].concat();
        assert_eq!(formats("96 97 99", &lines, true), ["96 Some(97) Vp8", "99 None H264 packetization-mode=1"]);
    }

    #[test]
    fn opus_keeps_stereo() {
        let lines = "a=rtpmap:111 opus/48000/2\na=fmtp:111 minptime=10;sprop-stereo=1;useinbandfec=1\na=rtpmap:0 PCMU/8000";
        let text = format!("v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 0 111\n{lines}");
        let found = audio(&Description::parse(&text).sections[0]);
        let texts: Vec<_> = found.iter().map(|format| format.spec.format.to_string()).collect();
        assert_eq!(texts, ["minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1"]);
    }

    #[test]
    fn payload_types_that_look_like_rtcp_are_not_taken() {
        let lines = ["a=rtpmap:72 VP8/90000", "a=rtpmap:200 VP8/90000", "a=rtpmap:35 VP8/90000"];
        assert_eq!(formats("72 200 35", &lines, true), ["35 None Vp8"]);
    }
}
