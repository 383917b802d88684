//! The reading of an offer: what each of its media lines is used for, and the offer that the WebRTC
//! library gets in its place.
//!
//! The library is strict and knows only the newest way to write SDP. It gets a text of this module's
//! own making, which has the lines that are served and of those only what the library uses, always
//! written in the same way. `answer` puts its answer back into the shape of the offer.

use std::fmt::Write;

use ooblex_pipeline::VideoCodec;

use super::Purpose;
use super::description::{Description, Direction, Section, values};
use super::formats::{self, Format};
use ooblex_gateway::problem::{Problem, ProblemKind};

/// Longest identifier of a media line (a=mid) that the WebRTC library takes, bytes.
const MAX_MID_BYTES: usize = 16;
/// Bytes of a SHA-256 fingerprint.
const FINGERPRINT_BYTES: usize = 32;
/// Largest identifier of a header extension that the WebRTC library knows.
const MAX_EXTENSION_ID: u8 = 16;

/// An offer that can be served.
#[derive(Debug)]
pub(crate) struct Offer<'a> {
    pub(super) description: Description<'a>,
    /// One for each section.
    pub(super) lines: Vec<Line>,
    /// One transport carries all lines that are served, because the offer says so. Otherwise it
    /// carries one line.
    pub(super) is_bundled: bool,
    formats: Vec<Format>,
    transport: Transport<'a>,
}

/// The use of a media line.
#[derive(Debug)]
pub(super) enum Line {
    Media {
        /// The identifier by which the library knows the line.
        mid: String,
        /// The direction in which the offerer may use it: at most the one that it offers.
        direction: Direction,
        formats: Vec<Format>,
    },
    Data {
        mid: String,
    },
    /// The line is answered with port 0, for this reason.
    Refused(&'static str),
}

/// The addresses and keys of the offerer.
#[derive(Debug)]
struct Transport<'a> {
    ufrag: &'a str,
    password: &'a str,
    /// Of SHA-256, as pairs of hexadecimal digits.
    fingerprint: &'a str,
    /// The role in DTLS. `None`: the gateway may choose.
    setup: Option<&'a str>,
    is_lite: bool,
    candidates: Vec<&'a str>,
}

impl<'a> Offer<'a> {
    /// Reads an offer. `allowed`: the video codecs that the operator allows.
    ///
    /// # Errors
    /// When this is not SDP, nothing is to be sent, none of the video codecs is known and allowed,
    /// or the addresses and keys are missing.
    pub(crate) fn read(sdp: &'a str, purpose: Purpose, allowed: &[VideoCodec]) -> Result<Self, Problem> {
        if !sdp.starts_with("v=0") {
            let detail = "'sdp' must be an SDP session description, which begins with 'v=0': send RTCSessionDescription.sdp as it is";
            return Err(Problem::new(ProblemKind::BadSdp, detail));
        }
        let description = Description::parse(sdp);
        let video = Video::choose(&description, purpose, allowed)?;
        let bundle = bundle(&description, video.first());
        let is_bundled = bundle.is_some();
        let (first, outgoing) = (video.first(), video.outgoing);
        let mut planner = Planner {
            description: &description,
            purpose,
            video,
            bundle,
            formats: Vec::new(),
            mids: Vec::new(),
            has_data: false,
            has_audio: false,
        };
        // The payload types of the video lines count where another line gives them another meaning.
        let mut order: Vec<_> = (0..description.sections.len()).collect();
        order.sort_by_key(|index| (*index != first, Some(*index) != outgoing));
        let mut lines: Vec<_> = order.into_iter().map(|index| (index, planner.line(index))).collect();
        lines.sort_by_key(|(index, _)| *index);
        let lines: Vec<_> = lines.into_iter().map(|(_, line)| line).collect();
        let formats = planner.formats;
        if purpose != Purpose::Exchange {
            refuse_partly(&description, &lines)?;
        }
        let transport = Transport::read(&description, &lines)?;
        Ok(Self { description, lines, is_bundled, formats, transport })
    }

