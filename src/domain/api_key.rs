//! API keys, which scripts send instead of an access token. Only a key's SHA-256 hash is stored.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    domain::{ApiKeyId, Scopes, UserId},
    secret::Secret,
};

/// A stored API key, without the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// The id.
    pub id: ApiKeyId,
    /// A display name.
    pub name: Option<String>,
    /// The first characters of the key, for recognition.
    pub prefix: String,
    /// The user whose products the key may change.
    pub user_id: UserId,
    /// The permissions of the key.
    pub scopes: Scopes,
    /// The creation time.
    pub created_at: Timestamp,
    /// The time of the last use, accurate to about ten minutes.
    pub last_used_at: Option<Timestamp>,
    /// The time after which the key is invalid.
    pub expires_at: Option<Timestamp>,
    /// The time of revocation.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    /// Returns whether the key is valid at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// An API key to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    /// A display name.
    pub name: Option<String>,
    /// The user whose products the key may change.
    pub user_id: UserId,
    /// The permissions of the key.
    pub scopes: Scopes,
    /// How long the key is valid; unlimited if absent.
    pub lifetime: Option<Duration>,
}

/// The secret key: `pm_` and 64 hex digits. It is shown once and never logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyText(Secret<String>);

impl KeyText {
    /// Prefix of every key, for secret scanners and to distinguish it from access tokens.
    pub const START: &str = "pm_";

    const SHOWN: usize = 11;

    /// Creates a key from random bytes.
    pub fn of(random: [u8; 32]) -> Self {
        Self(Secret::new(format!("{}{}", Self::START, hex::encode(random))))
    }

    /// Parses a key from a request; `None` if it is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::START)?;
        let fits = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(Secret::new(text.to_owned())))
    }

    /// Returns the part that may be shown.
    pub fn prefix(&self) -> &str {
        &self.reveal()[..Self::SHOWN]
    }

    /// Returns the hash that is stored.
    /// The key has too much entropy for guessing, so one round of SHA-256 is enough. A lookup by hash also reveals
    /// nothing about the key by its timing.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(self.reveal()))
    }

    /// Returns the whole key.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_unchanged_by_parsing_and_hidden_in_debug_output() {
        let key = KeyText::of([0xab; 32]);
        assert_eq!(KeyText::parse(key.reveal()), Some(key.clone()));
        assert_eq!(key.prefix(), "pm_abababab");
        assert!(!format!("{key:?}").contains(&key.reveal()[12..]));
        for wrong in ["", "pm_", "pm_ab", &key.reveal().to_uppercase(), &format!("{}0", key.reveal())] {
            assert_eq!(KeyText::parse(wrong), None, "{wrong}");
        }
    }
}
