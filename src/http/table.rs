//! The table of all endpoints.

use std::sync::{Arc, LazyLock, atomic::AtomicBool};

use super::{
    Config, State,
    endpoint::{Handler, Services, Table},
    feed::Feed,
    openapi,
    request::extract::BodyLimits,
    resources::{
        events, images, originals, presets, product_images, products, queue, resource_metadata, status, users, webhooks,
    },
};

/// All endpoints of the server.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let endpoints = [
        products::endpoints(),
        product_images::endpoints(),
        events::endpoints(),
        webhooks::endpoints(),
        users::endpoints(),
        images::endpoints(),
        originals::endpoints(),
        presets::endpoints(),
        queue::endpoints(),
        status::endpoints(),
        resource_metadata::endpoints(),
        openapi::endpoints(),
    ];
    Table::new(endpoints.into_iter().flatten())
});

/// Makes the handlers of all endpoints, in the order of their indexes. `stopping` is true once the server shuts down.
pub fn handlers((state, config): (&State, &Config), feed: &Feed, stopping: &Arc<AtomicBool>) -> Vec<Handler> {
    let body = BodyLimits { max_bytes: config.max_body, timeout: config.body_timeout };
    let is_authenticated = !config.authentication.is_off();
    let deployment = openapi::Deployment { is_authenticated, base: state.catalog.links().base() };
    let services = Services {
        state,
        feed,
        stopping,
        authentication: &config.authentication,
        body,
        batch_body: BodyLimits { max_bytes: config.max_batch_body, ..body },
        max_upload: config.max_upload,
        paths: TABLE.routes().map(|route| (route.template(), route.allow())).collect(),
        document: openapi::json(&TABLE, Some(deployment)),
    };
    TABLE.endpoints().map(|endpoint| (endpoint.handler)(&services)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::Scope,
        http::{endpoint::Permission, request::method::RequestMethod},
    };

    fn found(path: &str) -> Option<&'static str> {
        TABLE.find(path).map(|route| route.template())
    }

    #[test]
    fn find_returns_the_route_of_a_path() {
        for (path, template) in [
            ("/", Some("/")),
            ("/products", Some("/products")),
            ("/products/12", Some("/products/{id}")),
            ("/products/abc", Some("/products/{id}")),
            ("/users/a%2Fb", Some("/users/{id}")),
            ("/images/ab/cd/ef.webp", Some("/images/{key}")),
            ("/products/1/images/2/original", Some("/products/{id}/images/{image_id}/original")),
            ("/products/1/images/2/reprocess", Some("/products/{id}/images/{image_id}/reprocess")),
            ("/products/1/images/2/large", Some("/products/{id}/images/{image_id}/{preset}")),
            ("/queue/dead", Some("/queue/dead")),
            ("/queue/dead/7", Some("/queue/dead/{id}")),
            ("/queue/dead/retry", Some("/queue/dead/{id}")),
            ("/queue/dead/7/retry", Some("/queue/dead/{id}/retry")),
            ("/queue/dead//retry", None),
            ("/queue/dead/7/8/retry", None),
            ("/readyz", Some("/readyz")),
            ("", None),
            ("*", None),
            ("/products/", None),
            ("/products/12/", None),
            ("/products//", None),
            ("//products", None),
            ("/Products", None),
            ("/images/", None),
            ("/images", None),
            ("/healthz/x", None),
        ] {
            assert_eq!(found(path), template, "{path}");
        }
    }

    #[test]
    fn every_path_matches_its_own_route_and_each_method_once() {
        for route in TABLE.routes() {
            assert_eq!(TABLE.find(route.template()), Some(route), "{}", route.template());
            let allowed: Vec<_> = route.allow().split(", ").collect();
            for method in RequestMethod::ALL {
                assert_eq!(route.permits(method), allowed.contains(&method.as_str()), "{method} {}", route.template());
            }
        }
        for endpoint in TABLE.endpoints() {
            let is_same = |other: &&crate::http::endpoint::Endpoint| {
                (other.method, &other.path) == (endpoint.method, &endpoint.path)
            };
            assert_eq!(TABLE.endpoints().filter(is_same).count(), 1, "{} {}", endpoint.method, endpoint.path);
        }
    }

    #[test]
    fn parameters_are_found_by_name() {
        let params = |path| TABLE.find(path).expect("a route").params(path);
        let preset = params("/products/1/images/2/large%20x");
        assert_eq!((preset.get("id"), preset.get("image_id"), preset.get("preset")), ("1", "2", "large%20x"));
        assert_eq!(params("/images/ab/cd/ef.webp").get("key"), "ab/cd/ef.webp");
        assert_eq!(params("/products").get("id"), "");
    }

    #[test]
    fn reading_below_products_requires_a_permission() {
        for endpoint in TABLE.endpoints().filter(|endpoint| endpoint.path.starts_with("/products")) {
            assert_ne!(endpoint.permission, Permission::Nothing, "{} {}", endpoint.method, endpoint.path);
        }
    }

    #[test]
    fn every_change_requires_a_permission_beyond_reading() {
        let reading = [
            Permission::Nothing,
            Permission::Scope(Scope::ProductsRead),
            Permission::ReadProducts,
            Permission::ReadImages,
            Permission::ReadOwnProduct,
        ];
        for endpoint in TABLE.endpoints().filter(|endpoint| endpoint.method != RequestMethod::Get) {
            assert!(!reading.contains(&endpoint.permission), "{} {}", endpoint.method, endpoint.path);
            if endpoint.path.starts_with("/products/{id}") {
                assert_eq!(endpoint.permission, Permission::OwnProduct, "{} {}", endpoint.method, endpoint.path);
            }
        }
    }
}
