//! Applies and reverts schema migrations.
//!
//! It reads the applied migrations with its own statements, so that an error is never mistaken for an empty database.

use std::time::{Duration, Instant};

use migration::{MigrationTrait, Migrator, MigratorTrait, SchemaManager};
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::{
    clock::Timestamp,
    db::{
        Database, Error, Write,
        connection::installation,
        products::terms,
        statement::{query, query_one},
    },
};

/// A schema migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The migration's name.
    pub name: String,
    /// Whether the database has applied it.
    pub applied: bool,
    /// Whether this version knows it; a newer version applied the others.
    pub known: bool,
}

/// How long a blocked migration is retried.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the migrations of this version with their states, oldest first.
/// Applied migrations of a newer version follow.
pub async fn status(database: &Database) -> Result<Vec<Step>, Error> {
    let (applied, known) = (applied(database).await?, known());
    let unknown: Vec<_> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    let known = known.into_iter().map(|name| Step { applied: applied.contains(&name), name, known: true });
    Ok(known.chain(unknown.into_iter().map(|name| Step { name, applied: true, known: false })).collect())
}

/// Returns the names of all applied migrations, oldest first.
/// They include migrations of a newer version.
/// An empty list means that the database was read and has no `pm` schema.
pub async fn applied(database: &Database) -> Result<Vec<String>, Error> {
    applied_in(&database.read()).await
}

/// Returns the applied migrations that this version does not know, oldest first.
pub async fn unknown(database: &Database) -> Result<Vec<String>, Error> {
    let known = known();
    Ok(applied(database).await?.into_iter().filter(|name| !known.contains(name)).collect())
}

/// Returns the names of this version's migrations, oldest first.
pub fn known() -> Vec<String> {
    Migrator::migrations().iter().map(|step| step.name().to_owned()).collect()
}

/// Returns whether the database has applied every migration.
pub async fn is_current(database: &Database) -> Result<bool, Error> {
    Ok(status(database).await?.iter().all(|step| step.applied))
}

/// Applies the next `steps` migrations, or all that are missing.
/// Several processes may do so at the same time, while others read and write: each migration is one transaction, which
/// first checks whether the migration is applied. It also fills the columns that newer migrations added to existing
/// products.
///
/// # Errors
/// [`Error::NewerSchema`] if the database has migrations that this version does not know. If a migration fails, the
/// ones before it stay applied.
pub async fn up(database: &Database, steps: Option<u32>) -> Result<(), Error> {
    let database = &database.direct().await?;
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS seaql_migrations (version VARCHAR NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)";
    let applied = ensure_known(database).await?;
    retry_until_timeout(async || {
        let write = begin(database).await?;
        write.execute_unprepared(TABLE).await?;
        commit(database, write).await
    })
    .await?;
    let missing: Vec<_> =
        Migrator::migrations().into_iter().filter(|step| !applied.iter().any(|name| name == step.name())).collect();
    for step in missing.iter().take(most(steps)) {
        retry_until_timeout(async || apply(database, step.as_ref()).await).await?;
    }
    fill(database).await
}

/// Reverts the last `steps` migrations, or all. This deletes the data of their tables.
///
/// # Errors
/// [`Error::NewerSchema`] if the database has migrations that this version does not know. If a migration fails.
pub async fn down(database: &Database, steps: Option<u32>) -> Result<(), Error> {
    let database = &database.direct().await?;
    let applied = ensure_known(database).await?;
    let present: Vec<_> =
        Migrator::migrations().into_iter().filter(|step| applied.iter().any(|name| name == step.name())).collect();
    for step in present.iter().rev().take(most(steps)) {
        retry_until_timeout(async || revert(database, step.as_ref()).await).await?;
    }
    Ok(())
}

fn most(steps: Option<u32>) -> usize {
    steps.and_then(|steps| usize::try_from(steps).ok()).unwrap_or(usize::MAX)
}

/// Returns the applied migrations if this version knows all of them.
///
/// # Errors
/// [`Error::NewerSchema`] if the database has migrations that this version does not know.
pub async fn ensure_known(database: &Database) -> Result<Vec<String>, Error> {
    let (applied, known) = (applied(database).await?, known());
    let steps: Vec<_> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    if steps.is_empty() {
        return Ok(applied);
    }
    Err(Error::NewerSchema(steps))
}

