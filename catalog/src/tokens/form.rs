//! The text form of a token, and its hash.
//!
//! Pure: no I/O but random numbers.
//!
//! `mlr_<id>_<secret>`: the prefix tells people and secret scanners what it is, the id (12 hexadecimal
//! digits) is no secret and finds the row, the secret (64 hexadecimal digits) is known to the holder alone.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use millrace_terms::Result;
use secrecy::{ExposeSecret, SecretString};

use crate::errors;

/// What every token begins with.
const PREFIX: &str = "mlr_";
/// Random bytes of an id: enough that none is drawn twice.
const ID_BYTES: usize = 6;
/// Random bytes of a secret: 256 bits cannot be guessed.
const SECRET_BYTES: usize = 32;
/// Random bytes of a hash's salt (RFC 9106, section 3.1).
const SALT_BYTES: usize = 16;

/// The cost of a hash: memory in KiB and passes. Less than what passwords need (RFC 9106, section 4): a secret
/// of 256 random bits is out of reach of any search, and verifying must not be a way to keep a server busy.
const MEMORY_KIB: u32 = 4 * 1024;
const PASSES: u32 = 1;

/// A token, taken apart.
#[derive(Clone)]
pub struct Presented {
    /// Finds the row.
    pub id: String,
    secret: SecretString,
}

impl std::fmt::Debug for Presented {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Presented").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Presented {
    /// Takes a token apart; `None` if it has not the form of one.
    pub fn parse(token: &str) -> Option<Self> {
        let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
        let is_hex = |text: &str, bytes: usize| {
            text.len() == 2 * bytes && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        (is_hex(id, ID_BYTES) && is_hex(secret, SECRET_BYTES))
            .then(|| Self { id: id.to_owned(), secret: SecretString::from(secret) })
    }

    /// Draws a new one.
    pub(super) fn generate() -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self {
            id: hex(&rand::random::<[u8; ID_BYTES]>()),
            secret: SecretString::from(hex(&rand::random::<[u8; SECRET_BYTES]>())),
        }
    }

    /// The whole token, as its holder gets it.
    pub(super) fn token(&self) -> SecretString {
        SecretString::from(format!("{PREFIX}{}_{}", self.id, self.secret.expose_secret()))
    }

    /// The hash to store. Takes milliseconds of computing.
    pub(super) fn hash(&self) -> Result<String> {
        let failed =
            |error: argon2::password_hash::Error| errors::internal(format!("hashing a token: {error}"));
        let salt = SaltString::encode_b64(&rand::random::<[u8; SALT_BYTES]>()).map_err(failed)?;
        let params = Params::new(MEMORY_KIB, PASSES, 1, None)
            .map_err(|error| errors::internal(format!("hashing a token: {error}")))?;
        let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password(self.secret.expose_secret().as_bytes(), &salt)
            .map_err(failed)?;
        Ok(hash.to_string())
    }

    /// Whether a stored hash is of this token. Takes milliseconds of computing: not for a thread of the runtime.
    pub fn matches(&self, hash: &str) -> bool {
        // The parameters are the hash's own, so that they can be raised without breaking older tokens.
        PasswordHash::new(hash).is_ok_and(|hash| {
            Argon2::default().verify_password(self.secret.expose_secret().as_bytes(), &hash).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_its_own_hash_only() {
        let (one, other) = (Presented::generate(), Presented::generate());
        let hash = one.hash().unwrap();
        let again = Presented::parse(one.token().expose_secret()).unwrap();
        assert_eq!(again.id, one.id);
        assert!(again.matches(&hash) && !other.matches(&hash) && !one.matches("nonsense"));
        assert!(
            !hash.contains(one.secret.expose_secret())
                && !format!("{one:?}").contains(one.secret.expose_secret())
        );
        assert_ne!(hash, one.hash().unwrap(), "every hash has its own salt");
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        let token = Presented::generate().token();
        let token = token.expose_secret();
        for bad in
            ["", "mlr_", "mlr__", &token[4..], &token[..80], &format!("{token}0"), &token.to_uppercase()]
        {
            assert!(Presented::parse(bad).is_none(), "{bad}");
        }
    }
}
