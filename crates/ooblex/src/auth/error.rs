//! The errors of the configuration of access.

use crate::config::ConfigError;

/// The configuration does not let the gateway judge callers. The message names the option and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The gateway would be open to others than this machine, and nobody has said who may use it.
    #[error(
        "serve.listen = {0} can be reached from other machines, and auth.mode is not set: choose who may use the gateway with auth.mode (or \
         OOBLEX_AUTH__MODE) = \"keys\" (keys that `ooblex token key` makes), \"jwt\" (signed tokens), \"hook\" (a server of yours decides), or \
         \"none\" (everybody who reaches this address may send a camera)"
    )]
    Undecided(std::net::SocketAddr),
    /// Something is wrong with the keys.
    #[error("auth.keys: {0}")]
    Keys(String),
    /// Something is wrong with what tokens are verified with.
    #[error("auth.jwt: {0}")]
    Jwt(String),
    /// A secret cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
