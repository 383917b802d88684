//! Authentication and permissions: callers authenticate by keys, by tokens or through a hook, and a session belongs to the holder of its secret.
//!
//! [`Authenticator`] turns the credential of a request into a [`Caller`]; [`access`] says what each route needs and stands before all of
//! them. What a caller may do is a [`Grant`]; the part that its session keeps are the [`Restrictions`]. No credential is ever logged, and
//! none is compared in a time that depends on it.

pub mod access;
mod crypto;
mod grant;
mod hook;
mod jwks;
pub mod jwt;
pub mod keys;
mod outgoing;
mod throttle;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tracing::debug;

pub use self::grant::{Allowed, Grant, Restrictions, Rooms};
pub(crate) use crypto::hmac;
use hook::{Action, Hook, Question};
use jwt::Tokens;
use keys::{Digest, Keys};
use throttle::Throttle;

use crate::config::{self, Config, ConfigError, Mode};
use crate::session::SessionId;
use crate::visitor::Visitor;

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

/// Why a caller gets nothing. It is what metrics count, and what the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It shows no credential.
    Missing,
    /// Its credential is no key that is known, or is signed with none that is known.
    UnknownKey,
    /// Its token is not signed by whom it should be, or cannot be read.
    BadToken,
    /// Its token has expired.
    Expired,
    /// Its token is for somebody else, not valid yet, or lacks what it must have.
    WrongClaims,
    /// The hook says no.
    HookRefused,
    /// The secret is not that of the session.
    WrongSession,
    /// It is known, and may not do this.
    NotAllowed,
    /// It has failed too often.
    Throttled,
    /// The hook or the public keys cannot be reached.
    Unavailable,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 10] = [
        Reason::Missing,
        Reason::UnknownKey,
        Reason::BadToken,
        Reason::Expired,
        Reason::WrongClaims,
        Reason::HookRefused,
        Reason::WrongSession,
        Reason::NotAllowed,
        Reason::Throttled,
        Reason::Unavailable,
    ];

    /// The label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::UnknownKey => "unknown_key",
            Reason::BadToken => "bad_token",
            Reason::Expired => "expired",
            Reason::WrongClaims => "wrong_claims",
            Reason::HookRefused => "hook_refused",
            Reason::WrongSession => "wrong_session",
            Reason::NotAllowed => "not_allowed",
            Reason::Throttled => "throttled",
            Reason::Unavailable => "unavailable",
        }
    }

    /// Tells whether it could have been an attempt to guess a credential. An expired token was right once.
    fn is_attempt(self) -> bool {
        matches!(self, Reason::UnknownKey | Reason::BadToken | Reason::HookRefused)
    }
}

/// The identity of a caller, as far as it is proved.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Anybody: the route is public, or `auth.mode` is `none`.
    Anyone,
    /// The operator, on this machine or through `serve.admin_listen`.
    Operator,
    /// The holder of the secret of this session.
    Session(SessionId),
    /// The holder of a key or token.
    Granted(Arc<Grant>),
}

/// The secret of a session, which only the answer to its offer contains: `obs_` and 128 random bits.
#[derive(Clone)]
pub struct SessionSecret(String);

impl SessionSecret {
    const PREFIX: &str = "obs_";
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

/// The credential that a request shows.
#[derive(Default)]
pub(crate) struct Credential {
    /// The token of `Authorization: Bearer`, or of `?token=`.
    token: Option<String>,
    /// The name of `Authorization: Basic`, for the hook.
    user: String,
    password: String,
}

impl Credential {
    fn is_there(&self) -> bool {
        self.token.is_some() || !self.user.is_empty() || !self.password.is_empty()
    }

    /// Tells whether it is a session's secret by its form.
    fn is_of_session(&self) -> bool {
        self.token.as_deref().is_some_and(|token| token.starts_with(SessionSecret::PREFIX))
    }
}

/// A question about a caller.
pub(crate) struct Claim<'a> {
    pub(crate) credential: &'a Credential,
    pub(crate) visitor: Visitor,
    pub(crate) address: IpAddr,
    action: Action,
    id: Option<&'a str>,
    query: &'a str,
}

