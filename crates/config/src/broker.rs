//! `[broker]`: the broker between gateway and workers, and its secrets.
//!
//! This module creates the options of [`ooblex_broker`]. The password is never shown: not by
//! `Debug`, and not by `ooblex check --print`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ooblex_broker::{ClientCertificate, Identity, RedisOptions, RedisUrl, UrlError};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::words::{parsed, shown};

/// `[broker]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Broker {
    /// Address of the broker.
    #[serde(serialize_with = "shown", deserialize_with = "parsed")]
    pub url: BrokerUrl,
    /// Prefix of the names of all Redis keys.
    pub prefix: String,
    /// With `rediss://`, PEM file of the authority that signed the certificate of Redis. If not
    /// set, the authorities that the system trusts are used.
    pub ca_file: Option<PathBuf>,
    /// With `rediss://`, PEM file of the client certificate. If not set, none is presented.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of the client certificate's private key.
    pub client_key: Option<PathBuf>,
    /// File with the password. If not set, the password is part of the address, or there is none.
    pub password_file: Option<PathBuf>,
}

/// Address of the broker.
#[derive(Debug, Clone, PartialEq)]
pub enum BrokerUrl {
    /// The broker within this process.
    Local,
    /// A Redis server that several processes or machines share.
    Redis(Box<RedisUrl>),
}

/// Error for a text that is not the address of a broker.
#[derive(Debug, thiserror::Error)]
#[error("{0}; or \"local\", which stays within one process")]
pub struct BrokerUrlError(#[from] UrlError);

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: BrokerUrl::Local,
            prefix: "ooblex:".into(),
            ca_file: None,
            client_certificate: None,
            client_key: None,
            password_file: None,
        }
    }
}

impl FromStr for BrokerUrl {
    type Err = BrokerUrlError;

    fn from_str(text: &str) -> Result<Self, BrokerUrlError> {
        match text {
            "local" => Ok(BrokerUrl::Local),
            address => Ok(BrokerUrl::Redis(Box::new(address.parse()?))),
        }
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BrokerUrl::Local => f.write_str("local"),
            BrokerUrl::Redis(url) => url.fmt(f),
        }
    }
}

impl Broker {
    /// Returns whether workers can run in other processes.
    pub fn is_shared(&self) -> bool {
        self.url != BrokerUrl::Local
    }

    /// Returns the options of the Redis broker; `None` for the local broker. Reads the password
    /// file.
    ///
    /// # Errors
    /// Returns an error if the password file cannot be read, or if it is empty.
    pub fn redis_options(&self, identity: Identity) -> Result<Option<RedisOptions>, ConfigError> {
        let BrokerUrl::Redis(url) = self.url.clone() else { return Ok(None) };
        let url = match &self.password_file {
            Some(file) => url.with_password(&password(file)?),
            None => *url,
        };
        let client_certificate = self.client_certificate.clone().zip(self.client_key.clone());
        let client_certificate = client_certificate.map(|(certificate, key)| ClientCertificate { certificate, key });
        Ok(Some(RedisOptions { url, prefix: self.prefix.clone(), ca_file: self.ca_file.clone(), client_certificate, identity }))
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let senseless = |what: String| Err(ConfigError::Senseless(what));
        let bad = |c: char| c.is_whitespace() || c.is_control() || "*?[]\\\"'".contains(c);
        if self.prefix.is_empty() || self.prefix.len() > 100 || self.prefix.contains(bad) {
            return senseless(format!(
                "broker.prefix {:?} cannot begin the names of keys: write 1 to 100 characters without blanks, quotes, backslashes and any \
                 of * ? [ ], such as \"ooblex:\"",
                self.prefix
            ));
        }
        let is_tls = matches!(&self.url, BrokerUrl::Redis(url) if url.is_tls());
        if self.ca_file.is_some() && !is_tls {
            return senseless(format!(
                "broker.ca_file is for rediss:// only, and broker.url is {}: write the address with rediss://, or leave broker.ca_file away",
                self.url
            ));
        }
        let [missing, given] = match (&self.client_certificate, &self.client_key) {
            (Some(_), None) => ["client_key", "client_certificate"],
            (None, Some(_)) => ["client_certificate", "client_key"],
            (Some(_), Some(_)) if !is_tls => {
                return senseless(format!(
                    "broker.client_certificate and broker.client_key are for rediss:// only, and broker.url is {}: write the address with \
                     rediss://, or leave both away",
                    self.url
                ));
            }
            _ => [""; 2],
        };
        if !missing.is_empty() {
            return senseless(format!(
                "broker.{given} is set and broker.{missing} is not: a client certificate needs its key, so set both, or leave both away"
            ));
        }
        if self.password_file.is_some() && !self.is_shared() {
            return senseless(
                "broker.password_file is for a Redis only, and broker.url is local: name the Redis in broker.url, or leave \
                 broker.password_file away"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Reads the password from a file, without the line ending.
fn password(file: &Path) -> Result<String, ConfigError> {
    let refused = |reason: String| ConfigError::PasswordFile { path: file.into(), reason };
    let text = std::fs::read_to_string(file).map_err(|error| refused(format!("cannot be read ({error})")))?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() { Err(refused("is empty".into())) } else { Ok(password.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_the_line_is_no_part_of_the_password() {
        let file = std::env::temp_dir().join(format!("ooblex-password-{}", std::process::id()));
        for (content, expected) in [("pass word", "pass word"), ("secret\n", "secret"), ("secret\r\n", "secret"), ("two\n\n", "two\n")] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(password(&file).unwrap(), expected);
        }
        for empty in ["", "\n", "\r\n"] {
            std::fs::write(&file, empty).unwrap();
            assert!(password(&file).unwrap_err().to_string().contains("is empty"));
        }
        std::fs::remove_file(&file).unwrap();
        assert!(password(&file).unwrap_err().to_string().contains("cannot be read"));
    }
}
