//! Opens the database: creates or migrates the catalog, and detects copied databases.

use std::io;

use super::{Error, store::absolute};
use crate::{
    config::{DatabaseConnections, DatabaseUrl, Settings},
    db::{
        self, Database,
        maintenance::{
            identity::{self, Settled},
            schema::{self, SchemaState},
        },
        migrate,
    },
    private_files,
};

/// Whether a command may create or migrate the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Creates a missing catalog and migrates an older schema: `pm serve`.
    Serve,
    /// Creates a missing catalog, but migrates no schema: commands that add data.
    Create,
    /// Uses an existing catalog: every other command.
    Existing,
}

/// Opens the database; with `make`, creates a missing file and its directory.
///
/// # Errors
/// [`Error::NoCatalog`] if the file is missing and `make` is false.
pub async fn open_database(settings: &Settings, make: bool) -> Result<Database, Error> {
    let config = match &settings.database {
        DatabaseUrl::Sqlite { path } if make => {
            if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
                let path = directory.to_owned();
                let made = tokio::task::spawn_blocking(move || private_files::create_dir_all(&path)).await;
                let made = made.map_err(io::Error::other).flatten();
                made.map_err(|source| Error::DataDirectory { path: directory.to_owned(), source })?;
            }
            db::Config::Sqlite { path: path.clone() }
        }
        DatabaseUrl::Sqlite { path } => {
            let there = tokio::fs::try_exists(path).await;
            if !there.map_err(|source| Error::DataDirectory { path: path.clone(), source })? {
                let place = format!("{} does not exist", absolute(path).display());
                return Err(Error::NoCatalog { place, serve_creates: settings.auto_migrate });
            }
            db::Config::Sqlite { path: path.clone() }
        }
        DatabaseUrl::Postgres { url } => db::Config::Postgres(postgres(url, &settings.database_connections)),
    };
    Ok(Database::connect(&config).await?)
}

fn postgres(url: &str, connections: &DatabaseConnections) -> db::Postgres {
    let defaults = db::Postgres::new(url);
    db::Postgres {
        direct_url: connections.direct_url.clone(),
        pooler: connections.pooler,
        max_connections: connections.max,
        idle_timeout: connections.idle_timeout,
        statement_timeout: connections.statement_timeout,
        connect_timeout: connections.connect_timeout,
        max_wait: if connections.wait { None } else { defaults.max_wait },
        ..defaults
    }
}

/// Opens the database and checks that this version supports its schema.
///
/// # Errors
/// [`Error::NoCatalog`], [`Error::OldSchema`] or [`Error::NewSchema`] if `access` does not allow a migration, or a
/// migration does not help.
pub(super) async fn open_catalog(settings: &Settings, access: Access) -> Result<Database, Error> {
    let database = open_database(settings, access != Access::Existing).await?;
    let migrates = settings.auto_migrate;
    match (schema::state(&database).await?, access) {
        (SchemaState::Current, _) => {}
        (SchemaState::Missing, Access::Serve | Access::Create) if migrates => migrate::up(&database, None).await?,
        (SchemaState::Older { .. }, Access::Serve) if migrates => migrate::up(&database, None).await?,
        (SchemaState::Missing, _) => {
            let place = format!("{} is empty", settings.database);
            return Err(Error::NoCatalog { place, serve_creates: migrates });
        }
        (SchemaState::Older { missing, of }, _) => return Err(Error::OldSchema { missing, of }),
        (SchemaState::Newer { needs }, _) => return Err(Error::NewSchema { needs }),
    }
    settle_identity(&database, access != Access::Existing).await?;
    Ok(database)
}

/// Gives a copied database a new installation id.
///
/// With `notes`, records the identity of a database that has none recorded.
pub async fn settle_identity(database: &Database, notes: bool) -> Result<(), Error> {
    if let Settled::Copied { from, id } = identity::settle(database, notes).await? {
        tracing::warn!("the database is a copy of installation {from}, or was moved; it is now installation {id}");
    }
    Ok(())
}
