//! The row that identifies the installation.
//!
//! It stores the installation's id, its blob store, the program versions that may use it, and the state of the shared
//! cache. `restore` and `migrate fresh` give a database a new id, so that no cache entry, message or blob store
//! outlives the data that it was made from.

use sea_orm::{ConnectionTrait, QueryResult};
use uuid::Uuid;

use crate::{
    db::{
        Database, Error,
        connection::beside::{Beside, Unanswered},
        statement::query,
    },
    domain::InstallationId,
};

/// The row of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The id of the installation.
    pub id: InstallationId,
    /// The id in the marker of the installation's blob store; `None` until one is chosen.
    pub blob_store: Option<String>,
    /// The oldest version of `pm` that may use this schema.
    pub needs_program: String,
    /// The state of the shared cache.
    pub cache: CacheEpoch,
}

/// Epoch of the shared cache, which decides which entries may be read.
/// Every change of server begins a new epoch, and keys contain their epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEpoch {
    /// The number of the epoch, which only grows.
    pub number: i64,
    /// The Redis server of this epoch; `None` while no server may be read.
    pub server: Option<String>,
    /// The phase of the change to this epoch.
    pub phase: CachePhase,
}

/// Phase of the change to an epoch. Before each phase every process has had time to notice the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePhase {
    /// Some process may still read entries of the previous epoch: writers wait.
    Closing = 0,
    /// No process reads the cache.
    Closed = 1,
    /// Entries of this epoch may be read.
    Open = 2,
    /// No process reads the cache, and no process relies on that yet.
    Unused = 3,
}

const COLUMNS: &str = "id, blob_store, needs_program, cache_epoch, cache_server, cache_phase";

/// Reads the row.
///
/// # Errors
/// [`Error::Corrupt`] if it is missing.
pub async fn read(connection: &impl ConnectionTrait) -> Result<Installation, Error> {
    let rows = query(connection, &one_row(), Vec::new()).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("the table `installation` has no row".into()))?;
    installation_of(row)
}

/// Reads the row over the separate connection.
///
/// # Errors
/// [`Unanswered`]; an invalid row counts as no answer.
pub async fn read_beside(database: &Database, beside: &Beside) -> Result<Installation, Unanswered> {
    let row = database.ask_beside(beside, &one_row()).await?;
    installation_of(&row).map_err(Unanswered::Silent)
}

/// Returns whether uploaded originals may have the same kind of keys as renditions.
///
/// # Errors
/// [`Error::Corrupt`] if the row is missing.
pub async fn has_plain_originals(connection: &impl ConnectionTrait) -> Result<bool, Error> {
    const ASK: &str = "SELECT plain_originals FROM installation WHERE singleton = 1";
    let rows = query(connection, ASK, Vec::new()).await?;
    let row = rows.first().ok_or_else(|| Error::Corrupt("the table `installation` has no row".into()))?;
    Ok(row.try_get::<i64>("", "plain_originals")? != 0)
}

fn one_row() -> String {
    format!("SELECT {COLUMNS} FROM installation WHERE singleton = 1")
}

/// Changes the epoch `from` to `to`; `false` if the epoch or the installation has changed meanwhile.
pub async fn change_cache_epoch(
    connection: &impl ConnectionTrait,
    id: &InstallationId,
    from: &CacheEpoch,
    to: &CacheEpoch,
) -> Result<bool, Error> {
    const CHANGE: &str = "UPDATE installation SET cache_epoch = $1, cache_server = $2, cache_phase = $3
        WHERE singleton = 1 AND id = $4 AND cache_epoch = $5 AND cache_phase = $6 RETURNING cache_epoch";
    let values = vec![
        to.number.into(),
        to.server.clone().into(),
        (to.phase as i64).into(),
        id.as_str().into(),
        from.number.into(),
        (from.phase as i64).into(),
    ];
    Ok(!query(connection, CHANGE, values).await?.is_empty())
}

/// Gives the installation a new id and closes the shared cache.
/// Old entries are then never read.
pub async fn renew(connection: &impl ConnectionTrait) -> Result<InstallationId, Error> {
    const RENEW: &str = "UPDATE installation SET id = $1, cache_epoch = cache_epoch + 1, cache_server = NULL,
            cache_phase = $2
        WHERE singleton = 1 RETURNING cache_epoch";
    let id = InstallationId::new(Uuid::new_v4());
    let values = vec![id.as_str().into(), (CachePhase::Closing as i64).into()];
    match query(connection, RENEW, values).await?.is_empty() {
        false => Ok(id),
        true => Err(Error::Corrupt("the table `installation` has no row".into())),
    }
}

fn installation_of(row: &QueryResult) -> Result<Installation, Error> {
    let phase = match row.try_get::<i64>("", "cache_phase")? {
        0 => CachePhase::Closing,
        1 => CachePhase::Closed,
        2 => CachePhase::Open,
        3 => CachePhase::Unused,
        other => return Err(Error::Corrupt(format!("installation.cache_phase is {other}"))),
    };
    Ok(Installation {
        id: InstallationId::stored(row.try_get("", "id")?),
        blob_store: row.try_get("", "blob_store")?,
        needs_program: row.try_get("", "needs_program")?,
        cache: CacheEpoch { number: row.try_get("", "cache_epoch")?, server: row.try_get("", "cache_server")?, phase },
    })
}
