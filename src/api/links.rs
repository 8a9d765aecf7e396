//! Links to what the API serves. They never depend on a request, since the bodies that hold them are cached.

use std::fmt::Write as _;

use crate::{
    blobs::BlobKey,
    domain::{ImageId, ProductId, UserId, WebhookId},
};

/// Makes links: absolute ones with a public URL, else paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    base: String,
}

impl Links {
    /// Links that begin with `public_url`, which has no slash at its end.
    pub fn new(public_url: Option<String>) -> Self {
        Self { base: public_url.unwrap_or_default() }
    }

    /// The address under which clients reach the API, if it is set.
    pub fn public_url(&self) -> Option<&str> {
        Some(self.base()).filter(|base| !base.is_empty())
    }

    /// What stands before every path: the public URL, or nothing.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The stored picture with this key.
    pub fn image(&self, key: &str) -> String {
        format!("{}/images/{key}", self.base)
    }

    /// The key of the stored picture that `link` leads to, if it is one of these links.
    pub fn key(&self, link: &str) -> Option<BlobKey> {
        link.strip_prefix(&self.base)?.strip_prefix("/images/").and_then(BlobKey::parse)
    }

    /// The uploaded original of an image.
    pub fn original(&self, product: ProductId, image: ImageId) -> String {
        format!("{}/products/{product}/images/{image}/original", self.base)
    }

    /// The link that the uploaded original in the blob `key` had in versions that served it to everybody.
    pub fn earlier_original(&self, key: &str) -> Option<String> {
        BlobKey::parse(key).map(|key| self.image(key.plain()))
    }

    /// A picture in the form that `options` ask for, whose signature this is.
    pub fn resize(&self, signature: &str, options: &str, image: ImageId) -> String {
        format!("{}/resize/{signature}/{options}/{image}", self.base)
    }

    /// A product.
    pub fn product(&self, id: ProductId) -> String {
        format!("{}/products/{id}", self.base)
    }

    /// A webhook.
    pub fn webhook(&self, id: WebhookId) -> String {
        format!("{}/webhooks/{id}", self.base)
    }

    /// A user.
    pub fn user(&self, id: &UserId) -> String {
        let mut link = format!("{}/users/", self.base);
        for byte in id.as_str().bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                link.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(link, "%{byte:02X}");
            }
        }
        link
    }

    /// A list with its query.
    pub fn list(&self, path: &str, query: &str) -> String {
        format!("{}{path}?{query}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_id_is_escaped() {
        let links = Links::new(Some("https://shop.example".into()));
        let id = UserId::parse("a b/ü").expect("an id");
        assert_eq!(links.user(&id), "https://shop.example/users/a%20b%2F%C3%BC");
        assert_eq!(Links::default().product(ProductId(7)), "/products/7");
    }
}
