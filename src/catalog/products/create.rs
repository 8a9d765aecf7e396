//! Creates products: one transaction stores the product, its images and their jobs.

use std::collections::BTreeSet;

use super::{
    made::Made,
    outcome::{Stored, pending, product_of, status_of, unknown_user},
};
use crate::{
    api::Links,
    catalog::{Answer, Catalog, Error, Once, events},
    clock::Timestamp,
    db::{
        Write,
        accounts::users,
        jobs::{self, NewJob},
        products::{self, images},
    },
    domain::{ImageSource, JobPayload, NewEvent, NewProduct, Product, UserId},
};

impl Catalog {
    /// Stores a product and queues its images in one transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the user is unknown and unknown users are not created, [`Error::BlobGone`] if an uploaded
    /// file was deleted, [`Error::Unavailable`] and [`Error::Full`] if the database fails. Nothing is stored then.
    pub async fn create(&self, new: NewProduct, request_id: Option<&str>) -> Result<Product, Error> {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            let stored = catalog.store(&write, vec![new], request_id.as_deref(), now).await?;
            let product = only(stored)?;
            catalog.end_creation(write, &[events::of_creation(&product)], now).await?;
            Ok(product)
        })
        .await
    }

    /// Stores a product in one transaction; with `once`, at most once.
    ///
    /// `shape` makes the response. If it fails, nothing is stored.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if another request used this key; [`Error::Gone`] if an earlier request with this key
    /// created the product and it was deleted; the errors of `shape` and of [`Catalog::create`].
    pub async fn create_one<F>(
        &self,
        new: NewProduct,
        once: Option<Once>,
        request_id: Option<&str>,
        shape: F,
    ) -> Result<Answer, Error>
    where
        F: FnOnce(&Links, &Product) -> Result<Answer, Error> + Send + 'static,
    {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            if let Some(made) = catalog.made_before::<Made>(&write, once.as_ref(), now).await? {
                let there = products::existing(&*write, &made.ids()).await?;
                let product = only(made.rebuild(vec![new], (0, 0), &there))?;
                return Ok(Answer { replayed: true, ..shape(catalog.links(), &product)? });
            }
            let stored = catalog.store(&write, vec![new], request_id.as_deref(), now).await?;
            catalog.keep_made(&write, once.as_ref(), &Made::of(&stored, now)).await?;
            let product = only(stored)?;
            let answer = shape(catalog.links(), &product)?;
            catalog.end_creation(write, &[events::of_creation(&product)], now).await?;
            Ok(answer)
        })
        .await
    }

    /// Stores the products with known users, their images and jobs.
    pub(super) async fn store(
        &self,
        write: &Write,
        news: Vec<NewProduct>,
        request_id: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<Stored>, Error> {
        let sources: Vec<_> = news.iter().flat_map(|new| stored(&new.product_images)).collect();
        self.pin_blobs(write, &sources).await?;
        let unknown = self.unknown_users(write, &news, now).await?;
        let mut outcomes = Vec::with_capacity(news.len());
        let (mut images, mut owners) = (Vec::new(), Vec::new());
        for new in news {
            if unknown.contains(&new.user_id) {
                outcomes.push(Err(unknown_user(&new.user_id)));
                continue;
            }
            let status = status_of(&new);
            let id = products::insert(&**write, &new, status, now).await?;
            let places = (0..).zip(&new.product_images);
            images.extend(places.map(|(position, source)| (id, position, source.clone())));
            owners.extend(new.product_images.iter().map(|_| new.user_id.clone()));
            outcomes.push(Ok(product_of(new, id, status, now)));
        }
        self.ensure_backlog(write, &owners).await?;
        let image_ids = images::insert_all(&**write, &images, now).await?;
        let payload = JobPayload::process_image(None);
        let queued: Vec<_> = image_ids
            .iter()
            .zip(images.iter().zip(owners))
            .map(|(image_id, ((_, _, source), user_id))| NewJob {
                image_id: *image_id,
                generation: 1,
                payload: &payload,
                request_id,
                user_id,
                host: source.host(),
            })
            .collect();
        jobs::insert_all(&**write, &queued, now).await?;
        if !queued.is_empty() {
            self.announce(write).await?;
        }
        let mut left = image_ids.into_iter().zip(images).peekable();
        for product in outcomes.iter_mut().flatten() {
            while let Some((image_id, (_, position, source))) = left.next_if(|(_, (id, ..))| *id == product.id) {
                product.images.push(pending(image_id, position, source, now));
            }
        }
        Ok(outcomes)
    }

    /// Returns the unknown users of `news`, after creating users if that is enabled.
    async fn unknown_users(
        &self,
        write: &Write,
        news: &[NewProduct],
        now: Timestamp,
    ) -> Result<BTreeSet<UserId>, Error> {
        // In order, so that two transactions that create the same users cannot deadlock.
        let wanted: BTreeSet<_> = news.iter().map(|new| &new.user_id).collect();
        let mut unknown = BTreeSet::new();
        for user_id in wanted {
            if self.0.config.auto_users {
                users::ensure(&**write, user_id, now).await?;
            } else if !users::exists(&**write, user_id).await? {
                unknown.insert(user_id.clone());
            }
        }
        Ok(unknown)
    }

    pub(super) async fn end_creation(&self, write: Write, created: &[NewEvent], now: Timestamp) -> Result<(), Error> {
        let ids: Vec<_> = created.iter().map(|event| event.product_id).collect();
        // The cache may hold entries that say that these ids do not exist.
        self.commit(write, &ids, created, now).await?;
        self.queue().wake();
        metrics::counter!("pm_products_created_total").increment(ids.len() as u64);
        Ok(())
    }
}

/// Returns the outcome of a request for one product.
pub(in crate::catalog) fn only(mut stored: Vec<Stored>) -> Result<Product, Error> {
    match stored.pop() {
        Some(outcome) => Ok(outcome?),
        None => Err(Error::contended("database")),
    }
}

/// Returns the blob keys of uploaded images.
pub(in crate::catalog) fn stored(images: &[ImageSource]) -> Vec<&str> {
    let keys = images.iter().filter_map(|image| match image {
        ImageSource::Stored(key) => Some(key.as_str()),
        ImageSource::Url(_) => None,
    });
    keys.collect()
}
