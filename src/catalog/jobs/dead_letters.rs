//! Jobs that failed for good: looked at, queued anew, or removed. A retry runs the same row again; another run of the
//! picture, which `reprocess` begins, ends it.

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
    domain::{Attempt, DeadLetter, DeadQuery, Grave, JobId, Page, ProductId},
};

/// Dead letters that were queued anew in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeued {
    /// Their jobs.
    pub jobs: Vec<JobId>,
    /// Where the next batch begins; none means that all are done.
    pub last: Option<Grave>,
}

impl Catalog {
    /// A page of dead letters, the latest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn dead_letters(&self, query: &DeadQuery) -> Result<Page<DeadLetter>, Error> {
        let mut items = dead_letters::list(&self.database().read(), query).await?;
        let more = items.len() as u64 > query.limit;
        if more {
            items.pop();
        }
        let next_cursor = items.last().filter(|_| more).map(|last| last.grave().encode());
        Ok(Page { items, next_cursor })
    }

    /// A dead letter with its latest attempts, of which at most 50 are kept.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is none, [`Error::Unavailable`] by the database.
    pub async fn dead_letter(&self, id: JobId) -> Result<(DeadLetter, Vec<Attempt>), Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let snapshot = catalog.database().snapshot().await?;
            let letter = dead_letters::find(&snapshot, id).await?.ok_or_else(|| unknown(id))?;
            Ok((letter, attempts::of_job(&snapshot, id).await?))
        })
        .await
    }

    /// Queues a dead letter anew: no attempt and no crash counts any more, and its picture is pending. Answers its product.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such job; [`Error::Conflict`] if it is no dead letter, or of an older run of its
    /// picture; [`Error::Unavailable`] by the database.
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
            // Its picture may have begun another run before the product was held.
            let asked = dead_letters::asked(&*write, id).await?.ok_or_else(|| unknown(id))?;
            if asked.outdated {
                let reason = "belongs to an older run of its picture, which has been queued again since";
                return Err(Error::Conflict(format!("job {id} {reason}")));
            }
            let product = asked.product_id;
            catalog.keep_made(&write, once.as_ref(), &product).await?;
            let queued = if asked.dead { catalog.queue_anew(write, &[id], &[product]).await? } else { Vec::new() };
            match queued.as_slice() {
                [] => Err(Error::Conflict(format!("job {id} is no dead letter: it waits, runs or is done"))),
                _ => Ok(Done::now(product)),
            }
        })
        .await
    }

    /// Queues up to `limit` dead letters of jobs that were given up until `until` anew, the oldest first, after `after`. A
    /// job that fails again meanwhile lies behind `until`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn retry_all_dead(&self, after: Option<Grave>, until: Timestamp, limit: u64) -> Result<Requeued, Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let chosen = dead_letters::choose(&*write, after, until, limit).await?;
            let Some(last) = chosen.last().map(|chosen| chosen.grave) else {
                return Ok(Requeued::default());
            };
            let products = products_of(&chosen);
            products::lock(&*write, &products).await?;
            let ids: Vec<_> = chosen.iter().map(|chosen| chosen.grave.id).collect();
            Ok(Requeued { jobs: catalog.queue_anew(write, &ids, &products).await?, last: Some(last) })
        })
        .await
    }

    /// Removes up to `limit` jobs that were given up until `until`; their pictures stay failed. Answers how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
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

    /// The products are held by `write`.
    async fn queue_anew(&self, write: Write, ids: &[JobId], products: &[ProductId]) -> Result<Vec<JobId>, Error> {
        let now = write.now().await?;
        let queued = dead_letters::queue_anew(&*write, ids, now).await?;
        if queued.is_empty() {
            return Ok(Vec::new());
        }
        let (jobs, pictures): (Vec<_>, Vec<_>) = queued.into_iter().unzip();
        images::begin_anew(&*write, &pictures, now).await?;
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
