//! Time-limited credentials for TURN servers: a user name with its expiry and an HMAC of it,
//! compatible with coturn's `use-auth-secret` (draft-uberti-behave-turn-rest). Each session gets
//! them in the answer to its offer. The user name identifies the client's address, so that the
//! quota of a user on the TURN server holds for all sessions of an address together.

use std::time::{Duration, SystemTime};

use openssl::base64::encode_block;
use openssl::hash::MessageDigest;
use serde_json::{Value, json};

use crate::auth::hmac;
use crate::visitor::Visitor;
use ooblex_config::{self as config, ConfigError, Secret};

/// Length of the hash of the client's address in a user name, in bytes.
const USER_BYTES: usize = 8;

/// Creates credentials for the configured TURN servers.
pub struct Turn {
    urls: Vec<String>,
    secret: Secret,
    ttl: Duration,
}

/// The credentials of a client for the servers.
struct Credentials {
    username: String,
    credential: String,
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

    /// Returns the servers with the credentials of a client, in the format of
    /// `RTCConfiguration.iceServers`. They are valid for `turn.ttl_s`, at most for the session's
    /// remaining time.
    pub fn ice_servers(&self, visitor: Visitor, now: SystemTime, time_left: Option<Duration>) -> Value {
        let Credentials { username, credential } = self.credentials(visitor, now, time_left);
        json!([{"urls": self.urls, "username": username, "credential": credential}])
    }

    /// Returns the servers with the credentials of a client as values of the header `Link` (RFC 9725).
    pub fn links(&self, visitor: Visitor, now: SystemTime, time_left: Option<Duration>) -> Vec<String> {
        let Credentials { username, credential } = self.credentials(visitor, now, time_left);
        let link = |url| {
            format!("<{url}>; rel=\"ice-server\"; username=\"{username}\"; credential=\"{credential}\"; credential-type=\"password\"")
        };
        self.urls.iter().map(link).collect()
    }

    fn credentials(&self, visitor: Visitor, now: SystemTime, time_left: Option<Duration>) -> Credentials {
        let valid = time_left.map_or(self.ttl, |left| left.min(self.ttl));
        let expiry = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + valid;
        let username = format!("{}:{}", expiry.as_secs(), self.user(visitor));
        let hash = hmac(MessageDigest::sha1(), self.secret.reveal().as_bytes(), username.as_bytes());
        Credentials { username, credential: hash.map(|hash| encode_block(&hash)).unwrap_or_default() }
    }

    /// Returns the name of a client: a keyed hash, so that user names reveal no addresses.
    fn user(&self, visitor: Visitor) -> String {
        let message = format!("visitor {visitor}");
        let hash = hmac(MessageDigest::sha256(), self.secret.reveal().as_bytes(), message.as_bytes()).unwrap_or_default();
        hash.iter().take(USER_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn() -> Turn {
        let turn: config::Turn = serde_json::from_value(json!({"urls": ["turn:turn.example:3478"], "secret": "north"})).unwrap();
        Turn::new(&turn).unwrap().unwrap()
    }

    fn visitor(address: &str) -> Visitor {
        Visitor::at(address.parse().unwrap())
    }

    /// The user is the beginning of `printf %s 'visitor 192.0.2.7' | openssl dgst -sha256 -hmac
    /// north`, and the credential is `printf %s 1700003600:USER | openssl dgst -sha1 -hmac north
    /// -binary | base64`.
    #[test]
    fn credentials_are_those_that_coturn_calculates() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let servers = turn().ice_servers(visitor("192.0.2.7"), now, None);
        assert_eq!(servers[0]["urls"], json!(["turn:turn.example:3478"]));
        assert_eq!(servers[0]["username"], "1700003600:f843e8a3a6953ce3");
        assert_eq!(servers[0]["credential"], "M0LDzsel+WJ0TLIE0rbyKWasxlA=");
        let short = turn().ice_servers(visitor("192.0.2.7"), now, Some(Duration::from_secs(10)));
        assert_eq!(short[0]["username"], "1700000010:f843e8a3a6953ce3", "not longer than the token");
    }

    #[test]
    fn sessions_of_one_address_are_one_user() {
        let turn = turn();
        let user = |address, seconds| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            let servers = turn.ice_servers(visitor(address), now, None);
            servers[0]["username"].as_str().unwrap().split_once(':').unwrap().1.to_string()
        };
        assert_eq!(user("192.0.2.7", 0), user("192.0.2.7", 60));
        assert_ne!(user("192.0.2.7", 0), user("192.0.2.8", 0));
        assert_eq!(user("2001:db8::1", 0), user("2001:db8::2", 0), "a /64 network");
    }

    #[test]
    fn without_servers_there_is_none() {
        assert!(Turn::new(&config::Turn::default()).unwrap().is_none());
        let missing: config::Turn = serde_json::from_value(json!({"urls": ["turn:h"], "secret_file": "/no/such/file"})).unwrap();
        assert!(Turn::new(&missing).err().unwrap().to_string().contains("turn.secret_file /no/such/file"));
    }
}
