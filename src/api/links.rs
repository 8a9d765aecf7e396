//! Builds links to API resources.
//!
//! Links never depend on the request, because bodies with links are cached.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    blobs::BlobKey,
    domain::{ImageId, ProductId, UserId, WebhookId},
};

/// All bytes except those that a URL may contain anywhere (RFC 3986, unreserved).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Builds links: absolute URLs if a public URL is set, otherwise paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    base: String,
}

impl Links {
    /// Creates links with the prefix `public_url`, which has no trailing slash.
    pub fn new(public_url: Option<String>) -> Self {
        Self { base: public_url.unwrap_or_default() }
    }

    /// Returns the public URL of the API, if set.
    pub fn public_url(&self) -> Option<&str> {
        Some(self.base()).filter(|base| !base.is_empty())
    }

    /// Returns the prefix of every link: the public URL, or an empty string.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the link to the stored image with this key.
    pub fn image(&self, key: &str) -> String {
        format!("{}/images/{key}", self.base)
    }

    /// Returns the key of the stored image that `link` points to, if any.
    pub fn key(&self, link: &str) -> Option<BlobKey> {
        link.strip_prefix(&self.base)?.strip_prefix("/images/").and_then(BlobKey::parse)
    }

    /// Returns the link to the uploaded original of an image.
    pub fn original(&self, product: ProductId, image: ImageId) -> String {
        format!("{}/products/{product}/images/{image}/original", self.base)
    }

    /// Returns the link that earlier versions used for the uploaded original with blob key `key`.
    pub fn earlier_original(&self, key: &str) -> Option<String> {
        BlobKey::parse(key).map(|key| self.image(key.plain()))
    }

    /// Returns the signed link to a variant of an image.
    pub fn resize(&self, signature: &str, options: &str, image: ImageId) -> String {
        format!("{}/resize/{signature}/{options}/{image}", self.base)
    }

    /// Returns the link to a product.
    pub fn product(&self, id: ProductId) -> String {
        format!("{}/products/{id}", self.base)
    }

    /// Returns the link to a webhook.
    pub fn webhook(&self, id: WebhookId) -> String {
        format!("{}/webhooks/{id}", self.base)
    }

    /// Returns the link to a user.
    pub fn user(&self, id: &UserId) -> String {
        format!("{}/users/{}", self.base, utf8_percent_encode(id.as_str(), RESERVED))
    }

    /// Returns the link to a list with a query string.
    pub fn list(&self, path: &str, query: &str) -> String {
        format!("{}{path}?{query}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_ids_are_percent_encoded_in_links() {
        let links = Links::new(Some("https://shop.example".into()));
        let id = UserId::parse("a b/ü").expect("an id");
        assert_eq!(links.user(&id), "https://shop.example/users/a%20b%2F%C3%BC");
        assert_eq!(Links::default().product(ProductId(7)), "/products/7");
    }
}
