//! The one table of what each route takes from its caller.

use super::route::{Route, Verb};
use crate::domain::Scope;

/// What a caller has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: anyone may.
    Nothing,
    /// This scope.
    Scope(Scope),
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
        // Pictures go by the hash of their bytes, so who knows an address has seen the picture's product.
        Route::Index
        | Route::Image
        | Route::Preset
        | Route::Resize
        | Route::Health
        | Route::Readiness
        | Route::Version
        | Route::ResourceMetadata
        | Route::OpenApi
        | Route::Docs
        | Route::DocsFile => Need::Nothing,
        Route::Products if reads => READ,
        // Whose product a new one is stands in its body.
        Route::Products | Route::ProductsBatch => WRITE,
        Route::Product if reads => READ,
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
    fn nothing_is_changed_without_a_scope() {
        for route in Route::all() {
            for verb in VERBS.into_iter().filter(|verb| *verb != Verb::Get && route.permits(*verb)) {
                assert_ne!(need(route, verb), Need::Nothing, "{verb} {}", route.template());
                assert_ne!(need(route, verb), Need::Scope(Scope::ProductsRead), "{verb} {}", route.template());
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
