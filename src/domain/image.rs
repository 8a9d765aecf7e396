//! A product's picture: where it comes from, what became of it.

use url::Url;

use crate::{clock::Timestamp, code::ErrorCode, domain::ImageId};

/// How far a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum ImageStatus {
    /// Accepted; waits for a worker, the first time or again.
    Pending,
    /// A worker has it.
    Processing,
    /// Every rendition is stored.
    Ready,
    /// It cannot be had; the error says why.
    Failed,
}

impl ImageStatus {
    /// The word clients see and the database holds.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    /// The status that is written `word`.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Processing, Self::Ready, Self::Failed].into_iter().find(|s| s.as_str() == word)
    }

    /// Whether nothing more will happen to the picture by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Failed)
    }
}

/// Where a picture's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An http or https address.
    Url(String),
    /// A file that was handed over; the key of its blob.
    Stored(String),
}

impl ImageSource {
    /// The source for people who look after the queue: of an address's query, which may hold a secret, only that there is one.
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

    /// The host that the source is downloaded from, with its port where that is not the scheme's own; `None` for a file that was
    /// handed over.
    pub fn host(&self) -> Option<String> {
        let Self::Url(url) = self else { return None };
        let url = Url::parse(url).ok()?;
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    }
}

/// A picture of a product.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its number.
    pub id: ImageId,
    /// Its place among the product's pictures, from 0.
    pub position: i32,
    /// Where its bytes come from.
    pub source: ImageSource,
    /// How far it is.
    pub status: ImageStatus,
    /// How often a worker has taken it up in the present run.
    pub attempts: i32,
    /// Why the last attempt failed; gone once the picture is ready.
    pub error: Option<(ErrorCode, String)>,
    /// Width and height of the upright source in pixels, its format and its bytes; known once ready.
    pub facts: Option<Facts>,
    /// What was made of it, largest first.
    pub renditions: Vec<Rendition>,
    /// What clients should know, such as `truncated`.
    pub warnings: Vec<String>,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What is known of a picture once it was decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Width of the upright source in pixels.
    pub width: u32,
    /// Height of the upright source in pixels.
    pub height: u32,
    /// The source's format: `jpeg`, `png` …
    pub format: String,
    /// The source's size in bytes.
    pub bytes: u64,
    /// A preview in about 30 bytes, base64.
    pub thumbhash: String,
    /// `#rrggbb`.
    pub dominant_color: String,
    /// 64 bits as 16 digits of hex, few of which differ between two forms of the same picture; `None` if the picture was
    /// processed before there was such a hash.
    pub perceptual_hash: Option<String>,
}

/// A stored form of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendition {
    /// The preset it was made by.
    pub preset: String,
    /// `jpeg`, `webp`, `png` …
    pub format: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Size in bytes.
    pub bytes: u64,
    /// Key of its blob.
    pub key: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_shown_without_what_may_be_a_secret() {
        for (url, shown) in [
            ("https://shop.example/a.jpg", "https://shop.example/a.jpg"),
            ("https://shop.example/a.jpg?X-Signature=s3cret#top", "https://shop.example/a.jpg?…"),
            ("https://shop.example/a.jpg#s3cret?", "https://shop.example/a.jpg"),
        ] {
            assert_eq!(ImageSource::Url(url.into()).shown(), shown);
        }
    }
}
