//! The secret of a session, which its owner shows to change or end it.

use std::sync::Arc;

use super::grant::Restrictions;
use super::keys::{self, Digest};

/// The secret of a session, which only the answer to its offer contains: `obs_` and 128 random bits.
#[derive(Clone)]
pub struct SessionSecret(String);

impl SessionSecret {
    pub(super) const PREFIX: &str = "obs_";
    const BYTES: usize = 16;

    /// A new one.
    pub fn random() -> Self {
        Self(Self::PREFIX.to_string() + &keys::random_hex::<{ Self::BYTES }>())
    }

    /// The secret itself, which belongs into the answer to the offer only.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The digest that the gateway keeps.
    pub(crate) fn digest(&self) -> Digest {
        keys::digest(&self.0)
    }
}

/// The secret of a session, and its restrictions.
pub struct SessionAccess {
    /// The digest of the session's secret.
    pub(crate) secret: Digest,
    /// The restrictions that every change of its effect must satisfy.
    pub(crate) restrictions: Arc<Restrictions>,
}

impl SessionAccess {
    /// The access to a session that is about to begin.
    pub fn new(secret: &SessionSecret, restrictions: Arc<Restrictions>) -> Self {
        Self { secret: secret.digest(), restrictions }
    }

    /// Tells whether a credential is the session's secret.
    pub(crate) fn belongs_to(&self, presented: &Digest) -> bool {
        keys::is_same(&self.secret, presented)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_sessions_are_told_apart_from_ids_and_keys() {
        let (one, other) = (SessionSecret::random(), SessionSecret::random());
        assert!(one.reveal().starts_with("obs_") && one.reveal().len() == 36 && one.reveal() != other.reveal());
        let access = SessionAccess::new(&one, Arc::default());
        assert!(access.belongs_to(&one.digest()) && !access.belongs_to(&other.digest()) && !access.belongs_to(&keys::digest("")));
    }
}
