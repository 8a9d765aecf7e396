//! How every change of products ends: noted in its own transaction, committed, the cache told, only then answered.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    cache::Cache,
    catalog::{
        Catalog, Error,
        events::{self, PictureStep},
    },
    clock::Timestamp,
    db::{
        Write,
        cache::invalidations::{self, Invalidation},
        connection::notifications,
        products::touch,
    },
    domain::{NewEvent, ProductId},
    queue::NOTIFY_CHANNEL,
};

/// A transaction that takes longer hangs on a connection that will never answer.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(20);

/// Changes that a shared cache was told of and whose rows may go; they go together, a moment later.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<Invalidation>>);

impl Told {
    pub(super) fn add(&self, rows: &[Invalidation]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(rows);
    }

    pub(super) fn take(&self) -> Vec<Invalidation> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Catalog {
    /// Commits a change of `ids`: their version and, from their pictures, their status follow in the same transaction.
    /// Listeners are told that the products were updated.
    pub(crate) async fn commit_change(&self, write: Write, ids: &[ProductId], now: Timestamp) -> Result<(), Error> {
        self.commit_step(write, ids, &[], now).await
    }

    /// As [`Catalog::commit_change`]; of a product whose pictures have come this far, listeners are told that instead.
    pub(super) async fn commit_step(
        &self,
        write: Write,
        ids: &[ProductId],
        steps: &[PictureStep],
        now: Timestamp,
    ) -> Result<(), Error> {
        let touched = touch::touch(&*write, ids, now).await?;
        self.commit(write, ids, &events::of_change(&touched, steps, now), now).await
    }

    /// Commits a transaction that changes what readers see of `ids`, with what listeners are told of it, and tells the
    /// cache before anybody is answered.
    pub(super) async fn commit(
        &self,
        write: Write,
        ids: &[ProductId],
        events: &[NewEvent],
        now: Timestamp,
    ) -> Result<(), Error> {
        let deletes_entries = matches!(self.cache(), Cache::Redis(_));
        let rows = invalidations::record(&*write, ids, deletes_entries, now).await?;
        events::record_events(&write, events).await?;
        let committed = write.commit().await;
        // Also after a failure, for the same reason as below.
        self.0.happened.signal();
        if committed.is_ok() {
            self.tell_cache(&rows).await;
        } else {
            // The connection may have broken off after the commit went through. Deleting too much does no harm.
            let _ = self.cache().invalidate(ids).await;
        }
        Ok(committed?)
    }

    /// If the cache cannot be told, it is trusted by nobody in this process until it was, and the rows stay for
    /// [`Catalog::keep_cache_told`]: the change itself stands either way.
    pub(super) async fn tell_cache(&self, rows: &[Invalidation]) {
        let ids: Vec<_> = rows.iter().map(|row| row.product_id).collect();
        match self.cache().invalidate(&ids).await {
            // Other processes' in-process caches read the rows as their log.
            Ok(()) if matches!(self.cache(), Cache::Redis(_)) => self.0.told.add(rows),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "the cache could not be told of a change"),
        }
    }

    /// Lets waiting workers of other processes know of new jobs at the commit, where the database tells them.
    pub(crate) async fn announce(&self, write: &Write) -> Result<(), Error> {
        if self.queue().needs_relay() {
            return Ok(());
        }
        Ok(notifications::notify(&**write, NOTIFY_CHANNEL).await?)
    }

    /// Runs a transaction to its end even if whoever waits for it goes away: between commit and invalidation there must be
    /// no place where a closed connection cuts it off, and the driver loses track of one that is cut off while it begins.
    /// It does not outlive the patience of its client by much.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let bounded = tokio::time::timeout(LONGEST_TRANSACTION, work);
        let outcome = tokio::spawn(bounded).await.map_err(Error::internal)?;
        outcome.map_err(|late| Error::Unavailable { component: "database", source: Arc::new(late) })?
    }
}
