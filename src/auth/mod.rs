//! Access tokens of OAuth 2.0: whether one was issued by the issuer that the operator trusts, for this service, and for
//! now (RFC 9068). It knows no HTTP request and no database; what a caller may do with its scopes is decided elsewhere.

mod claims;
mod document;
mod error;
mod keys;
mod token;

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;
use sha2::{Digest, Sha256};

pub use claims::ClaimNames;
pub use error::{Error, Flaw};

use crate::domain::{Scopes, UserId};
use keys::Keys;

/// Which tokens are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The issuer's identifier, as the tokens' `iss` has it; its documents are found under it.
    pub issuer: String,
    /// What the tokens' `aud` must name; without it they must have been issued to one of the clients.
    pub audience: Option<String>,
    /// The clients to which tokens may have been issued; any if it is empty.
    pub client_ids: Vec<String>,
    /// Which claims say whom a token speaks for and what that principal may do.
    pub claims: ClaimNames,
    /// Whether a token may leave out that it is an access token. Its `typ` must say `at+jwt` otherwise.
    pub any_type: bool,
    /// The shortest time between two requests for the issuer's keys.
    pub pause: Duration,
}

impl Config {
    /// Believes the tokens that `issuer` made for `audience`, if they say that they are access tokens.
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

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user that the token names, by its `sub` or by the claim that is set.
    pub user_id: UserId,
    /// The scopes of ours among those of the token.
    pub scopes: Scopes,
}

/// The shortest time between two requests for an issuer's keys.
pub const PAUSE: Duration = Duration::from_secs(60);
/// Longest token in bytes; nothing of a longer one is read.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// How long a token is believed without its signature being checked anew: a key that the issuer takes back is good for at
/// most this much longer.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
const REMEMBERED: u64 = 10_000;

/// Checks the tokens of one issuer; clones share its keys.
#[derive(Clone, Debug)]
pub struct Issuer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    keys: Arc<Keys>,
    /// Tokens that were found to be right, by their SHA-256, so that a cached answer stays quick.
    known: Cache<[u8; 32], Known>,
}

#[derive(Clone, Debug)]
struct Known {
    subject: Arc<Subject>,
    expires_at: u64,
}

impl Issuer {
    /// An issuer whose documents are fetched with the first token.
    ///
    /// # Errors
    /// [`Error::Setup`] if there can be no HTTP client.
    pub fn new(config: Config) -> Result<Self, Error> {
        let keys = Arc::new(Keys::new(&config)?);
        let known = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        Ok(Self(Arc::new(Inner { config, keys, known })))
    }

    /// The issuer's identifier.
    pub fn identifier(&self) -> &str {
        &self.0.config.issuer
    }

    /// What the tokens are made for.
    pub fn audience(&self) -> Option<&str> {
        self.0.config.audience.as_deref()
    }

    /// Whom `token` speaks for.
    ///
    /// # Errors
    /// [`Error::Refused`] says what is wrong with the token; [`Error::Unavailable`] that nobody knows, since the issuer's
    /// keys could never be fetched.
    pub async fn verify(&self, token: &str) -> Result<Arc<Subject>, Error> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::Refused(Flaw::TooLong));
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