    /// Returns the formats of all lines that are served, in the order of the offerer.
    pub(crate) fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// Returns the kinds of the media lines that are refused, with the reasons.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&'a str, &'static str)> {
        self.description.sections.iter().zip(&self.lines).filter_map(|(section, line)| match line {
            Line::Refused(reason) => Some((section.kind, *reason)),
            Line::Media { .. } | Line::Data { .. } => None,
        })
    }

    /// Returns the offer for the library.
    pub(crate) fn for_library(&self) -> String {
        let mut text = String::from("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE");
        let mids = self.lines.iter().filter_map(|line| match line {
            Line::Media { mid, .. } | Line::Data { mid } => Some(mid),
            Line::Refused(_) => None,
        });
        mids.for_each(|mid| text.extend([" ", mid]));
        text.push_str("\r\n");
        self.transport.write(&mut text);
        for (section, line) in self.description.sections.iter().zip(&self.lines) {
            match line {
                Line::Media { mid, direction, formats } => self.write_media(&mut text, section, mid, *direction, formats),
                Line::Data { mid } => write_data(&mut text, section, mid),
                Line::Refused(_) => {}
            }
        }
        text
    }

    /// Returns the lines that the author does not offer, for the library. Without them it would miss
    /// the lines that an answer rejects.
    pub(crate) fn rejected_for_library(&self) -> String {
        let mut text = String::new();
        for (section, line) in self.description.sections.iter().zip(&self.lines) {
            if let (Line::Refused(_), Some(mid)) = (line, section.mid()) {
                let format = section.formats.first().copied().unwrap_or("0");
                let own_map = section.values("rtpmap").find(|map| map.split(' ').next() == Some(format));
                let static_map = format!("{format} PCMU/8000");
                text.extend(["m=", section.kind, " 0 UDP/TLS/RTP/SAVPF ", format, "\r\nc=IN IP4 0.0.0.0\r\na=mid:", mid]);
                text.extend(["\r\na=inactive\r\na=rtpmap:", own_map.unwrap_or(&static_map), "\r\n"]);
            }
        }
        text
    }

    fn write_media(&self, text: &mut String, section: &Section<'a>, mid: &str, direction: Direction, formats: &[Format]) {
        let is_same_mid = section.mid() == Some(mid);
        let types = formats.iter().flat_map(|format| [Some(format.pt), format.resent]).flatten();
        let types: String = types.map(|pt| format!(" {pt}")).collect();
        text.extend(["m=", section.kind, " 9 UDP/TLS/RTP/SAVPF", &types, "\r\nc=IN IP4 0.0.0.0\r\n"]);
        text.extend(["a=mid:", mid, "\r\na=", direction.name(), "\r\na=rtcp-mux\r\n"]);
        for format in formats {
            write_format(text, section, format);
        }
        let extensions = values(&self.description.session, "extmap").chain(section.values("extmap"));
        for extension in extensions.filter(|extension| is_known(extension, is_same_mid)) {
            text.extend(["a=extmap:", extension, "\r\n"]);
        }
        // The layers of a simulcast are told apart by their RID. Lines about SSRCs, which Firefox
        // writes besides, would be taken for one source each.
        let is_simulcast = direction.sends && !layers(section).is_empty();
        for name in ["msid", "ssrc", "ssrc-group"] {
            for value in section.values(name).filter(|_| name == "msid" || !is_simulcast) {
                text.extend(["a=", name, ":", value, "\r\n"]);
            }
        }
    }
}

