//! Time-limited credentials for TURN servers: a user name with its expiry and an HMAC of it,
//! compatible with coturn's `use-auth-secret` (draft-uberti-behave-turn-rest). Each session gets
//! its own in the answer to its offer.

use std::time::{Duration, SystemTime};

use openssl::base64::encode_block;
use openssl::hash::MessageDigest;
use serde_json::{Value, json};

use crate::auth::hmac;
use crate::config::{self, ConfigError, Secret};
use crate::ids::SessionId;

/// Creates credentials for the configured TURN servers.
pub struct Turn {
    urls: Vec<String>,
    secret: Secret,
    ttl: Duration,
}

impl Turn {
    /// Builds it from the configuration; `None` if no servers are configured.
    ///
    /// # Errors
    /// When the secret file cannot be read.
    pub fn new(turn: &config::Turn) -> Result<Option<Self>, ConfigError> {
        let secret = match (&turn.secret, &turn.secret_file) {
            _ if turn.urls.is_empty() => return Ok(None),
            (Some(secret), _) => secret.clone(),
            (None, Some(file)) => Secret::read(file, "turn.secret_file")?,
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { urls: turn.urls.clone(), secret, ttl: Duration::from_secs(turn.ttl_s) }))
    }

    /// Returns the servers with a session's credentials, in the format of
    /// `RTCConfiguration.iceServers`. They are valid for `turn.ttl_s`, at most for the session's
    /// remaining time.
    pub fn ice_servers(&self, session: SessionId, now: SystemTime, time_left: Option<Duration>) -> Value {
        let valid = time_left.map_or(self.ttl, |left| left.min(self.ttl));
        let expiry = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + valid;
        let username = format!("{}:{session}", expiry.as_secs());
        let hash = hmac(MessageDigest::sha1(), self.secret.reveal().as_bytes(), username.as_bytes());
        let credential = hash.map(|hash| encode_block(&hash)).unwrap_or_default();
        json!([{"urls": self.urls, "username": username, "credential": credential}])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        let turn: config::Turn = serde_json::from_value(json!({"urls": ["turn:turn.example:3478"], "secret": "north"})).unwrap();
        Turn::new(&turn).unwrap().unwrap()
    }

    /// The expected value is the output of `printf %s 1700003600:00000000000000ab | openssl dgst
    /// -sha1 -hmac north -binary | base64`.
    #[test]
    fn credentials_are_those_that_coturn_calculates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let servers = turn().ice_servers(SessionId(0xab), now, None);
        assert_eq!(servers[0]["urls"], json!(["turn:turn.example:3478"]));
        assert_eq!(servers[0]["username"], "1700003600:00000000000000ab");
        assert_eq!(servers[0]["credential"], "g51kCUalFQ+9eFcceYA/BQqMaTs=");
        let short = turn().ice_servers(SessionId(0xab), now, Some(Duration::from_secs(10)));
        assert_eq!(short[0]["username"], "1700000010:00000000000000ab", "not longer than the token");
    }

    #[test]
    fn without_servers_there_is_none() {
        assert!(Turn::new(&config::Turn::default()).unwrap().is_none());
        let missing: config::Turn = serde_json::from_value(json!({"urls": ["turn:h"], "secret_file": "/no/such/file"})).unwrap();
        assert!(Turn::new(&missing).err().unwrap().to_string().contains("turn.secret_file /no/such/file"));
    }
}
