//! The one table of what each route takes from its caller, and what of it the operator lets everybody read.

use super::route::{Route, Verb};
use crate::domain::Scope;

/// What everybody may read where authentication is on; nothing unless set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublicRead {
    /// Products, one by one and as lists.
    pub products: bool,
    /// Images of products by their presets.
    pub images: bool,
}

impl PublicRead {
    const PRODUCTS: &str = "products";
    const IMAGES: &str = "images";

    /// Reads `products`, `images` or both, separated by commas.
    ///
    /// # Errors
    /// A sentence that names the word that is neither.
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

/// As it is set.
impl std::fmt::Display for PublicRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = [(self.products, Self::PRODUCTS), (self.images, Self::IMAGES)];
        let set: Vec<_> = words.into_iter().filter_map(|(set, word)| set.then_some(word)).collect();
        f.write_str(&set.join(","))
    }
}

/// What a caller has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anyone may.
    Nothing,
    /// This scope.
    Scope(Scope),
    /// The scope to read; nothing where everybody may read products. A caller that shows a token is identified either way.
    ReadProducts,
    /// The scope to read; nothing where everybody may read images.
    ReadImages,
    /// The scope to read, and the product of the path must be its own.
    ReadOwnProduct,
    /// The scope to write, and the product of the path must be its own.
    OwnProduct,
    /// To be the user of the path, or to have the scope `admin`.
    OwnUser,
}

/// What `verb` on `route` takes. Each route stands here by its name, so that a new one cannot be forgotten.
pub const fn need(route: Route, verb: Verb) -> Need {
    const READ: Need = Need::Scope(Scope::ProductsRead);
    const WRITE: Need = Need::Scope(Scope::ProductsWrite);
    let reads = matches!(verb, Verb::Get | Verb::Head);
    match route {
        // A rendition's key is the hash of its bytes, and an address of any size is signed: neither can be guessed.
        Route::Index
        | Route::Image
        | Route::Resize
        | Route::Health
        | Route::Readiness
        | Route::Version
        | Route::ResourceMetadata
        | Route::OpenApi
        | Route::Docs
        | Route::DocsFile => Need::Nothing,
        // These addresses are numbers, which can be counted through.
        Route::Preset => Need::ReadImages,
        Route::Original => Need::ReadOwnProduct,
        Route::Products if reads => Need::ReadProducts,
        // Whose product a new one is stands in its body.
        Route::Products | Route::ProductsBatch => WRITE,
        Route::Product if reads => Need::ReadProducts,
        Route::Events | Route::ProductEvents => READ,
        Route::Product | Route::ProductImages | Route::ProductImage | Route::ProductImageReprocess => Need::OwnProduct,
        Route::User => Need::OwnUser,
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
        | Route::Metrics => Need::Scope(Scope::Admin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: [Verb; 5] = [Verb::Get, Verb::Post, Verb::Put, Verb::Patch, Verb::Delete];

    #[test]
    fn what_everybody_may_read_is_a_closed_list_of_words() {
        assert_eq!(PublicRead::parse(" images , products").expect("words").to_string(), "products,images");
        assert_eq!(PublicRead::parse("images"), Ok(PublicRead { products: false, images: true }));
        assert_eq!(PublicRead::parse(""), Ok(PublicRead::default()));
        assert!(PublicRead::parse("products,users").expect_err("refused").contains("`users`"));
    }

    #[test]
    fn nothing_below_a_product_is_read_without_a_scope() {
        for route in Route::all().filter(|route| route.template().starts_with("/products")) {
            if route.permits(Verb::Get) {
                assert_ne!(need(route, Verb::Get), Need::Nothing, "{}", route.template());
            }
        }
    }

    #[test]
    fn nothing_is_changed_without_a_scope() {
        for route in Route::all() {
            for verb in VERBS.into_iter().filter(|verb| *verb != Verb::Get && route.permits(*verb)) {
                assert_ne!(need(route, verb), Need::Nothing, "{verb} {}", route.template());
                let reading = [Need::Scope(Scope::ProductsRead), Need::ReadProducts, Need::ReadImages];
                assert!(!reading.contains(&need(route, verb)), "{verb} {}", route.template());
            }
        }
    }

    #[test]
    fn every_change_below_a_product_asks_whose_it_is() {
        for route in Route::all().filter(|route| route.template().starts_with("/products/{id}")) {
            for verb in VERBS.into_iter().filter(|verb| *verb != Verb::Get && route.permits(*verb)) {
                assert_eq!(need(route, verb), Need::OwnProduct, "{verb} {}", route.template());
            }
        }
    }
}
