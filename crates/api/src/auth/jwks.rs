//! JWK Set (RFC 7517) of a URL, with a cache. It is fetched on first use, and again when a token
//! names an unknown key, at most once a minute.
//!
//! Each key is pinned to one algorithm. Symmetric keys are ignored. When a fetch fails, the
//! previous keys stay in use.

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::{debug, info, warn};
use ureq::Agent;

use super::crypto;
use crate::outgoing;
use ooblex_config::HttpUrl;

/// Timeout of one fetch.
const FETCH_WITHIN: Duration = Duration::from_secs(5);
/// Shortest time between two fetches.
const FETCH_EVERY: Duration = Duration::from_secs(60);
/// Shortest time between two fetches until one has succeeded.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Age at which the keys are fetched again, so that revoked keys disappear.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Largest accepted JWK Set in bytes.
const MAX_BYTES: u64 = 256 * 1024;
/// Largest number of keys kept from a set.
const MAX_KEYS: usize = 100;

/// A public key, and the only algorithm that it may be used with.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The reason why a public key is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The set has no key with this id.
    Unknown,
    /// No set has been fetched yet.
    Unavailable,
}

/// Cached public keys of a JWKS URL.
pub(super) struct Jwks {
    url: HttpUrl,
    agent: Agent,
    /// Algorithms that the configuration accepts.
    accepted: Vec<Algorithm>,
    known: RwLock<Known>,
    /// Time of the last fetch attempt; the lock is held while a fetch runs.
    attempted: Mutex<Option<Instant>>,
    fetch_every: Duration,
}

#[derive(Default)]
struct Known {
    keys: HashMap<String, PublicKey>,
    /// Time of the last successful fetch; `None` before the first.
    fetched: Option<Instant>,
}

impl Jwks {
    pub(super) fn new(url: HttpUrl, accepted: Vec<Algorithm>) -> Self {
        Self {
            url,
            agent: outgoing::agent(FETCH_WITHIN),
            accepted,
            known: RwLock::default(),
            attempted: Mutex::new(None),
            fetch_every: FETCH_EVERY,
        }
    }

    /// Returns the key with the id `kid`, or, without an id, the only key for the algorithm.
    pub(super) async fn key(self: &Arc<Self>, kid: Option<&str>, algorithm: Algorithm) -> Result<PublicKey, NoKey> {
        if let Some(key) = self.find(kid, algorithm) {
            if self.is_old() {
                let this = self.clone();
                tokio::spawn(async move { this.refresh().await });
            }
            return Ok(key);
        }
        self.refresh().await;
        self.find(kid, algorithm).ok_or_else(|| if self.fetched().is_none() { NoKey::Unavailable } else { NoKey::Unknown })
    }

    /// Fetches the set unless the last attempt is too recent: 60 s, or 5 s until a fetch has
    /// succeeded. Concurrent callers wait for the fetch that runs.
    pub(super) async fn refresh(self: &Arc<Self>) {
        let mut attempted = self.attempted.lock().await;
        let every = if self.fetched().is_some() { self.fetch_every } else { RETRY_EVERY.min(self.fetch_every) };
        if attempted.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        *attempted = Some(Instant::now());
        let this = self.clone();
        let fetched = tokio::task::spawn_blocking(move || this.fetch()).await;
        match fetched.unwrap_or_else(|_| Err("reading it panicked".into())) {
            Ok(keys) => {
                info!(url = %self.url, keys = keys.len(), "the public keys for tokens were fetched");
                *self.known.write() = Known { keys, fetched: Some(Instant::now()) };
            }
            Err(reason) => warn!(url = %self.url, reason, "the public keys for tokens cannot be fetched; the previous ones stay in use"),
        }
    }

    /// Fetches the set. Blocks until the answer or the timeout.
    ///
    /// # Errors
    /// The reason as text.
    pub(super) fn fetch(&self) -> Result<HashMap<String, PublicKey>, String> {
        let response = self.agent.get(self.url.as_str()).call().map_err(|error| error.to_string())?;
        if response.status() != 200 {
            return Err(format!("it answers with status {}", response.status().as_u16()));
        }
        let mut body = Vec::new();
        let mut reader = response.into_body().into_reader().take(MAX_BYTES + 1);
        reader.read_to_end(&mut body).map_err(|error| error.to_string())?;
        if body.len() as u64 > MAX_BYTES {
            return Err(format!("it is larger than {MAX_BYTES} bytes"));
        }
        let keys = read(&body, &self.accepted)?;
        if keys.is_empty() { Err("it has no key that can be used".into()) } else { Ok(keys) }
    }

    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<PublicKey> {
        let known = self.known.read();
        match kid {
            Some(kid) => known.keys.get(kid).cloned(),
            None => {
                let mut fitting = known.keys.values().filter(|key| key.algorithm == algorithm);
                fitting.next().filter(|_| fitting.next().is_none()).cloned()
            }
        }
    }

