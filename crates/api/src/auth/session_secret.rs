//! Session secret, with which the owner of a session changes or ends it.

use std::sync::Arc;

use super::keys::{self, Digest};
use ooblex_gateway::restrictions::Restrictions;

/// Secret of a session: `obs_` and 128 random bits as hexadecimal digits. Only the answer to the
/// offer contains it.
#[derive(Clone)]
pub struct SessionSecret(String);

impl SessionSecret {
    pub(super) const PREFIX: &str = "obs_";
    const BYTES: usize = 16;

    /// Generates a new secret.
    pub fn random() -> Self {
        Self(Self::PREFIX.to_string() + &keys::random_hex::<{ Self::BYTES }>())
    }

    /// Returns the secret as text, for the answer to the offer only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the digest that the gateway stores.
    pub fn digest(&self) -> Digest {
        keys::digest(&self.0)
    }
}

/// Access data of a session: the digest of its secret, and its restrictions.
pub struct SessionAccess {
    /// Digest of the session's secret.
    pub secret: Digest,
    /// Restrictions that every change of the session's effect must satisfy.
    pub restrictions: Arc<Restrictions>,
}

impl SessionAccess {
    /// Builds the access data of a new session.
    pub fn new(secret: &SessionSecret, restrictions: Arc<Restrictions>) -> Self {
        Self { secret: secret.digest(), restrictions }
    }

    /// Returns whether a presented credential is the session's secret.
    pub fn belongs_to(&self, presented: &Digest) -> bool {
        keys::is_same(&self.secret, presented)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_sessions_are_distinguished_from_ids_and_keys() {
        let (one, other) = (SessionSecret::random(), SessionSecret::random());
        assert!(one.reveal().starts_with("obs_") && one.reveal().len() == 36 && one.reveal() != other.reveal());
        let access = SessionAccess::new(&one, Arc::default());
        assert!(access.belongs_to(&one.digest()) && !access.belongs_to(&other.digest()) && !access.belongs_to(&keys::digest("")));
    }
}
