//! Webhooks and their deliveries: how they are made, and how they are answered.
//!
//! A type that ends in `Shape` describes what a request may hold. What is really read, and what is said about a mistake, is
//! decided by the domain alone.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    domain::{Delivery, DeliveryId, DeliveryState, EventKind, Webhook, WebhookId},
};

/// An address to be told of events.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
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

/// An address that is told of events.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookBody<'a> {
    /// Its number.
    id: WebhookId,
    /// Where messages are posted to.
    url: &'a str,
    /// What it is told of; everything if empty.
    types: Vec<&'static str>,
    /// Whether it is told.
    enabled: bool,
    /// Why it is not told any more; null while it is.
    #[schema(required)]
    disabled_reason: Option<&'a str>,
    /// Since when it has taken no message; null if it took the last one.
    #[schema(required)]
    failing_since: Option<Timestamp>,
    /// When it was made.
    created_at: Timestamp,
    /// What its messages are signed with; told only once, in the answer to its making.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<&'a str>,
}

/// A message for a webhook.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryBody<'a> {
    /// Its number.
    id: DeliveryId,
    /// The message's id, as its header `webhook-id` has it: the same in each attempt.
    message_id: &'a str,
    /// What it is about, such as `image.ready`.
    r#type: &'a str,
    /// How far it is.
    #[schema(value_type = DeliveryState)]
    state: &'static str,
    /// Attempts so far.
    attempts: i32,
    /// When it is tried next; null if it is not.
    #[schema(required)]
    next_attempt_at: Option<Timestamp>,
    /// What the last attempt was answered with; null if with nothing.
    #[schema(required)]
    response_status: Option<u16>,
    /// Why the last attempt failed; null if it did not.
    #[schema(required)]
    error: Option<&'a str>,
    /// When it was queued.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

impl<'a> WebhookBody<'a> {
    /// The form of `webhook`.
    pub fn new(webhook: &'a Webhook) -> Self {
        Self {
            id: webhook.id,
            url: &webhook.url,
            types: webhook.kinds.iter().copied().map(EventKind::as_str).collect(),
            enabled: webhook.disabled.is_none(),
            disabled_reason: webhook.disabled.as_deref(),
            failing_since: webhook.failing_since,
            created_at: webhook.created_at,
            secret: None,
        }
    }

    /// The form of a webhook that was just made, with its secret.
    pub fn with_secret(webhook: &'a Webhook, secret: &'a str) -> Self {
        Self { secret: Some(secret), ..Self::new(webhook) }
    }
}

impl<'a> DeliveryBody<'a> {
    /// The form of `delivery`.
    pub fn new(delivery: &'a Delivery) -> Self {
        Self {
            id: delivery.id,
            message_id: &delivery.message_id,
            r#type: &delivery.kind,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            next_attempt_at: delivery.next_attempt_at,
            response_status: delivery.response_status,
            error: delivery.error.as_deref(),
            created_at: delivery.created_at,
            updated_at: delivery.updated_at,
        }
    }
}
