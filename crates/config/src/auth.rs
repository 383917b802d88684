//! `[auth]` and `[turn]`: authentication of callers, TURN, and their secrets.
//!
//! This module parses and validates values; access control and TURN use them. No secret
//! is ever shown: not by `Debug`, not by `ooblex check --print`, and not in an error.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use axum::http::Uri;
use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ConfigError;
use super::words::{names, word};

/// `[auth]`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Methods by which callers authenticate. If not set, the method is `none` while `serve.listen`
    /// is a loopback address.
    pub mode: Option<Modes>,
    /// API keys that are accepted in mode `keys`.
    pub keys: Vec<KeyEntry>,
    /// TOML file with more API keys, as `[[keys]]`.
    pub keys_file: Option<PathBuf>,
    /// Verification of tokens in mode `jwt`.
    pub jwt: Jwt,
    /// HTTP hook that decides in mode `hook`.
    pub hook: Hook,
}

/// An API key: `[[auth.keys]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// Name of the key in logs.
    pub name: String,
    /// Role of the key's holder.
    #[serde(deserialize_with = "word")]
    pub role: Role,
    /// Hash of the key: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
}

/// Permissions of the holder of a key or token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Begin sessions that send a camera.
    Publish,
    /// Watch sessions.
    View,
    /// Everything, including the routes for operators.
    Admin,
}

impl Role {
    /// Returns the name in the configuration.
    pub fn label(self) -> &'static str {
        match self {
            Role::Publish => "publish",
            Role::View => "view",
            Role::Admin => "admin",
        }
    }
}

/// `[auth.jwt]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// Shared secret.
    pub secret: Option<Secret>,
    /// File with the shared secret.
    pub secret_file: Option<PathBuf>,
    /// URL of the public keys (JWKS).
    pub jwks_url: Option<HttpUrl>,
    /// Accepted algorithms. If empty, HS256 is accepted with a secret, and all asymmetric
    /// algorithms with `jwks_url`.
    #[serde(deserialize_with = "names")]
    pub algorithms: Vec<String>,
    /// Required value of `iss`.
    pub issuer: Option<String>,
    /// Required value of `aud`, or an element that it must contain.
    pub audience: Option<String>,
    /// True to refuse tokens without `exp`.
    pub require_expiry: bool,
}

/// `[auth.hook]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// URL to which requests are sent.
    pub url: Option<HttpUrl>,
    /// Timeout of the hook's answer, in ms.
    pub timeout_ms: u64,
}

/// `[turn]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// URLs of TURN servers, as browsers accept them; if empty, TURN is not offered.
    #[serde(deserialize_with = "names")]
    pub urls: Vec<String>,
    /// Secret that the gateway shares with the TURN servers.
    pub secret: Option<Secret>,
    /// File with that secret.
    pub secret_file: Option<PathBuf>,
    /// Lifetime of TURN credentials, in seconds.
    pub ttl_s: u64,
}

impl Default for Jwt {
    fn default() -> Self {
        Self { secret: None, secret_file: None, jwks_url: None, algorithms: Vec::new(), issuer: None, audience: None, require_expiry: true }
    }
}

impl Default for Hook {
    fn default() -> Self {
        Self { url: None, timeout_ms: 3000 }
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self { urls: Vec::new(), secret: None, secret_file: None, ttl_s: 3600 }
    }
}

impl Auth {
    /// Returns whether a mode is explicitly configured.
    pub fn has(&self, mode: Mode) -> bool {
        self.mode.as_ref().is_some_and(|modes| modes.0.contains(&mode))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let senseless = |what: &str| Err(ConfigError::Senseless(what.into()));
        if self.has(Mode::Keys) && self.keys.is_empty() && self.keys_file.is_none() {
            return senseless(
                "auth.mode names \"keys\" and there are none: make one with `ooblex token key --role publish`, and write it into [[auth.keys]] \
                 or into the file of auth.keys_file",
            );
        }
        let jwt = &self.jwt;
        let sources = [jwt.secret.is_some(), jwt.secret_file.is_some(), jwt.jwks_url.is_some()].into_iter().filter(|set| *set).count();
        if self.has(Mode::Jwt) && sources != 1 {
            return senseless(
                "auth.mode names \"jwt\", which needs exactly one of auth.jwt.secret, auth.jwt.secret_file and auth.jwt.jwks_url",
            );
        }
        if self.has(Mode::Jwt)
            && let Some(url) = &jwt.jwks_url
            && !url.is_safe()
        {
            return senseless("auth.jwt.jwks_url must begin with https://: whoever changes the keys on their way could sign tokens");
        }
        if self.has(Mode::Hook) && self.hook.url.is_none() {
            return senseless("auth.mode names \"hook\", which needs auth.hook.url: the address that is asked");
        }
        if !(50..=60_000).contains(&self.hook.timeout_ms) {
            return senseless("auth.hook.timeout_ms must be from 50 to 60000");
        }
        Ok(())
    }
}

