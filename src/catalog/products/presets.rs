//! Renditions of an image, read from the cached product body, and its variants made on demand.

use serde::Deserialize;

use crate::{
    api::Links,
    blobs::BlobKey,
    catalog::{Catalog, Error, products::read::Body},
    db::products::variants::{self, NewVariant},
    domain::{ImageId, ImageStatus, ProductId},
};

/// Maximum number of variants per image; a new one replaces the oldest.
pub const MAX_VARIANTS: u64 = 100;

/// An image of a product.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageView {
    /// Its id.
    pub id: ImageId,
    /// Its status.
    pub status: ImageStatus,
    /// Width and height in pixels of the upright source, once decoded.
    pub size: Option<(u32, u32)>,
    /// ThumbHash preview of about 30 bytes in base64, once decoded.
    pub thumbhash: Option<String>,
    /// Its renditions, largest first.
    pub forms: Vec<Form>,
}

/// A stored rendition of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// The preset.
    pub preset: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Its blob.
    pub key: BlobKey,
}

impl Catalog {
    /// Returns the image `image` of product `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the product or the image does not exist.
    pub async fn image(&self, id: ProductId, image: ImageId) -> Result<ImageView, Error> {
        let body = match self.hot_body(id).await {
            Some(body) => body,
            None => self.product_body(id).await?.0,
        };
        let images = read(&body, self.links())?;
        let found = images.into_iter().find(|candidate| candidate.id == image);
        found.ok_or_else(|| Error::not_found(format_args!("image {image} of product {id}")))
    }

    /// Returns the blob of the variant `name` made from the blob `source`, if stored.
    pub async fn variant(&self, image: ImageId, name: &str, source: &BlobKey) -> Result<Option<BlobKey>, Error> {
        let found = variants::find(&self.database().read(), image, name, source.as_str()).await?;
        Ok(found.as_deref().and_then(BlobKey::parse))
    }

    /// Records a stored variant; deletes the oldest ones beyond [`MAX_VARIANTS`].
    ///
    /// # Errors
    /// [`Error::NotFound`] if the image was deleted, [`Error::BlobGone`] if the variant's blob was deleted.
    pub async fn keep_variant(&self, new: NewVariant) -> Result<(), Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            catalog.pin_blobs(&write, &[&new.key]).await?;
            if variants::origin_of(&*write, new.image_id).await?.is_none() {
                return Err(Error::not_found(format_args!("image {}", new.image_id)));
            }
            variants::keep(&*write, &new, MAX_VARIANTS, write.now().await?).await?;
            Ok(write.commit().await?)
        })
        .await
    }
}

/// The fields of a product body that are read here.
#[derive(Deserialize)]
struct Product {
    images: Vec<Image>,
}

#[derive(Deserialize)]
struct Image {
    id: ImageId,
    status: String,
    width: Option<u32>,
    height: Option<u32>,
    thumbhash: Option<String>,
    renditions: Vec<Rendition>,
}

#[derive(Deserialize)]
struct Rendition {
    preset: String,
    width: u32,
    height: u32,
    url: String,
}

fn read(body: &Body, links: &Links) -> Result<Vec<ImageView>, Error> {
    let product: Product = serde_json::from_slice(&body.json).map_err(Error::internal)?;
    let images = product.images.into_iter().map(|image| ImageView {
        id: image.id,
        status: ImageStatus::parse(&image.status).unwrap_or(ImageStatus::Pending),
        size: image.width.zip(image.height),
        thumbhash: image.thumbhash,
        forms: image.renditions.into_iter().filter_map(|rendition| form(rendition, links)).collect(),
    });
    Ok(images.collect())
}

fn form(rendition: Rendition, links: &Links) -> Option<Form> {
    let Rendition { preset, width, height, url } = rendition;
    Some(Form { preset, width, height, key: links.key(&url)? })
}
