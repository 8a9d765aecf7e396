//! Executes requests with an idempotency key at most once.
//!
//! The key is stored in the transaction of the request. A failed request leaves no key, and a concurrent duplicate
//! waits for the outcome. The key's row stores the ids of the created resources, not the response. So rows stay small,
//! and the response is rebuilt from those ids.

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

/// Retention of keys.
const KEY_RETENTION: Duration = Duration::from_secs(24 * 3_600);
/// Keys deleted in one transaction.
const BATCH: i64 = 500;

/// The response to a request that creates products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The link of the created product.
    pub location: Option<String>,
    /// The JSON body.
    pub body: Bytes,
    /// Whether an earlier request with the same key was executed, so that this one created nothing.
    pub replayed: bool,
}

/// The result of a request, executed now or earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<T> {
    /// The created or changed resource.
    pub value: T,
    /// Whether an earlier request with the same key was executed, so that this one did nothing.
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
    /// Maximum number of stored keys per principal.
    pub const MAX_KEYS_PER_CALLER: i64 = 1_000_000;

    /// Stores the key of a request in `write`; if it was executed before, returns its result.
    pub(in crate::catalog) async fn made_before<T: DeserializeOwned>(
        &self,
        write: &Write,
        once: Option<&Once>,
        now: Timestamp,
    ) -> Result<Option<T>, Error> {
        let Some(once) = once else { return Ok(None) };
        idempotency::delete_if_expired(&**write, once, now.minus(KEY_RETENTION)).await?;
        if idempotency::take(&**write, once, now).await? {
            return Ok(None);
        }
        // The transaction that stored the key has committed. If the key has expired just now, the client must retry.
        let kept = idempotency::find(&**write, once).await?.ok_or_else(|| Error::contended("database"))?;
        if kept.fingerprint != once.fingerprint {
            return Err(Error::KeyReused);
        }
        serde_json::from_str(&kept.made).map(Some).map_err(Error::internal)
    }

    /// Stores the result of a request in the transaction that stored its key.
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

    /// Deletes keys older than a day, at most 4,000; returns how many.
    pub async fn delete_expired_keys(&self) -> Result<u64, Error> {
        const BATCHES: u64 = 8;
        let before = self.now().await?.minus(KEY_RETENTION);
        let mut deleted = 0;
        while deleted < BATCH.unsigned_abs() * BATCHES
            && idempotency::any_older(&self.database().read(), before).await?
        {
            let write = self.database().begin().await?;
            let some = idempotency::delete_expired(&*write, before, BATCH).await?;
            write.commit().await?;
            if some == 0 {
                break;
            }
            deleted += some;
        }
        Ok(deleted)
    }

    /// Deletes the oldest keys of principals with more than `most`; returns how many. Reads all keys.
    pub async fn trim_keys(&self, most: i64) -> Result<u64, Error> {
        let mut deleted = 0;
        for (scope, keys) in idempotency::callers_with_more(&self.database().read(), most).await? {
            let mut excess = keys - most;
            while excess > 0 {
                let write = self.database().begin().await?;
                let some = idempotency::delete_oldest(&*write, &scope, excess.min(BATCH)).await?;
                write.commit().await?;
                if some == 0 {
                    break;
                }
                deleted += some;
                excess -= i64::try_from(some).unwrap_or(i64::MAX);
            }
        }
        Ok(deleted)
    }
}
