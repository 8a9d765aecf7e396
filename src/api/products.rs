//! JSON of products.
//! A type whose name ends in `Shape` only describes a request body in the OpenAPI document. The domain parses and
//! validates requests.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{ImageBody, ImageUrl, Links, source_link},
    clock::Timestamp,
    domain::{Image, ImageStatus, Price, Product, ProductId, ProductStatus, Reader, UserId, without_secrets},
};

/// A product to create.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewProduct)]
#[serde(deny_unknown_fields)]
pub struct NewProductShape {
    /// Id of the owning user.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s.\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        example = "1234-5678-9012"
    )]
    user_id: String,
    /// Name: 1 to 200 characters after trimming.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$", example = "Sample Product")]
    product_name: String,
    /// Description; empty if absent.
    #[schema(max_length = 10_000, pattern = r"^[^\u0000]*$", example = "A test product.")]
    product_description: Option<String>,
    /// URLs of its images, in order.
    #[schema(max_items = 32)]
    product_images: Option<Vec<ImageUrl>>,
    /// Price with at most four decimal places, read as a decimal without rounding.
    #[schema(minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001, example = 100.0)]
    product_price: f64,
}

/// Changes of a product. Absent fields stay unchanged.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = ProductPatch)]
#[serde(deny_unknown_fields)]
pub struct ProductPatchShape {
    /// Name: 1 to 200 characters after trimming.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$", nullable = false)]
    product_name: Option<String>,
    /// Description; null clears it.
    #[schema(max_length = 10_000, pattern = r"^[^\u0000]*$")]
    product_description: Option<String>,
    /// URLs of its images, in order. Images whose URL the product already has are kept. Null removes all images.
    #[schema(max_items = 32)]
    product_images: Option<Vec<ImageUrl>>,
    /// Price with at most four decimal places.
    #[schema(minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001, nullable = false)]
    product_price: Option<f64>,
    /// Id of the product; it may be present but cannot be changed.
    #[schema(nullable = false)]
    id: Option<ProductId>,
    /// Id of the owning user; it may be present but cannot be changed.
    #[schema(nullable = false)]
    user_id: Option<UserId>,
    /// Ignored, so that clients can send back what they read.
    #[schema(value_type = Option<serde_json::Value>, nullable = false)]
    compressed_product_images: Option<Vec<String>>,
    /// Ignored.
    #[schema(value_type = Option<serde_json::Value>, nullable = false)]
    status: Option<String>,
    /// Ignored.
    #[schema(value_type = Option<serde_json::Value>, nullable = false)]
    images: Option<Vec<String>>,
    /// Ignored.
    #[schema(value_type = Option<serde_json::Value>, nullable = false)]
    version: Option<i64>,
    /// Ignored.
    #[schema(value_type = Option<serde_json::Value>, nullable = false)]
    created_at: Option<String>,
    /// Ignored.
    #[schema(value_type = Option<serde_json::Value>, nullable = false)]
    updated_at: Option<String>,
}

/// Products to create: an array, or an object that contains the array.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewProducts)]
#[serde(untagged)]
#[expect(missing_docs, reason = "with a description beside a reference, generators of TypeScript lose the type")]
pub enum BatchShape {
    /// The products. Valid products are created even if others are invalid.
    List(Vec<NewProductShape>),
    Object(BatchObjectShape),
}

/// An object that contains products to create.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewProductsObject)]
#[serde(deny_unknown_fields)]
pub struct BatchObjectShape {
    /// The products.
    #[schema(max_items = 1_000)]
    products: Vec<NewProductShape>,
}

/// A product with its images.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Product)]
pub struct ProductBody<'a> {
    /// Id of the product; increases with each new product.
    id: ProductId,
    /// Id of the owning user.
    user_id: &'a UserId,
    /// Name.
    #[schema(min_length = 1, max_length = 200)]
    product_name: &'a str,
    /// Description; may be empty.
    #[schema(max_length = 10_000)]
    product_description: &'a str,
    /// Source URLs of its images, in order. For an uploaded image, the link to its original. Only the owner and
    /// administrators see the query of a URL.
    product_images: Vec<String>,
    /// Price.
    product_price: Price,
    /// Link to the largest rendition of each ready image, in the order of `product_images`.
    compressed_product_images: Vec<String>,
    /// `processing` while an image is pending or processing; then `failed` if an image failed, otherwise `ready`.
    #[schema(value_type = ProductStatus)]
    status: &'static str,
    /// Images, by position.
    images: Vec<ImageBody<'a>>,
    /// Increases by one with each visible change.
    version: i64,
    /// When it was created.
    created_at: Timestamp,
    /// When it was last changed.
    updated_at: Timestamp,
}

impl<'a> ProductBody<'a> {
    /// Creates the body of `product`.
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

    /// Removes what `reader` may not see.
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
