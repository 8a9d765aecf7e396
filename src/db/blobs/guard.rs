//! Locks that coordinate all processes that reference, remove or copy blobs.
//!
//! Referencing and removing exclude each other, and nothing is removed during a copy. PostgreSQL uses advisory locks,
//! which end with their transaction. SQLite uses its single writer, and a file beside the database that is locked
//! during a copy.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Deref,
    path::PathBuf,
    sync::Arc,
};

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement, TransactionOptions};

use crate::{
    db::{Database, Error, Transaction, Write},
    private_files,
};

/// Ids of the advisory locks within one PostgreSQL database: `pm` and a number.
const REFERRING: i64 = 0x706d_0001;
const COPYING: i64 = 0x706d_0002;

/// Keeps all blobs from being removed while it exists.
#[derive(Debug)]
pub struct Hold {
    transaction: Option<Transaction>,
    _file: Option<File>,
}

/// A transaction that may remove unreferenced blobs; until it ends no other may reference one.
#[derive(Debug)]
pub struct Removal {
    write: Write,
    _file: Option<File>,
}

/// Prevents blob removal until the transaction ends, which is about to reference blobs.
/// Waits for a running removal. The caller must check afterwards whether its blobs still exist. On SQLite the
/// transaction must be a writing one.
pub async fn refer(write: &Write) -> Result<(), Error> {
    if write.get_database_backend() == DbBackend::Postgres {
        lock(&**write, "SELECT pg_advisory_xact_lock_shared($1)", REFERRING).await?;
    }
    Ok(())
}

impl Database {
    /// Prevents all processes from removing blobs while the result exists.
    /// The result may be kept for up to an hour.
    /// Others may still add references.
    ///
    /// # Errors
    /// If the database does not answer, or its lock file cannot be created.
    pub async fn hold_blobs(&self) -> Result<Hold, Error> {
        if let Some(path) = &self.lock_file {
            let path = path.clone();
            let locked = tokio::task::spawn_blocking(move || {
                let file = open(&path)?;
                file.lock_shared().map(|()| file)
            });
            let file = locked.await.map_err(io::Error::other).and_then(|file| file).map_err(|e| of_io(&e))?;
            return Ok(Hold { transaction: None, _file: Some(file) });
        }
        let transaction = self.read().begin(TransactionOptions::default()).await?;
        // The transaction stays idle until it ends, and a server may end idle transactions.
        transaction.stay_idle().await?;
        lock(&transaction, "SELECT pg_advisory_xact_lock_shared($1)", COPYING).await?;
        Ok(Hold { transaction: Some(transaction), _file: None })
    }

    /// Begins a removal after waiting up to half a second for references in progress.
    /// Returns `None` while blobs are being copied.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if a reference took too long, or the database does not answer.
    pub async fn begin_removal(&self) -> Result<Option<Removal>, Error> {
        if let Some(path) = &self.lock_file {
            let Some(file) = open_alone(path).await? else { return Ok(None) };
            return Ok(Some(Removal { write: self.begin().await?, _file: Some(file) }));
        }
        let write = self.begin().await?;
        if !try_lock(&*write, COPYING).await? {
            return Ok(None);
        }
        // New references queue behind this lock request, so its timeout must be short.
        write.execute_unprepared("SET LOCAL lock_timeout = '500ms'").await?;
        lock(&*write, "SELECT pg_advisory_xact_lock($1)", REFERRING).await?;
        // Deleting from the store may take longer than the server's limit for idle transactions.
        write.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = '60s'").await?;
        Ok(Some(Removal { write, _file: None }))
    }
}

impl Hold {
    /// Allows blobs to be removed again. Dropping it has the same effect a little later.
    ///
    /// # Errors
    /// If the database does not answer. The lock is then already released.
    pub async fn release(self) -> Result<(), Error> {
        match self.transaction {
            Some(transaction) => transaction.commit().await,
            None => Ok(()),
        }
    }
}

impl Removal {
    /// Allows blobs to be referenced again.
    ///
    /// # Errors
    /// If the database does not answer. The lock is then already released.
    pub async fn end(self) -> Result<(), Error> {
        self.write.commit().await
    }
}

impl Deref for Removal {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.write
    }
}

async fn lock(connection: &impl ConnectionTrait, sql: &str, key: i64) -> Result<(), Error> {
    connection.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, [key.into()])).await?;
    Ok(())
}

async fn try_lock(connection: &impl ConnectionTrait, key: i64) -> Result<bool, Error> {
    const TRY: &str = "SELECT pg_try_advisory_xact_lock($1) AS locked";
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, TRY, [key.into()]);
    Ok(connection.query_one_raw(statement).await?.ok_or_else(Error::no_row)?.try_get("", "locked")?)
}

/// Opens the lock file exclusively; `None` if another process has locked it.
async fn open_alone(path: &Arc<PathBuf>) -> Result<Option<File>, Error> {
    let path = path.clone();
    let locked = tokio::task::spawn_blocking(move || {
        let file = open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    });
    locked.await.map_err(io::Error::other).and_then(|file| file).map_err(|error| of_io(&error))
}

fn open(path: &PathBuf) -> io::Result<File> {
    private_files::options().create(true).truncate(false).write(true).open(path)
}

fn of_io(error: &io::Error) -> Error {
    Error::Unavailable(DbErr::Custom(format!("cannot lock the file beside the database: {error}")))
}