fn write_format(text: &mut String, section: &Section<'_>, format: &Format) {
    let (pt, spec) = (format.pt, format.spec);
    let channels = spec.channels.map(|channels| format!("/{channels}")).unwrap_or_default();
    // Writing to a string does not fail.
    _ = write!(text, "a=rtpmap:{pt} {}/{}{channels}\r\n", spec.codec, spec.clock_rate.get());
    let params = spec.format.to_string();
    if !params.is_empty() {
        _ = write!(text, "a=fmtp:{pt} {params}\r\n");
    }
    for feedback in feedback(section, format) {
        _ = write!(text, "a=rtcp-fb:{pt} {feedback}\r\n");
    }
    if let Some(resent) = format.resent {
        _ = write!(text, "a=rtpmap:{resent} rtx/{}\r\na=fmtp:{resent} apt={pt}\r\n", spec.clock_rate.get());
    }
}

/// Returns the kinds of feedback that a section offers for a format.
pub(super) fn feedback<'a>(section: &Section<'a>, format: &Format) -> Vec<&'a str> {
    let pt = format.pt.to_string();
    let all = section.values("rtcp-fb").filter_map(|value| value.split_once(' '));
    all.filter(|(types, _)| *types == "*" || *types == pt).map(|(_, kind)| kind.trim()).collect()
}

/// Returns the RIDs of the simulcast layers that a section sends (RFC 8853), in its order. Of
/// alternatives it is the first.
pub(super) fn layers<'a>(section: &Section<'a>) -> Vec<&'a str> {
    let of_simulcast = section.value("simulcast").and_then(|value| {
        let mut words = value.split_ascii_whitespace();
        words.by_ref().find(|word| *word == "send")?;
        words.next()
    });
    let sent = section.values("rid").filter_map(|value| {
        let mut words = value.split_ascii_whitespace();
        words.next().filter(|_| words.next() == Some("send"))
    });
    match of_simulcast {
        Some(layers) => layers.split(';').filter_map(|layer| layer.split(',').next()).map(|rid| rid.trim_start_matches('~')).collect(),
        None => sent.collect(),
    }
}

/// Returns whether the library can use a header extension, which is given as the value of
/// `a=extmap`. The one with the identifier of the line is of use only if the library knows the line
/// by the same.
fn is_known(extension: &str, is_same_mid: bool) -> bool {
    let (id, uri) = extension.split_once(' ').unwrap_or((extension, ""));
    let id = id.split('/').next().and_then(|id| id.parse::<u8>().ok());
    let is_mid = uri.trim_start().starts_with("urn:ietf:params:rtp-hdrext:sdes:mid");
    id.is_some_and(|id| (1..=MAX_EXTENSION_ID).contains(&id)) && (is_same_mid || !is_mid)
}

fn write_data(text: &mut String, section: &Section<'_>, mid: &str) {
    text.extend(["m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:", mid, "\r\na=sctp-port:5000\r\n"]);
    for name in ["max-message-size", "sctp-init"] {
        if let Some(value) = section.value(name) {
            text.extend(["a=", name, ":", value, "\r\n"]);
        }
    }
}

/// The video lines of an offer that are served, by their indices.
struct Video {
    /// `None`: the offerer sends no video.
    incoming: Option<usize>,
    /// `None`: the offerer receives no video.
    outgoing: Option<usize>,
    allowed: Vec<VideoCodec>,
}

