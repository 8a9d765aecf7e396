//! Authentication and authorization: access tokens, API keys, scopes and ownership.

mod issuers;
mod keys;
mod scopes;
mod tokens;
mod visibility;

use serde_json::Value;

use crate::{
    api::wire::{self, Answer},
    support::{
        Setup, TestApp, app,
        issuer::{AUDIENCE, Issuer, SigningKey},
    },
};

/// Runs `test` on a program that accepts a new issuer with one key.
async fn with_issuer(setup: Setup, test: impl AsyncFnOnce(&TestApp, &Issuer, &SigningKey)) {
    with_issuer_and(setup, &[], test).await;
}

/// As [`with_issuer`], with more settings.
async fn with_issuer_and(
    setup: Setup,
    settings: &[(&str, &str)],
    test: impl AsyncFnOnce(&TestApp, &Issuer, &SigningKey),
) {
    let key = SigningKey::p256("first");
    let issuer = Issuer::start(&[&key]).await;
    let url = issuer.url();
    let settings = [&[("PM_AUTH_ISSUER", url.as_str()), ("PM_AUTH_AUDIENCE", AUDIENCE)], settings].concat();
    app::run_with(setup, &settings, async |app| test(app, &issuer, &key).await).await;
}

/// Sends a request with `Authorization: Bearer` and an optional JSON body.
async fn send(app: &TestApp, method: &str, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("Authorization", authorization.as_str())];
    if body.is_some() {
        headers.push(("Content-Type", "application/json"));
    }
    let body = body.map(ToString::to_string).unwrap_or_default();
    wire::send(app.address, method, path, &headers, body.as_bytes()).await
}
