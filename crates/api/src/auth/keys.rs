//! API keys: long random strings that the operator hands out, each with a name and a role. Only
//! their hashes are stored.
//!
//! A key has 160 random bits, so its plain SHA-256 cannot be brute-forced, and a slow password hash
//! would cost time without benefit.

use std::collections::HashSet;
use std::path::Path;

use serde::Deserialize;

use super::error::AuthError;
use ooblex_config::{self as config, KeyEntry, Role};

/// Prefix of keys, by which people and secret scanners recognize them.
pub const PREFIX: &str = "obx_";
/// Prefix of hashes in the configuration.
const SHA256: &str = "sha256:";
/// Random bytes of a key.
const KEY_BYTES: usize = 20;
/// Longest name of a key in bytes.
const NAME_BYTES: usize = 64;

/// SHA-256 digest of a credential.
pub type Digest = [u8; 32];

/// Computes the SHA-256 digest of a credential.
pub fn digest(credential: &str) -> Digest {
    openssl::sha::sha256(credential.as_bytes())
}

/// Compares two digests in constant time.
pub fn is_same(a: &Digest, b: &Digest) -> bool {
    openssl::memcmp::eq(a, b)
}

/// Returns `BYTES` random bytes as hexadecimal digits.
pub fn random_hex<const BYTES: usize>() -> String {
    rand::random::<[u8; BYTES]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Generates a new key.
pub fn generate() -> String {
    format!("{PREFIX}{}", random_hex::<KEY_BYTES>())
}

/// Returns the hash of a key, as the configuration stores it.
pub fn hash(key: &str) -> String {
    SHA256.to_string() + &digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
}

/// The accepted keys.
#[derive(Debug)]
pub(super) struct Keys(Vec<Key>);

/// A named key with its role and digest.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    pub(super) role: Role,
    digest: Digest,
}

/// Content of `auth.keys_file`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyEntry>,
}

impl Keys {
    /// Reads the keys of the configuration and of `auth.keys_file`.
    ///
    /// # Errors
    /// When the file cannot be read, or a key is malformed.
    pub(super) fn new(auth: &config::Auth) -> Result<Self, AuthError> {
        let mut entries = auth.keys.clone();
        if let Some(file) = &auth.keys_file {
            entries.extend(read(file)?);
        }
        let mut names = HashSet::new();
        let key = |entry: KeyEntry| {
            let wrong = |what: &str| AuthError::Keys(format!("the key {:.64?} {what}", entry.name));
            if entry.name.is_empty() || entry.name.len() > NAME_BYTES || entry.name.chars().any(char::is_control) {
                return Err(wrong("needs a name of 1 to 64 characters"));
            }
            if !names.insert(entry.name.clone()) {
                return Err(wrong("is there twice: give each a name of its own"));
            }
            let digest = parse_hash(&entry.hash);
            let digest =
                digest.ok_or_else(|| wrong("has no hash of the form \"sha256:…\": write what `ooblex token key` prints, not the key"))?;
            Ok(Key { name: entry.name, role: entry.role, digest })
        };
        let keys = entries.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(AuthError::Keys("there is none: make one with `ooblex token key --role publish`".into()));
        }
        Ok(Self(keys))
    }

    /// Returns the key that was presented, if it is accepted. All keys are compared, so that the
    /// time reveals nothing.
    pub(super) fn find(&self, presented: &str) -> Option<&Key> {
        let presented = digest(presented);
        self.0.iter().fold(None, |found, key| if is_same(&key.digest, &presented) { Some(key) } else { found })
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn read(file: &Path) -> Result<Vec<KeyEntry>, AuthError> {
    let wrong = |what: String| AuthError::Keys(format!("auth.keys_file {}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(format!("it cannot be read ({error})")))?;
    let source = ::config::File::from_str(&text, ::config::FileFormat::Toml);
    let read = ::config::Config::builder().add_source(source).build().and_then(::config::Config::try_deserialize::<KeysFile>);
    // The parser's error would quote the file, which may contain a key by mistake.
    read.map(|file| file.keys)
        .map_err(|_| wrong("it is not understood: write [[keys]] with name, role (publish, view or admin) and hash".into()))
}

fn parse_hash(text: &str) -> Option<Digest> {
    let digits = text.strip_prefix(SHA256)?.as_bytes();
    let mut digest = Digest::default();
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = (value(pair[0])? * 16 + value(pair[1])?) as u8;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, role: Role, hash: String) -> KeyEntry {
        KeyEntry { name: name.into(), role, hash }
    }

    #[test]
    fn a_key_is_known_by_its_hash_and_by_nothing_else() {
        let (ann, bob) = (generate(), generate());
        assert!(ann != bob && ann.len() == PREFIX.len() + 40, "{ann}");
        let keys =
            vec![entry("ann", Role::Publish, hash(&ann)), entry("bob", Role::Admin, hash(&bob).to_uppercase().replace("SHA256", "sha256"))];
        let keys = Keys::new(&config::Auth { keys, ..config::Auth::default() }).unwrap();
        assert_eq!(keys.find(&ann).map(|key| (key.name.as_str(), key.role)), Some(("ann", Role::Publish)));
        assert_eq!(keys.find(&bob).map(|key| key.role), Some(Role::Admin));
        for wrong in ["", "obx_", &hash(&ann), &ann[..ann.len() - 1], &format!("{ann} ")] {
            assert!(keys.find(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn hash_is_sha256() {
        assert_eq!(hash("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_is_no_hash_is_refused_without_being_shown() {
        let key = generate();
        let good = hash(&generate());
        for keys in [
            vec![entry("ann", Role::Publish, key.clone())],
            vec![entry("ann", Role::Publish, "sha256:abc".into())],
            vec![entry("ann", Role::Publish, format!("sha256:{}", "é".repeat(32)))],
            vec![entry("", Role::Publish, good.clone())],
            vec![entry("ann", Role::Publish, good.clone()), entry("ann", Role::View, hash("b"))],
            vec![],
        ] {
            let said = Keys::new(&config::Auth { keys, ..config::Auth::default() }).unwrap_err().to_string();
            assert!(said.contains("key") && !said.contains(&key), "{said}");
        }
    }
}
