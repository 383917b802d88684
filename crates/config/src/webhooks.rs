//! `[[webhooks]]`: servers that are told when rooms and sessions begin and end.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::auth::{HttpUrl, Secret};

/// Largest number of webhooks.
const MAX_WEBHOOKS: usize = 4;

/// `[[webhooks]]`: a server that is told when rooms and sessions begin and end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// URL to which requests are sent.
    pub url: HttpUrl,
    /// Secret of the signatures.
    pub secret: Option<Secret>,
    /// File with the secret.
    pub secret_file: Option<PathBuf>,
    /// Environment variable with the secret.
    pub secret_variable: Option<String>,
    /// Timeout of a request, in ms.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_timeout_ms() -> u64 {
    5000
}

impl Webhook {
    /// Returns the secret.
    ///
    /// # Errors
    /// When there is none, or its file or its environment variable cannot be read.
    pub fn secret(&self) -> Result<Secret, ConfigError> {
        let options = ["webhooks.secret_file", "webhooks.secret_variable"];
        let secret = Secret::find(self.secret.as_ref(), self.secret_file.as_deref(), self.secret_variable.as_deref(), options)?;
        secret.ok_or_else(|| self.senseless("needs a secret"))
    }

    pub(super) fn check(webhooks: &[Self]) -> Result<(), ConfigError> {
        for webhook in webhooks {
            let secrets = [webhook.secret.is_some(), webhook.secret_file.is_some(), webhook.secret_variable.is_some()];
            if secrets.iter().filter(|is_set| **is_set).count() != 1 {
                return Err(webhook.senseless("needs exactly one of secret, secret_file and secret_variable"));
            }
            if !(50..=60_000).contains(&webhook.timeout_ms) {
                return Err(webhook.senseless("needs a timeout_ms from 50 to 60000"));
            }
        }
        if webhooks.len() > MAX_WEBHOOKS {
            return Err(ConfigError::Senseless(format!("webhooks must be at most {MAX_WEBHOOKS}")));
        }
        Ok(())
    }

    fn senseless(&self, what: &str) -> ConfigError {
        ConfigError::Senseless(format!("webhooks: {} {what}", self.url))
    }
}
