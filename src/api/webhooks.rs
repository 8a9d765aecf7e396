//! JSON of webhooks and their deliveries.
//! A type whose name ends in `Shape` only describes a request body in the OpenAPI document. The domain parses and
//! validates requests.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    clock::Timestamp,
    domain::{Delivery, DeliveryId, DeliveryState, EventKind, Webhook, WebhookId},
};

/// A webhook to create.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described; the domain reads requests field by field")]
#[schema(as = NewWebhook)]
#[serde(deny_unknown_fields)]
pub struct NewWebhookShape {
    /// URL that deliveries are posted to: http or https, on a public host.
    #[schema(
        format = "uri",
        max_length = 2_048,
        pattern = "^[Hh][Tt][Tt][Pp][Ss]?://",
        example = "https://shop.example/hooks/pm"
    )]
    url: String,
    /// Event types to deliver; all types if absent or empty.
    #[schema(max_items = 6, value_type = Option<std::collections::HashSet<EventKind>>)]
    types: Option<Vec<EventKind>>,
    /// Signing secret: `whsec_` followed by the base64 of 24 to 64 bytes. Generated if absent.
    #[schema(pattern = "^whsec_(?:[A-Za-z0-9+/]{4}){8,20}$", example = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz")]
    secret: Option<String>,
}

/// A webhook.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Webhook)]
pub struct WebhookBody<'a> {
    /// Id of the webhook.
    id: WebhookId,
    /// URL that deliveries are posted to.
    url: &'a str,
    /// Event types that are delivered; all types if empty.
    types: Vec<&'static str>,
    /// Whether events are delivered.
    enabled: bool,
    /// Why the webhook was disabled; null if it is enabled.
    #[schema(required)]
    disabled_reason: Option<&'a str>,
    /// When the current run of failed deliveries began; null if the last delivery succeeded.
    #[schema(required)]
    failing_since: Option<Timestamp>,
    /// When it was created.
    created_at: Timestamp,
    /// Signing secret; only present in the response to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    secret: Option<&'a str>,
}

/// A delivery of an event to a webhook.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryBody<'a> {
    /// Id of the delivery.
    id: DeliveryId,
    /// Value of the `webhook-id` header, the same in each attempt.
    message_id: &'a str,
    /// Event type, such as `image.ready`.
    r#type: &'a str,
    /// State of the delivery.
    #[schema(value_type = DeliveryState)]
    state: &'static str,
    /// Number of attempts so far.
    attempts: i32,
    /// When the next attempt is due; null if there is none.
    #[schema(required)]
    next_attempt_at: Option<Timestamp>,
    /// HTTP status of the last response; null if there was no response.
    #[schema(required)]
    response_status: Option<u16>,
    /// Why the last attempt failed; null if it succeeded or there was none.
    #[schema(required)]
    error: Option<&'a str>,
    /// When it was queued.
    created_at: Timestamp,
    /// When it last changed.
    updated_at: Timestamp,
}

impl<'a> WebhookBody<'a> {
    /// Creates the body of `webhook` without its secret.
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

    /// Creates the body of a new webhook with its secret.
    pub fn with_secret(webhook: &'a Webhook, secret: &'a str) -> Self {
        Self { secret: Some(secret), ..Self::new(webhook) }
    }
}

impl<'a> DeliveryBody<'a> {
    /// Creates the body of `delivery`.
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
