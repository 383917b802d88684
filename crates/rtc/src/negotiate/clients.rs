//! Offers of real clients (`offers/*.sdp`; addresses, keys and names are replaced) and the answers
//! to them. Those of Chromium, aiortc and Firefox 153 without H.264 (`firefox-153*.sdp`) were recorded,
//! the others are written from what the clients' own code writes.

use std::net::SocketAddr;
use std::time::Instant;

use ooblex_pipeline::VideoCodec;

use super::{Endpoint, Purpose, negotiate};
use ooblex_gateway::problem::Problem;

const CANDIDATES: [([u8; 4], u16); 2] = [([192, 0, 2, 7], 8000), ([198, 51, 100, 7], 8000)];

/// Returns an offer of `offers`.
macro_rules! offer {
    ($name:literal) => {
        include_str!(concat!("offers/", $name, ".sdp"))
    };
}

fn answer(offer: &str) -> Result<String, Problem> {
    str0m::crypto::from_feature_flags().install_process_default();
    let endpoint = Endpoint {
        candidates: CANDIDATES.map(SocketAddr::from).to_vec().into(),
        codecs: vec![VideoCodec::Vp8, VideoCodec::H264],
        start_bitrate_bps: 2_500_000,
    };
    negotiate(offer, Purpose::Exchange, &endpoint, Instant::now()).map(|negotiated| negotiated.answer)
}

/// A media section: the `m=` line and the lines below it.
type Section<'a> = Vec<&'a str>;

fn sections(sdp: &str) -> (Section<'_>, Vec<Section<'_>>) {
    let (mut session, mut sections) = (Vec::new(), Vec::<Section<'_>>::new());
    for line in sdp.lines() {
        match sections.last_mut() {
            _ if line.starts_with("m=") => sections.push(vec![line]),
            Some(section) => section.push(line),
            None => session.push(line),
        }
    }
    (session, sections)
}

fn value<'a>(section: &[&'a str], name: &str) -> Option<&'a str> {
    section.iter().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

/// Returns the answer in short: for each line the port, the direction, and the payload types.
fn brief(sdp: &str) -> Vec<String> {
    let brief = |section: Section<'_>| {
        let words: Vec<_> = section[0].split(' ').collect();
        let direction = ["sendrecv", "sendonly", "recvonly", "inactive"].into_iter().find(|name| section.contains(&&*format!("a={name}")));
        format!("{} {} {} {}", &words[0][2..], words[1], direction.unwrap_or("-"), words[3..].join(" "))
    };
    sections(sdp).1.into_iter().map(brief).collect()
}

/// Checks what every answer must hold, whatever was offered.
fn assert_fits(name: &str, offer: &str, answer: &str) {
    let ((offered_session, offered), (session, answered)) = (sections(offer), sections(answer));
    assert_eq!(answered.len(), offered.len(), "{name}: {answer}");
    let bundle = |session: &[&str]| -> Option<Vec<String>> {
        let groups = session.iter().filter_map(|line| line.trim_end().strip_prefix("a=group:BUNDLE"));
        groups.map(|mids| mids.split_whitespace().map(String::from).collect()).next()
    };
    let served: Vec<_> = answered.iter().filter(|section| !section[0].contains(" 0 ")).collect();
    let mids: Vec<_> = served.iter().filter_map(|section| value(section, "mid").map(String::from)).collect();
    assert_eq!(bundle(&session), bundle(&offered_session).map(|_| mids), "{name}: {answer}");
    for (offered, answered) in offered.iter().zip(&answered) {
        let words = |section: &Section<'_>| section[0].split_whitespace().map(String::from).collect::<Vec<_>>();
        let (offered_words, words) = (words(offered), words(answered));
        assert_eq!((&words[0], &words[2]), (&offered_words[0], &offered_words[2]), "{name}: kind and protocol");
        assert!(words.len() > 3 && words[3..].iter().all(|format| offered_words[3..].contains(format)), "{name}: {words:?}");
        assert_eq!(value(answered, "mid"), value(offered, "mid").map(str::trim_end), "{name}");
        let is_rejected = words[1] == "0";
        for line in answered.iter().filter(|line| line.starts_with("a=rtcp-fb:")) {
            let kind = line.split_once(' ').unwrap().1;
            assert!(
                offered.iter().any(|offered| offered.starts_with("a=rtcp-fb:") && offered.trim_end().ends_with(kind)),
                "{name}: {line}"
            );
        }
        if !is_rejected {
            assert!(value(answered, "ice-ufrag").is_some() && value(answered, "fingerprint").is_some(), "{name}: {answer}");
            let is_media = words[0] != "m=application";
            assert_eq!(answered.contains(&"a=rtcp-mux"), is_media, "{name}");
            assert_eq!(answered.contains(&"a=rtcp-mux-only"), is_media, "{name}");
            let role = match value(offered, "setup").or_else(|| value(&offered_session, "setup")).unwrap_or("actpass").trim_end() {
                "passive" => "active",
                _ => "passive",
            };
            assert_eq!(value(answered, "setup"), Some(role), "{name}");
        }
    }
    let candidates: Vec<_> = served[0].iter().filter_map(|line| line.strip_prefix("a=candidate:")).collect();
    let addresses: Vec<_> = candidates.iter().map(|candidate| candidate.split(' ').nth(4).unwrap()).collect();
    assert_eq!(addresses, ["192.0.2.7", "198.51.100.7"], "{name}: all candidates, the best first");
}

