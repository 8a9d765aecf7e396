//! Transient failures are retried; permanent ones are not.

use serde_json::{Value, json};

use crate::support::{Origin, TestApp, images, on_both_setups};

/// Returns the delay of the only waiting job in seconds.
async fn delay_seconds(app: &TestApp) -> f64 {
    use sea_orm::ConnectionTrait as _;
    let connection = app.app.database.read();
    let sql = "SELECT run_at - updated_at AS micros FROM jobs WHERE state = 'queued'";
    let statement = sea_orm::Statement::from_string(connection.get_database_backend(), sql);
    let row = connection.query_one_raw(statement).await.unwrap().expect("a waiting job");
    row.try_get::<i64>("", "micros").unwrap() as f64 / 1e6
}

async fn image(app: &TestApp, id: &Value) -> Value {
    app.product(id).await["images"][0].clone()
}

on_both_setups! {
    async fn an_origin_that_is_down_is_retried_with_growing_delays(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        origin.fail_first("/a.jpg", 2, 503);
        let id = app.create(&[origin.url("/a.jpg")]).await["id"].clone();
        for (attempt, nominal) in [(1, 5.0), (2, 10.0)] {
            assert_eq!(app.drain().await, 1);
            let waiting = image(app, &id).await;
            assert_eq!(waiting["status"], "pending");
            assert_eq!(waiting["attempts"], attempt);
            assert_eq!(waiting["error"]["code"], "source_unavailable");
            let delay = delay_seconds(app).await;
            assert!((nominal * 0.8..=nominal * 1.2).contains(&delay), "attempt {attempt}: {delay} s");
            assert_eq!(app.drain().await, 0, "it is not due yet");
            app.let_time_pass().await;
        }
        app.drain().await;
        let ready = image(app, &id).await;
        assert_eq!((&ready["status"], &ready["attempts"], &ready["error"]), (&json!("ready"), &json!(3), &Value::Null));
    }

    async fn an_image_fails_after_five_attempts(app: &TestApp) {
        let origin = Origin::start().await;
        let id = app.create(&[origin.url("/status/500")]).await["id"].clone();
        for _ in 0..5 {
            assert_eq!(app.drain().await, 1);
            app.let_time_pass().await;
        }
        assert_eq!(app.drain().await, 0);
        let given_up = image(app, &id).await;
        assert_eq!((&given_up["status"], &given_up["attempts"]), (&json!("failed"), &json!(5)));
        assert_eq!(given_up["error"]["code"], "source_unavailable");
        assert_eq!(app.app.catalog.depth().await.unwrap().dead, 1);
    }

    async fn retry_after_decides_the_delay(app: &TestApp) {
        let origin = Origin::start().await;
        app.create(&[origin.url("/status/429?retry-after=77")]).await;
        app.drain().await;
        let delay = delay_seconds(app).await;
        assert!((76.0..78.0).contains(&delay), "{delay} s");
    }

    async fn a_permanent_failure_is_not_retried(app: &TestApp) {
        let origin = Origin::start().await;
        for (path, code) in [
            ("/status/404", "source_not_found"),
            ("/status/410", "source_not_found"),
            ("/status/403", "source_forbidden"),
            ("/status/415", "source_refused"),
            ("/redirect-loop", "redirect_refused"),
        ] {
            let id = app.create(&[origin.url(path)]).await["id"].clone();
            assert_eq!(app.drain().await, 1);
            let failed = image(app, &id).await;
            assert_eq!((&failed["status"], &failed["error"]["code"]), (&json!("failed"), &json!(code)), "{path}");
        }
    }

    async fn a_broken_connection_is_retried(app: &TestApp) {
        let origin = Origin::start().await;
        for path in ["/reset", "/short"] {
            let id = app.create(&[origin.url(path)]).await["id"].clone();
            app.drain().await;
            let waiting = image(app, &id).await;
            let shown = (&waiting["status"], &waiting["error"]["code"]);
            assert_eq!(shown, (&json!("pending"), &json!("connect_failed")), "{path}");
        }
    }
}