/// Judges callers.
pub struct Authenticator {
    modes: Vec<Mode>,
    known: RwLock<Known>,
    hook: Option<Hook>,
    throttle: Mutex<Throttle>,
    /// The address of `serve.listen`.
    listen: IpAddr,
}

/// The credentials that this gateway knows by itself. They can be read again while it runs.
#[derive(Clone)]
struct Known {
    keys: Option<Arc<Keys>>,
    tokens: Option<Arc<Tokens>>,
}

impl Known {
    fn read(modes: &[Mode], auth: &config::Auth) -> Result<Self, AuthError> {
        let keys = modes.contains(&Mode::Keys).then(|| Keys::new(auth)).transpose()?;
        let tokens = modes.contains(&Mode::Jwt).then(|| Tokens::new(&auth.jwt)).transpose()?;
        Ok(Self { keys: keys.map(Arc::new), tokens: tokens.map(Arc::new) })
    }
}

/// The ways that are in force: those of `auth.mode`, or none while only this machine reaches the gateway.
fn modes(config: &Config) -> Result<Vec<Mode>, AuthError> {
    match &config.auth.mode {
        Some(modes) => Ok(modes.all().to_vec()),
        None if config.serve.listen.ip().is_loopback() => Ok(vec![Mode::None]),
        None => Err(AuthError::Undecided(config.serve.listen)),
    }
}

impl Authenticator {
    /// As the operator configures it.
    ///
    /// # Errors
    /// When `auth.mode` is not set and others reach the gateway, or when keys or secrets cannot be used.
    pub fn new(config: &Config) -> Result<Self, AuthError> {
        let modes = modes(config)?;
        let known = RwLock::new(Known::read(&modes, &config.auth)?);
        let hook = if modes.contains(&Mode::Hook) { Hook::new(&config.auth.hook) } else { None };
        Ok(Self { modes, known, hook, throttle: Mutex::default(), listen: config.serve.listen.ip() })
    }

    /// Reads keys and the secret of tokens again. Sessions that run are left alone.
    ///
    /// # Errors
    /// When they cannot be used; those before stay in force.
    pub fn reload(&self, auth: &config::Auth) -> Result<(), AuthError> {
        let read = Known::read(&self.modes, auth)?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // Public keys are fetched again as they are needed, and those that are known stay.
        let tokens = if known.tokens.as_ref().is_some_and(|tokens| tokens.jwks().is_some()) { known.tokens.clone() } else { read.tokens };
        *known = Known { keys: read.keys, tokens };
        Ok(())
    }

