//! Taking in a product: one transaction holds the product, its pictures and the jobs that will fetch them.

use std::collections::BTreeSet;

use crate::{
    catalog::{Answer, Catalog, Error, Links, Once, events},
    clock::Timestamp,
    db::{Write, images, jobs, jobs::NewJob, products, users},
    domain::{
        Image, ImageId, ImageSource, ImageStatus, Invalid, JobPayload, NewEvent, NewProduct, Product, ProductId,
        ProductStatus, UserId,
    },
};

/// A product that was stored, or what kept it from being stored.
pub type Stored = Result<Product, Invalid>;

impl Catalog {
    /// Stores a product; every picture of it is queued in the same transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the user is unknown and unknown users are not made, [`Error::BlobGone`] if a picture that was
    /// handed over is no longer stored, [`Error::Unavailable`] and [`Error::Full`] by the database: then nothing was stored.
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

    /// Stores products and answers by `shape`, which may refuse all of them; with `once`, at most one time. All of it is one
    /// transaction.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if another request had this key, what `shape` says, and as [`Catalog::create`].
    pub async fn create_all<F>(
        &self,
        news: Vec<NewProduct>,
        once: Option<Once>,
        request_id: Option<&str>,
        shape: F,
    ) -> Result<Answer, Error>
    where
        F: FnOnce(&Links, Vec<Stored>) -> Result<Answer, Error> + Send + 'static,
    {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            if let Some(once) = &once
                && let Some(answer) = catalog.answered(&write, once, now).await?
            {
                return Ok(answer);
            }
            let stored = catalog.store(&write, news, request_id.as_deref(), now).await?;
            let created: Vec<_> = stored.iter().flatten().map(events::of_creation).collect();
            let answer = shape(catalog.links(), stored)?;
            if let Some(once) = &once {
                catalog.keep_answer(&write, once, &answer).await?;
            }
            catalog.end_creation(write, &created, now).await?;
            Ok(answer)
        })
        .await
    }

    /// Stores products as far as they may be, with their pictures and the jobs of those.
    async fn store(
        &self,
        write: &Write,
        news: Vec<NewProduct>,
        request_id: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<Stored>, Error> {
        let sources: Vec<_> = news.iter().flat_map(|new| stored(&new.product_images)).collect();
        self.refer_to(write, &sources).await?;
        let unknown = self.unknown_users(write, &news, now).await?;
        let mut outcomes = Vec::with_capacity(news.len());
        let (mut pictures, mut owners) = (Vec::new(), Vec::new());
        for new in news {
            if unknown.contains(&new.user_id) {
                outcomes.push(Err(Invalid::field("user_id", format!("there is no user {}", new.user_id))));
                continue;
            }
            let status = ProductStatus::of(new.product_images.iter().map(|_| ImageStatus::Pending));
            let id = products::insert(&**write, &new, status, now).await?;
            let places = (0..).zip(&new.product_images);
            pictures.extend(places.map(|(position, source)| (id, position, source.clone())));
            owners.extend(new.product_images.iter().map(|_| new.user_id.clone()));
            outcomes.push(Ok(product_of(new, id, status, now)));
        }
        self.ensure_backlog(write, &owners).await?;
        let image_ids = images::insert_all(&**write, &pictures, now).await?;
        let payload = JobPayload::process_image(None);
        let queued: Vec<_> = image_ids
            .iter()
            .zip(pictures.iter().zip(owners))
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
        let mut left = image_ids.into_iter().zip(pictures).peekable();
        for product in outcomes.iter_mut().flatten() {
            while let Some((image_id, (_, position, source))) = left.next_if(|(_, (id, ..))| *id == product.id) {
                product.images.push(pending(image_id, position, source, now));
            }
        }
        Ok(outcomes)
    }

    /// The users among those of `news` that there are not, once those that may be made were made.
    async fn unknown_users(
        &self,
        write: &Write,
        news: &[NewProduct],
        now: Timestamp,
    ) -> Result<BTreeSet<UserId>, Error> {
        // In order, so that two transactions that make the same users never wait for each other.
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

    async fn end_creation(&self, write: Write, created: &[NewEvent], now: Timestamp) -> Result<(), Error> {
        let ids: Vec<_> = created.iter().map(|event| event.product_id).collect();
        // Somebody may have asked for these numbers before and been told that they do not exist.
        self.commit(write, &ids, created, now).await?;
        self.queue().wake();
        metrics::counter!("pm_products_created_total").increment(ids.len() as u64);
        Ok(())
    }
}

/// The outcome of the one product that was to be stored.
pub(super) fn only(mut stored: Vec<Stored>) -> Result<Product, Error> {
    match stored.pop() {
        Some(outcome) => Ok(outcome?),
        None => Err(Error::busy("database")),
    }
}

fn product_of(new: NewProduct, id: ProductId, status: ProductStatus, now: Timestamp) -> Product {
    Product {
        id,
        user_id: new.user_id,
        product_name: new.product_name,
        product_description: new.product_description,
        product_price: new.product_price,
        status,
        images: Vec::with_capacity(new.product_images.len()),
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

fn pending(id: ImageId, position: i32, source: ImageSource, now: Timestamp) -> Image {
    Image {
        id,
        position,
        source,
        status: ImageStatus::Pending,
        attempts: 0,
        error: None,
        facts: None,
        renditions: Vec::new(),
        warnings: Vec::new(),
        updated_at: now,
    }
}

/// The keys of pictures that were handed over as files.
pub(super) fn stored(images: &[ImageSource]) -> Vec<&str> {
    let keys = images.iter().filter_map(|image| match image {
        ImageSource::Stored(key) => Some(key.as_str()),
        ImageSource::Url(_) => None,
    });
    keys.collect()
}
