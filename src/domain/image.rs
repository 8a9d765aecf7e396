//! A product's image: its source, status and results.

use url::Url;

use crate::{clock::Timestamp, code::ErrorCode, domain::ImageId};

/// Processing status of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ImageStatus {
    /// Queued, for the first time or again.
    Pending,
    /// A worker is processing it.
    Processing,
    /// All renditions are stored.
    Ready,
    /// Processing failed for good; `error` has the reason.
    Failed,
}

impl ImageStatus {
    /// Returns the status's name in responses and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    /// Parses a status.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Processing, Self::Ready, Self::Failed].into_iter().find(|s| s.as_str() == word)
    }

    /// Returns whether the status will not change without a request.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Failed)
    }
}

/// Source of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An http or https URL.
    Url(String),
    /// An uploaded file; the key of its blob.
    Stored(String),
}

impl ImageSource {
    /// Returns the source for operators, without the query of a URL.
    /// The query may contain a secret.
    pub fn shown(&self) -> String {
        let address = match self {
            Self::Url(url) => url,
            Self::Stored(key) => return key.clone(),
        };
        let address = address.split('#').next().unwrap_or_default();
        match address.split_once('?') {
            Some((before, _)) => format!("{before}?…"),
            None => address.to_owned(),
        }
    }

    /// Returns the URL's host, with any non-default port; `None` for an upload.
    pub fn host(&self) -> Option<String> {
        let Self::Url(url) = self else { return None };
        let url = Url::parse(url).ok()?;
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }
}

/// An image of a product.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The id.
    pub id: ImageId,
    /// Its position among the product's images, from 0.
    pub position: i32,
    /// Its source.
    pub source: ImageSource,
    /// Its status.
    pub status: ImageStatus,
    /// Number of attempts in the current generation.
    pub attempts: i32,
    /// Error of the last attempt; absent once the image is ready.
    pub error: Option<(ErrorCode, String)>,
    /// Properties of the source; present once the image is ready.
    pub facts: Option<Facts>,
    /// Its renditions, largest first.
    pub renditions: Vec<Rendition>,
    /// Warnings for clients, such as `truncated`.
    pub warnings: Vec<String>,
    /// The time of its last change.
    pub updated_at: Timestamp,
}

/// Properties of a decoded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Width after orientation, in pixels.
    pub width: u32,
    /// Height after orientation, in pixels.
    pub height: u32,
    /// The source's format: `jpeg`, `png` …
    pub format: String,
    /// The source's size in bytes.
    pub bytes: u64,
    /// ThumbHash of about 30 bytes, as base64.
    pub thumbhash: String,
    /// Dominant color as `#rrggbb`.
    pub dominant_color: String,
    /// Perceptual hash: 64 bits as 16 hex digits; similar images differ in few bits.
    /// `None` if the image was processed by a version without such a hash.
    pub perceptual_hash: Option<String>,
}

/// A stored rendition of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// The name of its preset.
    pub preset: String,
    /// `jpeg`, `webp`, `png` …
    pub format: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// The key of its blob.
    pub key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_without_possible_secrets() {
        for (url, shown) in [
            ("https://shop.example/a.jpg", "https://shop.example/a.jpg"),
            ("https://shop.example/a.jpg?X-Signature=s3cret#top", "https://shop.example/a.jpg?…"),
            ("https://shop.example/a.jpg#s3cret?", "https://shop.example/a.jpg"),
        ] {
            assert_eq!(ImageSource::Url(url.into()).shown(), shown);
        }
    }
}
