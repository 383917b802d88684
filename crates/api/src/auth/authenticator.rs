//! Authenticates callers with keys, JWTs or the HTTP hook.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use parking_lot::{Mutex, RwLock};
use tracing::debug;

use super::credential::Credential;
use super::error::AuthError;
use super::grant::Grant;
use super::hook::{Action, Hook, Question};
use super::jwt::Tokens;
use super::keys::Keys;
use super::throttle::Throttle;
use crate::rooms::RoomName;
use crate::visitor::{self, Peer, Visitor};
use ooblex_config::{self as config, Config, Mode};
use ooblex_gateway::labels::Reason;

/// The credential, address and requested action of a caller.
pub struct Claim<'a> {
    /// The credential that the request shows.
    pub credential: &'a Credential,
    /// The visitor that limits count.
    pub visitor: Visitor,
    /// The address of the client.
    pub address: IpAddr,
    /// The action that the request asks for.
    pub action: Action,
    /// The session that the route names, if any.
    pub id: Option<&'a str>,
    /// The room that the route names, if any.
    pub room: Option<&'a RoomName>,
    /// The query string.
    pub query: &'a str,
}

/// Authenticates callers and returns their grants.
pub struct Authenticator {
    modes: Vec<Mode>,
    known: RwLock<Known>,
    hook: Option<Hook>,
    throttle: Mutex<Throttle>,
    /// IP address of `serve.listen`.
    listen: IpAddr,
}

/// Keys and token verifiers that can be checked without the hook. A reload replaces them.
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

/// Returns the authentication modes in force: `auth.mode`, or none if only this machine can reach
/// the gateway.
fn modes(config: &Config) -> Result<Vec<Mode>, AuthError> {
    match &config.auth.mode {
        Some(modes) => Ok(modes.all().to_vec()),
        None if config.serve.listen.ip().is_loopback() => Ok(vec![Mode::None]),
        None => Err(AuthError::Undecided(config.serve.listen)),
    }
}

impl Authenticator {
    /// Builds the authenticator from the configuration.
    ///
    /// # Errors
    /// When `auth.mode` is not set although other machines can reach the gateway, or when keys or
    /// secrets cannot be used.
    pub fn new(config: &Config) -> Result<Self, AuthError> {
        let modes = modes(config)?;
        let known = RwLock::new(Known::read(&modes, &config.auth)?);
        let hook = if modes.contains(&Mode::Hook) { Hook::new(&config.auth.hook) } else { None };
        Ok(Self { modes, known, hook, throttle: Mutex::default(), listen: config.serve.listen.ip() })
    }

    /// Reloads the keys and the token secret. Running sessions are not affected.
    ///
    /// # Errors
    /// When they cannot be used; the previous ones stay in force.
    pub fn reload(&self, auth: &config::Auth) -> Result<(), AuthError> {
        let read = Known::read(&self.modes, auth)?;
        let mut known = self.known.write();
        // The JWKS cache survives a reload; public keys are fetched again when they are needed.
        let tokens = if known.tokens.as_ref().is_some_and(|tokens| tokens.jwks().is_some()) { known.tokens.clone() } else { read.tokens };
        *known = Known { keys: read.keys, tokens };
        Ok(())
    }

    fn known(&self) -> Known {
        self.known.read().clone()
    }

    /// Returns whether everybody may begin sessions (`auth.mode` is `none`).
    pub fn is_open(&self) -> bool {
        self.modes == [Mode::None]
    }

    /// Fetches the public keys (JWKS), so that the first token does not have to wait for them.
    pub async fn warm_up(&self) {
        let tokens = self.known().tokens;
        if let Some(jwks) = tokens.as_ref().and_then(|tokens| tokens.jwks()) {
            jwks.refresh().await;
        }
    }

    /// Describes the authentication modes in one line for `ooblex check`. Blocks while public keys
    /// are fetched.
    ///
    /// # Errors
    /// When public keys cannot be fetched.
    pub fn describe(&self) -> Result<String, String> {
        let known = self.known();
        let ways = self.modes.iter().map(|mode| match mode {
            Mode::None if self.listen.is_loopback() => Ok("no authentication; only this machine reaches the gateway".to_string()),
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

    /// Returns the grant of a caller, or the reason of the refusal.
    pub async fn grant(&self, claim: &Claim<'_>) -> Result<Grant, Reason> {
        let Claim { credential, visitor, .. } = claim;
        if !credential.is_there() && self.hook.is_none() {
            return Err(Reason::Missing);
        }
        // Local checks come before the rate limit, so that failed attempts from a shared address
        // cannot lock out a caller with a valid credential. Slow ones do not block this thread.
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
        // A question to the hook is expensive, so its refusals count as failed attempts even
        // without a credential.
        if judged.as_ref().is_err_and(|reason| reason.is_attempt() && (credential.is_there() || was_asked)) {
            self.throttle.lock().on_failure(Instant::now(), *visitor);
        }
        judged.map_err(|reason| if reason.is_attempt() && !credential.is_there() { Reason::Missing } else { reason })
    }

    /// Returns whether a request comes from a program on this machine, not through a proxy, and
    /// only this machine can reach the gateway.
    pub fn is_local_operator(&self, peer: Peer, headers: &HeaderMap) -> bool {
        self.is_open() && visitor::is_local(self.listen, peer, headers)
    }

    /// Returns the remaining wait of an address with too many failed attempts, or `None` if it need
    /// not wait.
    pub fn throttled(&self, visitor: Visitor) -> Option<Duration> {
        self.throttle.lock().wait(Instant::now(), visitor)
    }

    /// Checks a credential against the local keys and token verifiers. Returns `None` if it is
    /// neither, so that only the hook can decide.
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
            path: self.room.map(ToString::to_string).unwrap_or_default(),
            protocol: "webrtc",
            id: self.id.map(String::from),
            query: self.query.into(),
        }
    }
}

/// Checks the authentication part of the configuration for `ooblex check`.
///
/// # Errors
/// When the gateway would not start, or would refuse every caller.
pub fn check(config: &Config) -> Result<String, String> {
    let authenticator = Authenticator::new(config).map_err(|error| error.to_string())?;
    if let Some(url) = config.auth.hook.url.as_ref().filter(|url| config.auth.has(config::Mode::Hook) && !url.is_safe()) {
        return authenticator.describe().map(|found| {
            format!("{found}; {url} is called without HTTPS and receives the callers' credentials: reach it by a private network")
        });
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
            assert!(Authenticator::new(&config).unwrap().is_open(), "an explicit none is accepted");
        }
    }
}
