//! The table of routes: which paths there are, which methods each takes, and the names of both in logs and metrics.
//! It decides between 404 and 405; it never looks at a request's headers or body.

use std::fmt;

use http::Method;

/// A resource that the server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/`
    Index,
    /// `/products`
    Products,
    /// `/products/{id}`
    Product,
    /// `/users`
    Users,
    /// `/users/{id}`
    User,
    /// `/images/{key}`, where the key has slashes of its own.
    Image,
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
}

/// A method as logs and metrics name it: a closed list, whatever a client writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
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
    /// Anything else.
    Other,
}

/// What a resource can be asked to do, besides `OPTIONS`.
#[derive(Clone, Copy)]
enum Methods {
    Read,
    ReadAndCreate,
    ReadAndDelete,
    Do,
}

struct Entry {
    route: Route,
    template: &'static str,
    methods: Methods,
}

const TABLE: [Entry; 13] = [
    Entry { route: Route::Index, template: "/", methods: Methods::Read },
    Entry { route: Route::Products, template: "/products", methods: Methods::ReadAndCreate },
    Entry { route: Route::Product, template: "/products/{id}", methods: Methods::ReadAndDelete },
    Entry { route: Route::Users, template: "/users", methods: Methods::ReadAndCreate },
    Entry { route: Route::User, template: "/users/{id}", methods: Methods::Read },
    Entry { route: Route::Image, template: "/images/{key}", methods: Methods::Read },
    Entry { route: Route::Queue, template: "/queue", methods: Methods::Read },
    Entry { route: Route::DeadLetters, template: "/queue/dead", methods: Methods::Read },
    Entry { route: Route::DeadLetter, template: "/queue/dead/{id}", methods: Methods::Read },
    Entry { route: Route::DeadLetterRetry, template: "/queue/dead/{id}/retry", methods: Methods::Do },
    Entry { route: Route::Health, template: "/healthz", methods: Methods::Read },
    Entry { route: Route::Readiness, template: "/readyz", methods: Methods::Read },
    Entry { route: Route::Metrics, template: "/metrics", methods: Methods::Read },
];

impl Route {
    /// How logs and metrics call a path that no route matches.
    pub const UNMATCHED: &str = "unmatched";

    /// Every route, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|entry| entry.route)
    }

    /// The route of a request's path, as it stands in the request line: nothing is decoded.
    pub fn find(path: &str) -> Option<Self> {
        TABLE.iter().find(|entry| entry.matches(path)).map(|entry| entry.route)
    }

    /// The path with its variable parts in braces.
    pub fn template(self) -> &'static str {
        self.entry().template
    }

    /// The value of `Allow`.
    pub fn allow(self) -> &'static str {
        match self.entry().methods {
            Methods::Read => "GET, HEAD, OPTIONS",
            Methods::ReadAndCreate => "GET, HEAD, POST, OPTIONS",
            Methods::ReadAndDelete => "GET, HEAD, DELETE, OPTIONS",
            Methods::Do => "POST, OPTIONS",
        }
    }

    /// Whether the resource takes this method.
    pub fn permits(self, verb: Verb) -> bool {
        let methods = self.entry().methods;
        match verb {
            Verb::Options => true,
            Verb::Get | Verb::Head => !matches!(methods, Methods::Do),
            Verb::Post => matches!(methods, Methods::ReadAndCreate | Methods::Do),
            Verb::Delete => matches!(methods, Methods::ReadAndDelete),
            Verb::Put | Verb::Patch | Verb::Other => false,
        }
    }

    /// Whether the route tells how the server is, and so must be answered under any load.
    pub const fn is_about_the_server(self) -> bool {
        matches!(self, Self::Health | Self::Readiness | Self::Metrics)
    }

    fn entry(self) -> &'static Entry {
        TABLE.iter().find(|entry| entry.route == self).expect("the table has an entry for every route")
    }
}

impl Entry {
    fn matches(&self, path: &str) -> bool {
        let Some((fixed, rest)) = self.template.split_once('{') else { return path == self.template };
        let end = rest.split_once('}').map_or("", |(_, end)| end);
        let Some(variable) = path.strip_prefix(fixed).and_then(|rest| rest.strip_suffix(end)) else { return false };
        // Only a blob's key goes on over slashes.
        !variable.is_empty() && (self.route == Route::Image || !variable.contains('/'))
    }
}

impl Verb {
    /// The verb of a request's method.
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

    /// The label in logs and metrics.
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

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_routes() {
        for (path, route) in [
            ("/", Some(Route::Index)),
            ("/products", Some(Route::Products)),
            ("/products/12", Some(Route::Product)),
            ("/products/abc", Some(Route::Product)),
            ("/users/a%2Fb", Some(Route::User)),
            ("/images/ab/cd/ef.webp", Some(Route::Image)),
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
    fn every_template_is_found_by_its_own_route() {
        for route in Route::all() {
            assert_eq!(Route::find(route.template()), Some(route));
        }
    }

    #[test]
    fn allow_names_exactly_what_is_permitted() {
        for route in Route::all() {
            let allowed: Vec<_> = route.allow().split(", ").collect();
            for verb in [Verb::Get, Verb::Head, Verb::Post, Verb::Options, Verb::Put, Verb::Patch, Verb::Delete] {
                assert_eq!(route.permits(verb), allowed.contains(&verb.as_str()), "{verb} {}", route.template());
            }
        }
    }

    #[test]
    fn a_made_up_method_has_a_bounded_label() {
        let method = Method::from_bytes(b"BREW").expect("a token");
        assert_eq!(Verb::of(&method).as_str(), "OTHER");
    }
}
