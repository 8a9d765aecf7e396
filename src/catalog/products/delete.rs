//! Deletes products with their images, renditions and jobs in one transaction.
//!
//! Blobs stay, because other rows may refer to them; `pm gc` deletes unreferenced ones.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error, Precondition, events},
    db::products::{
        self,
        removals::{self, Of},
    },
    domain::ProductId,
};

/// Maximum number of attempts.
///
/// An attempt fails only if a job is claimed, settled or created at the same moment. Each failed attempt postpones the
/// jobs.
pub(in crate::catalog) const TRIES: u32 = 200;
/// Time for which the jobs of a product to be deleted cannot be claimed. If this process dies, they are due afterwards.
pub(super) const POSTPONE_TIME: Duration = Duration::from_secs(20);
/// Pause between attempts, longer than the transaction of a claim.
pub(in crate::catalog) const PAUSE: Duration = Duration::from_millis(5);

impl Catalog {
    /// Deletes products; returns those that existed.
    ///
    /// A worker that processes one of their images loses its lease. After an error, no product was deleted.
    pub async fn delete(&self, ids: &[ProductId]) -> Result<Vec<ProductId>, Error> {
        self.delete_all(ids, None).await
    }

    /// Deletes a product if `condition` holds.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product does not exist, [`Error::Precondition`] if a precondition does not hold.
    pub async fn delete_if(&self, id: ProductId, condition: Option<Precondition>) -> Result<(), Error> {
        match self.delete_all(&[id], condition).await?.is_empty() {
            true => Err(Error::not_found(format_args!("product {id}"))),
            false => Ok(()),
        }
    }

    async fn delete_all(&self, ids: &[ProductId], condition: Option<Precondition>) -> Result<Vec<ProductId>, Error> {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        let catalog = self.clone();
        self.to_the_end(async move {
            for _ in 0..TRIES {
                if let Some(deleted) = catalog.delete_now(&ids, condition.as_ref()).await? {
                    return Ok(deleted);
                }
                let write = catalog.database().begin().await?;
                let now = write.now().await?;
                removals::put_off_live_jobs(&*write, Of::Products(&ids), now.plus(POSTPONE_TIME), now).await?;
                write.commit().await?;
                tokio::time::sleep(PAUSE).await;
            }
            Err(Error::contended("database"))
        })
        .await
    }

    /// Deletes products, or returns `None` if other transactions have locked their jobs.
    ///
    /// Claims and settlements lock a job, then its product. A new generation locks the product, then only jobs that
    /// ended. To avoid deadlocks, this function locks the live jobs first, then the products, and never waits for a
    /// job.
    async fn delete_now(
        &self,
        ids: &[ProductId],
        condition: Option<&Precondition>,
    ) -> Result<Option<Vec<ProductId>>, Error> {
        let write = self.database().begin().await?;
        let now = write.now().await?;
        if !removals::lock_live_jobs(&*write, Of::Products(ids)).await? {
            return Ok(None);
        }
        products::lock(&*write, ids).await?;
        // Before the products were locked, a new generation may have begun and a worker may have claimed its job.
        if !removals::lock_live_jobs(&*write, Of::Products(ids)).await? {
            return Ok(None);
        }
        if condition.is_some() {
            for id in ids {
                if let Some(product) = products::find(&*write, *id).await? {
                    self.check(condition, &product)?;
                }
            }
        }
        let gone = removals::delete_products(&*write, ids).await?;
        let deleted: Vec<_> = gone.iter().map(|(id, _)| *id).collect();
        if !deleted.is_empty() {
            let deletions: Vec<_> = gone.iter().map(|(id, user_id)| events::of_deletion(*id, user_id, now)).collect();
            self.commit(write, &deleted, &deletions, now).await?;
            metrics::counter!("pm_products_deleted_total").increment(deleted.len() as u64);
        }
        Ok(Some(deleted))
    }
}
