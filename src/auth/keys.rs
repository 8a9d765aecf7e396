//! Fetches and caches the issuer's keys.
//!
//! Keys are fetched with the first token, refreshed in the background when they expire, and fetched again for an
//! unknown key id, but never more often than the configured pause.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use parking_lot::{Mutex, MutexGuard};
use reqwest::Url;
use serde_json::Value;
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

use super::{Config, Error, RejectionReason, document::Documents};

/// Lifetime of fetched keys; the response's `max-age` overrides it within the limits below.
const LIFETIME: Duration = Duration::from_secs(600);
const MIN_LIFETIME: Duration = Duration::from_secs(60);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Expired keys are used for this much longer if they cannot be refreshed.
const MAX_STALE: Duration = Duration::from_secs(24 * 3_600);
/// Pause between requests while no keys are known: shorter, because no token can be verified.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(5);
/// Maximum wait of a request for a slow issuer, so that waiting requests do not exhaust the server.
const MAX_WAIT: Duration = Duration::from_secs(3);
const MAX_KEYS: usize = 100;
/// Minimum bits of an RSA key (NIST SP 800-131A).
const MIN_RSA_BITS: usize = 2_048;

/// A public key that verifies tokens.
#[derive(Clone)]
pub(super) struct Key {
    /// Key for verifying a signature.
    pub key: DecodingKey,
    id: Option<String>,
    algorithms: Vec<Algorithm>,
}

/// Known keys of an issuer.
#[derive(Debug)]
pub(super) struct Keys {
    documents: Documents,
    pause: Duration,
    known: Mutex<Known>,
    /// Lock for fetching keys: one task asks the issuer, the others wait for its result.
    asking: AsyncMutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    keys: Option<Url>,
}

#[derive(Debug, Default)]
struct Known {
    keys: Option<Arc<Vec<Key>>>,
    fetched_at: Option<Instant>,
    lifetime: Duration,
    asked_at: Option<Instant>,
    failure: Option<Error>,
}

