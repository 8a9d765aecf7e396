//! Changes a product: its texts, price and images.
//!
//! The same transaction queues jobs for added images and deletes jobs of removed ones.

use crate::{
    api::{Links, source_link},
    catalog::{
        Body, Catalog, Error, Once, Precondition,
        products::{
            create::stored,
            delete::{PAUSE, POSTPONE_TIME, TRIES},
        },
    },
    clock::Timestamp,
    db::{
        Write,
        jobs::{self, NewJob},
        products::{
            self, images,
            removals::{self, Of},
        },
    },
    domain::{
        ImageId, ImagePlan, ImageSource, JobPayload, PresentImage, Product, ProductId, ProductPatch, ProductStatus,
        UserId,
    },
};

/// A product after a change.
#[derive(Clone, Debug)]
pub struct Updated {
    /// The product.
    pub product: Product,
    /// The product's JSON with its tag.
    pub body: Body,
    /// The added images, in order.
    pub added: Vec<ImageId>,
    /// Whether an earlier request with the same key was executed, so that this one changed nothing.
    pub replayed: bool,
}

/// Result of an attempt to change a product.
enum Try {
    Done(Box<Updated>),
    /// Other transactions have locked the jobs of these images.
    Locked(Vec<ImageId>),
}

impl Catalog {
    /// Changes a product; with `once`, at most once.
    ///
    /// A change without effect keeps the version and does not use up the key.
    ///
    /// # Errors
    /// [`Error::KeyReused`] if another request used this key, [`Error::NotFound`] if the product does not exist,
    /// [`Error::Precondition`] if `condition` does not hold, [`Error::Invalid`] with all invalid fields,
    /// [`Error::BlobGone`] if an uploaded file was deleted, [`Error::Unavailable`] and [`Error::Full`] if the database
    /// fails. Nothing is changed then.
    pub async fn update(
        &self,
        id: ProductId,
        patch: ProductPatch,
        condition: Option<Precondition>,
        once: Option<Once>,
        request_id: Option<&str>,
    ) -> Result<Updated, Error> {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        self.to_the_end(async move {
            for _ in 0..TRIES {
                let asked = Asked {
                    id,
                    patch: &patch,
                    condition: condition.as_ref(),
                    once: once.as_ref(),
                    request_id: request_id.as_deref(),
                };
                let images = match catalog.update_now(&asked).await? {
                    Try::Done(updated) => return Ok(*updated),
                    Try::Locked(images) => images,
                };
                let write = catalog.database().begin().await?;
                let now = write.now().await?;
                removals::put_off_live_jobs(&*write, Of::Images(&images), now.plus(POSTPONE_TIME), now).await?;
                write.commit().await?;
                tokio::time::sleep(PAUSE).await;
            }
            Err(Error::contended("database"))
        })
        .await
    }

    /// Attempts a change with the lock order of a deletion.
    ///
    /// Locks the live jobs of removed images, then the product, then checks again. Never waits for a job.
    async fn update_now(&self, asked: &Asked<'_>) -> Result<Try, Error> {
        let write = self.database().begin().await?;
        let now = write.now().await?;
        let made = self.made_before::<Vec<ImageId>>(&write, asked.once, now).await?;
        let before = self.find_product(&write, asked.id, false).await?;
        if let Some(added) = made {
            let body = Body::new(&before, self)?;
            return Ok(Try::Done(Box::new(Updated { product: before, body, added, replayed: true })));
        }
        let patch = asked.patch.held_against(&before);
        let present = present(&before, self.links());
        let going = patch.removes(&present, self.policy());
        if !removals::lock_live_jobs(&*write, Of::Images(&going)).await? {
            return Ok(Try::Locked(going));
        }
        self.pin_blobs(&write, &stored(patch.uploaded())).await?;
        let before = self.find_product(&write, asked.id, true).await?;
        self.check(asked.condition, &before)?;
        let present = self::present(&before, self.links());
        let plan = patch.plan(&present, self.policy())?;
        // Another change or a new generation may have begun before the product was locked.
        if plan.removed != going || !removals::lock_live_jobs(&*write, Of::Images(&going)).await? {
            return Ok(Try::Locked(plan.removed));
        }
        let texts_stay = patch.leaves_texts(&before);
        if texts_stay && plan.changes_nothing(&present) {
            let body = Body::new(&before, self)?;
            return Ok(Try::Done(Box::new(Updated { product: before, body, added: Vec::new(), replayed: false })));
        }
        if !texts_stay {
            products::update(&*write, &before, &patch).await?;
        }
        let added = self.change_images(&write, asked, &plan, &present, &before.user_id, now).await?;
        self.keep_made(&write, asked.once, &added).await?;
        let product = committed(self.find_product(&write, asked.id, false).await?, now);
        let body = Body::new(&product, self)?;
        self.commit_change(write, &[asked.id], now).await?;
        if !added.is_empty() {
            self.queue().wake();
        }
        metrics::counter!("pm_products_updated_total").increment(1);
        Ok(Try::Done(Box::new(Updated { product, body, added, replayed: false })))
    }

