//! The issuer's keys: fetched with the first token, refreshed beside the requests once their time is over, and fetched
//! anew for a key that is not known, but never more often than the configured pause allows, whatever tokens arrive.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use reqwest::Url;
use serde_json::Value;
use tokio::{sync::Mutex as AsyncMutex, time::timeout};

use super::{Config, Error, Flaw, document::Documents};

/// Keys are looked for anew after this, unless their answer says something else between the bounds below.
const LIFETIME: Duration = Duration::from_secs(600);
const LEAST_LIFETIME: Duration = Duration::from_secs(60);
const MOST_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
/// Keys that could not be refreshed for this long are no longer believed.
const MOST_STALE: Duration = Duration::from_secs(24 * 3_600);
/// Without any key there is nothing to go on with, and the issuer is asked again sooner.
const PAUSE_WITHOUT_KEYS: Duration = Duration::from_secs(5);
/// A request waits no longer for an issuer that is slow, lest strangers' tokens fill the server up with waiting ones.
const MOST_WAIT: Duration = Duration::from_secs(3);
const MOST_KEYS: usize = 100;
/// A shorter RSA key can be broken (NIST SP 800-131A).
const LEAST_RSA_BITS: usize = 2_048;

/// A public key by which tokens may be signed.
#[derive(Clone)]
pub(super) struct Key {
    /// What checks a signature.
    pub key: DecodingKey,
    id: Option<String>,
    algorithms: Vec<Algorithm>,
}

/// All keys of an issuer, as far as they are known.
#[derive(Debug)]
pub(super) struct Keys {
    documents: Documents,
    pause: Duration,
    known: Mutex<Known>,
    /// Whoever holds it asks the issuer; the others wait for what it learns.
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

    /// The keys by which a token may have been signed that names this algorithm, and perhaps a key.
    pub(super) async fn find(self: &Arc<Self>, algorithm: Algorithm, id: Option<&str>) -> Result<Vec<Key>, Error> {
        let (keys, is_old) = self.believed();
        if let Some(found) = keys.as_deref().map(|keys| fitting(keys, algorithm, id)).filter(|found| !found.is_empty())
        {
            if is_old && self.may_ask() {
                // The token need not wait for what it does not need.
                let keys = Arc::clone(self);
                tokio::spawn(async move { keys.refresh().await });
            }
            return Ok(found);
        }
        // In a task of its own: a client that hangs up must not cut off what others wait for.
        let keys = Arc::clone(self);
        let refreshed = tokio::spawn(async move { keys.refresh().await });
        if timeout(MOST_WAIT, refreshed).await.is_err() {
            let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(Error::Unavailable(Arc::new(late)));
        }
        match self.believed().0 {
            Some(keys) => {
                let found = fitting(&keys, algorithm, id);
                if found.is_empty() { Err(Error::Refused(Flaw::UnknownKey)) } else { Ok(found) }
            }
            None => Err(self.failure()),
        }
    }

    /// The keys that are believed at this moment, and whether it is time to look for newer ones.
    fn believed(&self) -> (Option<Arc<Vec<Key>>>, bool) {
        let known = self.known();
        let age = known.fetched_at.map_or(Duration::MAX, |moment| moment.elapsed());
        let keys = known.keys.clone().filter(|_| age < known.lifetime.saturating_add(MOST_STALE));
        (keys, age >= known.lifetime)
    }

    fn may_ask(&self) -> bool {
        let known = self.known();
        let pause = if known.keys.is_some() { self.pause } else { self.pause.min(PAUSE_WITHOUT_KEYS) };
        known.asked_at.is_none_or(|moment| moment.elapsed() >= pause)
    }

    /// Asks the issuer, if that may be done; returns when whoever asked has learnt something.
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
                tracing::info!(target: "pm::auth", keys = keys.len(), "the issuer's keys were fetched");
                known.keys = Some(Arc::new(keys));
                known.fetched_at = Some(Instant::now());
                known.lifetime = lifetime;
                known.failure = None;
            }
            Err(error) => {
                let reason = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(target: "pm::auth", reason, "the issuer's keys cannot be fetched");
                known.failure = Some(error);
                // They may have moved.
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
        let keys = published.keys.iter().take(MOST_KEYS).filter_map(Key::read).collect();
        Ok((keys, published.max_age.unwrap_or(LIFETIME).clamp(LEAST_LIFETIME, MOST_LIFETIME)))
    }

    fn failure(&self) -> Error {
        let unknown = || Error::Unavailable(Arc::new(std::io::Error::from(std::io::ErrorKind::NotConnected)));
        self.known().failure.clone().unwrap_or_else(unknown)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of this name that are made for the algorithm; without a name, all that are made for it.
fn fitting(keys: &[Key], algorithm: Algorithm, id: Option<&str>) -> Vec<Key> {
    let named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
    keys.iter().filter(named).filter(|key| key.algorithms.contains(&algorithm)).cloned().collect()
}

impl Key {
    /// A key that is published for signatures; `None` for what is of another kind, which is no fault of the others.
    fn read(json: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(json.clone()).ok()?;
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let verifies =
            jwk.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !signs || !verifies {
            return None;
        }
        let mut algorithms = made_for(&jwk.algorithm);
        if let Some(told) = jwk.common.key_algorithm {
            let told = Algorithm::try_from(told).ok()?;
            algorithms.retain(|algorithm| *algorithm == told);
        }
        if algorithms.is_empty() {
            return None;
        }
        if let Some(bits) = rsa_bits(&jwk.algorithm).filter(|bits| *bits < LEAST_RSA_BITS) {
            let key_id = jwk.common.key_id.as_deref().unwrap_or("without an id");
            tracing::warn!(
                target: "pm::auth",
                key_id,
                bits,
                "the issuer's RSA key {key_id} is refused: it has {bits} bits, and at least {LEAST_RSA_BITS} are needed"
            );
            return None;
        }
        Some(Self { key: DecodingKey::from_jwk(&jwk).ok()?, id: jwk.common.key_id, algorithms })
    }
}

/// The bits of an RSA key's modulus; 0 if it cannot be read, and `None` for keys of another kind.
fn rsa_bits(parameters: &AlgorithmParameters) -> Option<usize> {
    let AlgorithmParameters::RSA(key) = parameters else { return None };
    let modulus = URL_SAFE_NO_PAD.decode(key.n.trim_end_matches('=')).unwrap_or_default();
    let start = modulus.iter().position(|byte| *byte != 0);
    Some(start.map_or(0, |start| (modulus.len() - start) * 8 - modulus[start].leading_zeros() as usize))
}

/// The algorithms that a key of this kind can be used with. A shared secret is none.
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
