//! How every change of products ends: noted in its own transaction, committed, the cache told, only then answered.

use std::sync::{Mutex, PoisonError};

use crate::{
    cache::Cache,
    catalog::{Catalog, Error},
    clock::Timestamp,
    db::{
        Write,
        invalidations::{self, Invalidation},
        products,
    },
    domain::ProductId,
};

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
    /// Commits a change of pictures of `ids`: their products' status and version follow in the same transaction.
    pub(super) async fn commit_change(&self, write: Write, ids: &[ProductId], now: Timestamp) -> Result<(), Error> {
        products::touch(&*write, ids, now).await?;
        self.commit(write, ids, now).await
    }

    /// Commits a transaction that changes what readers see of `ids`, and tells the cache before anybody is answered.
    pub(super) async fn commit(&self, write: Write, ids: &[ProductId], now: Timestamp) -> Result<(), Error> {
        let rows = invalidations::record(&*write, ids, now).await?;
        write.commit().await?;
        self.tell_cache(&rows).await;
        Ok(())
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

    /// Runs a write to its end even if whoever waits for it goes away: between commit and invalidation there must be
    /// no place where a closed connection cuts it off.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        tokio::spawn(work).await.map_err(Error::internal)?
    }
}
