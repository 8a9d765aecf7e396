//! The schema may change under a running program: a newer version adds columns.

use std::time::Duration;

use pm::db::{Config, Database, migrate};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use serde_json::json;

use crate::support::{Origin, TestApp, app::Setup, images, on_both_setups};

/// Every table with data.
const TABLES: &[&str] = &[
    "users",
    "api_keys",
    "products",
    "images",
    "renditions",
    "variants",
    "jobs",
    "job_attempts",
    "cache_invalidation",
    "product_words",
    "idempotency_keys",
    "events",
    "webhooks",
    "webhook_deliveries",
];

/// Uses every connection of the pool for requests, claims and settlements.
async fn work(app: &TestApp, image: &str) {
    let images = [image.to_owned()];
    let products = futures_util::future::join_all((0..8).map(|_| app.create(&images))).await;
    assert_eq!(app.drain().await, products.len(), "every job is claimed and settled");
    for product in &products {
        let path = format!("/products/{}", product["id"]);
        let patched = app.client.patch(app.url(&path)).json(&json!({"product_name": "changed"})).send().await.unwrap();
        assert_eq!(patched.status(), 200);
        assert_eq!(app.product(&product["id"]).await["status"], "ready");
    }
    assert_eq!(app.get("/products?name=changed").await.status(), 200);
    assert_eq!(app.get("/users/seller").await.status(), 200);
    assert_eq!(
        app.client.delete(app.url(&format!("/products/{}", products[0]["id"]))).send().await.unwrap().status(),
        204
    );
    assert_eq!(app.get("/readyz").await.status(), 200);
}

on_both_setups! {
    async fn a_column_may_be_added_to_any_table_while_the_program_works(app: &TestApp) {
        let origin = Origin::start().await;
        origin.serve("/one.png", "image/png", images::png(40, 30));
        let image = origin.url("/one.png");
        work(app, &image).await;
        for table in TABLES {
            app.sql(&format!("ALTER TABLE {table} ADD COLUMN added_later BIGINT NOT NULL DEFAULT 7")).await;
            work(app, &image).await;
        }
    }
}

on_both_setups! {
    async fn a_column_may_change_its_type_while_the_program_works(app: &TestApp) {
        if app.setup == Setup::Embedded {
            // SQLite's columns have no types to change.
            return;
        }
        let origin = Origin::start().await;
        origin.serve("/one.png", "image/png", images::png(40, 30));
        work(app, &origin.url("/one.png")).await;
        let product = app.create(&[]).await["id"].clone();
        // Prepared on every connection.
        let path = format!("/products/{product}");
        futures_util::future::join_all((0..64).map(|_| app.get("/users/seller"))).await;
        app.sql("ALTER TABLE users ALTER COLUMN name TYPE VARCHAR(200), ALTER COLUMN email TYPE VARCHAR(200)").await;
        app.sql("ALTER TABLE products ALTER COLUMN product_description TYPE VARCHAR(20000)").await;
        for answer in futures_util::future::join_all((0..64).map(|_| app.get("/users/seller"))).await {
            assert_eq!(answer.status(), 200, "a read is repeated on a new connection");
        }
        assert_eq!(app.get(&path).await.status(), 200);
        let refused = app.post("/products", &json!({"user_id": "u", "product_name": "n", "product_price": 1})).await;
        assert!([201, 503].contains(&refused.status().as_u16()), "{refused:?}");
        work(app, &origin.url("/one.png")).await;
    }
}

on_both_setups! {
    async fn readiness_proves_that_a_write_works(app: &TestApp) {
        assert_eq!(app.get("/readyz").await.status(), 200);
        let other = app.another().await.database;
        let taken = other.begin().await.unwrap();
        if app.setup == Setup::Full {
            // SQLite's only writer is already used.
            taken.execute_unprepared("LOCK TABLE seaql_migrations IN ACCESS EXCLUSIVE MODE").await.unwrap();
        }
        becomes(app, 503).await;
        assert_eq!(app.get("/users/unknown").await.status(), 404, "reads go on");
        taken.rollback().await.unwrap();
        becomes(app, 200).await;
    }
}

/// Polls until it holds; a readiness check is valid for 2 s.
async fn becomes(app: &TestApp, status: u16) {
    for _ in 0..100 {
        if app.get("/readyz").await.status() == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("/readyz does not become {status}");
}

/// A statement with `*` stands for anything that panics the driver's thread. Counts the panics.
async fn ask_for_everything(connection: &impl sea_orm::ConnectionTrait, deaths: &mut u32) {
    let sql = "SELECT * FROM users WHERE created_at = $1";
    match connection.query_all_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [1_i64.into()])).await {
        Ok(rows) => assert_eq!(rows.len(), 1, "rows that are missing are no answer"),
        Err(error) => {
            assert!(pm::db::Error::from(error).is_transient());
            *deaths += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_panic_is_an_error_and_releases_the_write_lock() {
    let directory = tempfile::TempDir::new().unwrap();
    let database = Database::connect(&Config::Sqlite { path: directory.path().join("pm.db") }).await.unwrap();
    migrate::up(&database, None).await.unwrap();
    database.read().execute_unprepared("INSERT INTO users (id, created_at) VALUES ('seller', 1)").await.unwrap();
    let mut deaths = 0;
    for number in 0..6 {
        // Prepares the statement; panics here if it is already prepared from before the new column.
        ask_for_everything(&*database.begin().await.unwrap(), &mut deaths).await;
        let alter = format!("ALTER TABLE users ADD COLUMN added_{number} BIGINT");
        database.read().execute_unprepared(&alter).await.unwrap();
        let write = database.begin().await.expect("the write lock is free");
        let user = format!("INSERT INTO users (id, created_at) VALUES ('user-{number}', 2)");
        write.execute_unprepared(&user).await.unwrap();
        ask_for_everything(&*write, &mut deaths).await;
    }
    assert!(deaths > 0, "no thread of the driver has died, so nothing is shown");
    let write = database.begin().await.expect("the write lock is free again");
    write.execute_unprepared("INSERT INTO users (id, created_at) VALUES ('last', 3)").await.unwrap();
    write.commit().await.unwrap();
    database.check().await.unwrap();
}
