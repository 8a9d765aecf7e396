//! Removes and reprocesses single images of a product.

use crate::{
    catalog::{Body, Catalog, Error, Once, Precondition, Updated, products::update::committed},
    db::{jobs::reruns, products},
    domain::{ImageId, ImageStatus, ImagesPatch, JobPayload, ProductId, ProductPatch},
};

impl Catalog {
    /// Removes an image from its product; later images move up one position.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product has no such image; the errors of [`Catalog::update`].
    pub async fn remove_image(
        &self,
        id: ProductId,
        image: ImageId,
        condition: Option<Precondition>,
        request_id: Option<&str>,
    ) -> Result<Updated, Error> {
        let patch = ProductPatch::of_images(ImagesPatch::Edit { add: Vec::new(), remove: vec![image] });
        match self.update(id, patch, condition, None, request_id).await {
            // An unknown image is the only possible mistake in this change.
            Err(Error::Invalid(_)) => Err(no_image(id, image)),
            outcome => outcome,
        }
    }

    /// Queues an image again and returns its product.
    ///
    /// An image that is pending or processing is left unchanged.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product has no such image, [`Error::Precondition`] if `condition` does not hold.
    pub async fn reprocess_image(
        &self,
        id: ProductId,
        image: ImageId,
        condition: Option<Precondition>,
        once: Option<Once>,
        request_id: Option<&str>,
    ) -> Result<Updated, Error> {
        let (catalog, request_id) = (self.clone(), request_id.map(str::to_owned));
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            let now = write.now().await?;
            let replayed = catalog.made_before::<()>(&write, once.as_ref(), now).await?.is_some();
            products::lock(&*write, &[id]).await?;
            let found = products::find(&*write, id).await?;
            let product = found.ok_or_else(|| Error::not_found(format_args!("product {id}")))?;
            let wanted = product.images.iter().find(|candidate| candidate.id == image);
            let wanted = wanted.ok_or_else(|| no_image(id, image))?;
            if replayed {
                let body = Body::new(&product, &catalog)?;
                return Ok(Updated { product, body, added: Vec::new(), replayed });
            }
            catalog.check(condition.as_ref(), &product)?;
            catalog.keep_made(&write, once.as_ref(), &()).await?;
            if !wanted.status.is_final() {
                write.commit().await?;
                let body = Body::new(&product, &catalog)?;
                return Ok(Updated { product, body, added: Vec::new(), replayed });
            }
            let selection = reruns::Selection {
                products: vec![id],
                statuses: vec![ImageStatus::Ready, ImageStatus::Failed],
                ..reruns::Selection::default()
            };
            let all = reruns::select(&*write, &selection, None, i64::MAX.unsigned_abs()).await?;
            let chosen: Vec<_> = all.into_iter().filter(|candidate| candidate.id == image).collect();
            let payload = JobPayload::process_image(None);
            catalog.begin_again(&write, &chosen, &payload, request_id.as_deref(), now).await?;
            let found = products::find(&*write, id).await?;
            let product = committed(found.ok_or_else(|| Error::not_found(format_args!("product {id}")))?, now);
            let body = Body::new(&product, &catalog)?;
            catalog.commit_change(write, &[id], now).await?;
            catalog.queue().wake();
            Ok(Updated { product, body, added: Vec::new(), replayed })
        })
        .await
    }
}

fn no_image(id: ProductId, image: ImageId) -> Error {
    Error::not_found(format_args!("image {image} of product {id}"))
}