impl Video {
    /// Chooses the first line on which the offerer sends a codec that is known, and, if it does not
    /// receive on the same, the first other one on which it does.
    fn choose(description: &Description<'_>, purpose: Purpose, allowed: &[VideoCodec]) -> Result<Self, Problem> {
        let lines = description.sections.iter().enumerate().filter(|(_, section)| section.kind == "video");
        let lines: Vec<_> = lines.map(|(index, section)| (index, section, purpose.narrow(description.direction(section)))).collect();
        if lines.is_empty() {
            let detail = "the offer has no video line: add a camera track (pc.addTrack) before createOffer";
            return Err(Problem::new(ProblemKind::NoVideo, detail));
        }
        if purpose == Purpose::Watch {
            return Self::watched(description, &lines, allowed);
        }
        let live = || lines.iter().filter(|(_, section, _)| is_live(description, section));
        let mut sending = live().filter(|(.., direction)| direction.sends).peekable();
        let Some((_, first, first_direction)) = sending.peek() else {
            let directions: Vec<_> = lines.iter().map(|(.., direction)| direction.name()).collect();
            let detail = format!(
                "no camera is offered (the video is {}), so there is nothing to show: add a camera track, as sendrecv or sendonly",
                directions.join(", ")
            );
            return Err(Problem::new(ProblemKind::NoVideo, detail));
        };
        let usable = |section: &Section<'_>, is_sent| !video_formats(section, is_sent, allowed).is_empty();
        let Some((incoming, _, direction)) = sending.clone().find(|(_, section, direction)| usable(section, direction.receives)) else {
            return Err(no_common_codec(first, first_direction.receives, allowed));
        };
        let others = || live().filter(|(index, section, _)| index != incoming && usable(section, true));
        let outgoing = match direction.receives {
            true => Some(*incoming),
            false => others()
                .find(|(.., direction)| direction.receives && !direction.sends)
                .or_else(|| others().find(|(.., direction)| direction.receives))
                .map(|(index, ..)| *index),
        };
        Ok(Self { incoming: Some(*incoming), outgoing, allowed: allowed.to_vec() })
    }

    /// Chooses the first line on which the offerer receives a codec that is known.
    fn watched(description: &Description<'_>, lines: &[(usize, &Section<'_>, Direction)], allowed: &[VideoCodec]) -> Result<Self, Problem> {
        let receives = |(_, section, direction): &&(usize, &Section<'_>, Direction)| direction.receives && is_live(description, section);
        let mut receiving = lines.iter().filter(receives).peekable();
        let Some((_, first, _)) = receiving.peek() else {
            let detail = "the offer receives no video, so there is nothing to send: add a video line that is recvonly";
            return Err(Problem::new(ProblemKind::NoVideo, detail));
        };
        let found = receiving.clone().find(|(_, section, _)| !video_formats(section, true, allowed).is_empty());
        let (index, ..) = found.ok_or_else(|| no_common_codec(first, true, allowed))?;
        Ok(Self { incoming: None, outgoing: Some(*index), allowed: allowed.to_vec() })
    }

    /// Returns the line with which the offer begins to be served.
    fn first(&self) -> usize {
        self.incoming.or(self.outgoing).unwrap_or_default()
    }
}

impl Purpose {
    /// Returns the direction in which a line may be used.
    fn narrow(self, offered: Direction) -> Direction {
        match self {
            Purpose::Exchange => offered,
            Purpose::Publish => Direction { receives: false, ..offered },
            Purpose::Watch => Direction { sends: false, ..offered },
        }
    }
}

/// Refuses an offer with a line of media that is not served. WHIP and WHEP know no partial success.
fn refuse_partly(description: &Description<'_>, lines: &[Line]) -> Result<(), Problem> {
    let lines = description.sections.iter().zip(lines).filter(|(section, _)| ["audio", "video"].contains(&section.kind));
    let refused = lines.filter(|(section, _)| is_live(description, section)).find_map(|(section, line)| match line {
        Line::Refused(reason) => Some((section, reason)),
        Line::Media { .. } | Line::Data { .. } => None,
    });
    let Some((section, reason)) = refused else { return Ok(()) };
    let detail = format!(
        "the {} line ({}) cannot be served, because {reason}: offer one video line with VP8 or H.264, and at most one audio line, with Opus",
        section.kind,
        formats::names(section).join(", ")
    );
    Err(Problem::new(ProblemKind::Unsupported, detail))
}

/// Returns the formats of a video line that are known and allowed.
fn video_formats(section: &Section<'_>, is_sent: bool, allowed: &[VideoCodec]) -> Vec<Format> {
    let mut formats = formats::video(section, is_sent);
    formats.retain(|format| allowed.contains(&formats::video_codec(format)));
    formats
}

