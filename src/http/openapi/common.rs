//! What operations have in common: the problems that any request may be answered with, and the request's id.

use utoipa::{
    Modify,
    openapi::{
        Content, HeaderBuilder, HttpMethod, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, Type,
        path::{Operation, ParameterIn, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};

use super::super::{
    access::{Need, need},
    route::{Route, Verb},
};
use crate::domain::Scope;

const SCHEME: &str = "bearer";

/// Adds it to every operation.
pub(super) struct Common;

/// A status and what it stands for.
type Meaning = (u16, &'static str);

const ALWAYS: &[Meaning] = &[
    (400, "The request cannot be read."),
    (500, "Something is wrong inside; the server's log tells more under the request's id."),
    (
        503,
        "A component that the request needs does not answer, or there is too much to do; `Retry-After` says when to try again.",
    ),
];
const SECURED: &[Meaning] = &[
    (401, "With authentication: no access token or API key, or one that is not believed."),
    (403, "With authentication: the token or key has not the scope, or the resource is another user's."),
];
const COUNTED: &[Meaning] =
    &[(429, "The client makes more requests than it may; `Retry-After` says when to try again.")];
const WITH_PATH: &[Meaning] = &[(404, "There is no such thing.")];
const WITH_QUERY: &[Meaning] = &[(422, "Parameters have values that are not allowed; all of them are named.")];
const WITH_BODY: &[Meaning] = &[
    (408, "The body took too long."),
    (413, "The body is over the limit."),
    (415, "The body is of a kind that is not read."),
    (422, "Fields have values that are not allowed; all of them are named."),
];
const WRITING: &[Meaning] = &[(507, "The disk is full.")];

impl Modify for Common {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (status, meaning) in [ALWAYS, SECURED, COUNTED, WITH_PATH, WITH_BODY, WRITING].concat() {
            components.responses.insert(name(status), RefOr::T(problem(meaning)));
        }
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
            "An access token of OAuth 2.0 (RFC 9068), or an API key. Needed where the server has authentication on.",
        ));
        components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme.build()));
        for (path, item) in &mut openapi.paths.paths {
            let route = Route::find(path);
            for (method, operation) in operations(item) {
                if let Some(route) = route {
                    protect(operation, route, verb(&method));
                }
                complete(operation, method != HttpMethod::Get);
            }
        }
    }
}

/// Says what an operation takes from its caller: nothing, or a scope, with `{}` for servers without authentication.
fn protect(operation: &mut Operation, route: Route, verb: Verb) {
    let mut meanings = if route.is_about_the_server() { Vec::new() } else { COUNTED.to_vec() };
    let scope = match need(route, verb) {
        Need::Nothing => None,
        Need::Scope(scope) => Some(scope),
        Need::ReadProducts | Need::ReadImages | Need::ReadOwnProduct => Some(Scope::ProductsRead),
        Need::OwnProduct => Some(Scope::ProductsWrite),
        Need::OwnUser => Some(Scope::Admin),
    };
    if let Some(scope) = scope {
        meanings.extend(SECURED);
        let required = SecurityRequirement::new(SCHEME, [scope.as_str()]);
        operation.security = Some(vec![SecurityRequirement::default(), required]);
    }
    for (status, _) in meanings {
        let reference = || Ref::from_response_name(name(status)).into();
        operation.responses.responses.entry(status.to_string()).or_insert_with(reference);
    }
}

fn verb(method: &HttpMethod) -> Verb {
    match method {
        HttpMethod::Post => Verb::Post,
        HttpMethod::Patch => Verb::Patch,
        HttpMethod::Delete => Verb::Delete,
        _ => Verb::Get,
    }
}

fn complete(operation: &mut Operation, writes: bool) {
    let has = |place: &ParameterIn| {
        let mut known = operation.parameters.iter().flatten();
        known.any(|known| matches!(known, RefOr::T(known) if known.parameter_in == *place))
    };
    let mut meanings = ALWAYS.to_vec();
    if has(&ParameterIn::Path) {
        meanings.extend(WITH_PATH);
    }
    if has(&ParameterIn::Query) {
        meanings.extend(WITH_QUERY);
    }
    if operation.request_body.is_some() {
        meanings.extend(WITH_BODY);
    }
    if writes {
        meanings.extend(WRITING);
    }
    let known = &mut operation.responses.responses;
    if !writes {
        let unchanged = || ResponseBuilder::new().description("The client has it already, by its `If-None-Match`.");
        known.entry("304".into()).or_insert_with(|| unchanged().build().into());
    }
    for (status, _) in meanings {
        known.entry(status.to_string()).or_insert_with(|| Ref::from_response_name(name(status)).into());
    }
    for response in known.values_mut() {
        if let RefOr::T(response) = response {
            response.headers.insert("X-Request-Id".into(), request_id().into());
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
    let all = [
        (HttpMethod::Get, &mut item.get),
        (HttpMethod::Post, &mut item.post),
        (HttpMethod::Patch, &mut item.patch),
        (HttpMethod::Delete, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

fn problem(meaning: &str) -> Response {
    ResponseBuilder::new()
        .description(meaning)
        .content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem"))))
        .header("X-Request-Id", request_id())
        .build()
}

fn request_id() -> utoipa::openapi::Header {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let meaning = "The request's id, taken from the request or made; the log's lines about it bear it too.";
    HeaderBuilder::new().schema(Some(text)).description(Some(meaning)).build()
}
