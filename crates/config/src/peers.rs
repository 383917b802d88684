//! `[rooms]`, `[[pulls]]` and `[[pushes]]`: rooms, and the servers that the gateway calls as a client of
//! WHEP and WHIP.
//!
//! URLs are compared in the normal form of the URL standard, in which they are sent as well, so that
//! a check and a request cannot mean different servers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;
use url::Url;

use super::ConfigError;
use super::auth::Secret;
use super::words::{parsed_all, shown_all};

/// Largest number of pulls and pushes together.
pub const MAX_LINKS: usize = 64;
/// Largest value of `rooms.mjpeg_fps`.
pub const MAX_MJPEG_FPS: u32 = 30;

/// `[rooms]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rooms {
    /// Time for which a room outlives its publisher, in seconds.
    pub linger_s: u64,
    /// Maximum number of pictures per second in a stream of JPEG pictures.
    pub mjpeg_fps: u32,
    /// Maximum number of concurrent streams of JPEG pictures per room.
    pub mjpeg_streams: usize,
    /// Prefixes of the URLs of other servers that the gateway may call.
    #[serde(serialize_with = "shown_all", deserialize_with = "parsed_all")]
    pub peers: Vec<PeerPrefix>,
    /// PEM file of certificate authorities of those servers, besides those of the system.
    pub peers_ca_file: Option<PathBuf>,
}

/// `[[pulls]]`: a stream of another server that is published to a room.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    /// URL of the WHEP endpoint.
    pub whep: PeerUrl,
    /// Room to publish to.
    pub room: String,
    /// Effect; `serve.default_effect` if not set.
    pub effect: Option<String>,
    /// Parameters of the effect.
    #[serde(default)]
    pub params: Value,
    /// Bearer token for the other server.
    pub token: Option<Secret>,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Environment variable with the token.
    pub token_variable: Option<String>,
}

/// `[[pushes]]`: the pictures of a room, published to another server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// Room to watch.
    pub room: String,
    /// URL of the WHIP endpoint.
    pub whip: PeerUrl,
    /// Bearer token for the other server.
    pub token: Option<Secret>,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Environment variable with the token.
    pub token_variable: Option<String>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { linger_s: 0, mjpeg_fps: 10, mjpeg_streams: 8, peers: Vec::new(), peers_ca_file: None }
    }
}

impl Rooms {
    /// Returns whether the gateway may call a URL.
    pub fn allows(&self, url: &PeerUrl) -> bool {
        self.peers.iter().any(|prefix| prefix.covers(url))
    }

    pub(super) fn check(&self, pulls: &[Pull], pushes: &[Push]) -> Result<(), ConfigError> {
        if !(1..=MAX_MJPEG_FPS).contains(&self.mjpeg_fps) {
            return Err(ConfigError::Senseless(format!("rooms.mjpeg_fps must be from 1 to {MAX_MJPEG_FPS}")));
        }
        let pulled = pulls
            .iter()
            .map(|pull| ("pulls", &pull.whep, [pull.token.is_some(), pull.token_file.is_some(), pull.token_variable.is_some()]));
        let pushed = pushes
            .iter()
            .map(|push| ("pushes", &push.whip, [push.token.is_some(), push.token_file.is_some(), push.token_variable.is_some()]));
        for (list, url, tokens) in pulled.chain(pushed) {
            if !self.allows(url) {
                let detail = format!("{list}: {url} is not within rooms.peers: add the prefix of that server there");
                return Err(ConfigError::Senseless(detail));
            }
            if tokens.iter().filter(|is_set| **is_set).count() > 1 {
                let detail = format!("{list}: {url} needs at most one of token, token_file and token_variable");
                return Err(ConfigError::Senseless(detail));
            }
        }
        if pulls.len() + pushes.len() > MAX_LINKS {
            return Err(ConfigError::Senseless(format!("pulls and pushes must be at most {MAX_LINKS} together")));
        }
        Ok(())
    }
}

impl Pull {
    /// Returns the token.
    ///
    /// # Errors
    /// When its file or its environment variable cannot be read.
    pub fn token(&self) -> Result<Option<Secret>, ConfigError> {
        let options = ["pulls.token_file", "pulls.token_variable"];
        Secret::find(self.token.as_ref(), self.token_file.as_deref(), self.token_variable.as_deref(), options)
    }
}

