//! What readers may see: the query strings of source addresses.

use serde_json::{Value, json};

use super::{send, with_issuer};
use crate::{
    api::wire,
    support::{
        Setup, TestApp,
        issuer::{Issuer, SigningKey},
    },
};

/// Declares a test with an issuer that runs on both set-ups.
macro_rules! with_issuer_on_both {
    ($(async fn $name:ident($app:ident: &TestApp, $issuer:ident: &Issuer, $key:ident: &SigningKey) $body:block)+) => {$(
        mod $name {
            use super::*;

            async fn test($app: &TestApp, $issuer: &Issuer, $key: &SigningKey) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                with_issuer(Setup::Embedded, test).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn full() {
                with_issuer(Setup::Full, test).await;
            }
        }
    )+};
}

const SECRET: &str = "X-Amz-Signature=s3cret";

async fn create(app: &TestApp, token: &str, images: &[String]) -> Value {
    let body = json!({"product_name": "Sample Product", "product_price": 1.5, "product_images": images});
    let answer = send(app, "POST", "/products", token, Some(&body)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()
}

with_issuer_on_both! {
    async fn others_see_source_addresses_without_their_query(app: &TestApp, issuer: &Issuer, key: &SigningKey) {
        let token = |subject: &str, scope: &str| key.token(&issuer.claims(subject, scope));
        let (alice, bob) = (token("alice", "products:read products:write"), token("bob", "products:read"));
        let address = format!("https://files.example/a.jpg?{SECRET}#part");
        let product = create(app, &alice, &[address.clone(), "https://files.example/b.jpg".into()]).await;
        assert_eq!(product["product_images"][0], address.as_str(), "its maker sees it");
        let path = format!("/products/{}", product["id"]);
        let get = async |token: &str| send(app, "GET", &path, token, None).await;
        // Each reader comes first once, and once to a cached body.
        for order in [[&bob, &alice], [&alice, &bob], [&bob, &alice]] {
            for reader in order {
                let answer = get(reader).await;
                assert_eq!(answer.status, 200);
                let whole = std::ptr::eq(reader, &alice);
                assert_eq!(answer.text().contains(SECRET), whole, "{}", answer.text());
                let shown = answer.json();
                let expected = if whole { address.as_str() } else { "https://files.example/a.jpg" };
                assert_eq!((&shown["product_images"][0], &shown["images"][0]["source_url"]), (&json!(expected), &json!(expected)));
                let mut rest = shown.clone();
                rest["product_images"] = product["product_images"].clone();
                rest["images"][0]["source_url"] = product["images"][0]["source_url"].clone();
                assert_eq!(rest, product, "nothing else differs");
            }
        }
        let (own, other) = (get(&alice).await, get(&bob).await);
        assert_ne!(own.header("etag"), other.header("etag"));
        for (reader, tag, status) in [(&bob, &other, 304), (&bob, &own, 200), (&alice, &own, 304), (&alice, &other, 200)] {
            let authorization = format!("Bearer {reader}");
            let headers = [("Authorization", authorization.as_str()), ("If-None-Match", tag.header("etag"))];
            assert_eq!(wire::get_with(app, &path, &headers).await.status, status);
        }
        let root = token("root", "admin");
        assert_eq!(get(&root).await.body, own.body);
        for (reader, sees) in [(&bob, false), (&alice, true), (&root, true)] {
            let list = send(app, "GET", "/products?user_id=alice", reader, None).await;
            assert_eq!((list.status, list.text().contains(SECRET)), (200, sees), "{}", list.text());
            assert_eq!(list.json()["items"][0], get(reader).await.json());
        }
        let patched = send(app, "PATCH", &path, &alice, Some(&json!({"product_images": product["product_images"]}))).await;
        assert_eq!(patched.json(), product, "what its user reads is what its user writes");
    }
}