impl Turn {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let senseless = |what: String| Err(ConfigError::Senseless(what));
        if self.urls.is_empty() {
            return Ok(());
        }
        // A URL is refused if a Link header could not carry it.
        let is_turn =
            |url: &str| ["turn:", "turns:"].iter().any(|scheme| url.starts_with(scheme)) && !url.contains([',', ';', '"', ' ', '>']);
        if let Some(wrong) = self.urls.iter().find(|url| !is_turn(url)) {
            return senseless(format!("turn.urls: {wrong:?} is no address of a TURN server: write \"turn:HOST:3478?transport=udp\""));
        }
        if self.secret.is_some() == self.secret_file.is_some() {
            return senseless(
                "turn.urls needs exactly one of turn.secret and turn.secret_file: what the TURN server has as its secret".into(),
            );
        }
        if !(60..=7 * 24 * 3600).contains(&self.ttl_s) {
            return senseless("turn.ttl_s must be from 60 to 604800".into());
        }
        Ok(())
    }
}

/// Method by which callers authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Callers do not authenticate.
    None,
    /// Callers present an API key that the operator has listed.
    Keys,
    /// Callers present a signed token.
    Jwt,
    /// An HTTP server of the operator decides.
    Hook,
}

/// One or more authentication modes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes(Vec<Mode>);

impl Modes {
    /// Returns all modes.
    pub fn all(&self) -> &[Mode] {
        &self.0
    }

    fn read<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut modes = Vec::new();
        for word in words.map(str::trim).filter(|word| !word.is_empty()) {
            let mode = match word {
                "none" => Mode::None,
                "keys" => Mode::Keys,
                "jwt" => Mode::Jwt,
                "hook" => Mode::Hook,
                other => {
                    return Err(format!("auth.mode: {other:.40?} is no mode: write \"none\", \"keys\", \"jwt\" or \"hook\", or a list"));
                }
            };
            if !modes.contains(&mode) {
                modes.push(mode);
            }
        }
        match modes.as_slice() {
            [] => Err("auth.mode is empty: write \"none\", \"keys\", \"jwt\" or \"hook\", or a list of them".into()),
            [_, _, ..] if modes.contains(&Mode::None) => Err("auth.mode: \"none\" stands alone, since it lets everybody in".into()),
            _ => Ok(Self(modes)),
        }
    }
}

impl Serialize for Modes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let [only] = self.0.as_slice() {
            return only.serialize(to);
        }
        let mut list = to.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|mode| list.serialize_element(mode))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Modes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct ModesVisitor;
        impl<'de> Visitor<'de> for ModesVisitor {
            type Value = Modes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"none\", \"keys\", \"jwt\" or \"hook\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Modes, E> {
                Modes::read(word.split(',')).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Modes, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = list.next_element::<String>()? {
                    words.push(word);
                }
                Modes::read(words.iter().map(String::as_str)).map_err(de::Error::custom)
            }
        }
        from.deserialize_any(ModesVisitor)
    }
}

