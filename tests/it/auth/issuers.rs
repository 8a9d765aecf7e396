//! Access tokens of common identity providers, each with its own claims for permissions.

use serde_json::{Value, json};

use super::send;
use crate::{
    api::wire,
    support::{
        Setup, TestApp, app,
        issuer::{AUDIENCE, Issuer, SigningKey, now},
    },
};

/// Runs `test` on a program with these settings in addition to `PM_AUTH_ISSUER`.
async fn with_settings(settings: &[(&str, &str)], test: impl AsyncFnOnce(&TestApp, &Issuer, &SigningKey)) {
    let key = SigningKey::p256("first");
    let issuer = Issuer::start(&[&key]).await;
    let url = issuer.url();
    let mut all = vec![("PM_AUTH_ISSUER", url.as_str()), ("PM_AUTH_TOKEN_TYPE", "any")];
    all.extend_from_slice(settings);
    app::run_with(Setup::Embedded, &all, async |app| test(app, &issuer, &key).await).await;
}

/// Returns a token with these claims, whose header has no access-token type.
fn token(issuer: &Issuer, key: &SigningKey, mut claims: Value) -> String {
    claims["iss"] = json!(issuer.url());
    claims["iat"] = json!(now());
    claims["exp"] = json!(now() + 600);
    let mut header = key.header();
    header["typ"] = json!("JWT");
    key.token_with(&header, &claims)
}

/// Returns the statuses of reading products, and of creating one for `user`.
async fn read_and_write(app: &TestApp, token: &str, user: &str) -> (u16, u16) {
    let product = json!({"user_id": user, "product_name": "n", "product_price": 1});
    let read = send(app, "GET", "/products", token, None).await.status;
    (read, send(app, "POST", "/products", token, Some(&product)).await.status)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_of_a_keycloak_client_are_scopes() {
    let settings = [
        ("PM_AUTH_AUDIENCE", "pm"),
        ("PM_AUTH_SCOPE_CLAIM", "resource_access.pm.roles"),
        ("PM_AUTH_USER_CLAIM", "preferred_username"),
    ];
    with_settings(&settings, async |app, issuer, key| {
        let claims = |roles: &[&str]| {
            json!({
                "typ": "Bearer", "azp": "shop", "aud": ["pm", "account"], "sub": "f4a3c1de", "preferred_username": "seller",
                "scope": "openid products:read products:write", "resource_access": {"pm": {"roles": roles}},
            })
        };
        let writer = token(issuer, key, claims(&["products:read", "products:write"]));
        assert_eq!(read_and_write(app, &writer, "seller").await, (200, 201));
        assert_eq!(read_and_write(app, &writer, "another").await, (200, 403));
        let reader = token(issuer, key, claims(&["products:read"]));
        assert_eq!(read_and_write(app, &reader, "seller").await, (200, 403));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cognito_client_id_replaces_the_audience() {
    let settings = [("PM_AUTH_CLIENT_ID", "7abc, 8def"), ("PM_AUTH_SCOPE_PREFIX", "pm/")];
    with_settings(&settings, async |app, issuer, key| {
        let claims = |client: &str, purpose: &str| {
            json!({
                "token_use": purpose, "client_id": client, "sub": "seller", "version": 2,
                "scope": "pm/products:read pm/products:write openid",
            })
        };
        for client in ["7abc", "8def"] {
            let token = token(issuer, key, claims(client, "access"));
            assert_eq!(read_and_write(app, &token, "seller").await, (200, 201), "{client}");
        }
        let refused = [claims("9", "access"), claims("7abc", "id")];
        for claims in refused {
            assert_eq!(
                read_and_write(app, &token(issuer, key, claims.clone()), "seller").await,
                (401, 401),
                "{claims}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_without_scopes_get_the_default_scopes() {
    let settings = [
        ("PM_AUTH_AUDIENCE", AUDIENCE),
        ("PM_AUTH_USER_CLAIM", "email"),
        ("PM_AUTH_DEFAULT_SCOPES", "products:read,products:write"),
    ];
    with_settings(&settings, async |app, issuer, key| {
        let mail = "seller@shop.example";
        let claims =
            |verified: bool| json!({"aud": AUDIENCE, "sub": "1076", "email": mail, "email_verified": verified});
        assert_eq!(read_and_write(app, &token(issuer, key, claims(true)), mail).await, (200, 201));
        assert_eq!(read_and_write(app, &token(issuer, key, claims(false)), mail).await, (401, 401));
        let mut none = claims(true);
        none["scope"] = json!("");
        assert_eq!(read_and_write(app, &token(issuer, key, none), mail).await, (403, 403));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protected_resource_metadata_names_the_issuer() {
    let settings = [("PM_AUTH_AUDIENCE", AUDIENCE), ("PM_PUBLIC_URL", "https://shop.example")];
    with_settings(&settings, async |app, issuer, _| {
        let path = "/.well-known/oauth-protected-resource";
        let metadata = wire::get(app, path).await;
        assert_eq!(metadata.status, 200, "{}", metadata.text());
        let expected = json!({
            "resource": "https://shop.example", "authorization_servers": [issuer.url()],
            "scopes_supported": ["products:read", "products:write", "admin"], "bearer_methods_supported": ["header"],
        });
        assert_eq!(metadata.json(), expected);
        let address = format!("resource_metadata=\"https://shop.example{path}\"");
        let refused = wire::get(app, "/products").await;
        assert_eq!(refused.header("www-authenticate"), format!("Bearer realm=\"pm\", {address}"));
        let wrong = send(app, "GET", "/products", "abc", None).await;
        assert!(wrong.header("www-authenticate").ends_with(&address), "{}", wrong.header("www-authenticate"));
    })
    .await;
    app::run(Setup::Embedded, async |app| {
        let answer = wire::get(app, "/.well-known/oauth-protected-resource").await;
        assert_eq!(answer.status, 404, "without an issuer there is nothing to find");
    })
    .await;
}
