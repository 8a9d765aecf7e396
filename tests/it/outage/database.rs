//! Without the database nothing can be promised, so requests that need it are asked to come again.

use std::time::{Duration, Instant};

use pm::http;
use serde_json::json;

use super::{Proxies, Server, behind_proxies, eventually, readiness, try_again};
use crate::support::{Origin, Setup, TestApp, app, pictures};

const DEADLINE: Duration = Duration::from_secs(30);

async fn works(app: &TestApp) -> bool {
    let body = json!({"user_id": "u", "product_name": "after", "product_price": 1});
    let response = app.post("/products", &body).await;
    assert!(response.status() == 201 || response.status() == 503, "{response:?}");
    response.status() == 201
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_may_break_off() {
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
        assert!(began.elapsed() < DEADLINE, "the answers came after {:?}", began.elapsed());
        let (a, b, c, d, e, f) = answers;
        for response in [a, b, c, d, e, f] {
            let asked = response.url().clone();
            assert_eq!(try_again(response).await, "unavailable", "{asked}");
        }
        assert_eq!(app.product(&hot).await["id"], hot, "what is cached is still answered");
        // A write that worked just before counts for two seconds.
        let down = (503, vec!["database".to_owned()]);
        eventually("the database to be missed", async || (readiness(app).await == down).then_some(())).await;
        assert_eq!(app.get("/healthz").await.status(), 200, "the process itself is well");

        proxies.database.restore();
        eventually("a product that is taken in again", async || works(app).await.then_some(())).await;
        assert_eq!(app.product(&cold).await["id"], cold);
        eventually("everything up", async || (readiness(app).await == (200, vec![])).then_some(())).await;
        let names = app.get_json("/products?name=during").await;
        assert_eq!(names["items"], json!([]), "what was refused was not stored");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_may_fall_silent() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let config = http::Config { deadline: Duration::from_millis(1_500), ..http::Config::default() };
        let server = Server::start(app, config).await;
        let id = app.create(&[]).await["id"].clone();
        let path = format!("http://{}/products/{id}", server.address);

        proxies.database.stall();
        let began = Instant::now();
        let response = app.client.get(&path).send().await.unwrap();
        assert_eq!(try_again(response).await, "deadline_exceeded");
        assert!(began.elapsed() < Duration::from_secs(3), "the answer came after {:?}", began.elapsed());
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
async fn a_worker_outlives_its_database() {
    behind_proxies(async |app: &TestApp, proxies: &Proxies| {
        let origin = Origin::start().await;
        origin.serve("/a.png", "image/png", pictures::png(64, 48));
        origin.hold("/a.png");
        let (stopper, worker) = app.start_worker().await;
        let id = app.create(&[origin.url("/a.png")]).await["id"].clone();
        origin.wait_for_hits("/a.png", 1).await;

        // The picture is made while there is no place to say so.
        proxies.database.cut();
        origin.release("/a.png");
        assert_eq!(readiness(app).await.0, 503);
        proxies.database.restore();
        eventually("a database that answers", async || (readiness(app).await.0 == 200).then_some(())).await;
        assert_eq!(app.settled(&id).await["status"], "ready");
        stopper.stop();
        worker.await.unwrap();
    })
    .await;
}

/// A process whose connections are all busy learns of the cache's epoch over one beside them, and reads the cache.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_needs_no_connection_of_the_pool() {
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

/// Another process may have begun another epoch, and answered writes, while this one hears nothing.
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