    async fn find_product(&self, write: &Write, id: ProductId, lock: bool) -> Result<Product, Error> {
        if lock {
            products::lock(&**write, &[id]).await?;
        }
        let found = products::find(&**write, id).await?;
        found.ok_or_else(|| Error::not_found(format_args!("product {id}")))
    }

    /// Checks the preconditions of a change of `product`, which is locked.
    pub(in crate::catalog) fn check(&self, condition: Option<&Precondition>, product: &Product) -> Result<(), Error> {
        condition.map_or(Ok(()), |condition| Body::new(product, self)?.check(condition, product.id))
    }

    async fn change_images(
        &self,
        write: &Write,
        asked: &Asked<'_>,
        plan: &ImagePlan,
        present: &[PresentImage],
        user_id: &UserId,
        now: Timestamp,
    ) -> Result<Vec<ImageId>, Error> {
        if !plan.removed.is_empty() {
            removals::delete_images(&**write, &plan.removed).await?;
        }
        let moved = plan.moved(present);
        if !moved.is_empty() {
            images::move_to(&**write, &moved).await?;
        }
        let images: Vec<_> =
            plan.added.iter().map(|(position, source)| (asked.id, *position, source.clone())).collect();
        self.ensure_backlog(write, images.iter().map(|_| user_id)).await?;
        let added = images::insert_all(&**write, &images, now).await?;
        let payload = JobPayload::process_image(None);
        let queued: Vec<_> = added
            .iter()
            .zip(&images)
            .map(|(image_id, (_, _, source))| NewJob {
                image_id: *image_id,
                generation: 1,
                payload: &payload,
                request_id: asked.request_id,
                user_id: user_id.clone(),
                host: source.host(),
            })
            .collect();
        jobs::insert_all(&**write, &queued, now).await?;
        if !queued.is_empty() {
            self.announce(write).await?;
        }
        Ok(added)
    }
}

/// A requested change.
struct Asked<'a> {
    id: ProductId,
    patch: &'a ProductPatch,
    condition: Option<&'a Precondition>,
    once: Option<&'a Once>,
    request_id: Option<&'a str>,
}

/// Returns the changed `product` as it is after the commit.
pub(in crate::catalog) fn committed(mut product: Product, now: Timestamp) -> Product {
    (product.version, product.updated_at) = (product.version + 1, now);
    product.status = ProductStatus::of(product.images.iter().map(|image| image.status));
    product
}

fn present(product: &Product, links: &Links) -> Vec<PresentImage> {
    let image = |image: &crate::domain::Image| PresentImage {
        id: image.id,
        position: image.position,
        source: image.source.clone(),
        link: source_link(product.id, image, links),
        earlier_link: match &image.source {
            ImageSource::Stored(key) => links.earlier_original(key),
            ImageSource::Url(_) => None,
        },
    };
    product.images.iter().map(image).collect()
}
