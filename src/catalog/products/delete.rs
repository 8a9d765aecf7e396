//! Deleting products: the rows of a product, of its pictures, their renditions and jobs go in one transaction. The blobs stay:
//! others may refer to them, and `pm gc` finds those that nobody does.

use std::time::Duration;

use crate::{
    catalog::{Catalog, Error, Precondition, events},
    db::products::{
        self,
        removals::{self, Of},
    },
    domain::ProductId,
};

/// A try fails only if a job is claimed, ends or is begun in the moment of the deletion, and each puts jobs out of reach.
pub(in crate::catalog) const TRIES: u32 = 200;
/// For so long nobody claims the jobs of a product that is being deleted. Should this process die, they are due then.
pub(super) const OUT_OF_REACH: Duration = Duration::from_secs(20);
/// A claim's transaction is over after this.
pub(in crate::catalog) const PAUSE: Duration = Duration::from_millis(5);

impl Catalog {
    /// Deletes products; answers which of them there were. Whoever works on one of their pictures finds its job gone, as if it
    /// had been given to another worker.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database: then none was deleted.
    pub async fn delete(&self, ids: &[ProductId]) -> Result<Vec<ProductId>, Error> {
        self.delete_all(ids, None).await
    }

    /// Deletes a product if the conditions of `condition` hold.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such product, [`Error::Precondition`] if a condition does not hold,
    /// [`Error::Unavailable`] by the database: then nothing was deleted.
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
                removals::put_off_live_jobs(&*write, Of::Products(&ids), now.plus(OUT_OF_REACH), now).await?;
                write.commit().await?;
                tokio::time::sleep(PAUSE).await;
            }
            Err(Error::busy("database"))
        })
        .await
    }

    /// `None` if others are at their jobs at this moment.
    ///
    /// Claims and results hold a job first and its product then; whoever begins another run holds the product first, and of its
    /// jobs only those that ended. So this holds the others, then the products, and waits for no job while it holds anything.
    async fn delete_now(
        &self,
        ids: &[ProductId],
        condition: Option<&Precondition>,
    ) -> Result<Option<Vec<ProductId>>, Error> {
        let write = self.database().begin().await?;
        let now = write.now().await?;
        if !removals::hold_live_jobs(&*write, Of::Products(ids)).await? {
            return Ok(None);
        }
        products::lock(&*write, ids).await?;
        // Another run may have begun before the products were held, and a worker may have one of its jobs.
        if !removals::hold_live_jobs(&*write, Of::Products(ids)).await? {
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
            let told: Vec<_> = gone.iter().map(|(id, user_id)| events::of_deletion(*id, user_id, now)).collect();
            self.commit(write, &deleted, &told, now).await?;
            metrics::counter!("pm_products_deleted_total").increment(deleted.len() as u64);
        }
        Ok(Some(deleted))
    }
}
