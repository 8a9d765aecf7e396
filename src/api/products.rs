//! Products: how they are stored and changed, and how they are answered.
//!
//! A type that ends in `Shape` describes what a request may hold. What is really read, and what is said about a mistake, is
//! decided by the domain alone.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{ImageBody, Links, PictureUrl, source_link},
    clock::Timestamp,
    domain::{Image, ImageStatus, Price, Product, ProductId, ProductStatus, Reader, UserId, without_secrets},
};

/// A product to be stored.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewProduct)]
#[serde(deny_unknown_fields)]
pub struct NewProductShape {
    /// Who owns it: chosen by the caller.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s.\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        example = "1234-5678-9012"
    )]
    user_id: String,
    /// Its name: 1 to 200 characters once outer spaces are cut off.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$", example = "Sample Product")]
    product_name: String,
    /// Its description; empty if it is left out.
    #[schema(max_length = 10_000, pattern = r"^[^\u0000]*$", example = "A test product.")]
    product_description: Option<String>,
    /// Where its pictures are, in order.
    #[schema(max_items = 32)]
    product_images: Option<Vec<PictureUrl>>,
    /// What it costs, with at most four decimal places; the very digits are read.
    #[schema(minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, example = 100.0)]
    product_price: f64,
}

/// Changes of a product; what is left out stays as it is.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = ProductPatch)]
#[serde(deny_unknown_fields)]
pub struct ProductPatchShape {
    /// Its name: 1 to 200 characters once outer spaces are cut off.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$", nullable = false)]
    product_name: Option<String>,
    /// Its description; null empties it.
    #[schema(max_length = 10_000, pattern = r"^[^\u0000]*$")]
    product_description: Option<String>,
    /// Its pictures, in order; those whose address it has already stay as they are. Null removes all.
    #[schema(max_items = 32)]
    product_images: Option<Vec<PictureUrl>>,
    /// What it costs, with at most four decimal places.
    #[schema(minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, nullable = false)]
    product_price: Option<f64>,
    /// The product's number; it may be sent back and not be changed.
    #[schema(nullable = false)]
    id: Option<ProductId>,
    /// The product's user; it may be sent back and not be changed.
    #[schema(nullable = false)]
    user_id: Option<UserId>,
    /// What was read may be sent back; it is ignored.
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

/// Several products: a list of them, or an object around the list.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewProducts)]
#[serde(untagged)]
pub enum BatchShape {
    /// The products. A wrong one does not keep the others from being stored.
    List(Vec<NewProductShape>),
    /// The same, in an object.
    Object(BatchObjectShape),
}

/// Several products in an object.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewProductsObject)]
#[serde(deny_unknown_fields)]
pub struct BatchObjectShape {
    /// The products.
    #[schema(max_items = 1_000)]
    products: Vec<NewProductShape>,
}

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
