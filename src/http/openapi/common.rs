//! What operations have in common: the problems that any request may be answered with, and the request's id.

use utoipa::{
    Modify,
    openapi::{
        Content, HeaderBuilder, HttpMethod, KnownFormat, ObjectBuilder, OpenApi, Ref, RefOr, Required, Response,
        ResponseBuilder, Schema, SchemaFormat, Type,
        path::{Operation, ParameterBuilder, ParameterIn, PathItem},
        schema::SchemaType,
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
    (421, "The server does not answer for the host that the request names."),
    (500, "Something is wrong inside; the server's log tells more under the request's id."),
    (
        503,
        "A component that the request needs does not answer, or there is too much to do; `Retry-After` says when to try again.",
    ),
];
const FORBIDDEN: &str = "The token or key has not the scope, the resource is another user's, or a page of another origin asks for a \
                         change.";
const SECURED: &[Meaning] =
    &[(401, "With authentication: no access token or API key, or one that is not believed."), (403, FORBIDDEN)];
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
const CONDITIONAL: &[Meaning] = &[(412, "A condition of the request, such as `If-Match`, does not hold.")];
const WRITING: &[Meaning] = &[(403, FORBIDDEN), (507, "The disk is full.")];

impl Modify for Common {
    fn modify(&self, openapi: &mut OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (status, meaning) in [ALWAYS, SECURED, COUNTED, WITH_PATH, WITH_BODY, CONDITIONAL, WRITING].concat() {
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
                if method == HttpMethod::Post {
                    repeat_safely(operation);
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

/// Says that a request with an idempotency key is carried out once.
fn repeat_safely(operation: &mut Operation) {
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(255))
        .pattern(Some("^[!-~]+$"));
    let parameter = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("The request is carried out once within 24 hours, however often it is sent with this key"))
        .schema(Some(key));
    operation.parameters.get_or_insert_default().push(RefOr::T(parameter.build()));
    let replayed = || {
        HeaderBuilder::new()
            .description(Some("`true` if the request was carried out before, and nothing was done this time"))
            .schema(Some(ObjectBuilder::new().schema_type(Type::Boolean)))
            .build()
    };
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && status.starts_with('2')
        {
            response.headers.insert("Idempotency-Replayed".into(), replayed().into());
        }
    }
    let refused = || Ref::from_response_name(name(422)).into();
    operation.responses.responses.entry("422".into()).or_insert_with(refused);
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
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
            && let SchemaType::Array(types) = &schema.schema_type
            && let [only, Type::Null] | [Type::Null, only] = types.as_slice()
        {
            // A parameter is left out; it has no way to be null.
            schema.schema_type = SchemaType::Type(only.clone());
        }
    }
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
    if !writes || is_conditional(operation) {
        meanings.extend(CONDITIONAL);
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
            for (kind, content) in &mut response.content {
                if let RefOr::T(content) = content
                    && kind.starts_with("image/")
                {
                    content.schema = Some(binary().into());
                }
            }
            response.headers.insert("X-Request-Id".into(), request_id().into());
        }
    }
}

fn is_conditional(operation: &Operation) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    parameters
        .any(|known| matches!(known, RefOr::T(known) if known.name == "If-Match" || known.name == "If-None-Match"))
}

pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (HttpMethod, &mut Operation)> {
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

/// Bytes that are no text.
fn binary() -> Schema {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}

fn request_id() -> utoipa::openapi::Header {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let meaning = "The request's id, taken from the request or made; the log's lines about it bear it too.";
    HeaderBuilder::new().schema(Some(text)).description(Some(meaning)).build()
}
