//! The schema goes up, down and up again on both databases.

use pm::db::{Config, Database, Postgres, migrate};
use sea_orm::ConnectionTrait as _;

use crate::support::{self, app};

async fn goes_up_down_and_up_again(database: &Database) {
    assert!(migrate::status(database).await.unwrap().iter().all(|step| !step.applied), "a fresh database has no step");
    migrate::up(database, None).await.unwrap();
    assert!(migrate::is_current(database).await.unwrap());
    let insert = "INSERT INTO users (id, created_at) VALUES ('seller', 1)";
    database.read().execute_unprepared(insert).await.unwrap();

    migrate::down(database, Some(1)).await.unwrap();
    let missing: Vec<_> = migrate::status(database).await.unwrap().into_iter().filter(|step| !step.applied).collect();
    assert_eq!(missing.len(), 1, "one step was taken back");

    migrate::down(database, None).await.unwrap();
    migrate::up(database, None).await.unwrap();
    assert!(migrate::is_current(database).await.unwrap());
    database.read().execute_unprepared(insert).await.expect("the tables are there again, and empty");
    migrate::up(database, None).await.expect("going up where everything is applied does nothing");
}

#[tokio::test]
async fn sqlite_goes_up_down_and_up_again() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("pm.db");
    goes_up_down_and_up_again(&Database::connect(&Config::Sqlite { path }).await.unwrap()).await;
}

#[tokio::test]
async fn postgres_goes_up_down_and_up_again() {
    let Some(server) = support::postgres_url().await else { return };
    let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
    app::create_database(&server, &name).await;
    let url = app::database_url(&server, &name);
    let database = Database::connect(&Config::Postgres(Postgres::new(url))).await.unwrap();
    goes_up_down_and_up_again(&database).await;
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    app::admin(&server).await.read().execute_unprepared(&drop).await.unwrap();
}

#[tokio::test]
async fn several_processes_may_migrate_at_once() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("pm.db");
    let all = (0..4).map(|_| async {
        let database = Database::connect(&Config::Sqlite { path: path.clone() }).await.unwrap();
        migrate::up(&database, None).await.unwrap();
        assert!(migrate::is_current(&database).await.unwrap());
    });
    futures_util::future::join_all(all).await;
}
