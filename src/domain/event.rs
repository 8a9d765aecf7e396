//! Events: changes of products that clients can listen to.

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::{
    clock::Timestamp,
    domain::{EventId, ImageId, ProductId, UserId},
};

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(as = EventType)]
pub enum EventKind {
    /// A product was created.
    #[schema(rename = "product.created")]
    ProductCreated,
    /// A product changed.
    #[schema(rename = "product.updated")]
    ProductUpdated,
    /// A product was deleted.
    #[schema(rename = "product.deleted")]
    ProductDeleted,
    /// A worker started processing an image.
    #[schema(rename = "image.processing")]
    ImageProcessing,
    /// An image is ready.
    #[schema(rename = "image.ready")]
    ImageReady,
    /// An image failed for good.
    #[schema(rename = "image.failed")]
    ImageFailed,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::ProductCreated,
        Self::ProductUpdated,
        Self::ProductDeleted,
        Self::ImageProcessing,
        Self::ImageReady,
        Self::ImageFailed,
    ];

    /// Returns the kind's name in responses: `product.created` …
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

    /// Parses a kind.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// An event before it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// The kind of event.
    pub kind: EventKind,
    /// The product.
    pub product_id: ProductId,
    /// The image, if the event concerns one.
    pub image_id: Option<ImageId>,
    /// The owner of the product.
    pub user_id: UserId,
    /// The payload for listeners.
    pub data: EventData,
    /// The time of the event.
    pub created_at: Timestamp,
}

/// Payload of an event. It needs no further request; fields that do not apply are omitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EventData {
    /// The product.
    pub product_id: ProductId,
    /// The owner of the product.
    pub user_id: UserId,
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<ImageId>,
    /// The product's version after the event, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// The product's status after the event, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<&'static str>,
    /// Error code of a failed image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
}

/// Position of an event in the order in which readers see events.
/// The order is by transaction (0 on SQLite), then by number. A reader never sees an event before one that it has
/// already read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPosition {
    /// The transaction.
    pub tx: i64,
    /// The event's id.
    pub id: EventId,
}

impl EventPosition {
    /// The position before all events.
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
        position.ok_or_else(|| "is not an event id, such as `0-17`".into())
    }
}

/// A stored event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its position.
    pub position: EventPosition,
    /// The kind of event.
    pub kind: EventKind,
    /// The product.
    pub product_id: ProductId,
    /// The owner of the product.
    pub user_id: UserId,
    /// The payload for listeners: [`EventData`] as JSON.
    pub data: String,
}

/// Filter of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only events of this product.
    pub product_id: Option<ProductId>,
    /// Only events of this user's products.
    pub user_id: Option<UserId>,
    /// Only these kinds; all if empty.
    pub kinds: Vec<EventKind>,
}

/// Subscription of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// The filter.
    pub filter: EventFilter,
    /// Only events after this position; only new events if absent.
    pub after: Option<EventPosition>,
}

impl EventFilter {
    /// Returns whether the filter matches this event.
    pub fn wants(&self, kind: EventKind, product_id: ProductId, user_id: &UserId) -> bool {
        self.product_id.is_none_or(|wanted| wanted == product_id)
            && self.user_id.as_ref().is_none_or(|wanted| wanted == user_id)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
    }
}
