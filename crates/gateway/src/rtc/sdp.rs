//! Checks of an SDP offer before the WebRTC library parses it. They choose the codec that the
//! browser prefers, explain what is wrong with an offer that cannot be served, and refuse an offer
//! that is larger than any browser's.
//!
//! Each line is read once, so that the time is linear in the size of the offer. The time of the
//! library's parser is not: it reads all attributes of a media line for each of its payload types.
//! The limits here bound that, too.

use std::collections::HashMap;

use ooblex_pipeline::VideoCodec;

use crate::problem::{Problem, ProblemKind};

/// Largest number of media lines of an offer; browsers offer two or three.
const MAX_MEDIA_LINES: usize = 16;
/// Largest number of payload types of a media line; Chromium offers about 40 for video.
const MAX_PAYLOAD_TYPES: usize = 64;
/// Largest number of ICE candidates of an offer.
const MAX_CANDIDATES: usize = 64;
/// Largest number of different ICE user fragments of an offer; browsers use one.
const MAX_ICE_UFRAGS: usize = 8;
/// Longest line of an offer, bytes. The longest line of a browser is the identity assertion of
/// Firefox.
const MAX_LINE_BYTES: usize = 4096;
/// Largest number of lines of an offer; Chromium writes about 300 for a camera, a microphone and a
/// data channel.
const MAX_LINES: usize = 2048;
/// Largest number of header extensions of a media line; Chromium offers about 15.
const MAX_EXTENSIONS: usize = 64;
/// Largest number of lines about SSRCs of a media line; Chromium writes five.
const MAX_SSRC_LINES: usize = 64;
/// Largest number of restriction identifiers (RID) of a media line, and of layers of its simulcast;
/// browsers offer three.
const MAX_LAYERS: usize = 8;

