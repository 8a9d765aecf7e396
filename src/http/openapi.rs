//! The description of the API, made from the handlers' own annotations: `/openapi.json`, `/docs` and `pm openapi`.
//! What every operation has in common, the problems it may answer with and the header of the request's id, is added to
//! each of them here; it is never written out by hand.

mod common;
mod deployment;

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;
use warp::{Filter, filters::BoxedFilter, path::Tail};

use super::{
    etag, events, extract, originals, pictures,
    problem::{self, Problem},
    product_images, products, queue,
    reply::{self, Ready},
    resource_metadata, status, users, webhooks,
};
pub use deployment::Deployment;

use crate::domain::EventKind;

/// Everything that stands in the description besides what its operations refer to by themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "pm",
        description = "A product catalogue with asynchronous image processing. A product is stored at once; its pictures are \
                       downloaded, checked, compressed and resized in the background. A query's parameter without a value \
                       is the same as none.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "products", description = "The catalogue"),
        (name = "events", description = "What happens to products, while it happens"),
        (name = "users", description = "Whoever owns products"),
        (name = "pictures", description = "Stored pictures and their forms"),
        (name = "webhooks", description = "Addresses that are told of events, by the Standard Webhooks scheme"),
        (name = "queue", description = "Work that waits, and work that failed for good"),
        (name = "server", description = "How the server is"),
    ),
    paths(
        products::create, products::list, products::show, products::update, products::delete, products::create_batch,
        product_images::add, product_images::remove, product_images::reprocess,
        events::all_events, events::product_events,
        users::create, users::list, users::show,
        super::images::show, pictures::preset, pictures::resize, originals::show,
        webhooks::create, webhooks::list, webhooks::show, webhooks::delete, webhooks::enable,
        webhooks::deliveries, webhooks::retry,
        queue::status, queue::list, queue::show, queue::retry,
        status::alive, status::ready, status::metrics, status::version, status::index, resource_metadata::show,
        description,
    ),
    components(schemas(problem::ProblemBody, EventKind)),
    modifiers(&COMMON),
)]
struct Description;

const COMMON: common::Common = common::Common;

static JSON: LazyLock<Result<Bytes, String>> = LazyLock::new(|| {
    let text = Description::openapi().to_json().map_err(|error| error.to_string())?;
    Ok(text.into())
});

/// The description of a running server, with its entity tag.
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

/// The description as JSON, OpenAPI 3.1, of a server with authentication or without.
///
/// # Errors
/// If it cannot be written as JSON, which would be a mistake in this program.
pub fn json() -> Result<Bytes, String> {
    JSON.clone()
}

/// The routes of the description of a server that is run like this, and of the page that shows it.
pub fn routes(deployment: Deployment<'_>) -> BoxedFilter<(warp::reply::Response,)> {
    let mut document = Description::openapi();
    deployment.describe(&mut document);
    let document = document.to_json().map(Bytes::from).map_err(|error| error.to_string());
    let json = warp::path!("openapi.json").and(warp::get()).and(extract::with(&Document::new(document)));
    let json = json.then(description);
    let page = warp::path!("docs").and(warp::get()).then(async || page());
    let files = warp::path("docs").and(warp::path::tail()).and(warp::get()).then(file);
    extract::boxed(json).or(extract::boxed(page)).unify().or(extract::boxed(files)).unify().boxed()
}

/// The description of this server.
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", operation_id = "describe",
    responses((status = 200, description = "OpenAPI 3.1", body = std::collections::HashMap<String, serde_json::Value>)),
)]
async fn description(document: Document) -> Result<Ready, Problem> {
    let mut response = Response::new(document.json.map_err(Problem::internal)?);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply::tagged(response, document.tag)
}

/// The page's own address ends without a slash, so its files are named from the root.
fn page() -> Result<Ready, Problem> {
    let mut response = asset("index.html")?;
    let html =
        String::from_utf8_lossy(response.body()).replace("./", "/docs/").replace("\"index.css", "\"/docs/index.css");
    *response.body_mut() = html.into();
    Ok(response)
}

async fn file(name: Tail) -> Result<Ready, Problem> {
    asset(name.as_str())
}

/// A file of Swagger UI, which is part of the program: the page asks nobody else for anything.
fn asset(name: &str) -> Result<Ready, Problem> {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                          connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let config = Arc::new(Config::from("/openapi.json"));
    let found = utoipa_swagger_ui::serve(name, config).map_err(|error| Problem::internal(error.to_string()))?;
    let found = found.ok_or_else(|| Problem::not_found("there is no such file of the documentation"))?;
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
    use crate::http::route::Route;

    fn described() -> serde_json::Value {
        serde_json::from_slice(&json().expect("a description")).expect("JSON")
    }

    #[test]
    fn every_route_is_described_with_exactly_its_methods() {
        let document = described();
        let paths = document["paths"].as_object().expect("paths");
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| {
                let operations = item.as_object().expect("an item").keys();
                operations.map(move |verb| format!("{} {path}", verb.to_uppercase()))
            })
            .collect();
        let known: BTreeSet<_> = Route::all()
            .filter(|route| !matches!(route, Route::Docs | Route::DocsFile))
            .flat_map(|route| {
                let verbs = route.allow().split(", ").filter(|verb| !matches!(*verb, "HEAD" | "OPTIONS"));
                verbs.map(move |verb| format!("{verb} {}", route.template()))
            })
            .collect();
        assert_eq!(described, known);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        let document = described();
        let mut names = BTreeSet::new();
        for item in document["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("an item").values() {
                let name = operation["operationId"].as_str().expect("a name");
                assert!(names.insert(name.to_owned()), "{name} stands twice");
                assert!(operation["summary"].is_string(), "{name} has no summary");
            }
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
        }
    }

    fn served(is_authenticated: bool, base: &str) -> serde_json::Value {
        let mut document = Description::openapi();
        Deployment { is_authenticated, base }.describe(&mut document);
        serde_json::to_value(&document).expect("JSON")
    }

    #[test]
    fn a_server_is_described_as_it_is_run() {
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
    fn values_are_described_exactly() {
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
    fn the_page_asks_nobody_else_for_anything() {
        let page = page().expect("a page");
        let html = String::from_utf8(page.body().to_vec()).expect("UTF-8");
        for part in html.split(['"', '\'']).filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
            let name = part.strip_prefix("/docs/").unwrap_or_else(|| panic!("{part} is not one of ours"));
            assert_eq!(asset(name).expect("a file").status(), 200);
        }
        assert!(asset("../Cargo.toml").is_err());
    }
}
