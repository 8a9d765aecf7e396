//! `/.well-known/oauth-protected-resource`: names the issuer whose access tokens the server accepts, and the scopes.
//!
//! The challenge of a 401 response links to it (RFC 9728).

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::Filter;

use crate::{
    api::Links,
    auth::Issuer,
    catalog::Catalog,
    domain::Scope,
    http::{
        endpoint::{Endpoint, Permission, catalog, plain_handler},
        problem::{Problem, ProblemBody},
        reply::{self, Ready},
        request::{extract, principal::Authentication},
    },
};

/// The path of the document.
pub const PATH: &str = "/.well-known/oauth-protected-resource";

/// Metadata that clients need to get an access token.
#[derive(Serialize, ToSchema)]
#[schema(as = ProtectedResourceMetadata)]
pub struct MetadataBody<'a> {
    /// The identifier of this service.
    resource: &'a str,
    /// The issuers whose tokens are accepted.
    authorization_servers: [&'a str; 1],
    /// The scopes of this service.
    scopes_supported: [&'static str; Scope::ALL.len()],
    /// The ways to send a token.
    bearer_methods_supported: [&'static str; 1],
}

/// Returns the endpoint of the document.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new::<__path_show>(Permission::Nothing, |services| {
        plain_handler(catalog(services).and(extract::with(services.authentication)).then(show))
    })]
}

/// Returns the issuer whose access tokens are accepted, and the scopes (RFC 9728).
#[utoipa::path(
    get, path = "/.well-known/oauth-protected-resource", tag = "server", operation_id = "getProtectedResourceMetadata",
    responses(
        (status = 200, description = "The metadata", body = MetadataBody),
        (status = 404, description = "The server accepts no access tokens, or has no identifier", body = ProblemBody, content_type = "application/problem+json"),
    ),
)]
pub async fn show(catalog: Catalog, authentication: Authentication) -> Result<Ready, Problem> {
    let Authentication::On(Some(issuer)) = &authentication else {
        return Err(Problem::not_found("the server accepts no access tokens: no issuer is configured"));
    };
    let Some(resource) = identifier(catalog.links(), issuer) else {
        return Err(Problem::not_found(
            "the server has no identifier: neither its public URL nor its audience is an https URL",
        ));
    };
    let body = MetadataBody {
        resource,
        authorization_servers: [issuer.identifier()],
        scopes_supported: Scope::ALL.map(Scope::as_str),
        bearer_methods_supported: ["header"],
    };
    reply::json(StatusCode::OK, &body)
}

fn identifier<'a>(links: &'a Links, issuer: &'a Issuer) -> Option<&'a str> {
    links.public_url().or_else(|| issuer.audience().filter(|audience| audience.starts_with("https://")))
}
