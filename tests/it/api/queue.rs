//! The queue and its dead letters over HTTP, and deletion of products.

use serde_json::{Value, json};

use super::{matches_snapshot, problem, shape, wire, wrong_fields};
use crate::support::{Origin, Setup, TestApp, images, on_both_setups};

/// Returns the response with the origin's port redacted.
fn shown(answer: &wire::Answer, headers: &[&str], origin: &Origin) -> Value {
    let host = origin.url("");
    let text = shape(answer, headers).to_string().replace(host.trim_start_matches("http://"), "[origin]");
    serde_json::from_str(&text).unwrap()
}

async fn delete(app: &TestApp, path: &str) -> wire::Answer {
    wire::send(app.address, "DELETE", path, &[], b"").await
}

on_both_setups! {
    async fn the_queue_reports_its_length(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/a.jpg", "image/jpeg", images::jpeg(64, 64));
        app.create(&[origin.url("/a.jpg"), origin.url("/status/404")]).await;
        app.drain().await;
        let mut queue = shape(&wire::get(app, "/queue").await, &["content-type", "cache-control"]);
        if app.setup == Setup::Full {
            let ready = queue["body"]["broker"]["ready"].take();
            assert!(ready.is_u64(), "{ready}");
        }
        matches_snapshot(if app.setup == Setup::Full { "the_queue_full" } else { "the_queue_embedded" }, &queue);
        app.create(&["https://example.com/a.jpg".into()]).await;
        let queue = app.get_json("/queue").await;
        assert_eq!(queue["queued"], 1);
        assert!(queue["oldest_age_seconds"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{queue}");
        assert!(queue["oldest_queued_at"].is_string());
    }

    async fn dead_letters_are_listed_shown_and_requeued(app: &TestApp) {
        let origin = Origin::start().await;
        assert_eq!(app.get_json("/queue/dead").await, json!({"items": [], "next_cursor": null}));
        for path in ["/status/404?key=s3cret", "/status/410"] {
            app.create(&[origin.url(path)]).await;
            app.drain().await;
        }
        let list = wire::get(app, "/queue/dead").await;
        matches_snapshot("dead_letters", &shown(&list, &["content-type", "link", "cache-control"], &origin));
        let page = wire::get(app, "/queue/dead?limit=1").await;
        assert_eq!(page.json()["items"][0], list.json()["items"][0]);
        let next = page.header("link").trim_start_matches('<').split('>').next().unwrap();
        assert_eq!(app.get_json(next).await, json!({"items": [list.json()["items"][1]], "next_cursor": null}));

        let id = list.json()["items"][1]["id"].clone();
        let one = wire::get(app, &format!("/queue/dead/{id}")).await;
        matches_snapshot("a_dead_letter", &shown(&one, &["content-type", "cache-control"], &origin));
        let retried = wire::post(app, &format!("/queue/dead/{id}/retry"), "").await;
        matches_snapshot("a_dead_letter_requeued", &shape(&retried, &["content-type", "location"]));
        let product = app.get_json(retried.header("location")).await;
        assert_eq!((&product["status"], &product["images"][0]["status"]), (&json!("processing"), &json!("pending")));
    }

    async fn a_retry_reaches_a_waiting_worker(app: &TestApp) {
        let origin = Origin::start().await;
        let id = app.create(&[origin.url("/late.jpg")]).await["id"].clone();
        let (stopper, worker) = app.start_worker().await;
        assert_eq!(app.settled(&id).await["status"], "failed");
        // A worker may find its first job before it consumes.
        while app.setup == Setup::Full && app.get_json("/queue").await["broker"]["consumers"] != 1 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        origin.serve("/late.jpg", "image/jpeg", images::jpeg(64, 64));
        let letter = app.get_json("/queue/dead").await["items"][0]["id"].clone();
        assert_eq!(wire::post(app, &format!("/queue/dead/{letter}/retry"), "").await.status, 202);
        assert_eq!(app.settled(&id).await["status"], "ready");
        stopper.cancel();
        worker.await.unwrap();
    }

    async fn a_job_that_is_not_a_dead_letter_is_refused(app: &TestApp) {
        let origin = Origin::start().await;
        app.create(&[origin.url("/status/404")]).await;
        app.drain().await;
        let id = app.get_json("/queue/dead").await["items"][0]["id"].clone();
        let retry = format!("/queue/dead/{id}/retry");
        assert_eq!(wire::post(app, &retry, "{}").await.status, 202);
        problem(&wire::post(app, &retry, "").await, 409, "conflict", "a second time");
        problem(&wire::get(app, &format!("/queue/dead/{id}")).await, 404, "not_found", "it waits");
        for path in ["/queue/dead/987654/retry", "/queue/dead/seven/retry"] {
            problem(&wire::post(app, path, "").await, 404, "not_found", path);
        }
        problem(&wire::get(app, "/queue/dead/-1").await, 404, "not_found", "no number");
        let wrong = problem(&wire::get(app, "/queue/dead?limit=0&cursor=x&page=1").await, 422, "validation", "wrong");
        assert_eq!(wrong_fields(&wrong), ["cursor", "limit", "page"]);
        let answer = wire::get(app, &retry).await;
        problem(&answer, 405, "method_not_allowed", "reading a retry");
        assert_eq!(answer.header("allow"), "POST, OPTIONS");
    }

    async fn a_product_is_deleted_once(app: &TestApp) {
        let id = app.create(&["https://example.com/a.jpg".into()]).await["id"].clone();
        let path = format!("/products/{id}");
        app.get_json(&path).await;
        let answer = delete(app, &path).await;
        assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (204, 0, ""));
        problem(&wire::get(app, &path).await, 404, "not_found", "reading it");
        problem(&delete(app, &path).await, 404, "not_found", "a second time");
        problem(&delete(app, "/products/seven").await, 404, "not_found", "no number");
        let answer = delete(app, "/products").await;
        problem(&answer, 405, "method_not_allowed", "all of them");
        assert_eq!(app.get_json("/queue").await["queued"], 0);
    }
}
