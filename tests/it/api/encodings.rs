//! Response bodies: compressed if the client accepts it, and not sent to a client that already has them.

use std::io::Read as _;

use super::wire;
use crate::support::on_both_setups;

fn decode_gzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn decode_brotli(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    brotli::Decompressor::new(bytes, 4_096).read_to_end(&mut plain).unwrap();
    plain
}

on_both_setups! {
    async fn a_cached_product_is_sent_in_the_clients_preferred_coding(app: &TestApp) {
        let images: Vec<_> = (0..20).map(|number| format!("https://shop.example/images/{number}.jpg")).collect();
        let id = app.create(&images).await["id"].clone();
        let path = format!("/products/{id}");
        let plain = wire::get(app, &path).await;
        assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
        for coding in ["gzip", "br"] {
            let packed = wire::get_with(app, &path, &[("Accept-Encoding", coding)]).await;
            assert_eq!((packed.status, packed.header("content-encoding")), (200, coding));
            assert_eq!(packed.header("content-length"), packed.body.len().to_string());
            assert!(packed.body.len() * 3 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
            let unpacked = if coding == "br" { decode_brotli(&packed.body) } else { decode_gzip(&packed.body) };
            assert_eq!(unpacked, plain.body);
            let tag = packed.header("etag").to_owned();
            assert_ne!(tag, plain.header("etag"), "other bytes have another tag");
            let again = wire::get_with(app, &path, &[("Accept-Encoding", coding), ("If-None-Match", &tag)]).await;
            assert_eq!((again.status, again.body.len()), (304, 0));
        }
    }

    async fn an_unchanged_list_returns_304(app: &TestApp) {
        app.create(&[]).await;
        for path in ["/products", "/users", "/users/seller", "/openapi.json"] {
            let first = wire::get(app, path).await;
            let tag = first.header("etag").to_owned();
            assert!(!tag.is_empty(), "{path} has no tag");
            let again = wire::get_with(app, path, &[("If-None-Match", &tag)]).await;
            assert_eq!((again.status, again.body.len(), again.header("etag")), (304, 0, tag.as_str()), "{path}");
        }
        let tag = wire::get(app, "/products").await.header("etag").to_owned();
        app.create(&[]).await;
        assert_eq!(wire::get_with(app, "/products", &[("If-None-Match", &tag)]).await.status, 200);
        assert_eq!(wire::get(app, "/readyz").await.header("etag"), "", "a volatile response has no ETag");
    }

    async fn a_head_has_the_headers_of_a_get(app: &TestApp) {
        let id = app.create(&[]).await["id"].clone();
        for path in [format!("/products/{id}"), "/products".into(), "/users".into(), "/openapi.json".into()] {
            let get = wire::get(app, &path).await;
            let head = wire::send(app.address, "HEAD", &path, &[], b"").await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            for name in ["content-type", "content-length", "etag", "vary"] {
                assert_eq!(head.header(name), get.header(name), "{name} of {path}");
            }
        }
    }
}