/// Checks that an offer has not more of anything than a browser would ever offer.
///
/// # Errors
/// Names the part that exceeds its limit, and the limit.
pub fn check_size(sdp: &str, limit_kib: usize) -> Result<(), Problem> {
    if sdp.len() > limit_kib * 1024 {
        let detail = format!(
            "the SDP offer has {} KiB, more than the {limit_kib} that limits.sdp_kib allows: offer fewer codecs and lines, or raise it",
            sdp.len().div_ceil(1024)
        );
        return Err(Problem::new(ProblemKind::TooLarge, detail));
    }
    let mut whole = Counts::default();
    let mut section = Counts::default();
    let mut ufrags: Vec<&str> = Vec::new();
    for line in sdp.lines() {
        whole.lines += 1;
        at_most(whole.lines, MAX_LINES, "lines")?;
        at_most(line.len(), MAX_LINE_BYTES, "bytes in one line")?;
        if let Some(media) = line.strip_prefix("m=") {
            whole.media_lines += 1;
            at_most(whole.media_lines, MAX_MEDIA_LINES, "media lines")?;
            at_most(media.split_ascii_whitespace().skip(3).count(), MAX_PAYLOAD_TYPES, "payload types on one media line")?;
            section = Counts::default();
            continue;
        }
        let Some(attribute) = line.strip_prefix("a=") else { continue };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        match name {
            "candidate" => {
                whole.candidates += 1;
                at_most(whole.candidates, MAX_CANDIDATES, "candidates")?;
            }
            "ice-ufrag" if !ufrags.contains(&value.trim_end()) => {
                ufrags.push(value.trim_end());
                at_most(ufrags.len(), MAX_ICE_UFRAGS, "different ICE user fragments (a=ice-ufrag)")?;
            }
            "rtpmap" => {
                section.rtpmaps += 1;
                at_most(section.rtpmaps, MAX_PAYLOAD_TYPES, "a=rtpmap lines for one media line")?;
            }
            "fmtp" => {
                section.formats += 1;
                at_most(section.formats, MAX_PAYLOAD_TYPES, "a=fmtp lines for one media line")?;
            }
            "extmap" => {
                section.extensions += 1;
                at_most(section.extensions, MAX_EXTENSIONS, "header extensions (a=extmap) for one media line")?;
            }
            "ssrc" | "ssrc-group" => {
                section.ssrc_lines += 1;
                at_most(section.ssrc_lines, MAX_SSRC_LINES, "a=ssrc lines for one media line")?;
            }
            "rid" => {
                section.rids += 1;
                at_most(section.rids, MAX_LAYERS, "a=rid lines for one media line")?;
            }
            "simulcast" => {
                let layers = value.split([';', ',', ' ']).filter(|word| !matches!(*word, "" | "send" | "recv")).count();
                at_most(layers, MAX_LAYERS, "layers of simulcast on one media line")?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// The counts so far, of the offer or of one media line.
#[derive(Default)]
struct Counts {
    lines: usize,
    media_lines: usize,
    candidates: usize,
    rtpmaps: usize,
    formats: usize,
    extensions: usize,
    ssrc_lines: usize,
    rids: usize,
}

fn at_most(count: usize, limit: usize, what: &str) -> Result<(), Problem> {
    if count <= limit {
        return Ok(());
    }
    let detail = format!("the SDP offer has more than {limit} {what}, which is more than is taken: offer fewer");
    Err(Problem::new(ProblemKind::BadSdp, detail))
}

/// Returns the codecs of the first video line that can be used, in the browser's order. `allowed`:
/// the codecs that the operator allows.
///
/// # Errors
/// When this is not SDP, there is no video line that sends and receives, or none of its codecs is
/// known and allowed.
pub fn offered_codecs(sdp: &str, allowed: &[VideoCodec]) -> Result<Vec<VideoCodec>, Problem> {
    if !sdp.starts_with("v=0") {
        let detail = "'sdp' must be an SDP session description, which begins with 'v=0': send RTCSessionDescription.sdp as it is";
        return Err(Problem::new(ProblemKind::BadSdp, detail));
    }
    let lines = sdp.lines().map(str::trim_end).skip_while(|line| !line.starts_with("m=video"));
    let video: Vec<_> = lines.enumerate().take_while(|(n, line)| *n == 0 || !line.starts_with("m=")).map(|(_, line)| line).collect();
    let Some(first) = video.first() else {
        let detail = "the offer has no video line: add a camera track (pc.addTrack) before createOffer";
        return Err(Problem::new(ProblemKind::NoVideo, detail));
    };
    if let Some(direction) = video.iter().find_map(|line| direction(line)).filter(|direction| *direction != "sendrecv") {
        let detail =
            format!("the video line is {direction} and must be sendrecv: the camera goes in and the effect comes back on the same line");
        return Err(Problem::new(ProblemKind::NoVideo, detail));
    }
    let codecs = codecs(first, &video);
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

/// Returns the sources of media (SSRC) that an offer declares.
pub fn declared_sources(sdp: &str) -> Vec<u32> {
    let declared = sdp.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()?.trim_end().parse().ok());
    let mut sources: Vec<u32> = declared.collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// Returns the codecs of the video section with this `m=` line.
fn codecs(media_line: &str, section: &[&str]) -> Vec<VideoCodec> {
    let (mut names, mut formats) = (HashMap::new(), HashMap::new());
    for line in section {
        if let Some((pt, name)) = rtpmap(line) {
            names.entry(pt).or_insert(name);
        } else if let Some((pt, format)) = line.strip_prefix("a=fmtp:").and_then(|format| format.split_once(' ')) {
            formats.entry(pt).or_insert(format);
        }
    }
    let mut codecs = Vec::new();
    for pt in media_line.split_whitespace().skip(3) {
        let codec = match names.get(pt) {
            Some(name) if name.eq_ignore_ascii_case("VP8") => VideoCodec::Vp8,
            Some(name) if name.eq_ignore_ascii_case("H264") && formats.get(pt).is_some_and(|format| fragments(format)) => VideoCodec::H264,
            _ => continue,
        };
        if !codecs.contains(&codec) {
            codecs.push(codec);
        }
    }
    codecs
}

/// Returns the payload type and the name of a codec: 96 and VP8 for `a=rtpmap:96 VP8/90000`.
fn rtpmap(line: &str) -> Option<(&str, &str)> {
    let (pt, encoding) = line.strip_prefix("a=rtpmap:")?.split_once(' ')?;
    Some((pt, encoding.split('/').next()?))
}

/// Returns whether H.264 of this format may be cut into packets: RFC 6184, packetization-mode=1.
fn fragments(format: &str) -> bool {
    format.split(';').any(|parameter| parameter.trim() == "packetization-mode=1")
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
    fn offers_that_can_not_be_served_are_distinguished() {
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
    fn sources_are_those_that_the_offer_declares() {
        let lines = "a=ssrc-group:FID 5 6\r\na=ssrc:6 cname:x\r\na=ssrc:5 cname:x\r\na=ssrc:5 msid:a b\r\na=ssrc:x cname:x\r\n";
        assert_eq!(declared_sources(&format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{lines}")), [5, 6]);
    }

    #[test]
    fn h264_that_can_not_be_fragmented_is_no_common_codec() {
        let mode_0 = format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 102\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=0\r\n");
        assert_eq!(kind(&mode_0), "no-common-codec");
    }

    /// Returns an offer with one video line of these payload types and attributes.
    fn offer(payload_types: &str, attributes: &str) -> String {
        format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF {payload_types}\r\n{attributes}")
    }

    fn repeated(line: impl Fn(usize) -> String, count: usize) -> String {
        (0..count).map(|n| line(n) + "\r\n").collect()
    }

    fn refusal(sdp: &str) -> Option<String> {
        check_size(sdp, 64).err().map(|problem| problem.detail)
    }

    #[test]
    fn as_much_as_allowed_is_taken_and_one_more_is_refused_by_name() {
        /// Words of the refusal, a limit, and a function that makes an offer with a number of
        /// parts.
        type Case<'a> = (&'a str, usize, &'a dyn Fn(usize) -> String);
        let cases: [Case<'_>; 10] = [
            ("media lines", MAX_MEDIA_LINES - 1, &|count| offer("96", &repeated(|_| "m=audio 9 UDP/TLS/RTP/SAVPF 111".into(), count))),
            ("payload types", MAX_PAYLOAD_TYPES, &|count| offer(&vec!["96"; count].join(" "), "")),
            ("candidates", MAX_CANDIDATES, &|count| {
                offer("96", &repeated(|n| format!("a=candidate:{n} 1 udp 1 192.0.2.1 {n} typ host"), count))
            }),
            ("ICE user fragments", MAX_ICE_UFRAGS, &|count| offer("96", &repeated(|n| format!("a=ice-ufrag:user{n}"), count))),
            ("a=rtpmap", MAX_PAYLOAD_TYPES, &|count| offer("96", &repeated(|_| "a=rtpmap:96 VP8/90000".into(), count))),
            ("a=fmtp", MAX_PAYLOAD_TYPES, &|count| offer("96", &repeated(|_| "a=fmtp:96 x=1".into(), count))),
            ("a=extmap", MAX_EXTENSIONS, &|count| offer("96", &repeated(|n| format!("a=extmap:{n} urn:x"), count))),
            ("a=ssrc", MAX_SSRC_LINES, &|count| offer("96", &repeated(|n| format!("a=ssrc:{n} cname:x"), count))),
            ("a=rid", MAX_LAYERS, &|count| offer("96", &repeated(|n| format!("a=rid:{n} send"), count))),
            ("simulcast", MAX_LAYERS, &|count| offer("96", &format!("a=simulcast:send {}\r\n", vec!["a"; count].join(";")))),
        ];
        for (what, limit, sdp) in cases {
            assert_eq!(refusal(&sdp(limit)), None, "{what}");
            let detail = refusal(&sdp(limit + 1)).unwrap_or_default();
            assert!(detail.contains(what) && detail.chars().any(|c| c.is_ascii_digit()), "{what}: {detail}");
        }
        let same = offer("96", &repeated(|_| "a=ice-ufrag:user".into(), 100));
        assert_eq!(refusal(&same), None, "Firefox repeats the same user fragment for each media line");
    }

    #[test]
    fn size_lines_and_length_of_lines_are_limited() {
        let large = offer("96", &repeated(|_| "a=x".repeat(100), 400));
        let problem = check_size(&large, 64).unwrap_err();
        assert!(problem.status == 413 && problem.detail.contains("limits.sdp_kib"), "{}", problem.detail);
        assert!(check_size(&large, 256).is_ok());
        assert!(refusal(&offer("96", &repeated(|_| "a=x".into(), MAX_LINES))).is_some_and(|detail| detail.contains("lines")));
        assert!(refusal(&offer("96", &"a=x".repeat(2000))).is_some_and(|detail| detail.contains("bytes in one line")));
    }

    #[test]
    fn an_offer_as_large_as_a_request_may_be_is_refused_at_once() {
        let many: Vec<_> = (0..24_000).map(|pt| (pt % 128).to_string()).collect();
        let payload_types = offer(&many.join(" "), "");
        let media_lines = offer("96", &repeated(|_| "m=video 9 UDP/TLS/RTP/SAVPF 96".into(), 1200));
        // The search for codecs is linear, too.
        let maps = offer(&many.join(" "), &repeated(|n| format!("a=rtpmap:{n} VP9/90000"), 24_000));
        // The quickest of ten tries counts, because the machine may be busy.
        let tries = (0..10).map(|_| {
            let began = std::time::Instant::now();
            assert!(
                check_size(&payload_types, 1024).is_err()
                    && check_size(&media_lines, 1024).is_err()
                    && offered_codecs(&maps, &BOTH).is_err()
            );
            began.elapsed()
        });
        let quickest = tries.min().unwrap();
        assert!(quickest < std::time::Duration::from_millis(100), "{quickest:?}");
    }
}
