//! Adapts the OpenAPI document to a running server: its URL and its authentication.

use utoipa::openapi::{OpenApi, RefOr, Schema, SecurityRequirement, Server, path::Operation};

use super::common::operations;

/// The settings of a running server that change the document.
#[derive(Clone, Copy, Debug)]
pub struct Deployment<'a> {
    /// Whether authentication is on.
    pub is_authenticated: bool,
    /// The URL that precedes every path; may be empty.
    pub base: &'a str,
}

impl Deployment<'_> {
    /// Adapts `openapi`, which covers servers with and without authentication.
    pub(super) fn describe(self, openapi: &mut OpenApi) {
        let url = if self.base.is_empty() { "/" } else { self.base };
        openapi.servers = Some(vec![Server::new(url)]);
        for item in openapi.paths.paths.values_mut() {
            for (_, operation) in operations(item) {
                if self.is_authenticated { require(operation) } else { open(operation) }
            }
        }
        let Some(components) = &mut openapi.components else { return };
        if !self.is_authenticated {
            components.security_schemes.clear();
            components.responses.remove("Problem401");
        } else if let Some(RefOr::T(Schema::Object(product))) = components.schemas.get_mut("NewProduct") {
            // A product without `user_id` belongs to the authenticated user.
            product.required.retain(|field| field != "user_id");
        }
    }
}

/// Removes the alternative without a token or key.
fn require(operation: &mut Operation) {
    if let Some(alternatives) = &mut operation.security {
        alternatives.retain(|alternative| *alternative != SecurityRequirement::default());
    }
}

fn open(operation: &mut Operation) {
    if operation.security.take().is_some() {
        operation.responses.responses.remove("401");
    }
}
