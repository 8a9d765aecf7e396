//! Verifies OAuth 2.0 access tokens (RFC 9068): issuer, audience, signature and lifetime.
//!
//! This module knows no HTTP request and no database; other modules decide what scopes permit.

mod claims;
mod document;
mod error;
mod keys;
mod token;

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use sha2::{Digest, Sha256};

pub use claims::ClaimNames;
pub use error::{Error, RejectionReason};

use crate::domain::{Scopes, UserId};
use keys::Keys;

/// Configures which tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Issuer identifier, equal to the tokens' `iss`; base of the metadata URLs.
    pub issuer: String,
    /// Required value in the tokens' `aud`. If `None`, tokens must be issued to one of `client_ids`.
    pub audience: Option<String>,
    /// Clients to which tokens may be issued; any client if empty.
    pub client_ids: Vec<String>,
    /// Names of the claims for user and scopes.
    pub claims: ClaimNames,
    /// Whether any `typ` is accepted; otherwise it must be `at+jwt`.
    pub any_type: bool,
    /// Minimum time between two requests for the issuer's keys.
    pub pause: Duration,
}

impl Config {
    /// Accepts access tokens that `issuer` issued for `audience`.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            audience: Some(audience.into()),
            client_ids: Vec::new(),
            claims: ClaimNames::default(),
            any_type: false,
            pause: PAUSE,
        }
    }
}

/// Principal of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// User id, from `sub` or the configured claim.
    pub user_id: UserId,
    /// Granted scopes of this service.
    pub scopes: Scopes,
}

/// Default minimum time between two requests for an issuer's keys.
pub const PAUSE: Duration = Duration::from_secs(60);
/// Maximum length of a token, in bytes; a longer one is not parsed.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Lifetime of a cached verification: a revoked key is accepted for at most this much longer.
const VERIFICATION_LIFETIME: Duration = Duration::from_secs(300);
const MAX_CACHED_VERIFICATIONS: u64 = 10_000;

/// Verifies the tokens of one issuer; clones share its keys.
#[derive(Clone, Debug)]
pub struct Issuer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    keys: Arc<Keys>,
    /// Verified tokens by their SHA-256, so that repeated requests skip the signature check.
    known: Cache<[u8; 32], Known>,
}

#[derive(Clone, Debug)]
struct Known {
    subject: Arc<Subject>,
    expires_at: u64,
}

impl Issuer {
    /// Creates an issuer; its metadata is fetched with the first token.
    ///
    /// # Errors
    /// [`Error::Setup`] if the HTTP client cannot be created.
    pub fn new(config: Config) -> Result<Self, Error> {
        let keys = Arc::new(Keys::new(&config)?);
        let known = Cache::builder().max_capacity(MAX_CACHED_VERIFICATIONS).time_to_live(VERIFICATION_LIFETIME).build();
        Ok(Self(Arc::new(Inner { config, keys, known })))
    }

    /// Returns the issuer's identifier.
    pub fn identifier(&self) -> &str {
        &self.0.config.issuer
    }

    /// Returns the required audience.
    pub fn audience(&self) -> Option<&str> {
        self.0.config.audience.as_deref()
    }

    /// Verifies `token` and returns its principal.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason if the token is invalid; [`Error::Unavailable`] if the issuer's keys were
    /// never fetched.
    pub async fn verify(&self, token: &str) -> Result<Arc<Subject>, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::Refused(RejectionReason::TooLong));
        }
        let Inner { config, keys, known } = &*self.0;
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = token::now();
        if let Some(found) = known.get(&digest)
            && !claims::has_expired(found.expires_at, now)
        {
            return Ok(found.subject);
        }
        let unverified = token::Unverified::parse(token, config).map_err(Error::Refused)?;
        let candidates = keys.find(unverified.algorithm, unverified.key_id.as_deref()).await?;
        let (subject, expires_at) = unverified.verify(&candidates, config, now).map_err(Error::Refused)?;
        let subject = Arc::new(subject);
        known.insert(digest, Known { subject: Arc::clone(&subject), expires_at });
        Ok(subject)
    }
}
