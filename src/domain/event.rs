//! What happens to products, as those are told who listen.

use serde::Serialize;

use crate::{
    clock::Timestamp,
    domain::{ImageId, ProductId, UserId},
};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A product was stored.
    ProductCreated,
    /// Something of a product that readers see has changed.
    ProductUpdated,
    /// A product was deleted.
    ProductDeleted,
    /// A worker has taken a picture up.
    ImageProcessing,
    /// A picture is ready.
    ImageReady,
    /// A picture has failed for good.
    ImageFailed,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::ProductCreated,
        Self::ProductUpdated,
        Self::ProductDeleted,
        Self::ImageProcessing,
        Self::ImageReady,
        Self::ImageFailed,
    ];

    /// The name that listeners see: `product.created` …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProductCreated => "product.created",
            Self::ProductUpdated => "product.updated",
            Self::ProductDeleted => "product.deleted",
            Self::ImageProcessing => "image.processing",
            Self::ImageReady => "image.ready",
            Self::ImageFailed => "image.failed",
        }
    }

    /// The kind that is written `name`.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Something that happened to a product, before it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// What happened.
    pub kind: EventKind,
    /// The product.
    pub product_id: ProductId,
    /// The picture, where it is about one.
    pub image_id: Option<ImageId>,
    /// Who owns the product.
    pub user_id: UserId,
    /// What listeners are told.
    pub data: EventData,
    /// When it happened.
    pub created_at: Timestamp,
}

/// What listeners are told of an event: small, and enough without asking again. What does not apply is left out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventData {
    /// The product.
    pub product_id: ProductId,
    /// Who owns it.
    pub user_id: UserId,
    /// The picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<ImageId>,
    /// The product's version after the event, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The product's status after the event, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    /// Why a picture failed: one of the closed list of codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
}
