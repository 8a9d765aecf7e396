//! Commits changes of products.
//!
//! Each change records its events and invalidations in its own transaction, commits, invalidates the cache, and only
//! then returns.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    cache::Cache,
    catalog::{
        Catalog, Error,
        events::{self, ImageProgress},
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

/// Limit of a transaction; a longer one has a connection that will never answer.
const MAX_TRANSACTION_TIME: Duration = Duration::from_secs(20);

/// Invalidations that a shared cache has processed; their rows are deleted in batches.
#[derive(Debug, Default)]
pub(super) struct PendingInvalidations(Mutex<Vec<Invalidation>>);

impl PendingInvalidations {
    pub(super) fn add(&self, rows: &[Invalidation]) {
        self.0.lock().extend_from_slice(rows);
    }

    pub(super) fn take(&self) -> Vec<Invalidation> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Catalog {
    /// Commits a change of `ids` and publishes `product.updated` for each.
    ///
    /// Increments their versions and derives their statuses from their images in the same transaction.
    pub(crate) async fn commit_change(&self, write: Write, ids: &[ProductId], now: Timestamp) -> Result<(), Error> {
        self.commit_step(write, ids, &[], now).await
    }

    /// Like [`Catalog::commit_change`], but publishes the events of `steps` for the products that they belong to.
    pub(super) async fn commit_step(
        &self,
        write: Write,
        ids: &[ProductId],
        steps: &[ImageProgress],
        now: Timestamp,
    ) -> Result<(), Error> {
        let touched = touch::touch(&*write, ids, now).await?;
        self.commit(write, ids, &events::of_change(&touched, steps, now), now).await
    }

    /// Commits a change of `ids` with its `events`, then invalidates the cache.
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
        // Also after a failure: the commit may have succeeded before the connection broke.
        self.0.event_signal.signal();
        if committed.is_ok() {
            self.invalidate_cached(&rows).await;
        } else {
            // The commit may have succeeded before the connection broke. An extra invalidation does no harm.
            let _ = self.cache().invalidate(ids).await;
        }
        Ok(committed?)
    }

    /// Invalidates the cache entries of `rows`.
    ///
    /// If the cache does not answer, this process does not read from it until the invalidation succeeds, and the rows
    /// stay for [`Catalog::flush_invalidations`]. The change itself is committed in either case.
    pub(super) async fn invalidate_cached(&self, rows: &[Invalidation]) {
        let ids: Vec<_> = rows.iter().map(|row| row.product_id).collect();
        match self.cache().invalidate(&ids).await {
            // Other processes' in-process caches read the rows as their log.
            Ok(()) if matches!(self.cache(), Cache::Redis(_)) => self.0.pending_invalidations.add(rows),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "cache invalidation failed; it will be retried"),
        }
    }

    /// Notifies workers of other processes of new jobs at the commit, if the database is the queue.
    pub(crate) async fn announce(&self, write: &Write) -> Result<(), Error> {
        if self.queue().needs_relay() {
            return Ok(());
        }
        Ok(notifications::notify(&**write, NOTIFY_CHANNEL).await?)
    }

    /// Runs a transaction to its end, even if the caller is dropped.
    ///
    /// A closed client connection must not cancel the work between commit and invalidation, and the driver leaks a
    /// connection whose `BEGIN` is canceled. The work is limited to [`MAX_TRANSACTION_TIME`].
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let bounded = tokio::time::timeout(MAX_TRANSACTION_TIME, work);
        let outcome = tokio::spawn(bounded).await.map_err(Error::internal)?;
        outcome.map_err(|late| Error::Unavailable { component: "database", source: Arc::new(late) })?
    }
}
