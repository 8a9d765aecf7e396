//! Bringing the schema up and down.

use std::time::Duration;

use migration::{Migrator, MigratorTrait};

use crate::db::{Database, Error, schema::Access, words};

/// A step of the schema's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// Every step with its state, oldest first.
///
/// # Errors
/// If the database does not answer.
pub async fn status(database: &Database) -> Result<Vec<Step>, Error> {
    // Only `install` makes the table that the state is read from; asking must not change an empty database.
    let applied = match Access::reading(database).await?.applied().await {
        Ok(steps) => steps,
        Err(error) => {
            database.check().await?;
            tracing::debug!(%error, "no schema yet");
            Vec::new()
        }
    };
    Ok(Migrator::get_migration_files()
        .iter()
        .map(|step| Step { name: step.name().to_owned(), applied: applied.iter().any(|name| name == step.name()) })
        .collect())
}

/// The names of every step that this version has, oldest first.
pub fn known() -> Vec<String> {
    Migrator::get_migration_files().iter().map(|step| step.name().to_owned()).collect()
}

/// Whether the database has every step.
///
/// # Errors
/// If the database does not answer.
pub async fn is_current(database: &Database) -> Result<bool, Error> {
    Ok(status(database).await?.iter().all(|step| step.applied))
}

/// Applies the next `steps`, or all that are missing. Several processes may do so at the same time: each step is one
/// transaction, so whoever comes second fails, looks again, and finds it applied. Products that an older version stored get
/// what newer steps keep of them.
///
/// # Errors
/// If a step fails; the steps before it stay applied.
pub async fn up(database: &Database, steps: Option<u32>) -> Result<(), Error> {
    const TRIES: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(100);
    let mut tries = 1;
    loop {
        match Access::open(database).await?.up(steps).await {
            Ok(()) => break,
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(PAUSE).await;
    }
    fill(database).await
}

/// Notes the words of products that were there before words were noted, as far as the schema is there. It may be ended in
/// the midst of it and goes on the next time.
async fn fill(database: &Database) -> Result<(), Error> {
    const STEP: &str = "m0010_product_words";
    if !status(database).await?.iter().any(|step| step.applied && step.name == STEP) {
        return Ok(());
    }
    words::fill_all(&database.read()).await
}

/// Takes back the last `steps`, or all. The tables' content is lost.
///
/// # Errors
/// If a step fails.
pub async fn down(database: &Database, steps: Option<u32>) -> Result<(), Error> {
    Access::open(database).await?.down(steps).await.map_err(Error::from)
}
