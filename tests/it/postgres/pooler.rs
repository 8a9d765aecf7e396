//! The whole program behind a real PgBouncer in transaction mode, with four server connections.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;
use pm::db::{Config, Database, Pooler, Postgres, migrate};
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::{connect, number, with_database};
use crate::{
    events::Listener,
    keep::{code, doctor, json as printed_json, pm, stderr},
    support::{Origin, Setup, TestApp, app::run_prepared, images, pgbouncer::PgBouncer, receiver::Receiver},
};

/// Runs `test` on the program behind a pooler; `direct` adds a URL without the pooler.
async fn run_pooled(direct: bool, test: impl AsyncFnOnce(&TestApp)) {
    let prepare = async |environment: &mut BTreeMap<String, String>| {
        let url = environment["DATABASE_URL"].clone();
        let bouncer = PgBouncer::start(&url).await?;
        environment.insert("DATABASE_URL".into(), bouncer.before(&url));
        if direct {
            environment.insert("PM_DATABASE_DIRECT_URL".into(), url);
        }
        Some(bouncer)
    };
    run_prepared(Setup::Full, prepare, test).await;
}

async fn database_check(app: &TestApp) -> String {
    let printed = doctor(app, &["--quick"]).await;
    let checks = printed["checks"].as_array().unwrap();
    let database = checks.iter().find(|check| check["check"] == "database").unwrap();
    database["detail"].as_str().unwrap().to_owned()
}

/// Creates, processes, changes, lists, finds and deletes products, and follows their events and deliveries.
async fn main_flows(app: &TestApp) {
    let (origin, receiver) = (Origin::start().await, Receiver::start().await);
    origin.serve("/a.jpg", "image/jpeg", images::jpeg(700, 500));
    let webhook = json!({"url": receiver.url(), "types": ["product.created", "image.ready"]});
    assert_eq!(app.post("/webhooks", &webhook).await.status(), 201);
    let mut events = Listener::open(app, "/events").await;
    let (stopper, worker) = app.start_worker().await;

    let product = app.create(&[origin.url("/a.jpg")]).await;
    let id = &product["id"];
    assert_eq!(app.settled(id).await["status"], "ready");
    let names = [events.next_of(id).await.name, events.next_of(id).await.name, events.next_of(id).await.name];
    assert_eq!(names, ["product.created", "image.processing", "image.ready"]);
    assert_eq!(receiver.wait_for(2).await.len(), 2);

    let patched = app.client.patch(app.url(&format!("/products/{id}"))).json(&json!({"product_name": "Blue Lamp"}));
    let patched = patched.header("content-type", "application/merge-patch+json").send().await.unwrap();
    assert_eq!(patched.status(), 200);
    assert_eq!(app.get_json("/products?q=lamp").await["items"][0]["id"], *id);
    assert_eq!(app.get_json("/products?name=blue&sort=-id").await["items"][0]["id"], *id);
    let again = app.client.post(app.url("/products")).header("idempotency-key", "one").json(&json!({
        "user_id": "seller", "product_name": "Once", "product_price": 1
    }));
    let first = again.try_clone().unwrap().send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!(again.send().await.unwrap().json::<Value>().await.unwrap(), first);
    let deleted = app.client.delete(app.url(&format!("/products/{}", first["id"]))).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    stopper.cancel();
    worker.await.unwrap();
}