    fn is_old(&self) -> bool {
        self.fetched().is_some_and(|at| at.elapsed() > MAX_AGE)
    }

    /// Returns the time at which the current set was fetched.
    fn fetched(&self) -> Option<Instant> {
        self.known.read().fetched
    }
}

/// Parses a JWK Set. Keys that cannot be used are skipped.
fn read(body: &[u8], accepted: &[Algorithm]) -> Result<HashMap<String, PublicKey>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(body).map_err(|_| "it is no JWK set: an object with \"keys\"".to_string())?;
    let mut keys = HashMap::new();
    for (index, value) in set.keys.into_iter().take(MAX_KEYS).enumerate() {
        match read_key(value, accepted) {
            // A key without an id is used for tokens without one.
            Ok((kid, key)) => _ = keys.insert(kid.unwrap_or_else(|| format!("#{index}")), key),
            Err(reason) => debug!(index, reason, "a key of the JWK set is left out"),
        }
    }
    Ok(keys)
}

fn read_key(value: Value, accepted: &[Algorithm]) -> Result<(Option<String>, PublicKey), String> {
    let jwk: Jwk = serde_json::from_value(value).map_err(|error| error.to_string())?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("it is not for signatures".into());
    }
    let algorithm = algorithm(&jwk)?;
    if !accepted.contains(&algorithm) {
        return Err(format!("auth.jwt.algorithms has no {algorithm:?}"));
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
    if key.family() != algorithm.family() {
        return Err(format!("it is no key for {algorithm:?}"));
    }
    crypto::check(algorithm, &key).map_err(|error| format!("it is not valid: {error}"))?;
    Ok((jwk.common.key_id, PublicKey { algorithm, key }))
}

/// Returns the algorithm of a key: its `alg` member, or the usual one for its type.
fn algorithm(jwk: &Jwk) -> Result<Algorithm, String> {
    let by_kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(params) => match params.curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            _ => return Err("its curve is not P-256 or P-384".into()),
        },
        AlgorithmParameters::OctetKeyPair(params) if params.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return Err("it is neither RSA, nor EC, nor Ed25519; shared secrets are not taken from a URL".into()),
    };
    match jwk.common.key_algorithm {
        None => Ok(by_kind),
        Some(KeyAlgorithm::RS256) if by_kind == Algorithm::RS256 => Ok(Algorithm::RS256),
        Some(KeyAlgorithm::RS384) if by_kind == Algorithm::RS256 => Ok(Algorithm::RS384),
        Some(KeyAlgorithm::RS512) if by_kind == Algorithm::RS256 => Ok(Algorithm::RS512),
        Some(KeyAlgorithm::PS256) if by_kind == Algorithm::RS256 => Ok(Algorithm::PS256),
        Some(KeyAlgorithm::PS384) if by_kind == Algorithm::RS256 => Ok(Algorithm::PS384),
        Some(KeyAlgorithm::PS512) if by_kind == Algorithm::RS256 => Ok(Algorithm::PS512),
        Some(KeyAlgorithm::ES256) if by_kind == Algorithm::ES256 => Ok(by_kind),
        Some(KeyAlgorithm::ES384) if by_kind == Algorithm::ES384 => Ok(by_kind),
        Some(KeyAlgorithm::EdDSA) if by_kind == Algorithm::EdDSA => Ok(by_kind),
        Some(other) => Err(format!("its algorithm {other:?} is not one for its kind of key")),
    }
}

