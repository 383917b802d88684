//! Signatures of JWTs, with the OpenSSL library that the program links anyway.
//!
//! `jsonwebtoken` parses tokens and validates claims, and delegates signatures to a crypto
//! provider. This provider signs with a shared secret only, and verifies all algorithms whose keys
//! a JWKS can hold. Each verifier checks the type of its key.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey, signature};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer, Verifier};

/// Accepted RSA key sizes in bits: smaller keys are insecure, larger ones cost too much CPU time to
/// verify.
const RSA_BITS: std::ops::RangeInclusive<i32> = 2048..=8192;

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Installs this crypto provider in `jsonwebtoken`. Further calls have no effect.
pub(super) fn install() {
    _ = PROVIDER.install_default();
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    if algorithm.family() != AlgorithmFamily::Hmac || key.family() != AlgorithmFamily::Hmac {
        return Err(ErrorKind::UnsupportedAlgorithm.into());
    }
    Ok(Box::new(HmacSigner { algorithm: *algorithm, secret: key.as_bytes().to_vec() }))
}

/// Checks that a public key is valid and has an accepted size.
///
/// # Errors
/// When the key cannot be used with the algorithm.
pub(super) fn check(algorithm: Algorithm, key: &DecodingKey) -> Result<(), Error> {
    if let Key::Public(key) = usable(algorithm, key)?
        && algorithm.family() == AlgorithmFamily::Ec
    {
        key.ec_key().and_then(|key| key.check_key()).map_err(invalid)?;
    }
    Ok(())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    Ok(Box::new(TokenVerifier { algorithm: *algorithm, key: usable(*algorithm, key)? }))
}

fn invalid(error: ErrorStack) -> Error {
    ErrorKind::Provider(error.to_string()).into()
}

/// Builds the key of a verifier. It runs for every token, so it leaves out the slow part of
/// [`check`].
fn usable(algorithm: Algorithm, key: &DecodingKey) -> Result<Key, Error> {
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let key = match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => Key::Public(rsa_key(n, e).map_err(invalid)?),
        DecodingKeyKind::SecretOrDer(bytes) => match algorithm.family() {
            AlgorithmFamily::Hmac => Key::Secret(bytes.clone()),
            AlgorithmFamily::Ec => Key::Public(ec_key(algorithm, bytes).map_err(invalid)?),
            AlgorithmFamily::Ed => Key::Public(PKey::public_key_from_raw_bytes(bytes, Id::ED25519).map_err(invalid)?),
            _ => return Err(ErrorKind::InvalidKeyFormat.into()),
        },
    };
    if let Key::Public(key) = &key
        && algorithm.family() == AlgorithmFamily::Rsa
        && !RSA_BITS.contains(&(key.bits() as i32))
    {
        return Err(ErrorKind::InvalidRsaKey("its size is not from 2048 to 8192 bits".into()).into());
    }
    Ok(key)
}

fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    PKey::from_rsa(Rsa::from_public_components(BigNum::from_slice(modulus)?, BigNum::from_slice(exponent)?)?)
}

/// Builds an EC public key from an uncompressed point, which must be on the curve of the algorithm.
fn ec_key(algorithm: Algorithm, point: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let curve = if algorithm == Algorithm::ES384 { Nid::SECP384R1 } else { Nid::X9_62_PRIME256V1 };
    let group = EcGroup::from_curve_name(curve)?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, point, &mut context)?;
    PKey::from_ec_key(EcKey::from_public_key(&group, &point)?)
}

enum Key {
    Secret(Vec<u8>),
    Public(PKey<Public>),
}

/// Signs and verifies with a shared secret (HMAC).
struct HmacSigner {
    algorithm: Algorithm,
    secret: Vec<u8>,
}

struct TokenVerifier {
    algorithm: Algorithm,
    key: Key,
}

impl signature::Signer<Vec<u8>> for HmacSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        hmac(hash(self.algorithm), &self.secret, message).map_err(signature::Error::from_source)
    }
}

impl JwtSigner for HmacSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for TokenVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match &self.key {
            Key::Secret(secret) => hmac(hash(self.algorithm), secret, message)
                .map(|right| right.len() == signature.len() && openssl::memcmp::eq(&right, signature)),
            Key::Public(key) => self.verify_public(key, message, signature),
        };
        match verified {
            Ok(true) => Ok(()),
            Ok(false) => Err(signature::Error::new()),
            Err(error) => Err(signature::Error::from_source(error)),
        }
    }
}

impl JwtVerifier for TokenVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl TokenVerifier {
    fn verify_public(&self, key: &PKey<Public>, message: &[u8], signature: &[u8]) -> Result<bool, ErrorStack> {
        match self.algorithm {
            Algorithm::EdDSA => Verifier::new_without_digest(key)?.verify_oneshot(signature, message),
            Algorithm::ES256 | Algorithm::ES384 => {
                // An ECDSA signature in a JWT is two integers of the curve's size, RFC 7518 section
                // 3.4.
                let size = if self.algorithm == Algorithm::ES384 { 48 } else { 32 };
                if signature.len() != 2 * size {
                    return Ok(false);
                }
                let (r, s) = signature.split_at(size);
                let signature = EcdsaSig::from_private_components(BigNum::from_slice(r)?, BigNum::from_slice(s)?)?.to_der()?;
                Verifier::new(hash(self.algorithm), key)?.verify_oneshot(&signature, message)
            }
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => {
                let mut verifier = Verifier::new(hash(self.algorithm), key)?;
                verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
                verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
                verifier.set_rsa_mgf1_md(hash(self.algorithm))?;
                verifier.verify_oneshot(signature, message)
            }
            _ => Verifier::new(hash(self.algorithm), key)?.verify_oneshot(signature, message),
        }
    }
}

fn hash(algorithm: Algorithm) -> MessageDigest {
    match algorithm {
        Algorithm::HS384 | Algorithm::ES384 | Algorithm::RS384 | Algorithm::PS384 => MessageDigest::sha384(),
        Algorithm::HS512 | Algorithm::RS512 | Algorithm::PS512 => MessageDigest::sha512(),
        _ => MessageDigest::sha256(),
    }
}

/// Computes an HMAC (RFC 2104).
pub fn hmac(hash: MessageDigest, secret: &[u8], message: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    Signer::new(hash, PKey::hmac(secret)?.as_ref())?.sign_oneshot_to_vec(message)
}
