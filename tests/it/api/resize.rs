//! Images in any size, by signed URLs.

use futures_util::future::join_all;
use pm::resize::UrlKeys;
use sea_orm::ConnectionTrait as _;
use serde_json::Value;

use super::{problem, wire};
use crate::support::{self, Origin, Setup, TestApp, images};

const KEY: &str = "a key of at least thirty-two characters";

/// Declares a test with a key for signed URLs on both set-ups.
macro_rules! with_a_key {
    ($(async fn $name:ident($app:ident: &TestApp) $body:block)+) => {$(
        mod $name {
            use super::*;

            async fn test($app: &TestApp) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                support::app::run_with(Setup::Embedded, &[("PM_URL_KEY", KEY)], async |app| test(app).await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn full() {
                support::app::run_with(Setup::Full, &[("PM_URL_KEY", KEY)], async |app| test(app).await).await;
            }
        }
    )+};
}

/// Returns the id of a ready image of 800 × 600 pixels.
async fn image(app: &TestApp) -> Value {
    let origin = Origin::start().await;
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(800, 600));
    let product = app.create(&[origin.url("/a.jpg")]).await;
    app.drain().await;
    let product = app.product(&product["id"]).await;
    assert_eq!(product["status"], "ready", "{product}");
    product["images"][0]["id"].clone()
}

fn signed(options: &str, image: &Value) -> String {
    let signature = UrlKeys::parse(KEY).unwrap().sign(options, &image.to_string());
    format!("/resize/{signature}/{options}/{image}")
}

async fn count(app: &TestApp, table: &str) -> i64 {
    let connection = app.app.database.read();
    let sql = format!("SELECT count(*) AS counted FROM {table}");
    let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get("", "counted").unwrap()
}

with_a_key! {
    async fn a_variant_has_the_requested_size_and_format(app: &TestApp) {
        let image = image(app).await;
        for (options, size, kind) in [
            ("w=200,format=jpeg", (200, 150), "image/jpeg"),
            ("h=60,dpr=2,format=webp", (160, 120), "image/webp"),
            ("w=100,h=100,format=jpeg", (100, 75), "image/jpeg"),
            ("w=100,h=100,fit=cover,focus=top-left,format=jpeg", (100, 100), "image/jpeg"),
            ("w=100,h=100,fit=fill,format=png", (100, 100), "image/png"),
            ("w=4000,format=jpeg,quality=30", (800, 600), "image/jpeg"),
        ] {
            let answer = wire::get(app, &signed(options, &image)).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{options}: {}", answer.text());
            let made = pm::imaging::probe(&answer.body, &pm::imaging::Limits::default()).unwrap();
            assert_eq!((made.width, made.height), size, "{options}");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            let tag = answer.header("etag").to_owned();
            let again = wire::get_with(app, &signed(options, &image), &[("If-None-Match", &tag)]).await;
            assert_eq!(again.status, 304);
        }
        let automatic = signed("w=64", &image);
        for (accept, kind) in [("image/webp,*/*;q=0.8", "image/webp"), ("*/*", "image/jpeg")] {
            let answer = wire::get_with(app, &automatic, &[("Accept", accept)]).await;
            assert_eq!((answer.header("content-type"), answer.header("vary")), (kind, "Accept"));
        }
    }

    async fn concurrent_requests_make_a_variant_once_and_keep_it(app: &TestApp) {
        let image = image(app).await;
        let path = signed("w=333,h=222,fit=cover,format=jpeg", &image);
        let answers = join_all((0..30).map(|_| wire::get(app, &path))).await;
        assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
        // An equivalent URL with other parameters.
        let other = signed("format=jpeg,quality=80,h=222,w=333,fit=cover,focus=center", &image);
        assert_eq!(wire::get(app, &other).await.body, answers[0].body);
        assert_eq!(count(app, "variants").await, 1);
        // The variant stays after the process that made it.
        let another = app.another().await;
        let id = pm::domain::ImageId(image.as_i64().unwrap());
        let options = pm::resize::Options::parse("w=333,h=222,fit=cover,format=jpeg").unwrap();
        let found = another.images().resizer.form(id, &options, pm::imaging::OutputFormat::Jpeg).await.unwrap();
        assert_eq!(found.sha256(), answers[0].header("etag").trim_matches('"'));
        assert_eq!(count(app, "variants").await, 1);
    }

    async fn the_oldest_variant_is_replaced_beyond_the_limit(app: &TestApp) {
        let image = image(app).await;
        let row = |number: u64| format!("({image}, 'old {number}', 'x', 1, 'x', {number})");
        let rows: Vec<_> = (0..pm::catalog::MAX_VARIANTS).map(row).collect();
        app.sql(&format!(
            "INSERT INTO variants (image_id, name, source_key, bytes, blob_key, created_at) VALUES {}",
            rows.join(", ")
        ))
        .await;
        assert_eq!(wire::get(app, &signed("w=10,format=jpeg", &image)).await.status, 200);
        assert_eq!(count(app, "variants").await, i64::try_from(pm::catalog::MAX_VARIANTS).unwrap());
        assert_eq!(count(app, "variants WHERE name = 'old 0'").await, 0);
    }

    async fn only_signed_variants_are_made(app: &TestApp) {
        let image = image(app).await;
        let path = signed("w=200", &image);
        for forged in [
            path.replace("w=200", "w=201"),
            path.replace(&format!("/{image}"), "/999999"),
            format!("/resize/x/w=200/{image}"),
            format!("/resize/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/w=200/{image}"),
        ] {
            problem(&wire::get(app, &forged).await, 403, "signature_refused", &forged);
        }
        assert_eq!(wire::get(app, &path.replace('=', "%3D")).await.status, 200, "escapes are undone");
        for options in ["w=0", "w=5000", "w=10,blur=3", "fit=cover"] {
            problem(&wire::get(app, &signed(options, &image)).await, 422, "validation", options);
        }
        problem(&wire::get(app, &signed("w=10", &999_999.into())).await, 404, "not_found", "an unknown image");
        assert_eq!(count(app, "variants").await, 1);
    }

    async fn a_variant_changes_and_disappears_with_its_image(app: &TestApp) {
        let image = image(app).await;
        let path = signed("w=99,format=jpeg", &image);
        assert_eq!(wire::get(app, &path).await.status, 200);
        let product = app.get_json("/products").await["items"][0]["id"].clone();
        assert_eq!(wire::send(app.address, "DELETE", &format!("/products/{product}"), &[], b"").await.status, 204);
        assert_eq!(wire::get(app, &path).await.status, 404);
        assert_eq!(count(app, "variants").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_generates_a_url_key_and_postgresql_refuses_to_resize_without_one() {
    support::app::run(Setup::Embedded, async |app| {
        let image = image(app).await;
        let keys = app.app.url_keys.clone().expect("a key was generated");
        let path = format!("/resize/{}/w=50/{image}", keys.sign("w=50", &image.to_string()));
        assert_eq!(wire::get(app, &path).await.status, 200);
        assert_eq!(app.another().await.url_keys, Some(keys), "the next start has the same one");
    })
    .await;
    support::app::run(Setup::Full, async |app| {
        assert!(app.app.url_keys.is_none());
        let answer = wire::get(app, "/resize/x/w=50/1").await;
        problem(&answer, 403, "signature_refused", "there is no key");
    })
    .await;
}
