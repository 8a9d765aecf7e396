//! The pictures of products: how more are added, and how they are answered.
//!
//! A type that ends in `Shape` describes what a request may hold. What is really read, and what is said about a mistake, is
//! decided by the domain alone.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::Links,
    domain::{Image, ImageId, ImageSource, ImageStatus, ProductId},
};

/// More pictures of a product, by their addresses.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = MoreImages)]
#[serde(untagged)]
pub enum MoreImagesShape {
    /// One.
    One(OneImageShape),
    /// Several.
    Several(SeveralImagesShape),
}

/// One more picture of a product.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = OneImage)]
#[serde(deny_unknown_fields)]
pub struct OneImageShape {
    /// Its address.
    url: PictureUrl,
}

/// Several more pictures of a product.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = SeveralImages)]
#[serde(deny_unknown_fields)]
pub struct SeveralImagesShape {
    /// Their addresses.
    #[schema(min_items = 1, max_items = 32)]
    urls: Vec<PictureUrl>,
}

/// More pictures of a product, as files; the names of the fields do not matter.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = ImageFiles)]
#[serde(deny_unknown_fields)]
pub struct ImageFilesShape {
    /// The files.
    #[schema(value_type = Vec<String>, format = Binary, max_items = 32)]
    file: Vec<String>,
}

/// The http or https address of a picture, on a public host.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(value_type = String, format = "uri", max_length = 2_048, pattern = "^[Hh][Tt][Tt][Pp][Ss]?://", example = "https://example.com/image1.jpg")]
pub struct PictureUrl(String);

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

/// Where the bytes of an image come from, as its product shows it.
pub fn source_link(product: ProductId, image: &Image, links: &Links) -> String {
    match &image.source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Stored(_) => links.original(product, image.id),
    }
}
