//! Parses and verifies one token: header first, then the signature, then the claims. It fetches nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::{Config, RejectionReason, Subject, claims::Claims, keys::Key};
use crate::clock::Timestamp;

/// Accepted signature algorithms; all use a private key of the issuer.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// A parsed token with a valid header and an unverified signature. Keys in or referenced by the header (`jwk`, `jku`,
/// `x5u`, `x5c`) are ignored.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    /// Algorithm named in the header.
    pub algorithm: Algorithm,
    /// Key id in the header, if any.
    pub key_id: Option<String>,
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<serde::de::IgnoredAny>,
}

impl<'a> Unverified<'a> {
    /// Parses a token and checks its header.
    pub(super) fn parse(token: &'a str, config: &Config) -> Result<Self, RejectionReason> {
        let (message, signature) = token.rsplit_once('.').ok_or(RejectionReason::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(RejectionReason::Malformed)?;
        if payload.contains('.') {
            return Err(RejectionReason::Malformed);
        }
        let header: Header = read(header)?;
        if header.crit.is_some() {
            return Err(RejectionReason::Critical);
        }
        let known = ALGORITHMS.iter().find(|(name, _)| *name == header.alg);
        let algorithm = known.ok_or(RejectionReason::Algorithm)?.1;
        if !config.any_type && !header.typ.as_deref().is_some_and(is_access_token) {
            return Err(RejectionReason::Type);
        }
        Ok(Self { algorithm, key_id: header.kid, message, payload, signature })
    }

    /// Verifies the signature with any of `keys`, then the claims; returns the subject and the expiry time in seconds.
    pub(super) fn verify(&self, keys: &[Key], config: &Config, now: u64) -> Result<(Subject, u64), RejectionReason> {
        let signed = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm).unwrap_or(false)
        };
        if !keys.iter().any(|key| signed(&key.key)) {
            return Err(RejectionReason::Signature);
        }
        read::<Claims>(self.payload)?.check(config, now)
    }
}

/// Returns the current time in seconds.
pub(super) fn now() -> u64 {
    u64::try_from(Timestamp::now().0 / 1_000_000).unwrap_or(0)
}

/// Compares `typ` without case and with optional `application/` (RFC 7515, section 4.1.9).
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == "at+jwt"
}

fn read<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, RejectionReason> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| RejectionReason::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| RejectionReason::Malformed)
}