/// Returns whether a section is offered: its port is not 0, or it shares the transport of another
/// section.
fn is_live(description: &Description<'_>, section: &Section<'_>) -> bool {
    section.port != "0" || section.mid().is_some_and(|mid| description.bundles().any(|bundle| bundle.contains(&mid)))
}

/// Returns the identifiers of the sections that share the transport of this one. `None`: it has one
/// of its own.
fn bundle<'a>(description: &Description<'a>, index: usize) -> Option<Vec<&'a str>> {
    let mid = description.sections.get(index)?.mid()?;
    description.bundles().find(|bundle| bundle.contains(&mid))
}

fn no_common_codec(section: &Section<'_>, is_sent: bool, allowed: &[VideoCodec]) -> Problem {
    let known: Vec<_> = formats::video(section, is_sent).iter().map(formats::video_codec).collect();
    let labels = |codecs: &[VideoCodec]| {
        let mut labels: Vec<_> = codecs.iter().map(|codec| codec.label()).collect();
        labels.dedup();
        labels.join(", ")
    };
    let detail = if known.is_empty() {
        let names = formats::names(section);
        format!(
            "the offer has {}; Ooblex speaks VP8 and H.264 of 8 bits (profiles Baseline, Main, High and their constrained forms, \
             packetization-mode=1): choose VP8 or H.264 as the video encoder, for H.264 with the profile Baseline, Main or High",
            if names.is_empty() { "no video codec".into() } else { names.join(", ") }
        )
    } else {
        format!(
            "the offer has {}, and this gateway takes {}: allow one of them, or add the codec to video.codecs",
            labels(&known),
            labels(allowed)
        )
    };
    Problem::new(ProblemKind::NoCommonCodec, detail)
}

/// The uses of the sections so far.
struct Planner<'a, 'b> {
    description: &'b Description<'a>,
    purpose: Purpose,
    video: Video,
    /// The sections that share one transport.
    bundle: Option<Vec<&'a str>>,
    /// The formats of all sections that are served.
    formats: Vec<Format>,
    /// The identifiers that the library was given.
    mids: Vec<String>,
    has_data: bool,
    has_audio: bool,
}

impl Planner<'_, '_> {
    /// Returns the use of a section.
    fn line(&mut self, index: usize) -> Line {
        let section = &self.description.sections[index];
        if !is_live(self.description, section) {
            return Line::Refused("it is not offered (port 0)");
        }
        let is_reachable = match &self.bundle {
            Some(bundle) => section.mid().is_some_and(|mid| bundle.contains(&mid)),
            None => index == self.video.first(),
        };
        if !is_reachable {
            return Line::Refused("it does not share the transport of the video (a=group:BUNDLE)");
        }
        match section.kind {
            "audio" | "video" if !section.protocol.contains("RTP/") => Line::Refused("its protocol is not RTP"),
            "video" => self.video(index, section),
            "audio" => match Format::compatible(formats::audio(section), &self.formats) {
                formats if formats.is_empty() => Line::Refused("it has no Opus"),
                _ if self.purpose != Purpose::Exchange && self.has_audio => Line::Refused("another line carries the sound"),
                formats => {
                    self.has_audio = true;
                    self.media(index, self.purpose.narrow(self.description.direction(section)), formats)
                }
            },
            "application" if !section.protocol.contains("DTLS/SCTP") => Line::Refused("its protocol is not SCTP over DTLS"),
            "application" if self.has_data => Line::Refused("another line carries the data channels"),
            "application" => {
                self.has_data = true;
                Line::Data { mid: self.mid(index) }
            }
            _ => Line::Refused("its kind is not known"),
        }
    }

    fn video(&mut self, index: usize, section: &Section<'_>) -> Line {
        let direction = Direction { sends: self.video.incoming == Some(index), receives: self.video.outgoing == Some(index) };
        if !(direction.sends || direction.receives) {
            return Line::Refused("one video goes in and one comes back");
        }
        let offered = video_formats(section, direction.receives, &self.video.allowed);
        match Format::compatible(offered, &self.formats) {
            formats if formats.is_empty() => Line::Refused("its payload types have another meaning on another line"),
            formats => self.media(index, direction, formats),
        }
    }

