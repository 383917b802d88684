//! Credentials of a request.

use axum::http::{HeaderMap, header};
use openssl::base64::decode_block;

use super::session_secret::SessionSecret;

/// The credentials of a request.
#[derive(Default)]
pub struct Credential {
    /// Token of `Authorization: Bearer`, or of the query parameter `token`.
    pub token: Option<String>,
    /// User name of `Authorization: Basic`, which is passed to the hook.
    pub(super) user: String,
    pub(super) password: String,
}

impl Credential {
    /// Returns whether the request shows a credential of any kind.
    pub fn is_there(&self) -> bool {
        self.token.is_some() || !self.user.is_empty() || !self.password.is_empty()
    }

    /// Returns whether the token has the prefix of a session's secret.
    pub fn is_of_session(&self) -> bool {
        self.token.as_deref().is_some_and(|token| token.starts_with(SessionSecret::PREFIX))
    }
}

impl Credential {
    /// Reads the credentials of a request: from the `Authorization` header, or from the query for
    /// browser APIs that cannot set headers.
    pub fn of(headers: &HeaderMap, query: Option<&str>) -> Self {
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if let Some((scheme, value)) = header.and_then(|header| header.trim().split_once(' ')) {
            let value = value.trim();
            if scheme.eq_ignore_ascii_case("bearer") {
                return Self { token: Some(value.into()), ..Self::default() };
            }
            if scheme.eq_ignore_ascii_case("basic") {
                let decoded = decode_block(value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                let (user, password) = decoded.as_deref().and_then(|text| text.split_once(':')).unwrap_or_default();
                return Self { token: None, user: user.into(), password: password.into() };
            }
        }
        let token = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| pair.strip_prefix("token="));
        Self { token: token.map(percent_decoded), ..Self::default() }
    }
}

/// Decodes percent-encoding. Malformed escapes stay as they are.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |at: usize| tail.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0).zip(digit(1))) {
            (b'%', Some((high, low))) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_from_the_header_or_the_query() {
        let of = |header: Option<&str>, query: Option<&str>| {
            let mut headers = HeaderMap::new();
            header.map(|value| headers.insert(header::AUTHORIZATION, value.parse().unwrap()));
            let Credential { token, user, password } = Credential::of(&headers, query);
            (token.unwrap_or_default(), user, password)
        };
        let token = |text: &str| (text.to_string(), String::new(), String::new());
        assert_eq!(of(Some("Bearer abc"), None), token("abc"));
        assert_eq!(of(Some("bearer  abc "), Some("token=other")), token("abc"));
        assert_eq!(of(None, Some("a=b&token=a%2Bb%zz%4")), token("a+b%zz%4"));
        assert_eq!(of(None, Some("mytoken=abc")), token(""));
        assert_eq!(of(Some("Basic YW5uOmE6Yg=="), None), (String::new(), "ann".into(), "a:b".into()));
        for nothing in ["Bearer", "Digest abc", "Basic !!", ""] {
            assert_eq!(of(Some(nothing), None), token(""), "{nothing}");
        }
    }
}
