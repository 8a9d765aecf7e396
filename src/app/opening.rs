//! Opening the database: which commands make or migrate a catalogue, and whether it is where it was.

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

/// What a command may do to the place where the catalogue is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Make a catalogue, and bring the schema of an older one up to date: `pm serve`.
    Serve,
    /// Make a catalogue where there is none, and change no schema: commands that add something.
    Create,
    /// Use a catalogue that is there: every other command.
    Existing,
}

/// Opens the database. Its file and directory are made if `make` says so.
///
/// # Errors
/// [`Error::NoCatalogue`] if there is no file and none may be made; if it cannot be reached.
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
                return Err(Error::NoCatalogue { place: format!("{} does not exist", absolute(path).display()) });
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
        patience: if connections.wait { None } else { defaults.patience },
        ..defaults
    }
}

/// Opens the database with a schema that this program can work with.
///
/// # Errors
/// [`Error::NoCatalogue`], [`Error::OldSchema`] or [`Error::NewSchema`] if there is none and `access` changes nothing about
/// that.
pub(super) async fn open_catalogue(settings: &Settings, access: Access) -> Result<Database, Error> {
    let database = open_database(settings, access != Access::Existing).await?;
    let migrates = settings.auto_migrate;
    match (schema::state(&database).await?, access) {
        (SchemaState::Current, _) => {}
        (SchemaState::Missing, Access::Serve | Access::Create) if migrates => migrate::up(&database, None).await?,
        (SchemaState::Older { .. }, Access::Serve) if migrates => migrate::up(&database, None).await?,
        (SchemaState::Missing, _) => {
            return Err(Error::NoCatalogue { place: format!("{} is empty", settings.database) });
        }
        (SchemaState::Older { missing, of }, _) => return Err(Error::OldSchema { missing, of }),
        (SchemaState::Newer { needs }, _) => return Err(Error::NewSchema { needs }),
    }
    settle_identity(&database, access != Access::Existing).await?;
    Ok(database)
}

/// Gives a copied database an installation id of its own; `notes` says whether a database that was never noted is noted.
///
/// # Errors
/// If the database does not answer.
pub async fn settle_identity(database: &Database, notes: bool) -> Result<(), Error> {
    if let Settled::Copied { from, id } = identity::settle(database, notes).await? {
        tracing::warn!(
            "the database is a copy of installation {from}, or was moved; it is installation {id} from now on"
        );
    }
    Ok(())
}
