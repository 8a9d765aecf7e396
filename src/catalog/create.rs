//! Taking in a product: one transaction holds the product, its pictures and the jobs that will fetch them.

use bytes::Bytes;

use crate::{
    blobs::BlobKey,
    catalog::{Catalog, Error, events},
    clock::Timestamp,
    db::{images, jobs, jobs::NewJob, products, users},
    domain::{
        Image, ImageId, ImageSource, ImageStatus, Invalid, JobPayload, NewProduct, Product, ProductId, ProductStatus,
    },
    imaging,
};

impl Catalog {
    /// Stores a product; every picture of it is queued in the same transaction.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the user is unknown and unknown users are not made, [`Error::BlobGone`] if a picture that was
    /// handed over is no longer stored, [`Error::Unavailable`] and [`Error::Full`] by the database: then nothing was stored.
    pub async fn create(&self, new: NewProduct, request_id: Option<&str>) -> Result<Product, Error> {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        self.to_the_end(async move { catalog.create_now(new, request_id.as_deref()).await }).await
    }

    async fn create_now(&self, new: NewProduct, request_id: Option<&str>) -> Result<Product, Error> {
        let now = Timestamp::now();
        let status = ProductStatus::of(new.product_images.iter().map(|_| ImageStatus::Pending));
        let write = self.database().begin().await?;
        self.refer_to(&write, &stored(&new.product_images)).await?;
        if self.0.config.auto_users {
            users::ensure(&*write, &new.user_id, now).await?;
        } else if !users::exists(&*write, &new.user_id).await? {
            return Err(Invalid::field("user_id", format!("there is no user {}", new.user_id)).into());
        }
        let id = products::insert(&*write, &new, status, now).await?;
        let image_ids = images::insert_all(&*write, id, &new.product_images, now).await?;
        let payload = JobPayload::process_image(None);
        let queued: Vec<_> = image_ids
            .iter()
            .map(|image_id| NewJob { image_id: *image_id, generation: 1, payload: &payload, request_id })
            .collect();
        jobs::insert_all(&*write, &queued, now).await?;
        if !queued.is_empty() {
            self.announce(&write).await?;
        }
        let product = pending_product(id, new, (status, image_ids), now);
        // Somebody may have asked for this number before and been told that it does not exist.
        self.commit(write, &[id], &[events::of_creation(&product)], now).await?;
        self.queue().wake();
        metrics::counter!("pm_products_created_total").increment(1);
        Ok(product)
    }

    /// Keeps a file that was handed over, as the source of a picture.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no picture of a kind that is read; else as the storage says.
    pub async fn store_source(&self, bytes: Bytes) -> Result<ImageSource, Error> {
        let probed = imaging::probe(&bytes, &imaging::Limits::default());
        let probe = probed.map_err(|error| Invalid::field("product_images", error.to_string()))?;
        let key: BlobKey = self.0.engines.blobs.put(bytes, probe.format.extension()).await?;
        Ok(ImageSource::Stored(key.to_string()))
    }
}

/// The keys of pictures that were handed over as files.
fn stored(images: &[ImageSource]) -> Vec<&str> {
    let keys = images.iter().filter_map(|image| match image {
        ImageSource::Stored(key) => Some(key.as_str()),
        ImageSource::Url(_) => None,
    });
    keys.collect()
}

/// A product as it has just been stored.
fn pending_product(
    id: ProductId,
    new: NewProduct,
    (status, image_ids): (ProductStatus, Vec<ImageId>),
    now: Timestamp,
) -> Product {
    let pending = |(position, (source, image_id)): (i32, (ImageSource, ImageId))| Image {
        id: image_id,
        position,
        source,
        status: ImageStatus::Pending,
        attempts: 0,
        error: None,
        facts: None,
        renditions: Vec::new(),
        warnings: Vec::new(),
        updated_at: now,
    };
    Product {
        id,
        user_id: new.user_id,
        product_name: new.product_name,
        product_description: new.product_description,
        product_price: new.product_price,
        status,
        images: (0..).zip(new.product_images.into_iter().zip(image_ids)).map(pending).collect(),
        version: 1,
        created_at: now,
        updated_at: now,
    }
}