impl Push {
    /// Returns the token.
    ///
    /// # Errors
    /// When its file or its environment variable cannot be read.
    pub fn token(&self) -> Result<Option<Secret>, ConfigError> {
        let options = ["pushes.token_file", "pushes.token_variable"];
        Secret::find(self.token.as_ref(), self.token_file.as_deref(), self.token_variable.as_deref(), options)
    }
}

/// URL of a WHEP or WHIP endpoint, or of a session, of another server. Its query may be secret and is
/// not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerUrl(Url);

/// Prefix of URLs: scheme, host and port, and the beginning of a path up to the end of a segment.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerPrefix(Url);

/// Error for a URL that is no URL of another server. It does not contain the URL, which may contain
/// a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PeerUrlError {
    /// The text cannot be parsed as a URL, or has another scheme.
    #[error("this is no address of HTTP: write https://HOST/PATH")]
    Malformed,
    /// The URL contains a user name or a password.
    #[error("an address must hold no user name and no password: write the token into a field of its own")]
    Credentials,
    /// The URL has a fragment.
    #[error("an address must have no fragment (#)")]
    Fragment,
    /// The path has segments that servers read in different ways.
    #[error("a path must have no '.' or '..' segments, no backslashes, and no encoded dots and slashes")]
    Path,
    /// The prefix has a query.
    #[error("a prefix must have no query (?)")]
    Query,
}

impl PeerUrl {
    /// Returns the URL as it is sent.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Returns the URL that a header `Location` names in an answer from this one.
    ///
    /// # Errors
    /// When it is no URL of a server.
    pub fn join(&self, location: &str) -> Result<Self, PeerUrlError> {
        self.0.join(location).map_err(|_| PeerUrlError::Malformed).and_then(checked).map(Self)
    }

    /// Returns whether both URLs have the same scheme, host and port.
    pub fn has_origin_of(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }

    /// Returns whether requests to this URL are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Returns the parts that are not shown: the query and each of its values, as they are sent and
    /// decoded.
    pub fn secrets(&self) -> Vec<String> {
        let Some(query) = self.0.query() else { return Vec::new() };
        let raw = query.split('&').filter_map(|pair| pair.split_once('=')).map(|(_, value)| value.to_string());
        let decoded = self.0.query_pairs().map(|(_, value)| value.into_owned());
        std::iter::once(query.to_string()).chain(raw).chain(decoded).collect()
    }
}

impl PeerPrefix {
    fn covers(&self, PeerUrl(url): &PeerUrl) -> bool {
        let origin = |url: &Url| (url.scheme().to_string(), url.host_str().map(String::from), url.port_or_known_default());
        let path = self.0.path();
        let rest = url.path().strip_prefix(path);
        origin(&self.0) == origin(url) && rest.is_some_and(|rest| rest.is_empty() || path.ends_with('/') || rest.starts_with('/'))
    }
}

/// Parses a URL that an operator writes. Dots that the URL standard would resolve are refused, since
/// they are never what was meant.
fn written(text: &str) -> Result<Url, PeerUrlError> {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    if path.contains('\\') || path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(PeerUrlError::Path);
    }
    text.parse().map_err(|_| PeerUrlError::Malformed).and_then(checked)
}

fn checked(url: Url) -> Result<Url, PeerUrlError> {
    let path = url.path().to_ascii_lowercase();
    match () {
        () if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) => Err(PeerUrlError::Malformed),
        () if !url.username().is_empty() || url.password().is_some() => Err(PeerUrlError::Credentials),
        () if url.fragment().is_some() => Err(PeerUrlError::Fragment),
        () if ["%2e", "%2f", "%5c", "\\"].iter().any(|hidden| path.contains(hidden)) => Err(PeerUrlError::Path),
        () => Ok(url),
    }
}

impl FromStr for PeerUrl {
    type Err = PeerUrlError;

    fn from_str(text: &str) -> Result<Self, PeerUrlError> {
        written(text).map(Self)
    }
}

impl FromStr for PeerPrefix {
    type Err = PeerUrlError;

    fn from_str(text: &str) -> Result<Self, PeerUrlError> {
        let url = written(text)?;
        if url.query().is_some() { Err(PeerUrlError::Query) } else { Ok(Self(url)) }
    }
}

impl fmt::Display for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str().split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?***"),
            None => f.write_str(self.0.as_str()),
        }
    }
}

impl fmt::Debug for PeerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PeerUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PeerUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.trim().parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for PeerPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

