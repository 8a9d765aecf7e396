//! Bringing the schema up and down. What is applied is read by our own statements, so that an error is never taken for an
//! empty database.

use std::time::{Duration, Instant};

use migration::{MigrationTrait, Migrator, MigratorTrait, SchemaManager};
use sea_orm::{ConnectionTrait, DbBackend, Statement};

use crate::{
    clock::Timestamp,
    db::{
        Database, Error, Write,
        connection::installation,
        products::words,
        statement::{query, query_one},
    },
};

/// A step of the schema's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
    /// Whether this version has it; a newer version applied the others.
    pub known: bool,
}

/// A step that cannot be carried out because others use the tables is tried again for this long.
const STEP_PATIENCE: Duration = Duration::from_secs(60);

/// Every step of this version with its state, oldest first, and then the applied steps that only a newer version knows.
pub async fn status(database: &Database) -> Result<Vec<Step>, Error> {
    let (applied, known) = (applied(database).await?, known());
    let unknown: Vec<_> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    let known = known.into_iter().map(|name| Step { applied: applied.contains(&name), name, known: true });
    Ok(known.chain(unknown.into_iter().map(|name| Step { name, applied: true, known: false })).collect())
}

/// The names of the steps that the database has, oldest first, also of those that only a newer version knows. None means
/// that the catalogue of the database was read and has no schema of `pm`.
pub async fn applied(database: &Database) -> Result<Vec<String>, Error> {
    applied_in(&database.read()).await
}

/// The names of applied steps that this version does not know, oldest first: a newer version applied them.
pub async fn unknown(database: &Database) -> Result<Vec<String>, Error> {
    let known = known();
    Ok(applied(database).await?.into_iter().filter(|name| !known.contains(name)).collect())
}

/// The names of every step that this version has, oldest first.
pub fn known() -> Vec<String> {
    Migrator::migrations().iter().map(|step| step.name().to_owned()).collect()
}

/// Whether the database has every step.
pub async fn is_current(database: &Database) -> Result<bool, Error> {
    Ok(status(database).await?.iter().all(|step| step.applied))
}

/// Applies the next `steps`, or all that are missing. Several processes may do so at the same time, beside others that read and
/// write: each step is one transaction that first looks whether it is applied. Products that an older version stored get what
/// newer steps keep of them.
///
/// # Errors
/// [`Error::NewerSchema`] if the database has steps that this version does not know. If a step fails; the steps before it
/// stay applied.
pub async fn up(database: &Database, steps: Option<u32>) -> Result<(), Error> {
    let database = &database.direct().await?;
    const TABLE: &str = "CREATE TABLE IF NOT EXISTS seaql_migrations (version VARCHAR NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)";
    let applied = ensure_known(database).await?;
    patiently(async || {
        let write = begin(database).await?;
        write.execute_unprepared(TABLE).await?;
        commit(database, write).await
    })
    .await?;
    let missing: Vec<_> =
        Migrator::migrations().into_iter().filter(|step| !applied.iter().any(|name| name == step.name())).collect();
    for step in missing.iter().take(most(steps)) {
        patiently(async || apply(database, step.as_ref()).await).await?;
    }
    fill(database).await
}

/// Takes back the last `steps`, or all. The tables' content is lost.
///
/// # Errors
/// [`Error::NewerSchema`] if the database has steps that this version does not know. If a step fails.
pub async fn down(database: &Database, steps: Option<u32>) -> Result<(), Error> {
    let database = &database.direct().await?;
    let applied = ensure_known(database).await?;
    let present: Vec<_> =
        Migrator::migrations().into_iter().filter(|step| applied.iter().any(|name| name == step.name())).collect();
    for step in present.iter().rev().take(most(steps)) {
        patiently(async || take_back(database, step.as_ref()).await).await?;
    }
    Ok(())
}

fn most(steps: Option<u32>) -> usize {
    steps.and_then(|steps| usize::try_from(steps).ok()).unwrap_or(usize::MAX)
}

/// Returns the applied steps, all of which this version knows.
///
/// # Errors
/// [`Error::NewerSchema`] if the database has steps that this version does not know.
pub async fn ensure_known(database: &Database) -> Result<Vec<String>, Error> {
    let (applied, known) = (applied(database).await?, known());
    let steps: Vec<_> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    if steps.is_empty() {
        return Ok(applied);
    }
    Err(Error::NewerSchema(steps))
}

/// Returns the oldest version of `pm` that may use a schema with the steps `applied`; `None` if it does not say.
pub(super) async fn needed_program(database: &Database, applied: &[String]) -> Result<Option<String>, Error> {
    if !holds_installation(applied) {
        return Ok(None);
    }
    Ok(Some(installation::read(&database.read()).await?.needs_program))
}

/// Whether a schema with the steps `applied` has a row that says which installation it is.
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
        tracing::info!("applied the step {} of the schema", step.name());
    }
    commit(database, write).await
}

async fn take_back(database: &Database, step: &dyn MigrationTrait) -> Result<(), Error> {
    const FORGET: &str = "DELETE FROM seaql_migrations WHERE version = $1";
    let write = begin(database).await?;
    if applied_in(&*write).await?.iter().any(|name| name == step.name()) {
        step.down(&SchemaManager::new(write.inner()?)).await?;
        let values = [step.name().into()];
        write.execute_raw(Statement::from_sql_and_values(write.get_database_backend(), FORGET, values)).await?;
        tracing::info!("took back the step {} of the schema", step.name());
    }
    commit(database, write).await
}

/// Begins the transaction of a step; on PostgreSQL one process is at it at a time. A step that waits for a table makes all others
/// wait that come after it, so it gives up soon, and before the server would end one of two that wait for each other.
async fn begin(database: &Database) -> Result<Write, Error> {
    const ALONE: &str = "SELECT pg_advisory_xact_lock(1886191619)";
    let write = database.begin_for_schema().await?;
    if write.get_database_backend() == DbBackend::Postgres {
        write.execute_unprepared("SET LOCAL lock_timeout = '500ms'").await?;
        write.execute_unprepared(ALONE).await?;
    }
    Ok(write)
}

/// Ends a transaction of [`begin`]. Behind a pooler its named statements must not stay in a session that others get next.
async fn commit(database: &Database, write: Write) -> Result<(), Error> {
    if database.is_pooled() {
        write.execute_unprepared("DEALLOCATE ALL").await?;
    }
    write.commit().await
}

/// Repeats `work` as long as it fails by something that passes.
async fn patiently(work: impl AsyncFn() -> Result<(), Error>) -> Result<(), Error> {
    const PAUSE: Duration = Duration::from_millis(200);
    let began = Instant::now();
    loop {
        match work().await {
            Err(error) if error.is_transient() && began.elapsed() < STEP_PATIENCE => {
                tracing::debug!(%error, "a step of the schema is tried again");
            }
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn applied_in(connection: &impl ConnectionTrait) -> Result<Vec<String>, Error> {
    // What is not in the catalogue is not there; every other error is one.
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

/// Notes the words of products that were there before words were noted, as far as the schema is there. It may be ended in
/// the midst of it and goes on the next time.
async fn fill(database: &Database) -> Result<(), Error> {
    const STEP: &str = "m0010_product_words";
    if !applied(database).await?.iter().any(|name| name == STEP) {
        return Ok(());
    }
    words::fill_all(&database.read()).await
}
