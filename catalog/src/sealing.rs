//! Secrets as they are stored: sealed with AES-256-GCM under a key that only the environment holds.
//!
//! Pure: no I/O but random numbers.
//!
//! A sealed value is `nonce (12 bytes) ‖ ciphertext ‖ tag (16 bytes)`. The identity of its row is
//! authenticated with it, so that whoever can write to the catalog cannot give one peer the sealed
//! description of another. The id of the key is stored beside it: keys are rotated by putting a new
//! one in front; the old one may go when everything is sealed anew ([`crate::rotation`]).
//! Nonces are random; 2^32 of them under one key are safe (NIST SP 800-38D, section 8.3), and a key
//! seals a few values for each change of a peer.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use millrace_terms::{Code, Error, Result};
use secrecy::{ExposeSecret, SecretBox};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;

/// The form of `MILLRACE_SECRET_KEYS`.
const FORM: &str = "Give MILLRACE_SECRET_KEYS as `id:base64 of 32 bytes[,id:base64...]`, the key to seal with \
    first; `openssl rand -base64 32` makes one.";

/// The keys of `MILLRACE_SECRET_KEYS`. The first seals, all open. `Default` is none: nothing is sealed or opened.
#[derive(Clone, Default)]
pub struct SecretKeys(Arc<[SecretKey]>);

struct SecretKey {
    id: String,
    bytes: SecretBox<[u8; KEY_BYTES]>,
}

/// A sealed value and the id of its key, as a row holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Nonce, ciphertext and tag.
    pub bytes: Vec<u8>,
    /// Id of the key.
    pub key_id: String,
}

impl SecretKeys {
    /// Reads `id:base64[,id:base64...]`. The base64 is of exactly 32 bytes; ids are letters, digits,
    /// `-`, `_` and `.`, and differ.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| Error::new(Code::InvalidArgument, what).with_remedy(FORM);
        let mut keys: Vec<SecretKey> = Vec::new();
        for (number, entry) in text.split(',').enumerate().map(|(i, entry)| (i + 1, entry.trim())) {
            let (id, key) =
                entry.split_once(':').ok_or_else(|| bad(format!("secret key {number} has no id")))?;
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if id.is_empty() || !id.chars().all(allowed) {
                // Not shown: with id and key in the wrong order it is the key.
                return Err(bad(format!("the id of secret key {number} is not letters, digits, -, _ and .")));
            }
            if keys.iter().any(|key| key.id == id) {
                return Err(bad(format!("two secret keys have the id {id}")));
            }
            let decoded =
                STANDARD.decode(key.trim()).ok().and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
            let bytes = decoded.ok_or_else(|| bad(format!("secret key {id} is not base64 of 32 bytes")))?;
            keys.push(SecretKey { id: id.to_owned(), bytes: SecretBox::new(Box::new(bytes)) });
        }
        Ok(Self(keys.into()))
    }

    /// A new key, as [`SecretKeys::parse`] reads it. It is a secret: for `dev`, which keeps it in a
    /// file of its own.
    pub fn generate() -> String {
        let id = hex_digits(&rand::random::<[u8; 4]>());
        format!("{id}:{}", STANDARD.encode(rand::random::<[u8; KEY_BYTES]>()))
    }

    /// Id of the key that seals.
    pub fn current_id(&self) -> &str {
        self.0.first().map_or("", |key| &key.id)
    }

    /// The ids of all keys, the one that seals first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }

    /// Seals `plain` for the row `kind`, `name`.
    pub(crate) fn seal(&self, kind: &str, name: &str, plain: &[u8]) -> Result<Sealed> {
        let key = self.0.first().ok_or_else(|| missing("", kind, name))?;
        let nonce = rand::random::<[u8; NONCE_BYTES]>();
        let identity = identity(kind, name);
        let sealed = key
            .cipher()
            .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: &identity })
            .map_err(|_| Error::new(Code::Internal, format!("{kind} {name} is too large to be sealed")))?;
        Ok(Sealed { bytes: [nonce.as_slice(), &sealed].concat(), key_id: key.id.clone() })
    }

    /// Opens what was sealed for the row `kind`, `name`.
    pub(crate) fn open(&self, kind: &str, name: &str, sealed: &Sealed) -> Result<Vec<u8>> {
        let key = self
            .0
            .iter()
            .find(|key| key.id == sealed.key_id)
            .ok_or_else(|| missing(&sealed.key_id, kind, name))?;
        let identity = identity(kind, name);
        let opened = sealed.bytes.split_first_chunk::<NONCE_BYTES>().and_then(|(nonce, msg)| {
            key.cipher().decrypt(&Nonce::from(*nonce), Payload { msg, aad: &identity }).ok()
        });
        opened.ok_or_else(|| {
            Error::new(
                Code::SecretKeyMissing,
                format!("{kind} {name} cannot be opened with secret key {}", sealed.key_id),
            )
            .with_remedy(format!(
                "Put the key that was called {} when {kind} {name} was stored into MILLRACE_SECRET_KEYS; if it is \
                 that one, the row was altered: drop and create the {kind}.",
                sealed.key_id
            ))
            .with("key", &sealed.key_id)
        })
    }
}

