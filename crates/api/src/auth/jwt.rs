//! JWT verification (RFC 7519): checks the signature and the claims, and returns a [`Grant`].
//!
//! The algorithm is that of the key, never that of the token's header; `none` is not supported.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::crypto;
use super::error::AuthError;
use super::grant::{Grant, Rooms};
use super::jwks::{Jwks, NoKey};
use ooblex_config::{self as config, Role, Secret};
use ooblex_gateway::labels::Reason;
use ooblex_gateway::restrictions::Restrictions;

/// Tolerated clock difference to the issuer.
pub(super) const LEEWAY: Duration = Duration::from_secs(30);
/// Largest accepted token in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// Largest number of signatures with a public key that are verified at a time; others wait.
const VERIFICATIONS: usize = 2;
/// Supported algorithms with a public key.
pub(super) const ASYMMETRIC: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// Supported HMAC algorithms with their minimum secret length in bytes (RFC 7518, section 3.2).
const SYMMETRIC: [(Algorithm, usize); 3] = [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];

/// Verifies JWTs.
pub(super) struct Tokens {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    require_expiry: bool,
    /// Turns of signatures with a public key.
    turns: Arc<Semaphore>,
}

enum Keys {
    Shared { algorithms: Vec<Algorithm>, key: DecodingKey },
    Public(Arc<Jwks>),
}

/// Claims that are evaluated; others are ignored.
#[derive(Debug, Deserialize)]
struct Claims {
    #[serde(default)]
    publish: Rooms,
    #[serde(default)]
    view: Rooms,
    #[serde(default)]
    admin: bool,
    /// Untyped, because other issuers use other role names.
    #[serde(default)]
    role: Value,
    #[serde(flatten)]
    restrictions: Restrictions,
    exp: Option<f64>,
}

impl Tokens {
    /// Builds the verifier from the configuration.
    ///
    /// # Errors
    /// When the secret cannot be read or is too short, or an algorithm is not one for this kind of key.
    pub(super) fn new(jwt: &config::Jwt) -> Result<Self, AuthError> {
        crypto::install();
        let keys = match (&jwt.jwks_url, &jwt.secret, &jwt.secret_file) {
            (Some(url), _, _) => Keys::Public(Arc::new(Jwks::new(url.clone(), asymmetric(&jwt.algorithms)?))),
            (None, Some(secret), _) => shared(secret, &jwt.algorithms)?,
            (None, None, Some(file)) => shared(&Secret::read(file, "auth.jwt.secret_file")?, &jwt.algorithms)?,
            (None, None, None) => return Err(AuthError::Jwt("no key is configured: set auth.jwt.secret_file or auth.jwt.jwks_url".into())),
        };
        let turns = Arc::new(Semaphore::new(VERIFICATIONS));
        Ok(Self { keys, issuer: jwt.issuer.clone(), audience: jwt.audience.clone(), require_expiry: jwt.require_expiry, turns })
    }

    /// Returns the JWKS cache, if the keys come from a URL.
    pub(super) fn jwks(&self) -> Option<&Arc<Jwks>> {
        match &self.keys {
            Keys::Public(jwks) => Some(jwks),
            Keys::Shared { .. } => None,
        }
    }

    /// Verifies a token and returns its grant.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub(super) async fn verify(&self, token: &str) -> Result<Grant, Reason> {
        if token.len() > MAX_BYTES {
            return Err(Reason::BadToken);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| Reason::BadToken)?;
        let validation = self.validation(header.alg);
        let claims = match &self.keys {
            Keys::Shared { algorithms, key } if algorithms.contains(&header.alg) => decode(token, key, &validation)?,
            Keys::Shared { .. } => return Err(Reason::BadToken),
            Keys::Public(jwks) => {
                let found = jwks.key(header.kid.as_deref(), header.alg).await.map_err(|no_key| match no_key {
                    NoKey::Unknown => Reason::UnknownKey,
                    NoKey::Unavailable => Reason::Unavailable,
                })?;
                if found.algorithm != header.alg {
                    return Err(Reason::BadToken);
                }
                // It takes up to two milliseconds, too long for a thread that serves connections.
                let turn = self.turns.clone().acquire_owned().await.map_err(|_| Reason::Unavailable)?;
                let token = token.to_string();
                let decoded = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    decode(&token, &found.key, &validation)
                });
                decoded.await.map_err(|_| Reason::Unavailable)??
            }
        };
        grant(claims, SystemTime::now())
    }

    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        let mut required = Vec::new();
        if self.require_expiry {
            required.push("exp");
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }
}

