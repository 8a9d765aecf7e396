//! One token: its parts taken from each other, the header judged before any key is looked for, the signature before any
//! claim is believed. It fetches nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

use super::{Config, Flaw, Subject, claims::Claims, keys::Key};
use crate::clock::Timestamp;

/// Those by which a token may be signed: all with a private key that the issuer alone has.
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

/// A token whose header is right and whose signature nobody has looked at. Keys that the header itself brings or points to
/// (`jwk`, `jku`, `x5u`, `x5c`) are not even read.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    /// The algorithm that it says it was signed by.
    pub algorithm: Algorithm,
    /// The name of the key, if it names one.
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
    /// Takes a token apart and judges its header.
    pub(super) fn parse(token: &'a str, config: &Config) -> Result<Self, Flaw> {
        let (message, signature) = token.rsplit_once('.').ok_or(Flaw::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Flaw::Malformed)?;
        if payload.contains('.') {
            return Err(Flaw::Malformed);
        }
        let header: Header = read(header)?;
        if header.crit.is_some() {
            return Err(Flaw::Critical);
        }
        let known = ALGORITHMS.iter().find(|(name, _)| *name == header.alg);
        let algorithm = known.ok_or(Flaw::Algorithm)?.1;
        if !config.any_type && !header.typ.as_deref().is_some_and(is_access_token) {
            return Err(Flaw::Type);
        }
        Ok(Self { algorithm, key_id: header.kid, message, payload, signature })
    }

    /// Checks the signature by whichever of `keys` made it, and then the claims. Answers the subject and the second in
    /// which the token expires.
    pub(super) fn verify(&self, keys: &[Key], config: &Config, now: u64) -> Result<(Subject, u64), Flaw> {
        let signed = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), key, self.algorithm).unwrap_or(false)
        };
        if !keys.iter().any(|key| signed(&key.key)) {
            return Err(Flaw::Signature);
        }
        read::<Claims>(self.payload)?.check(config, now)
    }
}

/// The second in which we are.
pub(super) fn now() -> u64 {
    u64::try_from(Timestamp::now().0 / 1_000_000).unwrap_or(0)
}

/// `application/` may be left out, and letters are of any case (RFC 7515, section 4.1.9).
fn is_access_token(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    typ.strip_prefix("application/").unwrap_or(&typ) == "at+jwt"
}

fn read<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, Flaw> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Flaw::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Flaw::Malformed)
}
