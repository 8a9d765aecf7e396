//! Reports which products changed in a SQLite file, whichever process changed them.
//!
//! A separate connection runs `PRAGMA data_version`, which SQLite answers from shared memory in microseconds. Only if
//! another connection committed does it read the log of changed products, which every writing transaction appends to.
//! It never writes and never waits for a writer.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use sea_orm::DbErr;

use crate::{db::Error, domain::ProductId};

/// Changes since the last poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// No product changed.
    None,
    /// These products changed.
    Products(Vec<ProductId>),
    /// More changed than the log holds: any product may have changed.
    Everything,
}

/// Reads the log of changed products of one SQLite file.
#[derive(Debug)]
pub struct ChangeLog {
    connection: Connection,
    data_version: i64,
    last_entry: i64,
    installation: String,
}

impl ChangeLog {
    /// Opens the database at `path` for reading; earlier changes are not reported.
    /// The program has opened the file before, so a missing file counts as unavailable.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the file cannot be opened or is locked, [`Error::Statement`] if it has no schema.
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
        // Only the reads at startup may wait for a lock.
        connection.busy_timeout(Duration::from_secs(5))?;
        let data_version = data_version(&connection)?;
        let (last_entry, installation) = (last_entry(&connection)?, installation(&connection)?);
        connection.busy_timeout(Duration::from_millis(100))?;
        Ok(Self { connection, data_version, last_entry, installation })
    }

    /// Returns the changes since the last call; takes microseconds if there are none.
    ///
    /// # Errors
    /// If the database cannot be read. Nothing is then marked as reported, and any product may have changed.
    pub fn poll(&mut self) -> Result<Changes, rusqlite::Error> {
        let data_version = data_version(&self.connection)?;
        if data_version == self.data_version {
            return Ok(Changes::None);
        }
        let newest = last_entry(&self.connection)?;
        // Entry numbers restart in an emptied catalog, so the installation's id is compared too.
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

/// Returns the newest entry's number, which SQLite keeps after the entry is deleted.
fn last_entry(connection: &Connection) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'cache_invalidation'")?
        .query_row([], |row| row.get(0))
}