/// Checks the signature and the registered claims of a token.
fn decode(token: &str, key: &DecodingKey, validation: &Validation) -> Result<Claims, Reason> {
    let decoded = jsonwebtoken::decode::<Claims>(token, key, validation).map_err(|error| match error.kind() {
        ErrorKind::ExpiredSignature => Reason::Expired,
        ErrorKind::ImmatureSignature
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_) => Reason::WrongClaims,
        _ => Reason::BadToken,
    })?;
    Ok(decoded.claims)
}

fn grant(claims: Claims, now: SystemTime) -> Result<Grant, Reason> {
    let role: Option<Role> = serde_json::from_value(claims.role).ok();
    let mut grant = role.map(Grant::of).unwrap_or_default();
    if claims.publish.is_any() {
        grant.publish = claims.publish;
    }
    if claims.view.is_any() {
        grant.view = claims.view;
    }
    grant.admin |= claims.admin;
    grant.restrictions = claims.restrictions;
    if let Some(exp) = claims.exp {
        let since = Duration::try_from_secs_f64(exp).map_err(|_| Reason::WrongClaims)?;
        let expires = SystemTime::UNIX_EPOCH.checked_add(since).ok_or(Reason::WrongClaims)?;
        // With the leeway, a token may be accepted although its expiry has passed here; then the
        // grant ends a leeway after the expiry.
        grant.expires = Some(if expires > now { expires } else { expires + LEEWAY });
    }
    Ok(grant)
}

fn shared(secret: &Secret, names: &[String]) -> Result<Keys, AuthError> {
    let mut algorithms = Vec::new();
    let names: Vec<&str> = if names.is_empty() { vec!["HS256"] } else { names.iter().map(String::as_str).collect() };
    for name in names {
        let known = SYMMETRIC.iter().find(|(algorithm, _)| format!("{algorithm:?}") == name);
        let (algorithm, least) = known.ok_or_else(|| {
            AuthError::Jwt(format!("auth.jwt.algorithms: {name:.40?} does not go with a shared secret: write HS256, HS384 or HS512"))
        })?;
        let has = secret.reveal().len();
        if has < *least {
            return Err(AuthError::Jwt(format!(
                "the shared secret has {has} bytes, and {name} needs {least} at least: make one with `openssl rand -hex {least}`"
            )));
        }
        algorithms.push(*algorithm);
    }
    let key = DecodingKey::from_secret(secret.reveal().as_bytes()).map_err(|error| AuthError::Jwt(error.to_string()))?;
    Ok(Keys::Shared { algorithms, key })
}

fn asymmetric(names: &[String]) -> Result<Vec<Algorithm>, AuthError> {
    if names.is_empty() {
        return Ok(ASYMMETRIC.to_vec());
    }
    let read = |name: &String| {
        let known = ASYMMETRIC.into_iter().find(|algorithm| format!("{algorithm:?}") == *name);
        known.ok_or_else(|| {
            let known: Vec<_> = ASYMMETRIC.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            AuthError::Jwt(format!(
                "auth.jwt.algorithms: {name:.40?} does not go with auth.jwt.jwks_url: write some of {}",
                known.join(", ")
            ))
        })
    };
    names.iter().map(read).collect()
}

/// Verifies bytes as a token, and as the claims of a validly signed token. Used for fuzzing.
pub fn verify_any(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(secret) = serde_json::from_str::<Secret>("\"a secret that is long enough for HS256\"") else { return };
    let jwt = config::Jwt { secret: Some(secret.clone()), require_expiry: false, ..config::Jwt::default() };
    let Ok(tokens) = Tokens::new(&jwt) else { return };
    // Verification with a shared secret never waits.
    _ = tokens.verify(text).now_or_never();
    if let Some(token) = serde_json::from_str(text).ok().and_then(|claims| sign(&claims, &secret, None).ok()) {
        _ = tokens.verify(&token).now_or_never();
    }
}