#[test]
fn colours_are_negotiated_by_the_number_that_the_browser_offers() {
    let named = |sdp: &str| sdp.lines().find(|line| line.ends_with("/color-space")).map(String::from);
    for offer in [offer!("chrome"), offer!("chrome-two-lines")] {
        for number in ["8", "12"] {
            let offer = offer.replace("a=extmap:8 ", &format!("a=extmap:{number} "));
            let line = format!("a=extmap:{number} http://www.webrtc.org/experiments/rtp-hdrext/color-space");
            assert_eq!((named(&offer), named(&answer(&offer).unwrap())), (Some(line.clone()), Some(line)));
        }
    }
    assert_eq!(named(&answer(offer!("firefox")).unwrap()), None);
}

#[test]
fn offers_of_real_clients_are_answered_line_by_line() {
    let data = "application 9 - webrtc-datachannel";
    let cases: [(&str, &str, &[&str]); 16] = [
        ("chrome", offer!("chrome"), &["video 9 sendrecv 96 97 102 103 108 109 116 117", "audio 9 sendrecv 111", data]),
        ("chrome-simulcast", offer!("chrome-simulcast"), &["video 9 sendrecv 96 97 102 103 108 109 116 117"]),
        (
            "chrome-two-lines",
            offer!("chrome-two-lines"),
            &[
                "audio 9 sendonly 111",
                "video 9 sendonly 96 97 102 103 108 109 116 117",
                "video 9 recvonly 96 97 102 103 108 109 116 117",
                data,
            ],
        ),
        ("firefox", offer!("firefox"), &["audio 9 sendrecv 109", "video 9 sendrecv 120 124 126 127 105 106", data]),
        ("firefox-simulcast", offer!("firefox-simulcast"), &["video 9 sendrecv 120 124 126 127 105 106"]),
        ("firefox-153", offer!("firefox-153"), &["video 9 sendrecv 120 124", "audio 9 sendrecv 109", data]),
        ("firefox-153-simulcast", offer!("firefox-153-simulcast"), &["video 9 sendrecv 120 124"]),
        ("safari", offer!("safari"), &["video 9 sendrecv 96 97 98 99 106 107", data]),
        ("obs", offer!("obs"), &["audio 9 recvonly 111", "video 9 recvonly 96"]),
        ("ffmpeg", offer!("ffmpeg"), &["audio 9 recvonly 111", "video 9 recvonly 106"]),
        ("gstreamer", offer!("gstreamer"), &["video 9 recvonly 96", "audio 9 recvonly 97"]),
        ("gstreamer-unbundled", offer!("gstreamer-unbundled"), &["video 9 recvonly 96", "audio 0 inactive 97"]),
        ("libdatachannel", offer!("libdatachannel"), &["video 9 recvonly 96", data]),
        ("aiortc", offer!("aiortc"), &["video 9 sendrecv 97 98 99 100 101 102", "audio 9 sendrecv 96", data]),
        ("without-mid", offer!("without-mid"), &["video 9 sendrecv 100 101"]),
        ("old-data-channel", offer!("old-data-channel"), &["video 9 sendrecv 100", "application 9 - 5000"]),
    ];
    for (name, offer, lines) in cases {
        let answer = answer(offer).unwrap_or_else(|problem| panic!("{name}: {}", problem.detail));
        assert_fits(name, offer, &answer);
        assert_eq!(brief(&answer), lines, "{name}: {answer}");
    }
}

#[test]
fn answer_repeats_the_parameters_of_the_offer() {
    let obs = answer(offer!("obs")).unwrap();
    assert!(obs.contains("a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1;useinbandfec=1\r\n"), "{obs}");
    assert!(
        obs.contains("a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f;x-google-start-bitrate=2500\r\n"),
        "{obs}"
    );
    assert!(!obs.contains("a=msid:") && !obs.contains("a=ssrc:"), "nothing is sent: {obs}");
    let old = answer(offer!("old-data-channel")).unwrap();
    assert!(old.contains("a=sctpmap:5000 webrtc-datachannel 1024\r\n") && !old.contains("sctp-port"), "{old}");
    assert!(old.contains("a=fmtp:100 x-google-start-bitrate=2500\r\n") && !old.contains("sdes:mid"), "{old}");
    let two = answer(offer!("chrome-two-lines")).unwrap();
    let (_, lines) = sections(&two);
    let told = |index: usize| lines[index].iter().any(|line| line.contains("x-google-start-bitrate"));
    assert_eq!([told(1), told(2)], [false, true], "the bitrate is told on the line of the camera: {two}");
}

#[test]
fn all_layers_of_a_simulcast_are_accepted_and_one_video_is_sent() {
    let offers = [
        ("chrome", offer!("chrome-simulcast")),
        ("firefox", offer!("firefox-simulcast")),
        ("firefox-153", offer!("firefox-153-simulcast")),
    ];
    for (name, offer) in offers {
        let answer = answer(offer).unwrap();
        assert!(answer.contains("a=rid:q recv\r\na=rid:h recv\r\na=rid:f recv\r\na=simulcast:recv q;h;f\r\n"), "{name}: {answer}");
        let sources = answer.lines().filter(|line| line.starts_with("a=ssrc:") && line.contains("cname")).count();
        assert_eq!(sources, 2, "{name}: the video and its retransmissions: {answer}");
        assert!(answer.contains("sdes:rtp-stream-id") && answer.contains("sdes:repaired-rtp-stream-id"), "{name}: {answer}");
    }
}