    fn media(&mut self, index: usize, direction: Direction, formats: Vec<Format>) -> Line {
        Format::merge(&mut self.formats, &formats);
        Line::Media { mid: self.mid(index), direction, formats }
    }

    /// Returns an identifier for the library: that of the section, if the library can take it as it
    /// is.
    fn mid(&mut self, index: usize) -> String {
        let own = self.description.sections[index].mid().filter(|mid| {
            let is_plain = mid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            is_plain && mid.len() <= MAX_MID_BYTES && !self.mids.iter().any(|other| other == mid)
        });
        let mid = own.map_or_else(|| format!("ooblex_{index}"), String::from);
        self.mids.push(mid.clone());
        mid
    }
}

impl<'a> Transport<'a> {
    /// Reads the transport of the lines that are served: from the first of them, or from the session
    /// part, or from any other section of the bundle.
    fn read(description: &Description<'a>, lines: &[Line]) -> Result<Self, Problem> {
        let (served, refused): (Vec<_>, Vec<_>) =
            description.sections.iter().zip(lines).partition(|(_, line)| !matches!(line, Line::Refused(_)));
        let sections = |part: Vec<(&'_ Section<'a>, &Line)>| part.into_iter().map(|(section, _)| section.lines.clone()).collect::<Vec<_>>();
        let (served, refused) = (sections(served), sections(refused));
        let parts = || served.iter().take(1).chain([&description.session]).chain(&served).chain(&refused);
        let missing = |what: &str| {
            let detail = format!("the SDP offer can not be used: it has no {what}; send RTCSessionDescription.sdp as it is");
            Problem::new(ProblemKind::BadSdp, detail)
        };
        let credentials = parts().find_map(|part| Some((values(part, "ice-ufrag").next()?, values(part, "ice-pwd").next()?)));
        let (ufrag, password) = credentials.ok_or_else(|| missing("ICE credentials (a=ice-ufrag and a=ice-pwd)"))?;
        let fingerprints: Vec<_> = parts().flat_map(|part| values(part, "fingerprint")).filter_map(|value| value.split_once(' ')).collect();
        let fingerprint = fingerprints.iter().find(|(hash, _)| hash.eq_ignore_ascii_case("sha-256")).map(|(_, digits)| digits.trim());
        let Some(fingerprint) = fingerprint.filter(|digits| is_fingerprint(digits)) else {
            return Err(missing("SHA-256 fingerprint of its certificate (a=fingerprint:sha-256)"));
        };
        let setup = parts().find_map(|part| values(part, "setup").next()).filter(|setup| ["actpass", "active", "passive"].contains(setup));
        let is_lite = description.session.contains(&"a=ice-lite");
        let candidates = [&description.session].into_iter().chain(&served).flat_map(|part| values(part, "candidate")).collect();
        Ok(Self { ufrag, password, fingerprint, setup, is_lite, candidates })
    }

    fn write(&self, text: &mut String) {
        text.extend(["a=ice-ufrag:", self.ufrag, "\r\na=ice-pwd:", self.password, "\r\n"]);
        text.extend(["a=fingerprint:sha-256 ", self.fingerprint, "\r\n"]);
        text.extend(["a=setup:", self.setup.unwrap_or("actpass"), "\r\n"]);
        if self.is_lite {
            text.push_str("a=ice-lite\r\n");
        }
        for candidate in &self.candidates {
            text.extend(["a=candidate:", candidate, "\r\n"]);
        }
    }
}

