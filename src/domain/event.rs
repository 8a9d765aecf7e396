//! What happens to products, as those are told who listen.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{
    clock::Timestamp,
    domain::{EventId, ImageId, ProductId, UserId},
};

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
pub enum EventKind {
    /// A product was stored.
    #[schema(rename = "product.created")]
    ProductCreated,
    /// Something of a product that readers see has changed.
    #[schema(rename = "product.updated")]
    ProductUpdated,
    /// A product was deleted.
    #[schema(rename = "product.deleted")]
    ProductDeleted,
    /// A worker has taken a picture up.
    #[schema(rename = "image.processing")]
    ImageProcessing,
    /// A picture is ready.
    #[schema(rename = "image.ready")]
    ImageReady,
    /// A picture has failed for good.
    #[schema(rename = "image.failed")]
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

/// Where an event stands among all: first by the transaction that wrote it, which is 0 on SQLite, then by its number.
/// Readers see events in this order and never one that stands before another they have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The transaction.
    pub tx: i64,
    /// The event.
    pub id: EventId,
}

impl EventPosition {
    /// Before all events.
    pub const START: Self = Self { tx: 0, id: EventId(0) };
}

impl fmt::Display for EventPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.tx, self.id)
    }
}

impl FromStr for EventPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| -> Option<i64> {
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        let position =
            text.split_once('-').and_then(|(tx, id)| Some(Self { tx: number(tx)?, id: EventId(number(id)?) }));
        position.ok_or_else(|| "is not the id of an event, such as `0-17`".into())
    }
}

/// An event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where it stands.
    pub position: EventPosition,
    /// What happened.
    pub kind: EventKind,
    /// The product.
    pub product_id: ProductId,
    /// Who owns it.
    pub user_id: UserId,
    /// What listeners are told, [`EventData`] as JSON.
    pub data: String,
}

/// Which events a listener wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only this product's.
    pub product_id: Option<ProductId>,
    /// Only those of this user's products.
    pub user_id: Option<UserId>,
    /// Only these kinds; all if empty.
    pub kinds: Vec<EventKind>,
}

/// What a listener asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Which events.
    pub filter: EventFilter,
    /// Only those after this one; those from now on if absent.
    pub after: Option<EventPosition>,
}

impl EventFilter {
    /// Whether a listener wants this event.
    pub fn wants(&self, kind: EventKind, product_id: ProductId, user_id: &UserId) -> bool {
        self.product_id.is_none_or(|wanted| wanted == product_id)
            && self.user_id.as_ref().is_none_or(|wanted| wanted == user_id)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}
