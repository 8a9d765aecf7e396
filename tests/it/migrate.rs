//! Migrations up, down and up again on both databases.

use pm::db::{Config, Database, Error, Postgres, migrate};
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
    assert_eq!(missing.len(), 1, "one migration was reverted");

    migrate::down(database, None).await.unwrap();
    migrate::up(database, None).await.unwrap();
    assert!(migrate::is_current(database).await.unwrap());
    database.read().execute_unprepared(insert).await.expect("the tables are there again, and empty");
    migrate::up(database, None).await.expect("going up where everything is applied does nothing");
}

async fn an_error_is_no_empty_database(database: &Database) {
    migrate::up(database, None).await.unwrap();
    let connection = database.read();
    connection.execute_unprepared("ALTER TABLE seaql_migrations RENAME COLUMN version TO hidden").await.unwrap();
    migrate::status(database).await.expect_err("what is applied cannot be read");
    migrate::up(database, None).await.expect_err("what is missing is not known");
    connection.execute_unprepared("ALTER TABLE seaql_migrations RENAME COLUMN hidden TO version").await.unwrap();
    assert!(migrate::is_current(database).await.unwrap());

    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_of_a_newer_version', 1)";
    connection.execute_unprepared(newer).await.unwrap();
    assert!(migrate::is_current(database).await.unwrap(), "every known step is applied still");
    assert_eq!(migrate::unknown(database).await.unwrap(), ["m9999_of_a_newer_version"]);
    assert_eq!(migrate::applied(database).await.unwrap().len(), migrate::known().len() + 1);
    for refused in [migrate::up(database, None).await, migrate::down(database, None).await] {
        let Err(Error::NewerSchema(steps)) = refused else { panic!("it is refused: {refused:?}") };
        assert_eq!(steps, ["m9999_of_a_newer_version"]);
    }
}

#[tokio::test]
async fn an_error_is_not_an_empty_database_on_sqlite() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("pm.db");
    an_error_is_no_empty_database(&Database::connect(&Config::Sqlite { path }).await.unwrap()).await;
}

#[tokio::test]
async fn an_error_is_not_an_empty_database_on_postgres() {
    with_postgres(async |database| an_error_is_no_empty_database(database).await).await;
}

async fn with_postgres(test: impl AsyncFnOnce(&Database)) {
    let Some(server) = support::postgres_url().await else { return };
    let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
    app::create_database(&server, &name).await;
    let url = app::database_url(&server, &name);
    let database = Database::connect(&Config::Postgres(Postgres::new(url))).await.unwrap();
    test(&database).await;
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    app::admin(&server).await.read().execute_unprepared(&drop).await.unwrap();
}

#[tokio::test]
async fn sqlite_migrates_up_down_and_up_again() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("pm.db");
    goes_up_down_and_up_again(&Database::connect(&Config::Sqlite { path }).await.unwrap()).await;
}

#[tokio::test]
async fn postgres_migrates_up_down_and_up_again() {
    with_postgres(async |database| goes_up_down_and_up_again(database).await).await;
}

#[tokio::test]
async fn several_processes_can_migrate_concurrently() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("pm.db");
    let all = (0..4).map(|_| async {
        let database = Database::connect(&Config::Sqlite { path: path.clone() }).await.unwrap();
        migrate::up(&database, None).await.unwrap();
        assert!(migrate::is_current(&database).await.unwrap());
    });
    futures_util::future::join_all(all).await;
}
