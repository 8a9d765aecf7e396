//! Pictures as those see them who hand them out: which forms there are, from the same cached body that clients read. And the
//! forms that are made on demand, which are no part of it.

use serde::Deserialize;

use crate::{
    api::Links,
    blobs::BlobKey,
    catalog::{Catalog, Error, products::read::Body},
    db::products::variants::{self, NewVariant},
    domain::{ImageId, ImageStatus, ProductId},
};

/// Forms of one picture that are kept beside its presets; the oldest makes room for one more.
pub const MOST_VARIANTS: u64 = 100;

/// A picture of a product.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Its number.
    pub id: ImageId,
    /// How far it is.
    pub status: ImageStatus,
    /// Pixels across and down of its upright source, once it was decoded.
    pub size: Option<(u32, u32)>,
    /// A preview in about 30 bytes, base64, once it was decoded.
    pub thumbhash: Option<String>,
    /// What was made of it, largest first.
    pub forms: Vec<Form>,
}

/// A stored form of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// The preset it was made by.
    pub preset: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Its blob.
    pub key: BlobKey,
}

impl Catalog {
    /// The picture `image` of product `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such product, or if the product has no such picture.
    pub async fn picture(&self, id: ProductId, image: ImageId) -> Result<Picture, Error> {
        let body = match self.hot_body(id).await {
            Some(body) => body,
            None => self.product_body(id).await?.0,
        };
        let pictures = read(&body, self.links())?;
        let found = pictures.into_iter().find(|picture| picture.id == image);
        found.ok_or_else(|| Error::not_found(format_args!("image {image} of product {id}")))
    }

    /// The form `name` of a picture that was made from the blob `source`, if it was made before.
    ///
    /// # Errors
    /// [`Error::Unavailable`] by the database.
    pub async fn variant(&self, image: ImageId, name: &str, source: &BlobKey) -> Result<Option<BlobKey>, Error> {
        let found = variants::find(&self.database().read(), image, name, source.as_str()).await?;
        Ok(found.as_deref().and_then(BlobKey::parse))
    }

    /// Keeps a form that was made on demand and is stored; beyond [`MOST_VARIANTS`] of one picture the oldest go.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the picture is gone, [`Error::BlobGone`] if the form's blob is.
    pub async fn keep_variant(&self, new: NewVariant) -> Result<(), Error> {
        let catalog = self.clone();
        self.to_the_end(async move {
            let write = catalog.database().begin().await?;
            catalog.refer_to(&write, &[&new.key]).await?;
            if variants::origin_of(&*write, new.image_id).await?.is_none() {
                return Err(Error::not_found(format_args!("image {}", new.image_id)));
            }
            variants::keep(&*write, &new, MOST_VARIANTS, write.now().await?).await?;
            Ok(write.commit().await?)
        })
        .await
    }
}

/// What is read of a product's body.
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

fn read(body: &Body, links: &Links) -> Result<Vec<Picture>, Error> {
    let product: Product = serde_json::from_slice(&body.json).map_err(Error::internal)?;
    let pictures = product.images.into_iter().map(|image| Picture {
        id: image.id,
        status: ImageStatus::parse(&image.status).unwrap_or(ImageStatus::Pending),
        size: image.width.zip(image.height),
        thumbhash: image.thumbhash,
        forms: image.renditions.into_iter().filter_map(|rendition| form(rendition, links)).collect(),
    });
    Ok(pictures.collect())
}

fn form(rendition: Rendition, links: &Links) -> Option<Form> {
    let Rendition { preset, width, height, url } = rendition;
    Some(Form { preset, width, height, key: links.key(&url)? })
}