async fn commands(app: &TestApp) {
    let directory = app.directory().join("backup").display().to_string();
    for words in [
        &["backup", &directory][..],
        &["gc"],
        &["migrate", "status"],
        &["migrate", "up"],
        &["product", "list"],
        &["reprocess", "--yes"],
        &["queue", "status"],
    ] {
        let output = pm(app, words).await;
        assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
    }
    app.drain().await;
    let listed = pm(app, &["product", "list", "-o", "json"]).await;
    assert!(!printed_json(&listed).as_array().is_some_and(Vec::is_empty), "{}", stderr(&listed));
    let printed = doctor(app, &[]).await;
    assert_eq!(printed["healthy"], true, "{printed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pm_works_through_pgbouncer_alone() {
    run_pooled(false, async |app| {
        assert!(app.app.database.read().query_all_raw(select_one()).await.is_ok());
        let detail = database_check(app).await;
        assert!(detail.contains("transaction mode") && detail.contains("no direct URL"), "{detail}");
        main_flows(app).await;
        commands(app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pm_works_through_pgbouncer_with_a_direct_url() {
    run_pooled(true, async |app| {
        let detail = database_check(app).await;
        assert!(detail.contains("transaction mode") && detail.contains("with a direct URL"), "{detail}");
        main_flows(app).await;
        commands(app).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_url_of_another_database_is_refused() {
    with_database(async |url| {
        let Some(bouncer) = PgBouncer::start(url).await else { return };
        let connect = async |direct_url: String| {
            let config = Postgres { direct_url: Some(direct_url), ..Postgres::new(bouncer.before(url)) };
            Database::connect(&Config::Postgres(config)).await.expect_err("a refusal").to_string()
        };
        let mut other = url::Url::parse(url).unwrap();
        other.set_path("/postgres");
        assert!(connect(other.into()).await.contains("points to another database than DATABASE_URL"));
        assert!(connect(bouncer.before(url)).await.contains("points to a pooler"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undeclared_pooler_is_named() {
    with_database(async |url| {
        let Some(bouncer) = PgBouncer::start_with(url, "default_pool_size = 1").await else { return };
        connect(Postgres::new(url)).await.read().execute_unprepared("CREATE TABLE notes (text TEXT)").await.unwrap();
        let through = || Postgres { pooler: Pooler::Off, ..Postgres::new(bouncer.before(url)) };
        let (first, second) = (connect(through()).await, connect(through()).await);
        first.read().query_all_raw(select_one()).await.expect("the session is new");
        let refused = second.read().query_all_raw(select_one()).await.expect_err("the name is taken");
        assert!(matches!(refused.into(), pm::db::Error::SessionLost(_)));

        let directory = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin!("pm"));
        command.env_clear().current_dir(directory.path()).args(["migrate", "status"]);
        command.env("DATABASE_URL", bouncer.before(url)).env("PM_DATABASE_POOLER", "off");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let printed = stderr(&output);
        assert_eq!(code(&output), 2, "{printed}");
        assert!(
            printed.contains("session changed between statements, as behind a pooler in transaction mode"),
            "{printed}"
        );
        assert!(printed.contains("hint: set PM_DATABASE_POOLER=transaction"), "{printed}");
    })
    .await;
}

fn select_one() -> sea_orm::Statement {
    sea_orm::Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT 1")
}

/// A statement that is sent in two steps must not get another client's second step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_pooler_never_get_each_others_results() {
    run_pooled(false, async |app| {
        let another = app.another().await;
        let work = async |client: usize| {
            for round in 0..6 {
                let name = format!("product {client}-{round}");
                let body = json!({"user_id": format!("user-{client}"), "product_name": name, "product_price": client});
                let answer = app.post("/products", &body).await;
                assert_eq!(answer.status(), 201);
                let id = answer.json::<Value>().await.unwrap()["id"].clone();
                assert_eq!(app.product(&id).await["product_name"], *name);
                let statement = sea_orm::Statement::from_sql_and_values(
                    sea_orm::DbBackend::Postgres,
                    "SELECT product_name FROM products WHERE id = $1",
                    [id.as_i64().unwrap().into()],
                );
                let row = another.database.read().query_one_raw(statement).await.unwrap().unwrap();
                assert_eq!(row.try_get::<String>("", "product_name").unwrap(), name);
                let page = app.get_json(&format!("/products?user_id=user-{client}&limit=1&sort=-id")).await;
                assert_eq!(page["items"][0]["product_name"], *name);
            }
        };
        join_all((0..24).map(work)).await;
    })
    .await;
}

#[tokio::test]
async fn a_canceled_statement_leaves_no_open_transaction() {
    with_database(async |url| {
        let Some(bouncer) = PgBouncer::start(url).await else { return };
        let database = connect(Postgres { max_connections: 2, ..Postgres::new(bouncer.before(url)) }).await;
        let observer = connect(Postgres { max_connections: 1, ..Postgres::new(url) }).await.read();
        for micros in 0..60 {
            let connection = database.read();
            let asked = connection.query_all_raw(select_one());
            let _ = tokio::time::timeout(Duration::from_micros(micros * 40), asked).await;
        }
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
        super::eventually("no transaction is open", async || number(&observer, open).await == 0).await;
        let write = database.begin().await.unwrap();
        write.execute_unprepared("CREATE TABLE notes (text TEXT)").await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(number(&database.read(), "SELECT count(*) FROM notes").await, 0);
    })
    .await;
}

#[tokio::test]
async fn several_processes_migrate_through_a_pooler() {
    with_database(async |url| {
        let Some(bouncer) = PgBouncer::start(url).await else { return };
        let database = async || connect(Postgres::new(bouncer.before(url))).await;
        let (first, second) = (database().await, database().await);
        for _ in 0..2 {
            let (one, other) = tokio::join!(migrate::up(&first, None), migrate::up(&second, None));
            one.unwrap();
            other.unwrap();
            assert!(migrate::is_current(&second).await.unwrap());
            migrate::down(&first, Some(2)).await.unwrap();
            migrate::down(&second, None).await.unwrap();
            assert!(migrate::applied(&first).await.unwrap().is_empty());
        }
        let left = number(&first.read(), "SELECT count(*) FROM pg_prepared_statements").await;
        assert_eq!(left, 0, "no named statement stays in the server's session");
    })
    .await;
}

#[tokio::test]
async fn a_pooler_is_detected_and_url_options_apply_behind_it() {
    with_database(async |url| {
        let way = async |postgres: Postgres| connect(postgres).await.way_of_connecting().unwrap();
        assert!(way(Postgres::new(url)).await.starts_with("sessions"));
        let forced = Postgres { pooler: Pooler::Transaction, ..Postgres::new(url) };
        assert!(way(forced).await.contains("transaction mode"));
        connect(Postgres::new(url)).await.read().execute_unprepared("CREATE SCHEMA shop").await.unwrap();

        for ignored in ["", "ignore_startup_parameters = extra_float_digits,options"] {
            let Some(bouncer) = PgBouncer::start_with(url, ignored).await else { return };
            let through = bouncer.before(url);
            assert!(way(Postgres::new(&through)).await.contains("transaction mode"), "{ignored}");
            let options = "-c%20search_path%3Dshop,public%20-c%20application_name%3Done,two";
            let with_schema = format!("{through}?options={options}");
            let database: Database = connect(Postgres::new(with_schema)).await;
            let schema = number(&database.read(), "SELECT (current_schema() = 'shop')::int::bigint").await;
            assert_eq!(schema, 1, "{ignored}");
            let kept = "SELECT (current_setting('application_name') = 'one,two'
                AND current_schemas(false) = '{shop,public}')::int::bigint";
            assert_eq!(number(&database.read(), kept).await, 1, "{ignored}");
            let write = database.begin().await.unwrap();
            write.execute_unprepared("CREATE TABLE things (id BIGINT)").await.unwrap();
            write.commit().await.unwrap();
            assert_eq!(number(&connect(Postgres::new(url)).await.read(), "SELECT count(*) FROM shop.things").await, 0);
            connect(Postgres::new(url)).await.read().execute_unprepared("DROP TABLE shop.things").await.unwrap();
        }
    })
    .await;
}
