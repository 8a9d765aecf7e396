//! The permissions that endpoints require, and public read access.

use crate::domain::Scope;

/// Resources that anonymous clients may read when authentication is on; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicRead {
    /// Single products and lists of products.
    pub products: bool,
    /// Renditions of products' images by preset.
    pub images: bool,
}

impl PublicRead {
    const PRODUCTS: &str = "products";
    const IMAGES: &str = "images";

    /// Parses `products`, `images` or both, separated by commas.
    ///
    /// # Errors
    /// A message that names the unknown word.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut public = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                Self::PRODUCTS => public.products = true,
                Self::IMAGES => public.images = true,
                _ => return Err(format!("has `{word}`, which is neither products nor images")),
            }
        }
        Ok(public)
    }
}

/// Formats the value as [`parse`](Self::parse) reads it.
impl std::fmt::Display for PublicRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [(self.products, Self::PRODUCTS), (self.images, Self::IMAGES)];
        let set: Vec<_> = words.into_iter().filter_map(|(set, word)| set.then_some(word)).collect();
        f.write_str(&set.join(","))
    }
}

/// The permission that a request requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// None.
    Nothing,
    /// This scope.
    Scope(Scope),
    /// The scope to read; none if products are publicly readable. A token in the request is verified in both cases.
    ReadProducts,
    /// The scope to read; none if images are publicly readable.
    ReadImages,
    /// The scope to read; the principal must own the product in the path.
    ReadOwnProduct,
    /// The scope to write; the principal must own the product in the path.
    OwnProduct,
    /// The principal must be the user in the path, or have the scope `admin`.
    OwnUser,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_read_accepts_only_products_and_images() {
        assert_eq!(PublicRead::parse(" images , products").expect("words").to_string(), "products,images");
        assert_eq!(PublicRead::parse("images"), Ok(PublicRead { products: false, images: true }));
        assert_eq!(PublicRead::parse(""), Ok(PublicRead::default()));
        assert!(PublicRead::parse("products,users").expect_err("refused").contains("`users`"));
    }
}
