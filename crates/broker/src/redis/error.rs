//! Errors of the connection to Redis. Each has a kind, which is counted, and a message with its
//! remedy. No password gets in here.

use std::io;
use std::path::PathBuf;

use redis::ServerError;
use rustls::AlertDescription;

/// The broker cannot be created, and waiting would not change that.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// A file with certificates or a key cannot be used.
    #[error("broker.{option} {path} cannot be used ({reason}): {remedy}")]
    File {
        /// Configuration option that names the file.
        option: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// Reason why the file cannot be used.
        reason: String,
        /// Remedy for the operator.
        remedy: &'static str,
    },
    /// The TLS client could not be configured.
    #[error("the connection to Redis cannot be set up: {0}")]
    Setup(String),
    /// Redis is reachable and refuses access.
    #[error("{0}")]
    Denied(String),
}

/// Kinds of errors that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The connection could not be made, or broke.
    Unreachable,
    /// Access is denied: a wrong password, a user without the permission, or a certificate that is
    /// not trusted.
    Denied,
    /// Redis has no memory left.
    Full,
    /// Redis accepts no writes now: it is a replica, loads its data, or has lost its master.
    NotReady,
    /// Redis contains bytes that are not of Ooblex, or not of this version.
    Malformed,
    /// A result does not carry the nonce of its job, so its sender did not get the job.
    Forged,
    /// Redis answered with another error.
    Other,
}

impl ErrorKind {
    pub(crate) const ALL: [ErrorKind; 7] = [
        ErrorKind::Unreachable,
        ErrorKind::Denied,
        ErrorKind::Full,
        ErrorKind::NotReady,
        ErrorKind::Malformed,
        ErrorKind::Forged,
        ErrorKind::Other,
    ];

    /// Returns the label in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::Denied => "denied",
            ErrorKind::Full => "full",
            ErrorKind::NotReady => "not_ready",
            ErrorKind::Malformed => "malformed",
            ErrorKind::Forged => "forged",
            ErrorKind::Other => "other",
        }
    }

    /// Returns a message for the public. It names no host, no user and no path.
    pub(crate) fn in_public(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "Redis cannot be reached; the operator finds the cause in the gateway's log",
            ErrorKind::Denied => "Redis refuses the gateway; the operator finds the cause in the gateway's log",
            ErrorKind::Full => "Redis is full; the operator finds the cause in the gateway's log",
            ErrorKind::NotReady => "Redis takes no writes now; the operator finds the cause in the gateway's log",
            ErrorKind::Malformed | ErrorKind::Forged | ErrorKind::Other => {
                "Redis does not do what Ooblex needs; the operator finds the cause in the gateway's log"
            }
        }
    }
}

/// Failure of a connection to Redis, or of a command.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// Message that names the address and the remedy.
    pub(super) sentence: String,
}

impl Fault {
    /// Converts an error answer of Redis. `address` must contain no secrets.
    pub(super) fn server(address: &str, error: &ServerError) -> Self {
        let (code, said) = (error.code(), error.details().unwrap_or_default());
        // Redis 6 wraps errors of a script's commands in an error of the script.
        let is = |wanted: &str| code == wanted || (code == "ERR" && said.contains(&format!("-{wanted} ")));
        let not_ready = ["READONLY", "MASTERDOWN", "LOADING", "MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED"];
        let (kind, sentence) = if is("WRONGPASS") || is("NOAUTH") || said.contains("without any password configured") {
            (
                ErrorKind::Denied,
                format!(
                    "Redis at {address} refuses the user or the password ({said}): correct them in broker.url, where special characters \
                     must be percent-encoded, or in broker.password_file"
                ),
            )
        } else if is("NOPERM") || said.contains("executing the script can't") {
            (
                ErrorKind::Denied,
                format!(
                    "Redis at {address} does not let this user do what Ooblex needs ({said}): docs/scaling.md has the rules for its ACL"
                ),
            )
        } else if is("OOM") {
            (ErrorKind::Full, format!("Redis at {address} is full: raise its maxmemory, or take from it what is not Ooblex's"))
        } else if let Some(code) = not_ready.into_iter().find(|code| is(code)) {
            (
                ErrorKind::NotReady,
                format!(
                    "Redis at {address} takes no writes now ({code} {said}): broker.url must lead to a master that has loaded its data; \
                     with Sentinel, name the Sentinels as redis+sentinel://"
                ),
            )
        } else if said.contains("unknown command") {
            (ErrorKind::Other, format!("Redis at {address} is too old ({said}): Ooblex needs Redis 6.2 or newer"))
        } else {
            (ErrorKind::Other, format!("Redis at {address} answers with an error: {code} {said}"))
        };
        Self { kind, sentence }
    }

