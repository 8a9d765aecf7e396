//! Dead letters, the jobs that failed permanently: listing, retrying and purging.
//!
//! A retry runs the same job row again. A new generation of the image, which `reprocess` begins, ends the dead letter.

use crate::{
    catalog::{Catalog, Done, Error, Once},
    clock::Timestamp,
    db::{
        Write,
        jobs::{
            attempts,
            dead_letters::{self, Chosen},
        },
        products::{self, images},
    },
    domain::{Attempt, DeadLetter, DeadLetterCursor, DeadQuery, JobId, Page, ProductId},
};

/// Dead letters that were requeued in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Their jobs.
    pub jobs: Vec<JobId>,
    /// Cursor of the next batch; `None` after the last one.
    pub last: Option<DeadLetterCursor>,
}

impl Catalog {
    /// Returns a page of dead letters, latest first.
    pub async fn dead_letters(&self, query: &DeadQuery) -> Result<Page<DeadLetter>, Error> {
        let mut items = dead_letters::list(&self.database().read(), query).await?;
        let more = items.len() as u64 > query.limit;
        if more {
            items.pop();
        }
        let next_cursor = items.last().filter(|_| more).map(|last| last.cursor().encode());
        Ok(Page { items, next_cursor })
    }

    /// Returns a dead letter and its attempts, at most the latest 50.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it does not exist.
    pub async fn dead_letter(&self, id: JobId) -> Result<(DeadLetter, Vec<Attempt>), Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let snapshot = catalog.database().snapshot().await?;
            let letter = dead_letters::find(&snapshot, id).await?.ok_or_else(|| unknown(id))?;
            Ok((letter, attempts::of_job(&snapshot, id).await?))
        })
        .await
    }

    /// Requeues a dead letter and returns its product.
    ///
    /// Resets its attempts and crashes, and sets its image to `pending`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the job does not exist; [`Error::Conflict`] if it is not a dead letter, or if it belongs
    /// to an older generation of its image.
    pub async fn retry_dead(&self, id: JobId, once: Option<Once>) -> Result<Done<ProductId>, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            if let Some(product) = catalog.made_before(&write, once.as_ref(), now).await? {
                return Ok(Done::before(product));
            }
            let asked = dead_letters::asked(&*write, id).await?.ok_or_else(|| unknown(id))?;
            products::lock(&*write, &[asked.product_id]).await?;
            // The image may have begun another generation before the product was locked.
            let asked = dead_letters::asked(&*write, id).await?.ok_or_else(|| unknown(id))?;
            if asked.outdated {
                let reason = "belongs to an older generation of its image, which was queued again since";
                return Err(Error::Conflict(format!("job {id} {reason}")));
            }
            let product = asked.product_id;
            catalog.keep_made(&write, once.as_ref(), &product).await?;
            let queued = if asked.dead { catalog.requeue(write, &[id], &[product]).await? } else { Vec::new() };
            match queued.as_slice() {
                [] => Err(Error::Conflict(format!("job {id} is not a dead letter: it is queued, running or done"))),
                _ => Ok(Done::now(product)),
            }
        })
        .await
    }

    /// Requeues up to `limit` dead letters that died at or before `until`, oldest first, after the cursor `after`.
    ///
    /// A job that fails again in the meantime died after `until`, so it is not retried twice.
    pub async fn retry_all_dead(
        &self,
        after: Option<DeadLetterCursor>,
        until: Timestamp,
        limit: u64,
    ) -> Result<Requeued, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let chosen = dead_letters::choose(&*write, after, until, limit).await?;
            let Some(last) = chosen.last().map(|chosen| chosen.cursor) else {
                return Ok(Requeued::default());
            };
            let products = products_of(&chosen);
            products::lock(&*write, &products).await?;
            let ids: Vec<_> = chosen.iter().map(|chosen| chosen.cursor.id).collect();
            Ok(Requeued { jobs: catalog.requeue(write, &ids, &products).await?, last: Some(last) })
        })
        .await
    }

    /// Deletes up to `limit` dead letters that died at or before `until`; returns how many.
    ///
    /// Their images stay failed.
    pub async fn purge_dead(&self, until: Timestamp, limit: u64) -> Result<u64, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let removed = dead_letters::purge(&*write, until, limit).await?;
            write.commit().await?;
            Ok(removed)
        })
        .await
    }

    /// Requeues dead letters whose products `write` has locked.
    async fn requeue(&self, write: Write, ids: &[JobId], products: &[ProductId]) -> Result<Vec<JobId>, Error> {
        let now = write.now().await?;
        let queued = dead_letters::requeue(&*write, ids, now).await?;
        if queued.is_empty() {
            return Ok(Vec::new());
        }
        let (jobs, images): (Vec<_>, Vec<_>) = queued.into_iter().unzip();
        images::restart_attempts(&*write, &images, now).await?;
        self.announce(&write).await?;
        self.commit_change(write, products, now).await?;
        self.queue().wake();
        metrics::counter!("pm_dead_letters_retried_total").increment(jobs.len() as u64);
        Ok(jobs)
    }
}

fn products_of(chosen: &[Chosen]) -> Vec<ProductId> {
    let mut ids: Vec<_> = chosen.iter().map(|chosen| chosen.product_id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn unknown(id: JobId) -> Error {
    Error::not_found(format_args!("dead letter {id}"))
}
