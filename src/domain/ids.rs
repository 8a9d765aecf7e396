//! Typed ids, so that different kinds of ids cannot be confused.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($($(#[$meta:meta])* $name:ident,)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = i64, minimum = 0)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )+};
}

number_id! {
    /// Id of a product; ids increase.
    ProductId,
    /// Id of an image.
    ImageId,
    /// Id of a job.
    JobId,
    /// Id of an API key.
    ApiKeyId,
    /// Id of an event.
    EventId,
    /// Id of a webhook.
    WebhookId,
    /// Id of a webhook delivery.
    DeliveryId,
}

/// Id of a user: 1 to 64 characters, chosen by the client.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(
    value_type = String,
    min_length = 1,
    max_length = 64,
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s.\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$",
    example = "1234-5678-9012"
)]
pub struct UserId(String);

impl UserId {
    /// Maximum length in characters.
    pub const MAX_CHARS: usize = 64;

    /// Parses a user id.
    ///
    /// # Errors
    /// A message if it is empty, too long, or has control characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let chars = text.chars().count();
        if text.trim().is_empty() {
            return Err("must not be empty".into());
        }
        if chars > Self::MAX_CHARS {
            return Err(format!("has {chars} characters; at most {} are allowed", Self::MAX_CHARS));
        }
        if text.chars().all(|char| char == '.' || char.is_whitespace()) {
            return Err("must have a character other than spaces and periods, which no URL path can end with".into());
        }
        if text.chars().any(char::is_control) {
            return Err("must not contain control characters".into());
        }
        Ok(Self(text.into()))
    }

    /// Wraps an id from the database.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Id of an installation: a database with its cache, messages and blobs. 32 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 32, max_length = 32, example = "5f0c6a7e0d3b4c1e9a8f7b6c5d4e3f2a")]
pub struct InstallationId(String);

impl TryFrom<String> for InstallationId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex { Ok(Self(text)) } else { Err("an installation id must have 32 hex digits") }
    }
}

impl InstallationId {
    /// Creates an id from 128 bits.
    pub fn new(uuid: uuid::Uuid) -> Self {
        Self(uuid.simple().to_string())
    }

    /// Wraps an id from the database.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the first eight characters, for readable names.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl fmt::Display for InstallationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
