//! Keys that scripts show instead of an access token. Only a key's SHA-256 is ever stored.

use std::{fmt, time::Duration};

use sha2::{Digest, Sha256};

use crate::{
    clock::Timestamp,
    domain::{ApiKeyId, Scopes, UserId},
};

/// A key as it is stored: everything but the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its number.
    pub id: ApiKeyId,
    /// What people call it.
    pub name: Option<String>,
    /// How the key begins, to tell it from others.
    pub prefix: String,
    /// Whose products it may change.
    pub user_id: UserId,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, to about ten minutes.
    pub last_used_at: Option<Timestamp>,
    /// From when on it is worth nothing.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it may be used at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

/// A key that may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewApiKey {
    /// What people call it.
    pub name: Option<String>,
    /// Whose products it may change.
    pub user_id: UserId,
    /// What it may do.
    pub scopes: Scopes,
    /// How long it may be used; for ever unless set.
    pub lifetime: Option<Duration>,
}

/// The key itself: `pm_` and 64 digits. It is shown once and never written to a log.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText(String);

impl KeyText {
    /// How every key begins, so that it is told from an access token and found by scanners for secrets.
    pub const START: &str = "pm_";

    const SHOWN: usize = 11;

    /// A key of these random bytes.
    pub fn of(random: [u8; 32]) -> Self {
        Self(format!("{}{}", Self::START, hex::encode(random)))
    }

    /// A key that somebody shows; `None` for what cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::START)?;
        let fits = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        fits.then(|| Self(text.to_owned()))
    }

    /// The part that may be shown.
    pub fn prefix(&self) -> &str {
        &self.0[..Self::SHOWN]
    }

    /// What is stored of it. The key has more entropy than anybody can try, so one round is enough, and a look-up by this
    /// tells nobody by its time how close a guess was.
    pub fn hash(&self) -> String {
        hex::encode(Sha256::digest(&self.0))
    }

    /// The whole key.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyText({}…)", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_does_not_show_itself() {
        let key = KeyText::of([0xab; 32]);
        assert_eq!(KeyText::parse(key.reveal()), Some(key.clone()));
        assert_eq!(key.prefix(), "pm_abababab");
        assert!(!format!("{key:?}").contains(&key.reveal()[12..]));
        for wrong in ["", "pm_", "pm_ab", &key.reveal().to_uppercase(), &format!("{}0", key.reveal())] {
            assert_eq!(KeyText::parse(wrong), None, "{wrong}");
        }
    }
}