impl Keys {
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        let documents = Documents::new(&config.issuer)?;
        Ok(Self { documents, pause: config.pause, known: Mutex::default(), asking: AsyncMutex::default() })
    }

    /// Returns candidate keys for a token with this algorithm and key id.
    pub(super) async fn find(self: &Arc<Self>, algorithm: Algorithm, id: Option<&str>) -> Result<Vec<Key>, Error> {
        let (keys, is_old) = self.believed();
        if let Some(found) = keys.as_deref().map(|keys| fitting(keys, algorithm, id)).filter(|found| !found.is_empty())
        {
            if is_old && self.may_ask() {
                // Refresh in the background: this token does not need the result.
                let keys = Arc::clone(self);
                tokio::spawn(async move { keys.refresh().await });
            }
            return Ok(found);
        }
        // A separate task: a client that disconnects must not abort a fetch that others wait for.
        let keys = Arc::clone(self);
        let refreshed = tokio::spawn(async move { keys.refresh().await });
        if timeout(MAX_WAIT, refreshed).await.is_err() {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(Error::Unavailable(Arc::new(late)));
        }
        match self.believed().0 {
            Some(keys) => {
                let found = fitting(&keys, algorithm, id);
                if found.is_empty() { Err(Error::Refused(RejectionReason::UnknownKey)) } else { Ok(found) }
            }
            None => Err(self.failure()),
        }
    }

    /// Returns the usable keys, and whether they are due for a refresh.
    fn believed(&self) -> (Option<Arc<Vec<Key>>>, bool) {
        let known = self.known();
        let age = known.fetched_at.map_or(Duration::MAX, |moment| moment.elapsed());
        let keys = known.keys.clone().filter(|_| age < known.lifetime.saturating_add(MAX_STALE));
        (keys, age >= known.lifetime)
    }

    fn may_ask(&self) -> bool {
        let known = self.known();
        let pause = if known.keys.is_some() { self.pause } else { self.pause.min(PAUSE_WITHOUT_KEYS) };
        known.asked_at.is_none_or(|moment| moment.elapsed() >= pause)
    }

    /// Fetches the keys unless the pause forbids it; waits if another task is fetching them.
    async fn refresh(&self) {
        let mut place = self.asking.lock().await;
        if !self.may_ask() {
            return;
        }
        self.known().asked_at = Some(Instant::now());
        let outcome = self.fetch(&mut place).await;
        let mut known = self.known();
        match outcome {
            Ok((keys, lifetime)) => {
                tracing::info!(target: "pm::auth", keys = keys.len(), "fetched the issuer's keys");
                known.keys = Some(Arc::new(keys));
                known.fetched_at = Some(Instant::now());
                known.lifetime = lifetime;
                known.failure = None;
            }
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(target: "pm::auth", reason, "cannot fetch the issuer's keys");
                known.failure = Some(error);
                // The URL of the keys may have changed.
                place.keys = None;
            }
        }
    }

    async fn fetch(&self, place: &mut Place) -> Result<(Vec<Key>, Duration), Error> {
        let url = match place.keys.take() {
            Some(url) => url,
            None => self.documents.keys_address().await?,
        };
        let published = self.documents.keys(&url).await?;
        place.keys = Some(url);
        let keys = published.keys.iter().take(MAX_KEYS).filter_map(Key::read).collect();
        Ok((keys, published.max_age.unwrap_or(LIFETIME).clamp(MIN_LIFETIME, MAX_LIFETIME)))
    }

    fn failure(&self) -> Error {
        let unknown = || Error::Unavailable(Arc::new(std::io::Error::from(std::io::ErrorKind::NotConnected)));
        self.known().failure.clone().unwrap_or_else(unknown)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

/// Returns keys with this id that fit the algorithm; any id if `id` is `None`.
fn fitting(keys: &[Key], algorithm: Algorithm, id: Option<&str>) -> Vec<Key> {
    let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
    keys.iter().filter(named).filter(|key| key.algorithms.contains(&algorithm)).cloned().collect()
}

impl Key {
    /// Parses a key for signatures; returns `None` for other keys, which do not invalidate the set.
    fn read(json: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let verifies =
            jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let mut algorithms = made_for(&jwk.algorithm);
        if let Some(declared) = jwk.common.key_algorithm {
            let declared = Algorithm::try_from(declared).ok()?;
            algorithms.retain(|algorithm| *algorithm == declared);
        }
        if algorithms.is_empty() {
            return None;
        }
        if let Some(bits) = rsa_bits(&jwk.algorithm).filter(|bits| *bits < MIN_RSA_BITS) {
            let key_id = jwk.common.key_id.as_deref().unwrap_or("without an id");
            tracing::warn!(
                target: "pm::auth",
                key_id,
                bits,
                "ignored the issuer's RSA key {key_id}: it has {bits} bits; the minimum is {MIN_RSA_BITS}"
            );
            return None;
        }
        Some(Self { key: DecodingKey::from_jwk(&jwk).ok()?, id: jwk.common.key_id, algorithms })
    }
}

/// Returns the bits of an RSA key's modulus: 0 if it is unreadable, `None` for other keys.
fn rsa_bits(parameters: &AlgorithmParameters) -> Option<usize> {
    let AlgorithmParameters::RSA(key) = parameters else { return None };
    let modulus = URL_SAFE_NO_PAD.decode(key.n.trim_end_matches('=')).unwrap_or_default();
    let start = modulus.iter().position(|byte| *byte != 0);
    Some(start.map_or(0, |start| (modulus.len() - start) * 8 - modulus[start].leading_zeros() as usize))
}

/// Returns the algorithms for a key of this kind; none for a shared secret.
fn made_for(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    match parameters {
        AlgorithmParameters::RSA(_) => vec![RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![ES256],
            EllipticCurve::P384 => vec![ES384],
            _ => Vec::new(),
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![EdDSA],
        _ => Vec::new(),
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(bytes: usize, first: u8) -> Value {
        let modulus: Vec<_> = std::iter::once(first).chain(std::iter::repeat_n(0xab, bytes - 1)).collect();
        json!({"kty": "RSA", "use": "sig", "kid": "k", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB"})
    }

    #[test]
    fn rsa_keys_under_2048_bits_are_refused() {
        assert!(Key::read(&rsa(256, 0x80)).is_some(), "2048 bits");
        assert!(Key::read(&rsa(512, 0x80)).is_some(), "4096 bits");
        assert!(Key::read(&rsa(256, 0x7f)).is_none(), "2047 bits");
        assert!(Key::read(&rsa(256, 0x00)).is_none(), "2040 bits behind a zero");
        assert!(Key::read(&rsa(128, 0x80)).is_none(), "1024 bits");
        assert!(Key::read(&json!({"kty": "RSA", "n": "", "e": "AQAB"})).is_none(), "no modulus");
    }
}