/// A string that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns a secret; `None` if it is empty.
    pub fn new(secret: &str) -> Option<Self> {
        (!secret.is_empty()).then(|| Self(secret.into()))
    }

    /// Returns the secret in plain text.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns a secret of the configuration, or reads it from a file or an environment variable.
    /// `options`: the options that name these two.
    pub(super) fn find(
        secret: Option<&Self>,
        file: Option<&Path>,
        variable: Option<&str>,
        options: [&'static str; 2],
    ) -> Result<Option<Self>, ConfigError> {
        let [file_option, variable_option] = options;
        if let Some(file) = file {
            return Self::read(file, file_option).map(Some);
        }
        let Some(variable) = variable else { return Ok(secret.cloned()) };
        let value = std::env::var(variable).ok().and_then(|value| Self::new(value.trim()));
        let detail = || format!("{variable_option}: the environment variable {variable} is not set, or is empty: write the secret into it");
        value.map(Some).ok_or_else(|| ConfigError::Senseless(detail()))
    }

    /// Reads a secret from a file, without the line ending. `option` is the option that names the
    /// file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if it is empty.
    pub fn read(file: &Path, option: &'static str) -> Result<Self, ConfigError> {
        let refused = |reason: String| ConfigError::SecretFile { option, path: file.into(), reason };
        let text = std::fs::read_to_string(file).map_err(|error| refused(format!("cannot be read ({error})")))?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() { Err(refused("is empty".into())) } else { Ok(Self(secret.into())) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("***")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Refuses numbers without showing them: a secret of digits from the environment is parsed
        /// as a number, which would lose some digits.
        struct SecretVisitor;
        const NO_TEXT: &str = "a secret must be a text, and this one reads as something else: write it into a file, and name that";
        impl Visitor<'_> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret")
            }

            fn visit_str<E: de::Error>(self, secret: &str) -> Result<Secret, E> {
                if secret.is_empty() { Err(E::custom("a secret must not be empty")) } else { Ok(Secret(secret.into())) }
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Secret, E> {
                Err(E::custom(NO_TEXT))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom(NO_TEXT))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Secret, E> {
                Err(E::custom(NO_TEXT))
            }

            fn visit_i128<E: de::Error>(self, _: i128) -> Result<Secret, E> {
                Err(E::custom(NO_TEXT))
            }

            fn visit_u128<E: de::Error>(self, _: u128) -> Result<Secret, E> {
                Err(E::custom(NO_TEXT))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom(NO_TEXT))
            }
        }
        from.deserialize_any(SecretVisitor)
    }
}

/// URL of an HTTP server that the gateway calls. Its query may be secret and is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(String);

/// Error for an invalid URL. It does not contain the URL, which may contain a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HttpUrlError {
    /// The text cannot be parsed as a URL.
    #[error("this is no address of HTTP: write https://HOST/PATH")]
    Malformed,
    /// The URL contains a user name or a password.
    #[error("an address must hold no user name and no password")]
    Credentials,
}

impl HttpUrl {
    /// Returns the whole URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the connection cannot be intercepted: HTTPS, or a loopback address.
    pub fn is_safe(&self) -> bool {
        let Ok(uri) = self.0.parse::<Uri>() else { return false };
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        uri.scheme_str() == Some("https") || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl FromStr for HttpUrl {
    type Err = HttpUrlError;

    fn from_str(text: &str) -> Result<Self, HttpUrlError> {
        let uri: Uri = text.parse().map_err(|_| HttpUrlError::Malformed)?;
        let authority = uri.authority().ok_or(HttpUrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(HttpUrlError::Credentials);
        }
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.host().is_empty() {
            return Err(HttpUrlError::Malformed);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once('?') {
            Some((shown, _)) => write!(f, "{shown}?***"),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.trim().parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_from_words_lists_and_variables() {
        let read = |text: &str| serde_json::from_str::<Modes>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#""keys""#).unwrap().all(), [Mode::Keys]);
        assert_eq!(read(r#"["jwt", "keys", "jwt"]"#).unwrap().all(), [Mode::Jwt, Mode::Keys]);
        assert_eq!(read(r#""keys, hook""#).unwrap().all(), [Mode::Keys, Mode::Hook]);
        for wrong in [r#""""#, "[]", r#""open""#, r#"["none", "keys"]"#] {
            assert!(read(wrong).unwrap_err().contains("none"), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_never_shown_and_never_a_number() {
        let secret: Secret = serde_json::from_str(r#""hunter2""#).unwrap();
        assert_eq!((format!("{secret:?}"), serde_json::to_string(&secret).unwrap()), ("***".into(), r#""***""#.into()));
        for number in ["123456789", "-4", "1.5e30", "true"] {
            let said = serde_json::from_str::<Secret>(number).unwrap_err().to_string();
            assert!(said.contains("must be a text") && !said.contains(number), "{said}");
        }
    }

    #[test]
    fn keys_are_fetched_by_https_or_from_this_machine() {
        let is_safe = |url: &str| url.parse::<HttpUrl>().unwrap().is_safe();
        assert!(
            is_safe("https://id.example/keys")
                && is_safe("http://127.0.0.1:80/")
                && is_safe("http://localhost/")
                && is_safe("http://[::1]/")
        );
        assert!(!is_safe("http://id.example/keys") && !is_safe("http://localhost.example/") && !is_safe("http://10.0.0.1/"));
        assert_eq!("https://ann:secret@id.example/".parse::<HttpUrl>(), Err(HttpUrlError::Credentials));
        for wrong in ["ftp://h/", "/keys", "id.example", ""] {
            assert_eq!(wrong.parse::<HttpUrl>(), Err(HttpUrlError::Malformed), "{wrong}");
        }
        assert_eq!("https://h/a?key=1".parse::<HttpUrl>().unwrap().to_string(), "https://h/a?***");
    }
}