impl fmt::Debug for PeerPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> PeerUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn rooms(prefixes: &[&str]) -> Rooms {
        Rooms { peers: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(), ..Rooms::default() }
    }

    #[test]
    fn url_is_allowed_within_a_prefix_of_the_same_server_and_whole_segments() {
        let live = rooms(&["https://media.example/live", "http://10.0.0.7:8889/"]);
        for inside in [
            "https://media.example/live",
            "https://media.example/live/",
            "https://media.example/live/a?token=x",
            "https://MEDIA.example:443/live/a",
            "http://10.0.0.7:8889/cam/whep",
            "http://0x0a000007:8889/cam/whep",
        ] {
            assert!(live.allows(&url(inside)), "{inside}");
        }
        for outside in [
            "https://media.example/",
            "https://media.example/lively",
            "https://media.example/Live",
            "https://media.example:8443/live",
            "http://media.example/live",
            "https://media.example.evil/live",
            "https://evil.example/live?https://media.example/live",
            "http://10.0.0.7/cam",
            "http://10.0.0.8:8889/cam",
            "https://10.0.0.7:8889/cam",
        ] {
            assert!(!live.allows(&url(outside)), "{outside}");
        }
        assert!(!rooms(&[]).allows(&url("https://media.example/")), "nothing is allowed by default");
        assert!(!rooms(&["https://media.example/live/"]).allows(&url("https://media.example/live")));
    }

    #[test]
    fn urls_that_servers_could_read_in_another_way_are_refused() {
        for (text, error) in [
            ("https://media.example@evil.example/live", PeerUrlError::Credentials),
            ("https://ann:secret@media.example/live", PeerUrlError::Credentials),
            ("https://media.example/live/../admin", PeerUrlError::Path),
            ("https://media.example/live/./a", PeerUrlError::Path),
            ("https://media.example/live/%2e%2E/admin", PeerUrlError::Path),
            ("https://media.example/live/..%2fadmin", PeerUrlError::Path),
            ("https://media.example/live%5c..%5cadmin", PeerUrlError::Path),
            ("https://media.example\\@evil.example/live", PeerUrlError::Path),
            ("https://media.example/live#a", PeerUrlError::Fragment),
            ("ftp://media.example/live", PeerUrlError::Malformed),
            ("file:///etc/passwd", PeerUrlError::Malformed),
            ("media.example/live", PeerUrlError::Malformed),
            ("https://", PeerUrlError::Malformed),
            ("", PeerUrlError::Malformed),
        ] {
            let refused = text.parse::<PeerUrl>();
            let outside = refused.as_ref().is_ok_and(|url| !rooms(&["https://media.example/live"]).allows(url));
            assert!(refused == Err(error) || outside, "{text}: {refused:?}");
        }
        assert_eq!("https://media.example/?a=b".parse::<PeerPrefix>(), Err(PeerUrlError::Query));
    }

    #[test]
    fn locations_are_resolved_and_stay_within_the_prefix_or_not() {
        let (live, base) = (rooms(&["https://media.example/live/"]), url("https://media.example/live/a/whip?token=secret"));
        for (location, resolved) in [
            ("/live/a/session", Some("https://media.example/live/a/session")),
            ("session/1", Some("https://media.example/live/a/session/1")),
            ("../b", Some("https://media.example/live/b")),
            ("https://media.example/live/x?y", Some("https://media.example/live/x?y")),
            ("../../admin", None),
            ("//evil.example/live/a", None),
            ("http://media.example/live/a", None),
            ("https://media.example@evil.example/live/a", None),
            ("javascript:alert(1)", None),
            ("/live/%2e%2e/admin", None),
        ] {
            let joined = base.join(location).ok().filter(|url| live.allows(url));
            assert_eq!(joined.as_ref().map(PeerUrl::as_str), resolved, "{location}");
        }
    }

    #[test]
    fn query_is_sent_and_not_shown() {
        let url = url("https://media.example/live?token=secret");
        assert_eq!(
            (url.to_string(), format!("{url:?}")),
            ("https://media.example/live?***".into(), "https://media.example/live?***".into())
        );
        assert!(url.as_str().ends_with("token=secret"));
        let secrets = self::url("https://media.example/live?a=x%2By&b").secrets();
        assert_eq!(secrets, ["a=x%2By&b", "x%2By", "x+y", ""]);
    }

    #[test]
    fn origin_is_scheme_host_and_port() {
        let base = url("https://media.example/live");
        assert!(url("https://media.example:443/other").has_origin_of(&base));
        for other in ["http://media.example/live", "https://media.example:8443/live", "https://other.example/live"] {
            assert!(!url(other).has_origin_of(&base), "{other}");
        }
    }
}
