//! JSON of images.
//! A type whose name ends in `Shape` only describes a request body in the OpenAPI document. The domain parses and
//! validates requests.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::Links,
    domain::{Image, ImageId, ImageSource, ImageStatus, ProductId},
};

/// Images to add to a product, by URL.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = MoreImages)]
#[serde(untagged)]
#[expect(missing_docs, reason = "with a description beside a reference, generators of TypeScript lose the type")]
pub enum MoreImagesShape {
    One(OneImageShape),
    Several(SeveralImagesShape),
}

/// One image to add to a product.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = OneImage)]
#[serde(deny_unknown_fields)]
pub struct OneImageShape {
    /// URL of the image.
    url: ImageUrl,
}

/// Several images to add to a product.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = SeveralImages)]
#[serde(deny_unknown_fields)]
pub struct SeveralImagesShape {
    /// URLs of the images.
    #[schema(min_items = 1, max_items = 32)]
    urls: Vec<ImageUrl>,
}

/// Files to add to a product as images. Field names are ignored.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = ImageFiles)]
#[serde(deny_unknown_fields)]
pub struct ImageFilesShape {
    /// The files.
    #[schema(value_type = Vec<String>, format = Binary, max_items = 32)]
    file: Vec<String>,
}

/// An http or https URL of an image, on a public host.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(value_type = String, format = "uri", max_length = 2_048, pattern = "^[Hh][Tt][Tt][Pp][Ss]?://", example = "https://example.com/image1.jpg")]
pub struct ImageUrl(String);

/// An image of a product.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Image)]
pub struct ImageBody<'a> {
    /// Id of the image.
    id: ImageId,
    /// Position among the product's images, from 0.
    position: i32,
    /// Source URL, or the link to the original if it was uploaded. Only the product's owner and administrators see the
    /// query of a URL.
    pub(super) source_url: String,
    /// Processing status.
    #[schema(value_type = ImageStatus)]
    status: &'static str,
    /// Number of attempts in the current generation.
    attempts: i32,
    /// Why the last attempt failed; null once the image is ready.
    #[schema(required)]
    error: Option<ImageErrorBody<'a>>,
    /// Width in pixels of the upright source; null until the image is decoded.
    #[schema(required)]
    width: Option<u32>,
    /// Height in pixels of the upright source; null until the image is decoded.
    #[schema(required)]
    height: Option<u32>,
    /// Format of the source, detected from its content; null until the image is decoded.
    #[schema(required, example = "jpeg")]
    format: Option<&'a str>,
    /// Size of the source in bytes; null until the image is decoded.
    #[schema(required)]
    bytes: Option<u64>,
    /// ThumbHash preview of about 25 bytes in standard base64; null until the image is decoded.
    #[schema(required)]
    thumbhash: Option<&'a str>,
    /// The most frequent color, `#rrggbb`; null until the image is decoded.
    #[schema(required, pattern = "^#[0-9a-f]{6}$")]
    dominant_color: Option<&'a str>,
    /// 64-bit perceptual hash as 16 hex digits; the hashes of similar images differ in at most 10 bits.
    #[schema(required, pattern = "^[0-9a-f]{16}$")]
    perceptual_hash: Option<&'a str>,
    /// Renditions, largest first.
    renditions: Vec<RenditionBody<'a>>,
    /// Problems with the source that did not stop processing, such as `truncated`.
    warnings: &'a [String],
}

/// The error of an image.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ImageError)]
struct ImageErrorBody<'a> {
    /// Error code.
    #[schema(example = "too_large")]
    code: &'static str,
    /// Description of the error.
    message: &'a str,
}

/// A rendition of an image, made for a preset.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Rendition)]
struct RenditionBody<'a> {
    /// Name of the preset.
    preset: &'a str,
    /// Format: `jpeg`, `webp`, `png`, `avif` or `gif`.
    format: &'a str,
    /// Width in pixels.
    width: u32,
    /// Height in pixels.
    height: u32,
    /// Size in bytes.
    bytes: u64,
    /// Link to the rendition; its content never changes.
    url: String,
}

impl<'a> ImageBody<'a> {
    /// Creates the body of `image` of product `product`.
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

/// Returns the source link of an image as shown in its product.
pub fn source_link(product: ProductId, image: &Image, links: &Links) -> String {
    match &image.source {
        ImageSource::Url(url) => url.clone(),
        ImageSource::Stored(_) => links.original(product, image.id),
    }
}