#[cfg(test)]
impl Jwks {
    /// Returns a cache that has fetched this set.
    pub(super) fn with_keys(set: &Value) -> Self {
        let jwks = Self::new("http://127.0.0.1:9/keys".parse().unwrap(), super::jwt::ASYMMETRIC.to_vec());
        let keys = read(set.to_string().as_bytes(), &jwks.accepted).unwrap();
        Self { known: RwLock::new(Known { keys, fetched: Some(Instant::now()) }), ..jwks }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::super::jwt::ASYMMETRIC;
    use super::*;

    /// Returns the P-256 key of RFC 7517 appendix A.1 with additional members.
    fn ec(more: Value) -> Value {
        let mut key = json!({
            "kty": "EC", "crv": "P-256",
            "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
        });
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn names(keys: Value, accepted: &[Algorithm]) -> Vec<String> {
        let mut names: Vec<_> = read(json!({"keys": keys}).to_string().as_bytes(), accepted).unwrap().into_keys().collect();
        names.sort();
        names
    }

    #[test]
    fn only_public_keys_for_signatures_with_their_own_algorithm_are_kept() {
        let keys = json!([
            ec(json!({"kid": "good"})),
            ec(json!({"kid": "named", "alg": "ES256", "use": "sig"})),
            ec(json!({"kid": "for encryption", "use": "enc"})),
            ec(json!({"kid": "of another kind", "alg": "RS256"})),
            ec(json!({"kid": "symmetric by name", "alg": "HS256"})),
            ec(json!({"kid": "of another curve", "alg": "ES384"})),
            ec(json!({"kid": "not on the curve", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyA"})),
            {"kty": "RSA", "kid": "too small", "alg": "RS256", "n": "u".repeat(171), "e": "AQAB"},
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"},
            {"kty": "new", "kid": "unknown"},
            {"kid": "nothing"},
            7,
        ]);
        assert_eq!(names(keys.clone(), &ASYMMETRIC), ["good", "named"]);
        assert_eq!(names(keys, &[Algorithm::RS256]), [""; 0], "the operator accepts others only");
        assert!(read(b"[]", &ASYMMETRIC).is_err() && read(b"<html>", &ASYMMETRIC).is_err());
    }

    /// Starts an HTTP server that answers each request with the current `body`. Returns its URL and
    /// the request counter.
    fn server(body: Arc<RwLock<String>>) -> (HttpUrl, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap()).parse().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                _ = stream.read(&mut [0; 4096]);
                counted.fetch_add(1, Ordering::SeqCst);
                let body = body.read().clone();
                let status = if body.is_empty() { "500 Broken" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
            }
        });
        (url, count)
    }

    #[tokio::test]
    async fn keys_are_fetched_when_one_is_unknown_and_not_more_often_than_allowed() {
        let set = |names: &[&str]| json!({"keys": names.iter().map(|kid| ec(json!({"kid": kid}))).collect::<Vec<_>>()}).to_string();
        let body = Arc::new(RwLock::new(String::new()));
        let (url, count) = server(body.clone());
        let asked = || count.load(Ordering::SeqCst);
        let mut jwks = Jwks::new(url, ASYMMETRIC.to_vec());
        jwks.fetch_every = Duration::ZERO;
        let eager = Arc::new(jwks);
        let has = async |jwks: &Arc<Jwks>, kid| jwks.key(Some(kid), Algorithm::ES256).await.map(drop);
        assert_eq!(has(&eager, "first").await, Err(NoKey::Unavailable), "the server is broken");
        *body.write() = set(&["first"]);
        assert_eq!(has(&eager, "first").await, Ok(()));
        assert_eq!((has(&eager, "first").await, asked()), (Ok(()), 2), "what is known is not fetched");
        *body.write() = set(&["second"]);
        assert_eq!((has(&eager, "second").await, asked()), (Ok(()), 3));
        assert_eq!(has(&eager, "first").await, Err(NoKey::Unknown), "a key that was withdrawn");
        *body.write() = String::new();
        assert_eq!(has(&eager, "third").await, Err(NoKey::Unknown));
        assert_eq!(has(&eager, "second").await, Ok(()), "what was good stays while the server is broken");
        assert!(eager.key(None, Algorithm::ES256).await.is_ok(), "a token without a kid, and one key only");
        assert!(eager.key(None, Algorithm::RS256).await.is_err());

        *body.write() = set(&["first"]);
        let mut patient = Jwks::new(eager.url.clone(), ASYMMETRIC.to_vec());
        patient.fetch_every = Duration::from_secs(3600);
        let (patient, before) = (Arc::new(patient), asked());
        patient.refresh().await;
        for kid in ["second", "third", "fourth"] {
            assert_eq!(has(&patient, kid).await, Err(NoKey::Unknown));
        }
        assert_eq!(asked(), before + 1, "strangers cannot make the gateway ask again");
    }

    #[test]
    fn a_set_is_not_longer_than_it_may_be() {
        let keys: Vec<_> = (0..3 * MAX_KEYS).map(|number| ec(json!({"kid": number.to_string()}))).collect();
        assert_eq!(names(json!(keys), &ASYMMETRIC).len(), MAX_KEYS);
    }
}
