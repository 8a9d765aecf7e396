//! The route table: the paths, the methods that each allows, and the labels of both in logs and metrics.
//!
//! The table decides between 404 and 405. It does not read headers or bodies.

use std::fmt;

use http::Method;

use super::admission::request::Needs;

/// A resource of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/`
    Index,
    /// `/products`
    Products,
    /// `/products/{id}`
    Product,
    /// `/products:batch`
    ProductsBatch,
    /// `/products/{id}/images`
    ProductImages,
    /// `/products/{id}/images/{image_id}`
    ProductImage,
    /// `/products/{id}/images/{image_id}/reprocess`
    ProductImageReprocess,
    /// `/products/{id}/events`
    ProductEvents,
    /// `/events`
    Events,
    /// `/webhooks`
    Webhooks,
    /// `/webhooks/{id}`
    Webhook,
    /// `/webhooks/{id}/enable`
    WebhookEnable,
    /// `/webhooks/{id}/deliveries`
    WebhookDeliveries,
    /// `/webhooks/{id}/deliveries/{delivery_id}/retry`
    WebhookDeliveryRetry,
    /// `/users`
    Users,
    /// `/users/{id}`
    User,
    /// `/images/{key}`; the key contains slashes.
    Image,
    /// `/products/{id}/images/{image_id}/original`
    Original,
    /// `/products/{id}/images/{image_id}/{preset}`
    Preset,
    /// `/resize/{signature}/{options}/{image_id}`
    Resize,
    /// `/queue`
    Queue,
    /// `/queue/dead`
    DeadLetters,
    /// `/queue/dead/{id}`
    DeadLetter,
    /// `/queue/dead/{id}/retry`
    DeadLetterRetry,
    /// `/healthz`
    Health,
    /// `/readyz`
    Readiness,
    /// `/metrics`
    Metrics,
    /// `/version`
    Version,
    /// `/.well-known/oauth-protected-resource`
    ResourceMetadata,
    /// `/openapi.json`
    OpenApi,
    /// `/docs`
    Docs,
    /// `/docs/{file}`
    DocsFile,
}

/// A request method; a closed list, so that labels in logs and metrics are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestMethod {
    /// `GET`
    Get,
    /// `HEAD`: `GET` without the body.
    Head,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// Any other method.
    Other,
}

struct Entry {
    route: Route,
    template: &'static str,
    /// The value of `Allow`: the resource's methods, with `HEAD` for every `GET`, and `OPTIONS`.
    allow: &'static str,
}

const fn entry(route: Route, template: &'static str, allow: &'static str) -> Entry {
    Entry { route, template, allow }
}

const READ: &str = "GET, HEAD, OPTIONS";
const READ_AND_CREATE: &str = "GET, HEAD, POST, OPTIONS";
const READ_CHANGE_AND_DELETE: &str = "GET, HEAD, PATCH, DELETE, OPTIONS";
const REMOVE: &str = "DELETE, OPTIONS";
const READ_AND_DELETE: &str = "GET, HEAD, DELETE, OPTIONS";
const DO: &str = "POST, OPTIONS";

const TABLE: &[Entry] = &[
    entry(Route::Index, "/", READ),
    entry(Route::Products, "/products", READ_AND_CREATE),
    entry(Route::Product, "/products/{id}", READ_CHANGE_AND_DELETE),
    entry(Route::ProductsBatch, "/products:batch", DO),
    entry(Route::ProductImages, "/products/{id}/images", DO),
    entry(Route::ProductImage, "/products/{id}/images/{image_id}", REMOVE),
    entry(Route::ProductImageReprocess, "/products/{id}/images/{image_id}/reprocess", DO),
    entry(Route::ProductEvents, "/products/{id}/events", READ),
    entry(Route::Events, "/events", READ),
    entry(Route::Webhooks, "/webhooks", READ_AND_CREATE),
    entry(Route::Webhook, "/webhooks/{id}", READ_AND_DELETE),
    entry(Route::WebhookEnable, "/webhooks/{id}/enable", DO),
    entry(Route::WebhookDeliveries, "/webhooks/{id}/deliveries", READ),
    entry(Route::WebhookDeliveryRetry, "/webhooks/{id}/deliveries/{delivery_id}/retry", DO),
    entry(Route::Users, "/users", READ_AND_CREATE),
    entry(Route::User, "/users/{id}", READ),
    entry(Route::Image, "/images/{key}", READ),
    entry(Route::Original, "/products/{id}/images/{image_id}/original", READ),
    entry(Route::Preset, "/products/{id}/images/{image_id}/{preset}", READ),
    entry(Route::Resize, "/resize/{signature}/{options}/{image_id}", READ),
    entry(Route::Queue, "/queue", READ),
    entry(Route::DeadLetters, "/queue/dead", READ),
    entry(Route::DeadLetter, "/queue/dead/{id}", READ),
    entry(Route::DeadLetterRetry, "/queue/dead/{id}/retry", DO),
    entry(Route::Health, "/healthz", READ),
    entry(Route::Readiness, "/readyz", READ),
    entry(Route::Metrics, "/metrics", READ),
    entry(Route::Version, "/version", READ),
    entry(Route::ResourceMetadata, "/.well-known/oauth-protected-resource", READ),
    entry(Route::OpenApi, "/openapi.json", READ),
    entry(Route::Docs, "/docs", READ),
    entry(Route::DocsFile, "/docs/{file}", READ),
];

