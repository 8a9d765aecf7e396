//! The declaration of an endpoint: a method of a resource, with everything that the server knows about it.
//!
//! Each resource declares its endpoints once. The route table, authorization, admission control, the OpenAPI document
//! and the choice of the handler follow from the declarations.

mod permissions;
mod route;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use utoipa::{
    __dev::{SchemaReferences, Tags},
    Path,
    openapi::{HttpMethod, RefOr, Schema, path::Operation},
};
use warp::{Filter, Rejection, Reply, filters::BoxedFilter, reply::Response};

pub use permissions::{Permission, PublicRead};
pub use route::{Route, Table};

use super::{
    State,
    admission::Needs,
    feed::Feed,
    problem,
    request::{
        extract::{self, BodyLimits},
        method::RequestMethod,
        principal::Authentication,
    },
};
use crate::catalog::Catalog;

/// What handlers are made of.
pub struct Services<'a> {
    /// The services that handlers call.
    pub state: &'a State,
    /// The live events.
    pub feed: &'a Feed,
    /// Whether the server is shutting down.
    pub stopping: &'a Arc<AtomicBool>,
    /// The accepted credentials.
    pub authentication: &'a Authentication,
    /// Limits on JSON bodies.
    pub body: BodyLimits,
    /// Limits on the JSON body of a batch.
    pub batch_body: BodyLimits,
    /// Limit on an uploaded file in bytes.
    pub max_upload: u64,
    /// The path of each resource, and its methods as in `Allow`.
    pub paths: Vec<(&'static str, &'static str)>,
    /// The OpenAPI document of this server, or why there is none.
    pub document: Result<Bytes, String>,
}

/// A filter that makes the response to a request, or rejects it with a problem.
pub type Handler = BoxedFilter<(Response,)>;

/// A method of a resource.
pub struct Endpoint {
    /// The index in the table.
    pub index: usize,
    /// The method; `Get` includes `HEAD`.
    pub method: RequestMethod,
    /// The path, with parameters in braces.
    pub path: String,
    /// The required permission.
    pub permission: Permission,
    /// The kind of work, for admission control.
    pub work: Needs,
    /// What distinguishes the endpoint from others.
    pub kind: Kind,
    /// Whether the server reads the request's body.
    pub reads_body: bool,
    /// The description for the OpenAPI document, if it is listed there.
    pub description: Option<Description>,
    /// Makes the handler.
    pub handler: fn(&Services<'_>) -> Handler,
}

/// What distinguishes an endpoint from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Ordinary,
    /// Receives files, which may take longer than the deadline of other requests.
    Upload,
    /// Returns a public file: the last parameter may contain slashes, and pages of other origins may embed it.
    File,
    /// Reports health or metrics; it must respond under any load.
    Status,
}

/// The parts of the OpenAPI document that describe an endpoint.
pub struct Description {
    /// The operation.
    pub operation: fn() -> Operation,
    /// The operation's tags.
    pub tags: fn() -> Vec<&'static str>,
    /// The schemas that the operation refers to.
    pub schemas: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl Endpoint {
    /// Declares an endpoint. Method, path and description are those of the annotation `utoipa::path` of `handler`,
    /// which generates the type `D`.
    pub fn new<D>(permission: Permission, handler: fn(&Services<'_>) -> Handler) -> Self
    where
        D: Path + for<'t> Tags<'t> + SchemaReferences,
    {
        let method = D::methods().first().map_or(RequestMethod::Other, method_of);
        let reads_body = D::operation().request_body.is_some();
        let description = Description { operation: D::operation, tags: D::tags, schemas: D::schemas };
        Self {
            reads_body,
            description: Some(description),
            ..Self::undescribed(method, &D::path(), permission, handler)
        }
    }

    /// Declares an endpoint that the OpenAPI document does not list.
    pub fn undescribed(
        method: RequestMethod,
        path: &str,
        permission: Permission,
        handler: fn(&Services<'_>) -> Handler,
    ) -> Self {
        let work = if method == RequestMethod::Get { Needs::Read } else { Needs::Write };
        let (path, kind) = (path.to_owned(), Kind::Ordinary);
        Self { index: 0, method, path, permission, work, kind, reads_body: false, description: None, handler }
    }

    /// Sets the kind of work; otherwise a `GET` reads and other methods write.
    #[must_use]
    pub fn works_on(self, work: Needs) -> Self {
        Self { work, ..self }
    }

    /// Sets what distinguishes the endpoint from others.
    #[must_use]
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// Returns a filter that provides the catalog.
pub fn catalog(services: &Services<'_>) -> impl Filter<Extract = (Catalog,), Error = Infallible> + Clone + use<> {
    extract::with(&services.state.catalog)
}

/// Makes a handler of a filter; a rejection becomes its problem.
pub fn handler<R: Reply + 'static>(
    filter: impl Filter<Extract = (R,), Error = Rejection> + Clone + Send + Sync + 'static,
) -> Handler {
    filter.map(Reply::into_response).recover(problem::from_rejection).unify().boxed()
}

/// Makes a handler of a filter that reads nothing of the request, and so rejects none.
pub fn plain_handler<R: Reply + 'static>(
    filter: impl Filter<Extract = (R,), Error = Infallible> + Clone + Send + Sync + 'static,
) -> Handler {
    filter.map(Reply::into_response).and_then(async |response| Ok::<_, Rejection>(response)).boxed()
}

fn method_of(method: &HttpMethod) -> RequestMethod {
    match method {
        HttpMethod::Get => RequestMethod::Get,
        HttpMethod::Post => RequestMethod::Post,
        HttpMethod::Patch => RequestMethod::Patch,
        HttpMethod::Delete => RequestMethod::Delete,
        _ => RequestMethod::Other,
    }
}
