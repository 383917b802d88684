//! The answer in the shape of the offer: the same media lines in the same order, written as the
//! offerer writes them.

use super::description::{Description, Section, attribute};
use super::formats::by_payload_type;
use super::offer::{Line, Offer, feedback, layers};

impl Offer<'_> {
    /// Returns the answer to the offer, from the answer of the library to
    /// [`Offer::for_library`]. `start_bitrate_kbps`: the bitrate with which browsers that know the
    /// parameter (Chromium, Safari) begin to send. They would begin at 300 kbit/s, and send a small,
    /// blurred picture for ten seconds.
    pub(crate) fn answer(&self, from_library: &str, start_bitrate_kbps: u32) -> String {
        let from_library = Description::parse(from_library);
        let mut answered = from_library.sections.iter();
        let mut out = Lines::default();
        let session = from_library.session.iter().filter(|line| !line.starts_with("a=group:"));
        let (head, attributes): (Vec<_>, Vec<_>) = session.partition(|line| !line.starts_with("a="));
        head.into_iter().for_each(|line| out.push(line));
        if self.is_bundled {
            out.push(&["a=group:BUNDLE".to_string()].into_iter().chain(self.served_mids()).collect::<Vec<_>>().join(" "));
        }
        attributes.into_iter().for_each(|line| out.push(line));
        for (offered, line) in self.description.sections.iter().zip(&self.lines) {
            match line {
                Line::Refused(_) => refuse(&mut out, offered),
                Line::Media { .. } | Line::Data { .. } => {
                    if let Some(section) = answered.next() {
                        self.serve(&mut out, offered, line, section, start_bitrate_kbps);
                    }
                }
            }
        }
        out.0
    }

    /// Returns the identifiers of the lines that are served, as in the offer.
    fn served_mids(&self) -> impl Iterator<Item = String> {
        let lines = self.description.sections.iter().zip(&self.lines);
        lines.filter(|(_, line)| !matches!(line, Line::Refused(_))).filter_map(|(section, _)| section.mid().map(String::from))
    }

    /// Writes a line that is served. `section`: the answer of the library.
    fn serve(&self, out: &mut Lines, offered: &Section<'_>, line: &Line, section: &Section<'_>, start_bitrate_kbps: u32) {
        let is_data = matches!(line, Line::Data { .. });
        let formats = if is_data { &offered.formats } else { &section.formats };
        out.push(&format!("m={} {} {} {}", offered.kind, section.port, offered.protocol, formats.join(" ")));
        let (is_received, is_sent) = match line {
            Line::Media { direction, .. } => (direction.sends, direction.receives),
            Line::Data { .. } | Line::Refused(_) => (false, false),
        };
        let is_received_video = offered.kind == "video" && is_received;
        for text in &section.lines {
            let (name, value) = attribute(text).unwrap_or_default();
            match name {
                "mid" => offered.mid().into_iter().for_each(|mid| out.push(&format!("a=mid:{mid}"))),
                "rtcp-mux" => {
                    out.push(text);
                    out.push("a=rtcp-mux-only");
                }
                "msid" if !is_sent => {}
                // An answer names no feedback that was not offered (RFC 4585 §4.2).
                "rtcp-fb" if !is_offered(value, offered, line) => {}
                "sctp-port" => out.push(&offered.value("sctpmap").map_or_else(|| text.to_string(), |old| format!("a=sctpmap:{old}"))),
                "rtpmap" if is_received_video => {
                    out.push(text);
                    if let Some((pt, _)) = by_payload_type(value).filter(|(_, encoding)| encoding.starts_with("VP8/")) {
                        out.push(&format!("a=fmtp:{pt} x-google-start-bitrate={start_bitrate_kbps}"));
                    }
                }
                "fmtp" if is_received_video && !value.contains("apt=") => {
                    out.push(&format!("{text};x-google-start-bitrate={start_bitrate_kbps}"));
                }
                _ => out.push(text),
            }
        }
        // All layers are accepted: which of them is the largest shows when they arrive.
        let layers = if is_received_video { layers(offered) } else { Vec::new() };
        layers.iter().for_each(|rid| out.push(&format!("a=rid:{rid} recv")));
        if !layers.is_empty() && offered.value("simulcast").is_some() {
            out.push(&format!("a=simulcast:recv {}", layers.join(";")));
        }
    }
}

/// Returns whether the offerer has named this feedback, the value of `a=rtcp-fb`.
fn is_offered(value: &str, offered: &Section<'_>, line: &Line) -> bool {
    let (Line::Media { formats, .. }, Some((pt, kind))) = (line, by_payload_type(value)) else { return false };
    formats.iter().any(|format| *format.pt == pt && feedback(offered, format).contains(&kind))
}

/// Writes a line that is refused: port 0, and one format (RFC 3264 §6).
fn refuse(out: &mut Lines, offered: &Section<'_>) {
    let format = offered.formats.first().copied().unwrap_or("0");
    out.push(&format!("m={} 0 {} {format}", offered.kind, offered.protocol));
    out.push("c=IN IP4 0.0.0.0");
    if let Some(mid) = offered.mid() {
        out.push(&format!("a=mid:{mid}"));
    }
    if let Some(map) = offered.values("rtpmap").find(|map| map.split(' ').next() == Some(format)) {
        out.push(&format!("a=rtpmap:{map}"));
    }
    if offered.kind != "application" {
        out.push("a=inactive");
    }
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn push(&mut self, line: &str) {
        self.0.extend([line, "\r\n"]);
    }
}