    fn known(&self) -> Known {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whether everybody may begin sessions.
    pub fn is_open(&self) -> bool {
        self.modes == [Mode::None]
    }

    /// Fetches the public keys of tokens, so that the first token need not wait for them.
    pub async fn warm_up(&self) {
        let tokens = self.known().tokens;
        if let Some(jwks) = tokens.as_ref().and_then(|tokens| tokens.jwks()) {
            jwks.refresh().await;
        }
    }

    /// In a few words, for `ooblex check`. Blocks while public keys are fetched.
    ///
    /// # Errors
    /// When public keys cannot be fetched.
    pub fn describe(&self) -> Result<String, String> {
        let known = self.known();
        let ways = self.modes.iter().map(|mode| match mode {
            Mode::None if self.listen.is_loopback() => Ok("nobody is asked for a key; only this machine reaches the gateway".to_string()),
            Mode::None => Ok("none: everybody who reaches serve.listen may send a camera".into()),
            Mode::Keys => Ok(format!("{} keys", known.keys.as_ref().map_or(0, |keys| keys.len()))),
            Mode::Jwt => match known.tokens.as_ref().and_then(|tokens| tokens.jwks()) {
                Some(jwks) => jwks
                    .fetch()
                    .map(|keys| format!("tokens, by {} public keys", keys.len()))
                    .map_err(|why| format!("auth.jwt.jwks_url: {why}")),
                None => Ok("tokens, by a shared secret".into()),
            },
            Mode::Hook => Ok("an HTTP hook".into()),
        });
        Ok(ways.collect::<Result<Vec<_>, _>>()?.join("; "))
    }

    /// The grant of a caller's credential.
    async fn grant(&self, claim: &Claim<'_>) -> Result<Grant, Reason> {
        let Claim { credential, visitor, .. } = claim;
        if !credential.is_there() && self.hook.is_none() {
            return Err(Reason::Missing);
        }
        // What costs next to nothing is judged first, so that others at the same address cannot lock out who has a valid credential.
        let judged = self.judge_here(credential).await;
        if let Some(Ok(grant)) = judged {
            return Ok(grant);
        }
        if let Some(wait) = self.throttled(*visitor) {
            debug!(?wait, "an address that failed too often is not looked at");
            return Err(Reason::Throttled);
        }
        let (judged, was_asked) = match (judged, &self.hook) {
            (Some(judged), _) => (judged, false),
            (None, Some(hook)) => (hook.ask(claim.question()).await, true),
            (None, None) => (Err(Reason::UnknownKey), false),
        };
        // A question to the hook costs, also one without a credential.
        if judged.as_ref().is_err_and(|reason| reason.is_attempt() && (credential.is_there() || was_asked)) {
            self.throttle.lock().unwrap_or_else(PoisonError::into_inner).on_failure(Instant::now(), *visitor);
        }
        judged.map_err(|reason| if reason.is_attempt() && !credential.is_there() { Reason::Missing } else { reason })
    }

    /// How long an address must wait that failed too often.
    fn throttled(&self, visitor: Visitor) -> Option<Duration> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now(), visitor)
    }

    /// Judges a credential by the keys and the tokens that this gateway knows; `None`: it is neither, so only the hook can tell.
    async fn judge_here(&self, credential: &Credential) -> Option<Result<Grant, Reason>> {
        let token = credential.token.as_ref()?;
        let Known { keys, tokens } = self.known();
        if let Some(key) = keys.as_ref().and_then(|keys| keys.find(token)) {
            debug!(key = key.name, "known by its key");
            return Some(Ok(Grant::of(key.role)));
        }
        let is_token = token.bytes().filter(|byte| *byte == b'.').count() == 2;
        match tokens.filter(|_| is_token) {
            Some(tokens) => Some(tokens.verify(token).await),
            None => None,
        }
    }
}

impl Claim<'_> {
    fn question(&self) -> Question {
        let credential = self.credential;
        Question {
            ip: self.address,
            user: credential.user.clone(),
            password: credential.password.clone(),
            token: credential.token.clone().unwrap_or_default(),
            action: self.action,
            path: String::new(),
            protocol: "webrtc",
            id: self.id.map(String::from),
            query: self.query.into(),
        }
    }
}

/// Checks whether the configuration says who may use the gateway, for `ooblex check`.
///
/// # Errors
/// When the gateway would not start, or would let nobody in.
pub fn check(config: &Config) -> Result<String, String> {
    let authenticator = Authenticator::new(config).map_err(|error| error.to_string())?;
    if let Some(url) = config.auth.hook.url.as_ref().filter(|url| config.auth.has(config::Mode::Hook) && !url.is_safe()) {
        return authenticator
            .describe()
            .map(|found| format!("{found}; {url} is asked without HTTPS, and is told what callers show: reach it by a private network"));
    }
    authenticator.describe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_mode_only_this_machine_may_reach_the_gateway() {
        let mut config = Config::default();
        assert!(Authenticator::new(&config).unwrap().is_open());
        for listen in ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:80"] {
            config.serve.listen = listen.parse().unwrap();
            config.auth.mode = None;
            let said = Authenticator::new(&config).err().unwrap().to_string();
            assert!(["auth.mode", "keys", "jwt", "hook", "none", listen].iter().all(|word| said.contains(word)), "{said}");
            config.auth.mode = Some(serde_json::from_str("\"none\"").unwrap());
            assert!(Authenticator::new(&config).unwrap().is_open(), "who says so gets it");
        }
    }

    #[test]
    fn secrets_of_sessions_are_told_apart_from_ids_and_keys() {
        let (one, other) = (SessionSecret::random(), SessionSecret::random());
        assert!(one.reveal().starts_with("obs_") && one.reveal().len() == 36 && one.reveal() != other.reveal());
        let access = SessionAccess::new(&one, Arc::default());
        assert!(access.belongs_to(&one.digest()) && !access.belongs_to(&other.digest()) && !access.belongs_to(&keys::digest("")));
    }
}
