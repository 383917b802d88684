//! What goes wrong between us and Redis, in words with a mend and in counters. No address with a password comes in here.

use std::path::PathBuf;

use redis::{RedisError as ClientError, ServerErrorKind};

/// A broker that can not be made: waiting would not mend it.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The certificate to check Redis by can not be read.
    #[error("broker.ca_file {path} can not be read ({reason}): name the PEM file of the authority that signed the certificate of Redis")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: std::io::Error,
    },
    /// The address and the certificates do not make a client.
    #[error("the connection to Redis can not be set up: {0}")]
    Setup(String),
    /// Redis is there and refuses us.
    #[error("{0}")]
    Denied(String),
}

/// The kinds of errors that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// No connection, or one that broke.
    Unreachable,
    /// Wrong password, a user without the right, or a certificate that is not trusted.
    Denied,
    /// No memory left in Redis.
    Full,
    /// Bytes in Redis that are not ours, or not of our version.
    Malformed,
    /// Redis answered with another error.
    Other,
}

impl ErrorKind {
    pub(crate) const ALL: [ErrorKind; 5] =
        [ErrorKind::Unreachable, ErrorKind::Denied, ErrorKind::Full, ErrorKind::Malformed, ErrorKind::Other];

    /// The label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Denied => "denied",
            ErrorKind::Full => "full",
            ErrorKind::Malformed => "malformed",
            ErrorKind::Other => "other",
        }
    }
}

/// Something that Redis did not do for us.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// What happened, where, and the mend.
    pub(super) sentence: String,
}

impl Fault {
    /// What an error of the client means. `address`: of Redis, without secrets.
    pub(super) fn new(address: &str, error: &ClientError) -> Self {
        let said = error.detail().map_or_else(|| error.to_string(), str::to_string);
        let code = error.code().unwrap_or_default();
        let (kind, sentence) = match error.kind() {
            redis::ErrorKind::AuthenticationFailed => (ErrorKind::Denied, denied(address, &said)),
            redis::ErrorKind::Server(ServerErrorKind::NoPerm) => (
                ErrorKind::Denied,
                format!(
                    "Redis at {address} does not let this user do what Ooblex needs ({said}): docs/scaling.md has the rule for its ACL"
                ),
            ),
            _ if matches!(code, "WRONGPASS" | "NOAUTH") => (ErrorKind::Denied, denied(address, &said)),
            _ if code == "OOM" => {
                (ErrorKind::Full, format!("Redis at {address} is full: raise its maxmemory, or take from it what is not Ooblex's"))
            }
            _ if said.contains("unknown command") => {
                (ErrorKind::Other, format!("Redis at {address} is too old ({said}): Ooblex needs Redis 6.2 or newer"))
            }
            _ if said.contains("certificate") => (
                ErrorKind::Denied,
                format!(
                    "the certificate of Redis at {address} is not trusted ({said}): name the authority that signed it by broker.ca_file"
                ),
            ),
            _ if error.is_timeout() => {
                (ErrorKind::Unreachable, format!("Redis at {address} does not answer: see whether it runs and is not overloaded"))
            }
            redis::ErrorKind::Io => (
                ErrorKind::Unreachable,
                format!("Redis at {address} can not be reached ({error}): see that it runs there and that no firewall is between"),
            ),
            _ => (ErrorKind::Other, format!("Redis at {address} answers with an error: {error}")),
        };
        Self { kind, sentence }
    }
}

fn denied(address: &str, said: &str) -> String {
    format!("Redis at {address} refuses the user or the password ({said}): mend them in broker.url or broker.password_file")
}
