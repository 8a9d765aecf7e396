//! Encrypts secrets in the database with XChaCha20-Poly1305, so that a copy of the database reveals none.
//!
//! A stored secret is `enc1:KEY:DATA`. `KEY` is the name of the key; it reveals nothing about the key. `DATA` is Base64
//! of a random 24-byte nonce, the ciphertext and its tag. The tag also authenticates the row, so a secret copied to
//! another row cannot be decrypted there.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use chacha20poly1305::{
    KeyInit as _, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Payload},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::secret::Secret;

const PREFIX: &str = "enc1:";
const NONCE_BYTES: usize = 24;
/// Bytes of a key's name.
const NAME_BYTES: usize = 6;

/// Keys for secrets: the first encrypts, all decrypt, so keys can be rotated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretKeys(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    name: String,
    bytes: Secret<[u8; 32]>,
}

/// Why decryption failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The secret was encrypted with an unknown key.
    #[error("no key in PM_SECRET_KEY decrypts it (it was encrypted with key {name})")]
    NoKey {
        /// Name of that key.
        name: String,
    },
    /// The secret was modified or copied to another row.
    #[error("it is damaged, or belongs to another row")]
    Damaged,
}

impl SecretKeys {
    /// Minimum characters of a key.
    pub const MIN_CHARS: usize = 32;

    /// Parses comma-separated keys.
    ///
    /// # Errors
    /// A message if there is no key or one is too short.
    pub fn parse(text: &str) -> Result<Self, String> {
        let keys: Vec<_> = text.split(',').map(str::trim).collect();
        if keys.iter().any(|key| key.chars().count() < Self::MIN_CHARS) {
            return Err(format!("has a key with fewer than {} characters", Self::MIN_CHARS));
        }
        Ok(Self(keys.into_iter().map(Key::of).collect()))
    }

    /// Appends the keys of `others`, which only decrypt.
    #[must_use]
    pub fn then(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Encrypts `plain` with the first key, bound to `context`.
    pub fn encrypt(&self, context: &str, plain: &str) -> String {
        let key = self.0.first().expect("`parse` refuses an empty list");
        let random = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let nonce = &random[..NONCE_BYTES];
        let payload = Payload { msg: plain.as_bytes(), aad: context.as_bytes() };
        let encrypted = XChaCha20Poly1305::new(key.bytes.reveal().into()).encrypt(XNonce::from_slice(nonce), payload);
        let encrypted = encrypted.expect("a text in memory is shorter than 256 GiB");
        format!("{PREFIX}{}:{}", key.name, STANDARD_NO_PAD.encode([nonce, &encrypted].concat()))
    }

    /// Decrypts a result of [`encrypt`](Self::encrypt) with the same `context`.
    pub fn decrypt(&self, context: &str, stored: &str) -> Result<String, Error> {
        let (name, data) = parts(stored).ok_or(Error::Damaged)?;
        let data = STANDARD_NO_PAD.decode(data).map_err(|_| Error::Damaged)?;
        let (nonce, encrypted) = data.split_at_checked(NONCE_BYTES).ok_or(Error::Damaged)?;
        let key = self.0.iter().find(|key| key.name == name).ok_or_else(|| Error::NoKey { name: shown(name) })?;
        let payload = Payload { msg: encrypted, aad: context.as_bytes() };
        let plain = XChaCha20Poly1305::new(key.bytes.reveal().into()).decrypt(XNonce::from_slice(nonce), payload);
        plain.ok().and_then(|plain| String::from_utf8(plain).ok()).ok_or(Error::Damaged)
    }

    /// Returns whether `stored` was encrypted with the first key.
    pub fn is_current(&self, stored: &str) -> bool {
        parts(stored).is_some_and(|(name, _)| self.0.first().is_some_and(|key| key.name == name))
    }
}

/// Returns whether `stored` is an encrypted secret.
pub fn is_encrypted(stored: &str) -> bool {
    stored.starts_with(PREFIX)
}

/// Returns the error for an encrypted secret if no keys are configured.
pub fn without_keys(stored: &str) -> Error {
    parts(stored).map_or(Error::Damaged, |(name, _)| Error::NoKey { name: shown(name) })
}

/// Splits a stored secret into key name and data.
fn parts(stored: &str) -> Option<(&str, &str)> {
    stored.strip_prefix(PREFIX)?.split_once(':')
}

/// Sanitizes a key name for display; a manually edited row may contain anything.
fn shown(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).take(2 * NAME_BYTES).collect()
}

impl Key {
    fn of(text: &str) -> Self {
        let derive = |label: &[u8]| {
            let mac = <Hmac<Sha256> as Mac>::new_from_slice(text.as_bytes());
            let mut mac = mac.expect("a key of any length is taken");
            mac.update(label);
            mac.finalize().into_bytes()
        };
        let name = hex::encode(&derive(b"pm secrets: name of the key")[..NAME_BYTES]);
        Self { name, bytes: Secret::new(derive(b"pm secrets: encryption").into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "an old key of 32 characters or so";
    const NEW: &str = "a new key of 32 characters or more";

    fn keys(text: &str) -> SecretKeys {
        SecretKeys::parse(text).expect("keys")
    }

    #[test]
    fn every_key_decrypts_and_the_first_encrypts() {
        let stored = keys(OLD).encrypt("webhook 1", "whsec_secret");
        assert!(is_encrypted(&stored) && !stored.contains("whsec_secret"));
        let both = keys(&format!("{NEW}, {OLD}"));
        assert_eq!(both.decrypt("webhook 1", &stored).as_deref(), Ok("whsec_secret"));
        assert!(!both.is_current(&stored) && keys(OLD).is_current(&stored));
        let again = both.encrypt("webhook 1", "whsec_secret");
        assert!(both.is_current(&again));
        assert_eq!(keys(NEW).decrypt("webhook 1", &again).as_deref(), Ok("whsec_secret"));
        assert!(matches!(keys(OLD).decrypt("webhook 1", &again), Err(Error::NoKey { .. })));
        assert_ne!(again, both.encrypt("webhook 1", "whsec_secret"), "each has its own nonce");
    }

    #[test]
    fn a_modified_or_moved_secret_cannot_be_decrypted() {
        let keys = keys(NEW);
        let stored = keys.encrypt("webhook 1", "whsec_secret");
        assert_eq!(keys.decrypt("webhook 2", &stored), Err(Error::Damaged));
        for place in 0..stored.len() {
            let mut changed = stored.clone().into_bytes();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(keys.decrypt("webhook 1", &changed).is_err(), "byte {place}");
            assert!(keys.decrypt("webhook 1", &stored[..place]).is_err(), "the first {place} bytes");
        }
    }

    #[test]
    fn short_keys_are_refused_and_no_key_is_shown() {
        for text in ["", "short", &format!("{NEW},"), &format!("{NEW},short")] {
            assert!(SecretKeys::parse(text).is_err(), "{text}");
        }
        assert!(format!("{:?}", keys(NEW)).ends_with("bytes: *** }])"));
        assert!(!keys(NEW).encrypt("", "").contains("new key"));
    }
}
