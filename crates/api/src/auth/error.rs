//! Errors in the configuration of authentication.

use ooblex_config::ConfigError;

/// An authentication configuration that cannot be used. The message names the option and the
/// remedy.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Other machines can reach the gateway, but `auth.mode` is not set.
    #[error(
        "serve.listen = {0} can be reached from other machines, and auth.mode is not set: choose who may use the gateway with auth.mode (or \
         OOBLEX_AUTH__MODE) = \"keys\" (keys that `ooblex token key` makes), \"jwt\" (signed tokens), \"hook\" (a server of yours decides), or \
         \"none\" (everybody who reaches this address may send a camera)"
    )]
    Undecided(std::net::SocketAddr),
    /// The keys are missing or malformed.
    #[error("auth.keys: {0}")]
    Keys(String),
    /// The secret, the algorithms or the JWKS URL for JWTs cannot be used.
    #[error("auth.jwt: {0}")]
    Jwt(String),
    /// A secret file cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
