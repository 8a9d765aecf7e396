//! Which products changed in a SQLite file since the last look, whoever changed them.
//!
//! A connection of its own asks `PRAGMA data_version`, which SQLite answers from shared memory in microseconds. Only when
//! another connection committed does it read the log of changed products that every writing transaction appends to.
//! It never writes, and it never waits for a writer.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use sea_orm::DbErr;

use crate::{db::Error, domain::ProductId};

/// What changed since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// No product changed.
    None,
    /// These products changed.
    Products(Vec<ProductId>),
    /// More changed than the log still holds: any product may have.
    Everything,
}

/// Follows the log of changed products of one SQLite file.
#[derive(Debug)]
pub struct ChangeLog {
    connection: Connection,
    data_version: i64,
    last_entry: i64,
    installation: String,
}

impl ChangeLog {
    /// Opens the database at `path` for reading; everything up to now counts as seen. The program has opened it before, so a file
    /// that is not there is away.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be opened or is locked, [`Error::Statement`] if it has no schema yet.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_file(path).map_err(|error| {
            let passes = matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::CannotOpen
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::FileLockingProtocolFailed
                        | ErrorCode::SchemaChanged
                )
            );
            let cause = DbErr::Custom(error.to_string());
            if passes { Error::Unavailable(cause) } else { Error::Statement(cause) }
        })
    }

    fn open_file(path: &Path) -> Result<Self, rusqlite::Error> {
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        // A program starts once; what it asks afterwards waits for nobody.
        connection.busy_timeout(Duration::from_secs(5))?;
        let data_version = data_version(&connection)?;
        let (last_entry, installation) = (last_entry(&connection)?, installation(&connection)?);
        connection.busy_timeout(Duration::from_millis(100))?;
        Ok(Self { connection, data_version, last_entry, installation })
    }

    /// What changed since the last call; a few microseconds when nothing did.
    ///
    /// # Errors
    /// If the database cannot be read; then nothing counts as seen and any product may have changed.
    pub fn poll(&mut self) -> Result<Changes, rusqlite::Error> {
        let data_version = data_version(&self.connection)?;
        if data_version == self.data_version {
            return Ok(Changes::None);
        }
        let newest = last_entry(&self.connection)?;
        // Numbers begin again in a catalogue that was emptied, so they alone do not tell it from the one before.
        let installation = installation(&self.connection)?;
        let changes = if installation != self.installation {
            Changes::Everything
        } else if newest == self.last_entry {
            Changes::None
        } else {
            let products = self.entries_between(self.last_entry, newest)?;
            let expected = usize::try_from(newest - self.last_entry).unwrap_or(usize::MAX);
            if products.len() == expected { Changes::Products(products) } else { Changes::Everything }
        };
        self.data_version = data_version;
        self.last_entry = newest;
        self.installation = installation;
        Ok(changes)
    }

    fn entries_between(&self, after: i64, up_to: i64) -> Result<Vec<ProductId>, rusqlite::Error> {
        self.connection
            .prepare_cached("SELECT product_id FROM cache_invalidation WHERE id > ?1 AND id <= ?2")?
            .query_map([after, up_to], |row| row.get(0).map(ProductId))?
            .collect()
    }
}

fn data_version(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn installation(connection: &Connection) -> Result<String, rusqlite::Error> {
    connection.prepare_cached("SELECT id FROM installation WHERE singleton = 1")?.query_row([], |row| row.get(0))
}

/// The number of the newest entry ever written: SQLite keeps it after the entry itself is gone.
fn last_entry(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'cache_invalidation'")?
        .query_row([], |row| row.get(0))
}