    /// Converts the I/O error because of which a connection could not be made, or broke.
    pub(super) fn io(address: &str, error: &io::Error) -> Self {
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Self::tls(address, tls);
        }
        let unreachable = |sentence| Self { kind: ErrorKind::Unreachable, sentence };
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                unreachable(format!("Redis at {address} does not answer: see whether it runs and is not overloaded"))
            }
            _ => unreachable(format!(
                "Redis at {address} cannot be reached ({error}): see that it runs there and that no firewall is between"
            )),
        }
    }

    fn tls(address: &str, error: &rustls::Error) -> Self {
        use AlertDescription as Alert;
        let (kind, sentence) = match error {
            rustls::Error::InvalidCertificate(_) => (
                ErrorKind::Denied,
                format!(
                    "the certificate of Redis at {address} is not trusted ({error}): name the authority that signed it by broker.ca_file"
                ),
            ),
            rustls::Error::AlertReceived(Alert::CertificateRequired) => (
                ErrorKind::Denied,
                format!(
                    "Redis at {address} wants a client certificate: name one that its authority has signed by broker.client_certificate, \
                     and its key by broker.client_key"
                ),
            ),
            rustls::Error::AlertReceived(
                Alert::HandshakeFailure
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError,
            ) => (
                ErrorKind::Denied,
                format!(
                    "Redis at {address} refuses our side of TLS ({error}): see that broker.client_certificate and broker.client_key are \
                     valid now and signed by the authority that Redis trusts"
                ),
            ),
            _ => (
                ErrorKind::Unreachable,
                format!(
                    "Redis at {address} does not speak TLS as it should ({error}): see that the port is its tls-port, or write redis://"
                ),
            ),
        };
        Self { kind, sentence }
    }

    /// Reports an answer that is longer than any value of Ooblex.
    pub(super) fn too_long(address: &str, most: usize) -> Self {
        let sentence = format!("something in Redis at {address} has more than {most} bytes, which nothing of Ooblex has: it is not read");
        Self { kind: ErrorKind::Malformed, sentence }
    }

    /// Reports any other failure.
    pub(super) fn other(address: &str, what: &str) -> Self {
        Self { kind: ErrorKind::Other, sentence: format!("Redis at {address} does not do what is needed: {what}") }
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::*;

    fn said(line: &str) -> Fault {
        let answer = redis::Parser::new().parse_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let Value::ServerError(error) = answer else { panic!("{answer:?}") };
        Fault::server("redis://here:6379/0", &error)
    }

    #[test]
    fn answers_are_distinguished_with_address_and_remedy() {
        for (line, kind, word) in [
            ("READONLY You can't write against a read only replica.", ErrorKind::NotReady, "master"),
            ("ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write", ErrorKind::NotReady, "master"),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", ErrorKind::NotReady, "master"),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::NotReady, "loaded"),
            ("UNBLOCKED force unblock from blocking operation", ErrorKind::NotReady, "master"),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Full, "maxmemory"),
            ("WRONGPASS invalid username-password pair or user is disabled.", ErrorKind::Denied, "percent-encoded"),
            ("ERR AUTH <password> called without any password configured for the default user.", ErrorKind::Denied, "password"),
            ("NOAUTH Authentication required.", ErrorKind::Denied, "broker.password_file"),
            ("NOPERM this user has no permissions to run the 'set' command", ErrorKind::Denied, "docs/scaling.md"),
            ("ERR The user executing the script can't run this command or subcommand script: f", ErrorKind::Denied, "docs/scaling.md"),
            ("ERR unknown command 'GETDEL'", ErrorKind::Other, "too old"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorKind::Other, "WRONGTYPE"),
        ] {
            let fault = said(line);
            assert_eq!(fault.kind, kind, "{line}: {fault:?}");
            assert!(fault.sentence.contains(word) && fault.sentence.contains("here:6379"), "{line}: {fault:?}");
        }
    }

    #[test]
    fn a_missing_client_certificate_is_not_a_firewall() {
        let alert = |alert| io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
        let fault = Fault::io("rediss://here:6379/0", &alert(AlertDescription::CertificateRequired));
        assert_eq!(fault.kind, ErrorKind::Denied);
        assert!(fault.sentence.contains("broker.client_certificate") && fault.sentence.contains("broker.client_key"), "{fault:?}");
        assert!(!fault.sentence.contains("firewall"), "{fault:?}");
        let fault = Fault::io("rediss://here:6379/0", &alert(AlertDescription::UnknownCA));
        assert!(fault.kind == ErrorKind::Denied && fault.sentence.contains("broker.client_certificate"), "{fault:?}");
    }

    #[test]
    fn callers_without_permission_are_told_only_the_kind() {
        for kind in ErrorKind::ALL {
            let said = kind.in_public();
            assert!(said.contains("Redis") && !said.contains("://") && !said.contains("broker."), "{said}");
        }
    }
}