/// Signs claims with a shared secret, with HS256 unless `algorithm` names another algorithm.
///
/// # Errors
/// When the secret is too short for the algorithm.
pub fn sign(claims: &Value, secret: &Secret, algorithm: Option<&str>) -> Result<String, AuthError> {
    crypto::install();
    let names: Vec<String> = algorithm.map(String::from).into_iter().collect();
    let Keys::Shared { algorithms, .. } = shared(secret, &names)? else { return Err(AuthError::Jwt("no secret".into())) };
    let key = EncodingKey::from_secret(secret.reveal().as_bytes()).map_err(|error| AuthError::Jwt(error.to_string()))?;
    let header = Header::new(algorithms.first().copied().unwrap_or_default());
    jsonwebtoken::encode(&header, claims, &key).map_err(|error| AuthError::Jwt(error.to_string()))
}

#[cfg(test)]
mod tests {
    use openssl::base64::encode_block;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::ecdsa::EcdsaSig;
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::{PKey, Private};
    use openssl::rsa::{Padding, Rsa};
    use openssl::sign::{RsaPssSaltlen, Signer};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn secret(text: &str) -> Secret {
        serde_json::from_value(json!(text)).unwrap()
    }

    fn now() -> u64 {
        jsonwebtoken::get_current_timestamp()
    }

    fn tokens(more: impl FnOnce(&mut config::Jwt)) -> Tokens {
        let mut jwt = config::Jwt { secret: Some(secret(SECRET)), ..config::Jwt::default() };
        more(&mut jwt);
        Tokens::new(&jwt).unwrap()
    }

    fn signed(claims: &Value) -> String {
        sign(claims, &secret(SECRET), None).unwrap()
    }

