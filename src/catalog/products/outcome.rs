//! The outcome of creating a product: the product as it is stored, or why it was not stored.

use std::sync::Arc;

use crate::{
    catalog::Error,
    clock::Timestamp,
    domain::{
        Image, ImageId, ImageSource, ImageStatus, Invalid, NewProduct, Product, ProductId, ProductStatus, UserId,
    },
};

/// A stored product, or why it was not stored.
pub type Stored = Result<Product, NotStored>;

/// Why a product was not stored.
#[derive(Clone, Debug)]
pub enum NotStored {
    /// It is invalid.
    Invalid(Invalid),
    /// An earlier request with the same key stored it, and it was deleted.
    Gone(ProductId),
    /// The database failed after earlier products of the batch were stored.
    Failed(Arc<Error>),
}

impl From<NotStored> for Error {
    fn from(reason: NotStored) -> Self {
        match reason {
            NotStored::Invalid(invalid) => Self::Invalid(invalid),
            NotStored::Gone(id) => Self::gone(format_args!("product {id}, which this request created,")),
            NotStored::Failed(error) => Self::unavailable("database", error),
        }
    }
}

pub(super) fn unknown_user(id: &UserId) -> NotStored {
    NotStored::Invalid(Invalid::field("user_id", format!("user {id} not found")))
}

/// Returns the status of a new product, whose images are all pending.
pub(super) fn status_of(new: &NewProduct) -> ProductStatus {
    ProductStatus::of(new.product_images.iter().map(|_| ImageStatus::Pending))
}

pub(super) fn product_of(new: NewProduct, id: ProductId, status: ProductStatus, now: Timestamp) -> Product {
    Product {
        id,
        user_id: new.user_id,
        product_name: new.product_name,
        product_description: new.product_description,
        product_price: new.product_price,
        status,
        images: Vec::with_capacity(new.product_images.len()),
        version: 1,
        created_at: now,
        updated_at: now,
    }
}

pub(super) fn pending(id: ImageId, position: i32, source: ImageSource, now: Timestamp) -> Image {
    Image {
        id,
        position,
        source,
        status: ImageStatus::Pending,
        attempts: 0,
        error: None,
        facts: None,
        renditions: Vec::new(),
        warnings: Vec::new(),
        updated_at: now,
    }
}
