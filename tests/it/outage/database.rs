//! Without the database, requests that need it get 503 with a Retry-After.

use std::time::{Duration, Instant};

use pm::http;
use serde_json::json;

use super::{Proxies, Server, behind_proxies, eventually, readiness, try_again};
use crate::support::{Origin, Setup, TestApp, app, images};

const DEADLINE: Duration = Duration::from_secs(30);

async fn works(app: &TestApp) -> bool {
    let body = json!({"user_id": "u", "product_name": "after", "product_price": 1});
    let response = app.post("/products", &body).await;
    assert!(response.status() == 201 || response.status() == 503, "{response:?}");
    response.status() == 201
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_503_while_postgresql_is_down() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let hot = app.create(&[]).await["id"].clone();
        let cold = app.create(&[]).await["id"].clone();
        app.product(&hot).await;
        app.product(&hot).await;

        proxies.database.cut();
        let body = json!({"user_id": "u", "product_name": "during", "product_price": 1});
        let user = json!({"id": "late"});
        let began = Instant::now();
        let cold_path = format!("/products/{cold}");
        let answers = tokio::join!(
            app.get(&cold_path),
            app.get("/products"),
            app.get("/products/999999"),
            app.get("/users/seller"),
            app.post("/products", &body),
            app.post("/users", &user),
        );
        assert!(began.elapsed() < DEADLINE, "the responses took {:?}", began.elapsed());
        let (a, b, c, d, e, f) = answers;
        for response in [a, b, c, d, e, f] {
            let asked = response.url().clone();
            assert_eq!(try_again(response).await, "unavailable", "{asked}");
        }
        assert_eq!(app.product(&hot).await["id"], hot, "cached products are still returned");
        // Readiness accepts a write that worked in the last two seconds.
        let down = (503, vec!["database".to_owned()]);
        eventually("the database to be missed", async || (readiness(app).await == down).then_some(())).await;
        assert_eq!(app.get("/healthz").await.status(), 200, "the process itself is well");

        proxies.database.restore();
        eventually("a product is accepted again", async || works(app).await.then_some(())).await;
        assert_eq!(app.product(&cold).await["id"], cold);
        eventually("everything up", async || (readiness(app).await == (200, vec![])).then_some(())).await;
        let names = app.get_json("/products?name=during").await;
        assert_eq!(names["items"], json!([]), "refused products are not stored");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_503_while_postgresql_is_silent() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let config = http::Config { deadline: Duration::from_millis(1_500), ..http::Config::default() };
        let server = Server::start(app, config).await;
        let id = app.create(&[]).await["id"].clone();
        let path = format!("http://{}/products/{id}", server.address);

        proxies.database.stall();
        let began = Instant::now();
        let response = app.client.get(&path).send().await.unwrap();
        assert_eq!(try_again(response).await, "deadline_exceeded");
        assert!(began.elapsed() < Duration::from_secs(3), "the response took {:?}", began.elapsed());
        let (status, down) = readiness(app).await;
        assert_eq!((status, down), (503, vec!["database".to_owned()]));

        proxies.database.restore();
        eventually("an answer", async || (app.client.get(&path).send().await.unwrap().status() == 200).then_some(()))
            .await;
        assert_eq!(readiness(app).await, (200, vec![]));
        server.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_survives_a_database_outage() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", images::png(64, 48));
        origin.hold("/a.png");
        let (stopper, worker) = app.start_worker().await;
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        origin.wait_for_hits("/a.png", 1).await;

        // The image is made while its result cannot be stored.
        proxies.database.cut();
        origin.release("/a.png");
        assert_eq!(readiness(app).await.0, 503);
        proxies.database.restore();
        eventually("a database that answers", async || (readiness(app).await.0 == 200).then_some(())).await;
        assert_eq!(app.settled(&id).await["status"], "ready");
        stopper.cancel();
        worker.await.unwrap();
    })
    .await;
}

/// A process whose connections are all busy reads the cache's epoch over an extra connection, and uses the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_hit_needs_no_pooled_connection() {
    app::run_with(Setup::Full, &[("PM_DATABASE_MAX_CONNECTIONS", "4")], async |app: &TestApp| {
        let hot = app.create(&[]).await["id"].clone();
        let path = format!("/products/{hot}");
        app.product(&hot).await;
        let busy = futures_util::future::join_all((0..4).map(|_| app.app.database.begin())).await;
        for _ in 0..30 {
            let answer = app.get(&path).await;
            assert_eq!((answer.status().as_u16(), &answer.headers()["x-cache"]), (200, &"hit".parse().unwrap()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(busy);
    })
    .await;
}

/// Another process may have started a new epoch and answered writes while this one is disconnected.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cache_is_not_read_while_the_database_is_silent() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let hot = app.create(&[]).await["id"].clone();
        let path = format!("/products/{hot}");
        app.product(&hot).await;
        assert_eq!(app.get(&path).await.headers()["x-cache"], "hit");
        proxies.database.stall();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let answer = tokio::time::timeout(Duration::from_millis(500), app.get(&path)).await;
        assert!(answer.is_err(), "it was answered: {answer:?}");
        proxies.database.restore();
        eventually("a hit again", async || (app.get(&path).await.headers().get("x-cache")? == "hit").then_some(()))
            .await;
    })
    .await;
}
