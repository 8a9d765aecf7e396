//! Who reads products, and what readers see of source addresses.

use crate::domain::UserId;

/// Who reads a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader<'a> {
    /// Somebody who may read everything: an administrator, or anybody where authentication is off.
    Everything,
    /// Somebody who may read everything of this user's products.
    User(&'a UserId),
    /// Somebody unknown.
    Anonymous,
}

impl Reader<'_> {
    /// Whether the reader sees everything of the products of `owner`.
    pub fn sees_all_of(&self, owner: &UserId) -> bool {
        match self {
            Self::Everything => true,
            Self::User(user) => *user == owner,
            Self::Anonymous => false,
        }
    }
}

/// The address without its query and its fragment, which may hold secrets. An address with a password is never stored.
pub fn without_secrets(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_loses_its_query_and_its_fragment() {
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
    fn a_user_sees_all_of_its_own_products_alone() {
        let (own, other) = (UserId::stored("own".into()), UserId::stored("other".into()));
        assert!(Reader::Everything.sees_all_of(&own) && Reader::User(&own).sees_all_of(&own));
        assert!(!Reader::User(&other).sees_all_of(&own) && !Reader::Anonymous.sees_all_of(&own));
    }
}
