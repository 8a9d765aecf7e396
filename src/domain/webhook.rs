//! Webhooks: addresses that are told what happens to products, by the
//! [Standard Webhooks](https://www.standardwebhooks.com) scheme.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    clock::Timestamp,
    domain::{AddressPolicy, EventKind, Fields, Invalid, Malformed, WebhookId},
};

/// An address that is told of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its number.
    pub id: WebhookId,
    /// Where messages are posted to.
    pub url: String,
    /// What it is told of; everything if empty.
    pub kinds: Vec<EventKind>,
    /// Why it is told nothing any more; `None` while it is.
    pub disabled: Option<String>,
    /// Since when no message was taken.
    pub failing_since: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A webhook that may be stored.
#[derive(Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Where messages are posted to.
    pub url: String,
    /// What it is told of; everything if empty.
    pub kinds: Vec<EventKind>,
    /// What its messages are signed with; made if none is given.
    pub secret: Option<String>,
}

/// Nobody sees the secret.
impl fmt::Debug for NewWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWebhook").field("url", &self.url).field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl NewWebhook {
    /// Reads a webhook from a request's body; the outer error is JSON that cannot be read, the inner one wrong fields.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object, [`Invalid`] with every wrong field.
    pub fn from_json(json: &[u8], policy: &AddressPolicy) -> Result<Result<Self, Invalid>, Malformed> {
        let mut fields = Fields::parse(json, &["url", "types", "secret"])?;
        let (url, types, secret) = (fields.text("url"), fields.texts("types"), fields.text("secret"));
        if url.is_none() && !fields.is_wrong("url") {
            fields.error("url", "is required");
        }
        let url = url.map(|url| checked_url(&url, policy, &mut fields));
        let kinds = checked_kinds(&types.unwrap_or_default(), &mut fields);
        let secret = checked_secret(secret, &mut fields);
        Ok(Invalid::unless_empty(fields.finish(), || Self { url: url.unwrap_or_default(), kinds, secret }))
    }

    /// Checks a webhook; `policy` says which addresses messages may be posted to.
    ///
    /// # Errors
    /// [`Invalid`] with every wrong field.
    pub fn checked(
        url: &str,
        types: &[String],
        secret: Option<String>,
        policy: &AddressPolicy,
    ) -> Result<Self, Invalid> {
        let mut fields = Fields::default();
        let url = checked_url(url, policy, &mut fields);
        let kinds = checked_kinds(types, &mut fields);
        let secret = checked_secret(secret, &mut fields);
        Invalid::unless_empty(fields.finish(), || Self { url, kinds, secret })
    }
}

fn checked_url(url: &str, policy: &AddressPolicy, fields: &mut Fields) -> String {
    if let Err(refusal) = policy.check_url(url) {
        fields.error("url", refusal.to_string());
    }
    url.to_owned()
}

fn checked_kinds(types: &[String], fields: &mut Fields) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    for (index, name) in types.iter().enumerate() {
        match EventKind::parse(name) {
            Some(kind) if !kinds.contains(&kind) => kinds.push(kind),
            Some(_) => fields.error(&format!("types[{index}]"), "stands more than once"),
            None => {
                let known: Vec<_> = EventKind::ALL.into_iter().map(EventKind::as_str).collect();
                fields.error(&format!("types[{index}]"), format!("is not one of {}", known.join(", ")));
            }
        }
    }
    kinds
}

fn checked_secret(secret: Option<String>, fields: &mut Fields) -> Option<String> {
    if secret.as_deref().is_some_and(|secret| !is_secret(secret)) {
        fields.error("secret", "must be `whsec_` and the base64 of 24 to 64 bytes");
    }
    secret
}

fn is_secret(text: &str) -> bool {
    let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    bytes.is_some_and(|bytes| (24..=64).contains(&bytes.len()))
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits until its time has come.
    Queued,
    /// A worker is at it.
    Running,
    /// It was taken.
    Done,
    /// It was not taken, and is not tried again by itself.
    Dead,
}

impl DeliveryState {
    /// The word clients see and the database holds.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// The state that is written `word`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Done, Self::Dead].into_iter().find(|state| state.as_str() == word)
    }
}

/// A message for one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub id: crate::domain::DeliveryId,
    /// What it is about.
    pub kind: String,
    /// The message's own id, the same in each attempt.
    pub message_id: String,
    /// How far it is.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: i32,
    /// When it is tried next, while it waits.
    pub next_attempt_at: Option<Timestamp>,
    /// What the last attempt was answered with.
    pub response_status: Option<u16>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A message that a worker has claimed.
#[derive(Clone, PartialEq, Eq)]
pub struct ClaimedDelivery {
    /// The delivery.
    pub id: crate::domain::DeliveryId,
    /// Whose it is.
    pub webhook_id: WebhookId,
    /// Where it goes.
    pub url: String,
    /// What it is signed with.
    pub secret: String,
    /// The message's own id.
    pub message_id: String,
    /// The message.
    pub body: String,
    /// This attempt's number, from 1.
    pub attempt: i32,
    /// Proof of the claim.
    pub lease_token: String,
    /// When it was claimed, by the database's clock.
    pub claimed_at: Timestamp,
}

/// Nobody sees the secret.
impl fmt::Debug for ClaimedDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("ClaimedDelivery");
        shown.field("id", &self.id).field("webhook_id", &self.webhook_id).field("attempt", &self.attempt);
        shown.finish_non_exhaustive()
    }
}

/// A page of a webhook's deliveries, the latest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Deliveries per page, 1 to 100.
    pub limit: u64,
    /// Only those before this one.
    pub before: Option<crate::domain::DeliveryId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(json: &str) -> Vec<String> {
        match NewWebhook::from_json(json.as_bytes(), &AddressPolicy::default()).expect("an object") {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.errors.listed().iter().map(|error| error.field.clone()).collect(),
        }
    }

    #[test]
    fn every_wrong_field_is_named_once() {
        assert_eq!(errors_of(r#"{"url": "https://shop.example/hook", "types": ["image.ready"]}"#), [""; 0]);
        assert_eq!(errors_of("{}"), ["url"]);
        assert_eq!(errors_of(r#"{"url": 5}"#), ["url"]);
        assert_eq!(
            errors_of(
                r#"{"url": "http://10.0.0.1/", "types": ["image.ready", "x", "image.ready"], "secret": "s", "more": 1}"#
            ),
            ["url", "types[1]", "types[2]", "secret", "more"]
        );
    }

    #[test]
    fn a_secret_is_prefixed_base64_of_enough_bytes() {
        assert!(is_secret("whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"));
        for wrong in ["", "whsec_", "whsec_MDEy", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz", "whsec_*"] {
            assert!(!is_secret(wrong), "{wrong}");
        }
    }
}
