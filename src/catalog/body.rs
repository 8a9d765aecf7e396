//! The API's JSON: the same for HTTP, for the cache and for the command line's `-o json`.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    catalog::Links,
    clock::Timestamp,
    domain::{
        Image, ImageId, ImageSource, ImageStatus, Price, Product, ProductId, ProductStatus, Reader, User, UserId,
        without_secrets,
    },
};

/// A product with its pictures.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductBody<'a> {
    /// Its number; grows with each new product.
    id: ProductId,
    /// Who owns it.
    user_id: &'a UserId,
    /// Its name.
    #[schema(min_length = 1, max_length = 200)]
    product_name: &'a str,
    /// Its description; empty if there is none.
    #[schema(max_length = 10_000)]
    product_description: &'a str,
    /// Where its images come from, in order; an uploaded one by the link to its original. Only the product's user and
    /// administrators see the query of an address.
    product_images: Vec<String>,
    /// What it costs.
    product_price: Price,
    /// A link for each ready picture, its largest rendition, in the order of `product_images`.
    compressed_product_images: Vec<String>,
    /// `ready` when every picture is, `failed` when all that failed have no attempt left, else `processing`.
    #[schema(value_type = ProductStatus)]
    status: &'static str,
    /// Its pictures, by position.
    images: Vec<ImageBody<'a>>,
    /// Grows by one with each change that a reader can see.
    version: i64,
    /// When it was made.
    created_at: Timestamp,
    /// When it was last changed.
    updated_at: Timestamp,
}

/// A picture of a product.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageBody<'a> {
    /// Its number.
    id: ImageId,
    /// Its place among the product's pictures, from 0.
    position: i32,
    /// Where its bytes come from; the link to the original if it was uploaded. Only the product's user and administrators see
    /// the query of an address.
    source_url: String,
    /// How far it is.
    #[schema(value_type = ImageStatus)]
    status: &'static str,
    /// How often a worker has taken it up in the present run.
    attempts: i32,
    /// Why the last attempt failed; null once the picture is ready.
    #[schema(required)]
    error: Option<ImageErrorBody<'a>>,
    /// Pixels across of the upright source; null until it was decoded, as what follows.
    #[schema(required)]
    width: Option<u32>,
    /// Pixels down of the upright source.
    #[schema(required)]
    height: Option<u32>,
    /// The source's format, by its content.
    #[schema(required, example = "jpeg")]
    format: Option<&'a str>,
    /// The source's bytes.
    #[schema(required)]
    bytes: Option<u64>,
    /// A preview of some 25 bytes, ThumbHash in standard base64.
    #[schema(required)]
    thumbhash: Option<&'a str>,
    /// The most frequent colour, `#rrggbb`.
    #[schema(required, pattern = "^#[0-9a-f]{6}$")]
    dominant_color: Option<&'a str>,
    /// What it looks like in 64 bits, as 16 digits of hex: alike pictures differ in at most 10 bits.
    #[schema(required, pattern = "^[0-9a-f]{16}$")]
    perceptual_hash: Option<&'a str>,
    /// What was made of it, largest first.
    renditions: Vec<RenditionBody<'a>>,
    /// What was not as it should be with the source, such as `truncated`.
    warnings: &'a [String],
}

/// Why a picture failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ImageError)]
struct ImageErrorBody<'a> {
    /// One of the closed list of codes.
    #[schema(example = "too_large")]
    code: &'static str,
    /// A sentence for people.
    message: &'a str,
}

/// A stored form of a picture.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Rendition)]
struct RenditionBody<'a> {
    /// The preset it was made by.
    preset: &'a str,
    /// `jpeg`, `webp`, `png`, `avif` or `gif`.
    format: &'a str,
    /// Pixels across.
    width: u32,
    /// Pixels down.
    height: u32,
    /// Its size.
    bytes: u64,
    /// Where it is; made from its bytes, so it never changes.
    url: String,
}

/// A user.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserBody<'a> {
    /// Chosen by whoever made the user, or made.
    id: &'a UserId,
    /// What people call them.
    #[schema(required)]
    name: Option<&'a str>,
    /// Where to write to.
    #[schema(required)]
    email: Option<&'a str>,
    /// When the user was made.
    created_at: Timestamp,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub struct PageBody<T: ToSchema> {
    /// The rows in order.
    pub items: Vec<T>,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
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
            product_images: product.images.iter().map(|image| source_link(product.id, image, links)).collect(),
            product_price: product.product_price,
            compressed_product_images: product.images.iter().filter_map(largest).collect(),
            status: product.status.as_str(),
            images: product.images.iter().map(|image| ImageBody::new(product.id, image, links)).collect(),
            version: product.version,
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }

    /// The form that `reader` may see.
    #[must_use]
    pub fn shown_to(mut self, reader: Reader<'_>) -> Self {
        if !reader.sees_all_of(self.user_id) {
            let addresses = self.product_images.iter_mut();
            for address in addresses.chain(self.images.iter_mut().map(|image| &mut image.source_url)) {
                address.truncate(without_secrets(address).len());
            }
        }
        self
    }
}

impl<'a> ImageBody<'a> {
    /// The form of `image` of product `product` with links by `links`.
    pub fn new(product: ProductId, image: &'a Image, links: &Links) -> Self {
        let facts = image.facts.as_ref();
        Self {
            id: image.id,
            position: image.position,
            source_url: source_link(product, image, links),
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

/// Where the bytes of an image come from, as its product shows it.
pub(super) fn source_link(product: ProductId, image: &Image, links: &Links) -> String {
    match &image.source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Stored(_) => links.original(product, image.id),
    }
}
