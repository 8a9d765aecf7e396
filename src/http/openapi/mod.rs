//! The OpenAPI document, generated from the handlers' annotations: `/openapi.json`, `/docs` and `pm openapi`.
//!
//! The operations are those of the table's endpoints. `common` adds what all share, such as error responses and
//! `X-Request-Id`, so that no handler repeats it.

mod common;
mod deployment;
mod pages;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use utoipa::{
    OpenApi as _,
    openapi::{HttpMethod, OpenApi},
};
use utoipa_swagger_ui::Config;
use warp::Filter;

pub use deployment::Deployment;

use super::{
    endpoint::{Endpoint, Permission, Table, handler, plain_handler},
    headers::etag,
    problem::{self, Problem},
    reply::{self, Ready},
    request::{extract, method::RequestMethod, path},
};

use crate::domain::EventKind;

/// The parts of the OpenAPI document that belong to no endpoint.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "pm",
        description = "A product catalog with asynchronous image processing. The server stores a product at once; \
                       workers download, check, compress and resize its images in the background. A query parameter \
                       with an empty value is ignored.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "products", description = "Products and their images"),
        (name = "events", description = "Live events about products (server-sent events)"),
        (name = "users", description = "Owners of products"),
        (name = "images", description = "Image files: renditions, variants and originals"),
        (name = "webhooks", description = "Webhooks and their deliveries (Standard Webhooks)"),
        (name = "queue", description = "The job queue and its dead letters"),
        (name = "server", description = "Health, metrics, version and documentation"),
    ),
    components(schemas(problem::ProblemBody, EventKind)),
)]
struct Base;

/// The OpenAPI document of a running server, with its entity tag.
#[derive(Clone)]
struct Document {
    json: Result<Bytes, String>,
    tag: Bytes,
}

impl Document {
    fn new(json: Result<Bytes, String>) -> Self {
        let tag = json.as_ref().map(|json| etag::of_bytes(json).into()).unwrap_or_default();
        Self { json, tag }
    }
}

/// Returns the OpenAPI 3.1 document of `table` as JSON: for any server, or for a deployment.
///
/// # Errors
/// If the document cannot be serialized, which is a bug.
pub fn json(table: &'static Table, deployment: Option<Deployment<'_>>) -> Result<Bytes, String> {
    let mut document = document(table);
    if let Some(deployment) = deployment {
        deployment.describe(&mut document);
    }
    document.to_json().map(Bytes::from).map_err(|error| error.to_string())
}

fn document(table: &'static Table) -> OpenApi {
    let mut document = Base::openapi();
    let mut schemas = Vec::new();
    for endpoint in table.endpoints() {
        let Some(description) = &endpoint.description else { continue };
        let mut operation = (description.operation)();
        operation.tags = Some((description.tags)().into_iter().map(str::to_owned).collect());
        common::complete(&mut operation, endpoint);
        document.paths.add_path_operation(&endpoint.path, vec![http_method(endpoint.method)], operation);
        (description.schemas)(&mut schemas);
    }
    let components = document.components.get_or_insert_default();
    components.schemas.extend(schemas);
    common::add_responses(components);
    pages::refer_to_items(components);
    document
}

/// Returns the endpoints of the OpenAPI document and of the documentation pages.
pub fn endpoints() -> Vec<Endpoint> {
    const NOTHING: Permission = Permission::Nothing;
    vec![
        Endpoint::new::<__path_description>(NOTHING, |services| {
            plain_handler(extract::with(&Document::new(services.document.clone())).then(description))
        }),
        Endpoint::undescribed(RequestMethod::Get, "/docs", NOTHING, |_| {
            plain_handler(warp::any().then(async || page()))
        }),
        Endpoint::undescribed(RequestMethod::Get, "/docs/{file}", NOTHING, |_| handler(path::text("file").then(file))),
    ]
}

/// Returns the OpenAPI document of this server.
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", operation_id = "getOpenApiDocument",
    responses((status = 200, description = "The OpenAPI 3.1 document", body = std::collections::HashMap<String, serde_json::Value>)),
)]
async fn description(document: Document) -> Result<Ready, Problem> {
    let mut response = Response::new(document.json.map_err(Problem::internal)?);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply::tagged(response, document.tag)
}

