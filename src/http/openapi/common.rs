//! Adds what all operations share: error responses, security, `Idempotency-Key` and `X-Request-Id`.

use utoipa::openapi::{
    Components, Content, HeaderBuilder, HttpMethod, KnownFormat, ObjectBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema, SchemaFormat, Type,
    path::{Operation, ParameterBuilder, ParameterIn, PathItem},
    schema::SchemaType,
    security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
};

use crate::{
    domain::Scope,
    http::{
        endpoint::{Endpoint, Kind, Permission},
        request::method::RequestMethod,
    },
};

const SCHEME: &str = "bearer";

/// A status code and its description.
type Meaning = (u16, &'static str);

const ALWAYS: &[Meaning] = &[
    (400, "The request is malformed."),
    (421, "The server does not accept the host in the request."),
    (500, "An internal error occurred; the server's log has the cause under the request id."),
    (503, "The server is overloaded, or a component that the request needs is unavailable; retry after `Retry-After`."),
];
const FORBIDDEN: &str = "The token or API key lacks the required scope, the resource belongs to another user, or a \
                         page of another origin requests a change.";
const SECURED: &[Meaning] = &[(401, "The access token or API key is missing or invalid."), (403, FORBIDDEN)];
const COUNTED: &[Meaning] = &[(429, "The client exceeded its rate limit; retry after `Retry-After`.")];
const WITH_PATH: &[Meaning] = &[(404, "The resource does not exist.")];
const WITH_QUERY: &[Meaning] = &[(422, "Query parameters are invalid; `errors` lists them.")];
const WITH_BODY: &[Meaning] = &[
    (408, "The body did not arrive in time."),
    (413, "The body exceeds the size limit."),
    (415, "The body's media type is not supported."),
    (422, "Fields are invalid; `errors` lists them."),
];
const CONDITIONAL: &[Meaning] = &[(412, "A precondition of the request, such as `If-Match`, failed.")];
const WRITING: &[Meaning] = &[(403, FORBIDDEN), (507, "The server's storage is full.")];

/// Adds the responses and the security scheme that operations refer to.
pub(super) fn add_responses(components: &mut Components) {
    for (status, meaning) in [ALWAYS, SECURED, COUNTED, WITH_PATH, WITH_BODY, CONDITIONAL, WRITING].concat() {
        components.responses.insert(name(status), RefOr::T(problem(meaning)));
    }
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "An OAuth 2.0 access token (RFC 9068) or an API key. Required if the server has authentication on.",
    ));
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme.build()));
}

/// Adds the shared parts to the operation of an endpoint.
pub(super) fn complete(operation: &mut Operation, endpoint: &Endpoint) {
    protect(operation, endpoint);
    if endpoint.method == RequestMethod::Post {
        repeat_safely(operation);
    }
    add_meanings(operation, endpoint.method != RequestMethod::Get);
}

/// Adds the security requirement of an operation: none, or a scope; `{}` covers servers without authentication.
fn protect(operation: &mut Operation, endpoint: &Endpoint) {
    let mut meanings = if endpoint.kind == Kind::Status { Vec::new() } else { COUNTED.to_vec() };
    let scope = match endpoint.permission {
        Permission::Nothing => None,
        Permission::Scope(scope) => Some(scope),
        Permission::ReadProducts | Permission::ReadImages | Permission::ReadOwnProduct => Some(Scope::ProductsRead),
        Permission::OwnProduct => Some(Scope::ProductsWrite),
        Permission::OwnUser => Some(Scope::Admin),
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

/// Adds the header `Idempotency-Key` and its responses.
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
        .description(Some("Makes retries safe: the server executes a request with this key once within 24 hours"))
        .schema(Some(key));
    operation.parameters.get_or_insert_default().push(RefOr::T(parameter.build()));
    let replayed = || {
        HeaderBuilder::new()
            .description(Some("`true` if the server executed the request before and returns the earlier result"))
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

/// Adds the responses that follow from an operation's parameters and body, and the headers of every response.
fn add_meanings(operation: &mut Operation, writes: bool) {
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
            && let SchemaType::Array(types) = &schema.schema_type
            && let [only, Type::Null] | [Type::Null, only] = types.as_slice()
        {
            // A client omits an optional parameter; a parameter cannot be null.
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
        let unchanged = || ResponseBuilder::new().description("Not modified: the entity tag matches `If-None-Match`.");
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

/// Returns the schema of binary data.
fn binary() -> Schema {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}

fn request_id() -> utoipa::openapi::Header {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let meaning = "The request id, from the request or generated; the server's log lines contain it too.";
    HeaderBuilder::new().schema(Some(text)).description(Some(meaning)).build()
}
