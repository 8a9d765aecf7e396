//! Creates the products of a batch in chunks, each in its own transaction.
//!
//! A chunk holds database locks, on SQLite the only write lock, for some tens of milliseconds. So a large batch does
//! not stop other writers. With an idempotency key, each chunk adds to the row of the key what it stored, and a
//! repeated request continues a batch that was interrupted.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    made::Made,
    outcome::{NotStored, Stored},
};
use crate::{
    api::Links,
    catalog::{Answer, Catalog, Error, Once, events},
    db::products,
    domain::NewProduct,
};

/// A batch that is being stored.
struct Batch {
    catalog: Catalog,
    once: Option<Once>,
    request_id: Option<String>,
}

/// How far a batch is stored.
#[derive(Default)]
struct Progress {
    /// The outcomes so far, in the order of the request.
    outcomes: Vec<Stored>,
    /// Number of images of the products that were stored, also of those that were deleted since.
    images: usize,
    /// The products that follow.
    left: VecDeque<NewProduct>,
    /// Whether this request stored a chunk itself; otherwise an earlier one with the same key did.
    has_stored: bool,
}

impl Catalog {
    /// Stores the products of a batch; with `once`, each at most once. `shape` makes the response.
    ///
    /// If a chunk fails after others were stored, its products and those that follow are [`NotStored::Failed`].
    ///
    /// # Errors
    /// The errors of [`Catalog::create_one`], if nothing was stored; the errors of `shape`.
    pub async fn create_batch(
        &self,
        news: Vec<NewProduct>,
        once: Option<Once>,
        request_id: Option<&str>,
        shape: impl FnOnce(&Links, Vec<Stored>) -> Result<Answer, Error> + Send + 'static,
    ) -> Result<Answer, Error> {
        let has_key = once.is_some();
        let batch = Batch { catalog: self.clone(), once, request_id: request_id.map(str::to_owned) };
        // In a task, so that the batch continues if the caller is dropped.
        let stored = tokio::spawn(batch.store(news)).await.map_err(Error::internal)?;
        let Progress { outcomes, has_stored, .. } = stored?;
        let catalog = self.clone();
        // The response may have several MiB, and making it would delay other requests.
        let shaped = tokio::task::spawn_blocking(move || shape(catalog.links(), outcomes)).await;
        Ok(Answer { replayed: has_key && !has_stored, ..shaped.map_err(Error::internal)?? })
    }
}

impl Batch {
    async fn store(self, news: Vec<NewProduct>) -> Result<Progress, Error> {
        let batch = Arc::new(self);
        let count = news.len();
        let mut progress = Progress { left: news.into(), ..Progress::default() };
        loop {
            let handled = progress.outcomes.len();
            let left = std::mem::take(&mut progress.left);
            let chunk = Arc::clone(&batch).next_chunk((handled, progress.images), left);
            match batch.catalog.to_the_end(chunk).await {
                Ok(next) => {
                    progress.outcomes.extend(next.outcomes);
                    progress.images += next.images;
                    progress.left = next.left;
                    progress.has_stored |= next.has_stored;
                }
                Err(error) if handled == 0 => return Err(error),
                Err(error) => {
                    tracing::warn!(target: "pm::catalog", %error, handled, count, "a batch was stored in part");
                    let failed = Arc::new(error);
                    progress.outcomes.resize_with(count, || Err(NotStored::Failed(Arc::clone(&failed))));
                }
            }
            if progress.left.is_empty() {
                return Ok(progress);
            }
        }
    }

    /// Stores the next products of `left`, or takes over those that another request with the same key has stored.
    ///
    /// `handled` has the number of products before them, and of the images of these.
    async fn next_chunk(
        self: Arc<Self>,
        handled: (usize, usize),
        mut left: VecDeque<NewProduct>,
    ) -> Result<Progress, Error> {
        let (catalog, once) = (&self.catalog, self.once.as_ref());
        let write = catalog.database().begin().await?;
        let began = Instant::now();
        let now = write.now().await?;
        let made = catalog.made_before::<Made>(&write, once, now).await?;
        if let Some(made) = made.as_ref().filter(|made| made.count() > handled.0 || left.is_empty()) {
            let count = made.count().checked_sub(handled.0).filter(|count| *count <= left.len());
            let earlier: Vec<_> = left.drain(..count.ok_or(Error::KeyReused)?).collect();
            let there = products::existing(&*write, &made.ids()).await?;
            let images = made.count_images(&earlier, handled.0);
            return Ok(Progress { outcomes: made.rebuild(earlier, handled, &there), images, left, has_stored: false });
        }
        if once.is_some() && handled.0 != made.as_ref().map_or(0, Made::count) {
            // The key expired meanwhile.
            return Err(Error::contended("database"));
        }
        if handled.0 == 0 {
            let owners: Vec<_> =
                left.iter().flat_map(|new| std::iter::repeat_n(&new.user_id, new.product_images.len())).collect();
            catalog.check_backlog(&write, owners).await?;
        }
        let chunk = left.drain(..catalog.0.chunk_cost.length(&left)).collect();
        let outcomes = catalog.store(&write, chunk, self.request_id.as_deref(), now).await?;
        let created: Vec<_> = outcomes.iter().flatten().map(events::of_creation).collect();
        let made = match made {
            Some(made) => made.with_chunk(&outcomes, now),
            None => Made::of(&outcomes, now),
        };
        catalog.keep_made(&write, once, &made).await?;
        catalog.end_creation(write, &created, now).await?;
        catalog.0.chunk_cost.record(began.elapsed());
        let images = outcomes.iter().flatten().map(|product| product.images.len()).sum();
        Ok(Progress { outcomes, images, left, has_stored: true })
    }
}
