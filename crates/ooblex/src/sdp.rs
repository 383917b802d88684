//! What an SDP offer says of video, read before the WebRTC library sees it: enough to choose the codec that the browser
//! prefers, and to say in words what is wrong with an offer that can not be served.

use ooblex_pipeline::VideoCodec;

use crate::problem::{Problem, ProblemKind};

/// The codecs of the first video line that can be used, in the browser's order. `allowed`: those that the operator has not left out.
///
/// # Errors
/// When this is not SDP, there is no video line that sends and receives, or none of its codecs is known and allowed.
pub(crate) fn offered_codecs(sdp: &str, allowed: &[VideoCodec]) -> Result<Vec<VideoCodec>, Problem> {
    if !sdp.starts_with("v=0") {
        let detail = "'sdp' must be an SDP session description, which begins with 'v=0': send RTCSessionDescription.sdp as it is";
        return Err(Problem::new(ProblemKind::BadSdp, detail));
    }
    let Some(video) = sections(sdp).find(|section| section.first().is_some_and(|m| m.starts_with("m=video"))) else {
        let detail = "the offer has no video line: add a camera track (pc.addTrack) before createOffer";
        return Err(Problem::new(ProblemKind::NoVideo, detail));
    };
    if let Some(direction) = video.iter().find_map(|line| direction(line)).filter(|direction| *direction != "sendrecv") {
        let detail =
            format!("the video line is {direction} and must be sendrecv: the camera goes in and the effect comes back on the same line");
        return Err(Problem::new(ProblemKind::NoVideo, detail));
    }
    let codecs = codecs(&video);
    if codecs.is_empty() {
        let names: Vec<_> = video.iter().filter_map(|line| rtpmap(line)).map(|(_, name)| name).collect();
        let detail = format!(
            "the offer has {}; Ooblex speaks VP8 and H.264 (packetization-mode=1): allow one of them",
            if names.is_empty() { "no video codec".into() } else { names.join(", ") }
        );
        return Err(Problem::new(ProblemKind::NoCommonCodec, detail));
    }
    let taken: Vec<_> = codecs.iter().copied().filter(|codec| allowed.contains(codec)).collect();
    if taken.is_empty() {
        let names = |codecs: &[VideoCodec]| codecs.iter().map(|codec| codec.label()).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "the offer has {}, and this gateway takes {}: allow one of them, or add the codec to video.codecs",
            names(&codecs),
            names(allowed)
        );
        return Err(Problem::new(ProblemKind::NoCommonCodec, detail));
    }
    Ok(taken)
}

/// The lines of each media section, the `m=` line first.
fn sections(sdp: &str) -> impl Iterator<Item = Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in sdp.lines().map(str::trim_end) {
        if line.starts_with("m=") {
            sections.push(vec![line]);
        } else if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections.into_iter()
}

fn codecs(video: &[&str]) -> Vec<VideoCodec> {
    let payload_types = video[0].split_whitespace().skip(3);
    let mut codecs = Vec::new();
    for pt in payload_types {
        let name = video.iter().filter_map(|line| rtpmap(line)).find(|(number, _)| *number == pt).map(|(_, name)| name);
        let codec = match name {
            Some(name) if name.eq_ignore_ascii_case("VP8") => VideoCodec::Vp8,
            Some(name) if name.eq_ignore_ascii_case("H264") && fragments(video, pt) => VideoCodec::H264,
            _ => continue,
        };
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    codecs
}

/// `a=rtpmap:96 VP8/90000` gives 96 and VP8.
fn rtpmap(line: &str) -> Option<(&str, &str)> {
    let (pt, encoding) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
    Some((pt, encoding.split('/').next()?))
}

/// Whether this H.264 payload type may be cut into packets: RFC 6184, packetization-mode=1.
fn fragments(video: &[&str], pt: &str) -> bool {
    let format = video.iter().find_map(|line| line.strip_prefix("a=fmtp:")?.strip_prefix(pt)?.strip_prefix(' '));
    format.is_some_and(|format| format.split(';').any(|parameter| parameter.trim() == "packetization-mode=1"))
}

fn direction(line: &str) -> Option<&str> {
    line.strip_prefix("a=").filter(|name| ["sendrecv", "sendonly", "recvonly", "inactive"].contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

    const BOTH: [VideoCodec; 2] = [VideoCodec::Vp8, VideoCodec::H264];

    fn kind(sdp: &str) -> String {
        offered_codecs(sdp, &BOTH).unwrap_err().r#type.rsplit(':').next().unwrap().to_string()
    }

    #[test]
    fn codecs_come_in_the_order_of_the_browser() {
        let sdp = format!(
            "{HEAD}m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n\
             m=video 9 UDP/TLS/RTP/SAVPF 98 102 103 96\r\na=sendrecv\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:98 VP9/90000\r\n\
             a=rtpmap:102 H264/90000\r\na=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
             a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n"
        );
        assert_eq!(offered_codecs(&sdp, &BOTH).unwrap(), [VideoCodec::H264, VideoCodec::Vp8]);
        assert_eq!(offered_codecs(&sdp, &[VideoCodec::Vp8]).unwrap(), [VideoCodec::Vp8], "what the operator left out is not taken");
    }

    #[test]
    fn offers_that_can_not_be_served_are_told_apart() {
        assert_eq!(kind("hello"), "bad-sdp");
        assert_eq!(kind(""), "bad-sdp");
        assert_eq!(kind(HEAD), "no-video");
        assert_eq!(kind(&format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=recvonly\r\na=rtpmap:96 VP8/90000\r\n")), "no-video");
        assert_eq!(kind(&format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 98\r\na=rtpmap:98 VP9/90000\r\n")), "no-common-codec");
        assert_eq!(kind(&format!("{HEAD}m=video")), "no-common-codec");
    }

    #[test]
    fn offer_of_codecs_that_were_left_out_is_told_where_to_add_them() {
        let sdp = format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtpmap:96 VP8/90000\r\n");
        let problem = offered_codecs(&sdp, &[VideoCodec::H264]).unwrap_err();
        assert_eq!((problem.status, problem.kind), (422, ProblemKind::NoCommonCodec));
        assert!(
            problem.detail.contains("vp8, and this gateway takes h264") && problem.detail.contains("video.codecs"),
            "{}",
            problem.detail
        );
    }

    #[test]
    fn h264_that_can_not_be_fragmented_is_no_common_codec() {
        let mode_0 = format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 102\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=0\r\n");
        assert_eq!(kind(&mode_0), "no-common-codec");
    }
}
