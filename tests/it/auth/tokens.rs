//! Validation of access tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{send, with_issuer};
use crate::{
    api::wire,
    support::{
        Setup,
        issuer::{Issuer, SigningKey, hmac_token, now, unsigned_token},
    },
};

/// Returns valid claims with `name` set to `value`, or without `name` if `value` is null.
fn changed(issuer: &Issuer, name: &str, value: Value) -> Value {
    let mut claims = issuer.claims("seller", "products:read");
    match value {
        Value::Null => claims.as_object_mut().unwrap().remove(name),
        value => claims.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    claims
}

/// Returns a valid header with `name` set to `value`, or without `name` if `value` is null.
fn header(key: &SigningKey, name: &str, value: Value) -> Value {
    let mut header = key.header();
    match value {
        Value::Null => header.as_object_mut().unwrap().remove(name),
        value => header.as_object_mut().unwrap().insert(name.to_owned(), value),
    };
    header
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_valid_tokens_are_accepted() {
    with_issuer(Setup::Embedded, async |app, issuer, key| {
        let right = issuer.claims("seller", "products:read");
        let accepted = [
            ("as it should be", key.token(&right)),
            (
                "an audience among others",
                key.token(&changed(issuer, "aud", json!(["https://other.example", "https://shop.example"]))),
            ),
            ("typ in full", key.token_with(&header(key, "typ", json!("application/AT+JWT")), &right)),
            ("expired within the leeway", key.token(&changed(issuer, "exp", json!(now() - 10)))),
            ("no key named", key.token_with(&header(key, "kid", Value::Null), &right)),
        ];
        for (what, token) in accepted {
            let answer = send(app, "GET", "/products", &token, None).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        }
        let stranger = SigningKey::p256("first");
        let other_kind = SigningKey::ed25519("first");
        let tampered = {
            let token = key.token(&right);
            let parts: Vec<_> = token.split('.').collect();
            let other = key.token(&issuer.claims("somebody", "admin"));
            format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2])
        };
        let refused = [
            ("expired", key.token(&changed(issuer, "exp", json!(now() - 60)))),
            ("no exp", key.token(&changed(issuer, "exp", Value::Null))),
            ("exp is a text", key.token(&changed(issuer, "exp", json!("never")))),
            ("not valid yet", key.token(&changed(issuer, "nbf", json!(now() + 120)))),
            ("issued in the future", key.token(&changed(issuer, "iat", json!(now() + 120)))),
            ("another audience", key.token(&changed(issuer, "aud", json!("https://other.example")))),
            ("no audience", key.token(&changed(issuer, "aud", Value::Null))),
            ("another issuer", key.token(&changed(issuer, "iss", json!("https://evil.example")))),
            ("no subject", key.token(&changed(issuer, "sub", Value::Null))),
            ("a subject of 65 characters", key.token(&changed(issuer, "sub", json!("x".repeat(65))))),
            ("alg none", unsigned_token(&header(key, "alg", json!("none")), &right)),
            ("HS256 with the public key", hmac_token(key.public_bytes(), &header(key, "alg", json!("HS256")), &right)),
            ("typ JWT", key.token_with(&header(key, "typ", json!("JWT")), &right)),
            ("no typ", key.token_with(&header(key, "typ", Value::Null), &right)),
            ("crit", key.token_with(&header(key, "crit", json!(["exp"])), &right)),
            ("an unknown key", key.token_with(&header(key, "kid", json!("another")), &right)),
            ("an algorithm that the key is not made for", key.token_with(&header(key, "alg", json!("ES384")), &right)),
            ("another's key of that name", stranger.token(&right)),
            ("another kind of key", other_kind.token(&right)),
            ("another's key, brought along", stranger.token_with(&header(&stranger, "jwk", stranger.jwk()), &right)),
            ("other claims under the signature", tampered),
            ("too long", format!("{}{}", key.token(&right), "A".repeat(9_000))),
            ("no token at all", "abc".to_owned()),
            ("four parts", format!("{}.e30", key.token(&right))),
        ];
        for (what, token) in refused {
            let answer = send(app, "GET", "/products", &token, None).await;
            assert_eq!(answer.status, 401, "{what}: {}", answer.text());
            assert_eq!(answer.json()["code"], "invalid_token", "{what}");
            assert!(answer.header("www-authenticate").contains("error=\"invalid_token\""), "{what}");
        }
        assert_eq!(issuer.fetches(), 1, "the keys are asked for once, whatever arrives");
        let nothing = wire::get(app, "/products").await;
        assert_eq!((nothing.status, nothing.header("www-authenticate")), (401, "Bearer realm=\"pm\""));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signing_keys_rotate_without_downtime_and_outlive_the_issuer() {
    let (old, new) = (SigningKey::p256("old"), SigningKey::ed25519("new"));
    let issuer = Issuer::start(&[&old]).await;
    let config = pm::auth::Config {
        pause: std::time::Duration::ZERO,
        ..pm::auth::Config::new(issuer.url(), crate::support::issuer::AUDIENCE)
    };
    let verifier = pm::auth::Issuer::new(config).unwrap();
    let claims = issuer.claims("seller", "admin");
    assert_eq!(verifier.verify(&old.token(&claims)).await.unwrap().user_id.as_str(), "seller");
    issuer.publish(&[&new]);
    assert_eq!(verifier.verify(&new.token(&claims)).await.unwrap().user_id.as_str(), "seller");
    let fresh = issuer.claims("another", "admin");
    assert!(verifier.verify(&old.token(&fresh)).await.is_err(), "a key that is no longer published");
    issuer.set_down(true);
    assert!(verifier.verify(&new.token(&fresh)).await.is_ok(), "a key that was known before");
    let never_seen =
        pm::auth::Issuer::new(pm::auth::Config::new(issuer.url(), crate::support::issuer::AUDIENCE)).unwrap();
    assert!(never_seen.verify(&new.token(&fresh)).await.unwrap_err().is_transient());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_signing_keys_the_response_is_503_and_not_401() {
    with_issuer(Setup::Embedded, async |app, issuer, key| {
        issuer.set_down(true);
        let token = key.token(&issuer.claims("seller", "products:read"));
        let answer = send(app, "GET", "/products", &token, None).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
        assert_eq!(wire::get(app, "/healthz").await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_rsa_key_under_2048_bits_is_refused() {
    for (bytes, reason) in [(128, "a key that the issuer does not publish"), (256, "invalid signature")] {
        let issuer = Issuer::start(&[]).await;
        let modulus = URL_SAFE_NO_PAD.encode(vec![0xab; bytes]);
        issuer.publish_raw(vec![json!({"kty": "RSA", "use": "sig", "kid": "rsa", "n": modulus, "e": "AQAB"})]);
        let config = pm::auth::Config::new(issuer.url(), crate::support::issuer::AUDIENCE);
        let verifier = pm::auth::Issuer::new(config).unwrap();
        let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "rsa"});
        let token = unsigned_token(&header, &issuer.claims("seller", "admin"));
        let signed = format!("{token}{}", URL_SAFE_NO_PAD.encode(vec![1; bytes]));
        let refused = verifier.verify(&signed).await.expect_err("a token with a forged signature").to_string();
        assert!(refused.contains(reason), "{} bits: {refused}", bytes * 8);
    }
}
