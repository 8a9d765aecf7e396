//! Stored images: full and range requests, caching headers, and no access to other files.

use pm::blobs::BlobKey;
use sha2::{Digest as _, Sha256};

use super::{problem, wire};
use crate::support::{Origin, TestApp, images, on_both_setups};

/// Creates an image and returns the path of its largest rendition.
async fn image(app: &TestApp) -> String {
    let origin = Origin::start().await;
    origin.serve("/photo.jpg", "image/jpeg", images::jpeg(640, 480));
    let product = app.create(&[origin.url("/photo.jpg")]).await;
    app.drain().await;
    let product = app.product(&product["id"]).await;
    product["compressed_product_images"][0].as_str().unwrap_or_else(|| panic!("{product}")).to_owned()
}

on_both_setups! {
    async fn an_image_has_its_content_type_and_is_immutable(app: &TestApp) {
        let path = image(app).await;
        let answer = wire::get(app, &path).await;
        assert_eq!(answer.status, 200);
        let hash = hex::encode(Sha256::digest(&answer.body));
        assert!(path.contains(&hash), "{path} is not named after its bytes");
        for (name, value) in [
            ("content-type", "image/jpeg"),
            ("content-length", &answer.body.len().to_string()),
            ("etag", &format!("\"{hash}\"")),
            ("cache-control", "public, max-age=31536000, immutable"),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        let head = wire::send(app.address, "HEAD", &path, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        for name in ["content-type", "content-length", "etag", "cache-control", "accept-ranges"] {
            assert_eq!(head.header(name), answer.header(name), "{name} of HEAD");
        }
    }

    async fn a_percent_encoded_key_names_the_same_image(app: &TestApp) {
        let path = image(app).await;
        let key = path.strip_prefix("/images/").unwrap();
        let whole = wire::get(app, &path).await;
        for escaped in [key.replace('/', "%2F"), key.replace('.', "%2e")] {
            let answer = wire::get(app, &format!("/images/{escaped}")).await;
            assert_eq!((answer.status, &answer.body), (200, &whole.body), "{escaped}");
        }
    }

    async fn a_client_with_the_image_gets_304(app: &TestApp) {
        let path = image(app).await;
        let etag = wire::get(app, &path).await.header("etag").to_owned();
        for tags in [etag.clone(), format!("W/{etag}"), format!("\"other\", {etag}"), "*".into()] {
            let answer = wire::get_with(app, &path, &[("If-None-Match", &tags)]).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{tags}");
            assert_eq!(answer.header("etag"), etag);
            assert!(answer.header("cache-control").contains("immutable"));
        }
        assert_eq!(wire::get_with(app, &path, &[("If-None-Match", "\"other\"")]).await.status, 200);
    }

    async fn a_range_request_returns_that_part_of_the_file(app: &TestApp) {
        let path = image(app).await;
        let whole = wire::get(app, &path).await;
        let (bytes, size) = (&whole.body, whole.body.len());
        for (range, from, to) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=0-9".into(), 0, 10),
            ("bytes=10-".into(), 10, size),
            ("bytes=-5".into(), size - 5, size),
            (format!("bytes=-{}", size * 2), 0, size),
            (format!("bytes=100-{}", size * 2), 100, size),
            (format!("bytes={}-{}", size - 1, size - 1), size - 1, size),
        ] {
            let part = wire::get_with(app, &path, &[("Range", &range)]).await;
            assert_eq!(part.status, 206, "{range}");
            assert_eq!(part.body, bytes[from..to], "{range}");
            assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{size}", to - 1));
            assert_eq!(part.header("content-length"), (to - from).to_string());
            assert_eq!(part.header("etag"), whole.header("etag"));
        }
        for range in ["bytes=5-4", "bytes=0-1,4-5", "items=0-1", "bytes=x-y"] {
            let answer = wire::get_with(app, &path, &[("Range", range)]).await;
            assert_eq!((answer.status, answer.body.len()), (200, size), "{range}");
        }
        for range in [format!("bytes={size}-"), format!("bytes={}-{}", size + 5, size + 9), "bytes=-0".into()] {
            let answer = wire::get_with(app, &path, &[("Range", &range)]).await;
            problem(&answer, 416, "range_not_satisfiable", &range);
            assert_eq!(answer.header("content-range"), format!("bytes */{size}"));
        }
        for range in ["bytes=0-9".to_owned(), format!("bytes={size}-")] {
            let head = wire::send(app.address, "HEAD", &path, &[("Range", &range)], b"").await;
            let size = size.to_string();
            assert_eq!((head.status, head.header("content-length")), (200, size.as_str()), "HEAD with {range}");
            assert_eq!((head.header("content-range"), head.header("etag")), ("", whole.header("etag")));
        }
        let etag = whole.header("etag");
        let same = wire::get_with(app, &path, &[("Range", "bytes=0-9"), ("If-Range", etag)]).await;
        let other = wire::get_with(app, &path, &[("Range", "bytes=0-9"), ("If-Range", "\"other\"")]).await;
        assert_eq!((same.status, other.status), (206, 200));
    }

    async fn images_serves_no_file_outside_the_store(app: &TestApp) {
        let path = image(app).await;
        let key = path.strip_prefix("/images/").unwrap();
        let (directory, name) = key.rsplit_once('/').unwrap();
        let unknown = BlobKey::for_bytes(b"never stored", "jpg").unwrap().to_string();
        // A file beside the images, which a path traversal would reach.
        std::fs::write(app.directory().join("secret.txt"), "secret").unwrap();
        for wrong in [
            unknown.clone(),
            "a.jpg".into(),
            format!("{directory}/"),
            directory.into(),
            name.into(),
            key.to_uppercase(),
            format!("{key}/"),
            format!("{key}.jpg"),
            format!("{key}%00"),
            key.replace("jpeg", "png").replace("jpg", "png"),
            format!("x/../{key}"),
            "../../secret.txt".into(),
            "../secret.txt".into(),
            "..%2f..%2fsecret.txt".into(),
            "%2e%2e/%2e%2e/secret.txt".into(),
            "....//....//secret.txt".into(),
            r"..\..\secret.txt".into(),
            "../../../../../../../../etc/passwd".into(),
            "/etc/passwd".into(),
            "%2fetc%2fpasswd".into(),
            "ab/cd/../../../../etc/passwd".into(),
            "../data/pm.db".into(),
            "%00".into(),
        ] {
            let answer = wire::get(app, &format!("/images/{wrong}")).await;
            problem(&answer, 404, "not_found", &wrong);
        }
        let known_tag = wire::get_with(app, &format!("/images/{unknown}"), &[("If-None-Match", "*")]).await;
        problem(&known_tag, 404, "not_found", "an image that is not there is not unchanged either");
    }
}
