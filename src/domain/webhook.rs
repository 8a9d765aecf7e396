//! Webhooks: URLs that receive events, by the [Standard Webhooks](https://www.standardwebhooks.com) scheme.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    clock::Timestamp,
    domain::{AddressPolicy, EventKind, Fields, Invalid, Malformed, WebhookId},
    secret::Secret,
};

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The id.
    pub id: WebhookId,
    /// The URL that messages are sent to.
    pub url: String,
    /// The subscribed kinds of events; all if empty.
    pub kinds: Vec<EventKind>,
    /// Why the webhook is disabled; `None` if it is enabled.
    pub disabled: Option<String>,
    /// The time of the first failure since the last success.
    pub failing_since: Option<Timestamp>,
    /// The creation time.
    pub created_at: Timestamp,
}

/// A webhook to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWebhook {
    /// The URL that messages are sent to.
    pub url: String,
    /// The subscribed kinds of events; all if empty.
    pub kinds: Vec<EventKind>,
    /// The signing secret; generated if absent.
    pub secret: Option<Secret<String>>,
}

impl NewWebhook {
    /// Parses a webhook from a request body.
    ///
    /// # Errors
    /// [`Malformed`] if `json` is no object; [`Invalid`], the inner error, with all invalid fields.
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

    /// Checks a webhook; `policy` decides which URLs are allowed.
    ///
    /// # Errors
    /// [`Invalid`] with all invalid fields.
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
            Some(_) => fields.error(&format!("types[{index}]"), "is given more than once"),
            None => {
                let known: Vec<_> = EventKind::ALL.into_iter().map(EventKind::as_str).collect();
                fields.error(&format!("types[{index}]"), format!("is not one of {}", known.join(", ")));
            }
        }
    }
    kinds
}

fn checked_secret(secret: Option<String>, fields: &mut Fields) -> Option<Secret<String>> {
    if secret.as_deref().is_some_and(|secret| !is_secret(secret)) {
        fields.error("secret", "must be `whsec_` followed by 24 to 64 bytes in base64");
    }
    secret.map(Secret::new)
}

fn is_secret(text: &str) -> bool {
    let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
    bytes.is_some_and(|bytes| (24..=64).contains(&bytes.len()))
}

/// State of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum DeliveryState {
    /// It waits for its next attempt.
    Queued,
    /// An attempt is in progress.
    Running,
    /// The webhook accepted it.
    Done,
    /// It failed for good and is not retried automatically.
    Dead,
}

impl DeliveryState {
    /// Returns the state's name in responses and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// Parses a state.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Queued, Self::Running, Self::Done, Self::Dead].into_iter().find(|state| state.as_str() == word)
    }
}

/// A message for one webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The id.
    pub id: crate::domain::DeliveryId,
    /// The kind of event.
    pub kind: String,
    /// The id of the message, the same in every attempt.
    pub message_id: String,
    /// The state.
    pub state: DeliveryState,
    /// Number of attempts so far.
    pub attempts: i32,
    /// The time of the next attempt, if it is queued.
    pub next_attempt_at: Option<Timestamp>,
    /// HTTP status of the last response.
    pub response_status: Option<u16>,
    /// Error of the last attempt.
    pub error: Option<String>,
    /// The time at which it was queued.
    pub created_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
}

/// A claimed delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedDelivery {
    /// The id of the delivery.
    pub id: crate::domain::DeliveryId,
    /// The webhook.
    pub webhook_id: WebhookId,
    /// The URL to send it to.
    pub url: String,
    /// The signing secret.
    pub secret: Secret<String>,
    /// The id of the message.
    pub message_id: String,
    /// The message.
    pub body: String,
    /// The number of this attempt, from 1.
    pub attempt: i32,
    /// The lease token.
    pub lease_token: String,
    /// The time of the claim by the database's clock.
    pub claimed_at: Timestamp,
}

/// A page of a webhook's deliveries, newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryQuery {
    /// Deliveries per page, 1 to 100.
    pub limit: u64,
    /// Only deliveries before this one.
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
    fn every_invalid_field_is_reported_once() {
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
