//! What the description of a running server says beyond that of the program: where it is, and whom it lets in.

use utoipa::openapi::{OpenApi, RefOr, Schema, SecurityRequirement, Server, path::Operation};

use super::common::operations;

/// How a server is run.
#[derive(Clone, Copy, Debug)]
pub struct Deployment<'a> {
    /// Whether clients prove who they are.
    pub is_authenticated: bool,
    /// What stands before every path; empty if nothing does.
    pub base: &'a str,
}

impl Deployment<'_> {
    /// Says it in the description of the program, which leaves it open.
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
            // A product that does not say whose it is belongs to the caller.
            product.required.retain(|field| field != "user_id");
        }
    }
}

/// Nobody comes in without a token or a key.
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
