//! The API's JSON: the same for HTTP, for the cache and for the command line's `-o json`.

use serde::Serialize;

use crate::{
    catalog::Links,
    clock::Timestamp,
    domain::{Image, ImageId, ImageSource, ImageStatus, Price, Product, ProductId, User, UserId},
};

/// A product as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct ProductBody<'a> {
    id: ProductId,
    user_id: &'a UserId,
    product_name: &'a str,
    product_description: &'a str,
    product_images: Vec<String>,
    product_price: Price,
    compressed_product_images: Vec<String>,
    status: &'static str,
    images: Vec<ImageBody<'a>>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A picture as clients see it.
#[derive(Clone, Debug, Serialize)]
struct ImageBody<'a> {
    id: ImageId,
    position: i32,
    source_url: String,
    status: &'static str,
    attempts: i32,
    error: Option<ImageErrorBody<'a>>,
    width: Option<u32>,
    height: Option<u32>,
    format: Option<&'a str>,
    bytes: Option<u64>,
    thumbhash: Option<&'a str>,
    dominant_color: Option<&'a str>,
    perceptual_hash: Option<&'a str>,
    renditions: Vec<RenditionBody<'a>>,
    warnings: &'a [String],
}

#[derive(Clone, Debug, Serialize)]
struct ImageErrorBody<'a> {
    code: &'static str,
    message: &'a str,
}

#[derive(Clone, Debug, Serialize)]
struct RenditionBody<'a> {
    preset: &'a str,
    format: &'a str,
    width: u32,
    height: u32,
    bytes: u64,
    url: String,
}

/// A user as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct UserBody<'a> {
    id: &'a UserId,
    name: Option<&'a str>,
    email: Option<&'a str>,
    created_at: Timestamp,
}

/// A page of a list as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct PageBody<T> {
    /// The rows in order.
    pub items: Vec<T>,
    /// Where the next page begins; `null` on the last one.
    pub next_cursor: Option<String>,
}

impl<'a> ProductBody<'a> {
    /// The form of `product` with links by `links`.
    pub fn new(product: &'a Product, links: &Links) -> Self {
        let largest = |image: &Image| {
            let ready = image.status == ImageStatus::Ready;
            image.renditions.first().filter(|_| ready).map(|rendition| links.image(&rendition.key))
        };
        Self {
            id: product.id,
            user_id: &product.user_id,
            product_name: &product.product_name,
            product_description: &product.product_description,
            product_images: product.images.iter().map(|image| source_link(&image.source, links)).collect(),
            product_price: product.product_price,
            compressed_product_images: product.images.iter().filter_map(largest).collect(),
            status: product.status.as_str(),
            images: product.images.iter().map(|image| ImageBody::new(image, links)).collect(),
            version: product.version,
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

impl<'a> ImageBody<'a> {
    fn new(image: &'a Image, links: &Links) -> Self {
        let facts = image.facts.as_ref();
        Self {
            id: image.id,
            position: image.position,
            source_url: source_link(&image.source, links),
            status: image.status.as_str(),
            attempts: image.attempts,
            error: image.error.as_ref().map(|(code, message)| ImageErrorBody { code: code.as_str(), message }),
            width: facts.map(|facts| facts.width),
            height: facts.map(|facts| facts.height),
            format: facts.map(|facts| facts.format.as_str()),
            bytes: facts.map(|facts| facts.bytes),
            thumbhash: facts.map(|facts| facts.thumbhash.as_str()),
            dominant_color: facts.map(|facts| facts.dominant_color.as_str()),
            perceptual_hash: facts.and_then(|facts| facts.perceptual_hash.as_deref()),
            renditions: image
                .renditions
                .iter()
                .map(|rendition| RenditionBody {
                    preset: &rendition.preset,
                    format: &rendition.format,
                    width: rendition.width,
                    height: rendition.height,
                    bytes: rendition.bytes,
                    url: links.image(&rendition.key),
                })
                .collect(),
            warnings: &image.warnings,
        }
    }
}

impl<'a> UserBody<'a> {
    /// The form of `user`.
    pub fn new(user: &'a User) -> Self {
        Self { id: &user.id, name: user.name.as_deref(), email: user.email.as_deref(), created_at: user.created_at }
    }
}

fn source_link(source: &ImageSource, links: &Links) -> String {
    match source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Stored(key) => links.image(key),
    }
}
