//! The route table: finds the resource of a path, and the endpoint of a method.
//!
//! The table decides between 404 and 405. It does not read headers or bodies.

use std::ptr;

use super::{Endpoint, Kind};
use crate::http::request::{method::RequestMethod, params::Params};

/// All resources of the server, in the order in which paths are matched.
pub struct Table(Vec<Resource>);

/// A path with its endpoints.
pub struct Resource {
    path: String,
    /// The value of `Allow`: the resource's methods, with `HEAD` for every `GET`, and `OPTIONS`.
    allow: String,
    endpoints: Vec<Endpoint>,
}

/// A resource of the table; cheap to copy.
#[derive(Clone, Copy)]
pub struct Route(&'static Resource);

impl Table {
    /// Groups endpoints by path. A path without parameters, or with fewer, must precede one that also matches it.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut resources: Vec<Resource> = Vec::new();
        for endpoint in endpoints {
            match resources.iter_mut().find(|resource| resource.path == endpoint.path) {
                Some(resource) => resource.endpoints.push(endpoint),
                None => {
                    let path = endpoint.path.clone();
                    resources.push(Resource { path, allow: String::new(), endpoints: vec![endpoint] });
                }
            }
        }
        for resource in &mut resources {
            resource.allow = allow(&resource.endpoints);
        }
        let all = resources.iter_mut().flat_map(|resource| &mut resource.endpoints);
        all.enumerate().for_each(|(index, endpoint)| endpoint.index = index);
        Self(resources)
    }

    /// Returns the route of a request's path; the path is not percent-decoded.
    pub fn find(&'static self, path: &str) -> Option<Route> {
        self.0.iter().find(|resource| resource.matches(path)).map(Route)
    }

    /// Iterates over all routes.
    pub fn routes(&'static self) -> impl Iterator<Item = Route> {
        self.0.iter().map(Route)
    }

    /// Iterates over all endpoints in the order of their indexes.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter().flat_map(|resource| &resource.endpoints)
    }
}

impl Route {
    /// The label in logs and metrics for a path that no route matches.
    pub const UNMATCHED: &str = "unmatched";

    /// Returns the path, with parameters in braces.
    pub fn template(self) -> &'static str {
        &self.0.path
    }

    /// Returns the value of `Allow`.
    pub fn allow(self) -> &'static str {
        &self.0.allow
    }

    /// Whether the resource allows this method.
    pub fn permits(self, method: RequestMethod) -> bool {
        method == RequestMethod::Options || self.endpoint(method).is_some()
    }

    /// Returns the endpoint of a method; that of `GET` for `HEAD`.
    pub fn endpoint(self, method: RequestMethod) -> Option<&'static Endpoint> {
        let method = if method == RequestMethod::Head { RequestMethod::Get } else { method };
        self.0.endpoints.iter().find(|endpoint| endpoint.method == method)
    }

    /// Whether the route has an endpoint of this kind.
    pub fn is(self, kind: Kind) -> bool {
        self.0.endpoints.iter().any(|endpoint| endpoint.kind == kind)
    }

    /// Returns the parameters in a path of this route; they are not percent-decoded.
    pub fn params(self, path: &str) -> Params {
        let names = self.template().split('/');
        let mut rest = path;
        names
            .filter_map(|expected| {
                let name = expected.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
                let (segment, after) = match name {
                    Some(_) if self.is(Kind::File) => (rest, ""),
                    _ => rest.split_once('/').unwrap_or((rest, "")),
                };
                rest = after;
                Some((name?, segment.to_owned()))
            })
            .collect()
    }
}

impl PartialEq for Route {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for Route {}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.template())
    }
}

impl Resource {
    /// Matches segment by segment; a parameter matches one non-empty segment. Only a file's key may contain slashes.
    fn matches(&self, path: &str) -> bool {
        if self.endpoints.iter().any(|endpoint| endpoint.kind == Kind::File) {
            let fixed = self.path.split('{').next().unwrap_or_default();
            return path.strip_prefix(fixed).is_some_and(|key| !key.is_empty());
        }
        let mut segments = path.split('/');
        let all = self.path.split('/').all(|expected| {
            segments.next().is_some_and(|segment| match expected.starts_with('{') {
                true => !segment.is_empty(),
                false => segment == expected,
            })
        });
        all && segments.next().is_none()
    }
}

fn allow(endpoints: &[Endpoint]) -> String {
    let order = [RequestMethod::Get, RequestMethod::Post, RequestMethod::Patch, RequestMethod::Delete];
    let mut methods = Vec::new();
    for method in order.into_iter().filter(|method| endpoints.iter().any(|endpoint| endpoint.method == *method)) {
        methods.push(method.as_str());
        if method == RequestMethod::Get {
            methods.push(RequestMethod::Head.as_str());
        }
    }
    methods.push(RequestMethod::Options.as_str());
    methods.join(", ")
}