fn is_fingerprint(digits: &str) -> bool {
    let pairs: Vec<_> = digits.split(':').collect();
    pairs.len() == FINGERPRINT_BYTES && pairs.iter().all(|pair| pair.len() == 2 && pair.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [VideoCodec; 2] = [VideoCodec::Vp8, VideoCodec::H264];
    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    const VP8: &str = "a=rtpmap:96 VP8/90000\r\n";

    /// Returns an offer of these sections in one bundle, each a kind, formats and attributes.
    fn offer(sections: &[(&str, &str, &str)]) -> String {
        let mids: String = (0..sections.len()).map(|mid| format!(" {mid}")).collect();
        let fingerprint = ["AB"; FINGERPRINT_BYTES].join(":");
        let mut text = format!(
            "{HEAD}a=group:BUNDLE{mids}\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 {fingerprint}\r\n"
        );
        for (mid, (kind, formats, attributes)) in sections.iter().enumerate() {
            let protocol = if *kind == "application" { "UDP/DTLS/SCTP" } else { "UDP/TLS/RTP/SAVPF" };
            _ = write!(text, "m={kind} 9 {protocol} {formats}\r\na=mid:{mid}\r\n{attributes}");
        }
        text
    }

    /// Returns the use of each line: the direction and the payload types, or the reason of the
    /// refusal.
    fn uses(sections: &[(&str, &str, &str)]) -> Vec<String> {
        let text = offer(sections);
        let offer = Offer::read(&text, Purpose::Exchange, &BOTH).unwrap_or_else(|problem| panic!("{}", problem.detail));
        let lines = offer.lines.iter().map(|line| match line {
            Line::Media { direction, formats, .. } => {
                let types: Vec<_> = formats.iter().map(|format| format.pt.to_string()).collect();
                format!("{} {}", direction.name(), types.join(" "))
            }
            Line::Data { .. } => "data".into(),
            Line::Refused(reason) => (*reason).into(),
        });
        lines.collect()
    }

    fn problem(text: &str, allowed: &[VideoCodec]) -> (String, String) {
        let problem = Offer::read(text, Purpose::Exchange, allowed).map(|_| ()).unwrap_err();
        (problem.r#type.rsplit(':').next().unwrap_or_default().to_string(), problem.detail)
    }

    #[test]
    fn offers_that_can_not_be_served_are_told_apart() {
        let bare = |video: &str| format!("{HEAD}m=video 9 UDP/TLS/RTP/SAVPF {video}");
        let cases = [
            ("hello", "bad-sdp", "begins with 'v=0'"),
            ("", "bad-sdp", "begins with 'v=0'"),
            (HEAD, "no-video", "add a camera track"),
            (&bare("96\r\na=recvonly\r\na=rtpmap:96 VP8/90000"), "no-video", "(the video is recvonly)"),
            (&bare("98\r\na=rtpmap:98 VP9/90000\r\n"), "no-common-codec", "the offer has VP9; Ooblex speaks VP8 and H.264"),
            (&bare("98\r\na=rtpmap:98 H265/90000\r\n"), "no-common-codec", "the offer has H.265 (HEVC);"),
            (&bare("98\r\na=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=0"), "no-common-codec", "without packetization-mode=1"),
            (&format!("{HEAD}m=video"), "no-common-codec", "no video codec"),
            (&bare("96\r\na=rtpmap:96 VP8/90000"), "bad-sdp", "a=ice-ufrag"),
            (
                &bare("96\r\na=rtpmap:96 VP8/90000\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=fingerprint:sha-1 AB"),
                "bad-sdp",
                "a=fingerprint:sha-256",
            ),
        ];
        for (text, kind, words) in cases {
            let (found, detail) = problem(text, &BOTH);
            assert!(found == kind && detail.contains(words), "{text}: {found}: {detail}");
        }
    }

    #[test]
    fn offer_of_codecs_that_were_left_out_is_told_where_to_add_them() {
        let (kind, detail) = problem(&offer(&[("video", "96", VP8)]), &[VideoCodec::H264]);
        assert!(
            kind == "no-common-codec" && detail.contains("vp8, and this gateway takes h264") && detail.contains("video.codecs"),
            "{detail}"
        );
    }

    #[test]
    fn camera_goes_in_on_the_first_line_that_sends_and_the_effect_comes_back_where_it_can() {
        let line = |direction| ("video", "96", if direction == "sendrecv" { "a=sendrecv\r\na=rtpmap:96 VP8/90000\r\n" } else { direction });
        let [both, sending, receiving, idle] = [
            line("sendrecv"),
            line("a=sendonly\r\na=rtpmap:96 VP8/90000\r\n"),
            line("a=recvonly\r\na=rtpmap:96 VP8/90000\r\n"),
            line("a=inactive\r\na=rtpmap:96 VP8/90000\r\n"),
        ];
        let refused = "one video goes in and one comes back";
        assert_eq!(uses(&[both]), ["sendrecv 96"]);
        assert_eq!(uses(&[sending]), ["sendonly 96"]);
        assert_eq!(uses(&[sending, receiving]), ["sendonly 96", "recvonly 96"]);
        assert_eq!(uses(&[receiving, sending]), ["recvonly 96", "sendonly 96"]);
        assert_eq!(uses(&[both, both, idle]), ["sendrecv 96", refused, refused]);
        assert_eq!(uses(&[receiving, both]), [refused, "sendrecv 96"]);
        assert_eq!(uses(&[sending, both]), ["sendonly 96", "recvonly 96"], "at most what was offered is taken");
        assert_eq!(uses(&[sending, both, receiving]), ["sendonly 96", refused, "recvonly 96"]);
        let foreign = ("video", "98", "a=rtpmap:98 VP9/90000\r\n");
        assert_eq!(uses(&[foreign, both]), [refused, "sendrecv 96"]);
    }

    #[test]
    fn lines_that_nobody_can_serve_are_refused_and_the_others_work() {
        let video = ("video", "96", VP8);
        let opus = ("audio", "111", "a=rtpmap:111 opus/48000/2\r\n");
        let data = ("application", "webrtc-datachannel", "");
        assert_eq!(uses(&[("audio", "0", ""), video, opus]), ["it has no Opus", "sendrecv 96", "sendrecv 111"]);
        assert_eq!(uses(&[data, video, data]), ["data", "sendrecv 96", "another line carries the data channels"]);
        assert_eq!(uses(&[video, ("text", "98", "")]), ["sendrecv 96", "its kind is not known"]);
        let same_type = ("audio", "96", "a=rtpmap:96 opus/48000/2\r\n");
        assert_eq!(uses(&[same_type, video]), ["it has no Opus", "sendrecv 96"], "the video has the first choice of payload types");
    }

    #[test]
    fn layers_of_a_simulcast_are_those_that_are_sent() {
        let layers_of = |lines: &str| {
            let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\n{lines}");
            layers(&Description::parse(&text).sections[0]).join(" ")
        };
        assert_eq!(layers_of("a=rid:q send\na=rid:f-1 send pt=96\na=simulcast:send ~q;f-1,x"), "q f-1");
        assert_eq!(layers_of("a=rid:a recv\na=rid:b send\na=simulcast:recv a send b"), "b");
        assert_eq!(layers_of("a=rid:only send"), "only");
        assert_eq!(layers_of("a=rid:a recv\na=simulcast:recv a"), "");
    }

    #[test]
    fn transport_of_a_line_counts_more_than_that_of_the_session() {
        let attributes = format!("{VP8}a=ice-ufrag:line\r\na=ice-pwd:lineline\r\na=setup:passive\r\n");
        let text = offer(&[("video", "96", &attributes)]).replace("t=0 0\r\n", "t=0 0\r\na=setup:active\r\n");
        let offer = Offer::read(&text, Purpose::Exchange, &BOTH).map(|offer| offer.for_library()).unwrap_or_default();
        assert!(offer.contains("a=ice-ufrag:line\r\n") && offer.contains("a=setup:passive\r\n"), "{offer}");
        assert!(!offer.contains("a=ice-ufrag:abcd") && !offer.contains("a=setup:active"), "{offer}");
    }
}
