//! Readers of products, and which parts of source URLs they see.

use crate::domain::UserId;

/// The reader of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader<'a> {
    /// May read everything: an administrator, or any client if authentication is disabled.
    Everything,
    /// May read all fields of this user's products.
    User(&'a UserId),
    /// An anonymous client.
    Anonymous,
}

impl Reader<'_> {
    /// Returns whether the reader sees all fields of the products of `owner`.
    pub fn sees_all_of(&self, owner: &UserId) -> bool {
        match self {
            Self::Everything => true,
            Self::User(user) => *user == owner,
            Self::Anonymous => false,
        }
    }
}

/// Returns the URL without query and fragment, which may contain secrets. A URL with a password is never stored.
pub fn without_secrets(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_loses_its_query_and_its_fragment() {
        for (address, shown) in [
            ("https://a.example/1.jpg", "https://a.example/1.jpg"),
            ("https://a.example/1.jpg?X-Amz-Signature=s3cret#top", "https://a.example/1.jpg"),
            ("https://a.example/1.jpg#s3cret?", "https://a.example/1.jpg"),
            ("/products/1/images/2/original", "/products/1/images/2/original"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
    }

    #[test]
    fn a_user_sees_all_fields_only_of_its_own_products() {
        let (own, other) = (UserId::stored("own".into()), UserId::stored("other".into()));
        assert!(Reader::Everything.sees_all_of(&own) && Reader::User(&own).sees_all_of(&own));
        assert!(!Reader::User(&other).sees_all_of(&own) && !Reader::Anonymous.sees_all_of(&own));
    }
}