impl SecretKey {
    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.bytes.expose_secret().into())
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKeys")?;
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

/// What is authenticated besides the value. Names hold no NUL.
fn identity(kind: &str, name: &str) -> Vec<u8> {
    format!("{kind}\0{name}").into_bytes()
}

fn missing(key_id: &str, kind: &str, name: &str) -> Error {
    Error::new(
        Code::SecretKeyMissing,
        format!("{kind} {name} is sealed with key {key_id:?}, which is not given"),
    )
    .with("key", key_id)
}

fn hex_digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ids: &[&str]) -> String {
        let key = |id: &&str| format!("{id}:{}", STANDARD.encode([id.as_bytes()[0]; KEY_BYTES]));
        ids.iter().map(key).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_value_opens_in_its_own_row_only_and_under_its_own_key() {
        let keys_ab = SecretKeys::parse(&keys(&["a", "b"])).unwrap();
        let sealed = keys_ab.seal("peer", "shop", b"secret").unwrap();
        assert_eq!(sealed.key_id, "a");
        assert!(!sealed.bytes.windows(6).any(|window| window == b"secret"));
        assert_eq!(keys_ab.open("peer", "shop", &sealed).unwrap(), b"secret");
        for (kind, name) in [("peer", "other"), ("draft", "shop"), ("peers", "hop")] {
            assert_eq!(keys_ab.open(kind, name, &sealed).unwrap_err().code(), Code::SecretKeyMissing);
        }
        let mut altered = sealed;
        altered.bytes[NONCE_BYTES] ^= 1;
        assert!(keys_ab.open("peer", "shop", &altered).is_err());
        altered.bytes.truncate(3);
        assert!(keys_ab.open("peer", "shop", &altered).is_err());
    }

    #[test]
    fn keys_are_rotated_by_putting_a_new_one_in_front() {
        let sealed = SecretKeys::parse(&keys(&["old"])).unwrap().seal("peer", "p", b"x").unwrap();
        let both = SecretKeys::parse(&keys(&["new", "old"])).unwrap();
        assert_eq!(both.open("peer", "p", &sealed).unwrap(), b"x");
        assert_eq!(both.seal("peer", "p", b"x").unwrap().key_id, "new");
        let error = SecretKeys::parse(&keys(&["new"])).unwrap().open("peer", "p", &sealed).unwrap_err();
        assert_eq!(error.code(), Code::SecretKeyMissing);
        assert!(error.message().contains("\"old\""), "{error}");
    }

    #[test]
    fn two_seals_of_one_value_differ() {
        let keys = SecretKeys::parse(&SecretKeys::generate()).unwrap();
        assert_ne!(keys.seal("peer", "p", b"x").unwrap(), keys.seal("peer", "p", b"x").unwrap());
    }

    #[test]
    fn bad_keys_are_refused_without_showing_them() {
        let short = STANDARD.encode([1; 16]);
        for text in ["", "abc", &format!("a:{short}"), &keys(&["a", "a"]), ":AAAA", "a b:AAAA", "a:A:A"] {
            let error = SecretKeys::parse(text).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{text}");
            assert!(!error.message().contains(&short), "{error}");
        }
        let debug = format!("{:?}", SecretKeys::parse(&keys(&["a", "b"])).unwrap());
        assert_eq!(debug, r#"SecretKeys["a", "b"]"#);
    }
}