    fn base64url(bytes: &[u8]) -> String {
        encode_block(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_")
    }

    #[tokio::test]
    async fn claims_become_a_grant() {
        let tokens = tokens(|_| {});
        let exp = now() + 60;
        let grant =
            tokens.verify(&signed(&json!({"exp": exp, "publish": ["team-*"], "effects": ["sepia"], "max_kilopixels": 400}))).await.unwrap();
        assert!(grant.may_publish(None) && !grant.admin && !grant.view.is_any() && grant.publish.has("team-1"));
        assert_eq!((grant.restrictions.effects, grant.restrictions.max_kilopixels.map(u32::from)), (Some(vec!["sepia".into()]), Some(400)));
        assert_eq!(grant.expires, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(exp)));
        let admin = tokens.verify(&signed(&json!({"exp": exp, "admin": true}))).await.unwrap();
        assert!(admin.admin && admin.may_publish(None));
        let viewer = tokens.verify(&signed(&json!({"exp": exp, "role": "view"}))).await.unwrap();
        assert!(viewer.view.has("any") && !viewer.may_publish(None));
        let nobody = tokens.verify(&signed(&json!({"exp": exp, "role": "authenticated", "sub": "ann"}))).await.unwrap();
        assert!(!nobody.may_publish(None) && !nobody.view.is_any());
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_token_has_a_reason() {
        let plain = tokens(|_| {});
        let exp = now() + 60;
        for (claims, reason) in [
            (json!({"exp": now() - 60, "publish": true}), Reason::Expired),
            (json!({"publish": true}), Reason::WrongClaims),
            (json!({"exp": "soon", "publish": true}), Reason::BadToken),
            (json!({"exp": exp, "nbf": now() + 600}), Reason::WrongClaims),
            (json!({"exp": exp, "aud": "another service"}), Reason::WrongClaims),
            (json!({"exp": exp, "effects": null}), Reason::BadToken),
            (json!({"exp": exp, "publish": 7}), Reason::BadToken),
            (json!({"exp": exp, "max_kilopixels": 0}), Reason::BadToken),
        ] {
            assert_eq!(plain.verify(&signed(&claims)).await.unwrap_err(), reason, "{claims}");
        }
        assert!(plain.verify(&signed(&json!({"exp": now() - 5, "publish": true}))).await.is_ok(), "clocks differ a little");
        let strict = tokens(|jwt| (jwt.issuer, jwt.audience) = (Some("id".into()), Some("ooblex".into())));
        for claims in
            [json!({"exp": exp, "iss": "id"}), json!({"exp": exp, "aud": "ooblex"}), json!({"exp": exp, "iss": "x", "aud": "ooblex"})]
        {
            assert_eq!(strict.verify(&signed(&claims)).await.unwrap_err(), Reason::WrongClaims, "{claims}");
        }
        assert!(strict.verify(&signed(&json!({"exp": exp, "iss": "id", "aud": ["a", "ooblex"]}))).await.is_ok());
        let endless = tokens(|jwt| jwt.require_expiry = false);
        assert_eq!(endless.verify(&signed(&json!({"publish": true}))).await.unwrap().expires, None);
    }

    #[tokio::test]
    async fn a_token_chooses_neither_its_algorithm_nor_its_key() {
        let tokens = tokens(|_| {});
        let claims = json!({"exp": now() + 60, "admin": true});
        let good = signed(&claims);
        let [header, body, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
        let none = base64url(br#"{"alg":"none","typ":"JWT"}"#);
        let other = base64url(br#"{"alg":"HS512","typ":"JWT"}"#);
        let crit = base64url(br#"{"alg":"HS256","crit":["exp"],"exp":1}"#);
        let changed = base64url(json!({"exp": now() + 600, "admin": true}).to_string().as_bytes());
        let long = format!("{header}.{}.{signature}", "a".repeat(MAX_BYTES));
        for wrong in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            &format!("{none}.{body}."),
            &format!("{none}.{body}.{signature}"),
            &format!("{header}.{body}."),
            &format!("{other}.{body}.{signature}"),
            &format!("{header}.{changed}.{signature}"),
            &format!("{good}."),
            &format!("{header}.{body}"),
            &long,
            &sign(&claims, &secret(&"x".repeat(64)), None).unwrap(),
            &sign(&claims, &secret(&SECRET.repeat(2)), Some("HS512")).unwrap(),
            &format!(
                "{crit}.{body}.{}",
                base64url(&crypto::hmac(MessageDigest::sha256(), SECRET.as_bytes(), format!("{crit}.{body}").as_bytes()).unwrap())
            ),
        ] {
            assert_eq!(tokens.verify(wrong).await.unwrap_err(), Reason::BadToken, "{wrong:.100}");
        }
        assert!(tokens.verify(&good).await.unwrap().admin);
    }

    #[test]
    fn secrets_and_algorithms_that_do_not_go_together_are_refused_without_being_shown() {
        let refused = |jwt: config::Jwt| Tokens::new(&jwt).err().unwrap().to_string();
        let with = |text: &str, algorithms: &[&str]| config::Jwt {
            secret: Some(secret(text)),
            algorithms: algorithms.iter().map(ToString::to_string).collect(),
            ..config::Jwt::default()
        };
        for (jwt, words) in [
            (with("too-short-a-secret", &[]), "18 bytes"),
            (with(SECRET, &["HS512"]), "needs 64"),
            (with(SECRET, &["RS256"]), "HS256, HS384 or HS512"),
            (with(SECRET, &["none"]), "HS256, HS384 or HS512"),
            (config::Jwt { jwks_url: Some("https://id.example/".parse().unwrap()), ..with(SECRET, &["HS256"]) }, "RS256, RS384"),
        ] {
            let said = refused(jwt);
            assert!(said.contains(words) && !said.contains(SECRET) && !said.contains("too-short"), "{said}");
        }
    }

    fn verify(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
        crypto::install();
        jsonwebtoken::crypto::verify(&base64url(signature), message, key, algorithm).unwrap_or(false)
    }

    #[test]
    fn signatures_of_all_kinds_are_verified_with_their_own_algorithm_only() {
        let message = b"header.claims";
        let rsa = Rsa::generate(2048).unwrap();
        let rsa_public = DecodingKey::from_rsa_raw_components(&rsa.n().to_vec(), &rsa.e().to_vec());
        let rsa = PKey::from_rsa(rsa).unwrap();
        let rsa_signature = |digest, pss: bool| {
            let mut signer = Signer::new(digest, &rsa).unwrap();
            if pss {
                signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
            }
            signer.sign_oneshot_to_vec(message).unwrap()
        };
        let ed = PKey::generate_ed25519().unwrap();
        let ed_public = DecodingKey::from_ed_der(&ed.raw_public_key().unwrap());
        let ed_signature = Signer::new_without_digest(&ed).unwrap().sign_oneshot_to_vec(message).unwrap();
        let (p256, p256_public) = ec(Nid::X9_62_PRIME256V1);
        let (p384, p384_public) = ec(Nid::SECP384R1);
        let (sha256, sha384, sha512) = (MessageDigest::sha256(), MessageDigest::sha384(), MessageDigest::sha512());
        let signatures = [
            (Algorithm::RS256, &rsa_public, rsa_signature(sha256, false)),
            (Algorithm::RS384, &rsa_public, rsa_signature(sha384, false)),
            (Algorithm::RS512, &rsa_public, rsa_signature(sha512, false)),
            (Algorithm::PS256, &rsa_public, rsa_signature(sha256, true)),
            (Algorithm::PS384, &rsa_public, rsa_signature(sha384, true)),
            (Algorithm::PS512, &rsa_public, rsa_signature(sha512, true)),
            (Algorithm::EdDSA, &ed_public, ed_signature),
            (Algorithm::ES256, &p256_public, ec_signature(&p256, sha256, 32, message)),
            (Algorithm::ES384, &p384_public, ec_signature(&p384, sha384, 48, message)),
        ];
        for (algorithm, key, signature) in &signatures {
            for (other, of_other, _) in &signatures {
                assert_eq!(verify(*other, of_other, message, signature), algorithm == other, "{algorithm:?} as {other:?}");
                assert!(algorithm == other || !verify(*other, key, message, signature), "{algorithm:?}'s key as {other:?}'s");
            }
            assert!(!verify(*algorithm, key, b"another message", signature), "{algorithm:?}");
            for wrong in [&[][..], &signature[1..], &[0; 64], &[0xff; 512]] {
                assert!(!verify(*algorithm, key, message, wrong), "{algorithm:?}");
            }
        }
        // A public key must not be accepted as a shared secret.
        let forged = crypto::hmac(sha256, &ed.raw_public_key().unwrap(), message).unwrap();
        assert!(!verify(Algorithm::HS256, &ed_public, message, &forged));
        let small = Rsa::generate(1024).unwrap();
        let small_public = DecodingKey::from_rsa_raw_components(&small.n().to_vec(), &small.e().to_vec());
        let small = PKey::from_rsa(small).unwrap();
        let signature = Signer::new(sha256, &small).unwrap().sign_oneshot_to_vec(message).unwrap();
        assert!(!verify(Algorithm::RS256, &small_public, message, &signature), "a key of 1024 bits");
    }

    #[tokio::test]
    async fn signatures_with_a_public_key_wait_for_their_turn() {
        let (key, _) = ec(Nid::SECP384R1);
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        let (mut x, mut y) = (openssl::bn::BigNum::new().unwrap(), openssl::bn::BigNum::new().unwrap());
        key.public_key().affine_coordinates(key.group(), &mut x, &mut y, &mut context).unwrap();
        let [x, y] = [x, y].map(|number| base64url(&number.to_vec_padded(48).unwrap()));
        let jwks = Jwks::with_keys(&json!({"keys": [{"kty": "EC", "crv": "P-384", "x": x, "y": y}]}));
        let tokens = Tokens { keys: Keys::Public(Arc::new(jwks)), ..tokens(|_| {}) };
        let (header, claims) = (json!({"alg": "ES384"}), json!({"exp": now() + 60, "admin": true}));
        let message = [header, claims].map(|part| base64url(part.to_string().as_bytes())).join(".");
        let signature = ec_signature(&key, MessageDigest::sha384(), 48, message.as_bytes());
        let token = format!("{message}.{}", base64url(&signature));

        let turns = tokens.turns.clone().acquire_many_owned(VERIFICATIONS as u32).await.unwrap();
        let mut verified = std::pin::pin!(tokens.verify(&token));
        assert!(verified.as_mut().now_or_never().is_none(), "all turns are taken");
        drop(turns);
        assert!(verified.await.unwrap().admin);
        let other = format!("{message}.{}", base64url(&[7; 96]));
        assert_eq!(tokens.verify(&other).await.unwrap_err(), Reason::BadToken);
    }

    fn ec(curve: Nid) -> (EcKey<Private>, DecodingKey) {
        let key = EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap();
        let mut context = openssl::bn::BigNumContext::new().unwrap();
        let form = openssl::ec::PointConversionForm::UNCOMPRESSED;
        let point = key.public_key().to_bytes(key.group(), form, &mut context).unwrap();
        (key, DecodingKey::from_ec_der(&point))
    }

    fn ec_signature(key: &EcKey<Private>, digest: MessageDigest, size: i32, message: &[u8]) -> Vec<u8> {
        let hash = openssl::hash::hash(digest, message).unwrap();
        let signature = EcdsaSig::sign(&hash, key).unwrap();
        [signature.r().to_vec_padded(size).unwrap(), signature.s().to_vec_padded(size).unwrap()].concat()
    }
}
