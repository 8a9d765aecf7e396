//! Requests that bear an idempotency key: carried out once, however often and by however many at a time they are sent.
//!
//! The key is taken in the transaction of what it guards, so that a request that fails or dies leaves no key behind, and one that
//! comes meanwhile waits for the outcome. Its row keeps the ids of what the request made, never an answer: a row stays small
//! however large the request was, and the answer is made again from those ids.

use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    db::{
        Write,
        products::idempotency::{self, Once},
    },
};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Keys that are deleted in one transaction.
const BATCH: i64 = 500;

/// What is answered to a request that makes products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Where what was made is found.
    pub location: Option<String>,
    /// The body, JSON.
    pub body: Bytes,
    /// Whether the request was carried out before, and nothing was made this time.
    pub replayed: bool,
}

/// What a request has made or changed, now or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// What it made or changed.
    pub value: T,
    /// Whether it was carried out before, and nothing was done this time.
    pub replayed: bool,
}

impl<T> Done<T> {
    pub(in crate::catalog) const fn now(value: T) -> Self {
        Self { value, replayed: false }
    }

    pub(in crate::catalog) const fn before(value: T) -> Self {
        Self { value, replayed: true }
    }
}

impl Catalog {
    /// Most keys that are remembered of one caller.
    pub const MAX_KEYS_PER_CALLER: i64 = 1_000_000;

    /// Takes the key of a request within `write`; if the request was carried out before, returns what it made.
    pub(in crate::catalog) async fn made_before<T: DeserializeOwned>(
        &self,
        write: &Write,
        once: Option<&Once>,
        now: Timestamp,
    ) -> Result<Option<T>, Error> {
        let Some(once) = once else { return Ok(None) };
        idempotency::forget_old(&**write, once, now.minus(KEPT)).await?;
        if idempotency::take(&**write, once, now).await? {
            return Ok(None);
        }
        // The transaction that took it has committed, or it could have been taken; one that was just forgotten comes too early.
        let kept = idempotency::find(&**write, once).await?.ok_or_else(|| Error::busy("database"))?;
        if kept.fingerprint != once.fingerprint {
            return Err(Error::KeyReused);
        }
        serde_json::from_str(&kept.made).map(Some).map_err(Error::internal)
    }

    /// Notes what the request has made within the transaction that took its key.
    pub(in crate::catalog) async fn keep_made<T: Serialize>(
        &self,
        write: &Write,
        once: Option<&Once>,
        made: &T,
    ) -> Result<(), Error> {
        let Some(once) = once else { return Ok(()) };
        let made = serde_json::to_string(made).map_err(Error::internal)?;
        Ok(idempotency::keep(&**write, once, made).await?)
    }

    /// Forgets keys that are older than a day, up to 4,000 of them; answers how many.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn forget_keys(&self) -> Result<u64, Error> {
        const BATCHES: u64 = 8;
        let before = self.now().await?.minus(KEPT);
        let mut forgotten = 0;
        while forgotten < BATCH.unsigned_abs() * BATCHES
            && idempotency::any_older(&self.database().read(), before).await?
        {
            let write = self.database().begin().await?;
            let some = idempotency::forget(&*write, before, BATCH).await?;
            write.commit().await?;
            if some == 0 {
                break;
            }
            forgotten += some;
        }
        Ok(forgotten)
    }

    /// Forgets the oldest keys of callers that have more than `most`; returns how many. It reads all keys.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn trim_keys(&self, most: i64) -> Result<u64, Error> {
        let mut forgotten = 0;
        for (scope, keys) in idempotency::callers_with_more(&self.database().read(), most).await? {
            let mut excess = keys - most;
            while excess > 0 {
                let write = self.database().begin().await?;
                let some = idempotency::forget_oldest(&*write, &scope, excess.min(BATCH)).await?;
                write.commit().await?;
                if some == 0 {
                    break;
                }
                forgotten += some;
                excess -= i64::try_from(some).unwrap_or(i64::MAX);
            }
        }
        Ok(forgotten)
    }
}
