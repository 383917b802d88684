//! Messages of webhooks, in the format and with the signature of Standard Webhooks.

use std::time::SystemTime;

use openssl::base64::{decode_block, encode_block};
use openssl::hash::MessageDigest;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::auth::hmac;
use ooblex_config::{ConfigError, Secret};

/// Beginning of a secret, before its Base64.
const SECRET_PREFIX: &str = "whsec_";
/// Sizes of a secret in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A message. Its id stays the same when it is sent again.
pub(super) struct Message {
    pub(super) id: String,
    kind: &'static str,
    at: SystemTime,
    pub(super) data: Value,
}

/// The key of signatures.
pub(super) struct Key(Vec<u8>);

impl Message {
    /// Makes a message of something that happens now.
    pub(super) fn new(kind: &'static str, data: Value) -> Self {
        Self { id: format!("msg_{:032x}", rand::random::<u128>()), kind, at: SystemTime::now(), data }
    }

    /// Returns the JSON to send.
    pub(super) fn body(&self) -> String {
        json!({"type": self.kind, "timestamp": rfc3339(self.at), "data": self.data}).to_string()
    }
}

impl Key {
    /// Reads a secret: `whsec_` and Base64.
    ///
    /// # Errors
    /// When it has another format or size.
    pub(super) fn new(secret: &Secret) -> Result<Self, ConfigError> {
        let encoded = secret.reveal().strip_prefix(SECRET_PREFIX);
        let key = encoded.and_then(|encoded| decode_block(encoded).ok()).filter(|key| SECRET_BYTES.contains(&key.len()));
        key.map(Self).ok_or_else(|| {
            let detail = "webhooks: a secret is whsec_ and the Base64 of 24 to 64 random bytes: make one with `echo whsec_$(openssl rand -base64 32)`";
            ConfigError::Senseless(detail.into())
        })
    }

    /// Returns the value of `webhook-signature`: the HMAC of id, time (in seconds) and body.
    pub(super) fn sign(&self, id: &str, seconds: u64, body: &str) -> String {
        let signature = hmac(MessageDigest::sha256(), &self.0, format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", signature.map(|signature| encode_block(&signature)).unwrap_or_default())
    }
}

/// Returns a time as in RFC 3339, in UTC, to the millisecond.
fn rfc3339(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at);
    let at = at.replace_millisecond(at.millisecond()).unwrap_or(at);
    // The format has no place for years of five digits only.
    at.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(secret: &str) -> Result<Key, ConfigError> {
        Key::new(&Secret::new(secret).unwrap())
    }

    #[test]
    fn signature_is_that_of_the_example_of_standard_webhooks() {
        let signature = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secret_of_another_format_is_refused_and_not_shown() {
        for wrong in ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8G", "whsec_!!", "whsec_", &format!("whsec_{}", "AAAA".repeat(22))] {
            let said = key(wrong).err().unwrap().to_string();
            assert!(said.contains("openssl rand") && !said.contains("MfKQ"), "{said}");
        }
    }

    #[test]
    fn times_are_in_utc_to_the_millisecond() {
        let at = |seconds: u64, us: u64| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(us));
        assert_eq!(at(0, 0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696, 7_900), "2000-02-29T12:34:56.007Z");
    }

    #[test]
    fn message_has_its_type_its_time_and_an_id_of_its_own() {
        let message = Message::new("room.started", json!({"room": "studio"}));
        let body: Value = serde_json::from_str(&message.body()).unwrap();
        assert_eq!((&body["type"], &body["data"]), (&json!("room.started"), &json!({"room": "studio"})));
        assert!(body["timestamp"].as_str().unwrap().ends_with('Z') && message.id != Message::new("room.started", json!(null)).id);
    }
}
