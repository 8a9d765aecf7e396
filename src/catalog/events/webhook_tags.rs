//! Entity tags of webhooks, and preconditions of their changes.

use bytes::Bytes;

use crate::{
    api::WebhookBody,
    catalog::{Error, Precondition, tags},
    domain::{EventKind, Webhook},
};

impl WebhookBody<'_> {
    /// Returns the entity tag of `webhook`. Deliveries do not change its `edit` part.
    ///
    /// # Errors
    /// [`Error::Internal`] if the webhook cannot be serialized.
    pub fn tag(webhook: &Webhook) -> Result<Bytes, Error> {
        let kinds: Vec<_> = webhook.kinds.iter().copied().map(EventKind::as_str).collect();
        tags::tag(&(webhook.id, &webhook.url, kinds), &Self::json(webhook)?)
    }

    /// Checks the preconditions of a change of `webhook`.
    ///
    /// # Errors
    /// [`Error::Precondition`] if one of them does not hold.
    pub(super) fn check(webhook: &Webhook, condition: &Precondition) -> Result<(), Error> {
        condition.check(&format!("webhook {}", webhook.id), &Self::tag(webhook)?, &Self::json(webhook)?)
    }

    fn json(webhook: &Webhook) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&WebhookBody::new(webhook)).map_err(Error::internal)
    }
}