fn http_method(method: RequestMethod) -> HttpMethod {
    match method {
        RequestMethod::Post => HttpMethod::Post,
        RequestMethod::Patch => HttpMethod::Patch,
        RequestMethod::Delete => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

/// Returns the Swagger UI page. Its URL has no trailing slash, so its links are made absolute.
fn page() -> Result<Ready, Problem> {
    let mut response = asset("index.html")?;
    let html =
        String::from_utf8_lossy(response.body()).replace("./", "/docs/").replace("\"index.css", "\"/docs/index.css");
    *response.body_mut() = html.into();
    Ok(response)
}

async fn file(name: String) -> Result<Ready, Problem> {
    asset(&name)
}

/// Returns a file of Swagger UI. The files are embedded, so the page loads nothing from other hosts.
fn asset(name: &str) -> Result<Ready, Problem> {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                          connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let config = Arc::new(Config::from("/openapi.json"));
    let found = utoipa_swagger_ui::serve(name, config).map_err(|error| Problem::internal(error.to_string()))?;
    let found = found.ok_or_else(|| Problem::not_found(format!("documentation file {name} not found")))?;
    let mut response = Response::new(Bytes::from(found.bytes.into_owned()));
    *response.status_mut() = StatusCode::OK;
    let kind = HeaderValue::try_from(found.content_type).map_err(Problem::internal)?;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{domain::search::SearchTerms, http::table::TABLE};

    fn described() -> serde_json::Value {
        serde_json::from_slice(&json(&TABLE, None).expect("a document")).expect("JSON")
    }

    #[test]
    fn the_document_has_exactly_the_methods_of_every_route() {
        let document = described();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| {
                let operations = item.as_object().expect("an item").keys();
                operations.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        let known: BTreeSet<_> = TABLE
            .endpoints()
            .filter(|endpoint| endpoint.description.is_some())
            .map(|endpoint| format!("{} {}", endpoint.method, endpoint.path))
            .collect();
        assert_eq!(described, known);
    }

    #[test]
    fn references_resolve_and_operation_ids_are_unique() {
        let document = described();
        let mut names = BTreeSet::new();
        for item in document["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("an item").values() {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "duplicate operation id {name}");
                assert!(operation["summary"].is_string(), "{name} has no summary");
            }
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference} does not resolve");
        }
    }

    #[test]
    fn the_items_of_each_page_have_a_named_schema() {
        let document = described();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let pages: Vec<_> = schemas.iter().filter(|(name, _)| name.starts_with("Page_")).collect();
        assert_eq!(pages.len(), 5);
        for (name, page) in pages {
            let item = name.trim_start_matches("Page_");
            let expected = serde_json::json!({"$ref": format!("#/components/schemas/{item}")});
            assert_eq!(page["properties"]["items"]["items"], expected, "{name}");
        }
    }

    fn served(is_authenticated: bool, base: &str) -> serde_json::Value {
        let json = json(&TABLE, Some(Deployment { is_authenticated, base })).expect("a document");
        serde_json::from_slice(&json).expect("JSON")
    }

    #[test]
    fn the_document_matches_the_deployment() {
        let open = served(false, "");
        assert_eq!(open["servers"], serde_json::json!([{"url": "/"}]));
        assert!(open["components"].get("securitySchemes").is_none());
        let text = open.to_string();
        assert!(!text.contains("\"security\"") && !text.contains("Problem401"));

        let closed = served(true, "https://shop.example/api");
        assert_eq!(closed["servers"], serde_json::json!([{"url": "https://shop.example/api"}]));
        assert_eq!(closed["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
        let create = &closed["paths"]["/products"]["post"];
        assert_eq!(create["security"], serde_json::json!([{"bearer": ["products:write"]}]));
        assert!(create["responses"].get("401").is_some());
        assert!(closed["paths"]["/healthz"]["get"].get("security").is_none());
        let required =
            |document: &serde_json::Value| document["components"]["schemas"]["NewProduct"]["required"].clone();
        assert_eq!(required(&closed), serde_json::json!(["product_name", "product_price"]));
        assert_eq!(required(&open), serde_json::json!(["user_id", "product_name", "product_price"]));
    }

    #[test]
    fn schemas_have_exact_limits_and_formats() {
        let document = described();
        let schemas = &document["components"]["schemas"];
        for price in [&schemas["Price"], &schemas["NewProduct"]["properties"]["product_price"]] {
            assert_eq!(price["exclusiveMaximum"].to_string(), "1000000000000");
            assert!(price.get("maximum").is_none());
        }
        assert_eq!(schemas["NewProducts"]["oneOf"][0]["items"]["$ref"], "#/components/schemas/NewProduct");
        assert_eq!(schemas["NewUser"]["properties"]["email"]["format"], "email");
        let image = &document["paths"]["/images/{key}"]["get"]["responses"]["200"]["content"]["image/*"]["schema"];
        assert_eq!(*image, serde_json::json!({"type": "string", "format": "binary"}));
        for item in document["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("an item").values() {
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    assert!(parameter["schema"]["type"].as_array().is_none(), "{parameter} may be null");
                }
            }
        }
    }

    #[test]
    fn the_documentation_page_loads_only_embedded_files() {
        let page = page().expect("a page");
        let html = String::from_utf8(page.body().to_vec()).expect("UTF-8");
        for part in html.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
            let name = part.strip_prefix("/docs/").unwrap_or_else(|| panic!("{part} is not an embedded file"));
            assert_eq!(asset(name).expect("a file").status(), 200);
        }
        assert!(asset("../Cargo.toml").is_err());
    }

    #[test]
    fn the_pattern_of_a_search_matches_what_the_server_accepts() {
        let document = described();
        let parameters = document["paths"]["/products"]["get"]["parameters"].as_array().expect("parameters").clone();
        let search = parameters.into_iter().find(|parameter| parameter["name"] == "q").expect("a parameter");
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("urn:q", search["schema"].clone()).expect("a schema");
        let place = compiler.compile("urn:q", &mut schemas).expect("a schema");
        for (text, is_accepted) in [
            ("lamp", true),
            ("7", true),
            ("é", true),
            ("商品", true),
            ("²", true),
            ("🎁 lamp", true),
            ("🎁", false),
            ("—…", false),
            ("::", false),
            ("\u{301}", false),
        ] {
            assert_eq!(schemas.validate(&serde_json::json!(text), place).is_ok(), is_accepted, "{text}: pattern");
            assert_eq!(SearchTerms::parse(text).is_ok(), is_accepted, "{text}: server");
        }
    }
}
