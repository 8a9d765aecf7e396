//! The permission that each route requires, and public read access.

use super::route::{RequestMethod, Route};
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

/// Returns the permission that `method` on `route` requires.
///
/// The match lists every route, so the compiler reports a route without a permission.
pub const fn need(route: Route, method: RequestMethod) -> Permission {
    const READ: Permission = Permission::Scope(Scope::ProductsRead);
    const WRITE: Permission = Permission::Scope(Scope::ProductsWrite);
    let reads = matches!(method, RequestMethod::Get | RequestMethod::Head);
    match route {
        // A rendition's key is the hash of its bytes, and a resize URL is signed: a client can guess neither.
        Route::Index
        | Route::Image
        | Route::Resize
        | Route::Health
        | Route::Readiness
        | Route::Version
        | Route::ResourceMetadata
        | Route::OpenApi
        | Route::Docs
        | Route::DocsFile => Permission::Nothing,
        // The ids in these URLs are sequential, so a client can enumerate them.
        Route::Preset => Permission::ReadImages,
        Route::Original => Permission::ReadOwnProduct,
        Route::Products if reads => Permission::ReadProducts,
        // The body names the owner of a new product, so the handler checks it.
        Route::Products | Route::ProductsBatch => WRITE,
        Route::Product if reads => Permission::ReadProducts,
        Route::Events | Route::ProductEvents => READ,
        Route::Product | Route::ProductImages | Route::ProductImage | Route::ProductImageReprocess => {
            Permission::OwnProduct
        }
        Route::User => Permission::OwnUser,
        Route::Users
        | Route::Webhooks
        | Route::Webhook
        | Route::WebhookEnable
        | Route::WebhookDeliveries
        | Route::WebhookDeliveryRetry
        | Route::Queue
        | Route::DeadLetters
        | Route::DeadLetter
        | Route::DeadLetterRetry
        | Route::Metrics => Permission::Scope(Scope::Admin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [RequestMethod; 5] =
        [RequestMethod::Get, RequestMethod::Post, RequestMethod::Put, RequestMethod::Patch, RequestMethod::Delete];

    #[test]
    fn public_read_accepts_only_products_and_images() {
        assert_eq!(PublicRead::parse(" images , products").expect("words").to_string(), "products,images");
        assert_eq!(PublicRead::parse("images"), Ok(PublicRead { products: false, images: true }));
        assert_eq!(PublicRead::parse(""), Ok(PublicRead::default()));
        assert!(PublicRead::parse("products,users").expect_err("refused").contains("`users`"));
    }

    #[test]
    fn reading_below_products_requires_a_permission() {
        for route in Route::all().filter(|route| route.template().starts_with("/products")) {
            if route.permits(RequestMethod::Get) {
                assert_ne!(need(route, RequestMethod::Get), Permission::Nothing, "{}", route.template());
            }
        }
    }

    #[test]
    fn every_change_requires_a_permission_beyond_reading() {
        for route in Route::all() {
            for method in VERBS.into_iter().filter(|method| *method != RequestMethod::Get && route.permits(*method)) {
                assert_ne!(need(route, method), Permission::Nothing, "{method} {}", route.template());
                let reading =
                    [Permission::Scope(Scope::ProductsRead), Permission::ReadProducts, Permission::ReadImages];
                assert!(!reading.contains(&need(route, method)), "{method} {}", route.template());
            }
        }
    }

    #[test]
    fn every_change_below_a_product_requires_ownership() {
        for route in Route::all().filter(|route| route.template().starts_with("/products/{id}")) {
            for method in VERBS.into_iter().filter(|method| *method != RequestMethod::Get && route.permits(*method)) {
                assert_eq!(need(route, method), Permission::OwnProduct, "{method} {}", route.template());
            }
        }
    }
}