impl Route {
    /// The label in logs and metrics for a path that no route matches.
    pub const UNMATCHED: &str = "unmatched";

    /// Iterates over all routes in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.route)
    }

    /// Returns the route of a request's path; the path is not percent-decoded.
    pub fn find(path: &str) -> Option<Self> {
        TABLE.iter().find(|entry| entry.matches(path)).map(|entry| entry.route)
    }

    /// Returns the path template, with parameters in braces.
    pub fn template(self) -> &'static str {
        self.entry().template
    }

    /// Returns the value of `Allow`.
    pub fn allow(self) -> &'static str {
        self.entry().allow
    }

    /// Whether the resource allows this method.
    pub fn permits(self, method: RequestMethod) -> bool {
        self.allow().split(", ").any(|allowed| allowed == method.as_str())
    }

    /// Whether the route reports health or metrics; it must respond under any load.
    pub const fn is_about_the_server(self) -> bool {
        matches!(self, Self::Health | Self::Readiness | Self::Metrics)
    }

    /// Returns the kind of work of a request, for admission control.
    pub const fn needs(self, method: RequestMethod) -> Needs {
        match (self, method) {
            (Self::Image | Self::Original | Self::Preset | Self::Resize, _) => Needs::Files,
            (Self::ProductsBatch, _) => Needs::Batch,
            (
                Self::Products | Self::Users | Self::WebhookDeliveries | Self::DeadLetters,
                RequestMethod::Get | RequestMethod::Head,
            ) => Needs::List,
            (_, RequestMethod::Get | RequestMethod::Head | RequestMethod::Options) => Needs::Read,
            _ => Needs::Write,
        }
    }

    /// Whether the server reads the body of a request with this method.
    pub const fn reads_body(self, method: RequestMethod) -> bool {
        matches!(
            (self, method),
            (
                Self::Products | Self::ProductsBatch | Self::ProductImages | Self::Users | Self::Webhooks,
                RequestMethod::Post
            ) | (Self::Product, RequestMethod::Patch)
        )
    }

    fn entry(self) -> &'static Entry {
        TABLE.iter().find(|entry| entry.route == self).expect("the table has an entry for every route")
    }
}

impl Entry {
    /// Matches segment by segment; a parameter matches one non-empty segment. Only an image's key may contain slashes.
    fn matches(&self, path: &str) -> bool {
        if self.route == Route::Image {
            return path.strip_prefix("/images/").is_some_and(|key| !key.is_empty());
        }
        let mut segments = path.split('/');
        let all = self.template.split('/').all(|expected| {
            segments.next().is_some_and(|segment| match expected.starts_with('{') {
                true => !segment.is_empty(),
                false => segment == expected,
            })
        });
        all && segments.next().is_none()
    }
}

impl RequestMethod {
    /// Converts a method of the `http` crate.
    pub fn of(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::OPTIONS => Self::Options,
            Method::PUT => Self::Put,
            Method::PATCH => Self::Patch,
            Method::DELETE => Self::Delete,
            _ => Self::Other,
        }
    }

    /// Returns the label in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Options => "OPTIONS",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Other => "OTHER",
        }
    }
}

impl fmt::Display for RequestMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_returns_the_route_of_a_path() {
        for (path, route) in [
            ("/", Some(Route::Index)),
            ("/products", Some(Route::Products)),
            ("/products/12", Some(Route::Product)),
            ("/products/abc", Some(Route::Product)),
            ("/users/a%2Fb", Some(Route::User)),
            ("/images/ab/cd/ef.webp", Some(Route::Image)),
            ("/products/1/images/2/original", Some(Route::Original)),
            ("/products/1/images/2/large", Some(Route::Preset)),
            ("/queue/dead", Some(Route::DeadLetters)),
            ("/queue/dead/7", Some(Route::DeadLetter)),
            ("/queue/dead/retry", Some(Route::DeadLetter)),
            ("/queue/dead/7/retry", Some(Route::DeadLetterRetry)),
            ("/queue/dead//retry", None),
            ("/queue/dead/7/8/retry", None),
            ("/readyz", Some(Route::Readiness)),
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
            assert_eq!(Route::find(path), route, "{path}");
        }
    }

    #[test]
    fn every_template_matches_its_own_route() {
        for route in Route::all() {
            assert_eq!(Route::find(route.template()), Some(route));
        }
    }

    #[test]
    fn allow_lists_exactly_the_permitted_methods() {
        for route in Route::all() {
            let allowed: Vec<_> = route.allow().split(", ").collect();
            for method in [
                RequestMethod::Get,
                RequestMethod::Head,
                RequestMethod::Post,
                RequestMethod::Options,
                RequestMethod::Put,
                RequestMethod::Patch,
                RequestMethod::Delete,
            ] {
                assert_eq!(route.permits(method), allowed.contains(&method.as_str()), "{method} {}", route.template());
            }
        }
    }

    #[test]
    fn an_unknown_method_is_labeled_other() {
        let method = Method::from_bytes(b"BREW").expect("a token");
        assert_eq!(RequestMethod::of(&method).as_str(), "OTHER");
    }
}
