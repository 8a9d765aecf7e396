//! Requests that bear an idempotency key: carried out once, however often and by however many at a time they are sent. The
//! key is taken in the transaction of what it guards, so that a request that fails or dies leaves no key behind, and one that
//! comes meanwhile waits for the outcome.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    catalog::{Catalog, Error},
    clock::Timestamp,
    db::{
        Write,
        idempotency::{self, Kept, Once},
    },
};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_secs(24 * 3_600);

/// What is answered to a request that makes something, once or again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Where what was made is found.
    pub location: Option<String>,
    /// The body, JSON.
    pub body: Bytes,
    /// Whether the request was answered before, and nothing was made this time.
    pub replayed: bool,
}

impl Catalog {
    /// Takes the key within `write`, or answers as it was answered before.
    pub(super) async fn answered(&self, write: &Write, once: &Once, now: Timestamp) -> Result<Option<Answer>, Error> {
        idempotency::forget_old(&**write, once, now.minus(KEPT)).await?;
        if idempotency::take(&**write, once, now).await? {
            return Ok(None);
        }
        // Whoever took it has committed, or the key could have been taken; one that was just forgotten comes too early.
        let kept = idempotency::find(&**write, once).await?.ok_or_else(|| Error::busy("database"))?;
        if kept.fingerprint != once.fingerprint {
            return Err(Error::KeyReused);
        }
        let status = u16::try_from(kept.status).unwrap_or(500);
        Ok(Some(Answer { status, location: kept.location, body: kept.body.into(), replayed: true }))
    }

    /// Notes what is answered within the transaction that took the key.
    pub(super) async fn keep_answer(&self, write: &Write, once: &Once, answer: &Answer) -> Result<(), Error> {
        let body = String::from_utf8(answer.body.to_vec()).map_err(Error::internal)?;
        let kept = Kept {
            fingerprint: once.fingerprint.clone(),
            status: answer.status.into(),
            location: answer.location.clone(),
            body,
        };
        Ok(idempotency::keep(&**write, once, kept).await?)
    }

    /// Forgets keys that are older than a day, up to 4,000 of them; answers how many.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn forget_keys(&self) -> Result<u64, Error> {
        const BATCH: u64 = 500;
        const BATCHES: u64 = 8;
        let before = self.now().await?.minus(KEPT);
        let mut forgotten = 0;
        while forgotten < BATCH * BATCHES && idempotency::any_older(&self.database().read(), before).await? {
            let write = self.database().begin().await?;
            let some = idempotency::forget(&*write, before, 500).await?;
            write.commit().await?;
            if some == 0 {
                break;
            }
            forgotten += some;
        }
        Ok(forgotten)
    }
}
