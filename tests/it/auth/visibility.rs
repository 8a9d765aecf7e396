//! What readers see: originals, images by id, and the query strings of source URLs.

use serde_json::{Value, json};

use super::{send, with_issuer, with_issuer_and};
use crate::{
    api::wire::{self, Answer},
    support::{
        Origin, Setup, TestApp, images,
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

async fn upload(app: &TestApp, token: &str, id: &Value, file: &[u8]) -> Answer {
    let mut body = b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.jpg\"\r\n\r\n".to_vec();
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--b--\r\n");
    let authorization = format!("Bearer {token}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "multipart/form-data; boundary=b")];
    wire::send(app.address, "POST", &format!("/products/{id}/images"), &headers, &body).await
}

with_issuer_on_both! {
    async fn an_original_is_readable_by_its_user_and_administrators(app: &TestApp, issuer: &Issuer, key: &SigningKey) {
        let token = |subject: &str, scope: &str| key.token(&issuer.claims(subject, scope));
        let alice = token("alice", "products:read products:write");
        let file = images::jpeg_with_place(300, 200);
        let id = create(app, &alice, &[]).await["id"].clone();
        assert_eq!(upload(app, &alice, &id, &file).await.status, 202);
        app.drain().await;
        let bob = token("bob", "products:read products:write");
        let seen = send(app, "GET", &format!("/products/{id}"), &bob, None).await.json();
        let link = seen["product_images"][0].as_str().unwrap();
        assert!(link.ends_with("/original"), "{seen}");
        for (reader, status) in [
            (&alice, 200),
            (&token("root", "admin"), 200),
            (&bob, 403),
            (&token("alice", "products:write"), 403),
            (&token("alice", "products:read"), 200),
        ] {
            let answer = send(app, "GET", link, reader, None).await;
            assert_eq!((answer.status, answer.body == file), (status, status == 200), "{}", answer.text());
        }
        let anonymous = wire::get(app, link).await;
        assert_eq!((anonymous.status, anonymous.header("www-authenticate")), (401, "Bearer realm=\"pm\""));
        assert_eq!(send(app, "GET", "/products/99999/images/1/original", &bob, None).await.status, 404);
        let rendition = seen["compressed_product_images"][0].as_str().unwrap();
        let public = wire::get(app, rendition).await;
        assert_eq!((public.status, images::tells_the_place(&public.body)), (200, false), "its key cannot be guessed");
    }

    async fn image_ids_are_not_enumerable_without_a_token(app: &TestApp, issuer: &Issuer, key: &SigningKey) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(300, 200));
        let alice = key.token(&issuer.claims("alice", "products:read products:write"));
        let product = create(app, &alice, &[origin.url("/a.jpg")]).await;
        app.drain().await;
        let path = format!("/products/{}/images/{}/small", product["id"], product["images"][0]["id"]);
        for path in [path.as_str(), "/products/1/images/1/small", "/products/99999/images/1/small"] {
            assert_eq!(wire::get(app, path).await.status, 401, "{path}: the responses do not differ");
        }
        let answer = send(app, "GET", &path, &alice, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("cache-control").starts_with("private"), "{}", answer.header("cache-control"));
        let writer = key.token(&issuer.claims("alice", "products:write"));
        assert_eq!(send(app, "GET", &path, &writer, None).await.status, 403);
    }

    async fn others_see_source_addresses_without_their_query(app: &TestApp, issuer: &Issuer, key: &SigningKey) {
        let token = |subject: &str, scope: &str| key.token(&issuer.claims(subject, scope));
        let (alice, bob) = (token("alice", "products:read products:write"), token("bob", "products:read"));
        let address = format!("https://files.example/a.jpg?{SECRET}#part");
        let product = create(app, &alice, &[address.clone(), "https://files.example/b.jpg".into()]).await;
        assert_eq!(product["product_images"][0], address.as_str(), "its maker sees it");
        let path = format!("/products/{}", product["id"]);
        let get = async |token: &str| send(app, "GET", &path, token, None).await;
        // Each reader gets the product once uncached and once cached.
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
        assert_eq!(patched.json(), product, "its user reads the URL that its user wrote");
    }
}

async fn bodies_vary_by_authorization(app: &TestApp, path: &str, owner: &str) {
    let varies = |answer: &Answer| {
        let lines = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
        lines.flat_map(|(_, value)| value.split(',')).any(|name| name.trim() == "Authorization")
    };
    for varying in [path, "/products", "/products?q=sample", "/users/alice"] {
        assert!(varies(&wire::get(app, varying).await), "{varying} without a token");
        let own = send(app, "GET", varying, owner, None).await;
        assert!(varies(&own), "{varying} with a token");
        let authorization = format!("Bearer {owner}");
        let headers = [("Authorization", authorization.as_str()), ("If-None-Match", own.header("etag"))];
        let unchanged = wire::get_with(app, varying, &headers).await;
        assert_eq!((unchanged.status, varies(&unchanged)), (304, true), "{varying}");
    }
    for same in ["/healthz", "/version", "/openapi.json", "/images/unknown"] {
        assert!(!varies(&wire::get(app, same).await), "{same}");
    }
    // The tag of the public view proves nothing about the owner's view.
    let public = wire::get(app, path).await;
    let authorization = format!("Bearer {owner}");
    let mut headers = vec![("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    headers.push(("If-Match", public.header("etag")));
    let refused = wire::send(app.address, "PATCH", path, &headers, br#"{"product_name": "Other"}"#).await;
    assert_eq!(refused.status, 412, "{}", refused.text());
    assert!(refused.text().contains("the same credentials"), "{}", refused.text());
}

async fn public_products_are_readable_without_a_token(app: &TestApp, issuer: &Issuer, key: &SigningKey) {
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(300, 200));
    let token = |scope: &str| key.token(&issuer.claims("alice", scope));
    let alice = token("products:read products:write");
    let address = format!("{}?{SECRET}", origin.url("/a.jpg"));
    let product = create(app, &alice, std::slice::from_ref(&address)).await;
    assert_eq!(upload(app, &alice, &product["id"], &images::jpeg_with_place(300, 200)).await.status, 202);
    app.drain().await;
    let path = format!("/products/{}", product["id"]);
    for _ in 0..2 {
        let seen = wire::get(app, &path).await;
        assert_eq!((seen.status, seen.text().contains(SECRET)), (200, false), "{}", seen.text());
        assert!(send(app, "GET", &path, &alice, None).await.text().contains(SECRET), "its user is known by the token");
    }
    for list in ["/products", "/products?q=sample"] {
        let seen = wire::get(app, list).await;
        assert_eq!((seen.status, seen.text().contains(SECRET)), (200, false), "{list}");
    }
    assert_eq!(send(app, "GET", &path, &token("products:write"), None).await.status, 200, "no less than without one");
    bodies_vary_by_authorization(app, &path, &alice).await;
    assert_eq!(send(app, "GET", &path, "abc", None).await.status, 401, "a token that is none");
    let image = &product["images"][0]["id"];
    let preset = wire::get(app, &format!("{path}/images/{image}/small")).await;
    assert_eq!(preset.status, 200, "{}", preset.text());
    assert!(preset.header("cache-control").starts_with("public"), "{}", preset.header("cache-control"));
    let uploaded = wire::get(app, &path).await.json()["product_images"][1].as_str().unwrap().to_owned();
    for closed in ["/users", "/users/alice", "/events", "/queue", uploaded.as_str()] {
        assert_eq!(wire::get(app, closed).await.status, 401, "{closed}");
    }
    assert_eq!(wire::send(app.address, "DELETE", &path, &[], b"").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_products_are_readable_without_a_token_embedded() {
    with_issuer_and(
        Setup::Embedded,
        &[("PM_PUBLIC_READ", "products,images")],
        public_products_are_readable_without_a_token,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_products_are_readable_without_a_token_full() {
    with_issuer_and(
        Setup::Full,
        &[("PM_PUBLIC_READ", "products,images")],
        public_products_are_readable_without_a_token,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn public_images_do_not_make_products_public() {
    with_issuer_and(Setup::Embedded, &[("PM_PUBLIC_READ", "images")], async |app, issuer, key| {
        let alice = key.token(&issuer.claims("alice", "products:read products:write"));
        let product = create(app, &alice, &["https://files.example/a.jpg".into()]).await;
        let path = format!("/products/{}", product["id"]);
        assert_eq!(wire::get(app, &path).await.status, 401);
        assert_eq!(wire::get(app, "/products").await.status, 401);
        let preset = format!("{path}/images/{}/small", product["images"][0]["id"]);
        assert_eq!(wire::get(app, &preset).await.status, 503, "the public response says that it is not ready");
    })
    .await;
}
