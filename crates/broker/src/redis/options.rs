//! Options of a connection to Redis.

use std::path::PathBuf;

use super::url::RedisUrl;

/// Address of the Redis, and identity of this process.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// Address of the Redis, with user and password.
    pub url: RedisUrl,
    /// Prefix of the names of all keys and channels of Ooblex.
    pub prefix: String,
    /// PEM file of the certificate authority to trust with `rediss://`, in place of those of the
    /// system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate for `rediss://`, if Redis requires one.
    pub client_certificate: Option<ClientCertificate>,
    /// Identity of this process, which it announces to the others.
    pub identity: Identity,
}

/// Certificate and key for a Redis that requires client certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the certificate, followed by the chain to its authority.
    pub certificate: PathBuf,
    /// PEM file of the private key, not encrypted.
    pub key: PathBuf,
}

/// Identity that a process announces to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of the machine that the process runs on.
    pub host: String,
    /// Version of the program.
    pub version: String,
    /// Device that its models run on.
    pub device: String,
}
