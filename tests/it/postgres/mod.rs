//! PostgreSQL in production: behind PgBouncer, beside transactions of other clients, and with few connections.

mod connections;
mod order;
mod pooler;

use std::time::Duration;

use pm::db::{Connection, Database};
use sea_orm::{ConnectionTrait as _, Statement};

use crate::support::{self, app};

/// Runs `test` with the URL of a new database; skipped without PostgreSQL.
async fn with_database(test: impl AsyncFnOnce(&str)) {
    let Some(server) = support::postgres_url().await else { return };
    let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
    app::create_database(&server, &name).await;
    let url = app::database_url(&server, &name);
    let outcome = std::panic::AssertUnwindSafe(test(&url));
    let outcome = futures_util::FutureExt::catch_unwind(outcome).await;
    let drop = format!("DROP DATABASE {name} WITH (FORCE)");
    app::admin(&server).await.read().execute_unprepared(&drop).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn number(connection: &Connection, sql: &str) -> i64 {
    let statement = Statement::from_string(connection.get_database_backend(), sql);
    connection.query_one_raw(statement).await.unwrap().unwrap().try_get_by_index(0).unwrap()
}

/// Waits until `holds` returns true, for at most a minute.
async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    for _ in 0..3_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not reached within a minute: {what}");
}

async fn connect(postgres: pm::db::Postgres) -> Database {
    Database::connect(&pm::db::Config::Postgres(postgres)).await.unwrap()
}
