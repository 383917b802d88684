//! An SDP session description as text: its session part and its media sections, without meaning.
//! Lines may end with CRLF or LF; spaces at their ends and empty lines are left out.

/// A session description.
#[derive(Debug)]
pub(super) struct Description<'a> {
    /// The lines before the first media section.
    pub(super) session: Vec<&'a str>,
    pub(super) sections: Vec<Section<'a>>,
}

/// A media section: `m=<kind> <port> <protocol> <format>…`, and the lines below it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    /// `audio`, `video` or `application`; others exist.
    pub(super) kind: &'a str,
    pub(super) port: &'a str,
    pub(super) protocol: &'a str,
    /// Payload types; for `application`, the name of the protocol on top.
    pub(super) formats: Vec<&'a str>,
    pub(super) lines: Vec<&'a str>,
}

/// The directions in which the author of a section sends media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) sends: bool,
    pub(super) receives: bool,
}

impl<'a> Description<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let mut description = Self { session: Vec::new(), sections: Vec::new() };
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            match (line.strip_prefix("m="), description.sections.last_mut()) {
                (Some(media), _) => description.sections.push(Section::begin(media)),
                (None, Some(section)) => section.lines.push(line),
                (None, None) => description.session.push(line),
            }
        }
        description
    }

    /// Returns the identifiers of the sections that one transport carries, group by group (RFC
    /// 9143).
    pub(super) fn bundles(&self) -> impl Iterator<Item = Vec<&'a str>> {
        let groups = values(&self.session, "group").map(|group| group.split_ascii_whitespace());
        groups.filter_map(|mut words| (words.next() == Some("BUNDLE")).then(|| words.collect()))
    }

    /// Returns the direction of a section. Without an attribute in the section or the session part
    /// it sends and receives (RFC 8866 §6.7).
    pub(super) fn direction(&self, section: &Section<'a>) -> Direction {
        let stated = section.lines.iter().chain(&self.session).find_map(|line| Direction::parse(line));
        stated.unwrap_or(Direction { sends: true, receives: true })
    }
}

impl<'a> Section<'a> {
    fn begin(media: &'a str) -> Self {
        let mut words = media.split_ascii_whitespace();
        let mut next = || words.next().unwrap_or_default();
        let (kind, port, protocol) = (next(), next(), next());
        // A port may be followed by a number of ports.
        let port = port.split('/').next().unwrap_or_default();
        Self { kind, port, protocol, formats: words.collect(), lines: Vec::new() }
    }

    /// Returns the values of an attribute.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        values(&self.lines, name)
    }

    /// Returns the first value of an attribute.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Returns the identifier of the section.
    pub(super) fn mid(&self) -> Option<&'a str> {
        self.value("mid").filter(|mid| !mid.is_empty())
    }
}

impl Direction {
    fn parse(line: &str) -> Option<Self> {
        let (sends, receives) = match line {
            "a=sendrecv" => (true, true),
            "a=sendonly" => (true, false),
            "a=recvonly" => (false, true),
            "a=inactive" => (false, false),
            _ => return None,
        };
        Some(Self { sends, receives })
    }

    /// Returns the name of the attribute.
    pub(super) fn name(self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

/// Returns the name and the value of an attribute line; the value is empty if it has none.
pub(super) fn attribute(line: &str) -> Option<(&str, &str)> {
    let attribute = line.strip_prefix("a=")?;
    Some(attribute.split_once(':').map_or((attribute, ""), |(name, value)| (name, value.trim_start())))
}

/// Returns the values of an attribute among these lines.
pub(super) fn values<'a>(lines: &[&'a str], name: &str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| attribute(line).filter(|(found, _)| *found == name).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_belong_to_the_session_or_to_a_section() {
        for end in ["\r\n", "\n", " \r\n\r\n"] {
            let text = ["v=0", "a=group:BUNDLE 0 1", "a=x", "m=audio 9/2 RTP/SAVPF 111 0", "a=mid:0", "m=video 9", "a=mid:", "a=sendonly"]
                .join(end);
            let description = Description::parse(&text);
            assert_eq!(description.session, ["v=0", "a=group:BUNDLE 0 1", "a=x"]);
            assert_eq!(description.bundles().collect::<Vec<_>>(), [["0", "1"]]);
            let [audio, video] = &description.sections[..] else { panic!("{description:?}") };
            assert_eq!((audio.kind, audio.port, audio.protocol, &audio.formats[..]), ("audio", "9", "RTP/SAVPF", &["111", "0"][..]));
            assert_eq!((video.kind, video.port, video.protocol, video.formats.len()), ("video", "9", "", 0));
            assert_eq!((audio.mid(), video.mid()), (Some("0"), None));
            assert_eq!([audio, video].map(|section| description.direction(section).name()), ["sendrecv", "sendonly"]);
        }
    }

    #[test]
    fn direction_of_the_session_counts_where_a_section_states_none() {
        let description = Description::parse("v=0\na=recvonly\nm=audio 9 X 0\nm=video 9 X 96\na=inactive\n");
        let names: Vec<_> = description.sections.iter().map(|section| description.direction(section).name()).collect();
        assert_eq!(names, ["recvonly", "inactive"]);
    }
}
