//! The number of database connections, and a start when none is free.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use assert_cmd::cargo::cargo_bin;
use futures_util::future::join_all;
use pm::db::{Config, Database, Pooler, Postgres, migrate};
use sea_orm::{
    ConnectionTrait as _, Statement,
    sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions},
};

use super::{connect, eventually, number, with_database};
use crate::support::{self, app};

const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_close_after_a_burst_despite_light_traffic() {
    with_database(async |url| {
        let database = connect(Postgres { idle_timeout: Duration::from_secs(1), ..Postgres::new(url) }).await;
        let observer = connect(Postgres { max_connections: 1, ..Postgres::new(url) }).await.read();
        let sleep = || Statement::from_string(sea_orm::DbBackend::Postgres, "SELECT 1 AS done, pg_sleep(0.5)");
        let burst = join_all((0..16).map(|_| {
            let connection = database.read();
            async move { connection.query_one_raw(sleep()).await.unwrap() }
        }));
        let looked = async {
            eventually("the burst has its connections", async || number(&observer, CONNECTIONS).await >= 12).await;
        };
        tokio::join!(burst, looked);
        // The driver would use the connections in turn, so that none is idle for long.
        eventually("the burst's connections are closed", async || {
            assert_eq!(number(&database.read(), "SELECT 1::bigint").await, 1);
            number(&observer, CONNECTIONS).await <= 3
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_statement_timeout_is_retryable() {
    with_database(async |url| {
        let database = connect(Postgres { statement_timeout: Duration::from_millis(100), ..Postgres::new(url) }).await;
        let slow = database.read().execute_unprepared("SELECT pg_sleep(10)").await.unwrap_err();
        assert!(pm::db::Error::from(slow).is_transient());
        let write = database.begin().await.unwrap();
        write.execute_unprepared("SELECT pg_sleep(10)").await.unwrap_err();
        migrate::up(&database, None).await.unwrap();
    })
    .await;
}

/// The next user of the connection would be inside the transaction, and its writes would never be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canceled_begin_leaves_no_open_transaction() {
    with_database(async |url| {
        let observer = connect(Postgres { max_connections: 1, ..Postgres::new(url) }).await.read();
        observer.execute_unprepared("CREATE TABLE notes (text TEXT)").await.unwrap();
        for pooler in [Pooler::Off, Pooler::Transaction] {
            let database = connect(Postgres { max_connections: 1, pooler, ..Postgres::new(url) }).await;
            for polls in 1..12 {
                {
                    let mut begin = std::pin::pin!(database.begin());
                    for _ in 0..polls {
                        if futures_util::poll!(begin.as_mut()).is_ready() {
                            break;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                let before = number(&observer, "SELECT count(*) FROM notes").await;
                database.read().execute_unprepared("INSERT INTO notes VALUES ('kept')").await.unwrap();
                let after = number(&observer, "SELECT count(*) FROM notes").await;
                assert_eq!(after, before + 1, "{pooler:?}, cut off after {polls} polls");
            }
        }
    })
    .await;
}

/// Stops at the end of the test.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the URL of a database that allows two connections, for a role that is not a superuser.
async fn with_room_for_two(test: impl AsyncFnOnce(&str)) {
    let Some(server) = support::postgres_url().await else { return };
    let admin = app::admin(&server).await.read();
    let name = format!("pm_test_{}", uuid::Uuid::new_v4().simple());
    let is_superuser =
        number(&admin, "SELECT rolsuper::int::bigint FROM pg_roles WHERE rolname = current_user").await == 1;
    let mut url = url::Url::parse(&app::database_url(&server, &name)).unwrap();
    if is_superuser {
        admin.execute_unprepared(&format!("CREATE ROLE {name} LOGIN PASSWORD '{name}'")).await.unwrap();
        url.set_username(&name).unwrap();
        url.set_password(Some(&name)).unwrap();
    }
    let owner = if is_superuser { format!("OWNER {name}") } else { String::new() };
    admin.execute_unprepared(&format!("CREATE DATABASE {name} {owner}")).await.unwrap();
    let before = connect(Postgres::new(url.as_str())).await;
    migrate::up(&before, None).await.unwrap();
    drop(before);
    admin.execute_unprepared(&format!("ALTER DATABASE {name} CONNECTION LIMIT 2")).await.unwrap();
    let outcome = std::panic::AssertUnwindSafe(test(url.as_str()));
    let outcome = futures_util::FutureExt::catch_unwind(outcome).await;
    admin.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    if is_superuser {
        admin.execute_unprepared(&format!("DROP ROLE {name}")).await.unwrap();
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_logs_and_waits_when_no_connection_is_free() {
    with_room_for_two(async |url| {
        let mut holders = Vec::new();
        let options: PgConnectOptions = url.parse().unwrap();
        // The connections of the migration may take a moment to close.
        while holders.len() < 2 {
            match PgConnection::connect_with(&options).await {
                Ok(connection) => holders.push(connection),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let max_wait = Some(Duration::from_millis(300));
        let command = Config::Postgres(Postgres { max_wait, ..Postgres::new(url) });
        let refused = Database::connect(&command).await.expect_err("a command waits for a moment only");
        assert!(refused.is_transient() && refused.lacks_connections(), "{refused}");
        let directory = tempfile::tempdir().unwrap();
        let mut listing = Command::new(cargo_bin!("pm"));
        listing.env_clear().env("DATABASE_URL", url).current_dir(directory.path()).args(["product", "list"]);
        let listing = tokio::task::spawn_blocking(move || listing.output().unwrap()).await.unwrap();
        let printed = String::from_utf8(listing.stderr).unwrap();
        assert_eq!(listing.status.code(), Some(5), "{printed}");
        assert!(
            printed.contains("hint: raise max_connections") && printed.contains("PM_DATABASE_MAX_CONNECTIONS"),
            "{printed}"
        );

        let directory = tempfile::tempdir().unwrap();
        let mut worker = Command::new(cargo_bin!("pm"));
        worker.env_clear().env("DATABASE_URL", url).env("PM_LOG_FORMAT", "pretty").current_dir(directory.path());
        worker.args(["worker", "--concurrency", "1"]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut worker = Worker(worker.spawn().unwrap());
        let mut lines = BufReader::new(worker.0.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (mut lines, said) = tokio::task::spawn_blocking(move || {
            let said = lines.find(|line| line.contains("no free connection"));
            (lines, said)
        })
        .await
        .unwrap();
        said.expect("it logs that it waits");
        assert!(worker.0.try_wait().unwrap().is_none(), "it continues to wait");
        drop(holders);
        let working = tokio::task::spawn_blocking(move || lines.find(|line| line.contains("working on images")));
        working.await.unwrap().expect("it begins to work");
    })
    .await;
}