/// Returns the oldest version of `pm` that may use this schema, if recorded.
pub(super) async fn needed_program(database: &Database, applied: &[String]) -> Result<Option<String>, Error> {
    if !holds_installation(applied) {
        return Ok(None);
    }
    Ok(Some(installation::read(&database.read()).await?.needs_program))
}

/// Returns whether a schema with the migrations `applied` identifies its installation.
pub(super) fn holds_installation(applied: &[String]) -> bool {
    applied.iter().any(|name| name == "m0016_installation")
}

async fn apply(database: &Database, step: &dyn MigrationTrait) -> Result<(), Error> {
    const NOTE: &str = "INSERT INTO seaql_migrations (version, applied_at) VALUES ($1, $2)";
    let write = begin(database).await?;
    if !applied_in(&*write).await?.iter().any(|name| name == step.name()) {
        step.up(&SchemaManager::new(write.inner()?)).await?;
        let values = [step.name().into(), (Timestamp::now().0 / 1_000_000).into()];
        write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), NOTE, values)).await?;
        tracing::info!("applied schema migration {}", step.name());
    }
    commit(database, write).await
}

async fn revert(database: &Database, step: &dyn MigrationTrait) -> Result<(), Error> {
    const DELETE: &str = "DELETE FROM seaql_migrations WHERE version = $1";
    let write = begin(database).await?;
    if applied_in(&*write).await?.iter().any(|name| name == step.name()) {
        step.down(&SchemaManager::new(write.inner()?)).await?;
        let values = [step.name().into()];
        write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), DELETE, values)).await?;
        tracing::info!("reverted schema migration {}", step.name());
    }
    commit(database, write).await
}

/// Begins the transaction of a migration; on PostgreSQL one process at a time.
/// While a migration waits for a table lock, all later requests for the table wait too. Its lock timeout is therefore
/// short, and shorter than the server's deadlock timeout.
async fn begin(database: &Database) -> Result<Write, Error> {
    const ALONE: &str = "SELECT pg_advisory_xact_lock(1886191619)";
    let write = database.begin_for_schema().await?;
    if write.get_database_backend() == DbBackend::Postgres {
        write.execute_unprepared("SET LOCAL lock_timeout = '500ms'").await?;
        write.execute_unprepared(ALONE).await?;
    }
    Ok(write)
}

/// Commits a transaction of [`begin`].
/// Behind a pooler, it also deallocates the named statements, since another client may get the session next.
async fn commit(database: &Database, write: Write) -> Result<(), Error> {
    if database.is_pooled() {
        write.execute_unprepared("DEALLOCATE ALL").await?;
    }
    write.commit().await
}

/// Repeats `work` while it fails with a transient error.
async fn retry_until_timeout(work: impl AsyncFn() -> Result<(), Error>) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(200);
    let began = Instant::now();
    loop {
        match work().await {
            Err(error) if error.is_transient() && began.elapsed() < STEP_TIMEOUT => {
                tracing::debug!(%error, "retrying a schema migration");
            }
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn applied_in(connection: &impl ConnectionTrait) -> Result<Vec<String>, Error> {
    // Only a table missing from the catalog means "not there"; every other error is returned.
    const SQLITE: &str =
        "SELECT count(*) AS tables FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'";
    const POSTGRES: &str = "SELECT count(to_regclass('seaql_migrations')) AS tables";
    const APPLIED: &str = "SELECT version FROM seaql_migrations ORDER BY version";
    let postgres = connection.get_database_backend() == DbBackend::Postgres;
    let found = query_one(connection, if postgres { POSTGRES } else { SQLITE }, Vec::new()).await?;
    if found.try_get::<i64>("", "tables")? == 0 {
        return Ok(Vec::new());
    }
    let rows = query(connection, APPLIED, Vec::new()).await?;
    rows.iter().map(|row| Ok(row.try_get("", "version")?)).collect()
}

/// Stores the search terms of products that are older than the terms table.
/// It can be interrupted at any time and then continues on the next run.
async fn fill(database: &Database) -> Result<(), Error> {
    const STEP: &str = "m0010_product_words";
    if !applied(database).await?.iter().any(|name| name == STEP) {
        return Ok(());
    }
    terms::fill_all(&database.read()).await
}
