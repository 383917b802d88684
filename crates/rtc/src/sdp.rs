//! SDP: what an offer says, and what the answer to it must say.
//!
//! The WebRTC library reads only a part of SDP. `offer` reads an offer, chooses what is served,
//! explains what is wrong with an offer that cannot be served, and writes the offer for the library.
//! `answer` puts the library's answer into the shape of the offer. `formats` knows the codecs,
//! `description` the text. This file refuses an offer that is larger than any browser's.
//!
//! Each line of an offer is read a few times, so that the time is linear in its size. The time of
//! the library's parser is not: it reads all attributes of a media line for each of its payload
//! types. The limits here bound that, too.

mod answer;
mod description;
mod formats;
mod offer;

pub(crate) use self::formats::Format;
pub(crate) use self::offer::Offer;
use ooblex_gateway::problem::{Problem, ProblemKind};

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

/// The use of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The offerer sends a camera, and gets the effect back where it asks for it.
    Exchange,
    /// The offerer sends a camera and gets nothing back.
    Publish,
    /// The offerer gets what somebody else sends.
    Watch,
}

/// Checks that an offer has not more of anything than a browser would ever offer.
///
/// # Errors
/// Names the part that exceeds its limit, and the limit.
pub fn check_size(sdp: &str, limit_kib: usize) -> Result<(), Problem> {
    if sdp.len() > limit_kib * 1024 {
        let detail = format!(
            "the SDP has {} KiB, more than the {limit_kib} that limits.sdp_kib allows: offer fewer codecs and lines, or raise it",
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
    let detail = format!("the SDP has more than {limit} {what}, which is more than is taken: offer fewer");
    Err(Problem::new(ProblemKind::BadSdp, detail))
}

/// Returns the sources of media (SSRC) that an offer declares.
pub(crate) fn declared_sources(sdp: &str) -> Vec<u32> {
    let declared = sdp.lines().filter_map(|line| line.strip_prefix("a=ssrc:")?.split(' ').next()?.trim_end().parse().ok());
    let mut sources: Vec<u32> = declared.collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";

    #[test]
    fn sources_are_those_that_the_offer_declares() {
        let lines = "a=ssrc-group:FID 5 6\r\na=ssrc:6 cname:x\r\na=ssrc:5 cname:x\r\na=ssrc:5 msid:a b\r\na=ssrc:x cname:x\r\n";
        assert_eq!(declared_sources(&format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{lines}")), [5, 6]);
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
        // The quickest of ten tries counts, because the machine may be busy.
        let tries = (0..10).map(|_| {
            let began = std::time::Instant::now();
            assert!(check_size(&payload_types, 1024).is_err() && check_size(&media_lines, 1024).is_err());
            began.elapsed()
        });
        let quickest = tries.min().unwrap();
        assert!(quickest < std::time::Duration::from_millis(100), "{quickest:?}");
    }
}
