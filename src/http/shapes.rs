//! The shapes of requests as the description shows them. What is really read, and what is said about a mistake, is decided
//! by the domain alone: `domain::NewProduct`, `domain::NewUser` and their like.

#![allow(dead_code, reason = "these are only described; the domain reads requests field by field")]

use utoipa::ToSchema;

use crate::domain::{EventKind, ProductId, UserId};

/// A product to be stored.
#[derive(ToSchema)]
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
    #[schema(minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001, example = 100.0)]
    product_price: f64,
}

/// Changes of a product; what is left out stays as it is.
#[derive(ToSchema)]
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
    #[schema(minimum = 0, exclusive_maximum = 1_000_000_000_000_u64, multiple_of = 0.0001, nullable = false)]
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
#[schema(as = NewProducts)]
#[serde(untagged)]
pub enum BatchShape {
    /// The products. A wrong one does not keep the others from being stored.
    List(Vec<NewProductShape>),
    // The same, in an object. A description beside a reference makes generators of TypeScript lose the type.
    Object(BatchObjectShape),
}

/// Several products in an object.
#[derive(ToSchema)]
#[schema(as = NewProductsObject)]
#[serde(deny_unknown_fields)]
pub struct BatchObjectShape {
    /// The products.
    #[schema(max_items = 1_000)]
    products: Vec<NewProductShape>,
}

/// More pictures of a product, by their addresses.
#[derive(ToSchema)]
#[schema(as = MoreImages)]
#[serde(untagged)]
pub enum MoreImagesShape {
    // A description beside a reference makes generators of TypeScript lose the type.
    One(OneImageShape),
    Several(SeveralImagesShape),
}

/// One more picture of a product.
#[derive(ToSchema)]
#[schema(as = OneImage)]
#[serde(deny_unknown_fields)]
pub struct OneImageShape {
    /// Its address.
    url: PictureUrl,
}

/// Several more pictures of a product.
#[derive(ToSchema)]
#[schema(as = SeveralImages)]
#[serde(deny_unknown_fields)]
pub struct SeveralImagesShape {
    /// Their addresses.
    #[schema(min_items = 1, max_items = 32)]
    urls: Vec<PictureUrl>,
}

/// More pictures of a product, as files; the names of the fields do not matter.
#[derive(ToSchema)]
#[schema(as = ImageFiles)]
#[serde(deny_unknown_fields)]
pub struct ImageFilesShape {
    /// The files.
    #[schema(value_type = Vec<String>, format = Binary, max_items = 32)]
    file: Vec<String>,
}

/// The http or https address of a picture, on a public host.
#[derive(ToSchema)]
#[schema(value_type = String, format = "uri", max_length = 2_048, pattern = "^[Hh][Tt][Tt][Pp][Ss]?://", example = "https://example.com/image1.jpg")]
pub struct PictureUrl(String);

/// A user to be made.
#[derive(ToSchema)]
#[schema(as = NewUser)]
#[serde(deny_unknown_fields)]
pub struct NewUserShape {
    /// The id; one is made if it is left out.
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s.\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
        example = "1234-5678-9012"
    )]
    id: Option<String>,
    /// What people call them: 1 to 200 characters once outer spaces are cut off.
    #[schema(pattern = r"^\s*[^\s\u0000](?:[^\u0000]{0,198}[^\s\u0000])?\s*$")]
    name: Option<String>,
    /// Where to write to: 3 to 254 characters once outer spaces are cut off.
    #[schema(
        format = "email",
        pattern = r"^\s*[^\s@\u0000]{1,252}@[^\s@\u0000]{1,252}\s*$",
        example = "ada@example.com"
    )]
    email: Option<String>,
}

/// An address to be told of events.
#[derive(ToSchema)]
#[schema(as = NewWebhook)]
#[serde(deny_unknown_fields)]
pub struct NewWebhookShape {
    /// Where messages are posted to: http or https, on a public host.
    #[schema(
        format = "uri",
        max_length = 2_048,
        pattern = "^[Hh][Tt][Tt][Pp][Ss]?://",
        example = "https://shop.example/hooks/pm"
    )]
    url: String,
    /// What it is told of; everything if it is left out or empty.
    #[schema(max_items = 6, value_type = Option<std::collections::HashSet<EventKind>>)]
    types: Option<Vec<EventKind>>,
    /// What its messages are signed with: `whsec_` and the base64 of 24 to 64 bytes. Made if it is left out.
    #[schema(pattern = "^whsec_(?:[A-Za-z0-9+/]{4}){8,20}$", example = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")]
    secret: Option<String>,
}
